"""The text form of code: one line per instruction, printed and parsed by loops over the instruction table.

      12  c0   add          dst=40 dst_outer=0 dst_inner=1 a=12+2@1 ... n_inner=4 precision=bf16

Index, core, name, then every field as name=value. A row reads base, or base+stride@level inside the loop of
that level; the body of a loop is indented. `;` starts a comment; the index is for people and may be left out.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from ltc_compiler import isa
from ltc_compiler.bytecode.instr import Instr, Row
from ltc_compiler.errors import ProgramError, shown

# No operand has more than 10 digits; a text may have any number of them.
_ROW = re.compile(r"(\d{1,20})(?:([+-]\d{1,20})@(\d{1,20}))?")
_INTEGER = re.compile(r"-?\d{1,20}")
_CORE = re.compile(r"c(\d{1,20})|all")


def disassemble(code: Iterable[Instr], comments: Mapping[int, str] | None = None) -> str:
    """The text of a list of instructions; `comments` gives a source line to print after an index."""
    lines, depth = [], 0
    for index, instr in enumerate(code):
        depth -= instr.name == "end"
        comment = (comments or {}).get(index, "")
        line = f"{index:6}  {_core(instr.core):4} {'  ' * depth}{instr_text(instr)}"
        lines.append(f"{line}  ; {comment}" if comment else line)
        depth += instr.name == "loop"
    return "\n".join(lines) + "\n" if lines else ""


def instr_text(instr: Instr) -> str:
    """Name and operands of one instruction, without index and core: the form of the trace too."""
    fields = instr.row_of_table.format.fields
    operands = " ".join(f"{f.name}={_value(f.kind, instr.operands[f.name])}" for f in fields)
    return f"{instr.name:12} {operands}".rstrip()


def assemble(text: str) -> list[Instr]:
    """The inverse of disassemble. Raises ProgramError with the line and what was expected there."""
    code: list[Instr] = []
    for number, line in enumerate(text.splitlines(), start=1):
        words = line.split(";", 1)[0].split()
        if words:
            try:
                code.append(_parse(words, len(code)))
            except ProgramError as error:
                remedy = error.remedy or "write `c0 name field=value ...`, as disassemble prints it"
                place = f"line {number}: {line.strip()[:100]}"
                raise ProgramError(error.what, where=place, remedy=remedy) from error
    return code


def _core(core: int) -> str:
    return "all" if core == isa.ALL_CORES else f"c{core}"


def _value(kind: str, value: int | Row) -> str:
    return isa.PRECISIONS[value] if kind == "precision" and isinstance(value, int) else str(value)


def _parse(words: list[str], index: int) -> Instr:
    if words[0].isdecimal():
        if not _INTEGER.fullmatch(words[0]) or int(words[0]) != index:
            raise ProgramError(
                f"this is instruction {index}, and the line says {words[0][:40]}",
                remedy="leave the indices out",
            )
        words = words[1:]
    core = _CORE.fullmatch(words[0]) if len(words) >= 2 else None
    if core is None:
        raise ProgramError("a core (c0, c1, ... or all) and a name must stand first")
    row = isa.BY_NAME.get(words[1])
    kinds = {f.name: f.kind for f in row.format.fields} if row else {}
    operands: dict[str, int | Row] = {}
    for word in words[2:]:
        name, equals, value = word.partition("=")
        if not equals:
            raise ProgramError(f"{shown(word)} is not of the form field=value")
        if name in operands:
            raise ProgramError(f"{name[:40]} is given twice")
        operands[name] = _parse_value(kinds.get(name, "i32"), name, value)
    return Instr(words[1], int(core[1]) if core[1] else isa.ALL_CORES, operands)


def _parse_value(kind: str, name: str, text: str) -> int | Row:
    if kind == "precision" and text in isa.PRECISIONS:
        return isa.PRECISIONS.index(text)
    match = _ROW.fullmatch(text)
    if kind == "row" and match:
        return Row(int(match[1]), int(match[2] or 0), int(match[3] or 0))
    if kind not in ("row", "precision") and _INTEGER.fullmatch(text):
        return int(text)
    forms = {"row": "base or base+stride@level", "precision": " or ".join(isa.PRECISIONS)}
    raise ProgramError(f"{name[:40]}={text[:40]}: {shown(text)} is not {forms.get(kind, 'an integer')}")
