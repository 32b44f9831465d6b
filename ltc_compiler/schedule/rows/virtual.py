"""Instructions before memory is assigned: those of the instruction table, on buffers instead of addresses.

A buffer is a run of rows on one core whose live range memory.py finds. A reference is a row of a buffer, with the
stride of one enclosing hardware loop. Everything else (names, fields, formats) is the instruction table's.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ltc_compiler import isa

ROW_BY_ROW = (
    "elementwise",
    "update",
)  # patterns in which a beat reads and writes the same row of every operand


class Kind(Enum):
    """Who fills a buffer: the program's image (constant, state) or an instruction (temporary)."""

    TEMPORARY = "temporary"
    CONSTANT = "constant"
    STATE = "state"


@dataclass(eq=False)
class Buffer:
    """`rows` rows on `core`; `data` (rows, block_size) is the initial content of constants and states, `original` that
    of the plain fp32 machine: a constant before it was rounded to bf16, a state before its prologue was. place: the
    rows of a place where the buffer is a ring, else 0; an inference turns it by `advance` of them."""

    rows: int
    core: int
    kind: Kind = Kind.TEMPORARY
    data: NDArray[np.float32] | None = None
    row: int = -1  # set by memory.py
    original: NDArray[np.float32] | None = None
    place: int = 0
    advance: int = 1


class RowUse(NamedTuple):
    """Rows of a core. used: they have an owner at some time, rows at rest included; live: the most at once."""

    used: int
    live: int


@dataclass(frozen=True)
class Ref:
    """Row `offset + counter[level] * stride` of a buffer."""

    buffer: Buffer
    offset: int = 0
    stride: int = 0
    level: int = 0

    def at(self, rows: int) -> Ref:
        """The reference `rows` further on."""
        return replace(self, offset=self.offset + rows)


@dataclass(eq=False)
class Op:
    """An instruction on virtual operands. For the report: `source`, a place in the user's code, and `operation`, the
    name of the graph's op."""

    name: str
    core: int
    operands: dict[str, int | Ref]
    source: str = ""
    slots: int | None = None  # the synapse slots that a synapse instruction walks
    operation: str = ""

    @property
    def row_of_table(self) -> isa.Instruction:
        return isa.BY_NAME[self.name]

    def number(self, field: str) -> int:
        """The value of a field that is no row."""
        value = self.operands[field]
        assert isinstance(value, int), f"{field} of {self.name} is a row"
        return value

    def refs(self, write: bool) -> list[Ref]:
        """The references that the instruction writes, or reads."""
        found = [self.operands[a.field] for a in self.row_of_table.format.accesses if a.write == write]
        return [r for r in found if isinstance(r, Ref)]


@dataclass(eq=False)
class Schedule:
    """Instructions in merged order, built front to back. `depth` is the loop level at the end of the list."""

    ops: list[Op] = field(default_factory=list)
    depth: int = 0
    source: str = ""
    operation: str = ""
    held: dict[Buffer, int] = field(default_factory=dict)  # buffer -> position from which its rows are taken

    def emit(self, name: str, core: int, **operands: int | Ref) -> Op:
        """Append an instruction at the user's current place."""
        op = Op(name, core, operands, self.source, operation=self.operation)
        self.ops.append(op)
        return op

    @contextmanager
    def working_on(self, source: str, operation: str) -> Iterator[None]:
        """Give the instructions that are emitted inside a place in the user's code and an operation of the graph."""
        before = self.source, self.operation
        self.source, self.operation = source, operation
        yield
        self.source, self.operation = before

    def hold(self, buffer: Buffer) -> None:
        """Reserve a buffer from here on, though its first write stands inside a later loop."""
        self.held[buffer] = len(self.ops)

    def begin_loop(self, count: int) -> int:
        """Open a hardware loop; returns its level."""
        self.emit("loop", isa.ALL_CORES, count=count)
        self.depth += 1
        return self.depth

    def end_loop(self) -> None:
        self.emit("end", isa.ALL_CORES)
        self.depth -= 1
