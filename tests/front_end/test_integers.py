"""Booleans and whole numbers that depend on an input: as PyTorch computes them, or refused where fp32 would differ."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from ltc_compiler import Config
from ltc_compiler.errors import UnsupportedError
from ltc_torch.fx import prepare_shape
from ltc_torch.fx.nnir import to_nnir

X = torch.tensor([[-2.5, -0.5, 0.0, 0.25, 1.5, 3.0], [0.75, -1.0, 2.0, -0.0, -3.0, 0.5]])
BOOLEANS: tuple[Callable[[Tensor], Tensor], ...] = (
    lambda x: ((x > 0) + (x < 1)) * 2.5,
    lambda x: torch.add(x > 0, x < 1) * 2.5,
    lambda x: (x > 0).add_(x < 1) * 2.5,
    lambda x: ((x > 0) * (x < 1)) * 2.5,
    lambda x: ((x > 0) + 1) * 2.5,
    lambda x: (~(x > 0) ^ (x < 1)) * 2.5,
    lambda x: ((x > 0) & (x < 1) | (x == 3)) * 2.5,
    lambda x: (x.argmax(1) % 2 + x.argmin(1) // 2) * 1.5,
    lambda x: torch.where(x > 0, 7, 2) // 2 * x,
    lambda x: (x > 0).sum(1) / 4,
)
REFUSED: dict[str, Callable[[Tensor], Tensor]] = {
    "8 bits": lambda x: x * ((x > 0).to(torch.uint8) * 200 + 100),
    "16 bits": lambda x: x * (((x > 0).to(torch.int16) * 300) ** 2),
    "bits of whole": lambda x: x * (x.argmax(1, keepdim=True) & 1),
    "bits of": lambda x: x * ~x.argmax(1, keepdim=True),
}


class Of(nn.Module):
    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


class Wrapping(nn.Module):
    """A count of 8 bits, which wraps in PyTorch after a few calls."""

    def __init__(self) -> None:
        super().__init__()
        self.count = torch.tensor([250], dtype=torch.uint8)

    def forward(self, x: Tensor) -> Any:
        self.count += 3
        return x * self.count


@pytest.mark.parametrize("function", BOOLEANS)
def test_equal_to_pytorch(function: Callable[[Tensor], Tensor]) -> None:
    traced, _ = prepare_shape(Of(function), torch.randn(X.shape))
    vm = to_nnir(traced).to_program(Config.v80_c6b32()).to_vm(bit_accurate=False)
    np.testing.assert_allclose(vm.run(X.numpy()), function(X.clone()), rtol=1e-6)


@pytest.mark.parametrize("reason", REFUSED)
def test_what_fp32_computes_otherwise_is_refused(reason: str) -> None:
    traced, _ = prepare_shape(Of(REFUSED[reason]), torch.randn(X.shape))
    with pytest.raises(UnsupportedError, match=reason):
        to_nnir(traced)


def test_a_count_that_wraps_is_no_state() -> None:
    traced, _ = prepare_shape(Wrapping(), torch.randn(1, 4))
    with pytest.raises(UnsupportedError, match="wrap"):
        to_nnir(traced)
