"""The rows of a report: what each op, source line, instruction and unit costs.

Executions are added up once for each instruction; every table is a grouping of those sums. COLUMNS declares what a row
holds, and text, CSV, JSON and HTML are loops over it.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from ltc_compiler import isa
from ltc_compiler.report.events import Code, Event
from ltc_compiler.report.flow import Segment
from ltc_compiler.report.origins import Origin

Row = dict[str, Any]

COLUMNS = {
    "op": "operation of the graph; input, output and state where the host's data or the state is moved",
    "module": "path of the module in the model",
    "file": "of the user's source",
    "line": "in that file; 0 where it is not known",
    "text": "of that line",
    "executions": "executed instructions, over all iterations and cores",
    "critical": "cycles on the critical path; over all rows they add up to the whole inference",
    "share": "of all critical cycles, from 0 to 1",
    "busy": "cycles that beats hold a unit, over all cores",
    "stalled": "cycles that units were kept waiting, by operands, links, ports, the host or what is still to be read",
    "bound_by": "what most of its critical cycles went to; off the critical path, the most of busy cycles and waiting",
    "units": "that it runs on",
    "cores": "that it runs on",
    "precision": "of its arithmetic; empty for what only moves data",
    "read_bytes": "from the stores of its cores",
    "written_bytes": "to the tensor stores of its cores",
}


@dataclass
class Tally:
    """Sums over the executions of one instruction."""

    executions: int = 0
    critical: int = 0
    busy: int = 0
    lost: Counter[str] = field(default_factory=Counter)  # cycles by the cause of the stall
    parts: Counter[str] = field(default_factory=Counter)  # the critical cycles by what they went to
    cores: set[int] = field(default_factory=set)


def tallies(events: Sequence[Event], stalls: Sequence[str], path: Iterable[Segment]) -> dict[int, Tally]:
    """A tally for every instruction that was executed, by its index in the code."""
    found: defaultdict[int, Tally] = defaultdict(Tally)
    for event, stall in zip(events, stalls, strict=True):
        tally = found[event.index]
        tally.executions += 1
        tally.busy += event.busy
        tally.lost[stall] += event.felt
        if event.busy:  # every core executes the loops, even one that is idle
            tally.cores.add(event.core)
    for segment in path:
        tally = found[events[segment.event].index]
        tally.critical += segment.cycles
        tally.parts.update(segment.parts)
    return dict(sorted(found.items()))


def table(
    code: Code, found: dict[int, Tally], places: Sequence[Origin], key: Callable[[int], Hashable]
) -> list[Row]:
    """A row for each group of instructions with one key, those with the most critical cycles first."""
    groups: defaultdict[Hashable, list[int]] = defaultdict(list)
    for index in found:
        groups[key(index)].append(index)
    whole = sum(tally.critical for tally in found.values()) or 1
    rows = [_row(code, found, places, indices, whole) for indices in groups.values()]
    return sorted(rows, key=lambda row: (-row["critical"], -row["busy"]))


def instruction_table(code: Code, found: dict[int, Tally], places: Sequence[Origin]) -> list[Row]:
    """A row for each executed instruction, in program order, with its "index" and "instruction" in front."""
    whole = sum(tally.critical for tally in found.values()) or 1
    return [
        {"index": index, "instruction": code[index].name, **_row(code, found, places, [index], whole)}
        for index in found
    ]


def _row(
    code: Code, found: dict[int, Tally], places: Sequence[Origin], indices: Sequence[int], whole: int
) -> Row:
    group = [found[i] for i in indices]
    traffic = [(code.traffic(i), found[i].executions) for i in indices]
    first = places[indices[0]]
    critical = sum(tally.critical for tally in group)
    values = {
        "op": listed(places[i].op for i in indices),
        "module": listed(places[i].module for i in indices),
        "file": first.file,
        "line": first.line,
        "text": first.text,
        "executions": sum(tally.executions for tally in group),
        "critical": critical,
        "share": critical / whole,
        "busy": sum(tally.busy for tally in group),
        "stalled": sum(tally.lost.total() for tally in group),
        "bound_by": _bound_by(group),
        "units": listed(code.unit(i) for i in indices),
        "cores": listed(str(core) for core in sorted(set().union(*(tally.cores for tally in group)))),
        "precision": listed(_precision(code, i) for i in indices),
        "read_bytes": sum(t.read * n for t, n in traffic),
        "written_bytes": sum(t.written * n for t, n in traffic),
    }
    return {column: values[column] for column in COLUMNS}


def origin_of(row: Row) -> Origin:
    """The source that a row of the table by op stands for."""
    return Origin(*(row[field] for field in Origin._fields))


def unit_table(code: Code, events: Sequence[Event], cycles: int) -> list[Row]:
    """For each core and unit that is used: its executions and busy cycles, and their part of `cycles`.

    Only what starts at the arrival of the host's data or later is counted: the rest was done ahead.
    """
    work: defaultdict[tuple[int, int], list[int]] = defaultdict(list)
    for event in events:
        unit = code.unit(event.index)
        if event.start >= 0 and unit != "control":
            work[event.core, isa.UNITS.index(unit)].append(event.busy)
    return [
        {
            "core": core,
            "unit": isa.UNITS[unit],
            "executions": len(busy),
            "busy": sum(busy),
            "utilisation": sum(busy) / max(1, cycles),
        }
        for (core, unit), busy in sorted(work.items())
    ]


def _bound_by(group: Sequence[Tally]) -> str:
    """The kind that most critical cycles went to; of a group without any, the most of busy and lost cycles."""
    costs: Counter[str] = Counter()
    for tally in group:
        costs.update(tally.parts)
    if not costs:
        costs["unit"] = sum(tally.busy for tally in group)
        for tally in group:
            costs.update(tally.lost)
    cause, cycles = max(costs.items(), key=lambda item: item[1])
    return cause if cycles else "issue"


def _precision(code: Code, index: int) -> str:
    """The format in which an instruction multiplies, or rounds its results; "" for one that only moves data."""
    instr = code[index]
    if code.unit(index) == "matrix":
        return "fp32" if instr.name == "matmul_fp32" else "bf16"
    if code.unit(index) == "move" or "precision" not in instr.operands:
        return ""
    return isa.PRECISIONS[instr.number("precision")]


def listed(names: Iterable[str]) -> str:
    """The different names that are not empty, in order of appearance."""
    return ", ".join(dict.fromkeys(name for name in names if name))
