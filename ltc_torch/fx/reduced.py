"""Models that compute in bf16 or fp16, or under autocast, are recorded in fp32.

Their weights are fp32 numbers already, so nothing of them changes; the precision policy chooses the formats of the
machine, as for every model. What differs from PyTorch's own result is PyTorch's rounding of each operation.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from ltc_torch.fx.record.catch import Function, caught
from ltc_torch.fx.state.copies import copied, tensors_of
from ltc_torch.fx.state.held import held

KINDS = (torch.bfloat16, torch.float16)


class _Asked(threading.local):
    recording = False  # whether this thread records a model
    autocast = False  # and the model entered an autocast region meanwhile


_asked = _Asked()


def kind_of(model: nn.Module, inputs: Any) -> torch.dtype | None:
    """The reduced precision that a model or its inputs hold, if any."""
    tensors = [*held(model).tensors.values(), *model.parameters(), *model.buffers(), *tensors_of(inputs)]
    return next((t.dtype for t in tensors if t.dtype in KINDS), None)


def widened(model: nn.Module, inputs: Any) -> tuple[nn.Module, Any]:
    """A copy of the model, and the inputs, with fp32 numbers in the place of reduced ones."""
    made = copied(model).train(model.training)
    made._apply(_wide)  # type: ignore[no-untyped-call]
    for module in made.modules():
        for name, value in list(vars(module).items()):
            if isinstance(value, Tensor) and value.dtype in KINDS:
                setattr(module, name, _wide(value))
    return made, pytree.tree_map(lambda x: _wide(x) if isinstance(x, Tensor) else x, inputs)


def _wide(tensor: Tensor) -> Tensor:
    return tensor.float() if tensor.dtype in KINDS else tensor


@contextmanager
def without_autocast() -> Iterator[_Asked]:
    """Autocast regions do nothing inside, in this thread; `.autocast` of the result says whether there was one."""
    _asked.recording, _asked.autocast = True, torch.is_autocast_enabled("cpu")
    try:
        with torch.autocast("cpu", enabled=False):
            yield _asked
    finally:
        _asked.recording = False


@caught("torch.amp.autocast_mode", "autocast.__enter__")
def _entered(original: Function) -> Function:
    def enter(self: Any) -> Any:
        if not (_asked.recording and self._enabled):
            return original(self)
        _asked.autocast = True
        self._enabled = False
        try:
            return original(self)
        finally:
            self._enabled = True

    return enter
