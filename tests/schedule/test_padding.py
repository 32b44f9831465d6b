"""Constants beside values: what fills a vector up is written, and is not what lies in the lanes behind it.

Both machines execute the same bytecode, so that a wrong one passes every comparison between them: here they are held
against `NNIR.run`, which knows no lanes, and against PyTorch.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from both_machines import outputs, run_both, same
from generators import random_graph, random_inputs
from graph_builder import Builder, filling
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

from ltc_compiler import NNIR, Config
from ltc_compiler.ir.graph import Graph, Role, Type
from ltc_compiler.ir.ops import add
from ltc_compiler.program import Program
from ltc_torch.fx import prepare_shape
from ltc_torch.fx.nnir import to_nnir

PRESETS = tuple(map(Config.preset, Config.presets()))
EXACT = np.array([0.0, -0.0, 1.0, -2.0, np.inf, -np.inf], np.float32)
MOVES = frozenset({"concat", "slice", "reshape", "permute", "broadcast"})

# Whose value at 0 is no zero, so that what lies behind a vector shows.
LOUD: tuple[Callable[[Tensor], Tensor], ...] = (
    torch.sigmoid, torch.exp, torch.reciprocal, lambda x: x + 1, F.softplus, lambda x: x / x, lambda x: 2 - x,
    lambda x: torch.where(x > -1, 3.0, x), lambda x: torch.softmax(x, -1), torch.tanh, lambda x: -F.relu(x),
)  # fmt: skip


class Padded(nn.Module):
    """A function, and its result padded."""

    def __init__(self, f: Callable[[Tensor], Tensor], sides: tuple[int, int], fill: float) -> None:
        super().__init__()
        self.f, self.sides, self.fill = f, sides, fill

    def forward(self, x: Tensor) -> Tensor:
        return F.pad(self.f(x), self.sides, value=self.fill)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**32))
def test_what_is_moved_keeps_every_bit_on_every_machine(seed: int) -> None:
    rng = np.random.default_rng(seed)
    graph = random_graph(rng, ops=MOVES, nodes=6)
    inputs = [
        x.astype(np.float32) if v.role is Role.ELAPSED_TIME else rng.choice(EXACT, x.shape)
        for v, x in zip(graph.inputs, random_inputs(rng, graph), strict=True)
    ]
    expected = outputs(NNIR(graph).run(*inputs, dtype=np.float32))
    for config in PRESETS:
        assert same(run_both(NNIR(graph).to_program(config), inputs, True), expected), config.name


def loud_chain(rng: np.random.Generator) -> Graph:
    """Operations that give no zero for a zero, each with constants before and behind its result, and sums."""
    builder = Builder(rng, Graph("chain"), streamable=False, ops=None)
    graph = builder.graph
    x = graph.add_input(Type((int(rng.integers(1, 3)), builder.size())), "x")
    for _ in range(int(rng.integers(1, 4))):
        op = str(rng.choice(["ge", "eq", "sub", "add"]))
        other = x if op in ("ge", "eq") and builder.chance(0.5) else graph.constant(0.5)
        x = add(graph, op, *((x, other) if builder.chance(0.5) else (other, x)))
        before, behind = (filling(builder, x.shape, 1) if builder.chance(p) else [] for p in (0.3, 0.9))
        x = add(graph, "concat", *before, x, *behind, axis=1)
        if builder.chance(0.3):
            graph.add_output(add(graph, "sum", x, axis=int(rng.integers(2)), keepdims=True))
    graph.add_output(x)
    return graph


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32))
def test_what_lies_behind_a_vector_is_no_part_of_it(seed: int) -> None:
    """Multiples of 1/64 are exact in fp32."""
    rng = np.random.default_rng(seed)
    nnir = NNIR(loud_chain(rng))
    inputs = [np.round(x * 64).astype(np.float32) / 64 for x in random_inputs(rng, nnir.graph)]
    expected = outputs(nnir.run(*inputs))
    for config in PRESETS:
        found = run_both(nnir.to_program(config), inputs, False)
        assert all(np.array_equal(y, e) for y, e in zip(found, expected, strict=True)), config.name


@pytest.mark.parametrize("width", [1, 5, 13, 31, 70])
def test_padding_is_what_pytorch_pads_with(width: int) -> None:
    torch.manual_seed(width)
    rng = np.random.default_rng(width)
    x = torch.randn(2, width) * 0.3 + 1.5
    for f in LOUD:
        (before, behind), fill = rng.integers(0, 12, 2).tolist(), float(rng.choice([0.0, -0.0, 1.0]))
        traced, expected = prepare_shape(Padded(f, (before, behind), fill).eval(), x)
        nnir = to_nnir(traced)
        for config in PRESETS:
            program: Program = nnir.to_program(config)
            y = program.to_vm(bit_accurate=False).run(x)
            np.testing.assert_allclose(y, expected.numpy(), rtol=1e-5, atol=1e-6, err_msg=config.name)
            filled = np.r_[y[:, :before].ravel(), y[:, before + width :].ravel()]
            assert (filled.view(np.uint32) == np.float32(fill).view(np.uint32)).all(), config.name
