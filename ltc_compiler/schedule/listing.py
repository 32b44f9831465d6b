"""A schedule as text: what each instruction does, on which core and rows, when it starts, what it waits for.

    index  start core unit       instruction    op         writes         waits for    reads
        4     12 c0   matrix     matmul         linear     30:32          0 3          20:22 8:10  ; fc1

Rows are those of the core's tensor store, first:end, one range per operand. `@level` marks rows that advance with the
counter of the loop at that level; the range is then the whole of the buffer. `start` counts cycles from the beginning
of the straight run between two loop boundaries, as the scheduler plans them (order/estimate.py). `waits for` names
instructions of the same run by their index, which is that of the program's code.
"""

from __future__ import annotations

from collections.abc import Iterator

from ltc_compiler.config import Config
from ltc_compiler.schedule.memory import allocate
from ltc_compiler.schedule.order.estimate import Planned, planned
from ltc_compiler.schedule.order.footprint import touches
from ltc_compiler.schedule.rows.model import LoweredModel
from ltc_compiler.schedule.rows.virtual import Op
from ltc_compiler.schedule.search import Draft
from ltc_compiler.schedule.spread.partition import Spread

HEAD = ("index", "start", "core", "unit", "instruction", "op", "writes", "waits for", "reads")
WIDTHS = (6, 6, 4, 10, 14, 10, 14, 12, 0)


def listing(draft: Draft) -> str:
    """The schedule of every model, one line per instruction."""
    config = draft.contents.config
    allocate([m.schedule for m in draft.models], config)
    lines = [f"; {config.name}: {_spread(draft.spread, config)}"]
    first = 0
    for model in draft.models:
        lines += [f"; model {model.name!r}", ";" + _columns(HEAD)[1:], *_instructions(model, config, first)]
        first += len(model.schedule.ops)
    return "\n".join(lines) + "\n"


def _spread(spread: Spread, config: Config) -> str:
    """How the models are spread over the cores, in words."""
    said = [f"{spread.cores or config.cores} of {config.cores} cores"]
    if spread.grain:
        said.append(f"products in bands of {spread.grain} rows per core")
    if spread.lending:
        said.append("products of the state lent to other cores")
    if spread.rotate:
        said.append("rows that are left over rotated over the cores")
    return ", ".join(said)


def _instructions(model: LoweredModel, config: Config, first: int) -> Iterator[str]:
    depth = 0
    ops = model.schedule.ops
    for index, (op, plan) in enumerate(zip(ops, planned(ops, config), strict=True), first):
        depth -= op.name == "end"
        columns = _line(op, plan, config, "  " * depth, first)
        line = _columns((str(index), *columns))
        yield f"{line}  ; {op.source}" if op.source else line.rstrip()
        depth += op.name == "loop"


def _line(op: Op, plan: Planned | None, config: Config, indent: str, first: int) -> tuple[str, ...]:
    """The columns behind the index."""
    if plan is None:
        times = f" {op.operands['count']} times" if op.name == "loop" else ""
        return "", "all", "control", f"{indent}{op.name}{times}", "", "", "", ""
    waits = " ".join(str(first + position) for position in plan.waits)
    writes, reads = _rows(op, config, write=True), _rows(op, config, write=False)
    return (
        str(plan.start),
        f"c{op.core}",
        op.row_of_table.unit,
        indent + op.name,
        op.operation,
        writes,
        waits,
        reads,
    )


def _rows(op: Op, config: Config, write: bool) -> str:
    """The rows that an instruction writes, or reads, one range per operand."""
    levels = [ref.level for ref in op.refs(write)]
    found = []
    for touch, level in zip(touches(op, config, 1, write), levels, strict=True):
        base = touch.buffer.row
        advances = f"@{level}" if level else ""
        found.append(f"{base + touch.low}:{base + touch.high + 1}{advances}")
    return " ".join(found)


def _columns(values: tuple[str, ...]) -> str:
    """Index and start to the right, the rest to the left; a value that is too wide pushes the others."""
    padded = (
        f"{v:>{w}}" if i < 2 else f"{v:<{w}}" for i, (v, w) in enumerate(zip(values, WIDTHS, strict=True))
    )
    return " ".join(padded)
