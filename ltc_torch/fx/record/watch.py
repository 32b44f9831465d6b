"""Computations that pass the recorder by: TorchScript, C++ extensions, constructors that alias a tensor.

The recorder sees calls of torch's Python functions. What reaches torch's dispatcher without one, on a tensor that
depends on an input, would become a constant of the example; it is refused at its line. Functions that torch.jit.script
made from Python are recorded through that Python.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

from ltc_compiler.errors import UnsupportedError
from ltc_torch.fx.record.active import current
from ltc_torch.fx.record.catch import Function, caught
from ltc_torch.fx.record.record import Recorder
from ltc_torch.fx.record.sources import refuse

_REMEDY = "torch functions in Python, or ltc_torch.fx.lowering for the function or module that holds it"


class Watch(TorchDispatchMode):
    """Refuses operations on recorded tensors that no torch function of the recording asked for.

    TorchScript's interpreter makes a RuntimeError of the refusal; at the end of the recording it is raised as it was.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._refused: UnsupportedError | None = None

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        super().__exit__(kind, error, trace)  # type: ignore[no-untyped-call]
        if self._refused is not None and error is not self._refused:
            raise self._refused from None

    def __torch_dispatch__(
        self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        recorder = current()
        if recorder is not None and _on_recorded(recorder, (args, kwargs)):
            reason = (
                "runs where no recording reaches: in TorchScript, a C++ extension or a tensor's constructor"
            )
            self._refused = refuse(str(func), recorder.session.module, reason, _REMEDY)
            raise self._refused
        return func(*args, **(kwargs or {}))


def _on_recorded(recorder: Recorder, tree: Any) -> bool:
    return any(recorder.depends(t) for t in pytree.tree_leaves(tree) if isinstance(t, Tensor))


@caught("torch.jit", "ScriptFunction.__call__")
def _scripted(original: Function) -> Function:
    def call(self: Any, *args: Any, **kwargs: Any) -> Any:
        recorder = current()
        python = getattr(self, "_torchdynamo_inline", None)  # torch keeps the source for its own tracer
        if python is None or recorder is None or not _on_recorded(recorder, (args, kwargs)):
            return original(self, *args, **kwargs)
        return python(*args, **kwargs)

    return call
