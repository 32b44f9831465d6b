"""Constants in double precision.

What does not depend on an input runs eagerly, in the model's own precision. Constants that the user derives from
parameters (softplus of a time constant, the product of two weights) must be folded in fp64 and rounded once, so the
same call runs a second time on fp64 copies, and its result is kept beside the tensor that the model sees.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils import _pytree as pytree

NARROW = (torch.float32, torch.bfloat16, torch.float16)


def is_inexact(tensor: Tensor) -> bool:
    """Whether a tensor holds real or complex numbers in floating point."""
    return tensor.is_floating_point() or tensor.is_complex()


def widest(tensor: Tensor) -> Tensor:
    """A tensor's value in fp64 or complex fp64; integers and booleans as they are."""
    if tensor.is_complex():
        return tensor.detach().to(torch.complex128)
    return tensor.detach().double() if tensor.is_floating_point() else tensor.detach()


def in_numpy(tensor: Tensor) -> NDArray[Any]:
    """A tensor's value as an array of fp64 or complex fp64. No part of it is lost."""
    array = widest(tensor).resolve_conj().resolve_neg().numpy()
    return array if tensor.is_complex() else array.astype(np.float64)


def widened(array: NDArray[Any]) -> NDArray[Any]:
    """What `Exact.array` gave, in fp64 or complex fp64."""
    return array if np.iscomplexobj(array) else array.astype(np.float64, copy=False)


class Exact:
    """The fp64 twins of tensors that were computed from other tensors."""

    def __init__(self) -> None:
        self._twins: dict[int, tuple[Tensor, int, Tensor]] = {}  # id -> (the tensor, its version, the twin)

    def twin(self, tensor: Tensor) -> Tensor:
        """The fp64 value of a tensor: its own, widened, where no better is known."""
        known = self._known(tensor)
        return widest(tensor) if known is None else known

    def array(self, tensor: Tensor, is_held: bool = False) -> NDArray[Any]:
        """The value in fp64 or complex fp64; in fp32 where nothing is lost so, as for nearly all weights: a view of the
        tensor itself, if the graph holds that."""
        if tensor.dtype in NARROW and self._known(tensor) is None:
            array = tensor.detach().float().numpy()
            return array if is_held else array.copy()
        return in_numpy(self.twin(tensor))

    def _known(self, tensor: Tensor) -> Tensor | None:
        found = self._twins.get(id(tensor))
        return found[2] if found is not None and found[1] == tensor._version else None

    def keep(self, tensor: Tensor, wide: Tensor) -> None:
        """Take note of a tensor's fp64 value."""
        self._twins[id(tensor)] = (tensor, tensor._version, wide)

    def call(self, func: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        """Run a function on constants, and on their twins."""
        out = func(*args, **kwargs)
        leaves = pytree.tree_leaves((args, kwargs))
        floats = any(isinstance(a, Tensor) and is_inexact(a) for a in leaves)
        results = [t for t in pytree.tree_leaves(out) if isinstance(t, Tensor)]
        if not floats or not any(map(is_inexact, results)):
            return out
        if any(t is a for t in results for a in leaves if isinstance(a, Tensor)):
            return out  # an in-place function, or one that returned its argument
        try:
            wide = func(*self._widen(args), **self._widen(kwargs))
        except (RuntimeError, TypeError, ValueError):
            return out  # a function that mixes in a tensor of a fixed precision: the widened result stands
        for t, w in zip(results, (t for t in pytree.tree_leaves(wide) if isinstance(t, Tensor)), strict=True):
            if is_inexact(t) and w.shape == t.shape and w.is_complex() == t.is_complex():
                self.keep(t, widest(w))
        return out

    def _widen(self, tree: Any) -> Any:
        def one(leaf: Any) -> Any:
            if isinstance(leaf, Tensor):
                return self.twin(leaf)
            if isinstance(leaf, torch.dtype) and leaf.is_complex:
                return torch.complex128
            return torch.float64 if isinstance(leaf, torch.dtype) and leaf.is_floating_point else leaf

        return pytree.tree_map(one, tree)
