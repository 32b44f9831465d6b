"""Modules that train in PyTorch and compile without unrolling: time loops and liquid time-constant layers."""

from .conv import PaddedConv1d
from .ltc import GatedLTC, GatedLTCCell
from .scan import Scan

__all__ = ["GatedLTC", "GatedLTCCell", "PaddedConv1d", "Scan"]
