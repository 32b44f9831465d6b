"""RMSNorm: the norm over features alone, so that it happens within each step of a stream."""

from __future__ import annotations

from torch import nn


class RMSNorm(nn.RMSNorm):
    """torch.nn.RMSNorm: x / sqrt(mean(x^2) + eps) * weight over the last axes. Source: Zhang and Sennrich (2019).

    It streams along any axis but those it normalises; its sums and square root are fp32.
    """
