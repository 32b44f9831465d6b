"""Compiler and bit-accurate simulator for liquid time-constant networks and their kin.

Imports with NumPy alone; the PyTorch front end is the package ltc_torch.
"""

from ltc_compiler.config import Config, Latencies
from ltc_compiler.errors import (
    AllocationError,
    ConfigError,
    GraphError,
    InputError,
    IsaMismatchError,
    LtcError,
    ProgramError,
    StateError,
    StreamingError,
    Unsupported,
    UnsupportedError,
)

__version__ = "0.1.0"

__all__ = [
    "AllocationError",
    "Config",
    "ConfigError",
    "GraphError",
    "InputError",
    "IsaMismatchError",
    "Latencies",
    "LtcError",
    "ProgramError",
    "StateError",
    "StreamingError",
    "Unsupported",
    "UnsupportedError",
]
