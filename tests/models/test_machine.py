"""Every model of the zoo on the machine, under every precision policy: bits, streaming, error against PyTorch.

One small machine here; tests/proof/test_models_full.py repeats it on boards, and measures the errors anew.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from recorded_models import FACTOR, FLOOR, POLICIES, assert_streams, error, measured, record, run_both
from torch import Tensor, nn
from torch._higher_order_ops.scan import scan

from ltc_compiler import Config
from zoo import SMALL, ZooModel

MACHINE = Config.tiny_c2b8()  # two cores and small blocks, so that small models are spread and padded
MEASURED = measured()


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("case", SMALL.values(), ids=list(SMALL))
def test_model_on_the_machine(case: ZooModel, policy: str) -> None:
    recorded = record(case, policy)
    outputs = run_both(recorded.nnir.to_program(MACHINE), recorded.inputs)
    assert error(outputs, recorded.expected) <= FACTOR * MEASURED[case.name][policy] + FLOOR
    if case.streaming is not None:
        assert_streams(recorded, MACHINE, outputs)


def test_torch_scan() -> None:
    """torch's own scan operator, of two states and in reverse, is a scan of ours; the model itself runs it compiled."""

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.w = nn.Linear(4, 4)

        def forward(self, a: Tensor) -> Any:
            def step(state: tuple[Tensor, Tensor], u: Tensor) -> tuple[tuple[Tensor, Tensor], Tensor]:
                h = torch.tanh(self.w(state[0]) + u)
                return (h, state[1] + h), h * state[1]

            zeros = a.new_zeros(2, 4)
            return scan(step, (zeros, zeros + 1), a, dim=1), scan(
                step, (zeros, zeros), a, dim=1, reverse=True
            )[1]

    recorded = record(ZooModel("torch_scan", Model, lambda: (torch.randn(2, 5, 4),)), "fp32")
    assert [n.op for n in recorded.nnir.graph.nodes].count("scan") == 2
    outputs = run_both(recorded.nnir.to_program(MACHINE), recorded.inputs)
    assert error(outputs, recorded.expected) < 1e-6


def test_the_recorded_errors_are_those_of_the_zoo() -> None:
    """Nothing is recorded of models that are gone, and a policy that should be exact has not drifted."""
    assert list(MEASURED) == list(SMALL)
    worst = {policy: max(row[policy] for row in MEASURED.values()) for policy in POLICIES}
    assert worst["fp32"] < 1e-6
    assert worst["default"] < 0.02
    assert worst["fp8"] < 0.125  # a weight of 3 bits rounds by up to 1/16: twice that after several layers
