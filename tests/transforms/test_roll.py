"""Products of computed tensors that find no room at once are made row by row, with the same bits."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ltc_compiler import AllocationError, Config
from ltc_compiler.ir.graph import Graph, Type
from ltc_compiler.ir.ops import add
from ltc_compiler.nnir import NNIR
from ltc_compiler.transforms.roll import roll_products
from ltc_torch.fx import prepare_shape
from ltc_torch.fx.nnir import to_nnir

ROOM = replace(Config.small_c2b16(), tensor_rows=1 << 15)
LITTLE = replace(ROOM, tensor_rows=512)


class Product(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x @ x.mT


class Attention(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        q = x.view(1, -1, 2, x.shape[-1] // 2).transpose(1, 2)
        return F.scaled_dot_product_attention(q, q, q).transpose(1, 2).flatten(2)


class Both(nn.Module):
    """Products of which both factors have the axis, of several axes, and of a vector."""

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return torch.einsum("bti,btj->bij", x, torch.tanh(x)), (torch.exp(-x) @ x[0, 0]).cumsum(1)


@pytest.mark.parametrize("make", [Product, Attention, Both])
def test_row_by_row_has_the_same_bits(make: Callable[[], nn.Module]) -> None:
    x = torch.randn(1, 20, 18, generator=torch.Generator().manual_seed(1))
    traced, expected = prepare_shape(make().eval(), x)
    nnir = to_nnir(traced)
    rolled = roll_products(nnir.graph)
    assert rolled is not None
    found = []
    for graph in (nnir.graph, rolled):
        y = NNIR(graph).to_program(ROOM, quick_compile=True).to_vm().run(x)
        found.append([a.tobytes() for a in (y if isinstance(y, tuple) else (y,))])
    assert found[0] == found[1]
    plain, wanted = (y if isinstance(y, tuple) else (y,) for y in (NNIR(rolled).run(x.numpy()), expected))
    for a, b in zip(plain, wanted, strict=True):
        np.testing.assert_allclose(a, b.numpy(), atol=1e-5)


def test_it_is_done_where_the_rows_are_too_few() -> None:
    x = torch.randn(1, 32, 32, generator=torch.Generator().manual_seed(2))
    traced, expected = prepare_shape(Attention().eval(), x)
    nnir = to_nnir(traced)
    whole, little = (nnir.to_program(c, quick_compile=True) for c in (ROOM, LITTLE))
    rows = [p.metrics()["cores"][0]["tensor_rows"]["used"] for p in (whole, little)]
    assert rows[1] <= LITTLE.tensor_rows < rows[0]
    assert whole.to_vm().run(x).tobytes() == little.to_vm().run(x).tobytes()
    np.testing.assert_allclose(little.to_vm(bit_accurate=False).run(x), expected.numpy(), atol=1e-5)
    with pytest.raises(AllocationError, match="tensor rows"):
        nnir.to_program(replace(LITTLE, tensor_rows=64), quick_compile=True)


def test_a_graph_without_large_products_stays() -> None:
    graph = Graph("none")
    x = graph.add_input(Type((64, 64)))
    weighted = add(graph, "mul", x, graph.constant(np.ones((64, 64))))
    graph.add_output(add(graph, "sum", weighted, axis=1, keepdims=False))
    assert roll_products(graph) is None
