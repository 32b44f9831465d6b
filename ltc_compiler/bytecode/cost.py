"""What one instruction costs by itself: the cycles that it holds its unit, and the cycles until its result is there.

Facts of the instruction table and the configuration alone. When it starts is for the two clocks to say:
sim_core/clock/timing.cpp, and oracle/clock.py for the tests.
"""

from __future__ import annotations

from typing import Protocol

from ltc_compiler import isa
from ltc_compiler.bytecode.stores import CoreImage
from ltc_compiler.config import Config


class Costed(Protocol):
    """An instruction of the table, whether its rows have addresses yet or not."""

    @property
    def name(self) -> str: ...
    @property
    def core(self) -> int: ...
    @property
    def row_of_table(self) -> isa.Instruction: ...
    def number(self, field: str, /) -> int:
        """The value of a field that is no row."""


def occupancy(instr: Costed, config: Config) -> int:
    """Cycles that a computing beat of `instr` holds its unit: more than 1 where fp32 operands take several."""
    passes = instr.row_of_table.passes
    return config.fp32_beats * passes if passes and _is_fp32(instr) else 1


def latency(instr: Costed, config: Config) -> int:
    """Cycles from the start of a writing beat to the first cycle at which the row can be read.

    For a send: until the row can be received. For an output: until the row is out. For control: until the next
    issue.
    """
    cycles: int = getattr(config.latency, _latency_class(instr))
    if instr.core and instr.row_of_table.unit in ("io_in", "io_out"):
        cycles += config.latency.crossing
    return cycles + occupancy(instr, config) - 1


def beats(instr: Costed, config: Config, slots: int | None = None) -> int:
    """Beats of one execution of `instr`; 0 for control.

    slots: the synapse slots that it walks, over all its targets. Only a synapse has them, and it needs them:
    ValueError otherwise.
    """
    return sum(_beats(instr, config, slots))


def busy(instr: Costed, config: Config, slots: int | None = None) -> int:
    """Cycles that `instr` holds its unit if nothing stalls it. slots: as for beats()."""
    hold = occupancy(instr, config)
    phases = zip(_pattern(instr).phases, _beats(instr, config, slots), strict=True)
    return sum(count if phase.narrow else count * hold for phase, count in phases)


def store_bytes(instr: Costed, config: Config, slots: int | None = None) -> int:
    """Bytes that one execution of `instr` reads from the weight, synapse or gather store. slots: as for beats()."""
    total = 0
    for phase, count in zip(_pattern(instr).phases, _beats(instr, config, slots), strict=True):
        if phase.store:
            size, power = isa.STORES[phase.store]
            total += count * instr.row_of_table.entries * size * config.block_size**power
    return total


def _pattern(instr: Costed) -> isa.Pattern:
    return isa.PATTERNS[instr.row_of_table.format.pattern]


def _beats(instr: Costed, config: Config, slots: int | None) -> list[int]:
    """Beats of each phase of the instruction's pattern."""
    pattern = _pattern(instr)
    if (slots is None) == (isa.WALKED in pattern.counts):
        raise ValueError(
            f"slots is {slots!r} for the instruction {instr.name!r}: a synapse, and it alone, has slots"
        )

    def value(count: str) -> int:
        return slots or 0 if count == isa.WALKED else isa.value_of(count, instr.number, config.block_rows)

    return pattern.beats(value)


def row_tiles_in_flight(config: Config) -> int:
    """Row tiles of a product that must be at work at once so that no beat waits for an accumulator."""
    period = max(1, 128 // config.block_size)  # input rows after which the same accumulators are used again
    return -(-2 * config.latency.accumulate // period)


def slots_walked(core: CoreImage, first: int, targets: int) -> list[int]:
    """Slots of each of `targets` target rows of a synapse instruction, from slot `first` on."""
    counts: list[int] = []
    at = first
    for _ in range(targets):
        begin = at
        while not core.slots.last[at]:
            at += 1
        at += 1
        counts.append(at - begin)
    return counts


def _latency_class(instr: Costed) -> str:
    return instr.row_of_table.latency_fp32 if _is_fp32(instr) else instr.row_of_table.latency


def _is_fp32(instr: Costed) -> bool:
    """Whether the operands are fp32. The precision of other units is that of the result alone."""
    chooses = instr.row_of_table.unit in ("activation", "synapse")
    return not chooses or isa.PRECISIONS[instr.number("precision")] == "fp32"
