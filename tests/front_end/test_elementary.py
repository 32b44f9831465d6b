"""Functions that are composed of others: their error on the machine in ulp, and their special values, against torch."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from ltc_compiler import Config
from ltc_torch.fx import prepare_shape
from ltc_torch.fx.nnir import to_nnir

INF, NAN = math.inf, math.nan
POINTS = 512

# name -> function, range of the argument, largest error in ulp of the fp32 result
ACCURACY: dict[str, tuple[Callable[[Tensor], Tensor], float, float, float]] = {
    "log1p": (torch.log1p, -0.99, 50, 3),
    "log1p of little": (torch.log1p, -1e-3, 1e-3, 3),
    "expm1": (torch.expm1, -20, 80, 3),
    "expm1 of little": (torch.expm1, -1e-3, 1e-3, 3),
    "sinh": (torch.sinh, -89.3, 89.3, 3),
    "sinh of little": (torch.sinh, -0.1, 0.1, 3),
    "cosh": (torch.cosh, -89.3, 89.3, 3),
    "asinh": (torch.asinh, -50, 50, 3),
    "asinh of little": (torch.asinh, -1e-2, 1e-2, 3),
    "acosh": (torch.acosh, 1, 9, 3),
    "atanh": (torch.atanh, -0.999, 0.999, 3),
    "atanh of little": (torch.atanh, -1e-2, 1e-2, 3),
    "hypot": (lambda x: torch.hypot(x, 2 - x), -9, 9, 3),
    "sin": (torch.sin, -1e6, 1e6, 1.1),
    "cos of much": (torch.cos, -3e38, 3e38, 1.1),
    "tan": (torch.tan, -20, 20, 4),
    "erf": (torch.erf, -4, 4, 1.4),
    "erfc": (torch.erfc, -2, 2, 10),
    "atan": (torch.atan, -9, 9, 2),
    "atan2": (lambda x: torch.atan2(x, 2 - x), -9, 9, 3),
    "asin": (torch.asin, -1, 1, 5),
    "acos": (torch.acos, -1, 1, 5),
    "sinc": (torch.sinc, -30, 30, 4),
}


class Rows(nn.Module):
    """Function i on row i of the input."""

    def __init__(self, functions: list[Callable[[Tensor], Tensor]]) -> None:
        super().__init__()
        self.functions = functions

    def forward(self, x: Tensor) -> list[Tensor]:
        return [f(x[i]) for i, f in enumerate(self.functions)]


def on_the_machine(module: nn.Module, x: Tensor) -> list[Any]:
    program = to_nnir(prepare_shape(module.eval(), x)[0]).to_program(Config.v80_c6b32())
    found = program.to_vm().run(x.numpy())
    return list(found) if isinstance(found, tuple) else [found]


def ulps(found: Any, wanted: Any) -> Any:
    """The distance from the fp64 numbers `wanted` in units of their last place in fp32."""
    unit = np.spacing(np.maximum(np.abs(wanted), 2.0**-126).astype(np.float32)).astype(np.float64)
    return np.abs(found - wanted) / unit


def test_errors_are_within_the_stated_ulps() -> None:
    rng = np.random.default_rng(3)
    x = torch.tensor(np.array([rng.uniform(low, high, POINTS) for _, low, high, _ in ACCURACY.values()]))
    x = x.float()
    found = on_the_machine(Rows([f for f, *_ in ACCURACY.values()]), x)
    for row, y, (name, (function, _, _, bound)) in zip(x, found, ACCURACY.items(), strict=True):
        worst = ulps(y, function(row.double()).numpy()).max()
        assert bound / 4 < worst <= bound, (name, worst)


SPECIAL = torch.tensor([0.0, -0.0, 1.0, -1.0, 0.5, -2.5, INF, -INF, NAN, 1e-30, -1e-30, 3e38, -3e38])
ONE = """log1p expm1 sinh cosh asinh acosh atanh isinf isfinite isposinf isneginf signbit sign
    sin cos tan erf erfc atan asin acos floor ceil trunc frac round sinc"""
TWO = "hypot logaddexp logaddexp2 copysign heaviside xlogy isclose atan2 fmod remainder floor_divide"
UNARY: dict[str, Callable[[Tensor], Tensor]] = {name: getattr(torch, name) for name in ONE.split()}
BINARY: dict[str, Callable[[Tensor, Tensor], Tensor]] = {name: getattr(torch, name) for name in TWO.split()}


def agree(found: Any, wanted: Tensor, name: str) -> None:
    expected = wanted.double().numpy()
    np.testing.assert_allclose(
        found,
        expected,
        rtol=2e-6,
        atol={"logaddexp": 2e-7, "logaddexp2": 2e-7, "sinc": 1e-16}.get(name, 1e-37),
        err_msg=name,
    )
    zeros = (expected == 0) & (np.asarray(found) == 0)
    np.testing.assert_array_equal(np.signbit(found)[zeros], np.signbit(expected)[zeros], err_msg=name)


def test_special_values_of_one() -> None:
    x = SPECIAL.repeat(len(UNARY), 1)
    for name, y in zip(UNARY, on_the_machine(Rows(list(UNARY.values())), x), strict=True):
        agree(y, UNARY[name](SPECIAL.double()).float(), name)


def of_a_pair(function: Callable[[Tensor, Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    return lambda x: function(x[0], x[1])


def test_special_values_of_two() -> None:
    pairs = torch.cartesian_prod(SPECIAL, SPECIAL).T
    functions = [of_a_pair(f) for f in BINARY.values()]
    for name, y in zip(BINARY, on_the_machine(Rows(functions), pairs.repeat(len(BINARY), 1, 1)), strict=True):
        wanted = BINARY[name](*pairs.double()).float()
        if name in ("fmod", "remainder"):
            wanted = torch.where((pairs[0] / pairs[1]).abs() < 2.0**40, wanted, NAN)
        agree(y, wanted, name)


@pytest.mark.parametrize("name", ["argmax", "argmin"])
def test_positions_of_ties_and_of_nan(name: str) -> None:
    x = torch.tensor(
        [[2.0, 5, 5, 1, 1], [NAN, 1, NAN, 2, 3], [-INF] * 5, [INF, 1, INF, 2, -INF], [0, -0.0, 0, -0.0, 0]]
    )
    found = on_the_machine(Rows([lambda r: getattr(torch, name)(r, 1)]), x[None])[0]
    np.testing.assert_array_equal(found, getattr(torch, name)(x, 1).numpy())
