"""The list of models: a name, a factory, example inputs and the axis of every input along which the model streams.

`build(case)` seeds, so that a model and its inputs are the same in every test. `streaming` is None for a model that
has no step-by-step form, else one axis per input tensor, None for an input that stays (a state).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from . import basic, ltc, ode, recurrent

Inputs = tuple[Tensor, ...]


@dataclass(frozen=True)
class Case:
    name: str
    factory: Callable[[], nn.Module]
    inputs: Callable[[], Inputs]
    streaming: tuple[int | None, ...] | None = None


def build(case: Case, dtype: torch.dtype = torch.float32) -> tuple[nn.Module, Inputs]:
    """The model in eval mode and its example inputs, both in `dtype`."""
    torch.manual_seed(sum(map(ord, case.name)))
    model = case.factory().eval().to(dtype)
    return model, tuple(x.to(dtype) for x in case.inputs())


ZOO: dict[str, Case] = {
    name: Case(name, *row) for module in (basic, ode, ltc, recurrent) for name, row in module.MODELS.items()
}
