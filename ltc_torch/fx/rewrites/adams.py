"""Adams methods: linear multistep methods over a history of slopes, as torchdiffeq runs them on a fixed grid.

The first two steps are Kutta's 3/8 rule; from then on the order grows with the history, up to max_order - 1. The
implicit method predicts with the explicit one and corrects a fixed number of times. torchdiffeq stops correcting
where two corrections agree within its tolerance, and forgets a slope where they do not; both depend on values, and
change the solution by less than the method's own error as long as the corrections converge.
Source of the coefficients: Hairer, Norsett, Wanner, Solving Ordinary Differential Equations I, section III.1.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from fractions import Fraction
from functools import cache

import torch
from torch import Tensor

from ltc_torch.fx.record.active import paused
from ltc_torch.fx.record.structured import scan
from ltc_torch.fx.rewrites.solver_scan import Func, Now, Solution, State, Times, runge_kutta
from ltc_torch.fx.rewrites.tableaux import TABLEAUX

MAX_ORDER = 12  # torchdiffeq's
_NOISY = 20  # gain of rounding, per unit of step, from which on the user is warned: from order 6 on
_FIRST = 2  # steps of the one-step method, which give the shortest history used


@cache
def weights(order: int, implicit: bool) -> tuple[float, ...]:
    """The weights of the slopes of a step of size 1, the newest slope first; order of the method and their number.

    They integrate, over the step from 0 to 1, the polynomial through the slopes at 0, -1, -2, ..., or for the implicit
    method at 1, 0, -1, ...: exact rationals, rounded once.
    """
    nodes = [Fraction(int(implicit) - k) for k in range(order)]
    found = []
    for k, node in enumerate(nodes):
        polynomial = [Fraction(1)]  # of the others, coefficients from the constant up
        for j, other in enumerate(nodes):
            if j != k:
                shifted = [Fraction(0), *polynomial]
                scaled = [*(c * other for c in polynomial), Fraction(0)]
                polynomial = [(a - b) / (node - other) for a, b in zip(shifted, scaled, strict=True)]
        found.append(float(sum((c / (i + 1) for i, c in enumerate(polynomial)), Fraction(0))))
    return tuple(found)


@dataclass(frozen=True)
class Adams:
    """max_order: one more than the longest history; corrections: of the implicit method, 0 for the explicit one."""

    max_order: int
    corrections: int

    def __call__(self, func: Func, y: State, times: Times, rows: bool, slopes: bool) -> Solution:
        start = runge_kutta(TABLEAUX["rk4"])
        if len(times) <= _FIRST:
            return start(func, y, times, rows, slopes)
        first = start(func, y, times.cut(0, _FIRST), rows, True)
        rest = self._rest(func, first, times.cut(_FIRST, len(times)), rows, slopes)
        both = [
            tuple(torch.cat([a, b]) for a, b in zip(one, two, strict=False))
            for one, two in ((first.rows, rest.rows), (first.slopes, rest.slopes))
        ]
        return Solution(rest.final, *both)

    def _rest(self, func: Func, first: Solution, times: Times, rows: bool, slopes: bool) -> Solution:
        """The steps with a history, which the scan carries as one value a slope and state, the newest first."""
        count = min(self.max_order - 1, len(times) + _FIRST)  # slopes of a step, its own first one included
        size = len(first.final)
        zeros = [torch.zeros_like(y) for y in first.final]
        history = [
            [f[_FIRST - 1 - k] for f in first.slopes] if k < _FIRST else zeros for k in range(count - 1)
        ]
        orders = [min(_FIRST + 1 + n, count) for n in range(len(times))]
        self._warn_of_noise(orders[-1])
        columns = times.columns()
        tables = [_table(orders, count, kind, times.starts) for kind in self._kinds()]
        scanned = [table for table in tables if isinstance(table, Tensor)]

        def step(states: list[Tensor], slices: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
            now = times.at(slices[: len(columns)])
            y = tuple(states[:size])
            older = [tuple(states[k : k + size]) for k in range(size, len(states), size)]
            slope = func(now.ahead, y)
            past = [slope, *older]
            scaled = iter(slices[len(columns) :])
            present = [next(scaled) if isinstance(table, Tensor) else table for table in tables]
            change = self._change(func, y, past, now, [_times_size(p, now.size) for p in present])
            new = tuple(a + b for a, b in zip(y, change, strict=True))
            carried = [t for state in (new, *past[: count - 1]) for t in state]
            return carried, [*(new if rows else ()), *(slope if slopes else ())]

        carries = [*first.final, *(t for state in history for t in state)]
        final, stacked = scan(step, carries, [*columns, *scanned], length=len(times))
        split = size if rows else 0
        return Solution(tuple(final[:size]), tuple(stacked[:split]), tuple(stacked[split:]))

    def _warn_of_noise(self, order: int) -> None:
        gain = sum(map(abs, weights(order, False)))
        if not self.corrections and gain > _NOISY:
            what = f"explicit_adams reaches the order {order}, which multiplies the rounding of slopes by {gain:.0f}"
            warnings.warn(f"{what}; options={{'max_order': 5}} keeps that below 7", stacklevel=2)

    def _kinds(self) -> tuple[bool, ...]:
        return (False, True) if self.corrections else (False,)

    def _change(self, func: Func, y: State, past: list[State], now: Now, tables: list[list[Tensor]]) -> State:
        predicted = _combined(past, tables[0])
        if not self.corrections:
            return predicted
        newest, *others = tables[1]
        known = _combined(past, others)

        def correct(states: list[Tensor], _: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
            slope = func(now.before, tuple(a + b for a, b in zip(y, states, strict=True)))
            return [f * newest + k for f, k in zip(slope, known, strict=True)], []

        return tuple(scan(correct, predicted, [], length=self.corrections)[0])


def _table(orders: list[int], count: int, implicit: bool, like: Tensor) -> Tensor | list[float]:
    """The weights of every step, (steps, weights), zero beyond its order; one list where all steps have the same."""
    extra = int(implicit)
    lists = [[*weights(n + extra, implicit), *[0.0] * (count - n)] for n in orders]
    if all(row == lists[0] for row in lists):
        return lists[0]
    with paused():
        table = torch.tensor(lists, dtype=torch.float64)
    return table.to(like.dtype)


def _times_size(table: Tensor | list[float], size: Tensor | float) -> list[Tensor]:
    return [(table[k] * size) for k in range(len(table))]  # type: ignore[misc]


def _combined(slopes: list[State], scales: list[Tensor]) -> State:
    """The sum of slopes times their scales, state by state; a scale of zero takes no part."""
    found = []
    for parts in zip(*slopes, strict=True):
        terms = [f * s for f, s in zip(parts, scales, strict=True) if isinstance(s, Tensor) or s != 0]
        total = terms[0]
        for term in terms[1:]:
            total = total + term
        found.append(total)
    return tuple(found)
