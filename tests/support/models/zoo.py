"""The list of models: a name, a factory, example inputs and the axis of every input along which the model streams.

`build(case)` seeds, so that a model and its inputs are the same in every test. `streaming` is None for a model that
has no step-by-step form, else one axis per input tensor, in order, None for one that stays (a state).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.utils import _pytree as pytree

from models import basic, causal, ltc, ode, published, recurrent

Inputs = tuple[Any, ...]  # tensors, or nests of them


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
    return model, pytree.tree_map(lambda x: x.to(dtype), case.inputs())


def context(case: Case, inputs: Inputs) -> int | None:
    """What causal attention looks back on in these tests: the whole example."""
    tensors = [x for x in pytree.tree_leaves(inputs) if isinstance(x, torch.Tensor)]
    return next(
        (x.shape[a] for x, a in zip(tensors, case.streaming or (), strict=False) if a is not None), None
    )


ZOO: dict[str, Case] = {
    name: Case(name, *row)
    for module in (basic, causal, ode, ltc, recurrent, published)
    for name, row in module.MODELS.items()
}
