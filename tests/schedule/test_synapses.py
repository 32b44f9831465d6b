"""Synapses on every machine: with the unit and without, on one core and on several, the sums have the same bits."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pytest
import torch
from core_images import kernel_names
from nnir_cases import graph
from torch import Tensor, nn

import ltc_torch.fx
from ltc_compiler.config import Config
from ltc_compiler.errors import ProgramError
from ltc_compiler.ir.graph import Graph, Precision
from ltc_compiler.ir.ops import add_many
from ltc_compiler.ir.run import evaluate
from ltc_compiler.program import Program
from ltc_compiler.settle import compile_model

ROOM = replace(
    Config.tiny_c2b8(), tensor_rows=8192, gather_entries=8192, synapse_slots=4096, instruction_slots=8192
)
MACHINES = {
    "unit": replace(ROOM, cores=1),
    "two cores": ROOM,
    "wide": replace(ROOM, cores=1, block_size=32),
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
    expected = outputs(compile_model(g, MACHINES["unit"]), v)
    plain = evaluate(g, [v.astype(np.float64)])
    for mine, exact in zip(expected, plain, strict=True):
        finite = np.isfinite(exact)
        np.testing.assert_allclose(mine[finite], exact[finite], atol=1e-4 if fp32 else 0.2)
    for name, machine in MACHINES.items():
        program = compile_model(g, machine, optimize=False)
        assert ("synapse" in program.disassemble()) == machine.synapse_unit
        if machine.cores > 1 and targets > machine.block_size:
            computes = "synapse" if machine.synapse_unit else "mul"
            assert re.search(rf"c1 +{computes}\b", program.disassemble()), "both cores are at work"
        for mine, other in zip(outputs(program, v), expected, strict=True):
            np.testing.assert_array_equal(mine.view(np.uint32), other.view(np.uint32), err_msg=name)


@pytest.mark.parametrize("name", ["unit", "no unit", "two cores, no unit"])
def test_plain_fp32_is_fp32_on_every_machine(name: str) -> None:
    g = synapses((2, 17), 9, 1.0, fp32=False)
    v = np.random.default_rng(1).normal(size=(2, 17)).astype(np.float32)
    program = Program.load_bytes(compile_model(g, MACHINES[name]).save_bytes())
    found = program.to_vm(bit_accurate=False).run(v)
    reference = program.to_oracle(bit_accurate=False).run(v)
    for mine, other, exact in zip(found, reference, evaluate(g, [v.astype(np.float64)]), strict=True):
        assert mine.tobytes() == other.tobytes()
        np.testing.assert_allclose(mine, exact, rtol=1e-5, atol=1e-5)
    lean = Program.load_bytes(program.save_bytes(shadow=False))
    for load in (lean.to_vm, lean.to_oracle):
        with pytest.raises(ProgramError, match="no fp32 originals"):
            load(bit_accurate=False)


def written_sums(columns: np.ndarray, v: np.ndarray) -> Graph:
    """Sums over synapses that `columns` (mu, sigma, w, we; sources; targets) lists; NaN for mu where there is none."""
    g, (source,) = graph(v.shape)
    there = ~np.isnan(columns[0])
    arrays = [np.where(there, c, 0) for c in columns]
    for result in add_many(g, "synapse", [source, *(g.constant(a) for a in (*arrays, there * 1.0))], {}):
        g.add_output(result)
    return g


def same_everywhere(g: Graph, v: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> list[np.ndarray]:
    """The sums, with the same bits from every set of kernels with the unit and without, and from the reference."""
    expected = outputs(compile_model(g, MACHINES["unit"]), v)
    for name in ("unit", "wide", "no unit"):
        program = compile_model(g, MACHINES[name])
        for kernels in kernel_names():
            monkeypatch.setenv("LTC_SIMD", kernels)
            for mine, other in zip(outputs(program, v), expected, strict=True):
                np.testing.assert_array_equal(
                    mine.view(np.uint32), other.view(np.uint32), f"{name}, {kernels}"
                )
    return expected


@pytest.mark.parametrize("fp32", [False, True])
def test_every_operation_is_an_architectural_write(fp32: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rule 11 by hand: what falls below 2^-126 is zero before the next operation sees it."""
    tiny, off = 2.0**-126, (np.nan, 0.0, 0.0, 0.0)
    targets = [
        # a product of 2^-127, twice; with gradual underflow they would add up to 2^-126
        [(0, 1, tiny, -tiny), (0, 1, tiny, -tiny), off, off],
        # a partial sum of 2^-127, then 2^-126
        [(0, 1, 3 * tiny, -3 * tiny), (0, 1, -2 * tiny, 2 * tiny), (0, 1, 2 * tiny, -2 * tiny), off],
        # a difference of 2^-127; times 2^127 it would open the gate to sigmoid(1)
        [off, off, off, (tiny, 2.0**127, 1.0, -1.0)],
        # a gate that is shut: sigmoid(-87) = 1.4e-38 is a number, half of it is none
        [(87.0, 1, 1.0, -0.5), off, off, off],
        # a sum that falls to -2^-127, on a target with fewer synapses than its neighbours: +0
        [(0, 1, 1.0, -3 * tiny), (0, 1, 1.0, 2 * tiny), off, off],
    ]
    columns = np.array(targets).transpose(2, 1, 0)
    g = written_sums(columns, v := np.array([0, 0, 0, 1.5 * tiny], np.float32))
    if fp32:
        next(n for n in g.nodes if n.op == "synapse").precision = Precision.FP32
    num, den = same_everywhere(g, v, monkeypatch)
    np.testing.assert_array_equal(num[:3], np.array([0, -tiny, -0.5], np.float32))
    np.testing.assert_array_equal(den[:3], np.array([0, tiny, 0.5], np.float32))
    assert num[3] == 0 < den[3] < 2 * tiny
    assert num.view(np.uint32)[4] == 0


@pytest.mark.parametrize("fp32", [False, True])
@pytest.mark.parametrize("seed", range(3))
def test_extreme_synapses_are_the_same_on_every_machine(
    seed: int, fp32: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Shut gates, products and sums about 2^-126, |sigma| about 2^101, overflows, infinities and NaN, at random."""
    rng = np.random.default_rng(seed)
    v = np.array([0, 1, -1, 2.0**-126, 1.25 * 2.0**-126, 60, 3e38, 0.5, np.inf, np.nan], np.float32)
    size = (len(v), 70)
    signs, mantissas = (rng.choice([-1.0, 1.0], (4, *size)), rng.integers(128, 256, (4, *size)) / 128)
    exponents = [
        [-127, -126, -1, 0, 6, 127],
        [-60, -8, 0, 3, 5, 101, 126],
        *[[-126, -125, -70, -41, -39, 0, 2, 126]] * 2,
    ]
    columns = signs * mantissas * np.exp2(np.stack([rng.choice(e, size) for e in exponents]))
    columns[0][rng.random(size) < 0.2] = 0
    columns[0][rng.random(size) < 0.4] = np.nan
    columns[0][-2:, :40] = np.nan  # most targets do not see infinity and NaN
    g = written_sums(columns, v)
    if fp32:
        next(n for n in g.nodes if n.op == "synapse").precision = Precision.FP32
    num, den = same_everywhere(g, v, monkeypatch)
    assert np.isfinite(num[:40]).any()
    assert np.isnan(den[40:]).any()


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
