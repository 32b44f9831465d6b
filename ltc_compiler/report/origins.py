"""Where an instruction comes from: the op of the graph, and the line of the user's model.

The compiler leaves one line of text per instruction in the program's META section; here it is parsed.
"""

from __future__ import annotations

import re
from pathlib import PurePath
from typing import Any, NamedTuple

from ltc_compiler.bytecode import Image

HOST = ("input", "output", "state")
_PLACE = re.compile(r"(.+):(\d{1,9})")


class Origin(NamedTuple):
    """Where an instruction comes from; what is not known is empty, or 0.

    Attributes:
        op: the op of the graph; or "input", "output", "state" for what the compiler adds.
        module: the module path in the model; or the name of the input, output or state.
        file: the user's source file.
        line: in that file.
        text: of that line.
    """

    op: str = ""
    module: str = ""
    file: str = ""
    line: int = 0
    text: str = ""

    @property
    def place(self) -> str:
        """File and line if they are known, else the module path, else the op."""
        if self.file:
            return f"{PurePath(self.file).name}:{self.line}"
        return (f"{self.op} {self.module}" if self.op in HOST else self.module or self.op) or "(unknown)"

    @classmethod
    def parse(cls, op: str, text: str) -> Origin:
        """`text`: module path, file:line and the line, two spaces apart; each may be missing."""
        if op in HOST:  # what the compiler itself adds: "input x"
            return cls(op, text.removeprefix(op).strip())
        module, file, line = "", "", 0
        parts = text.split("  ", 2)
        if parts and not _PLACE.fullmatch(parts[0]):
            module = parts.pop(0)
        elif len(parts) == 3:
            parts[1:] = ["  ".join(parts[1:])]
        if parts and (found := _PLACE.fullmatch(parts[0])):
            file, line = found[1], int(found[2])
            parts.pop(0)
        return cls(op, "" if module == "(unknown place)" else module, file, line, "  ".join(parts).strip())


def origins(image: Image) -> list[Origin]:
    """The origin of every instruction of a program; where META has no op for one, its own name is taken."""
    return [
        Origin.parse(_entry(image.meta, "operations", i) or instr.name, _entry(image.meta, "instructions", i))
        for i, instr in enumerate(image.code)
    ]


def _entry(meta: dict[str, Any], key: str, index: int) -> str:
    table = meta.get(key)
    value = table.get(str(index), "") if isinstance(table, dict) else ""
    return value if isinstance(value, str) else ""
