"""Transposed convolutions: against torch for random settings, and streamed against the whole, bit for bit."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from ltc_compiler import Config
from ltc_compiler.frontend.compose import Composer
from ltc_compiler.frontend.transposed import transposed_convolution
from ltc_compiler.ir.graph import Graph, Type
from ltc_compiler.ir.run import evaluate
from ltc_torch import fx

FUNCTIONS: list[Any] = [F.conv_transpose1d, F.conv_transpose2d, F.conv_transpose3d]


@pytest.mark.parametrize("axes", [1, 2, 3])
def test_any_setting_means_what_torch_computes(axes: int) -> None:
    rng, done = np.random.default_rng(axes), 0
    while done < 40:
        groups = int(rng.choice([1, 1, 2, 3]))
        channels, out = groups * int(rng.integers(1, 3)), int(rng.integers(1, 3))
        kernel, strides, dilations, space = (rng.integers(1, n, axes).tolist() for n in (5, 4, 3, 5))
        sides = [int(rng.integers(0, (k - 1) * d + 1)) for k, d in zip(kernel, dilations, strict=True)]
        more = [int(rng.integers(0, max(s, d))) for s, d in zip(strides, dilations, strict=True)]
        x = torch.from_numpy(rng.normal(size=(2, channels, *space)))
        weight = torch.from_numpy(rng.normal(size=(channels, out, *kernel)))
        bias = torch.from_numpy(rng.normal(size=out * groups))
        try:
            wanted = FUNCTIONS[axes - 1](x, weight, bias, strides, sides, more, groups, dilations).numpy()
        except RuntimeError:  # nothing would be left
            continue
        graph = Graph()
        c = Composer(graph)
        pads = [(side, side - extra) for side, extra in zip(sides, more, strict=True)]
        made = transposed_convolution(
            c,
            graph.add_input(Type(tuple(x.shape))),
            weight.numpy(),
            bias.numpy(),
            strides,
            pads,
            dilations,
            groups,
        )
        graph.add_output(made)
        np.testing.assert_allclose(evaluate(graph, [x.numpy()])[0], wanted, atol=1e-10)
        done += 1


STREAMS: dict[str, tuple[nn.Module, tuple[int, ...], int]] = {
    "causal": (nn.ConvTranspose1d(4, 3, 3), (1, 4, 9), 0),
    "padded": (nn.ConvTranspose1d(4, 3, 5, padding=2, dilation=2), (1, 4, 12), 2),
    "groups": (nn.ConvTranspose1d(4, 4, 3, groups=2), (1, 4, 9), 0),
    "strided along frequency": (nn.ConvTranspose2d(2, 2, (2, 3), (1, 2), (0, 1), (0, 1)), (1, 2, 6, 5), 0),
}


@pytest.mark.parametrize("name", STREAMS)
def test_a_stream_has_the_bits_of_the_whole(name: str) -> None:
    module, shape, late = STREAMS[name]
    x = torch.randn(shape, generator=torch.Generator().manual_seed(3))
    nnir = fx.nnir.to_nnir(fx.prepare_shape(module.eval(), x)[0])
    whole = nnir.to_program(Config.tiny_c1b8()).to_vm().run(x.numpy())
    program = nnir.streaming_transform(2)[0].to_program(Config.tiny_c1b8())
    assert program.output_latencies == (late,)
    assert program.to_vm().run_timesteps(x.numpy(), end=True).tobytes() == whole.tobytes()
