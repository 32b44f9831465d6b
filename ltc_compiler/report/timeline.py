"""A report as a matplotlib picture: the units of every core over the cycles of an inference."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ltc_compiler.errors import LtcError
from ltc_compiler.report.costs import origin_of
from ltc_compiler.report.terminal import headline, label, warning

if TYPE_CHECKING:
    from ltc_compiler.report.report import Report

GREY = "#b0b0b0"  # of the ops that the legend has no colour for


def draw_timeline(report: Report, ax: Any = None) -> Any:
    """Draw the units of every core over the cycles of an inference with matplotlib.

    A bar is the time in which an instruction holds its unit; the operations with the most critical cycles have colours
    of their own. What was done before the input came stands left of 0, as far back as a tenth of the inference.

    Args:
        report: the report to draw.
        ax: the matplotlib Axes to draw into; those of a new figure if None.

    Returns:
        The Axes.

    Raises:
        LtcError: matplotlib is not installed.
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
    colours = dict(zip((origin_of(row) for row in report.rows), _palette(plt), strict=False))
    for y, (core, unit) in enumerate(lanes):
        events = [e for e in report.events if e.core == core and report.code.unit(e.index) == unit]
        spans = [(e.start, e.end - e.start) for e in events]
        ax.broken_barh(
            spans, (y - 0.4, 0.8), facecolors=[colours.get(report.origins[e.index], GREY) for e in events]
        )
    ax.set_yticks(range(len(lanes)), [f"{unit}  {core}" for core, unit in lanes], fontsize=8)
    ax.set_ylim(len(lanes) - 0.5, -0.5)
    ax.set_xlim(max(_first(report), -report.last_out / 10), report.last_out)
    for y in range(1, len(lanes)):
        if lanes[y][0] != lanes[y - 1][0]:
            ax.axhline(y - 0.5, color="black", linewidth=0.5)
    ax.set_xlabel("cycles since the input came")
    ax.set_title(" ".join([headline(report).split(" (")[0], warning(report)]), fontsize=10, loc="left")
    handles = [Rectangle((0, 0), 1, 1, color=colour) for colour in colours.values()]
    ax.legend(handles, [label(s) for s in colours], fontsize=7, loc="upper left", bbox_to_anchor=(1, 1))
    return ax


def _palette(plt: Any) -> list[Any]:
    """The colours of tab10 but for its grey, which stands for all other ops."""
    return [plt.get_cmap("tab10")(i) for i in range(10) if i != 7]


def _first(report: Report) -> int:
    """The start of the first instruction that holds a unit, or 0."""
    return min([0, *(e.start for e in report.events if e.busy)])
