"""The tables of the machine, and what is printed from them.

table.py holds the instructions, formats.py their operands, patterns.py their beats, machine.py the parameters of a
machine. cpp.py and cpp_machine.py print the headers that the C++ core is built with, markdown.py docs/isa.md and
docs/configuration.md, schema.py the JSON schema of a machine's file. The package imports the standard library alone:
the build runs it by its path (__main__.py) before numpy or the core are there.
"""

from ltc_compiler.isa.formats import ENCODINGS, FORMATS, PRECISIONS, Access, Field, Format
from ltc_compiler.isa.machine import LATENCIES
from ltc_compiler.isa.patterns import PATTERNS, STORES, WALKED, Pattern, Phase, value_of
from ltc_compiler.isa.table import (
    ABSENT,
    ACTIVATION_MEANINGS,
    ALL_CORES,
    BY_NAME,
    BY_OPCODE,
    INSTRUCTIONS,
    MAX_LOOP_DEPTH,
    UNITS,
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
    "PATTERNS",
    "PRECISIONS",
    "STORES",
    "UNITS",
    "WALKED",
    "Access",
    "Field",
    "Format",
    "Instruction",
    "Pattern",
    "Phase",
    "isa_hash",
    "value_of",
]
