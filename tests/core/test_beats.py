"""How many beats an instruction has: the counts of the table, and both clocks, against numbers written by hand."""

from __future__ import annotations

from typing import Any, NamedTuple

import pytest
from programs_for_timing import both, image, machine, op, simulated, transfer

from ltc_compiler import isa
from ltc_compiler.bytecode import Instr
from ltc_compiler.bytecode.cost import beats, busy, store_bytes
from ltc_compiler.errors import ProgramError

CONFIG = machine(cores=2, fp32_beats=5, accumulators=2)  # rows of 8 lanes
LAST = (False, False, True, True, False, True)  # targets of three slots, of one, and of two
ENTRIES = ((0, 1), (5, 2), (3, 0), (1, 1))


class Case(NamedTuple):
    """An instruction: its beats, the cycles that it holds its unit, and the bytes of other stores, by hand."""

    name: str
    operands: dict[str, Any]
    beats: int
    busy: int
    read: int = 0

    @property
    def instr(self) -> Instr:
        rows = {
            f.name: 100 if f.name == "dst" else 0
            for f in isa.BY_NAME[self.name].format.fields
            if f.kind == "row"
        }
        return op(self.name, **(rows | self.operands))


PRODUCT = {
    "x": 0,
    "bias": 60,
    "batch": 2,
    "m_rows": 3,
    "taps": 2,
    "tap_step": 4,
    "k": 9,
}  # 9 elements: two rows
SUMS = {"num": 100, "den": 110, "v": 0, "v_rows": 2, "slots": 0, "targets": 2}
CASES = (
    Case("move", {"n_outer": 2, "n_inner": 3}, 6, 6),
    Case("splat", {"n_outer": 2, "n_inner": 3, "lane": 7}, 6, 6),
    Case("add", {"n_outer": 2, "n_inner": 3}, 6, 6),
    Case("select", {"n_outer": 2, "n_inner": 3}, 6, 6),
    Case("tanh", {"n_inner": 3, "precision": "bf16"}, 3, 3),
    Case("tanh", {"n_inner": 3}, 3, 3 * 5),
    Case("row_sum", {"groups": 2, "src_step": 3, "dst_step": 1, "k": 17}, 2 * 3, 6),
    Case("column_sum", {"n_inner": 2, "k": 5, "k_step": 2}, 2 * 5, 10),
    Case("product", {"n_i": 2, "n_j": 5, "n_inner": 3, "lane_j": 1, "a_lanes": 5, "b_j": 3}, 2 * 5 * 3, 30),
    Case("dot", {"n_i": 2, "n_j": 5, "k": 17, "b_j": 3}, 2 * 5 * 3, 30),
    Case("matmul", PRODUCT, 2 * 3 * 2 * 2, 24, 24 * 8 * 8 * 2),
    Case("matmul_fp32", PRODUCT, 24, 24 * 5, 24 * 8 * 8 * 4),
    Case("synapse", SUMS | {"precision": "bf16"}, 2 + 3 + 1, 6, 4 * 8 * 18),
    Case("synapse", SUMS, 6, 2 + (3 + 1) * 5, 4 * 8 * 18),  # a row of v takes one cycle
    Case("synapse", SUMS | {"slots": 3, "precision": "bf16"}, 2 + 1 + 2, 5, 3 * 8 * 18),
    Case("ltc_update", {"n": 4, "dst_step": 1}, 3 * 4, 12),
    Case("gather", {"entries": 1, "count": 3, "src_rows": 6, "dst_rows": 3}, 3, 3, 3 * 8 * 2),
    Case("transpose", {"src_rows": 2, "src_step": 1, "dst_rows": 5, "dst_step": 1}, 2 + 5, 7),
    Case("input", {"rows": 2}, 2, 2),
    Case("output", {"rows": 2}, 2, 2),
)
IDS = [f"{case.name}-{index}" for index, case in enumerate(CASES)]


def slots(instr: Instr) -> int | None:
    """Of the targets of a synapse, by the marks."""
    if instr.name != "synapse":
        return None
    first, targets = instr.number("slots"), instr.number("targets")
    ends = [at for at, last in enumerate(LAST) if last and at >= first]
    return ends[targets - 1] + 1 - first


def program(code: list[Instr]) -> Any:
    inputs, outputs = ([2] if any(i.name == kind for i in code) else [] for kind in ("input", "output"))
    return image(CONFIG, code, last=LAST, entries=ENTRIES, inputs=inputs, outputs=outputs)


def test_there_is_a_case_of_every_pattern() -> None:
    patterns = {isa.BY_NAME[case.name].format.pattern for case in CASES}
    assert (
        patterns | {"send", "receive", "loop", "end"} == set(isa.PATTERNS) == {f.pattern for f in isa.FORMATS}
    )


@pytest.mark.parametrize("case", CASES, ids=IDS)
def test_the_table_counts_as_written_by_hand(case: Case) -> None:
    given = slots(case.instr)
    assert beats(case.instr, CONFIG, given) == case.beats
    assert busy(case.instr, CONFIG, given) == case.busy
    assert store_bytes(case.instr, CONFIG, given) == case.read


@pytest.mark.parametrize("case", CASES, ids=IDS)
def test_both_clocks_walk_as_many_beats(case: Case) -> None:
    unit = isa.UNITS.index(isa.BY_NAME[case.name].unit)
    assert both(program([case.instr])).busy[0][unit] == case.busy


@pytest.mark.parametrize(
    "case", [pytest.param(c, id=i) for c, i in zip(CASES, IDS, strict=True) if c.name != "output"]
)
def test_the_loader_counts_as_many_beats(case: Case) -> None:
    """Beyond 2**33 it says how many there are: here an execution for each of as many iterations.

    Only outputs may not be so many: their rows have a store of a size.
    """
    loops = [op("loop", count=1 << 17), op("loop", count=1 << 16)]
    whole = program([*loops, case.instr, op("end"), op("end")])
    with pytest.raises(ProgramError, match=f" instructions and {case.beats << 33} beats, more than {2**33}"):
        simulated(whole)


def test_a_transfer_has_a_beat_for_each_row_on_both_sides() -> None:
    sent = transfer(3)
    assert [beats(instr, CONFIG) for instr in sent] == [3, 3]
    busy_units = both(program(sent)).busy
    assert busy_units[0][isa.UNITS.index("link_out")] == busy_units[1][isa.UNITS.index("link_in")] == 3
    loops = [op("loop", count=1 << 17), op("loop", count=1 << 16)]
    with pytest.raises(ProgramError, match=f" and {6 << 33} beats"):
        simulated(program([*loops, *sent, op("end"), op("end")]))
