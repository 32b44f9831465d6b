"""The matrix unit in stages: products as the issue logic would start their beats, against the numeric contract."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pytest
from numpy.typing import NDArray
from verilated import ARITHMETIC, RTL, UNITS, build, needs_verilator, step

from ltc_compiler import numerics

SOURCES = [
    *ARITHMETIC,
    *(RTL / "units" / f"{name}.sv" for name in ("adder_tree", "join_level", "joins", "matrix_unit")),
    UNITS / "matrix_bench.sv",
]
CONTROL = (
    "reset", "valid", "wide", "tile", "phase", "phases", "first", "final", "last", "bf16", "addend", "relu",
)  # fmt: skip
FP32_BEATS = 9
U32 = NDArray[np.uint32]


@dataclass
class Machine:
    """Beats by cycle, and what must come out of the unit in which cycle."""

    B: int
    tiles: int
    accumulate: int
    latency: int
    rng: np.random.Generator
    now: int = FP32_BEATS
    beats: list[tuple[int, U32]] = field(default_factory=list)
    expected: dict[int, U32] = field(default_factory=dict)
    used: dict[tuple[int, int], int] = field(default_factory=dict)

    @property
    def phases(self) -> int:
        return max(1, 128 // self.B)

    def numbers(self, *shape: int) -> NDArray[np.float32]:
        """Of all sizes here and there, else near 1, with a few that are not finite."""
        near = self.rng.normal(size=shape).astype(np.float32)
        wild = self.rng.integers(0, 2**32, shape, dtype=np.uint32).view(np.float32)
        tiny = near * np.float32(2.0**-75)
        kind = self.rng.random(shape)
        share = 0.004 if self.rng.random() < 0.3 else 0.0
        return np.where(kind < share, wild, np.where(kind < 0.1, tiny, near)).astype(np.float32)

    def beat(self, at: int, control: dict[str, int], *operands: U32) -> None:
        words = np.array([control.get(name, 0) for name in CONTROL], np.uint32)
        self.beats.append((at, np.concatenate([words, *operands])))

    def product(self, row_tiles: int, rows: int, k: int, wide: bool, how: tuple[bool, bool, bool]) -> None:
        """One vector's product: input rows outside, row tiles of a group inside; waits as the clock does."""
        B = self.B
        bf16, addend, relu = how
        x, bias = self.numbers(rows * B), self.numbers(row_tiles * B)
        weights = self.numbers(row_tiles * B, rows * B)
        if not wide:
            weights = numerics.to_bf16(weights)
        present = np.arange(rows * B) < k
        taken = x if wide else numerics.to_bf16(x)
        matrix = np.where(present, weights, np.float32(0))
        products = numerics.dot(
            matrix, np.where(present, taken, np.float32(0)), np.zeros_like(bias), fp32=True
        )
        sums = numerics.add(numerics.write_fp32(products) if addend else products, bias)
        if relu:
            sums = numerics.relu(numerics.write_fp32(sums))
        results = numerics.to_bf16(sums) if bf16 else numerics.write_fp32(sums)
        for group in range(0, row_tiles, self.tiles):
            for row in range(rows):
                for tile in range(min(self.tiles, row_tiles - group)):
                    lines = slice((group + tile) * B, (group + tile + 1) * B)
                    block = numerics.bits(weights[lines, row * B : (row + 1) * B]).reshape(-1)
                    self._start(tile, row, rows, wide, how, present, x, bias[lines], block, results[lines])
        assert len(results) == row_tiles * B

    def _start(
        self,
        tile: int,
        row: int,
        rows: int,
        wide: bool,
        how: tuple[bool, bool, bool],
        present: NDArray[np.bool_],
        x: NDArray[np.float32],
        bias: NDArray[np.float32],
        block: U32,
        result: NDArray[np.float32],
    ) -> None:
        B, phase = self.B, row % self.phases
        if self.rng.random() < 0.1:
            self.now += int(self.rng.integers(1, 6))
        if row >= self.phases:
            self.now = max(self.now, self.used[tile, phase] + 2 * self.accumulate)
        control = {
            "valid": 1, "wide": wide, "tile": tile, "phase": phase, "phases": min(rows, self.phases),
            "first": row < self.phases, "final": row + self.phases >= rows, "last": row == rows - 1,
            "bf16": how[0], "addend": how[1], "relu": how[2],
        }  # fmt: skip
        here = present[row * B : (row + 1) * B]
        packed = np.packbits(here, bitorder="little").tobytes()
        lanes = np.frombuffer(packed.ljust(-(-B // 32) * 4, b"\0"), "<u4")
        line = numerics.bits(x[row * B : (row + 1) * B])
        self.beat(self.now, control, lanes, line, numerics.bits(bias), _halves(block >> np.uint32(16)))
        if wide:  # the lower halves come through the same port, a cycle later
            rest = [np.zeros_like(part) for part in (lanes, line, line)]
            self.beat(self.now + 1, {}, *rest, _halves(block & np.uint32(0xFFFF)))
        self.used[tile, phase] = self.now
        if row == rows - 1:
            written = self.now + self.latency - 1 + (FP32_BEATS - 1 if wide else 0)
            assert written not in self.expected
            self.expected[written] = numerics.bits(result)
        self.now += FP32_BEATS if wide else 1

    def stimulus(self) -> U32:
        cycles = self.now + self.latency + FP32_BEATS
        words = np.zeros((cycles, len(self.beats[0][1])), np.uint32)
        for at, beat in self.beats:
            words[at] = beat
        return words


def _halves(words: U32) -> U32:
    """16-bit words, two in each of 32 bits."""
    return np.ascontiguousarray(words.astype("<u2")).view("<u4")


def compare(machine: Machine, words: U32) -> int:
    """Every result in its cycle, and no other; how many."""
    valid = np.flatnonzero(words[:, 0]).tolist()
    assert valid == sorted(machine.expected)
    for cycle in valid:
        np.testing.assert_array_equal(words[cycle, 1:], machine.expected[cycle], f"cycle {cycle}")
    return len(valid)


def products(machine: Machine, count: int) -> None:
    """Random products, short and long ones, sums that wrap around the accumulators among them."""
    rng = machine.rng
    for _ in range(count):
        wide = bool(rng.random() < 0.25)
        longest = 3 if wide else 2 * machine.phases + 5
        rows = int(rng.integers(1, longest + 1))
        k = int(rng.integers((rows - 1) * machine.B + 1, rows * machine.B + 1))
        row_tiles = int(rng.integers(1, 2 * machine.tiles + 1)) if rows < 20 else 1
        how = bool(rng.random() < 0.5), bool(rng.random() < 0.3), bool(rng.random() < 0.3)
        machine.product(row_tiles, rows, k, wide, how)


@needs_verilator
@pytest.mark.parametrize(
    ("width", "tiles", "accumulate", "latency"), [(8, 4, 4, 27), (4, 2, 2, 30), (16, 1, 4, 27)]
)
def test_products_in_their_cycles(width: int, tiles: int, accumulate: int, latency: int) -> None:
    bench = build("matrix_bench", SOURCES, B=width, TILES=tiles, ACCUMULATE=accumulate, LATENCY=latency)
    machine = Machine(width, tiles, accumulate, latency, np.random.default_rng(width))
    products(machine, 60)
    assert compare(machine, step(bench, machine.stimulus())) > 80
