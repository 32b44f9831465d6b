"""A row of the zoo: how to make a model, an example of its inputs, and how it streams; and what one does with a row."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.utils import _pytree as pytree

from ltc_compiler.nnir import NNIR
from ltc_torch.fx import prepare_shape
from ltc_torch.fx.nnir import to_nnir

Inputs = tuple[Any, ...]  # tensors, or nests of them


@dataclass(frozen=True)
class ZooModel:
    """A model by name; nothing of it is made before `build`.

    `streaming` is None for a model that has no step-by-step form, else the axis of time of every input tensor, in
    order, None for one that stays (a state).
    """

    name: str
    make: Callable[[], nn.Module]
    inputs: Callable[[], Inputs]
    streaming: tuple[int | None, ...] | None = None
    family: str = ""


def by_name(rows: Iterable[ZooModel]) -> dict[str, ZooModel]:
    """The rows by their names; ImportError if two have one."""
    found: dict[str, ZooModel] = {}
    for row in rows:
        if found.setdefault(row.name, row) is not row:
            raise ImportError(f"two rows of the zoo are called {row.name!r}")
    return found


def build(row: ZooModel, dtype: torch.dtype = torch.float32) -> tuple[nn.Module, Inputs]:
    """The model in eval mode and its example inputs, both in `dtype`; the same ones in every call."""
    torch.manual_seed(sum(map(ord, row.name)))
    model = row.make().eval().to(dtype)
    return model, pytree.tree_map(lambda x: x.to(dtype), row.inputs())


def context(row: ZooModel, inputs: Inputs) -> int | None:
    """What causal attention looks back on: the whole example."""
    tensors = [x for x in pytree.tree_leaves(inputs) if isinstance(x, torch.Tensor)]
    return next(
        (x.shape[a] for x, a in zip(tensors, row.streaming or (), strict=False) if a is not None), None
    )


def step_graph(row: ZooModel) -> NNIR:
    """The graph of one step where the model streams, else of one call."""
    model, inputs = build(row)
    nnir = to_nnir(prepare_shape(model, *inputs)[0], context=context(row, inputs))
    return nnir if row.streaming is None else nnir.streaming_transform(row.streaming)[0]
