"""Module state in a recording: placeholders for the values before a call, and what stands in their places after it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

from torch import Tensor, fx, nn

from ltc_torch.fx.record.record import Recorder
from ltc_torch.fx.state.assigned import assigned_at
from ltc_torch.fx.state.copies import tensors_of
from ltc_torch.fx.state.held import Path, held, spelled
from ltc_torch.fx.state.module_state import refusal
from ltc_torch.fx.state.trials import same_elements

States = Mapping[Path, Tensor]
NO_STATES: States = MappingProxyType({})


def module_states(
    recorder: Recorder, model: nn.Module, states: States
) -> Callable[[Any], list[Tensor | fx.Node]]:
    """Make placeholders of the tensors that `model` holds at the paths of `states`.

    Returns a function of the call's outputs that gives the next value of each: a tensor, or the placeholder itself
    where nothing read it. Raises UnsupportedError where a tensor of another shape or type stands there then.
    """
    before = held(model).tensors
    recorder.session.has_states = bool(states)
    nodes = {
        path: recorder.placeholder(
            "state_" + "".join(c if c.isalnum() else "_" for c in spelled(path)), before[path]
        )
        for path in states
    }
    for path, node in nodes.items():
        node.meta["source"] = assigned_at(model, path)

    def following(outputs: Any) -> list[Tensor | fx.Node]:
        after = held(model).tensors
        returned = {id(t) for t in tensors_of(outputs)}
        found: list[Tensor | fx.Node] = []
        for path, node in nodes.items():
            tensor = after.get(path)
            passed = returned | {id(t) for other, t in after.items() if other != path}
            if not recorder.was_read(node, before[path]) and id(before[path]) not in passed:
                found.append(node)
                continue
            if tensor is None or tensor.shape != before[path].shape or tensor.dtype != before[path].dtype:
                reason = "has another shape or type after a call than before it"
                raise refusal(model, {path: reason}, "keep one shape and one type from call to call")
            if id(tensor) in recorder.session.finished:
                reason = "is made inside a scan's step (or an ODE function) and kept after it"
                raise refusal(model, {path: reason}, "return it from the step as an output or as a state")
            found.append(tensor)
        return found

    return following


def idle(module: fx.GraphModule, states: States) -> set[Path]:
    """The states of a recording that no call reads, or that calls leave as they are."""
    (output,) = (n for n in module.graph.nodes if n.op == "output")
    placeholders = [n for n in module.graph.nodes if n.op == "placeholder"][-len(states) :]
    found = set()
    for node, following, (path, initial) in zip(placeholders, output.args[0][1], states.items(), strict=True):
        constant = following.op == "get_attr" and same_elements(getattr(module, following.target), initial)
        if not node.users or following is node or constant:
            found.add(path)
    return found
