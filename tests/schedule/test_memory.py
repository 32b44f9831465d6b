"""Rows of the tensor store: values that live at once never share one, and rows rest as long as there is room."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ltc_compiler.config import Config
from ltc_compiler.errors import AllocationError, ProgramError
from ltc_compiler.ir.graph import Graph, Type
from ltc_compiler.ir.ops import add
from ltc_compiler.program import Program
from ltc_compiler.schedule.memory import RESTS, allocate, live_ranges
from ltc_compiler.schedule.rows.virtual import Buffer, Kind, Ref, RowUse, Schedule
from ltc_compiler.settle import compile_model

CORE = Config.tiny_c1b8()


def machine(rows: int) -> Config:
    return replace(CORE, tensor_rows=rows)


def chain(sizes: list[int], constants: int = 0) -> tuple[Schedule, list[Buffer]]:
    """Buffers of so many rows, each made of the one before it: two are alive at any time."""
    schedule = Schedule()
    buffers = [Buffer(rows, 0) for rows in sizes]
    first = Buffer(constants, 0, Kind.CONSTANT) if constants else buffers[0]
    for a, b in zip([first, *buffers], buffers, strict=False):
        schedule.emit("move", 0, dst=Ref(b), a=Ref(a))
    return schedule, buffers


def test_live_rows_are_those_of_the_values_that_overlap() -> None:
    schedule, _ = chain([3, 1, 4, 2], constants=5)
    assert allocate([schedule], machine(1024)) == [RowUse(used=5 + 3 + 1 + 4 + 2, live=5 + 4 + 2)]


def test_rows_rest_for_as_many_instructions_as_the_store_has_room_for() -> None:
    long = [1] * 100
    assert allocate([chain(long)[0]], machine(1024)) == [RowUse(100, 2)]  # no row is used twice
    for rest in RESTS[RESTS.index(64) :]:  # a row is taken anew behind its two instructions and the rest
        schedule, buffers = chain(long)
        assert allocate([schedule], machine(rest + 2)) == [RowUse(rest + 2, 2)]
        assert [b.row for b in buffers] == [n % (rest + 2) for n in range(100)]


def test_what_fits_without_rest_alone_still_fits() -> None:
    schedule, _ = chain([1] * 100)
    assert allocate([schedule], machine(2)) == [RowUse(2, 2)]
    with pytest.raises(AllocationError, match="tensor rows of core 0"):
        allocate([schedule], machine(1))


@given(st.data())
def test_values_that_live_at_once_share_no_row(data: st.DataObject) -> None:
    buffers = [Buffer(data.draw(st.integers(1, 5)), 0) for _ in range(12)]
    schedule = Schedule()
    for _ in range(data.draw(st.integers(1, 30))):
        a, b = data.draw(st.sampled_from(buffers)), data.draw(st.sampled_from(buffers))
        schedule.emit("move", 0, dst=Ref(a), a=Ref(b))
    lives = live_ranges(schedule)
    most = max(
        sum(x.buffer.rows for x in lives if x.first <= at <= x.last) for at in range(len(schedule.ops))
    )
    (use,) = allocate([schedule], machine(data.draw(st.sampled_from([60, 80, 1024]))))
    assert use.live == most <= use.used
    for x in lives:
        for y in lives:
            if x is not y and x.first <= y.last and y.first <= x.last:
                assert (
                    x.buffer.row + x.buffer.rows <= y.buffer.row
                    or y.buffer.row + y.buffer.rows <= x.buffer.row
                )


def test_inputs_wait_in_a_store_of_a_size() -> None:
    g = Graph("long")
    x = g.add_input(Type((40, 3)), "x")  # a row each
    g.add_output(add(g, "sum", x, axis=0, keepdims=False))
    enough, little = (replace(CORE, name="few", input_rows=rows) for rows in (40, 39))
    program = compile_model(g, enough)
    with pytest.raises(AllocationError, match="input rows for the inputs of long") as refused:
        compile_model(g, little)
    assert (refused.value.needed, refused.value.available) == (40, 39)
    assert "stream the model" in refused.value.remedy
    with pytest.raises(ProgramError, match="the inputs of model long fill 40 rows, input_rows is 39"):
        Program(replace(program.image, config=little))


def test_outputs_wait_in_a_store_of_a_size() -> None:
    g = Graph("long")
    x = g.add_input(Type((40, 3)), "x")
    g.add_output(add(g, "relu", x))
    enough, little = (replace(CORE, name="few", output_rows=rows) for rows in (40, 39))
    program = compile_model(g, enough)
    with pytest.raises(AllocationError, match="output rows for the outputs of long on core 0") as refused:
        compile_model(g, little)
    assert (refused.value.needed, refused.value.available) == (40, 39)
    assert "more output_rows, or stream the model" in refused.value.remedy
    with pytest.raises(ProgramError, match="puts out more than output_rows rows in an inference"):
        Program(replace(program.image, config=little))
