"""Modules that train in PyTorch and compile without unrolling: time loops, liquid time-constant layers, LSTMs."""

from ltc_torch.nn.conv import PaddedConv1d
from ltc_torch.nn.lstm import LSTM, LSTMCell, RecurrentStateLSTM
from ltc_torch.nn.ltc import GatedLTC, GatedLTCCell
from ltc_torch.nn.norm import RMSNorm
from ltc_torch.nn.scan import Scan

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
