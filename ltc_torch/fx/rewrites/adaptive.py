"""Adaptive solvers: their steps depend on values, so a recording takes a fixed step instead, at a measured price.

`fixed_step` exchanges the solver around a recording. Where it is not used, the refusal of an adaptive method proposes a
fixed step that was tried on the example inputs, with its difference from the adaptive solution.
"""

from __future__ import annotations

import math
import threading
import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ltc_compiler.errors import InputError
from ltc_torch.fx.rewrites.tableaux import TABLEAUX

METHODS = (
    *TABLEAUX,
    "explicit_adams",
    "implicit_adams",
    "fixed_adams",
)  # the last is implicit_adams by its old name

_NEAR = 1e-3  # of the largest element: what a proposed step may differ by, a tenth of what bf16 weights cost
_PROPOSED = (8, 16, 32, 64, 128, 256)  # steps over the whole time


class fixed_step:  # noqa: N801 - read as a verb: with fixed_step("rk4", 0.05): ...
    """Around `prepare_shape`: solves with an adaptive method take this method and step size instead.

    Args:
        method: a fixed-step method of torchdiffeq, such as "rk4"; METHODS has them all.
        step_size: in the unit of t, as in torchdiffeq's options.

    Attributes:
        error: afterwards, the largest difference between a solution and the adaptive one on the example inputs,
            relative to the largest element of that; None where no solve was replaced. A warning says it, too.

    Raises:
        InputError: an unknown method, or a step size that is not positive.
    """

    def __init__(self, method: str, step_size: float) -> None:
        if method not in METHODS or not step_size > 0:
            allowed = f"a method of {', '.join(METHODS)} and a positive step_size"
            raise InputError(
                f"fixed_step({method!r}, {step_size!r})", where="fixed_step", remedy=f"give {allowed}"
            )
        self.settings: dict[str, Any] = {"method": method, "options": {"step_size": step_size}}
        self.error: float | None = None
        self._outer: list[fixed_step | None] = []

    def __enter__(self) -> fixed_step:
        self._outer.append(_replacement.active)
        _replacement.active = self
        return self

    def __exit__(self, kind: type[BaseException] | None, *error: object) -> None:
        _replacement.active = self._outer.pop()
        if kind is None and self.error is not None:
            step = f"fixed_step({self.settings['method']!r}, {self.settings['options']['step_size']:g})"
            what = f"{step} differs from the adaptive solution by {self.error:.2g} of its largest element"
            warnings.warn(f"{what}, on the example inputs", stacklevel=2)

    def measure(self, adaptive: Any, fixed: Any) -> None:
        """Note how far a replaced solution is from the adaptive one; the recorder calls it.

        Args:
            adaptive: the solution of the adaptive method: a tensor, or a tuple of tensors.
            fixed: the solution of the fixed step, of the same form.
        """
        self.error = max(difference(adaptive, fixed), self.error or 0.0)


class _Replacement(threading.local):
    active: fixed_step | None = None


_replacement = _Replacement()


def active() -> fixed_step | None:
    """The fixed step that this thread's recording takes instead of adaptive ones."""
    return _replacement.active


def difference(wanted: Any, found: Any) -> float:
    """The largest of two solutions, relative to the first one's largest element."""
    pairs = zip(*([s] if isinstance(s, Tensor) else s for s in (wanted, found)), strict=True)
    tiny = torch.finfo(torch.float32).tiny
    return max(float((a - b).abs().max() / a.abs().max().clamp(min=tiny)) for a, b in pairs)


def above(error: float) -> float:
    """The next number of one digit above an error, from 1e-5 on: what is below is rounding."""
    scale = 10.0 ** math.floor(math.log10(max(error, 1e-6)))
    return max(1e-5, round((math.floor(error / scale) + 1) * scale, 12))


def tried(solve: Callable[[int], Any], adaptive: Callable[[], Any]) -> tuple[int, float] | None:
    """The least of a few numbers of rk4 steps whose solution is near the adaptive one, else the best; and its error.

    None where neither can be computed here, as where the method needs SciPy, or where all solutions overflow.
    """
    try:
        wanted = adaptive()
        errors = [(n, difference(wanted, solve(n))) for n in _PROPOSED[:1]]
        while errors[-1][1] > _NEAR and len(errors) < len(_PROPOSED):
            n = _PROPOSED[len(errors)]
            errors.append((n, difference(wanted, solve(n))))
    except (ArithmeticError, AssertionError, ImportError, RuntimeError, TypeError, ValueError):
        return None
    finite = [(n, e) for n, e in errors if e < float("inf")]
    return min(finite, key=lambda pair: (max(pair[1], _NEAR), pair[0])) if finite else None
