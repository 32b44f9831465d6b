"""A report in the terminal: one sentence, the costly ops, the units at work."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from ltc_compiler.report.costs import Row
from ltc_compiler.report.origins import Origin

if TYPE_CHECKING:
    from ltc_compiler.report.report import Report

SHOWN = 24  # rows; `rows` has them all
WIDTH = 44  # of the user's line

MODES = {
    True: "spaced: idle before, and what depends on the state alone was done ahead",
    False: "contiguous: the input comes the moment the inference before it ends",
}


def headline(report: Report) -> str:
    """The latency with its meaning, and the outputs that belong to an earlier step of the stream."""
    late = "".join(f"; {name} is {n} step{'s' * (n > 1)} late" for name, n in report.late.items())
    return (
        f"{report.model.name} on {report.config.name}: {report.latency} cycles = {report.latency_us:.3f} µs"
        f" at {report.config.clock_mhz:g} MHz ({MODES[report.spaced]}){late}"
    )


def warning(report: Report) -> str:
    """Nothing for a complete report, else how much of the inference it covers."""
    if report.complete:
        return ""
    return (
        f"INCOMPLETE: only the first {len(report.events)} executed instructions are in this report; "
        "give report() a higher limit"
    )


def place(row: Row) -> str:
    """Where a row's op stands in the user's source; the name of an input, output or state."""
    origin = Origin("", row["module"], row["file"], row["line"])
    return origin.place if row["file"] or row["module"] else ""


def label(origin: Origin) -> str:
    """Op and place in a few words."""
    return f"{origin.op} {place(origin._asdict())}".strip()


def count(value: int) -> str:
    """Bytes in a few characters: 1234567 is 1.2M."""
    for unit, size in (("G", 10**9), ("M", 10**6), ("k", 10**4)):
        if value >= size:
            return f"{value / min(size, 10**3 if unit == 'k' else size):.1f}{unit}"
    return str(value)


CELLS: dict[str, Callable[[Row], str]] = {
    "critical": lambda r: str(r["critical"]),
    "share": lambda r: f"{r['share']:.1%}",
    "busy": lambda r: str(r["busy"]),
    "stalled": lambda r: str(r["stalled"]),
    "bound by": lambda r: str(r["bound_by"]),
    "bytes": lambda r: count(r["read_bytes"] + r["written_bytes"]),
    "precision": lambda r: str(r["precision"]),
    "units": lambda r: str(r["units"]),
    "cores": lambda r: str(r["cores"]),
    "op": lambda r: str(r["op"]),
    "module": lambda r: str(r["module"]),
    "place": lambda r: place(r) if r["file"] else "",
    "source": lambda r: r["text"][: WIDTH - 1] + "…" if len(r["text"]) > WIDTH else str(r["text"]),
}
NUMBERS = {"critical", "share", "busy", "stalled", "bytes", "utilisation"}


def report_text(report: Report) -> str:
    """What str() of a report prints."""
    parts = [headline(report), warning(report), grid(list(CELLS), [_cells(r) for r in report.rows[:SHOWN]])]
    if len(report.rows) > SHOWN:
        parts.append(f"... and {len(report.rows) - SHOWN} more in .rows")
    units = [[str(r["core"]), r["unit"], str(r["busy"]), f"{r['utilisation']:.1%}"] for r in report.units]
    parts.append("\n" + grid(["core", "unit", "busy", "utilisation"], units))
    both = report.latency_us + report.io_us
    parts.append(
        f"\ncompute alone; host IO, an estimate: {report.io_us:.3f} µs more, end to end {both:.3f} µs"
    )
    return "\n".join(part for part in parts if part)


def _cells(row: Row) -> list[str]:
    return [cell(row) for cell in CELLS.values()]


def grid(names: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Columns aligned, numbers to the right, the names above."""
    widths = [max(len(cell) for cell in column) for column in zip(names, *rows, strict=True)]
    lines = []
    for row in [names, *rows]:
        cells = [
            cell.rjust(width) if name in NUMBERS else cell.ljust(width)
            for name, cell, width in zip(names, row, widths, strict=True)
        ]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)
