"""Compiler and bit-accurate simulator for liquid time-constant networks and related models.

Imports with NumPy alone; the PyTorch front end is the package ltc_torch.
"""

from ltc_compiler.builder import ProgramBuilder
from ltc_compiler.config import Config, HostLink, Latencies
from ltc_compiler.errors import (
    AllocationError,
    ArithmeticMismatchError,
    ConfigError,
    FileError,
    GraphError,
    InputError,
    IsaMismatchError,
    LtcError,
    ModelFileError,
    ProgramError,
    StateError,
    StreamingError,
    Unsupported,
    UnsupportedError,
)
from ltc_compiler.nnir import NNIR
from ltc_compiler.program import Program
from ltc_compiler.vm import VM

__version__ = "0.1.0"

__all__ = [
    "NNIR",
    "VM",
    "AllocationError",
    "ArithmeticMismatchError",
    "Config",
    "ConfigError",
    "FileError",
    "GraphError",
    "HostLink",
    "InputError",
    "IsaMismatchError",
    "Latencies",
    "LtcError",
    "ModelFileError",
    "Program",
    "ProgramBuilder",
    "ProgramError",
    "StateError",
    "StreamingError",
    "Unsupported",
    "UnsupportedError",
]
