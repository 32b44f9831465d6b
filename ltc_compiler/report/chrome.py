"""A report in the trace event format that Perfetto and the tracing page of Chromium read.

A process is a core and a thread is a unit; a slice is the time in which an instruction holds its unit. Arrows join what
leaves a core to its arrival in another; a counter shows the rows in use. One nanosecond on screen is one cycle: the
format has no finer unit, and durations in real time would be rounded until slices overlap.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from ltc_compiler import isa
from ltc_compiler.bytecode import instr_text
from ltc_compiler.report.terminal import headline, warning

if TYPE_CHECKING:
    from ltc_compiler.report.report import Report

Entry = dict[str, Any]
CYCLE = 1e-3  # of a µs, the unit of the format


def chrome_trace(report: Report) -> Entry:
    """A report as a trace for Perfetto: one JSON object, in which a cycle is 1 ns.

    Times start at 0 with the first instruction; otherData.arrival_cycle says when the host's data came.

    Args:
        report: the report to write.
    """
    shift = -min([0, *(event.issue for event in report.events)])
    entries = [
        *_names(report),
        *_slices(report, shift),
        *_arrows(report, shift),
        *_rows_in_use(report, shift),
    ]
    return {
        "traceEvents": entries,
        "displayTimeUnit": "ns",
        "otherData": {
            "title": headline(report),
            "warning": warning(report),
            "unit": "1 ns is 1 cycle",
            "clock_mhz": report.config.clock_mhz,
            "latency_cycles": report.latency,
            "arrival_cycle": shift,
        },
    }


def _names(report: Report) -> Iterator[Entry]:
    cores = sorted({event.core for event in report.events})
    used = sorted({(e.core, isa.UNITS.index(report.code.unit(e.index))) for e in report.events})
    for core in cores:
        yield _meta("process_name", core, 0, name=f"core {core}")
        yield _meta("process_sort_index", core, 0, sort_index=core)
    for core, unit in used:
        yield _meta("thread_name", core, unit, name=isa.UNITS[unit])
        yield _meta("thread_sort_index", core, unit, sort_index=unit)


def _meta(kind: str, core: int, unit: int, **args: object) -> Entry:
    return {"ph": "M", "name": kind, "pid": core, "tid": unit, "args": args}


def _slices(report: Report, shift: int) -> Iterator[Entry]:
    for event, stall in zip(report.events, report.stalls, strict=True):
        origin, instr = report.origins[event.index], report.code[event.index]
        yield {
            "ph": "X",
            "name": f"{instr.name} {origin.place}",
            "cat": origin.op or "other",
            "pid": event.core,
            "tid": isa.UNITS.index(report.code.unit(event.index)),
            "ts": _time(event.start, shift),
            "dur": _time(event.end - event.start, 0),
            "args": {
                "index": event.index,
                "instruction": instr_text(instr),
                "op": origin.op,
                "source": f"{origin.file}:{origin.line} {origin.text}" if origin.file else origin.place,
                "issue": event.issue,
                "result": event.finish,
                "busy": event.busy,
                "stall": stall,
                "stalled": event.felt,
                "iterations": list(event.iterations),
            },
        }


def _arrows(report: Report, shift: int) -> Iterator[Entry]:
    """From each send to every receive that takes its rows."""
    number = 0
    for consumer, producers in enumerate(report.delivered):
        event = report.events[consumer]
        if report.code.unit(event.index) != "link_in":
            continue
        for producer in producers:
            sender = report.events[producer]
            common = {"name": "rows", "cat": "link", "id": number}
            unit = isa.UNITS.index("link_out")
            yield {"ph": "s", **common, "pid": sender.core, "tid": unit, "ts": _time(sender.start, shift)}
            yield {
                "ph": "f",
                "bp": "e",
                **common,
                "pid": event.core,
                "tid": isa.UNITS.index("link_in"),
                "ts": _time(event.start, shift),
            }
            number += 1


def _rows_in_use(report: Report, shift: int) -> Iterator[Entry]:
    """Temporary rows of each core that hold a value still needed."""
    changes: Counter[tuple[int, int]] = Counter()
    for life in report.lives:
        if life.kind == "temporary":
            changes[life.core, life.begin] += life.rows
            changes[life.core, life.end] -= life.rows
    in_use: Counter[int] = Counter()
    for (core, cycle), change in sorted(changes.items()):
        in_use[core] += change
        counter = {"ph": "C", "name": "rows in use", "pid": core, "tid": 0}
        yield {**counter, "ts": _time(cycle, shift), "args": {"rows": in_use[core]}}


def _time(cycle: int, shift: int) -> float:
    return round((cycle + shift) * CYCLE, 3)
