"""Numbers that notice what they are compared with: at which counts a forward would do something else.

A count that a model keeps may matter only after hundreds of calls, at a number that stands in a setting. Put in the
count's place, `counting` computes as the number does, follows sums, products and remainders, and notes the counts at
which a comparison would have another result.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from typing import Any


def counting(value: int | float, step: int | float, found: set[int | float]) -> Any:
    """A number like `value`. found: gets the counts of the form value + n * step at which something may change."""
    kind = _Whole if isinstance(value, int) else _Real
    return kind(value)._of(_Count(value, step, found), 1, 0)


class _Count:
    def __init__(self, value: int | float, step: int | float, found: set[int | float]) -> None:
        self.value, self.step, self.found = value, step, found

    def note(self, root: float) -> None:
        """Something changes where the count passes `root`."""
        if not math.isfinite(root) or not self.step or abs(root) > 2**53:
            return
        ahead = math.floor((root - self.value) / self.step)
        self.found |= {self.value + n * self.step for n in range(ahead - 1, ahead + 3) if n >= 0}


class _Noticing:
    """scale * count + offset."""

    count: _Count
    scale: float
    offset: float

    def _of(self, count: _Count, scale: float, offset: float) -> Any:
        self.count, self.scale, self.offset = count, scale, offset
        return self

    def _made(self, value: Any, scale: float, offset: float) -> Any:
        if type(value) not in (int, float) or not scale:
            return value
        return (_Whole if type(value) is int else _Real)(value)._of(self.count, scale, offset)

    def _note(self, level: float) -> None:
        self.count.note((level - self.offset) / self.scale)

    def __bool__(self) -> bool:
        self._note(0)
        return bool(_plain(self))


def _plain(x: Any) -> Any:
    kind: Any = int if isinstance(x, int) else float
    return kind(x) if isinstance(x, _Noticing) else x


def _compared(compare: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
    def noticed(self: Any, other: Any) -> Any:
        if not isinstance(other, (int, float)):
            return NotImplemented
        self._note(_plain(other))
        return compare(_plain(self), _plain(other))

    return noticed


def _computed(
    compute: Callable[[Any, Any], Any], line: Callable[[Any, Any, Any], tuple[Any, Any]]
) -> Callable[[Any, Any], Any]:
    """line: the scale and the offset of the result, from the number's own and the other operand."""

    def noticed(self: Any, other: Any) -> Any:
        if not isinstance(other, (int, float)):
            return NotImplemented
        value = compute(_plain(self), _plain(other))
        return self._made(value, *line(self.scale, self.offset, _plain(other)))

    return noticed


def _floor(self: Any, other: Any) -> Any:
    if not isinstance(other, (int, float)):
        return NotImplemented
    value, other = _plain(self), _plain(other)
    whole = value // other
    for n in (whole, whole + 1):
        self._note(n * other)
    return whole


def _remainder(self: Any, other: Any) -> Any:
    whole = _floor(self, other)
    if whole is NotImplemented:
        return whole
    return self._made(_plain(self) % _plain(other), self.scale, self.offset - whole * _plain(other))


_METHODS: dict[str, Any] = {
    **{f"__{n}__": _compared(getattr(operator, n)) for n in ("lt", "le", "gt", "ge", "eq", "ne")},
    "__add__": _computed(operator.add, lambda s, o, x: (s, o + x)),
    "__radd__": _computed(operator.add, lambda s, o, x: (s, o + x)),
    "__sub__": _computed(operator.sub, lambda s, o, x: (s, o - x)),
    "__rsub__": _computed(lambda a, b: b - a, lambda s, o, x: (-s, x - o)),
    "__mul__": _computed(operator.mul, lambda s, o, x: (s * x, o * x)),
    "__rmul__": _computed(operator.mul, lambda s, o, x: (s * x, o * x)),
    "__truediv__": _computed(operator.truediv, lambda s, o, x: (s / x, o / x)),
    "__neg__": lambda self: self._made(-_plain(self), -self.scale, -self.offset),
    "__hash__": lambda self: hash(_plain(self)),
    "__floordiv__": _floor,
    "__mod__": _remainder,
}
_Whole = type("_Whole", (_Noticing, int), dict(_METHODS))
_Real = type("_Real", (_Noticing, float), dict(_METHODS))
