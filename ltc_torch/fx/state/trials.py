"""Calls of copies of a model, compared: what the model holds before and after, and whether two models do the same."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from ltc_torch.fx.state.copies import called, copied, plain
from ltc_torch.fx.state.held import Held, Path, held, spelled


@dataclass
class Seen:
    """What a model holds after a call: the tensors as objects, how often each was written, the bytes of arrays."""

    held: Held
    versions: dict[Path, int]
    arrays: dict[Path, bytes]

    @classmethod
    def of(cls, model: nn.Module) -> Seen:
        found = held(model)
        versions = {p: 0 if t.is_inference() else t._version for p, t in found.tensors.items()}
        return cls(found, versions, {path: array.tobytes() for path, array in found.arrays.items()})

    def touched(self, later: Seen) -> set[Path]:
        """The paths whose tensors a call made, dropped, replaced or wrote into between here and `later`."""
        mine, theirs = self.held.tensors, later.held.tensors
        same = {
            path
            for path in set(mine) & set(theirs)
            if mine[path] is theirs[path] and self.versions[path] == later.versions[path]
        }
        return (set(mine) | set(theirs)) - same

    def changed(self, later: Seen) -> dict[Path, tuple[Any, Any]]:
        """The plain values and arrays that differ between here and `later`."""
        mine, theirs = self.held.plain, later.held.plain
        differing = {p for p in set(mine) | set(theirs) if repr(mine.get(p)) != repr(theirs.get(p))}
        differing |= {path for path, value in self.arrays.items() if later.arrays.get(path) != value}
        whole = {p[:-1] if isinstance(p[-1], int) and (p in mine) != (p in theirs) else p for p in differing}
        return {path: (mine.get(path), theirs.get(path)) for path in sorted(whole, key=spelled)}


def same_elements(a: Tensor, b: Tensor) -> bool:
    """Whether two tensors hold the same elements; NaN is NaN, and -0 is 0."""
    if a is b:
        return True
    if a.shape != b.shape or a.dtype != b.dtype:
        return False
    return torch.equal(a, b) or bool(((a == b) | ((a != a) & (b != b))).all())


def written(before: Mapping[Path, Tensor], after: Mapping[Path, Tensor]) -> set[Path]:
    """The paths at which other values stand: what was written past torch's counters (through `.data`), too."""
    return {path for path in before.keys() & after.keys() if not same_elements(before[path], after[path])}


@dataclass
class Trial:
    """What a call did: its outputs, and the values of states after it."""

    inputs: Any
    output: Any
    after: Mapping[Path, Tensor | None]

    @classmethod
    def of(cls, model: nn.Module, inputs: Any, states: Iterable[Path]) -> Trial:
        model = copied(model)
        output = called(model, inputs)
        tensors = held(model).tensors
        return cls(inputs, output, {path: tensors.get(path) for path in states})

    def only(self, states: Iterable[Path]) -> Trial:
        return Trial(self.inputs, self.output, {path: self.after[path] for path in states})

    def is_same(self, model: nn.Module) -> bool:
        """Whether a copy of `model` does the same."""
        try:
            other = Trial.of(model, self.inputs, self.after)
        except Exception:  # whatever it is, the call that is compared with did not raise it
            return False
        mine, theirs = _leaves(self.output), _leaves(other.output)
        if len(mine) != len(theirs):
            return False
        pairs = list(zip(mine, theirs, strict=True))
        pairs += [(value, other.after[path]) for path, value in self.after.items()]
        tensors = [(a, b) for a, b in pairs if isinstance(a, Tensor) or isinstance(b, Tensor)]
        return all(
            isinstance(a, Tensor) and isinstance(b, Tensor) and same_elements(a, b) for a, b in tensors
        )


def _leaves(outputs: Any) -> list[Any]:
    return pytree.tree_leaves(plain(outputs))
