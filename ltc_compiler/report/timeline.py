"""A report as a matplotlib picture: the units of every core over the cycles of an inference."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ltc_compiler import isa
from ltc_compiler.errors import LtcError
from ltc_compiler.report.text import headline, warning

if TYPE_CHECKING:
    from ltc_compiler.report.report import Report

NAMED = 9  # ops with a colour and a place in the legend; the others are grey
GREY = "#b0b0b0"


def draw_timeline(report: Report, ax: Any = None) -> Any:
    """Draw into `ax`, or a new figure; returns the matplotlib Axes.

    A bar is the time in which an instruction holds its unit; colours are the ops with the most critical cycles. What
    was done before the input came is left of 0, and cut off where it lies further away than the inference is long.
    Raises LtcError where matplotlib is missing.
    """
    try:
        import matplotlib.pyplot as plt
        from matplotlib.patches import Rectangle
    except ImportError as error:
        remedy = "install matplotlib, or use report().to_html(path)"
        what = "a timeline needs matplotlib, which is not installed"
        raise LtcError(what, where="timeline", remedy=remedy) from error
    lanes = [(row["core"], row["unit"]) for row in report.units]
    if ax is None:
        _, ax = plt.subplots(figsize=(12, 1.4 + 0.24 * len(lanes)), layout="constrained")
    palette = plt.get_cmap("tab10")
    named = {_name(row): palette(i) for i, row in enumerate(report.rows[:NAMED])}
    for y, (core, unit) in enumerate(lanes):
        events = [e for e in report.events if e.core == core and report.code.unit(e.index) == unit]
        names = [_source_name(report, e.index) for e in events]
        spans = [(e.start, e.end - e.start) for e in events]
        ax.broken_barh(spans, (y - 0.4, 0.8), facecolors=[named.get(name, GREY) for name in names])
    ax.set_yticks(range(len(lanes)), [f"{unit}  {core}" for core, unit in lanes], fontsize=8)
    ax.set_ylim(len(lanes) - 0.5, -0.5)
    ax.set_xlim(max(_first(report), -report.last_out), report.last_out)
    for y in range(1, len(lanes)):
        if lanes[y][0] != lanes[y - 1][0]:
            ax.axhline(y - 0.5, color="black", linewidth=0.5)
    ax.set_xlabel("cycles since the input came")
    ax.set_title(" ".join([headline(report).split(" (")[0], warning(report)]), fontsize=10, loc="left")
    handles = [Rectangle((0, 0), 1, 1, color=color) for color in named.values()]
    ax.legend(handles, list(named), fontsize=7, loc="upper left", bbox_to_anchor=(1, 1))
    return ax


def _first(report: Report) -> int:
    return min(
        [0, *(event.start for event in report.events if report.code.unit(event.index) in isa.UNITS[1:])]
    )


def _name(row: dict[str, Any]) -> str:
    place = f"{row['file'].rsplit('/', 1)[-1]}:{row['line']}" if row["file"] else row["module"]
    return f"{row['op']} {place}".strip()


def _source_name(report: Report, index: int) -> str:
    source = report.sources[index]
    place = source.place if source.file or source.module else ""
    return f"{source.op} {place}".strip()
