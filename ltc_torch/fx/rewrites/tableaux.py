"""Explicit Runge-Kutta methods as data: the fixed-step solvers of torchdiffeq, one row each.

A tableau checks its own mathematics when it is built: consistency, and the conditions of the order that it claims.
Source of the conditions: Hairer, Norsett, Wanner, Solving Ordinary Differential Equations I, section II.2.
"""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Tableau:
    """Stage i evaluates f at t + c[i] dt and y + dt * sum_j a[i][j] k_j; the step is dt * sum_i b[i] k_i."""

    order: int
    c: tuple[float, ...]
    a: tuple[tuple[float, ...], ...]  # row i has i entries
    b: tuple[float, ...]

    def __post_init__(self) -> None:
        stages = range(len(self.b))
        if len(self.c) != len(self.b) or [len(row) for row in self.a] != list(stages):
            raise ValueError("a tableau needs c, b and rows of a of the lengths n, n and 0 to n - 1")
        ac = [sum(self.a[i][j] * self.c[j] for j in range(i)) for i in stages]
        ac2 = [sum(self.a[i][j] * self.c[j] ** 2 for j in range(i)) for i in stages]
        aac = [sum(self.a[i][j] * ac[j] for j in range(i)) for i in stages]
        conditions = [(1, sum(self.b), 1.0)]
        conditions += [(2, self._weighted(self.c), 1 / 2)]
        conditions += [(3, self._weighted([c**2 for c in self.c]), 1 / 3), (3, self._weighted(ac), 1 / 6)]
        conditions += [(4, self._weighted([c**3 for c in self.c]), 1 / 4)]
        conditions += [(4, self._weighted([c * x for c, x in zip(self.c, ac, strict=True)]), 1 / 8)]
        conditions += [(4, self._weighted(ac2), 1 / 12), (4, self._weighted(aac), 1 / 24)]
        conditions += [(1, sum(row), c) for row, c in zip(self.a, self.c, strict=True)]
        for order, value, wanted in conditions:
            if order <= self.order and not math.isclose(value, wanted, abs_tol=1e-12):
                raise ValueError(f"a condition of order {order} gives {value}, expected {wanted}")

    def _weighted(self, values: list[float] | tuple[float, ...]) -> float:
        return sum(b * v for b, v in zip(self.b, values, strict=True))


TABLEAUX: dict[str, Tableau] = {
    "euler": Tableau(1, (0.0,), ((),), (1.0,)),
    "midpoint": Tableau(2, (0.0, 1 / 2), ((), (1 / 2,)), (0.0, 1.0)),
    "heun2": Tableau(2, (0.0, 1.0), ((), (1.0,)), (1 / 2, 1 / 2)),
    "heun3": Tableau(3, (0.0, 1 / 3, 2 / 3), ((), (1 / 3,), (0.0, 2 / 3)), (1 / 4, 0.0, 3 / 4)),
    # torchdiffeq's rk4 is Kutta's 3/8 rule
    "rk4": Tableau(
        4,
        (0.0, 1 / 3, 2 / 3, 1.0),
        ((), (1 / 3,), (-1 / 3, 1.0), (1.0, -1.0, 1.0)),
        (1 / 8, 3 / 8, 3 / 8, 1 / 8),
    ),
}
