"""Bytecode: a program as data (Image), as a file (container), and as text (assemble, disassemble).

All three are loops over the instruction table, isa/table.py. The bytes are described in container.py, the text in
assembly.py.
"""

from ltc_compiler.bytecode.assembly import assemble, disassemble, instr_text
from ltc_compiler.bytecode.image import Image, store_use
from ltc_compiler.bytecode.instr import Instr, Row
from ltc_compiler.bytecode.ports import Model, Port, State, shape_rows
from ltc_compiler.bytecode.rings import Ring
from ltc_compiler.bytecode.stores import CoreImage, EntryArrays, SlotArrays

__all__ = [
    "CoreImage",
    "EntryArrays",
    "Image",
    "Instr",
    "Model",
    "Port",
    "Ring",
    "Row",
    "SlotArrays",
    "State",
    "assemble",
    "disassemble",
    "instr_text",
    "shape_rows",
    "store_use",
]
