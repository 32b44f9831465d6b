"""Synapses on every machine: with the unit and without, on one core and on several, the sums have the same bits."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pytest
import torch
from nnir_cases import graph
from torch import Tensor, nn

import ltc_torch.fx
from ltc_compiler.config import Config
from ltc_compiler.ir.graph import Graph, Precision
from ltc_compiler.ir.ops import add_many
from ltc_compiler.ir.run import evaluate
from ltc_compiler.program import Program
from ltc_compiler.schedule.compile import compile_graph

ROOM = replace(
    Config.tiny_c2b8(), tensor_rows=8192, gather_entries=8192, synapse_slots=4096, instruction_slots=8192
)
MACHINES = {
    "unit": replace(ROOM, cores=1),
    "two cores": ROOM,
    "no unit": replace(ROOM, cores=1, synapse_unit=False),
    "two cores, no unit": replace(ROOM, synapse_unit=False),
    "wide, no unit": replace(ROOM, cores=1, block_size=32, synapse_unit=False),
}


def synapses(shape: tuple[int, ...], targets: int, density: float, fp32: bool) -> Graph:
    """Numerator and denominator of random synapses on `targets`; every fifth target has none."""
    rng = np.random.default_rng(7)
    g, (v,) = graph(shape)
    size = (shape[-1], targets)
    mask = (rng.random(size) < density) & (np.arange(targets) % 5 != 3)
    arrays = [
        rng.uniform(-1, 1, size),
        rng.uniform(-4, 4, size),
        rng.uniform(0, 1, size),
        rng.normal(size=size),
        mask,
    ]
    for result in add_many(g, "synapse", [v, *(g.constant(a.astype(np.float64)) for a in arrays)], {}):
        g.add_output(result)
    if fp32:
        next(n for n in g.nodes if n.op == "synapse").precision = Precision.FP32
    return g


def outputs(program: Program, v: np.ndarray) -> list[np.ndarray]:
    """What the simulator returns, which the reference machine returns too."""
    found = program.to_vm().run(v)
    for mine, reference in zip(found, program.to_oracle().run(v), strict=True):
        np.testing.assert_array_equal(mine.view(np.uint32), reference.view(np.uint32))
    return list(found)


@pytest.mark.parametrize("fp32", [False, True])
@pytest.mark.parametrize("density", [0.0, 0.3, 1.0])
@pytest.mark.parametrize(("shape", "targets"), [((5,), 3), ((40,), 20), ((2, 17), 9), ((3, 2, 70), 33)])
def test_the_sums_are_the_same_on_every_machine(
    shape: tuple[int, ...], targets: int, density: float, fp32: bool
) -> None:
    g = synapses(shape, targets, density, fp32)
    v = np.random.default_rng(1).normal(size=shape).astype(np.float32)
    v[..., 0], v[..., 1] = np.nan, np.inf  # an absent synapse does not see them
    expected = outputs(compile_graph(g, MACHINES["unit"]), v)
    plain = evaluate(g, [v.astype(np.float64)])
    for mine, exact in zip(expected, plain, strict=True):
        finite = np.isfinite(exact)
        np.testing.assert_allclose(mine[finite], exact[finite], atol=1e-4 if fp32 else 0.2)
    for name, machine in MACHINES.items():
        program = compile_graph(g, machine, optimize=False)
        assert ("synapse" in program.disassemble()) == machine.synapse_unit
        if machine.cores > 1 and targets > machine.block_size:
            computes = "synapse" if machine.synapse_unit else "mul"
            assert re.search(rf"c1 +{computes}\b", program.disassemble()), "both cores are at work"
        for mine, other in zip(outputs(program, v), expected, strict=True):
            np.testing.assert_array_equal(mine.view(np.uint32), other.view(np.uint32), err_msg=name)


def test_without_the_unit_products_too_small_for_a_row_are_zero() -> None:
    """Rule 11: the one thing that a machine without the unit does otherwise. s * w = 2^-127, and two of them."""
    g, (v,) = graph((2,))
    ones = np.ones((2, 1))
    arrays = [0 * ones, ones, ones * 2.0**-126, ones * 2.0**-126, ones]
    for result in add_many(g, "synapse", [v, *(g.constant(a) for a in arrays)], {}):
        g.add_output(result)
    v0 = np.zeros(2, np.float32)  # every sigmoid is 1/2
    assert [float(x[0]) for x in outputs(compile_graph(g, MACHINES["unit"]), v0)] == [2.0**-126] * 2
    assert [float(x[0]) for x in outputs(compile_graph(g, MACHINES["no unit"]), v0)] == [0.0] * 2


class Handwritten(nn.Module):
    """An LTC of 20 units and 5 inputs as people write it, six unfolds in a loop; `delta`: in the form of rule 12."""

    def __init__(self, delta: bool) -> None:
        super().__init__()
        self.delta = delta
        self.sensory, self.recurrent = (nn.Parameter(torch.rand(4, n, 20) + 0.1) for n in (5, 20))
        self.g, self.rest, self.cm = (nn.Parameter(torch.rand(20) + 0.2) for _ in range(3))

    def synapses(self, p: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        mu, sigma, w, erev = p
        a = w * torch.sigmoid(sigma * (v.unsqueeze(-1) - mu))
        return (a * erev).sum(1), a.sum(1)

    def forward(self, x: Tensor) -> Tensor:
        """x (1, time, 5) -> (1, time, 20)."""
        v, outputs = torch.zeros(1, 20), []
        for t in range(x.shape[1]):
            drive, leak = self.synapses(self.sensory, x[:, t])
            for _ in range(6):
                num, den = self.synapses(self.recurrent, v)
                n, d = self.g * self.rest + (drive + num), self.g + (leak + den)
                if self.delta:
                    v = v + (1 / 6) * (n - d * v) / (self.cm + (1 / 6) * d)
                else:
                    v = (6 * self.cm * v + n) / (6 * self.cm + d)
            outputs.append(v)
        return torch.stack(outputs, 1)


@pytest.mark.parametrize("delta", [True, False])
def test_a_cell_written_by_hand_takes_the_same_instructions(delta: bool) -> None:
    torch.manual_seed(0)
    x = torch.rand(1, 4, 5)
    traced, expected = ltc_torch.fx.prepare_shape(Handwritten(delta).eval(), x)
    nnir, axis = ltc_torch.fx.nnir.to_nnir(traced).streaming_transform(1)
    program = nnir.to_program(Config.v80_c6b32())
    names = [i.name for i in program.image.code]
    assert axis == 1
    assert "synapse" in names
    assert "sigmoid" not in names
    assert ("ltc_update" in names) == delta
    vm = program.to_vm()
    steps = [vm.run(x[:, t].numpy()) for t in range(4)]
    np.testing.assert_allclose(np.stack(steps, 1), expected.detach().numpy(), atol=0.02)
