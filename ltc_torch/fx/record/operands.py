"""Tensors that a recording cannot take at their word: subclasses that redefine operations, and aliases.

An alias shares memory with a recorded tensor, and no torch function made it (nn.Parameter(x), DLPack): it would pass
for a constant.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ltc_torch.fx.record.inplace import memory
from ltc_torch.fx.record.sources import refuse

if TYPE_CHECKING:
    from ltc_torch.fx.record.record import Recorder


class Places:
    """Where the values of a recorder's tensors lie in memory."""

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder
        self._places: set[int] = set()

    def add(self, made: Iterable[Tensor], constants: Iterable[Tensor] = ()) -> None:
        """Results that were recorded. Of a constant operand they may be a view; its memory is not theirs."""
        self._places.update({memory(t) for t in made} - {memory(t) for t in constants} - {0})

    def _hold(self, tensor: Tensor) -> bool:
        parent = self._recorder.parent
        return memory(tensor) in self._places or (parent is not None and parent.places._hold(tensor))

    def check(self, name: str, tensors: Iterable[Tensor]) -> None:
        """Refuse operands whose meaning the recording would miss."""
        module = self._recorder.session.module
        for tensor in tensors:
            if _overrides(type(tensor)):
                reason = (
                    f"{type(tensor).__name__} redefines operations of tensors, which a recording leaves out"
                )
                remedy = "t.as_subclass(torch.Tensor), and the operations that it stands for"
                raise refuse(name, module, reason, remedy)
            if tensor.numel() and not self._recorder.depends(tensor) and self._hold(tensor):
                reason = "a tensor was made from one that depends on the input by no torch function"
                remedy = "use the tensor itself: no nn.Parameter of it, no subclass, no DLPack"
                raise refuse(name, module, reason, remedy)


@functools.cache
def _overrides(kind: type[Tensor]) -> bool:
    """Whether a subclass of Tensor computes something else than torch."""
    for name, disabled in (
        ("__torch_function__", torch._C._disabled_torch_function_impl),
        ("__torch_dispatch__", torch._C._disabled_torch_dispatch_impl),
    ):
        plain, own = (getattr(f, "__func__", f) for f in (getattr(Tensor, name), getattr(kind, name)))
        if own not in (plain, disabled):
            return True
    return False
