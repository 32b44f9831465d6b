"""Precision policies and formats of ports, from PyTorch down to the stores of a program."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import ml_dtypes
import numpy as np
import pytest
import torch
from torch import Tensor, nn

from ltc_compiler import Config, UnsupportedError, numerics
from ltc_compiler.ir.graph import Graph, Precision, Type
from ltc_compiler.ir.ops import add
from ltc_compiler.nnir import NNIR
from ltc_torch import Fp8Weights, Fp32Activations
from ltc_torch.fx import prepare_shape
from ltc_torch.fx.nnir import to_nnir

CONFIG = Config.tiny_c2b8()


class Regions(nn.Module):
    """Two layers, each in a region of its own."""

    def __init__(self, first: Any, second: Any) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.a, self.b = nn.Linear(12, 20), nn.Linear(20, 9)
        self.first, self.second = first, second

    def forward(self, x: Tensor) -> Tensor:
        with self.first():
            h = torch.tanh(self.a(x))
        with self.second():
            y: Tensor = self.b(h)
            return y


def convert(model: nn.Module, x: Tensor, **formats: Any) -> NNIR:
    return to_nnir(prepare_shape(model.eval(), x)[0], **formats)


def e4m3(weight: Tensor) -> Tensor:
    """The weight as another library rounds it to FP8, with the scale of rule 5."""
    w = weight.detach().double().numpy()
    scale = 2.0 ** np.ceil(np.log2(np.abs(w).max() / 448))
    return torch.tensor((w / scale).astype(ml_dtypes.float8_e4m3fn).astype(np.float64) * scale)


def test_fp8_weights_are_those_of_another_library() -> None:
    """A model whose weights are on the FP8 grid already gives the same bits with and without Fp8Weights."""
    x = torch.randn(3, 12)
    coarse = Regions(nullcontext, nullcontext)
    with torch.no_grad():
        for layer in (coarse.a, coarse.b):
            layer.weight.copy_(e4m3(layer.weight))
    fine = Regions(Fp8Weights, Fp8Weights)
    outputs = [convert(m, x).to_program(CONFIG).to_vm().run(x.numpy()) for m in (coarse, fine)]
    assert outputs[0].tobytes() == outputs[1].tobytes()
    assert not np.array_equal(coarse.a.weight.detach(), fine.a.weight.detach())


def test_every_weight_has_a_scale_of_its_own() -> None:
    """Products of one input are merged where their weights have one format; FP8 ones keep their scales."""

    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.large, self.small = nn.Linear(16, 64), nn.Linear(16, 64)
            with torch.no_grad():
                self.large.weight.mul_(100)
                self.small.weight.mul_(1e-4)

        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            with Fp8Weights():
                return self.large(x), self.small(x)

    model, x = Two(), torch.randn(2, 16)
    outputs = convert(model, x).to_program(CONFIG).to_vm().run(x.numpy())
    for layer, y in zip((model.large, model.small), outputs, strict=True):
        exact = layer(x).detach().numpy() - layer.bias.detach().numpy()
        assert np.abs(y - layer.bias.detach().numpy() - exact).max() < 0.05 * np.abs(exact).max()


def test_plain_fp32_keeps_the_weights_of_the_model() -> None:
    """bit_accurate=False tells the error of formats from others: it knows no FP8."""
    x = torch.randn(3, 12)
    model = Regions(Fp8Weights, Fp8Weights)
    program = convert(model, x).to_program(CONFIG)
    exact = model(x).detach().numpy()
    assert np.abs(program.to_vm(bit_accurate=False).run(x.numpy()) - exact).max() < 1e-5
    assert np.abs(program.to_vm().run(x.numpy()) - exact).max() > 1e-3


def test_plain_fp32_keeps_the_constants_of_a_bf16_operation() -> None:
    """Two constants that bf16 cannot tell apart."""
    graph = Graph("constants")
    x = graph.add_input(Type((2, 9)))
    for c in (0.1, 0.1001):
        graph.add_output(add(graph, "mul", x, graph.constant(np.full(9, c))))
        graph.nodes[-1].precision = Precision.BF16
    program = NNIR(graph).to_program(CONFIG)
    ones = np.ones((2, 9), np.float32)
    assert [float(y[0, 0]) for y in program.to_vm().run(ones)] == [0.10009765625] * 2
    for machine in (program.to_vm(bit_accurate=False), program.to_oracle(bit_accurate=False)):
        assert [y[0, 0] for y in machine.run(ones)] == [np.float32(0.1), np.float32(0.1001)]


@pytest.mark.parametrize("outer", [Fp8Weights, Fp32Activations])
def test_fp8_weights_in_fp32(outer: Any) -> None:
    """In both regions at once a product reads FP8's values in fp32, whichever region is the inner one."""
    inner = Fp32Activations if outer is Fp8Weights else Fp8Weights

    class Both(Regions):
        def forward(self, x: Tensor) -> Tensor:
            with outer():
                return super().forward(x)

    x = torch.randn(3, 12)
    model, coarse = Both(inner, inner).eval(), Regions(nullcontext, nullcontext).eval()
    with torch.no_grad():
        for layer in (coarse.a, coarse.b):
            layer.weight.copy_(e4m3(layer.weight))
    program = convert(model, x).to_program(CONFIG)
    assert {i.name for i in program.image.code if i.name.startswith("matmul")} == {"matmul_fp32"}
    y = program.to_vm().run(x.numpy())
    assert y.tobytes() == program.to_oracle().run(x.numpy()).tobytes()
    assert np.abs(y - coarse(x).detach().numpy()).max() < 1e-6
    assert np.abs(y - model(x).detach().numpy()).max() > 1e-3


def test_regions_set_the_precision_of_each_layer() -> None:
    x = torch.randn(3, 12)
    names = {
        (Fp32Activations, nullcontext): ["matmul", "matmul_fp32"],
        (nullcontext, Fp8Weights): ["matmul"],
        (Fp32Activations, Fp32Activations): ["matmul_fp32"],
    }
    for regions, expected in names.items():
        program = convert(Regions(*regions), x).to_program(CONFIG)
        found = {i.name for i in program.image.code if i.name.startswith("matmul")}
        assert sorted(found) == expected


@pytest.mark.parametrize(
    ("feature", "region", "what"),
    [("fp8_weights", Fp8Weights, "FP8 weights"), ("fp32_matmul", Fp32Activations, "product in FP32")],
)
def test_a_configuration_without_the_feature_refuses(feature: str, region: Any, what: str) -> None:
    nnir = convert(Regions(region, nullcontext), torch.randn(3, 12))
    with pytest.raises(UnsupportedError, match=what) as caught:
        nnir.to_program(Config.from_dict({**CONFIG.to_dict(), "name": "poor", feature: False}))
    assert "h = torch.tanh(self.a(x))" in str(caught.value)
    assert feature in caught.value.entries[0].rewrite


def test_fold_fp8_rounds_once() -> None:
    """Between two codes, a hair above the tie: through fp32 it would first round to the tie, then to even."""
    tie = 1.0625  # between 1 and 1.125
    assert numerics.fold_fp8(tie + 2.0**-40, 0) == 1.125
    assert numerics.fold_fp8(tie, 0) == 1.0
    assert numerics.fold_fp8(-tie - 2.0**-40, 3) == -1.0 - 0.125
    assert numerics.fold_fp8(1e9, 0) == 448.0


# ---------------------------------------------------------------- ports


def test_bf16_ports() -> None:
    """A BF16 input takes float32, bfloat16 arrays and tensors alike; a BF16 output holds BF16 values."""
    x = torch.randn(3, 12)
    model = Regions(nullcontext, nullcontext)
    formats = {"inputs_precisions": [Precision.BF16], "outputs_precisions": [Precision.BF16]}
    program = convert(model, x, **formats).to_program(CONFIG)
    assert (program.input_format(), program.output_format()) == ("bf16", "bf16")
    vm, oracle = program.to_vm(), program.to_oracle()
    y = vm.run(x.numpy())
    for same in (x.numpy().astype(ml_dtypes.bfloat16), x.bfloat16(), x):
        assert vm.run(same).tobytes() == y.tobytes() == oracle.run(same).tobytes()
    assert y.dtype == np.float32
    assert np.array_equal(numerics.to_bf16(y), y)
    wide = convert(model, x).to_program(CONFIG).to_vm().run(x.numpy())
    assert np.array_equal(numerics.to_bf16(wide), y), (
        "the products read BF16 anyway: only the output is rounded"
    )


def test_bf16_ports_of_a_step() -> None:
    x = torch.randn(1, 6, 12)
    formats = {"inputs_precisions": [Precision.BF16], "outputs_precisions": [Precision.BF16]}
    whole = convert(Regions(nullcontext, nullcontext), x, **formats)
    step, axis = whole.streaming_transform(1)
    program = step.to_program(CONFIG)
    assert (program.input_format(), program.output_format()) == ("bf16", "bf16")
    y = whole.to_program(CONFIG).to_vm().run(x.numpy())
    assert axis == 1
    assert program.to_vm().run_timesteps(x.numpy()).tobytes() == y.tobytes()


def test_an_input_that_is_an_output_is_rounded_for_it_alone() -> None:
    class Twice(nn.Module):
        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            return x, x * 1

    x = torch.randn(2, 9)
    nnir = convert(Twice(), x, outputs_precisions=[Precision.BF16, Precision.FP32])
    rounded, plain = nnir.to_program(CONFIG).to_vm().run(x.numpy())
    assert np.array_equal(rounded, numerics.to_bf16(x.numpy()))
    assert np.array_equal(plain, x.numpy())
