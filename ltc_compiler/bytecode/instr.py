"""One instruction as data, and its bytes. Both follow from the instruction table; no instruction is special here.

An Instr checks itself against the table when it is built, so that a list of them is always encodable. The
bytes are opcode, core and the fields in the table's order, little endian, without padding.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache

from ltc_compiler import isa
from ltc_compiler.errors import ProgramError, shown

MAX_CORES = 16


@dataclass(frozen=True, slots=True)
class Row:
    """A row address of the tensor store: base + counter[level] * stride.

    level: 0 outside every loop (stride is 0 then), else the loop whose counter counts, 1 being the outermost.
    """

    base: int
    stride: int = 0
    level: int = 0

    def __post_init__(self) -> None:
        if type(self.base) is int and 0 <= self.base < 2**32 and self.stride == self.level == 0:
            return
        _check_range("row base", self.base, 0, 2**32 - 1)
        _check_range("row stride", self.stride, -(2**31), 2**31 - 1)
        _check_range("row level", self.level, 0, isa.MAX_LOOP_DEPTH)
        if self.level == 0 and self.stride != 0:
            raise ProgramError(
                f"row {self} has stride {self.stride} outside every loop",
                remedy=f"name the loop that counts: level 1 to {isa.MAX_LOOP_DEPTH}",
            )

    def at(self, counters: Sequence[int]) -> int:
        """The row, where counters[level - 1] is the current iteration of the loop of that level."""
        return self.base + (counters[self.level - 1] * self.stride if self.level else 0)

    def __str__(self) -> str:
        return f"{self.base}{self.stride:+d}@{self.level}" if self.level else str(self.base)


@dataclass(frozen=True, slots=True)
class Instr:
    """One instruction of a program.

    name: of a row of isa.INSTRUCTIONS; core: 0 to 15, or isa.ALL_CORES for loop and end;
    operands: every field of the row's format: a Row (or a plain base) for a row, else an integer (a precision
    is an index into isa.PRECISIONS), kept in the table's order. Raises ProgramError for anything that the
    table refuses.
    """

    name: str
    core: int
    operands: Mapping[str, int | Row]

    def __post_init__(self) -> None:
        if self.name not in isa.BY_NAME:
            raise ProgramError(
                f"no instruction is called {shown(self.name)}", remedy=f"use one of {', '.join(isa.BY_NAME)}"
            )
        _check_core(self.name, self.core)
        fields = self.row_of_table.format.fields
        names = [f.name for f in fields]
        if len(names) != len(self.operands) or any(name not in self.operands for name in names):
            wrong = sorted(set(names) ^ set(self.operands))
            raise ProgramError(
                f"{self.name}: missing or unknown operands {shown(', '.join(wrong), 400)[1:-1]}",
                where=f"operands of {self.name}",
                remedy=f"give exactly {', '.join(names) or 'none'}",
            )
        checked = {f.name: _operand(self.name, f, self.operands[f.name]) for f in fields}
        object.__setattr__(self, "operands", checked)

    @property
    def row_of_table(self) -> isa.Instruction:
        return isa.BY_NAME[self.name]

    def number(self, field: str) -> int:
        """The value of a field that is not a row."""
        value = self.operands[field]
        assert not isinstance(value, Row), f"{field} of {self.name} is a row"
        return value

    def row(self, field: str) -> Row:
        """The value of a row field."""
        value = self.operands[field]
        assert isinstance(value, Row), f"{field} of {self.name} is no row"
        return value


@cache
def operand_range(kind: str) -> tuple[int, int]:
    """The lowest and highest value of a field of that kind (of isa.ENCODINGS, rows excepted)."""
    if kind == "precision":
        return 0, len(isa.PRECISIONS) - 1
    if kind == "flag":
        return 0, 1
    letter = isa.ENCODINGS[kind][-1]
    bits = 8 * struct.calcsize(letter)
    return (-(1 << (bits - 1)), (1 << (bits - 1)) - 1) if letter.islower() else (0, (1 << bits) - 1)


def encode(code: Iterable[Instr]) -> bytes:
    """The bytes of a list of instructions."""
    return b"".join(_encode(instr) for instr in code)


def decode(data: bytes, count: int) -> list[Instr]:
    """The inverse of encode, for exactly `count` instructions. Raises ProgramError with instruction and byte
    offset.
    """
    code: list[Instr] = []
    offset = 0
    for index in range(count):
        row = isa.BY_OPCODE.get(data[offset]) if offset < len(data) else None
        where = f"instruction {index}, byte {offset} of the code"
        if row is None:
            what = (
                "the code ends early" if offset >= len(data) else f"no instruction has opcode {data[offset]}"
            )
            raise ProgramError(what, where=where, remedy="recompile the model")
        if offset + row.size > len(data):
            raise ProgramError(
                f"the code ends inside a {row.name}", where=where, remedy="recompile the model"
            )
        _, core, *values = _layout(row.name).unpack_from(data, offset)
        try:
            code.append(Instr(row.name, core, _operands(row, values)))
        except ProgramError as error:
            raise ProgramError(error.what, where=where, remedy="recompile the model") from error
        offset += row.size
    if offset != len(data):
        raise ProgramError(
            f"{len(data) - offset} bytes follow the last of {count} instructions",
            where=f"byte {offset} of the code",
            remedy="recompile the model",
        )
    return code


@cache
def _layout(name: str) -> struct.Struct:
    """The bytes of an instruction; "<" means neither padding nor alignment."""
    return struct.Struct("<BB" + "".join(isa.ENCODINGS[f.kind][1:] for f in isa.BY_NAME[name].format.fields))


def _encode(instr: Instr) -> bytes:
    values: list[int] = []
    for value in instr.operands.values():
        values += [value.base, value.stride, value.level] if isinstance(value, Row) else [value]
    return _layout(instr.name).pack(instr.row_of_table.opcode, instr.core, *values)


def _operands(row: isa.Instruction, values: Iterable[int]) -> dict[str, int | Row]:
    stream = iter(values)
    return {
        f.name: Row(next(stream), next(stream), next(stream)) if f.kind == "row" else next(stream)
        for f in row.format.fields
    }


def _operand(name: str, field: isa.Field, value: int | Row) -> int | Row:
    if field.kind == "row":
        return value if isinstance(value, Row) else Row(_integer(f"{field.name} of {name}", value))
    low, high = operand_range(field.kind)
    if type(value) is int and low <= value <= high:  # as nearly all are: the rest finds out why not
        return value
    where = f"{field.name} of {name}"
    number = _integer(where, value)
    _check_range(where, number, low, high)
    return number


def _integer(where: str, value: object) -> int:
    if isinstance(value, bool) or not hasattr(value, "__index__"):
        raise ProgramError(f"{where} is {shown(value)}, not an integer", where=where)
    return int(value.__index__())


def _check_core(name: str, core: int) -> None:
    control = isa.BY_NAME[name].unit == "control"
    allowed = core == isa.ALL_CORES if control else 0 <= core < MAX_CORES
    if not allowed:
        legal = f"{isa.ALL_CORES}, all cores" if control else f"from 0 to {MAX_CORES - 1}"
        raise ProgramError(f"{name}: core is {core}, not {legal}", where=f"core of {name}")


def _check_range(where: str, value: int, low: int, high: int) -> None:
    if not low <= value <= high:
        raise ProgramError(f"{where} is {shown(value)}, not from {low} to {high}", where=where)
