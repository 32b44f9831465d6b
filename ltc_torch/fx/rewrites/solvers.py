"""torchdiffeq in a recording: `odeint` with a fixed-step method becomes a scan over the solver's steps.

While a model is recorded, `odeint` and `odeint_adjoint` are caught (catch.py). The solve is then written in torch
operations, which the recorder sees: the ODE function is recorded once, whatever the number of steps. Here stand the
call and its options, the grid of steps and the states at the times asked for; the steps themselves are in
solver_scan.py and adams.py.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ltc_compiler.errors import LtcError
from ltc_torch.fx.record.active import current, paused
from ltc_torch.fx.record.catch import caught
from ltc_torch.fx.record.sources import refuse
from ltc_torch.fx.rewrites.adams import MAX_ORDER, Adams
from ltc_torch.fx.rewrites.adaptive import METHODS, above, active, difference, tried
from ltc_torch.fx.rewrites.solver_scan import Func, Method, Solution, State, Times, runge_kutta, uniform_step
from ltc_torch.fx.rewrites.tableaux import TABLEAUX

_IMPLICIT = ("implicit_adams", "fixed_adams")
_CONVERGED = 5e-4  # half of what a recording may differ from its model


@caught("torchdiffeq._impl.odeint", "odeint")
@caught("torchdiffeq._impl.adjoint", "odeint_adjoint")
def _dispatch(original: Callable[..., Any]) -> Callable[..., Any]:
    def dispatch(func: Any, y0: Any, t: Tensor, **kwargs: Any) -> Any:
        replacement = active()
        replaced = replacement is not None and kwargs.get("method") not in METHODS
        settings = {**kwargs, **replacement.settings} if replacement is not None and replaced else kwargs
        if current() is None:
            return original(func, y0, t, **settings)
        if settings.get("method") not in METHODS and settings.get("event_fn") is None:
            raise _adaptive(original, func, y0, t, kwargs)
        solution = solve(func, y0, t, **settings)
        if replacement is not None and replaced:
            with paused():
                replacement.measure(original(func, y0, t, **kwargs), solution)
        elif settings["method"] in _IMPLICIT:
            with paused():
                _check_corrections(original(func, y0, t, **settings), solution)
        return solution

    return dispatch


def _check_corrections(wanted: Any, found: Any) -> None:
    """Refuse an implicit solve whose corrections diverge: torchdiffeq's history then depends on values."""
    apart = difference(wanted, found)
    if not apart <= _CONVERGED:
        reason = (
            f"the corrections of implicit Adams do not converge at these steps (they differ by {apart:.1g})"
        )
        raise _refuse(reason, "a smaller step_size, or method='explicit_adams'")


def _refuse(reason: str, rewrite: str) -> LtcError:
    recorder = current()
    return refuse("odeint", recorder.session.module if recorder else "", reason, rewrite)


def _adaptive(
    original: Callable[..., Any], func: Any, y0: Any, t: Tensor, settings: dict[str, Any]
) -> LtcError:
    """The refusal of an adaptive method, with a fixed step that was tried."""
    recorder = current()
    recorded = recorder is not None and recorder.depends(t)
    with paused():
        span = float((t[-1] - t[0]).abs())

        def size(n: int) -> float:
            return float(f"{span / n:.4g}")

        def fixed(n: int) -> Any:
            options = {} if recorded else {"step_size": size(n)}
            return original(func, y0, t, **{**settings, "method": "rk4", "options": options})

        found = tried(fixed, lambda: original(func, y0, t, **settings)) if span > 0 else None
    how = "method='rk4'" if recorded else f"ltc_torch.fixed_step('rk4', {size(found[0] if found else 8):g})"
    measured = (
        f", which differs by less than {above(found[1]):g} of the largest element here" if found else ""
    )
    remedy = f"{how}{measured}; or method= one of {', '.join(METHODS)}, with options={{'step_size': ...}}"
    return _refuse(f"method {settings.get('method') or 'dopri5'!r} chooses its steps by values", remedy)


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

    The fixed-step METHODS alone; `t` increasing or decreasing, constant or (without step_size) recorded. Options that a
    method does not know are passed over, as torchdiffeq does with a warning when the model itself runs.
    """
    options = dict(options or {})
    method = method or "dopri5"
    if event_fn is not None:
        raise _refuse(
            "event_fn ends the solve at a time that depends on values",
            "solve to fixed times without event_fn",
        )
    if hasattr(func, "callback_step"):
        raise _refuse("callback_step of the ODE function runs outside of the graph, between the solver's steps",
                      "move what it computes into the ODE function, or take the callback off")  # fmt: skip
    if options.get("interp", "linear") not in ("linear", "cubic"):
        raise _refuse(f"interp={options['interp']!r}", "interp='linear' or 'cubic'")
    if isinstance(y0, Tensor):
        single: Func = lambda s, y: (func(s, y[0]),)  # noqa: E731
        return _solution(_checked(single), (y0,), t, method, options, lambda y: y[0])[0]
    plain: Func = lambda s, y: tuple(func(s, y))  # noqa: E731
    return _solution(_checked(plain), tuple(y0), t, method, options, lambda y: y)


def _checked(func: Func) -> Func:
    def checked(t: Tensor, y: State) -> State:
        slopes = func(t, y)
        shapes, wanted = [tuple(k.shape) for k in slopes], [tuple(v.shape) for v in y]
        if shapes != wanted:
            remedy = "return a derivative of the state's shape, or let y0 have that of the derivative"
            raise _refuse(f"the ODE function returns the shapes {shapes} for states {wanted}", remedy)
        return slopes

    return checked


def _method(name: str, options: dict[str, Any]) -> Method:
    order = int(options.get("max_order", MAX_ORDER))
    if name in TABLEAUX:
        return runge_kutta(TABLEAUX[name])
    if order > MAX_ORDER:
        raise _refuse(f"max_order={order}", f"an order of at most {MAX_ORDER}")
    if order < 4:  # as torchdiffeq says in a warning
        return runge_kutta(TABLEAUX["rk4"])
    corrections = 0 if name == "explicit_adams" else int(options.get("max_iters", 4))
    return Adams(order, corrections)


def _solution(
    func: Func, y0: State, t: Tensor, name: str, options: dict[str, Any], user: Callable[[State], Any]
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
    if recorded and options.get("perturb"):
        raise _refuse(
            "perturb=True moves each time by one ulp, and t depends on the input", "leave perturb out"
        )
    grid = t if recorded else _grid(user, func, y0, t, options)
    on_grid = len(grid) == count and (recorded or bool((grid == t).all()))
    places = [] if on_grid or count == 2 else _places(t, grid)
    cubic = options.get("interp") == "cubic" and any(0 < f < 1 for _, f in places)
    times = _times(grid.to(y0[0].dtype), recorded, bool(options.get("perturb")))
    result = _method(name, options)(func, y0, times, count > 2, cubic)
    if count == 2:
        return tuple(torch.stack([y, last]) for y, last in zip(y0, result.final, strict=True))
    if on_grid:
        return tuple(torch.cat([y.unsqueeze(0), row]) for y, row in zip(y0, result.rows, strict=True))
    if cubic:
        return _cubic(func, y0, result, grid.to(y0[0].dtype), places)
    return _linear(y0, result, places)


def _times(grid: Tensor, recorded: bool, perturb: bool) -> Times:
    if recorded:
        return Times(grid[:-1], grid[1:] - grid[:-1])
    uniform = uniform_step(grid)
    steps = grid[1:] - grid[:-1] if uniform is None else uniform
    if not perturb:
        return Times(grid[:-1], steps)
    with paused():
        ahead = torch.nextafter(grid[:-1], grid[1:])
        before = torch.nextafter(grid[1:], grid[:-1])
    return Times(grid[:-1], steps, ahead, before)


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


def _places(t: Tensor, grid: Tensor) -> list[tuple[int, float]]:
    """For every output time but the first, the step that reaches it, and which fraction of that step it takes."""
    with paused():
        sign = -1.0 if t[0] > t[-1] else 1.0
        upper = torch.searchsorted(sign * grid, sign * t).clamp(min=1)
        return [
            (int(k) - 1, float((s - grid[k - 1]) / (grid[k] - grid[k - 1])))
            for k, s in zip(upper[1:], t[1:], strict=True)
        ]


def _linear(y0: State, solution: Solution, places: list[tuple[int, float]]) -> State:
    """States at output times that are not the grid's: torchdiffeq's linear interpolation, its weights constant."""
    found = []
    for y, row in zip(y0, solution.rows, strict=True):
        states = [y]
        for k, fraction in places:
            high = row[k]
            low = y if k == 0 else row[k - 1]
            states.append(high if fraction == 1 else low if fraction == 0 else low + (high - low) * fraction)
        found.append(torch.stack(states))
    return tuple(found)


def _cubic(func: Func, y0: State, solution: Solution, grid: Tensor, places: list[tuple[int, float]]) -> State:
    """The same by a cubic Hermite polynomial: the slope at a step's end is that at the beginning of the next."""
    last = func(grid[-1], solution.final)
    found = []
    for y, row, slope, end in zip(y0, solution.rows, solution.slopes, last, strict=True):
        states = [y]
        for k, h in places:
            size = float(grid[k + 1] - grid[k])
            low = y if k == 0 else row[k - 1]
            after = slope[k + 1] if k + 1 < len(slope) else end
            rising, falling = h * (1 - h) ** 2 * size, h * h * (h - 1) * size
            ends = low * ((1 + 2 * h) * (1 - h) ** 2) + row[k] * (h * h * (3 - 2 * h))
            states.append(row[k] if h == 1 else ends + slope[k] * rising + after * falling)
        found.append(torch.stack(states))
    return tuple(found)
