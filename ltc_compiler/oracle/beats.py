"""The beats that an instruction consists of.

Each iteration pattern of the instruction table is a generator of beats, which is told in return the cycle at which
each of them started. clock.py decides that cycle, and walks a whole program.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Generator
from dataclasses import dataclass, field
from typing import NamedTuple

from ltc_compiler import isa
from ltc_compiler.bytecode import Image, Instr
from ltc_compiler.bytecode.cost import latency, occupancy, slots_walked
from ltc_compiler.config import Config
from ltc_compiler.oracle.host_port import HostPort


class Beat(NamedTuple):
    """What a beat reads and writes, a row for each field; the cycle that it must wait for; the cycles that it takes."""

    reads: dict[str, int] = {}  # noqa: RUF012 - nothing changes it
    writes: dict[str, int] = {}  # noqa: RUF012
    after: int = 0
    hold: int = 1


Beats = Generator[Beat, int, None]  # yields a beat, is sent the cycle at which it started


@dataclass
class Link:
    """The FIFO from one core to another: when each row that ever went through could be popped, and was."""

    arrivals: list[int]
    pops: list[int]


@dataclass
class Outside:
    """What the beats of one instruction share with those of others, apart from rows and units."""

    image: Image
    offered: dict[int, int]  # by input port: the cycle at which the host has its first row
    links: defaultdict[tuple[int, int], Link] = field(
        default_factory=lambda: defaultdict(lambda: Link([], []))
    )
    last_in: int = 0  # start of the last beat that took a row in
    host: HostPort = field(init=False)

    def __post_init__(self) -> None:
        self.host = HostPort(self.image.config.output_rows)


class Context(NamedTuple):
    """What a pattern sees of one executed instruction."""

    outside: Outside
    instr: Instr
    counters: list[int]

    @property
    def config(self) -> Config:
        return self.outside.image.config

    def n(self, name: str) -> int:
        return self.instr.number(name)

    def row(self, name: str) -> int:
        return self.instr.row(name).at(self.counters)


def _elementwise(c: Context) -> Beats:
    hold = occupancy(c.instr, c.config)
    names = [a.field for a in c.instr.row_of_table.format.accesses]
    grids = {f: (c.row(f), c.n(f"{f}_outer"), c.n(f"{f}_inner")) for f in names}
    for o in range(c.n("n_outer")):
        for i in range(c.n("n_inner")):
            rows = {f: base + o * outer + i * inner for f, (base, outer, inner) in grids.items()}
            dst = {"dst": rows.pop("dst")}
            yield Beat(rows, dst, hold=hold)


def _row_reduce(c: Context) -> Beats:
    rows = c.config.block_rows(c.n("k"))
    period = max(1, 128 // c.config.block_size)  # rows after which the same accumulators are used again
    spacing = 2 * c.config.latency.accumulate_reduce  # a row adds to each of its accumulators twice
    for g in range(c.n("groups")):
        src, dst = c.row("src") + g * c.n("src_step"), c.row("dst") + g * c.n("dst_step")
        started: list[int] = []
        for j in range(rows):
            after = started[j - period] + spacing if j >= period else 0
            started.append((yield Beat({"src": src + j}, {"dst": dst} if j == rows - 1 else {}, after)))


def _column_reduce(c: Context) -> Beats:
    spacing = c.config.latency.accumulate_reduce
    for i in range(c.n("n_inner")):
        started: list[int] = []
        for kk in range(c.n("k")):
            before = kk - (1 if kk % 2 else 127)  # the element that was added to the same accumulator last
            after = started[before] + spacing if before >= 0 else 0
            row = c.row("src") + kk * c.n("k_step") + i
            writes = {"dst": c.row("dst") + i} if kk == c.n("k") - 1 else {}
            started.append((yield Beat({"src": row}, writes, after)))


def _product(c: Context) -> Beats:
    spacing = c.config.latency.accumulate_reduce
    for i in range(c.n("n_i")):
        for r in range(c.n("n_inner")):
            started: list[int] = []
            for j in range(c.n("n_j")):
                lane = i * c.n("lane_i") + j * c.n("lane_j")
                reads = {
                    "a": c.row("a") + i * c.n("a_i") + j * c.n("a_j") + lane // c.config.block_size,
                    "b": c.row("b") + j * c.n("b_j") + r,
                }
                writes = {}
                if j == c.n("n_j") - 1:
                    reads["addend"] = c.row("addend") + i * c.n("addend_i") + r
                    writes["dst"] = c.row("dst") + i * c.n("dst_i") + r
                before = j - (1 if j % 2 else 127)  # the term that was added to the same accumulator last
                after = started[before] + spacing if before >= 0 else 0
                started.append((yield Beat(reads, writes, after)))


def _dot(c: Context) -> Beats:
    rows = c.config.block_rows(c.n("k"))
    period = max(1, 128 // c.config.block_size)  # rows after which the same accumulators are used again
    spacing = 2 * c.config.latency.accumulate_reduce
    for i in range(c.n("n_i")):
        for j in range(c.n("n_j")):
            ends = j == c.n("n_j") - 1 or (j + 1) % c.config.block_size == 0  # a row of the result is full
            a, b = c.row("a") + i * c.n("a_i"), c.row("b") + j * c.n("b_j")
            started: list[int] = []
            for r in range(rows):
                reads, writes = {"a": a + r, "b": b + r}, {}
                if ends and r == rows - 1:
                    full = j // c.config.block_size
                    reads["addend"] = c.row("addend") + i * c.n("addend_i") + full
                    writes["dst"] = c.row("dst") + i * c.n("dst_i") + full
                after = started[r - period] + spacing if r >= period else 0
                started.append((yield Beat(reads, writes, after)))


def _matrix(c: Context) -> Beats:
    across = c.config.block_rows(c.n("k"))
    rows = c.n("taps") * across
    hold = occupancy(c.instr, c.config)
    period = max(1, 128 // c.config.block_size)  # input rows after which the same accumulators are used again
    spacing = 2 * c.config.latency.accumulate  # a block adds to each of its accumulators twice
    for b in range(c.n("batch")):
        x, bias, dst = (c.row(name) + b * c.n(f"{name}_step") for name in ("x", "bias", "dst"))
        for first in range(0, c.n("m_rows"), c.config.accumulators):
            group = range(first, min(first + c.config.accumulators, c.n("m_rows")))
            started: dict[tuple[int, int], int] = {}
            for i in range(rows):
                read = x + i // across * c.n("tap_step") + i % across
                for o in group:
                    after = started[o, i - period] + spacing if i >= period else 0
                    if i < rows - 1:
                        started[o, i] = yield Beat({"x": read}, {}, after, hold)
                    else:
                        yield Beat({"x": read, "bias": bias + o}, {"dst": dst + o}, after, hold)


def _synapse(c: Context) -> Beats:
    hold = occupancy(c.instr, c.config)
    for j in range(c.n("v_rows")):
        yield Beat({"v": c.row("v") + j})
    core = c.outside.image.cores[c.instr.core]
    for t, slots in enumerate(slots_walked(core, c.n("slots"), c.n("targets"))):
        for _ in range(slots - 1):
            yield Beat(hold=hold)
        yield Beat({}, {"num": c.row("num") + t, "den": c.row("den") + t}, hold=hold)


def _update(c: Context) -> Beats:
    for i in range(c.n("n")):

        def rows(*names: str, i: int = i) -> dict[str, int]:
            return {name: c.row(name) + i * c.n(f"{name}_step") for name in names}

        yield Beat(rows("v", "cm", "h"))
        yield Beat(rows("leak", "conductance"))
        yield Beat(rows("num", "den"), rows("dst"))


def _gather(c: Context) -> Beats:
    entries = c.outside.image.cores[c.instr.core].entries
    for e in range(c.n("entries"), c.n("entries") + c.n("count")):
        yield Beat({"src": c.row("src") + int(entries.src[e])}, {"dst": c.row("dst") + int(entries.dst[e])})


def _transpose(c: Context) -> Beats:
    for i in range(c.n("src_rows")):
        yield Beat({"src": c.row("src") + i * c.n("src_step")})
    for j in range(c.n("dst_rows")):
        yield Beat({}, {"dst": c.row("dst") + j * c.n("dst_step")})


def _send(c: Context) -> Beats:
    links = [c.outside.links[c.instr.core, t] for t in range(c.config.cores) if c.n("targets") >> t & 1]
    for j in range(c.n("rows")):
        after = 0
        for link in links:
            freed_by = len(link.arrivals) - c.config.link_fifo_rows  # the row whose place this one takes
            if freed_by >= 0:
                after = max(after, link.pops[freed_by] + 1)
        start = yield Beat({"src": c.row("src") + j}, after=after)
        for link in links:
            link.arrivals.append(start + latency(c.instr, c.config))


def _receive(c: Context) -> Beats:
    link = c.outside.links[c.n("source"), c.instr.core]
    for j in range(c.n("rows")):
        start = yield Beat({}, {"dst": c.row("dst") + j}, link.arrivals[len(link.pops)])
        link.pops.append(start)


def _input(c: Context) -> Beats:
    offered = c.outside.offered[c.n("port")] + c.n("first")
    for j in range(c.n("rows")):
        start = yield Beat({}, {"dst": c.row("dst") + j}, offered + j)
        c.outside.last_in = max(c.outside.last_in, start)


def _output(c: Context) -> Beats:
    host, way = c.outside.host, latency(c.instr, c.config)
    for j in range(c.n("rows")):
        start = yield Beat({"src": c.row("src") + j}, after=host.earliest(c.instr.core, way))
        host.put(c.instr.core, start + way)


PATTERNS: dict[str, Callable[[Context], Beats]] = {
    "elementwise": _elementwise,
    "row_reduce": _row_reduce,
    "column_reduce": _column_reduce,
    "product": _product,
    "dot": _dot,
    "matrix": _matrix,
    "synapse": _synapse,
    "update": _update,
    "gather": _gather,
    "transpose": _transpose,
    "send": _send,
    "receive": _receive,
    "input": _input,
    "output": _output,
}
if missing := {f.pattern for f in isa.FORMATS} - set(PATTERNS) - {"loop", "end"}:
    raise ImportError(f"patterns of the instruction table without beats: {sorted(missing)}")
