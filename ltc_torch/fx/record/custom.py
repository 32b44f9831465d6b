"""Custom operators (torch.library): recorded through their kernel, never taken for torch's operation of the same name.

A kernel in Python is ordinary torch code, so it runs under the recorder; one in C++ hides what it does, and is refused.
"""

from __future__ import annotations

from collections.abc import Callable, Container
from typing import TYPE_CHECKING, Any

import torch
from torch._ops import OpOverload, OpOverloadPacket

from ltc_torch.fx.record.calls import call_name
from ltc_torch.fx.record.sources import refuse

if TYPE_CHECKING:
    from ltc_torch.fx.record.record import Recorder

_CPU = torch._C.DispatchKeySet(torch._C.DispatchKey.CPU)


def is_opened(func: Callable[..., Any], converted: Container[str]) -> bool:
    """Whether a function is a custom operator and none of those that have a converter, by name."""
    if not isinstance(func, (OpOverload, OpOverloadPacket)):
        return False
    name = call_name(func)
    return "." in name and name not in converted


def open_up(recorder: Recorder, func: Callable[..., Any], args: Any, kwargs: Any) -> Any:
    """Call a custom operator's kernel on tensors that depend on an input, and record what it does."""
    name, module = call_name(func), recorder.session.module
    remedy = f"a kernel in Python made of torch operations, lowering for its caller, or converts({name!r})"
    overload = func
    if isinstance(func, OpOverloadPacket):
        overloads = func.overloads()  # type: ignore[no-untyped-call]
        if len(overloads) != 1:
            reason = "a custom operator with several overloads is called by their common name"
            raise refuse(name, module, reason, f"one overload, such as torch.ops.{name}.{overloads[0]}")
        overload = getattr(func, overloads[0])
    assert isinstance(overload, OpOverload)
    before = len(recorder.graph.nodes)
    out = None
    if torch._C._dispatch_has_computed_kernel_for_dispatch_key(str(overload._name), "CPU"):
        with recorder:
            out = overload.redispatch(_CPU, *args, **kwargs)
    if len(recorder.graph.nodes) == before:
        raise refuse(name, module, "a custom operator whose kernel hides what it computes", remedy)
    return out
