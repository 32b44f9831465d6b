"""Infinities, NaN, zeros of both signs, huge and subnormal numbers through every pointwise function and reduction.

The machine must give what PyTorch gives: NaN and infinities in the same places, zeros of the same sign, other numbers
to bf16. What the numeric contract has otherwise stands in DIFFERENT, with the reason; a subnormal number is a zero
there (rule 4), so PyTorch is given zeros for them.
"""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ltc_compiler import Config, UnsupportedError
from ltc_torch.fx import prepare_shape
from ltc_torch.fx.nnir import to_nnir
from ltc_torch.fx.record.calls import words

INF, NAN = math.inf, math.nan
VALUES = (INF, -INF, NAN, 0.0, -0.0, 1.0, -1.0, 0.4, -0.4, 2.5, -2.5, 50.0, -50.0, 100.0, -100.0, 3e38, -3e38,
          1e-30, -1e-30, 2e-38, 1e20, -1e20, 1e-40, -1e-40)  # fmt: skip
X = torch.tensor(VALUES)
ROWS = torch.tensor(
    [[0, 5], [1, 1], [1, 5], [5, 6], [2, 1], [4, 3], [3, 4], [2, 0], [15, 15], [0, 1], [1, 7]]
)

Function = Callable[[Tensor], Tensor]

UNARY = words(
    """
    neg abs relu sigmoid tanh exp exp2 log sqrt rsqrt reciprocal square sign log1p expm1 log2 log10 isnan nan_to_num
    logit logical_not sinh cosh asinh atanh isinf isfinite
    """
)
ACTIVATIONS = words(
    """
    silu mish elu celu leaky_relu hardtanh relu6 hardsigmoid hardswish softsign softplus logsigmoid gelu
    """
)
PAIRS = words(
    """
    add sub mul div maximum minimum fmax fmin logical_and logical_or logical_xor eq ne gt ge lt le hypot logaddexp
    copysign
    """
)
POWERS = (0, 1, 2, 3, -1, -2, -3, 0.5, -0.5, 1.5, -1.3, 70, 71, -71)
ROW_WISE: dict[str, Function] = {
    "amax": lambda x: x.amax(-1), "amin": lambda x: x.amin(-1), "sum": lambda x: x.sum(-1),
    "mean": lambda x: x.mean(-1), "softmax": lambda x: x.softmax(-1), "log_softmax": lambda x: x.log_softmax(-1),
    "logsumexp": lambda x: x.logsumexp(-1), "norm": lambda x: x.norm(dim=-1), "glu": F.glu,
    "norm 1": lambda x: x.norm(1, dim=-1), "norm inf": lambda x: x.norm(INF, dim=-1),
    "norm 3": lambda x: torch.linalg.vector_norm(x, 3, dim=-1), "argmax": lambda x: x.argmax(-1),
    "any": lambda x: x.any(-1), "all": lambda x: x.all(-1), "prod": lambda x: x.prod(-1),
    "cumsum": lambda x: x.cumsum(-1), "cumprod": lambda x: x.cumprod(-1), "cummax": lambda x: x.cummax(-1)[0],
    "cummin": lambda x: x.cummin(-1)[0], "logcumsumexp": lambda x: x.logcumsumexp(-1),
}  # fmt: skip


def _power(p: float) -> Function:
    return lambda x: x**p


def _exponential(base: float) -> Function:
    return lambda x: base**x


def _paired(name: str) -> Function:
    function: Any = getattr(torch, name)
    return lambda x: function(x, x.flip(0))


def _computed_powers(x: Tensor) -> Tensor:
    """Bases of every kind, to exponents of every kind but infinite ones."""
    exponents = torch.where((x.abs() < 1000) & (x == x), x, 3.0)
    exponents = exponents[torch.tensor([3, 5, 6, 7, 8, 9, 11, 12, 0])]
    return torch.where(x == -INF, 2.0, x)[:, None] ** exponents


def _of_rows(function: Function) -> Function:
    return lambda x: function(x[ROWS])


FUNCTIONS: dict[str, Function] = {
    **{name: getattr(torch, name) for name in sorted(UNARY)},
    **{name: getattr(F, name) for name in sorted(ACTIVATIONS)},
    **{name: _paired(name) for name in sorted(PAIRS)},
    **{f"power {p}": _power(p) for p in POWERS},
    **{f"{b} to the power": _exponential(b) for b in (2, 0.5, 3.0)},
    **{f"rows, {name}": _of_rows(f) for name, f in ROW_WISE.items()},
    "computed powers": _computed_powers,
    "powers of a negative base": lambda x: (
        torch.tensor(-1.5) ** torch.floor(x.clamp(-9, 9)) + torch.tensor(0.0) ** x
    ),
    "powers": lambda x: x[:, None] ** torch.arange(5.0),
    "twenty powers": lambda x: x[:, None] ** torch.arange(-10.0, 10.0),
    "softplus 2 0.5": lambda x: F.softplus(x, 2, 0.5),
    "gelu tanh": lambda x: F.gelu(x, approximate="tanh"),
    "clamp": lambda x: x.clamp(-1, 1),
    "threshold": lambda x: F.threshold(x, 0.1, -7.0),
    "where": lambda x: torch.where(x > 0, x, -x),
    "prelu": lambda x: F.prelu(x, torch.tensor([0.2])),
    "bool": lambda x: x.bool(),
}

# function -> {input: what the machine gives}, where that is not what PyTorch gives: the limits of rules 9 and 10, where
# PyTorch's formula is infinity times 0 or too large on the way; and -infinity, which has no logarithm.
DIFFERENT: dict[str, dict[float, float]] = {
    "silu": {-INF: -0.0},
    "gelu": {INF: INF, -INF: -0.0, 3e38: 3e38},
    "gelu tanh": {-INF: -0.0},
    "hardswish": {3e38: 3e38},
    "power 1.5": {-INF: NAN},
    "power -1.3": {-INF: NAN},
}
# Where zeros have another sign: a maximum of two zeros is the second one (rule 6), and e^x - 1 is +0.
OTHER_ZEROS = ("relu", "relu6", "elu", "celu", "logsigmoid", "rows, amax", "rows, amin")


class Every(nn.Module):
    def forward(self, x: Tensor) -> list[Tensor]:
        return [function(x) for function in FUNCTIONS.values()]


@pytest.fixture(scope="module")
def given() -> dict[str, Any]:
    """What the machine gives: recorded on ordinary numbers, one program for all functions."""
    graph_module, _ = prepare_shape(Every().eval(), torch.linspace(-2, 2, len(VALUES)))
    program = to_nnir(graph_module).to_program(Config.v80_c6b32(), quick_compile=True)
    outputs: Any = program.to_vm().run(X.numpy())
    return dict(zip(FUNCTIONS, outputs, strict=True))


@pytest.mark.parametrize("name", FUNCTIONS)
def test_special_values(name: str, given: dict[str, Any]) -> None:
    x = torch.where(X.abs() < 2**-126, X * 0, X)
    wanted = FUNCTIONS[name](x).float().numpy()
    wanted = np.where(np.abs(wanted) < 2**-126, np.copysign(0, wanted), wanted)
    for value, other in DIFFERENT.get(name, {}).items():
        assert not np.array_equal(wanted[VALUES.index(value)], np.float32(other), equal_nan=True), (
            "no difference"
        )
        wanted[VALUES.index(value)] = other
    np.testing.assert_allclose(given[name], wanted, rtol=0.02, atol=1e-6)
    zeros = (wanted == 0) & (given[name] == 0) & (name not in OTHER_ZEROS)
    assert (np.signbit(given[name]) == np.signbit(wanted))[zeros].all()


@pytest.mark.parametrize("exponent", [INF, NAN])
def test_a_power_without_end_is_refused(exponent: float) -> None:
    class Power(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x**exponent

    with pytest.raises(UnsupportedError, match="exponent is not finite"):
        to_nnir(prepare_shape(Power().eval(), X.clone())[0])
