"""Rings: what a row address names after so many inferences, the host's side of them, their clock, and the refusals."""

from __future__ import annotations

import copy
import struct
import zlib
from collections import deque
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from both_machines import compare
from programs_for_timing import image as timed
from programs_for_timing import machine, simulated
from programs_for_timing import op as timed_op
from random_programs import draw, op

from ltc_compiler import _core
from ltc_compiler.bytecode import CoreImage, Image, Instr, Model, Port, Ring, Row, State
from ltc_compiler.bytecode.container import section_table
from ltc_compiler.clock import Clock
from ltc_compiler.config import Config
from ltc_compiler.errors import ProgramError
from ltc_compiler.oracle import Oracle
from ltc_compiler.oracle.clock import estimate
from ltc_compiler.program import Program

B = 8
LINE = range(8, 13)  # of five places
START = np.arange(5 * B, dtype=np.float32).reshape(5, B)


def delay_line(advance: int = 1, rings: bool = True) -> Image:
    """A line of five steps: as many new rows as an inference turns it by replace the oldest; all of it goes out, before
    and after. Without a ring, the rows are moved."""
    write = [op("state_write", dst=Row(LINE.start), a=Row(0), n_inner=advance)]
    moved = [
        op("state_write", dst=Row(LINE.start), a=Row(LINE.start + advance), n_inner=len(LINE) - advance),
        op("state_write", dst=Row(LINE.stop - advance), a=Row(0), n_inner=advance),
    ]
    code = [
        op("input", dst=Row(0), rows=advance, port=0),
        op("output", src=Row(LINE.start), rows=len(LINE), port=0),
        *(write if rings else moved),
        op("output", src=Row(LINE.start), rows=len(LINE), port=1),
    ]
    states = [State(f"s{i}", (B,), 0, row) for i, row in enumerate(LINE)]
    model = Model(
        "line", 0, len(code), (Port("x", (advance, B)),),
        (Port("before", START.shape), Port("after", START.shape)), tuple(states),
        (Ring(0, LINE.start, len(LINE), 1, advance),) if rings else (),
    )  # fmt: skip
    core = replace(CoreImage.empty(B, LINE.stop), constants=[(LINE.start, START)], shadow_constants=None)
    return Image(Config.tiny_c1b8(), code, [core], [model])


def steps(advance: int, count: int = 12) -> np.ndarray:
    return np.random.default_rng(advance).standard_normal((count, advance, B)).astype(np.float32)


@pytest.mark.parametrize("advance", [1, 2, 4])
def test_the_oldest_place_comes_first_and_the_newest_is_the_last(advance: int) -> None:
    program = Program(Image.from_bytes(delay_line(advance).to_bytes()))
    for machine_ in (program.to_vm(), program.to_oracle()):
        line = deque(START, maxlen=len(LINE))
        for x in steps(advance):
            before, after = machine_.run(x)
            assert np.array_equal(before, np.stack(line))
            assert np.array_equal(after, np.concatenate([x, np.stack(line)[advance:]]))  # not turned yet
            line.extend(x)
            assert all(np.array_equal(a, b) for a, b in zip(machine_.state.values(), line, strict=True))


def test_states_are_set_copied_and_reset_in_the_order_of_time() -> None:
    program = Program(delay_line())
    vm, oracle = program.to_vm(), program.to_oracle()
    line = deque(START, maxlen=len(LINE))
    for i, x in enumerate(steps(1)):
        if i == 3:
            line[1] = np.full(B, 7, np.float32)
            for m in (vm, oracle):
                m.set_state({"s1": line[1]})
        if i == 8:
            line = deque(START, maxlen=len(LINE))
            vm.reset()
            oracle.reset()
        twins = copy.copy(vm), copy.copy(oracle)
        for m in (vm, oracle, *twins):
            assert np.array_equal(m.run(x)[0], np.stack(line))
        line.extend(x)


def test_the_streams_of_a_batch_turn_apart() -> None:
    program = Program(delay_line())
    xs = np.stack([steps(1, 13), 2 * steps(1, 13), -steps(1, 13)])
    expected = []
    for stream in xs:
        alone = program.to_vm()
        expected.append(np.stack([alone.run(x)[0] for x in stream]))
    vm = program.to_vm()
    assert np.array_equal(vm.run(xs[0, 0])[0], expected[0][0])  # stream 0 is a step ahead of the others
    ahead = np.stack([xs[0, 1:], xs[1, :-1], xs[2, :-1]])
    before = vm.run_batch(ahead, threads=2)[0]
    for found, made, first in zip(before, expected, (1, 0, 0), strict=True):
        assert np.array_equal(found, made[first : first + 12])
    oracle = program.to_oracle()
    assert np.array_equal(oracle.run_timesteps(xs[0])[0], expected[0])


def test_a_ring_of_moved_rows_has_the_same_bits() -> None:
    moved, turned = (Program(delay_line(2, rings)).to_vm() for rings in (False, True))
    for x in steps(2):
        assert np.array_equal(moved.run(x)[0], turned.run(x)[0])
        assert all(np.array_equal(moved.state[name], turned.state[name]) for name in moved.state)


# ---- the clock -------------------------------------------------------------------------------------------------


def clocked(*code: Instr, ring: Ring | None = None, **config: Any) -> Image:
    """Rows 100 to 103 are states, and a ring of four places."""
    states = {"states": range(100, 104), "rings": (ring or Ring(0, 100, 4),)}
    return timed(machine(**config), code, **states)  # type: ignore[arg-type]


def total(program: Image, inferences: int) -> int:
    report = simulated(program, inferences=inferences)
    assert report == estimate(program, inferences=inferences)
    return report.total


@pytest.mark.parametrize(("read", "second"), [(100, 46), (101, 46), (102, 46), (103, 50)])
def test_the_next_inference_waits_for_the_newest_place_alone(read: int, second: int) -> None:
    # relu at 0, div at 1, written at 21: it lands at 25. In the next inference this row is the last place. A relu that
    # reads it starts at 25, the div at 26, its row is written at 46 and lands at 50. One that reads another place
    # starts at 3; the div waits for the read of row 50, until 22, and its row is written at 42
    program = clocked(
        timed_op("relu", dst=60, a=read),
        timed_op("div", dst=50, a=0, b=0),
        timed_op("state_write", dst=100, a=50),
    )
    assert [total(program, 1), total(program, 2)] == [25, second]


@pytest.mark.parametrize(("read", "second"), [(100, 48), (101, 48), (102, 51), (103, 52)])
def test_two_new_places_are_the_last_two(read: int, second: int) -> None:
    # as above, but two rows are written, at 21 and 22, that land at 25 and 26. A relu that reads the first of them
    # starts at 25, the div at 26, and the second row lands at 47 + 4; one that reads neither lets the div start at 23,
    # behind the second read of row 50
    program = clocked(
        timed_op("relu", dst=60, a=read),
        timed_op("div", dst=50, a=0, b=0),
        timed_op("state_write", dst=100, a=50, a_inner=0, n_inner=2),
        ring=Ring(0, 100, 4, 1, 2),
    )
    assert [total(program, 1), total(program, 2)] == [26, second]


@pytest.mark.parametrize("advance", [1, 2, 3])
def test_an_interval_that_wraps_holds_no_more_than_its_rows(advance: int) -> None:
    # places 2 and 3 are read at 0 and 9, by beats of 9 cycles; place 0 is written at 1, and place 1, between none of
    # them, too. Wherever the ring stands, an inference takes as long as the first
    program = clocked(
        timed_op("sigmoid", dst=60, a=102, n_inner=2),
        timed_op("state_write", dst=100, a=50, n_inner=advance if advance < 3 else 1),
        ring=Ring(0, 100, 4, 1, advance),
    )
    totals = [total(program, n) for n in range(1, 9)]
    assert totals[0] == 9 + 8 + 45
    assert len(set(np.diff(totals))) == 1, totals


@pytest.mark.parametrize(("instructions", "second"), [(1, 8), (3, 8), (20, 20)])
def test_an_inference_issues_when_all_rings_are_made_ready(instructions: int, second: int) -> None:
    # eight rings take eight cycles: the second inference issues its first move at 8, or behind the instructions of the
    # first. A move is done 4 cycles after its start; there are no rows to wait for
    code = [timed_op("move", dst=i, a=200) for i in range(instructions)]
    rings = [Ring(0, row, 2) for row in range(100, 116, 2)]
    program = timed(machine(issue_queue=64), code, states=range(100, 116), rings=rings)
    assert total(program, 1) == instructions - 1 + 4
    assert total(program, 2) == second + instructions - 1 + 4
    assert total(program, 3) == 2 * second + instructions - 1 + 4


def test_the_oldest_place_is_written_behind_its_read() -> None:
    # places 0 and 1 are read at 0 and 9, so that place 0 may be written from 1 on, place 1 from 10 on
    read = timed_op("sigmoid", dst=60, a=100, n_inner=2)
    assert _written(clocked(read, timed_op("state_write", dst=100, a=50))) == 1
    assert _written(clocked(read, timed_op("state_write", dst=101, a=50))) == 10


def _written(program: Image) -> int:
    """When the second instruction starts."""
    return Clock.of(program).trace(0, 0, 2)[1].start


# ---- refusals --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fault", "rings"),
    [
        ("longer than the store", [Ring(0, 8, 6)]),
        ("longer than the store", [Ring(0, 8, 2**31, 2**31)]),
        ("no state", [Ring(0, 7, 3)]),
        ("overlaps|shares row 10", [Ring(0, 8, 3), Ring(0, 10, 2)]),
        (
            "rings on core 0, the machine has 1|more rings than the machine, 1",
            [Ring(0, 8, 2), Ring(0, 10, 2)],
        ),
        ("core 1 does not exist|core 1 has rows of no state", [Ring(1, 8, 2)]),
    ],
)
def test_rings_lie_apart_in_states_and_in_the_store(fault: str, rings: list[Ring]) -> None:
    good = delay_line()
    if "machine" in fault:
        good = replace(good, config=replace(good.config, rings=1))
    bad = replace(good.models[0], rings=tuple(rings))
    with pytest.raises(ProgramError, match=fault):
        replace(good, models=[bad])
    good.models[0] = bad
    with pytest.raises(ProgramError, match=fault):
        _core.Program.parse(good.to_bytes())


def test_a_ring_that_does_not_turn_or_has_no_rows_is_refused() -> None:
    data = delay_line().to_bytes()
    offset, size = next((at, n) for name, at, n in section_table(data) if name == "MODL")
    for words in ((0, 8, 5, 1, 0), (0, 8, 5, 1, 5), (0, 8, 5, 0, 1), (0, 8, 1, 1, 1)):
        bad = bytearray(data)
        struct.pack_into("<5I", bad, offset + size - 20, *words)
        struct.pack_into("<I", bad, 52, zlib.crc32(memoryview(bad)[56:]))
        with pytest.raises(ProgramError, match="turns by"):
            Image.from_bytes(bytes(bad))
        with pytest.raises(ProgramError, match="turns by none or all"):
            _core.Program.parse(bytes(bad))


def test_a_state_lies_whole_in_a_ring() -> None:
    good = delay_line()
    states = (State("a", (2, B), 0, 8), State("b", (3, B), 0, 10))
    bad = replace(good.models[0], states=states, rings=(Ring(0, 9, 3),))
    with pytest.raises(ProgramError, match="pass an end of the ring"):
        replace(good, models=[bad])
    good.models[0] = bad
    with pytest.raises(ProgramError, match="in a ring in part"):
        _core.Program.parse(good.to_bytes())


@pytest.mark.parametrize(
    "beyond",
    [
        op("move", dst=Row(0), a=Row(7), n_inner=2),
        op("move", dst=Row(0), a=Row(12), n_inner=2),
        op("column_sum", dst=Row(0), src=Row(4), k=2, k_step=10),
        op("state_write", dst=Row(12), a=Row(0), n_inner=2),
    ],
)
def test_an_access_beyond_an_end_of_a_ring_is_refused(beyond: Instr) -> None:
    good = delay_line()
    core = replace(good.cores[0], tensor_rows=LINE.stop + 4)
    code = [good.code[0], beyond, *good.code[1:]]
    bad = replace(good, code=code, cores=[core], models=[replace(good.models[0], end=len(code))])
    with pytest.raises(ProgramError, match="its rows pass an end of a ring"):
        Program(bad).to_vm()
    with pytest.raises(ProgramError, match=r"pass an end of the ring of rows 8 to 12"):
        Oracle(bad).run(steps(1)[0])


def test_a_ring_of_another_model_is_refused() -> None:
    good = delay_line()
    other = [op("output", src=Row(9), rows=1, port=0)]
    second = Model("other", len(good.code), len(good.code) + 1, (), (Port("y", (B,)),))
    bad = replace(good, code=[*good.code, *other], models=[*good.models, second])
    with pytest.raises(ProgramError, match="a ring of another model"):
        Program(bad).to_vm()
    with pytest.raises(ProgramError, match="a ring of another model"):
        Oracle(bad).run(model_index=1)


def test_forged_rings_are_refused_or_run_alike() -> None:
    numbers = (0, 1, 2, 3, 4, 7, 8, 16, 31, 32, 33, 40, 48, 49, 2**31, 2**32 - 1)
    rng = np.random.default_rng(0)
    loaded = refused = 0
    for seed in range(12):
        drawn = draw(seed, 8)
        data, count = drawn.to_bytes(), len(drawn.models[0].rings)
        offset, size = next((at, n) for name, at, n in section_table(data) if name == "MODL")
        for _ in range(25 if count else 0):
            forged = bytearray(data)
            word = int(rng.integers(5 * count))
            struct.pack_into("<I", forged, offset + size - 20 * count + 4 * word, int(rng.choice(numbers)))
            struct.pack_into("<I", forged, 52, zlib.crc32(memoryview(forged)[56:]))
            try:
                _core.Program.parse(bytes(forged))
            except ProgramError:
                refused += 1
                continue
            loaded += 1
            compare(Image.from_bytes(bytes(forged)), seed, bit_accurate=True)
    assert refused > 100
    assert loaded > 10
