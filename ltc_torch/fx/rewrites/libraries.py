"""Solvers of torchdyn, torchode, torchcde and torchsde in a recording, without importing what the user has not.

torchdyn's fixed-step methods become one scan over the steps; torchode's FixedStepController is recorded step by step.
Adaptive step sizes are refused with a fixed step that was tried, stochastic solvers by their name.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ltc_compiler.errors import LtcError
from ltc_torch.fx.record.active import current, paused
from ltc_torch.fx.record.catch import Function, caught
from ltc_torch.fx.record.sources import refuse
from ltc_torch.fx.record.structured import scan
from ltc_torch.fx.rewrites.adaptive import above, tried
from ltc_torch.fx.rewrites.solver_scan import uniform_step


def _refuse(name: str, reason: str, rewrite: str) -> LtcError:
    recorder = current()
    return refuse(name, recorder.session.module if recorder else "", reason, rewrite)


def _depends(x: Any) -> bool:
    recorder = current()
    return recorder is not None and isinstance(x, Tensor) and recorder.depends(x)


# ---------------------------------------------------------------- torch


@caught("torch._higher_order_ops.cond", "cond")
def _cond(original: Function) -> Function:
    def dispatch(pred: Any, true_fn: Any, false_fn: Any, operands: Any = ()) -> Any:
        if not _depends(pred):
            return original(pred, true_fn, false_fn, operands)
        reason = "runs one of two functions by the value of a tensor"
        raise _refuse("torch.cond", reason, "torch.where(condition, f(x), g(x))")

    return dispatch


# ---------------------------------------------------------------- torchdyn


@caught("torchdyn.numerics.odeint", "odeint")
def _odeint(original: Function) -> Function:
    def dispatch(f: Any, x: Any, t_span: Any, solver: Any, *args: Any, **kwargs: Any) -> Any:
        adaptive = solver in ("dopri5", "tsit5", "DormandPrince45", "Tsitouras45") if isinstance(solver, str) else (
            getattr(solver, "stepping_class", "fixed") == "adaptive"
        )  # fmt: skip
        if current() is None or not adaptive:
            return original(f, x, t_span, solver, *args, **kwargs)
        name = solver if isinstance(solver, str) else type(solver).__name__
        with paused():
            ends = torch.stack([t_span[0], t_span[-1]])

            def fixed(n: int) -> Any:
                return original(f, x, torch.linspace(float(ends[0]), float(ends[1]), n + 1), "rk4")[1][-1]

            found = tried(fixed, lambda: original(f, x, t_span, solver, *args, **kwargs)[1][-1])
        count, error = found if found else (8, 0.0)
        measured = f", whose last state differs by less than {above(error):g} here" if found else ""
        remedy = (
            f"solver='rk4' and torch.linspace({float(ends[0]):g}, {float(ends[1]):g}, {count + 1}){measured}"
        )
        raise _refuse("torchdyn.odeint", f"solver {name!r} chooses its steps by values", remedy)

    return dispatch


@caught("torchdyn.numerics.odeint", "_fixed_odeint")
def _fixed_odeint(original: Function) -> Function:
    def dispatch(f: Any, x: Any, t_span: Any, solver: Any, save_at: Any = (), args: Any = {}) -> Any:  # noqa: B006
        if current() is None or not isinstance(x, Tensor) or _depends(t_span) or _depends(save_at):
            return original(f, x, t_span, solver, save_at=save_at, args=args)
        return _steps(f, x, t_span, solver, save_at if len(save_at) else t_span, args)

    return dispatch


def _steps(f: Callable[..., Any], x: Tensor, t_span: Tensor, solver: Any, save_at: Any, args: Any) -> Any:
    """The states at `save_at`, points of `t_span`, as torchdyn returns them: the times and the stacked states."""
    with paused():
        save_at = torch.as_tensor(save_at)
        kept = [k for k, t in enumerate(t_span) if torch.isclose(t, save_at).any()]
        even = uniform_step(t_span)
        sizes = None if even is not None else t_span[1:] - t_span[:-1]
        size = torch.tensor(even, dtype=t_span.dtype) if even is not None else t_span

    def step(states: list[Tensor], slices: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        new = solver.step(
            f, states[0], slices[0], slices[1] if sizes is not None else size, k1=None, args=args
        )[1]
        return [new], [new]

    columns = [t_span[:-1]] if sizes is None else [t_span[:-1], sizes]
    _, (rows,) = scan(step, [x], columns, length=len(t_span) - 1)
    states = torch.cat([x.unsqueeze(0), rows])
    return save_at, states if len(kept) == len(t_span) else torch.stack([states[k] for k in kept])


# ---------------------------------------------------------------- torchode


@caught("torchode.adjoints", "AutoDiffAdjoint.solve")
def _autodiff(original: Function) -> Function:
    def dispatch(solver: Any, *args: Any, **kwargs: Any) -> Any:
        controller = type(solver.step_size_controller).__name__
        if current() is not None and controller != "FixedStepController":
            reason = f"torchode's {controller} chooses its steps by values"
            raise _refuse("torchode", reason, "torchode.FixedStepController(), and solve(problem, dt0=step)")
        return original(solver, *args, **kwargs)

    return dispatch


# ---------------------------------------------------------------- torchcde


def _coefficients(original: Function) -> Function:
    """What makes a path of observations looks for missing ones, and fills them in."""

    def dispatch(x: Any, *args: Any, **kwargs: Any) -> Any:
        if _depends(x):
            reason = "torchcde looks for missing values in the observations, and makes another path then"
            raise _refuse(
                "torchcde", reason, "make the coefficients outside of the model, and pass them as its input"
            )
        return original(x, *args, **kwargs)

    return dispatch


for _module, _name in (
    ("interpolation_linear", "linear_interpolation_coeffs"),
    ("interpolation_cubic", "natural_cubic_coeffs"),
    ("interpolation_hermite_cubic_bdiff", "hermite_cubic_coefficients_with_backward_differences"),
):
    caught(f"torchcde.{_module}", _name)(_coefficients)


# ---------------------------------------------------------------- torchsde


def _stochastic(original: Function) -> Function:
    def dispatch(*args: Any, **kwargs: Any) -> Any:
        if current() is not None:
            reason = "torchsde draws random numbers in every step"
            raise _refuse(
                "torchsde", reason, "an ODE solver (torchcde: backend='torchdiffeq'), or sample outside"
            )
        return original(*args, **kwargs)

    return dispatch


caught("torchsde._core.sdeint", "sdeint")(_stochastic)
caught("torchsde._core.adjoint", "sdeint_adjoint")(_stochastic)
