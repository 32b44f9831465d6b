"""Reports: the critical path adds up and is right, every form holds the same figures, the trace keeps to its format."""

from __future__ import annotations

import csv
import json
import re
import sys
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from programs_for_timing import Drawn, image, machine, op, programs, transfer

from ltc_compiler import isa
from ltc_compiler.bytecode import Image, Instr, Row, State
from ltc_compiler.bytecode.cost import latency
from ltc_compiler.config import Config
from ltc_compiler.errors import InputError, LtcError
from ltc_compiler.ir.graph import Graph, Source, Type
from ltc_compiler.ir.ops import add
from ltc_compiler.nnir import NNIR
from ltc_compiler.program import Program
from ltc_compiler.report import Report, chrome_trace
from ltc_compiler.report.events import Code
from ltc_compiler.report.source import Source as Origin
from ltc_compiler.report.source import sources
from ltc_compiler.report.table import COLUMNS

ONE, TWO = machine(), machine(cores=2)
CHAIN = [
    op("input", dst=100),
    op("div", dst=101, a=100, b=0),
    op("loop", count=3),
    op("add", dst=101, a=101, b=1),
    op("end"),
    op("output", src=101),
]


def program(code: list[Instr], config: Config = ONE, **stores: Any) -> Program:
    return Program(image(config, code, **stores))


def chain(config: Config = ONE) -> Program:
    return program(CHAIN, config, inputs=[1], outputs=[1])


def spent(report: Report) -> dict[str, int]:
    """Critical cycles by the name of the instruction."""
    return {row["instruction"]: row["critical"] for row in report.instructions}


def compiled(text: str = "return self.a(x)  # <b>&</b></script>") -> Program:
    """tanh(W x + c) of 20 elements, as the front end leaves it: with module paths, files and lines."""
    graph = Graph("net")
    x = graph.add_input(Type((1, 20)), "x")
    here = Source("net.a", "/home/someone/model.py", 7, text)
    weight, bias = graph.constant(np.ones((20, 20))), graph.constant(np.ones(20))
    hidden = add(graph, "linear", x, weight, bias, source=here)
    graph.add_output(add(graph, "tanh", hidden, source=replace(here, line=8, text="torch.tanh(y)")), "y")
    return NNIR(graph).to_program(Config.tiny_c2b8())


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
    assert spent(report) == {"send": 12, "receive": 4, "output": 10}
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


# --- sources --------------------------------------------------------------------------------------------------


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
    assert sources(damaged) == [Origin(instr.name) for instr in CHAIN]  # the instruction stands for the op
    report = Program(damaged).report()
    assert {row["op"]: row["critical"] for row in report.rows} == spent(report)
    assert str(report)


# --- the forms ------------------------------------------------------------------------------------------------


def test_rows_group_by_op_line_and_instruction() -> None:
    report = compiled().report()
    assert all(list(row) == list(COLUMNS) for row in [*report.rows, *report.lines])
    ops = {row["op"]: row for row in report.rows}
    assert set(ops) >= {"input", "linear", "tanh", "output"}
    assert (ops["linear"]["line"], ops["linear"]["module"], ops["linear"]["precision"]) == (
        7,
        "net.a",
        "bf16",
    )
    assert ops["input"]["module"] == "x"
    assert ops["tanh"]["units"] == "activation"
    lines = {row["line"]: row for row in report.lines if row["file"]}
    assert set(lines) == {7, 8}
    for rows in (report.rows, report.lines, report.instructions):
        assert sum(row["critical"] for row in rows) == report.last_out
        assert [row["critical"] for row in report.rows] == sorted(
            (r["critical"] for r in report.rows), reverse=True
        )
    (matrix,) = [u for u in report.units if (u["core"], u["unit"]) == (0, "matrix")]
    assert matrix["utilisation"] == matrix["busy"] / report.last_out


def test_csv_json_and_data_frame_hold_the_rows(tmp_path: Path) -> None:
    report = compiled().report()
    tables = {
        "op": report.rows,
        "line": report.lines,
        "instruction": report.instructions,
        "unit": report.units,
    }
    for by, rows in tables.items():
        report.to_csv(tmp_path / "r.csv", by=by)
        with (tmp_path / "r.csv").open(newline="", encoding="utf-8") as file:
            assert list(csv.DictReader(file)) == [{k: str(v) for k, v in row.items()} for row in rows]
    report.to_json(tmp_path / "r.json")
    loaded = json.loads((tmp_path / "r.json").read_text())
    assert (loaded["ops"], loaded["latency_cycles"]) == (report.rows, report.latency)
    with pytest.raises(InputError, match="by is 'module'"):
        report.to_csv(tmp_path / "r.csv", by="module")
    pandas = pytest.importorskip("pandas")
    frame = report.to_dataframe()
    assert isinstance(frame, pandas.DataFrame)
    assert frame.to_dict("records") == report.rows


def test_missing_packages_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pandas", None)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(LtcError, match="needs pandas"):
        chain().report().to_dataframe()
    with pytest.raises(LtcError, match="needs matplotlib"):
        chain().timeline()


def test_text_says_latency_mode_and_costs() -> None:
    report = compiled().report(spaced=False)
    text = str(report)
    assert f"{report.latency} cycles = {report.latency_us:.3f} µs" in text
    assert "contiguous" in text
    assert "spaced" not in text
    assert re.search(r"bf16 +matrix +0(, 1)? +linear +model.py:7 +return self.a\(x\)", text)
    assert "<table" in report._repr_html_()
    assert "</script>" not in report._repr_html_()


def test_a_cut_report_says_so_everywhere(tmp_path: Path) -> None:
    whole, cut = chain().report(limit=10), chain().report(limit=7)
    assert (len(whole.events), whole.complete) == (10, True)  # 3 turns of an add and an end, and 4 more
    assert (len(cut.events), cut.complete) == (7, False)
    assert cut.latency == whole.latency
    cut.to_html(tmp_path / "cut.html")
    for text in (
        str(cut),
        cut._repr_html_(),
        (tmp_path / "cut.html").read_text(),
        json.dumps(chrome_trace(cut)),
    ):
        assert "only the first 7 executed instructions" in text
    assert not cut.to_dict()["complete"]
    with pytest.raises(InputError, match="limit is 0"):
        chain().report(limit=0)


def test_a_page_is_whole_and_fetches_nothing(tmp_path: Path) -> None:
    report = compiled().report()
    report.to_html(tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert "{{" not in page
    assert not re.findall(r'\b(?:src|href)=["\']|@import|fetch\(|https?://(?!www\.w3\.org/2000/svg)', page)
    found = re.search(r'<script id="data" type="application/json">(.*?)</script>', page, re.DOTALL)
    assert found is not None
    data = json.loads(found[1])
    assert data["ops"] == report.rows
    assert "</script>" in data["ops"][[r["op"] for r in data["ops"]].index("linear")]["text"]
    assert len(data["events"]) == len(report.events)
    assert all(len(event) == len(data["event_names"]) for event in data["events"])
    assert all(len(life) == len(data["life_names"]) for life in data["lives"])
    assert {n for a, b, _ in data["edges"] for n in (a, b)} <= set(range(len(report.rows)))
    assert any(data["ops"][b]["op"] == "tanh" for _, b, _ in data["edges"])


# --- the trace event format -----------------------------------------------------------------------------------


NEEDED = {
    "M": {"args"},
    "X": {"ts", "dur", "cat"},
    "C": {"ts", "args"},
    "s": {"ts", "id", "cat"},
    "f": {"ts", "id", "cat", "bp"},
}


def cycles(microseconds: float) -> int:
    """Times are whole nanoseconds, one a cycle."""
    assert microseconds >= 0
    assert abs(microseconds * 1000 - round(microseconds * 1000)) < 1e-6
    return round(microseconds * 1000)


def check_trace(content: dict[str, Any], report: Report) -> None:
    """The rules of the trace event format that viewers rely on, and that nothing is lost."""
    entries = content["traceEvents"]
    for entry in entries:
        assert {"name", "ph", "pid", "tid"} | NEEDED[entry["ph"]] <= set(entry)
        assert isinstance(entry["pid"], int)
        assert isinstance(entry["tid"], int)
        cycles(entry.get("ts", 0))
    threads: dict[tuple[int, int], list[tuple[int, int]]] = {}
    for entry in entries:
        if entry["ph"] == "X":
            start = cycles(entry["ts"])
            threads.setdefault((entry["pid"], entry["tid"]), []).append((start, start + cycles(entry["dur"])))
    assert sum(map(len, threads.values())) == len(report.events)
    for spans in threads.values():
        assert all(end <= begin for (_, end), (begin, _) in pairwise(spans))
    named = {(e["pid"], e["tid"]): e["args"]["name"] for e in entries if e["name"] == "thread_name"}
    assert named == {thread: isa.UNITS[thread[1]] for thread in threads}
    starts = {e["id"]: e["ts"] for e in entries if e["ph"] == "s"}
    ends = {e["id"]: e["ts"] for e in entries if e["ph"] == "f"}
    assert set(starts) == set(ends)
    assert all(starts[i] <= ends[i] for i in starts)


@pytest.mark.parametrize("spaced", [True, False])
def test_trace_keeps_to_the_format(spaced: bool, tmp_path: Path) -> None:
    there, back = transfer(2), transfer(1, 1, [0])
    code = [op("input", dst=100), *there, op("add", 1, dst=120, a=100, b=0), *back, op("output", src=100)]
    run = program(code, TWO, inputs=[1], outputs=[1])
    run.save_trace(tmp_path / "trace.json", spaced=spaced)
    content = json.loads((tmp_path / "trace.json").read_text(encoding="utf-8"))
    report = run.report(spaced=spaced)
    check_trace(content, report)
    assert sum(e["ph"] == "s" for e in content["traceEvents"]) == 2
    outputs = [e for e in content["traceEvents"] if e["ph"] == "X" and e["name"].startswith("output")]
    arrival = content["otherData"]["arrival_cycle"]
    assert cycles(outputs[0]["ts"]) - arrival == report.last_out - ONE.latency.io_out
    counters = [e["args"]["rows"] for e in content["traceEvents"] if e["ph"] == "C" and e["pid"] == 0]
    assert max(counters) > 0
    assert counters[-1] == 0


@settings(max_examples=40, deadline=None)
@given(programs())
def test_traces_of_random_programs_keep_to_the_format(drawn: Drawn) -> None:
    report = Program(drawn.image()).report()
    check_trace(json.loads(json.dumps(chrome_trace(report))), report)


# --- the picture ----------------------------------------------------------------------------------------------


def test_timeline_draws_every_unit_at_work() -> None:
    matplotlib = pytest.importorskip("matplotlib")
    matplotlib.use("Agg")
    run = compiled()
    axes = run.timeline()
    labels = [label.get_text() for label in axes.get_yticklabels()]
    assert labels == [f"{u['unit']}  {u['core']}" for u in run.report().units]
    place = labels.index("matrix  0") - 0.4
    (bars,) = [c for c in axes.collections if np.isclose(c.get_paths()[0].vertices[0][1], place)]
    spans = [
        (round(path.vertices[:, 0].min()), round(path.vertices[:, 0].max())) for path in bars.get_paths()
    ]
    events = [e for e in run.report().events if e.core == 0 and run.report().code.unit(e.index) == "matrix"]
    assert spans == [(e.start, e.end) for e in events]
    given_axes = matplotlib.pyplot.figure().subplots()
    assert run.timeline(given_axes, spaced=False) is given_axes
    matplotlib.pyplot.close("all")


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


def test_images_are_not_changed() -> None:
    before: Image = chain().image
    data = before.to_bytes()
    Program(before).report()
    assert before.to_bytes() == data
