"""What the reference machine holds, and one instruction under execution.

An Execution applies the loops' counters, checks every address, and makes every write an architectural one.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from ltc_compiler import isa, numerics
from ltc_compiler.bytecode import Image, Instr, Model
from ltc_compiler.bytecode.ports import F32
from ltc_compiler.bytecode.rings import Ring
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
    stands: list[
        NDArray[np.int64]
    ]  # by core and row address: the row of the store that it names, where rings turn
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
        rings = [ring for other in machine.image.models for ring in other.rings if ring.core == instr.core]
        if rings:
            self._check_rings(rings)

    def number(self, name: str) -> int:
        return self.instr.number(name)

    def address(self, name: str) -> int:
        """The row that a row field names now."""
        return self.instr.row(name).at([loop.iteration for loop in self.machine.loops])

    def _check_rings(self, rings: Sequence[Ring]) -> None:
        """Every access lies in one ring of the model, or in none."""
        for access in self.instr.row_of_table.format.accesses:
            low = high = self.address(access.field)
            for count, step in access.extents:
                reach = isa.value_of(count, self.number, self.machine.rows) - 1
                reach *= int(step) if step.isdigit() else self.number(step)
                low, high = low + min(0, reach), high + max(0, reach)
            for ring in rings:
                held = ring.holds(low, high)
                self.require(not held or ring in self.model.rings, "touches a ring of another model")

    def read(self, row: int) -> F32:
        tensor = self.machine.tensor[self.instr.core]
        self.require(0 <= row < len(tensor), f"reads row {row} of {len(tensor)}")
        return tensor[self.machine.stands[self.instr.core][row]].copy()

    def read_vector(self, row: int, elements: int) -> F32:
        """Elements that fill rows from `row` on."""
        rows = [self.read(row + i) for i in range(self.machine.rows(elements))]
        return np.concatenate(rows)[:elements]

    def write(self, row: int, value: F32) -> None:
        """An architectural write of a whole row, with the instruction's precision."""
        tensor = self.machine.tensor[self.instr.core]
        self.require(0 <= row < len(tensor), f"writes row {row} of {len(tensor)}")
        stands = self.machine.stands[self.instr.core][row]
        tensor[stands] = numerics.to_bf16(value) if self.bf16 else numerics.write_fp32(value)

    def require(self, condition: bool, fault: str) -> None:
        if not condition:
            raise ProgramError(
                f"{self.instr.name} {fault}",
                where=f"instruction {self.machine.counter}, core {self.instr.core}",
                remedy="recompile the model; no compiled program does this",
            )
