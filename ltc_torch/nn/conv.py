"""A causal convolution: the output at a time depends on that time and earlier ones, so that it can be streamed."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F


class PaddedConv1d(nn.Conv1d):
    """nn.Conv1d with (kernel_size - 1) * dilation zeros before the input: (batch, channels, time), time kept.

    Streamed along time it holds that many past inputs as state, and starts with zeros.

    Args:
        in_channels: as for nn.Conv1d.
        out_channels: as for nn.Conv1d.
        kernel_size: the number of taps, along time.
        dilation: the distance of neighbouring taps, in time steps.
        groups: as for nn.Conv1d.
        bias: as for nn.Conv1d.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        dilation: int = 1,
        groups: int = 1,
        bias: bool = True,
    ) -> None:
        super().__init__(in_channels, out_channels, kernel_size, dilation=dilation, groups=groups, bias=bias)
        self.reach = (kernel_size - 1) * dilation

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - torch's name
        """The convolution of a sequence.

        Args:
            input: (batch, in_channels, time).

        Returns:
            (batch, out_channels, time).
        """
        return super().forward(F.pad(input, (self.reach, 0)))
