"""A region of wishes that changes nothing says so, once for each line; one that changes something is silent."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import ncps.torch
import pytest
import torch
from torch import Tensor, nn

from ltc_torch import CorePartition, Fp8Weights, Fp32Activations
from ltc_torch.fx import prepare_shape
from ltc_torch.fx.nnir import to_nnir

X = torch.randn(2, 6, 4, generator=torch.Generator().manual_seed(1))


class Model(nn.Module):
    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__()
        self.function = function
        self.linear, self.lstm = nn.Linear(4, 4), nn.LSTM(4, 4, batch_first=True)
        self.ltc = ncps.torch.LTC(4, 3)

    def forward(self, x: Tensor) -> Any:
        return self.function(self, x)


def around_nothing(m: Any, x: Tensor) -> Tensor:
    with Fp8Weights():
        pass
    return m.linear(x)


def around_no_weights(m: Any, x: Tensor) -> Tensor:
    with Fp8Weights():
        return torch.tanh(x) @ x.mT


def around_a_synapse(m: Any, x: Tensor) -> Tensor:
    with Fp8Weights():
        y: Tensor = m.ltc(x)[0]
    return y


def around_constants(m: Any, x: Tensor) -> Tensor:
    with Fp32Activations():
        weight = m.linear.weight * 2
    return x @ weight


def cores_around_nothing(m: Any, x: Tensor) -> Tensor:
    for _ in range(3):
        with CorePartition([0]):
            x.size()
    return m.linear(x)


def product(m: Any, x: Tensor) -> Tensor:
    with Fp8Weights(), Fp32Activations():
        y: Tensor = m.linear(x)
    return y


def layer(m: Any, x: Tensor) -> Tensor:
    with Fp8Weights():
        y: Tensor = m.lstm(x)[0]
    return y


def in_a_loop(m: Any, x: Tensor) -> Tensor:
    h, rows = x.new_zeros(2, 4), []
    for t in range(x.shape[1]):
        with Fp8Weights():
            h = torch.tanh(m.linear(h) + x[:, t])
        rows.append(h)
    return torch.stack(rows, 1)


def found(function: Callable[..., Any]) -> list[str]:
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        to_nnir(prepare_shape(Model(function).eval(), X.clone())[0])
    return [str(w.message) for w in seen if "changes nothing" in str(w.message)]


@pytest.mark.parametrize(
    ("function", "name", "lacking"),
    [
        (around_nothing, "Fp8Weights", "matrix product with constant weights"),
        (around_no_weights, "Fp8Weights", "matrix product with constant weights"),
        (around_a_synapse, "Fp8Weights", "matrix product with constant weights"),
        (around_constants, "Fp32Activations", "operation"),
        (cores_around_nothing, "CorePartition", "operation"),
    ],
)
def test_a_region_that_changes_nothing_is_named(function: Any, name: str, lacking: str) -> None:
    (message,) = found(function)
    assert message.startswith(f"{name} changes nothing: no {lacking} is inside")
    assert "test_regions.py:" in message
    assert f"with {name}(" in message


@pytest.mark.parametrize("function", [product, layer, in_a_loop])
def test_a_region_that_changes_something_is_silent(function: Any) -> None:
    assert found(function) == []
