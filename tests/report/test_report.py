"""Reports: the critical path adds up and is right, rows live as long as they are needed, sources are read back."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from programs_for_reports import CHAIN, ONE, TWO, chain, program, spent
from programs_for_timing import Drawn, image, machine, op, programs, transfer

from ltc_compiler import isa
from ltc_compiler.bytecode import Image, Row, State
from ltc_compiler.bytecode.cost import latency
from ltc_compiler.program import Program
from ltc_compiler.report.events import Code
from ltc_compiler.report.origins import Origin, origins

# --- the critical path ----------------------------------------------------------------------------------------


def test_a_chain_is_critical_from_end_to_end() -> None:
    report = chain().report(spaced=False)
    # a result is there after the latency; issue 1, io_in 8, div 20, add 6, io_out 10
    assert spent(report) == {"input": 8, "div": 20, "loop": 0, "add": 3 * 6, "end": 0, "output": 10}
    assert report.last_out == report.latency == 8 + 20 + 18 + 10
    assert [row["bound_by"] for row in report.instructions if row["critical"]] == ["latency"] * 4


def test_spaced_counts_from_the_arrival() -> None:
    report = chain().report()
    assert (report.latency, report.last_out) == (56, 56)
    assert spent(report)["input"] == 8
    ahead = program([op("div", dst=110, a=0, b=0), *CHAIN], inputs=[1], outputs=[1]).report()
    early = next(event for event in ahead.events if event.index == 0)
    assert early.finish < 0  # it needs no input: done ahead, and nothing of it is counted
    assert spent(ahead)["div"] == 20
    assert ahead.instructions[0]["critical"] == 0


def test_without_inputs_cycles_count_from_the_start() -> None:
    spaced, contiguous = (program(CHAIN[1:], outputs=[1]).report(spaced=mode) for mode in (True, False))
    assert (spaced.latency, spaced.last_out, spent(spaced)) == (48, 48, spent(contiguous))


def test_a_busy_unit_is_what_binds() -> None:
    code = [op("add", dst=100, a=0, b=1, n_inner=50, b_inner=0), op("output", src=149)]
    table = program(code, outputs=[1]).report(spaced=False).instructions
    assert [(r["instruction"], r["critical"], r["bound_by"]) for r in table] == [
        ("add", 55, "unit"),  # 50 beats, then 5 more cycles until the last row can be read
        ("output", 10, "latency"),
    ]


def test_links_lie_on_the_path() -> None:
    code = [*transfer(1), op("output", 1, src=100)]
    report = program(code, TWO, outputs=[1]).report(spaced=False)
    assert spent(report) == {"send": 12, "receive": 4, "output": 10 + 3}  # from core 1: crossing 3
    assert report.stalls[:2] == ["none", "link"]
    assert report.delivered[1] == {0: 1}  # the receive takes a row from the send


def test_a_full_link_waits_for_the_receiver() -> None:
    config = machine(cores=2, link_fifo_rows=1)
    code = [op("div", 1, dst=100, a=0, b=1), *transfer(1), *transfer(1), op("output", 1, src=100)]
    report = program(code, config, outputs=[1]).report(spaced=False)
    second = [n for n, event in enumerate(report.events) if event.index == 3]
    assert [report.stalls[n] for n in second] == ["link"]
    assert sum(step.cycles for step in report.path) == report.last_out


@pytest.mark.parametrize("name", ["div", "add", "io_in", "io_out"])
def test_a_slower_operator_costs_what_the_path_says(name: str) -> None:
    """Seven cycles more a step of the path that goes through the operator: the path is the real one."""
    before = chain()
    config = replace(ONE, latency=replace(ONE.latency, **{name: getattr(ONE.latency, name) + 7}))
    steps = sum(
        before.image.code[before.report().events[step.event].index].row_of_table.latency == name
        for step in before.report().path
    )
    assert steps >= 1
    assert chain(config).report().latency == before.report().latency + 7 * steps


@settings(max_examples=150, deadline=None)
@given(programs())
def test_random_programs_add_up(drawn: Drawn) -> None:
    run = Program(drawn.image())
    for spaced in (True, False):
        report, summary = run.report(spaced=spaced), run.cycle_summary_per_inference(spaced=spaced)
        assert report.complete
        whole = max(0, report.last_out)  # an output that needs no input may be out before the arrival
        assert sum(step.cycles for step in report.path) == whole
        assert all(step.cycles == sum(step.parts.values()) > 0 for step in report.path)
        assert sum(row["critical"] for row in report.rows) == whole
        assert sum(row["share"] for row in report.rows) == pytest.approx(float(whole > 0))
        assert all(e.issue <= e.begin <= e.start <= e.end <= e.finish for e in report.events)
        assert all(e.waited >= 0 for e in report.events)
        busy = [[0] * len(isa.UNITS) for _ in range(run.hw_config.cores)]
        for event in report.events:
            busy[event.core][isa.UNITS.index(report.code.unit(event.index))] += event.busy
        assert busy == summary["busy"]
        effects = [
            e.finish for e in report.events if report.code.unit(e.index) not in ("control", "link_out")
        ]
        assert max(effects) == summary["total"] - summary["arrival"]


# --- rows and their lives -------------------------------------------------------------------------------------


def test_rows_of_an_execution() -> None:
    code = Code(
        image(
            ONE,
            [
                op("loop", count=4),
                op("add", dst=100, dst_inner=2, a=Row(10, 3, 1), b=20, b_inner=0, n_inner=2),
                op("matmul", dst=200, x=60, bias=70, k=17, m_rows=2),
                op("gather", dst=300, dst_rows=4, src=40, src_rows=4, count=2),
                op("end"),
            ],
            entries=[(3, 1), (1, 0)],
        )
    )
    assert code.rows(1, (2,), write=False) == (16, 17, 20)
    assert code.rows(1, (2,), write=True) == (100, 102)
    assert code.rows(2, (0,), write=False) == (60, 61, 62, 70, 71)
    assert code.rows(3, (0,), write=True) == (300, 301)
    assert code.rows(3, (0,), write=False) == (41, 43)
    row = 4 * 8
    assert (code.traffic(1).read, code.traffic(1).written) == (3 * row, 2 * row)
    assert code.traffic(2).read == 5 * row + 2 * 3 * (2 * 8 * 8)  # six weight blocks
    assert code.traffic(3).read == 2 * row + 2 * (2 * 8)


def test_a_row_lives_from_its_write_to_its_last_read() -> None:
    code = [op("add", dst=100, a=0, b=1), op("move", dst=101, a=100), op("div", dst=102, a=100, b=101)]
    lives = {life.row: life for life in program(code).report(spaced=False).lives}
    assert (lives[100].begin, lives[100].end) == (
        0,
        6 + 4 + 1,
    )  # read by the div, in the cycle at which 101 is there
    assert (lives[101].begin, lives[101].end) == (6, 11)
    assert (lives[102].begin, lives[102].end) == (10, 30)
    assert {life.kind for life in lives.values()} == {"temporary"}


def test_rows_of_one_writer_are_one_life_and_states_are_named() -> None:
    plain = image(ONE, [op("state_write", dst=7, a=0), op("add", dst=100, a=7, b=1, n_inner=3)])
    model = replace(plain.models[0], states=(State("h", (8,), 0, 7),))
    lives = Program(replace(plain, models=[model])).report(spaced=False).lives
    assert [(life.row, life.rows, life.kind) for life in lives] == [(7, 1, "state"), (100, 3, "temporary")]


# --- origins --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("op_name", "text", "expected"),
    [
        ("linear", "net.a  /m/x.py:12  y = f(x)", Origin("linear", "net.a", "/m/x.py", 12, "y = f(x)")),
        ("add", "/m/x.py:12  a  b  c", Origin("add", "", "/m/x.py", 12, "a  b  c")),
        ("add", "net.a  /m/x.py:3", Origin("add", "net.a", "/m/x.py", 3)),
        ("relu", "0", Origin("relu", "0")),
        ("input", "input x", Origin("input", "x")),
        ("tanh", "(unknown place)", Origin("tanh")),
        ("scan", "", Origin("scan")),
    ],
)
def test_sources_are_read_back(op_name: str, text: str, expected: Origin) -> None:
    assert Origin.parse(op_name, text) == expected


def test_a_program_without_sources_has_a_report() -> None:
    damaged = image(ONE, CHAIN, inputs=[1], outputs=[1])
    damaged.meta.update(instructions={"1": 7, "x": None}, operations=["no table"])
    assert origins(damaged) == [Origin(instr.name) for instr in CHAIN]  # the instruction stands for the op
    report = Program(damaged).report()
    assert {row["op"]: row["critical"] for row in report.rows} == spent(report)
    assert str(report)


def test_end_of_an_event_is_the_unit_free_again() -> None:
    """A trace has no such time: it is found from the finish, for the instructions that hold a unit for longer too."""
    config = machine(fp32_beats=3)
    code = [op("matmul_fp32", dst=100, x=0, bias=30, k=16), op("matmul_fp32", dst=110, x=0, bias=30, k=8)]
    events = program(code, config).report(spaced=False).events
    assert [(e.begin, e.start, e.end, e.finish) for e in events] == [
        (0, 0, 6, 3 + 28 + 2),
        (6, 6, 9, 6 + 28 + 2),
    ]
    assert latency(code[0], config) == 30


def test_a_producer_that_is_still_at_other_rows_is_the_cause() -> None:
    """The first row of eight is read as soon as it is there: seven beats of the product come after it."""
    code = [
        op("matmul", dst=100, x=0, bias=30, k=8, m_rows=8),
        op("relu", dst=200, a=100),
        op("output", src=200),
    ]
    report = program(code, machine(accumulators=8), outputs=[1]).report(spaced=False)
    assert spent(report) == {"matmul": 28, "relu": 3, "output": 10}
    assert report.last_out == 41


def test_images_are_not_changed() -> None:
    before: Image = chain().image
    data = before.to_bytes()
    Program(before).report()
    assert before.to_bytes() == data
