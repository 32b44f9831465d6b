"""The steps of a fixed-step solver as one scan: their times, what a method returns, and the Runge-Kutta methods.

A method is a function from the ODE and the times of its steps to a Solution. The step that a scan carries is written
in torch operations, so that the recorder sees it once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from ltc_torch.fx.record.active import paused
from ltc_torch.fx.record.structured import scan
from ltc_torch.fx.rewrites.tableaux import Tableau

State = tuple[Tensor, ...]
Func = Callable[[Tensor, State], State]


class Solution(NamedTuple):
    """final: the last state; rows: the states after every step; slopes: the ODE's value where every step begins.

    Rows and slopes are stacked on a new first axis, and empty where they were not asked for.
    """

    final: State
    rows: State = ()
    slopes: State = ()


class Method(Protocol):
    """Solves an ODE from y over the steps of `times`."""

    def __call__(self, func: Func, y: State, times: Times, rows: bool, slopes: bool) -> Solution: ...


@dataclass(frozen=True)
class Times:
    """When each step begins and how long it takes: one number where all steps are equal.

    ahead, before: the times, one ulp inside the step, that torchdiffeq's `perturb` gives the ODE function at a step's
    beginning and end.
    """

    starts: Tensor
    sizes: Tensor | float
    ahead: Tensor | None = None
    before: Tensor | None = None

    def __len__(self) -> int:
        return len(self.starts)

    def columns(self) -> list[Tensor]:
        """What a scan over the steps runs along."""
        found = [self.starts, self.sizes, self.ahead, self.before]
        return [column for column in found if isinstance(column, Tensor)]

    def at(self, slices: Sequence[Tensor]) -> Now:
        """The present step, from the slices of `columns()`."""
        rest = list(slices)
        start = rest.pop(0)
        size = rest.pop(0) if isinstance(self.sizes, Tensor) else self.sizes
        ahead, before = rest if rest else (start, start + size)
        return Now(start, size, ahead, before)

    def cut(self, first: int, last: int) -> Times:
        """The steps from `first` to below `last`."""
        parts = (c[first:last] if isinstance(c, Tensor) else c for c in (self.starts, self.sizes))
        return Times(*parts, *(None if c is None else c[first:last] for c in (self.ahead, self.before)))  # type: ignore[arg-type]


class Now(NamedTuple):
    """One step: its beginning, its size, and the times at which its first and last slopes are taken."""

    start: Tensor
    size: Tensor | float
    ahead: Tensor
    before: Tensor


def uniform_step(grid: Tensor) -> float | None:
    """The step of a uniform grid, in fp64, or None.

    A grid counts as uniform when no point is farther from its place than the rounding of the times explains.
    """
    with paused():
        times = grid.double()
        step = float(times[-1] - times[0]) / (len(grid) - 1)
        ideal = times[0] + step * torch.arange(len(grid), dtype=torch.float64)
        rounding = 2 * torch.finfo(grid.dtype).eps * float(times.abs().max())
        return step if float((times - ideal).abs().max()) <= rounding else None


def runge_kutta(tableau: Tableau) -> Method:
    """The explicit method of a tableau."""

    def solve(func: Func, y: State, times: Times, rows: bool, slopes: bool) -> Solution:
        def step(states: list[Tensor], slices: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
            new, first = _step(func, tuple(states), times.at(slices), tableau)
            return [*new], [*(new if rows else ()), *(first if slopes else ())]

        final, stacked = scan(step, y, times.columns(), length=len(times))
        split = len(y) if rows else 0
        return Solution(tuple(final), tuple(stacked[:split]), tuple(stacked[split:]))

    return solve


def _step(func: Func, y: State, now: Now, tableau: Tableau) -> tuple[State, State]:
    """The state after a step, and the first slope."""
    slopes: list[State] = []
    for c, row in zip(tableau.c, tableau.a, strict=True):
        time = now.ahead if c == 0 else now.before if c == 1 else now.start + now.size * c
        slopes.append(func(time, moved(y, slopes, row, now.size)))
    return moved(y, slopes, tableau.b, now.size), slopes[0]


def moved(y: State, slopes: Sequence[State], weights: Sequence[float], dt: float | Tensor) -> State:
    """y + dt * sum of weights times slopes, in as few multiplications as the weights allow."""
    groups: dict[
        float, list[tuple[bool, int]]
    ] = {}  # size of a weight -> the slopes it goes with: (negative, index)
    for i, weight in enumerate(weights):
        if weight != 0:
            groups.setdefault(abs(weight), []).append((weight < 0, i))
    new = list(y)
    for position in range(len(y)):
        for weight, members in groups.items():
            (lowered, first), *others = sorted(members)  # positive ones first
            total = slopes[first][position]
            for negative, i in others:
                total = total - slopes[i][position] if negative != lowered else total + slopes[i][position]
            change = total * (dt if weight == 1 else dt * weight)
            new[position] = new[position] - change if lowered else new[position] + change
    return tuple(new)
