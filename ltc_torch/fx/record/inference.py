"""`torch.inference_mode` in a model that is recorded: its tensors keep no count of writes, which a recording needs.

Under `no_grad`, as here, the mode changes no result, so that it is left out. Elsewhere it is what it was.
"""

from __future__ import annotations

from typing import Any

import torch

from ltc_torch.fx.record.catch import Function, caught

_MODULE = "torch.autograd.grad_mode"


@caught(_MODULE, "inference_mode.__enter__")
def _enter(original: Function) -> Function:
    def enter(self: Any) -> None:
        if torch.is_grad_enabled():
            original(self)

    return enter


@caught(_MODULE, "inference_mode.__exit__")
def _exit(original: Function) -> Function:
    def leave(self: Any, *error: Any) -> None:
        if hasattr(self, "_inference_mode_context"):
            original(self, *error)

    return leave
