"""Modules that train in PyTorch and compile without unrolling: time loops, liquid time-constant layers, LSTMs."""

from .conv import PaddedConv1d
from .lstm import LSTM, LSTMCell, RecurrentStateLSTM
from .ltc import GatedLTC, GatedLTCCell
from .norm import RMSNorm
from .scan import Scan

__all__ = [
    "LSTM",
    "GatedLTC",
    "GatedLTCCell",
    "LSTMCell",
    "PaddedConv1d",
    "RMSNorm",
    "RecurrentStateLSTM",
    "Scan",
]
