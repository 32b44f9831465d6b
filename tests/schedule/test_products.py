"""Products of computed tensors become `product` and `dot`, with the bits of a multiplication and a sum."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import ltc_torch
from ltc_compiler import Config
from ltc_compiler.program import Program
from ltc_compiler.schedule.select import plan
from ltc_torch.fx import prepare_shape
from ltc_torch.fx.nnir import to_nnir

Case = tuple[Callable[..., Tensor], tuple[tuple[int, ...], ...], dict[str, int]]


def heads(x: Tensor, y: Tensor) -> Tensor:
    """(time, heads, features) each, as attention has them."""
    return torch.einsum("ihd,jhd->hij", x, y)


def window(x: Tensor, y: Tensor) -> Tensor:
    return F.scaled_dot_product_attention(x, y, y, is_causal=False)


# what is computed, shapes, and the instructions that it takes: (rows of 8 lanes)
CASES: dict[str, Case] = {
    "x y": (lambda x, y: x @ y, ((5, 9), (9, 10)), {"product": 1}),
    "x yT": (lambda x, y: x @ y.mT, ((5, 9), (10, 9)), {"dot": 1}),
    "xT y": (lambda x, y: x.mT @ y, ((9, 5), (9, 10)), {"product": 1}),
    "xT yT": (lambda x, y: x.mT @ y.mT, ((9, 5), (10, 9)), {"dot": 1, "transpose": 2}),
    "x xT": (lambda x, _: x @ x.mT, ((20, 9), (1, 1)), {"dot": 1}),
    "long": (lambda x, y: x @ y, ((2, 150), (150, 3)), {"product": 1}),
    "a row": (lambda x, y: x @ y, ((9,), (9, 10)), {"product": 1}),
    "one sum": (lambda x, y: x @ y, ((5, 1), (1, 10)), {"product": 1}),
    "batch": (lambda x, y: x @ y, ((3, 5, 9), (3, 9, 10)), {"product": 3}),
    "one for all": (lambda x, y: x @ y, ((3, 5, 9), (1, 9, 10)), {"product": 1}),
    "rows of a batch": (lambda x, y: torch.einsum("bti,ij->btj", x, y), ((3, 5, 9), (9, 10)), {"product": 1}),
    "heads": (heads, ((5, 3, 8), (7, 3, 8)), {"dot": 3}),
    "attention": (window, ((2, 5, 9), (2, 7, 9)), {"dot": 2, "product": 2}),
}


class Of(nn.Module):
    def __init__(self, function: Callable[..., Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, *x: Tensor) -> Tensor:
        with ltc_torch.Fp32Activations():
            return self.function(*x)


def compiled(module: nn.Module, x: tuple[Tensor, ...], config: Config, **how: Any) -> Program:
    return to_nnir(prepare_shape(module.eval(), *x)[0]).to_program(config, **how)


def drawn(*shapes: tuple[int, ...]) -> tuple[Tensor, ...]:
    made = torch.Generator().manual_seed(len(shapes[0]))
    return tuple(torch.randn(*shape, generator=made) for shape in shapes)


@pytest.mark.parametrize("name", CASES)
def test_a_product_is_an_instruction_with_the_bits_of_its_parts(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    function, shapes, expected = CASES[name]
    x = drawn(*shapes)
    program = compiled(Of(function), x, Config.tiny_c2b8(), quick_compile=True)
    names = Counter(i.name for i in program.image.code)
    assert {n: names[n] for n in ("product", "dot", "transpose") if names[n]} == expected
    y = program.to_vm().run(*x)
    np.testing.assert_allclose(y, function(*x).numpy(), rtol=1e-5, atol=1e-5)
    assert y.tobytes() == program.to_oracle().run(*x).tobytes()
    monkeypatch.setattr(plan, "find_products", lambda graph: ({}, set()))
    room = replace(Config.tiny_c2b8(), tensor_rows=4096)
    parts = compiled(Of(function), x, room, quick_compile=True)
    assert not {"product", "dot"} & {i.name for i in parts.image.code}
    assert y.tobytes() == parts.to_vm().run(*x).tobytes()


def test_what_others_read_is_computed_too() -> None:
    """The transposition and the elementary products, where they are outputs as well."""

    class Both(nn.Module):
        def forward(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor, Tensor]:
            turned = y.mT
            terms = x[:, None, :] * (y + 1)[None, :, :]
            return x @ turned, turned * 2, terms.sum(-1) + terms.amax(-1)

    x = drawn((5, 9), (10, 9))
    program = compiled(Both(), x, Config.tiny_c2b8(), quick_compile=True)
    names = Counter(i.name for i in program.image.code)
    assert (names["dot"], names["row_sum"]) == (1, 1)
    for y, expected in zip(program.to_vm().run(*x), Both()(*x), strict=True):
        np.testing.assert_allclose(y, expected.numpy(), rtol=1e-5, atol=1e-5)


def test_a_product_takes_rows_of_the_size_of_its_operands() -> None:
    x = drawn((64, 64))
    program = compiled(Of(lambda x: x @ x.mT), x, Config.v80_c6b32())
    assert program.metrics()["cores"][0]["tensor_rows"]["used"] <= 2 * 64 * 2 + 2
    np.testing.assert_allclose(program.to_vm().run(*x), (x[0] @ x[0].mT).numpy(), rtol=1e-5, atol=1e-4)


def test_attention_of_four_heads_over_128_tokens_fits() -> None:
    x = drawn((1, 128, 128))

    class Attention(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.attention = nn.MultiheadAttention(128, 4, batch_first=True)

        def forward(self, x: Tensor) -> Tensor:
            y: Tensor = self.attention(x, x, x, need_weights=False)[0]
            return y

    module = Attention().eval()
    program = compiled(module, x, Config.v80_c6b32(), quick_compile=True)
    names = Counter(i.name for i in program.image.code)
    assert (names["dot"], names["product"], names["transpose"]) == (4, 4, 0)
    with torch.no_grad():
        expected = module(*x).numpy()
    np.testing.assert_allclose(program.to_vm(bit_accurate=False).run(*x), expected, atol=2e-6)
    away = np.abs(program.to_vm().run(*x) - expected).max()
    with torch.no_grad():
        bf16 = module.bfloat16()(x[0].bfloat16()).float().numpy()
    assert away < np.abs(bf16 - expected).max()


class Loop(nn.Module):
    """A product in every iteration with a matrix that no iteration changes."""

    def forward(self, x: Tensor, w: Tensor) -> Tensor:
        h = x.new_zeros(x.shape[0], w.shape[1])
        for t in range(x.shape[1]):
            h = torch.tanh(x[:, t] + h @ w.mT)
        return h


def test_a_transposition_does_not_stand_in_a_loop() -> None:
    x = drawn((3, 6, 10), (10, 10))
    program = compiled(Loop(), x, Config.tiny_c2b8(), quick_compile=True)
    inside, found = 0, Counter[str]()
    for instr in program.image.code:
        inside += {"loop": 1, "end": -1}.get(instr.name, 0)
        found[instr.name] += bool(inside)
    assert found["dot"] + found["product"] == 1
    assert not found["transpose"]
    y = program.to_vm(bit_accurate=False).run(*x)
    np.testing.assert_allclose(y, Loop()(*x).numpy(), atol=1e-5)
