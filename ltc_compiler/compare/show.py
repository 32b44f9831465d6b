"""A comparison in the terminal, in a notebook, and as a matplotlib picture."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from html import escape
from typing import TYPE_CHECKING, Any

from ltc_compiler.compare.measure import ULP_BINS
from ltc_compiler.compare.results import Row
from ltc_compiler.errors import LtcError
from ltc_compiler.report.origins import Origin
from ltc_compiler.report.terminal import grid

if TYPE_CHECKING:
    from ltc_compiler.compare.comparison import Comparison

SHOWN = 60  # rows; of a longer comparison those with the largest errors of their own. `rows` has them all
WIDTH = 40  # of the user's line
BARS = "▁▂▃▄▅▆▇█"
DRAWN = (1e-10, 1e3)  # relative errors outside are drawn at the ends
MARKS = (  # column, mark, label
    ("loses", "rx", "loses precision"),
    ("reaches_outputs", "k|", "of the outputs, by this operation's own"),
    ("what_if_relative", "g<", "of the outputs, this alone in FP32"),
)

_STYLE = """<style>
.ltc-compare{border-collapse:collapse;font:12px ui-monospace,monospace;margin:4px 0}
.ltc-compare td,.ltc-compare th{border:1px solid #8884;padding:2px 8px;text-align:left;white-space:pre}
.ltc-compare caption{text-align:left;font-weight:bold;padding:4px 0;white-space:pre-line}
.ltc-compare .loses{background:#e5393522}
</style>"""


def bars(counts: Sequence[int]) -> str:
    """A histogram in one character for each bin, the tallest full; a dot for an empty one."""
    most = max(counts)
    return "".join(BARS[(len(BARS) - 1) * n // most] if n else "·" for n in counts)


def place(row: Row) -> str:
    """File and line, else the module; nothing where neither is known."""
    if not (row["file"] or row["module"]):
        return ""
    return Origin("", row["module"], row["file"], row["line"]).place


def _name(row: Row) -> str:
    """An operation in a sentence."""
    return "  ".join(part for part in (row["op"], place(row), row["text"]) if part)


def _lost(row: Row) -> str:
    counts = (("saturated", "inf"), ("flushed", "flushed"), ("nans", "NaN"))
    return ", ".join(f"{row[key]} {word}" for key, word in counts if row[key])


def _what_if(row: Row) -> str:
    if row["what_if_max_error"] is None:
        return "refused" if row["what_if_refused"] else ""
    return f"{row['what_if_relative']:.2e} {row['what_if_cycles']:+d} cycles"


CELLS: dict[str, Callable[[Row], str]] = {
    "": lambda r: ">" if r["loses"] else "",
    "op": lambda r: str(r["op"]),
    "value": lambda r: f"%{r['value']}" if r["value"] else "",
    "precision": lambda r: str(r["precision"]),
    "iterations": lambda r: str(r["iterations"]) if r["iterations"] > 1 else "",
    "max": lambda r: f"{r['max_error']:.1e}",
    "rms": lambda r: f"{r['rms_error']:.1e}",
    "relative": lambda r: f"{r['relative']:.1e}",
    "own": lambda r: f"{r['own']:.1e}",
    "reaches": lambda r: "" if r["reaches_outputs"] is None else f"{r['reaches_outputs']:.1e}",
    "growth": lambda r: f"{r['growth']:.3g}",
    "fp32 max": lambda r: f"{r['fp32_max_error']:.1e}",
    "torch max": lambda r: "" if r["torch_max_error"] is None else f"{r['torch_max_error']:.1e}",
    "bf16 ulps": lambda r: bars(r["bf16_ulps"]),
    "fp32 ulps": lambda r: bars(r["fp32_ulps"]),
    "lost": _lost,
    "alone in fp32": _what_if,
    "module": lambda r: str(r["module"]),
    "place": place,
    "source": lambda r: r["text"][: WIDTH - 1] + "…" if len(r["text"]) > WIDTH else str(r["text"]),
}


def headline(result: Comparison) -> list[str]:
    """The error of the outputs, the first loss, the best remedy, and how to read the table."""
    steps = f"{result.steps} step{'s' * (result.steps > 1)}"
    lines = [
        f"{result.name} on {result.config.name}, {steps}, {result.cycles} cycles an inference:"
        f" largest error of the outputs {result.max_error:.2e}, relative {result.relative:.2e}, against fp64"
    ]
    lines += [_output(row) for row in result.outputs]
    first, best = result.first_loss, _best(result.rows)
    if first is None:
        lines.append(f"no operation loses precision: none makes an error {result.factor:g} times larger")
    else:
        lines.append(f"precision is first lost in {_name(first)}")
    if best is not None and best["what_if_relative"] < result.relative:
        lines.append(
            f"of the operations tried alone in FP32 the outputs gain most from {_name(best)}: largest error"
            f" {best['what_if_max_error']:.2e}, relative {_what_if(best)}"
        )
    elif best is not None:
        lines.append("none of the operations tried alone in FP32 makes the outputs better")
    lines += [f"not looked into, too many iterations: the scan at {where}" for where in result.unopened]
    return lines


def _output(row: Row) -> str:
    late = f", {row['late']} step{'s' * (row['late'] > 1)} late" if row["late"] else ""
    text = (
        f"  {row['name']}{late}: largest error {row['max_error']:.2e}, plain fp32 {row['fp32_max_error']:.2e}"
    )
    if row["expected_max_error"] is not None:
        text += f"; against the expected output {row['expected_max_error']:.2e}, fp64 {row['reference_max_error']:.2e}"
    return text


def _best(rows: Sequence[Row]) -> Row | None:
    tried = [row for row in rows if row["what_if_relative"] is not None]
    return min(tried, key=lambda row: row["what_if_relative"], default=None)


def _legend() -> str:
    ends = " ".join(f"{end:g}" for end in ULP_BINS)
    return (
        f"> loses precision; ulps: errors up to {ends} and above; own: what the operation adds to its operands' error;"
        " reaches: what of it reaches the outputs; alone in fp32: relative error of the outputs then"
    )


def _shown(rows: Sequence[Row]) -> list[Row]:
    """In the order of execution, those with the largest errors of their own if there are too many."""
    kept = sorted(range(len(rows)), key=lambda i: (not rows[i]["loses"], -rows[i]["own"]))[:SHOWN]
    return [rows[i] for i in sorted(kept)]


def _columns(rows: Sequence[Row]) -> dict[str, Callable[[Row], str]]:
    """The columns with something in them."""
    return {name: cell for name, cell in CELLS.items() if any(cell(row) for row in rows)}


def table_text(result: Comparison) -> str:
    """What str() of a comparison prints."""
    rows = _shown(result.rows)
    columns = _columns(rows)
    parts = [*headline(result), _legend(), ""]
    parts.append(grid(list(columns), [[cell(row) for cell in columns.values()] for row in rows]))
    if len(rows) < len(result.rows):
        parts.append(f"... and {len(result.rows) - len(rows)} with smaller errors of their own in .rows")
    return "\n".join(parts)


def table_html(result: Comparison) -> str:
    """The whole table, for a notebook."""
    columns = _columns(result.rows)
    head = "".join(f"<th>{escape(name)}</th>" for name in columns)
    body = "".join(
        ('<tr class="loses">' if row["loses"] else "<tr>")
        + "".join(f"<td>{escape(cell(row))}</td>" for cell in columns.values())
        + "</tr>"
        for row in result.rows
    )
    caption = escape("\n".join([*headline(result), _legend()]))
    return f'{_STYLE}<table class="ltc-compare"><caption>{caption}</caption><tr>{head}</tr>{body}</table>'


def _has(row: Row, key: str) -> bool:
    """Whether a mark is drawn."""
    return bool(row[key]) if isinstance(row[key], bool) else row[key] is not None


def _drawn(error: float) -> float:
    return min(max(error, DRAWN[0]), DRAWN[1])


def plot(result: Comparison, ax: Any = None) -> Any:
    """Relative errors over the operations, on a logarithmic axis; marks where precision is lost."""
    try:
        import matplotlib.pyplot as plt
    except ImportError as error:
        what = "a plot needs matplotlib, which is not installed"
        raise LtcError(
            what, where="plot", remedy="install matplotlib, or use .rows, .to_csv or print()"
        ) from error
    rows = result.rows
    if ax is None:
        _, ax = plt.subplots(figsize=(11, 1.5 + 0.22 * len(rows)), layout="constrained")
    y = range(len(rows))
    ax.barh(y, [_drawn(row["own"]) for row in rows], color="#c8c8c8", label="of the operation itself")
    ax.plot([_drawn(row["relative"]) for row in rows], y, "o-", ms=3, lw=0.8, label="of the value")
    for key, mark, label in MARKS:
        marked = [i for i in y if _has(rows[i], key)]
        values = [_drawn(rows[i]["relative" if key == "loses" else key]) for i in marked]
        ax.plot(values, marked, mark, ms=5, label=label)
    ax.axvline(_drawn(result.relative), color="black", lw=0.6, ls=":", label="of the outputs")
    ax.set_yticks(y, [f"{row['op']} {place(row) or row['value']}" for row in rows], fontsize=7)
    ax.set_ylim(len(rows) - 0.5, -0.5)
    ax.set_xscale("log")
    ax.set_xlabel("relative error (root mean square)")
    ax.set_title(headline(result)[0], fontsize=9, loc="left", wrap=True)
    ax.legend(fontsize=7, loc="upper left", bbox_to_anchor=(1, 1))
    return ax
