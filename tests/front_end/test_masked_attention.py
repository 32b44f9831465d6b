"""Attention of queries that may look at nothing: 0, as PyTorch's scaled_dot_product_attention returns."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ltc_compiler import Config
from ltc_torch.fx import prepare_shape
from ltc_torch.fx.nnir import to_nnir

X = torch.randn(2, 6, 8, generator=torch.Generator().manual_seed(0))
VALID = torch.tensor([[1.0, 1, 1, 0, 0, 0], [0.0] * 6])
EARLIER = torch.ones(6, 6, dtype=torch.bool).tril(-1)  # the first position sees nothing


def padded(x: Tensor, valid: Tensor) -> Tensor:
    return F.scaled_dot_product_attention(x, x, x, attn_mask=(valid > 0)[:, None, :])


def added(x: Tensor, valid: Tensor) -> Tensor:
    hidden = torch.where(valid > 0, 0.0, -torch.inf)[:, None, :]
    return F.scaled_dot_product_attention(x, x, x, attn_mask=hidden)


def earlier(x: Tensor, valid: Tensor) -> Tensor:
    return F.scaled_dot_product_attention(x, x, x, attn_mask=EARLIER)


def earlier_added(x: Tensor, valid: Tensor) -> Tensor:
    mask = torch.zeros(6, 6).masked_fill(~EARLIER, -torch.inf)
    return F.scaled_dot_product_attention(x, x, x, attn_mask=mask)


def written_out(x: Tensor, valid: Tensor) -> Tensor:
    """A softmax of nothing is NaN, in PyTorch too."""
    return (x @ x.mT).masked_fill((valid <= 0)[:, None, :], -torch.inf).softmax(-1) @ x


class Apply(nn.Module):
    def __init__(self, function: Callable[..., Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor, valid: Tensor) -> Tensor:
        return self.function(x, valid)


@pytest.mark.parametrize("function", [padded, added, earlier, earlier_added, written_out])
def test_rows_that_see_nothing(function: Callable[..., Tensor]) -> None:
    nnir = to_nnir(prepare_shape(Apply(function).eval(), X, torch.ones(2, 6))[0])
    wanted = function(X, VALID).numpy()
    assert np.isnan(wanted).any() == (function is written_out)
    assert (wanted == 0).any() == (function is not written_out)
    np.testing.assert_allclose(nnir.run(X.numpy(), VALID.numpy()), wanted, rtol=1e-5, atol=1e-6)
    vm = nnir.to_program(Config.v80_c6b32(), quick_compile=True).to_vm()
    np.testing.assert_allclose(vm.run(X, VALID), wanted, atol=0.03)


def test_rows_that_see_something_keep_their_bits() -> None:
    """The care for rows that see nothing is taken where some may be, and does not show elsewhere."""
    program = to_nnir(prepare_shape(Apply(padded).eval(), X, VALID)[0])
    plain = to_nnir(
        prepare_shape(Apply(lambda x, _: F.scaled_dot_product_attention(x, x, x)).eval(), X, VALID)[0]
    )
    machine = Config.v80_c6b32()
    one, two = (
        n.to_program(machine, quick_compile=True).to_vm().run(X, torch.ones(2, 6)) for n in (program, plain)
    )
    np.testing.assert_array_equal(one, two)
