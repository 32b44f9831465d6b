"""The WaveNet that guitar amplifiers are modelled with, in the structure and sizes of Neural Amp Modeler's "standard".

Two arrays of ten layers, kernel 3, dilations 1 to 512: 16 channels, then 8. Every layer reads the raw sample too; the
sum of the layers' activations, not their outputs, goes on to the head.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ltc_torch.nn import PaddedConv1d

DILATIONS = tuple(2**i for i in range(10))


class Layer(nn.Module):
    """One dilated convolution. (1, channels, time) and the sample (1, 1, time) -> the next input, the activation."""

    def __init__(self, channels: int, dilation: int) -> None:
        super().__init__()
        self.conv = PaddedConv1d(channels, channels, 3, dilation)
        self.input_mixer = nn.Conv1d(1, channels, 1, bias=False)
        self.one_by_one = nn.Conv1d(channels, channels, 1)

    def forward(self, x: Tensor, sample: Tensor) -> tuple[Tensor, Tensor]:
        z = torch.tanh(self.conv(x) + self.input_mixer(sample))
        return x + self.one_by_one(z), z


class LayerArray(nn.Module):
    """Ten layers. x, the sample, the sum so far -> the next array's x and its sum (1, head, time)."""

    def __init__(self, inputs: int, channels: int, head: int, head_bias: bool) -> None:
        super().__init__()
        self.rechannel = nn.Conv1d(inputs, channels, 1, bias=False)
        self.layers = nn.ModuleList(Layer(channels, d) for d in DILATIONS)
        self.head_rechannel = nn.Conv1d(channels, head, 1, bias=head_bias)

    def forward(self, x: Tensor, sample: Tensor, total: Tensor | None) -> tuple[Tensor, Tensor]:
        x = self.rechannel(x)
        for layer in self.layers:
            x, z = layer(x, sample)
            total = z if total is None else total + z
        return x, self.head_rechannel(total)


class AmplifierWaveNet(nn.Module):
    """The standard size: 13,801 parameters and the scale of the output. (1, 1, time) -> the same."""

    HEAD_SCALE = 0.02

    def __init__(self) -> None:
        super().__init__()
        self.first = LayerArray(1, 16, 8, head_bias=False)
        self.second = LayerArray(16, 8, 1, head_bias=True)

    def forward(self, sample: Tensor) -> Tensor:
        x, total = self.first(sample, sample, None)
        y: Tensor = self.second(x, sample, total)[1]
        return self.HEAD_SCALE * y
