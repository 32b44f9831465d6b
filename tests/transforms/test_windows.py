"""Windows of dilated convolutions, which products read where they lie, and the width that a tap has for that."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from ltc_compiler import NNIR, AllocationError, Config
from ltc_compiler.ir.graph import Graph, Type
from ltc_compiler.ir.ops import add
from ltc_compiler.program import Program
from ltc_compiler.transforms.taps import pad_windows, padded
from ltc_torch.fx import prepare_shape
from ltc_torch.fx.nnir import to_nnir
from ltc_torch.nn import PaddedConv1d

STEPS = 24


class Block(nn.Module):
    """Two dilated convolutions and what goes past them, as in a TCN."""

    def __init__(self, width: int, out: int, taps: int, dilation: int) -> None:
        super().__init__()
        self.first = PaddedConv1d(width, out, taps, dilation)
        self.second = PaddedConv1d(out, out, taps, dilation)
        self.past = nn.Conv1d(width, out, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.relu(F.relu(self.second(F.relu(self.first(x)))) + self.past(x))


def tcn(channels: int, taps: int) -> nn.Module:
    torch.manual_seed(channels)
    blocks = [Block(4 if d == 1 else channels, channels, taps, d) for d in (1, 2, 4)]
    return nn.Sequential(*blocks).eval()


def converted(model: nn.Module) -> tuple[NNIR, torch.Tensor]:
    x = torch.randn(1, 4, STEPS)
    return to_nnir(prepare_shape(model, x)[0]), x


def machine(block: int, cores: int) -> Config:
    return replace(Config.ip_core(cores, block), tensor_rows=4096, weight_blocks=4096, gather_entries=1 << 14)


def step_by_step(program: Program, x: torch.Tensor) -> np.ndarray:
    vm = program.to_vm()
    return np.stack([vm.run(x[..., t].numpy()) for t in range(x.shape[-1])], -1)


@pytest.mark.parametrize(("channels", "taps"), [(64, 3), (25, 4), (100, 2)])
def test_nothing_is_moved_for_a_dilated_window(channels: int, taps: int) -> None:
    """The delay lines shift, the input of four channels is packed; on 32 lanes all else is read in place."""
    nnir, _ = converted(tcn(channels, taps))
    program = nnir.streaming_transform(2)[0].to_program(machine(32, 1))
    names = Counter(i.name for i in program.image.code)
    assert names["gather"] + names["move"] <= taps - 1
    steps = {i.number("tap_step") for i in program.image.code if i.name == "matmul" and i.number("taps") > 1}
    rows = -(-channels // 32)
    assert steps == ({rows, 2 * rows, 4 * rows} if taps > 2 else set())


@pytest.mark.parametrize(("channels", "taps"), [(64, 3), (25, 4), (100, 2)])
def test_bits_depend_neither_on_the_machine_nor_on_the_form(channels: int, taps: int) -> None:
    nnir, x = converted(tcn(channels, taps))
    stream = nnir.streaming_transform(2)[0]
    found = []
    for block, cores in ((32, 1), (32, 3), (64, 1), (16, 2)):
        config = machine(block, cores)
        whole = nnir.to_program(config)
        found.append(whole.to_vm().run(x.numpy()))
        found.append(step_by_step(stream.to_program(config), x))
    assert np.array_equal(found[0], whole.to_oracle().run(x.numpy()))
    for other in found[1:]:
        assert np.array_equal(found[0], other)
    assert np.abs(found[0] - nnir.run(x.numpy())).max() < 0.05  # bf16 products over three blocks


def test_values_that_lie_apart_come_together_by_rows() -> None:
    """A window over two inputs of 20, a tap of which takes 32 places: whole rows of 32 and of 16 lanes, but 20 elements
    end in the third row of 8 lanes, and the next tap begins behind the fourth."""
    graph = Graph("two")
    x, y = (graph.add_input(Type((20,)), name) for name in "xy")
    rng = np.random.default_rng(0)
    weight, bias = rng.standard_normal((8, 60)) / 4, rng.standard_normal(8)
    both = add(graph, "concat", x, add(graph, "reciprocal", y), x, axis=0)
    graph.add_output(add(graph, "linear", both, graph.constant(weight), graph.constant(bias)), "z")
    given = [rng.standard_normal(20).astype(np.float32) for _ in range(2)]
    results = []
    for block in (32, 16, 8):
        program = NNIR(graph).to_program(machine(block, 1))
        results.append(program.to_vm().run(*given))
        names = Counter(i.name for i in program.image.code)
        assert (names["gather"] > 0) == (block == 8)
    # the reciprocal of the padding lanes is infinite, and no lane of a tap
    assert np.isfinite(results[0]).all()
    assert np.array_equal(results[0], results[1])
    assert np.array_equal(results[0], results[2])


def test_what_does_not_fit_whole_names_the_step_that_does() -> None:
    nnir = to_nnir(prepare_shape(PaddedConv1d(5, 6, 30).eval(), torch.randn(1, 5, 200))[0])
    with pytest.raises(AllocationError, match="gather entries") as caught:
        nnir.to_program(Config.v80_c6b32(), quick_compile=True)
    found = re.search(r"streaming_transform\((\d)\)\[0\] fits and takes (\d+) cycles", caught.value.remedy)
    assert found is not None
    step = nnir.streaming_transform(int(found[1]))[0]
    program = step.to_program(Config.v80_c6b32(), quick_compile=True)
    assert program.cycle_count_per_inference() == int(found[2])
    with pytest.raises(AllocationError) as without:  # neither does a step
        nnir.to_program(replace(Config.tiny_c1b8(), weight_blocks=2), quick_compile=True)
    assert "stream" not in without.value.remedy


def test_padding_keeps_the_meaning() -> None:
    assert [padded(n) for n in (1, 2, 3, 9, 25, 32, 33, 64, 100, 150)] == [
        1,
        2,
        4,
        16,
        32,
        32,
        64,
        64,
        128,
        160,
    ]
    graph = Graph("pads")
    x, y = (graph.add_input(Type((5, 3)), name) for name in "xy")
    rng = np.random.default_rng(1)
    joined = add(graph, "concat", x, y, x, axis=1)
    product = add(
        graph, "linear", joined, graph.constant(rng.standard_normal((4, 9))), graph.constant(np.ones(4))
    )
    graph.add_output(product, "z")
    wide = pad_windows(graph)
    (linear,) = (n for n in wide.nodes if n.op == "linear")
    assert linear.operands[0].shape == (5, 11)
    given = rng.standard_normal((2, 5, 3))
    np.testing.assert_allclose(NNIR(graph).run(*given), NNIR(wide).run(*given), rtol=1e-12)
