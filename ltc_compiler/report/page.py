"""A report as HTML: the table for a notebook, and one self-contained page with timeline, memory and dataflow.

The page is page.html with the report's data in it, as JSON; its script draws. Nothing is fetched.
"""

from __future__ import annotations

import json
from collections import Counter
from html import escape
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from ltc_compiler import isa
from ltc_compiler.bytecode import instr_text
from ltc_compiler.report.costs import COLUMNS, origin_of
from ltc_compiler.report.terminal import CELLS, NUMBERS, headline, warning

if TYPE_CHECKING:
    from ltc_compiler.report.report import Report

_STYLE = """<style>
.ltc-report{border-collapse:collapse;font:12px ui-monospace,monospace;margin:4px 0}
.ltc-report td,.ltc-report th{border:1px solid #8884;padding:2px 8px;text-align:left;white-space:nowrap}
.ltc-report caption{text-align:left;font-weight:bold;padding:4px 0}
.ltc-report .number{text-align:right}
</style>"""


def table_html(report: Report) -> str:
    """The table of ops, for a notebook."""
    head = "".join(f"<th{_kind(name)}>{escape(name)}</th>" for name in CELLS)
    body = "".join(
        "<tr>"
        + "".join(f"<td{_kind(name)}>{escape(cell(row))}</td>" for name, cell in CELLS.items())
        + "</tr>"
        for row in report.rows
    )
    caption = escape(" ".join(part for part in (headline(report), warning(report)) if part))
    return f'{_STYLE}<table class="ltc-report"><caption>{caption}</caption><tr>{head}</tr>{body}</table>'


def _kind(name: str) -> str:
    return ' class="number"' if name in NUMBERS else ""


def page(report: Report) -> str:
    """The whole page as text."""
    template = (files("ltc_compiler.report") / "page.html").read_text(encoding="utf-8")
    data = json.dumps(page_data(report), ensure_ascii=False, separators=(",", ":"))
    title = escape(f"{report.model.name} on {report.config.name}")
    # A "<" inside a string of the data could end the script: JSON has an escape for it.
    return template.replace("{{title}}", title).replace("{{data}}", data.replace("<", "\\u003c"))


def page_data(report: Report) -> dict[str, Any]:
    """What the page's script draws from, as plain values. Events and lives are lists, in the order of their names."""
    group_of = {origin_of(row): number for number, row in enumerate(report.rows)}
    groups = {i: group_of[report.origins[i]] for i in {event.index for event in report.events}}
    critical: Counter[int] = Counter()
    for segment in report.path:
        critical[segment.event] += segment.cycles
    return {
        "headline": headline(report),
        "warning": warning(report),
        "last_out": report.last_out,
        "units": list(isa.UNITS),
        "columns": COLUMNS,
        "ops": report.rows,
        "lines": report.lines,
        "utilisation": report.units,
        "instructions": {i: [g, report.code.unit(i), instr_text(report.code[i])] for i, g in groups.items()},
        "event_names": ["index", "core", "issue", "begin", "start", "end", "finish", "stall", "felt", "critical",
                        "iterations"],
        "events": [
            [e.index, e.core, e.issue, e.begin, e.start, e.end, e.finish, stall, e.felt, critical[n],
             list(e.iterations)]
            for n, (e, stall) in enumerate(zip(report.events, report.stalls, strict=True))
        ],
        "life_names": ["core", "row", "rows", "begin", "end", "writer", "kind"],
        "lives": [[v.core, v.row, v.rows, v.begin, v.end, v.writer, v.kind] for v in report.lives],
        "rows_used": [core.tensor_rows for core in report.code.image.cores],
        "constants": [[[row, len(data)] for row, data in core.constants] for core in report.code.image.cores],
        "edges": [[a, b, rows] for (a, b), rows in sorted(_edges(report, groups).items())],
    }  # fmt: skip


def _edges(report: Report, groups: dict[int, int]) -> Counter[tuple[int, int]]:
    """Rows that pass from one op to another."""
    found: Counter[tuple[int, int]] = Counter()
    for number, producers in enumerate(report.delivered):
        for producer, rows in producers.items():
            pair = groups[report.events[producer].index], groups[report.events[number].index]
            if pair[0] != pair[1]:
                found[pair] += rows
    return found
