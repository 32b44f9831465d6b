"""torchdiffeq in a recording: `odeint` with a fixed-step method becomes a scan over the solver's steps.

While a model is recorded, `odeint` and `odeint_adjoint` are caught (catch.py). The solve is then written in torch
operations, which the recorder sees: the ODE function is recorded once, whatever the number of steps.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from ltc_compiler.errors import InputError, LtcError

from .catch import caught
from .record import current, paused
from .sources import refuse
from .structured import scan
from .tableaux import TABLEAUX, Tableau

State = tuple[Tensor, ...]
Func = Callable[[Tensor, State], State]

_OPTIONS = frozenset(("step_size", "grid_constructor", "perturb", "interp", "norm"))


@caught("torchdiffeq._impl.odeint", "odeint")
@caught("torchdiffeq._impl.adjoint", "odeint_adjoint")
def _dispatch(original: Callable[..., Any]) -> Callable[..., Any]:
    def dispatch(func: Any, y0: Any, t: Tensor, **kwargs: Any) -> Any:
        replacement = _replacement.active
        replaced = replacement is not None and kwargs.get("method") not in TABLEAUX
        settings = {**kwargs, **replacement.settings} if replacement is not None and replaced else kwargs
        if current() is None:
            return original(func, y0, t, **settings)
        solution = solve(func, y0, t, **settings)
        if replacement is not None and replaced:
            with paused():
                replacement.measure(original(func, y0, t, **kwargs), solution)
        return solution

    return dispatch


class fixed_step:  # noqa: N801 - read as a verb: with fixed_step("rk4", 0.05): ...
    """Around `prepare_shape`: solves with an adaptive method take this method and step size instead.

    method: a row of TABLEAUX; step_size: in the unit of t, as in torchdiffeq's options.
    `error` is, after it, the largest difference of a solution from the adaptive one on the example inputs, relative to
    that solution's largest element; None where no solve was replaced.
    """

    def __init__(self, method: str, step_size: float) -> None:
        if method not in TABLEAUX or not step_size > 0:
            allowed = f"a method of {', '.join(TABLEAUX)} and a positive step_size"
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

    def __exit__(self, *error: object) -> None:
        _replacement.active = self._outer.pop()

    def measure(self, adaptive: Any, fixed: Any) -> None:
        """Take note of how far a replaced solution is from the adaptive one."""
        pairs = zip(*([s] if isinstance(s, Tensor) else s for s in (adaptive, fixed)), strict=True)
        for a, b in pairs:
            difference = float((a - b).abs().max() / a.abs().max().clamp(min=torch.finfo(a.dtype).tiny))
            self.error = max(difference, self.error or 0.0)


class _Replacement(threading.local):
    active: fixed_step | None = None


_replacement = _Replacement()


def _refuse(reason: str, rewrite: str) -> LtcError:
    recorder = current()
    return refuse("odeint", recorder.session.module if recorder else "", reason, rewrite)


def solve(
    func: Callable[..., Any],
    y0: Any,
    t: Tensor,
    *,
    method: str | None = None,
    options: dict[str, Any] | None = None,
    event_fn: Any = None,
    **tolerances: Any,
) -> Any:
    """`torchdiffeq.odeint` in torch operations: the states at the times `t`, stacked on a new first axis.

    Fixed-step methods of TABLEAUX alone; `t` increasing or decreasing, constant or (without step_size) recorded.
    """
    options = dict(options or {})
    method = method or "dopri5"
    if event_fn is not None:
        raise _refuse(
            "event_fn ends the solve at a time that depends on values",
            "solve to fixed times without event_fn",
        )
    if method not in TABLEAUX:
        remedy = f"method= one of {', '.join(TABLEAUX)}, with options={{'step_size': ...}}, or ltc_torch.fixed_step"
        raise _refuse(f"method {method!r} chooses its steps by values or keeps a history of steps", remedy)
    if hasattr(func, "callback_step"):
        raise _refuse("callback_step of the ODE function runs outside of the graph, between the solver's steps",
                      "move what it computes into the ODE function, or take the callback off")  # fmt: skip
    if unknown := sorted(set(options) - _OPTIONS):
        raise _refuse(
            f"option {unknown[0]!r} is not known to fixed-step methods", f"options are {sorted(_OPTIONS)}"
        )
    if options.get("perturb"):
        raise _refuse("perturb=True moves t by one ulp", "leave perturb out")
    if isinstance(y0, Tensor):
        stacked = _solution(
            lambda s, y: (func(s, y[0]),), (y0,), t, TABLEAUX[method], options, lambda y: y[0]
        )
        return stacked[0]
    return _solution(lambda s, y: tuple(func(s, y)), tuple(y0), t, TABLEAUX[method], options, lambda y: y)


def _solution(
    func: Func, y0: State, t: Tensor, tableau: Tableau, options: dict[str, Any], user: Callable[[State], Any]
) -> State:
    recorder = current()
    assert recorder is not None
    if t.dim() != 1:
        raise _refuse(f"t has shape {tuple(t.shape)}, expected one dimension", "pass a 1-D tensor of times")
    count = len(t)
    if count == 1:
        return tuple(y.unsqueeze(0) for y in y0)
    recorded = recorder.depends(t)
    if recorded and (options.get("step_size") is not None or options.get("grid_constructor") is not None):
        reason = "the number of steps follows from t, which depends on the input"
        raise _refuse(reason, "leave step_size out and give t one point per step")
    grid = t if recorded else _grid(user, func, y0, t, options)
    final, rows = _integrate(func, y0, grid.to(y0[0].dtype), tableau, recorded, count > 2)
    if count == 2:
        return tuple(torch.stack([y, last]) for y, last in zip(y0, final, strict=True))
    if len(grid) == count and (recorded or bool((grid == t).all())):
        return tuple(torch.cat([y.unsqueeze(0), row]) for y, row in zip(y0, rows, strict=True))
    return _interpolated(y0, rows, t, grid, options)


def _grid(user: Callable[[State], Any], func: Func, y0: State, t: Tensor, options: dict[str, Any]) -> Tensor:
    """The times of the solver's steps, as torchdiffeq lays them."""
    with paused():
        constructor = options.get("grid_constructor")
        if constructor is not None:
            if options.get("step_size") is not None:
                raise _refuse("step_size and grid_constructor exclude each other", "give one of them")
            grid: Tensor = constructor(func, user(y0), t)
        elif options.get("step_size") is None:
            return t
        else:
            sign = -1.0 if t[0] > t[-1] else 1.0
            start, end, size = sign * t[0], sign * t[-1], float(options["step_size"])
            steps = torch.ceil((end - start) / size + 1).item()
            grid = torch.arange(0, steps, dtype=t.dtype) * size + start
            grid[-1] = end
            grid = sign * grid
        if grid[0] != t[0] or grid[-1] != t[-1]:
            raise _refuse(
                "the grid of steps does not span t", "let grid_constructor begin at t[0] and end at t[-1]"
            )
        return grid


def _integrate(
    func: Func, y0: State, grid: Tensor, tableau: Tableau, recorded: bool, rows: bool
) -> tuple[State, State]:
    """The final state, and where `rows` asks for them the states after every step."""
    uniform = None if recorded else _uniform_step(grid)
    xs = [grid[:-1]] if uniform is not None else [grid[:-1], grid[1:] - grid[:-1]]

    def step(states: list[Tensor], slices: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        dt = uniform if uniform is not None else slices[1]
        new = [*_step(func, tuple(states), slices[0], dt, tableau)]
        return new, (new if rows else [])

    final, stacked = scan(step, y0, xs, length=len(grid) - 1)
    return tuple(final), tuple(stacked)


def _uniform_step(grid: Tensor) -> float | None:
    """The step of a uniform grid, in fp64, or None.

    A grid counts as uniform when no point is farther from its place than the rounding of the times explains.
    """
    with paused():
        times = grid.double()
        step = float(times[-1] - times[0]) / (len(grid) - 1)
        ideal = times[0] + step * torch.arange(len(grid), dtype=torch.float64)
        rounding = 2 * torch.finfo(grid.dtype).eps * float(times.abs().max())
        return step if float((times - ideal).abs().max()) <= rounding else None


def _step(func: Func, y: State, t: Tensor, dt: float | Tensor, tableau: Tableau) -> State:
    slopes: list[State] = []
    for c, row in zip(tableau.c, tableau.a, strict=True):
        time = t if c == 0 else t + (dt if c == 1 else dt * c)
        at = func(time, _moved(y, slopes, row, dt))
        shapes = [tuple(k.shape) for k in at]
        if shapes != [tuple(v.shape) for v in y]:
            raise _refuse(
                f"the ODE function returns the shapes {shapes} for states {[tuple(v.shape) for v in y]}", ""
            )
        slopes.append(at)
    return _moved(y, slopes, tableau.b, dt)


def _moved(y: State, slopes: Sequence[State], weights: Sequence[float], dt: float | Tensor) -> State:
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


def _interpolated(y0: State, rows: State, t: Tensor, grid: Tensor, options: dict[str, Any]) -> State:
    """States at output times that are not the grid's: torchdiffeq's linear interpolation, its weights constant."""
    with paused():
        sign = -1.0 if t[0] > t[-1] else 1.0
        upper = torch.searchsorted(sign * grid, sign * t).clamp(min=1)
        places = [
            (int(k), float((s - grid[k - 1]) / (grid[k] - grid[k - 1])))
            for k, s in zip(upper, t, strict=True)
        ]
    if options.get("interp", "linear") != "linear" and any(f not in (0.0, 1.0) for _, f in places[1:]):
        raise _refuse("interp='cubic' between the solver's steps", "let step_size divide the distances of t")
    solution = []
    for y, row in zip(y0, rows, strict=True):
        states = [y]
        for k, fraction in places[1:]:
            high = row[k - 1]
            low = y if k == 1 else row[k - 2]
            states.append(high if fraction == 1 else low if fraction == 0 else low + (high - low) * fraction)
        solution.append(torch.stack(states))
    return tuple(solution)
