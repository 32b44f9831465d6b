"""Iterations of a loop over time overlap: work that waits for the input alone is hidden behind the iteration before.

docs/machine.md ("Iterations of a loop") says what is gained, and that hoisting such work before the loop gains nothing.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from ltc_compiler import Config
from ltc_compiler.clock import Clock
from ltc_compiler.nnir import NNIR
from ltc_torch.fx import prepare_shape
from ltc_torch.fx.nnir import to_nnir

ROOMY = replace(Config.v80_c6b32(), tensor_rows=1 << 16, instruction_slots=1 << 16)
STEPS = 24


class Cell(nn.Module):
    """A recurrent layer over a sequence, its input's product in the loop or `hoisted` before it."""

    def __init__(self, gates: int, features: int, width: int, hoisted: bool) -> None:
        super().__init__()
        self.width, self.hoisted = width, hoisted
        self.ih = nn.Linear(features, gates * width, bias=False)
        self.hh = nn.Linear(width, gates * width)

    def forward(self, x: Tensor) -> Tensor:
        """x (1, time, features) -> (1, time, width): tanh, or an LSTM's gates where there are four."""
        h = c = torch.zeros(1, self.width)
        given = self.ih(x) if self.hoisted else x
        outputs = []
        for t in range(x.shape[1]):
            gates = (given[:, t] if self.hoisted else self.ih(given[:, t])) + self.hh(h)
            if gates.shape[-1] == self.width:
                h = torch.tanh(gates)
            else:
                i, f, g, o = gates.chunk(4, -1)
                c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
                h = torch.sigmoid(o) * torch.tanh(c)
            outputs.append(h)
        return torch.stack(outputs, 1)


def record(gates: int, features: int, width: int, hoisted: bool) -> NNIR:
    torch.manual_seed(0)
    module = Cell(gates, features, width, hoisted).eval()
    return to_nnir(prepare_shape(module, torch.randn(1, STEPS, features))[0])


@pytest.mark.parametrize("sizes", [(1, 96, 96), (1, 256, 64), (4, 96, 96), (4, 256, 64)])
@pytest.mark.parametrize("quick", [True, False])
def test_products_of_the_input_cost_least_in_the_loop(sizes: tuple[int, int, int], quick: bool) -> None:
    inside, hoisted = (
        record(*sizes, hoisted).to_program(ROOMY, quick_compile=quick) for hoisted in (False, True)
    )
    x = np.random.default_rng(0).standard_normal((1, STEPS, sizes[1])).astype(np.float32)
    assert inside.to_vm().run(x).tobytes() == hoisted.to_vm().run(x).tobytes()
    for spaced in (True, False):
        cycles = [p.cycle_count_per_inference(spaced=spaced) for p in (inside, hoisted)]
        assert cycles[0] <= cycles[1]


def test_a_turn_begins_before_the_one_before_ends() -> None:
    """On one core, from the trace: the input's product stands in the shadow of the state's product and its activation,
    so an iteration takes what its recurrence takes: the product's beats, `matrix`, the addition, the activation."""
    config = replace(ROOMY, cores=1)
    program = record(1, 64, 64, hoisted=False).to_program(config, quick_compile=True)
    code = program.image.code
    starts: dict[str, list[int]] = {}
    finishes: dict[str, list[int]] = {}
    products = [i for i, instr in enumerate(code) if instr.name == "matmul"]
    assert len(products) == 2
    names = {products[0]: "of the input", products[1]: "of the state"}
    for done in Clock.of(program.image).trace(0, 0, 10_000):
        name = names.get(done.index, code[done.index].name)
        starts.setdefault(name, []).append(done.start)
        finishes.setdefault(name, []).append(done.finish)
    ends = finishes["tanh"]
    assert len(ends) == STEPS
    behind = range(STEPS // 2, STEPS - 1)
    assert all(
        starts["of the input"][iteration + 1] < ends[iteration] - config.latency.activation
        for iteration in behind
    )
    rows = config.block_rows(64)
    latency = config.latency
    recurrence = rows * rows + latency.matrix + latency.add + latency.activation
    iterations = np.diff(ends)[STEPS // 2 :]
    assert iterations.max() <= recurrence + 2 * rows
