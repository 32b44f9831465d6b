"""The forms of a report hold the same figures; the page is whole; the trace keeps to its format."""

from __future__ import annotations

import bisect
import csv
import json
import os
import re
import shutil
import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from programs_for_reports import ONE, TWO, chain, compiled, program
from programs_for_timing import Drawn, op, programs, transfer

from ltc_compiler import isa
from ltc_compiler.errors import InputError, LtcError
from ltc_compiler.program import Program
from ltc_compiler.report import Report, chrome_trace
from ltc_compiler.report.costs import COLUMNS

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
    run = compiled()
    both = run.end_to_end_duration_per_inference_us(spaced=False)
    assert f"{run.io_duration_per_inference_us():.3f} µs more, end to end {both:.3f} µs" in text
    assert report.to_dict()["io_us_estimate"] == run.io_duration_per_inference_us()
    assert re.search(r"bf16 +matrix +0(, 1)? +linear +[\w.]+ +model.py:7 +return self.a\(x\)", text)
    assert "<table" in report._repr_html_()
    assert "</script>" not in report._repr_html_()


def test_a_cut_report_says_so_everywhere(tmp_path: Path) -> None:
    whole, cut = chain().report(limit=10), chain().report(limit=7)
    assert (len(whole.events), whole.complete) == (10, True)  # 3 iterations of an add and an end, and 4 more
    assert (len(cut.events), cut.complete) == (7, False)
    assert cut.latency == whole.latency
    (vector,) = [u for u in cut.units if u["unit"] == "vector"]
    last = max(e.end for e in cut.events)
    assert (
        vector["utilisation"] == vector["busy"] / last > vector["busy"] / whole.last_out
    )  # of what it covers
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


# The page's script runs in node against a document that swallows everything; it counts the bars of the first drawing.
DOCUMENT = """
const fs = require("fs"), data = fs.readFileSync(0, "utf8");
let bars = 0;
const known = {clientWidth: 1400, textContent: data, fillRect: () => { bars++; }, [Symbol.toPrimitive]: () => "0",
  [Symbol.iterator]: function* () {}};
const anything = new Proxy(function () {}, {
  get: (_, name) => known[name] ?? anything, set: () => true, apply: () => anything,
});
const document = anything, window = anything, getComputedStyle = anything, addEventListener = () => {};
const began = Date.now();
"""


@pytest.mark.parametrize("copies", [1, 40_000])
def test_the_script_of_a_page_draws_long_timelines_too(copies: int, tmp_path: Path) -> None:
    """Copies of the events, one behind the other, up to 200,000: no more bars than the picture has columns."""
    node = shutil.which("node")
    if node is None:
        pytest.skip("node is not installed: the page's script is not run")
    report = compiled().report()
    report.to_html(tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    data_text, script = re.findall(r"<script[^>]*>(.*?)</script>", page, re.DOTALL)
    data = json.loads(data_text)
    issue, finish, length = 2, 6, report.last_out + 100
    data["events"] = [
        [*e[:issue], *(t + n * length for t in e[issue : finish + 1]), *e[finish + 1 :]]
        for n in range(copies)
        for e in data["events"]
    ]
    data["last_out"] += (copies - 1) * length
    (tmp_path / "page.js").write_text(
        DOCUMENT + script + "\nconsole.log(bars, Date.now() - began);", encoding="utf-8"
    )
    done = subprocess.run(
        [node, str(tmp_path / "page.js")],
        input=json.dumps(data),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    bars, milliseconds = map(int, done.stdout.split())
    lanes = len(report.units)
    assert min(len(data["events"]), 1000) <= bars
    assert bars <= 4 * 1400 * lanes
    assert milliseconds < 20_000


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
    for entry in entries:  # an arrow hangs on the slice of its thread that is open at its time
        if entry["ph"] in "sf":
            spans, at = threads[entry["pid"], entry["tid"]], cycles(entry["ts"])
            before = bisect.bisect_right(spans, (at, 1 << 62)) - 1
            assert spans[before][0] <= at < spans[before][1]


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


def test_perfetto_loads_the_trace(tmp_path: Path) -> None:
    """Its package downloads its reader when it is first used, which a test must not: name the binary to run this."""
    reader = os.environ.get("LTC_TRACE_PROCESSOR")
    if reader is None:
        pytest.skip("LTC_TRACE_PROCESSOR names no trace_processor_shell; the format's rules are tested above")
    module = pytest.importorskip("perfetto.trace_processor")
    report = compiled().report()
    compiled().save_trace(tmp_path / "trace.json")
    config = module.TraceProcessorConfig(bin_path=reader)
    with module.TraceProcessor(trace=str(tmp_path / "trace.json"), config=config) as loaded:
        (row,) = loaded.query("select count(*) as slices, max(ts + dur) as last from slice")
        (errors,) = loaded.query("select sum(value) as n from stats where severity = 'error'")
    assert row.slices == len(report.events)
    assert errors.n == 0


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
