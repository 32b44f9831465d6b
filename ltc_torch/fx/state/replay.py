"""The recorded graph gives what the model gives, call by call."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.utils import _pytree as pytree

from ltc_compiler.errors import LtcError, Unsupported, UnsupportedError
from ltc_torch.fx.state import probes
from ltc_torch.fx.state.carried import NO_STATES, States
from ltc_torch.fx.state.copies import called, cloned, copied, plain, scaled, tensors_of
from ltc_torch.fx.state.held import held, spelled
from ltc_torch.fx.state.module_state import FACTORS

_DIFFERS = "the recorded graph does not give what forward gives for"
_REMEDY = "let forward depend on its inputs through torch operations alone: no NumPy, TorchScript, counters or lists"
_TOLERANCE = 1e-3  # of the largest element; rewrites (LSTM, ODE steps) differ from the model by rounding


def check_calls(module: fx.GraphModule, model: nn.Module, inputs: Any, outputs: Sequence[Any]) -> None:
    """`outputs`: of the model, for the inputs scaled by FACTORS in this order. Raises UnsupportedError."""
    for i, (factor, wanted) in enumerate(zip(FACTORS, outputs, strict=False)):
        given = module(*tensors_of(cloned(scaled(inputs, factor))))
        problem = _difference(wanted, given)
        if problem is None:
            continue
        on = "inputs other than the example" if factor != 1 else "the example inputs"
        reason = f"{_DIFFERS} {on}{problem}"
        again = called(copied(model), scaled(inputs, factor))
        if i == 0 and _difference(wanted, again) is not None:
            reason = (
                "a call changes something outside of the model's modules (a global, a class), which it reads"
            )
            raise _refused(reason, "keep it in a tensor of a module")
        if i > 0 and _difference(again, given) is None:
            reason = (
                f"call {i + 1} does not give what the first call gives, though no tensor of a module changed"
            )
            raise _refused(reason, "keep what a call leaves for the next one in tensors of the module")
        raise _refused(reason, _REMEDY)


def check_probes(module: fx.GraphModule, model: nn.Module, inputs: Any, states: States = NO_STATES) -> None:
    """The graph gives what the model's first call gives, for inputs unlike the example (probes.py)."""
    for probe in probes.others(inputs):
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                wanted = called(copied(model), probe)
        except Exception:  # the model may refuse an input that it was not made for
            continue
        if not all(bool(t.isfinite().all()) for t in tensors_of(plain(wanted))):
            continue
        given = module(*tensors_of(cloned(probe)), *(t.clone() for t in states.values()))
        problem = _difference(wanted, given[0] if states else given)
        if problem is not None:
            raise _refused(f"{_DIFFERS} inputs other than the example{problem}", _REMEDY)


def check_states(module: fx.GraphModule, model: nn.Module, inputs: Any, states: States) -> None:
    """Call by call, with the states carried along, the graph gives the outputs and the states of the model."""
    model, carried = copied(model), list(states.values())
    for i, factor in enumerate(FACTORS):
        wanted = called(model, scaled(inputs, factor))
        given, carried = module(*tensors_of(cloned(scaled(inputs, factor))), *(t.clone() for t in carried))
        problem = _difference(wanted, given)
        after = held(model).tensors
        for path, value in zip(states, carried, strict=True):
            if problem is None and _difference(after.get(path), value) is not None:
                problem = f" (state {spelled(path)})"
        if problem is not None:
            reason = f"the recorded graph does not give what call {i + 1} of the model gives{problem}"
            remedy = (
                "keep all that a call leaves for the next one in tensors of the module, each in one place"
            )
            raise _refused(f"{reason}; its module state is {', '.join(map(spelled, states))}", remedy)


def _difference(wanted: Any, given: Any) -> str | None:
    """What differs, for a message; None if nothing does."""
    a_leaves, b_leaves = pytree.tree_leaves(plain(wanted)), pytree.tree_leaves(given)
    if len(a_leaves) != len(b_leaves):
        return f": {len(b_leaves)} outputs, not {len(a_leaves)}"
    for i, (a, b) in enumerate(zip(a_leaves, b_leaves, strict=True)):
        if isinstance(a, Tensor) and not _near(a, b):
            return f" (output {i})"
    return None


def _near(a: Tensor, b: Any) -> bool:
    if not isinstance(b, Tensor) or a.shape != b.shape or a.is_complex() != b.is_complex():
        return False
    a, b = (torch.view_as_real(t) if t.is_complex() else t for t in (a.resolve_conj(), b.resolve_conj()))
    a, b = a.double(), b.double()
    scale = float(a.abs().nan_to_num(0, 0, 0).max()) if a.numel() else 0.0
    return torch.allclose(b, a, _TOLERANCE, _TOLERANCE * scale, equal_nan=True)


def _refused(reason: str, remedy: str) -> LtcError:
    return UnsupportedError([Unsupported("forward", "the model", reason, remedy)])
