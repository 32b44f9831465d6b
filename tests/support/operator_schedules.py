"""The fp32 sequences of rule 10 on the operators of one lane: their operations, and a schedule that repeats.

A sequence is run on values that only remember which operation made them of what. What it leaves is a graph of
operations, which a list scheduler places on a few operators, so that the next beat can start some cycles later and
find the same places free (modulo scheduling).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest

from ltc_compiler.numerics import activations, rounding

CYCLES = {"add": 1, "multiply": 2, "divide": 14, "root": 12, "select": 1, "wide": 3, "wires": 0}
"""Cycles of each operation; docs/machine.md gives the sources. wide: an integer product of some hundred bits."""


class Traced:
    """A value as the operation that makes it, with its operands."""

    __array_ufunc__ = None  # an array on the left leaves the operation to this class

    def __init__(self, kind: str, *operands: Any, whole: bool = False) -> None:
        self.kind, self.whole = kind, whole
        self.operands = [o for o in operands if isinstance(o, Traced)]

    def _number(self, kind: str, other: Any) -> Traced:
        if self.whole or (isinstance(other, Traced) and other.whole):
            return Traced("wide" if kind == "multiply" else "wires", self, other, whole=True)
        return Traced(kind, self, other)

    def _wires(self, *others: Any) -> Traced:
        return Traced("wires", self, *others, whole=True)

    def _test(self, other: Any) -> Traced:
        return Traced("wires", self, other, whole=True)  # a select takes the comparison with it

    def __add__(self, other: Any) -> Traced:
        return self._number("add", other)

    def __mul__(self, other: Any) -> Traced:
        return self._number("multiply", other)

    def __truediv__(self, other: Any) -> Traced:
        return self._number("divide", other)

    __radd__ = __sub__ = __rsub__ = __add__
    __rmul__, __rtruediv__ = __mul__, __truediv__
    __and__ = __rand__ = __or__ = __ror__ = __xor__ = __rxor__ = __lshift__ = __rshift__ = _wires
    __gt__ = __lt__ = _test
    __eq__ = __ne__ = _test  # type: ignore[assignment]
    __hash__ = object.__hash__

    def __neg__(self) -> Traced:
        return Traced("wires", self)

    def view(self, dtype: Any) -> Traced:
        return Traced("wires", self, whole=np.dtype(dtype).kind != "f")

    def astype(self, dtype: Any) -> Traced:
        to_number = self.whole and np.dtype(dtype).kind == "f"
        return Traced("add" if to_number else "wires", self, whole=not to_number)


class _Numpy:
    """numpy as the sequences use it, on traced values too."""

    def __getattr__(self, name: str) -> Any:
        return getattr(np, name)

    def where(self, *operands: Any) -> Any:
        if not any(isinstance(o, Traced) for o in operands):
            return np.where(*operands)
        return Traced("select", *operands, whole=any(isinstance(o, Traced) and o.whole for o in operands[1:]))

    def minimum(self, *operands: Any) -> Traced:
        return Traced("wires", *operands, whole=True)

    def sqrt(self, x: Any) -> Traced:
        return Traced("root", x)

    def moveaxis(self, words: Traced, *_: int) -> list[Traced]:
        return [words] * 3


class _Rows:
    """A table that the exponent chooses a row of."""

    def __getitem__(self, index: Traced) -> Traced:
        return Traced("wires", index, whole=True)


@contextmanager
def _traced() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        plain = rounding.bits

        def numbers(x: Any) -> Any:
            return Traced("wires", x, whole=True) if isinstance(x, Traced) else plain(x)

        patch.setattr(activations, "np", _Numpy())
        patch.setattr(activations, "bits", numbers)
        patch.setattr(activations, "from_bits", lambda x: Traced("wires", x))
        patch.setattr(activations, "write_fp32", lambda x: Traced("wires", x))
        patch.setattr(activations, "_WINDOWS", _Rows())
        yield


def sequence_of(name: str) -> list[Traced]:
    """The operations of one activation in an order in which each stands behind its operands."""
    with _traced():
        result = getattr(activations, f"_{name}")(Traced("wires"))
    order: dict[Traced, None] = {}

    def visit(value: Traced) -> None:
        if value not in order:
            for o in value.operands:
                visit(o)
            order[value] = None

    visit(result)
    return list(order)


def counts(sequence: list[Traced]) -> Counter[str]:
    """Operations by kind."""
    return Counter(op.kind for op in sequence)


def longest_chain(sequence: list[Traced]) -> int:
    """Cycles of the longest chain of operations that need each other."""
    done: dict[Traced, int] = {}
    for op in sequence:
        done[op] = max((done[o] for o in op.operands), default=0) + CYCLES[op.kind]
    return max(done.values())


def schedule(sequence: list[Traced], operators: dict[str, int], interval: int) -> int | None:
    """Cycles until the result of a beat is there, if a beat starts every `interval` cycles; None if too few operators.

    Operations with the longest way to the result are placed first. operators: how many there are of each kind that is
    shared; an operator takes one operation a cycle.
    """
    if any(n > operators.get(kind, n) * interval for kind, n in counts(sequence).items()):
        return None
    way = dict.fromkeys(sequence, 0)  # from an operation's start to the result
    for op in reversed(sequence):
        way[op] += CYCLES[op.kind]
        for o in op.operands:
            way[o] = max(way[o], way[op])
    taken: Counter[tuple[str, int]] = Counter()
    done: dict[Traced, int] = {}
    waiting = dict.fromkeys(sequence)
    while waiting:
        ready = [op for op in waiting if all(o in done for o in op.operands)]
        op = max(ready, key=way.__getitem__)
        cycle = max((done[o] for o in op.operands), default=0)
        if op.kind in operators:
            while taken[op.kind, cycle % interval] == operators[op.kind]:
                cycle += 1
            taken[op.kind, cycle % interval] += 1
        done[op] = cycle + CYCLES[op.kind]
        del waiting[op]
    return max(done.values())
