"""What the reference machine holds, and one instruction under execution.

An Execution applies the loops' counters, checks every address, and makes every write an architectural one.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from ltc_compiler import isa, numerics
from ltc_compiler.bytecode import Image, Instr, Model
from ltc_compiler.bytecode.ports import F32
from ltc_compiler.errors import ProgramError


@dataclass
class OpenLoop:
    start: int  # of the `loop` instruction
    count: int
    iteration: int = 0


@dataclass
class MachineState:
    """Everything that instructions change, and the host's arrays of the present run."""

    image: Image
    bit_accurate: bool
    tensor: list[F32]
    fifos: dict[tuple[int, int], deque[F32]] = field(default_factory=dict)
    loops: list[OpenLoop] = field(default_factory=list)
    counter: int = 0  # index of the instruction under execution
    inputs: Sequence[F32] = ()
    outputs: dict[int, dict[int, F32]] = field(default_factory=dict)  # by port and row of the port's array

    @property
    def width(self) -> int:
        return self.image.config.block_size

    def rows(self, n: int) -> int:
        return self.image.config.block_rows(n)


class Execution:
    """One instruction under execution: its operands, loop counters applied, and the stores of its core."""

    def __init__(self, machine: MachineState, model: Model, instr: Instr) -> None:
        self.machine = machine
        self.model = model
        self.instr = instr
        precision = instr.operands.get("precision", 0)
        self.bf16 = machine.bit_accurate and precision == isa.PRECISIONS.index("bf16")

    def number(self, name: str) -> int:
        return self.instr.number(name)

    def address(self, name: str) -> int:
        """The row that a row field names now."""
        return self.instr.row(name).at([loop.iteration for loop in self.machine.loops])

    def read(self, row: int) -> F32:
        tensor = self.machine.tensor[self.instr.core]
        self.require(0 <= row < len(tensor), f"reads row {row} of {len(tensor)}")
        return tensor[row].copy()

    def read_vector(self, row: int, elements: int) -> F32:
        """Elements that fill rows from `row` on."""
        rows = [self.read(row + i) for i in range(self.machine.rows(elements))]
        return np.concatenate(rows)[:elements]

    def write(self, row: int, value: F32) -> None:
        """An architectural write of a whole row, with the instruction's precision."""
        tensor = self.machine.tensor[self.instr.core]
        self.require(0 <= row < len(tensor), f"writes row {row} of {len(tensor)}")
        tensor[row] = numerics.to_bf16(value) if self.bf16 else numerics.write_fp32(value)

    def require(self, condition: bool, fault: str) -> None:
        if not condition:
            raise ProgramError(
                f"{self.instr.name} {fault}",
                where=f"instruction {self.machine.counter}, core {self.instr.core}",
                remedy="recompile the model; no compiled program does this",
            )
