"""The tables of the machine, and what is printed from them.

table.py holds the instructions. cpp.py prints the header that the C++ core is built with, markdown.py docs/isa.md.
The package imports the standard library alone: the build runs it by its path (__main__.py) before numpy or the core
are there.
"""

from ltc_compiler.isa.machine import LATENCIES
from ltc_compiler.isa.table import (
    ABSENT,
    ACTIVATION_MEANINGS,
    ALL_CORES,
    BY_NAME,
    BY_OPCODE,
    ENCODINGS,
    FORMATS,
    INSTRUCTIONS,
    MAX_LOOP_DEPTH,
    PRECISIONS,
    UNITS,
    Access,
    Field,
    Format,
    Instruction,
    isa_hash,
)

__all__ = [
    "ABSENT",
    "ACTIVATION_MEANINGS",
    "ALL_CORES",
    "BY_NAME",
    "BY_OPCODE",
    "ENCODINGS",
    "FORMATS",
    "INSTRUCTIONS",
    "LATENCIES",
    "MAX_LOOP_DEPTH",
    "PRECISIONS",
    "UNITS",
    "Access",
    "Field",
    "Format",
    "Instruction",
    "isa_hash",
]
