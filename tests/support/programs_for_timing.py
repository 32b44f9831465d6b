"""Small programs for the tests of the clock: written by hand in a line each, or drawn at random.

The stores hold nothing but what timing depends on: which slots are last, which rows gather entries touch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from hypothesis import strategies as st

from ltc_compiler import _core, isa
from ltc_compiler.bytecode import (
    CoreImage,
    EntryArrays,
    Image,
    Instr,
    Model,
    Port,
    Ring,
    Row,
    SlotArrays,
    State,
    disassemble,
)
from ltc_compiler.config import Config, Latencies
from ltc_compiler.oracle.clock import CycleReport, estimate

# All that are written here are different where a wrong class could show, and so are those that are not.
_BY_HAND = {
    "issue": 1, "add": 6, "mul": 5, "div": 20, "sqrt": 19, "compare": 3, "move": 4, "gather": 9, "activation": 7,
    "activation_fp32": 45, "rsqrt": 35, "accumulate": 4, "accumulate_reduce": 1, "matrix": 28, "reduce": 30,
    "product": 40, "synapse": 31, "synapse_fp32": 61, "update": 37, "link": 12, "io_in": 8, "io_out": 10, "crossing": 3,
}  # fmt: skip
LATENCY = Latencies(**({name: 100 + n for n, name in enumerate(isa.LATENCIES)} | _BY_HAND))
ROWS = 512  # of a test core's tensor store
IN, OUT = 3, 2  # rows of the ports of a random model


def machine(cores: int = 1, block_size: int = 8, **changes: Any) -> Config:
    """A test machine; `changes` are fields of Config, or of its latency table."""
    names = set(LATENCY.__dataclass_fields__)
    latency = replace(LATENCY, **{k: v for k, v in changes.items() if k in names})
    rest = {k: v for k, v in changes.items() if k not in names}
    base = replace(
        Config.tiny_c2b8(), name="timing", issue_queue=1, cores=cores, block_size=block_size, latency=latency
    )
    return replace(base, **rest)


def op(name: str, core: int = 0, **given: Any) -> Instr:
    """An instruction; what is not given is plain: count 1, inner step 1, other step 0, fp32."""
    row = isa.BY_NAME[name]
    operands: dict[str, Any] = {}
    for f in row.format.fields:
        default = (
            1
            if (f.kind == "u32" and f.name not in ("first", "lane_i", "lane_j")) or f.name.endswith("_inner")
            else 0
        )
        value = given.pop(f.name, default)
        operands[f.name] = isa.PRECISIONS.index(value) if value in isa.PRECISIONS else value
    assert not given, f"{name} has no {sorted(given)}"
    return Instr(name, isa.ALL_CORES if row.unit == "control" else core, operands)


def image(
    config: Config,
    code: Sequence[Instr],
    *,
    last: Sequence[int] = (),
    entries: Sequence[tuple[int, int]] = (),
    inputs: Sequence[int] = (),
    outputs: Sequence[int] = (),
    states: range = range(0),
    rings: Sequence[Ring] = (),
) -> Image:
    """A program of one model.

    last: the marks of the synapse store; entries: (src, dst) of the gather store; inputs, outputs: rows of ports;
    states: rows of states on every core, of which some may be rings.
    """
    B = config.block_size
    zero = np.zeros((len(last), B), np.float32)
    nobody = np.full((len(last), B), isa.ABSENT, np.uint16)
    slots = SlotArrays(nobody, zero, zero, zero, zero, np.array(last, np.bool_))
    src, dst = np.array(entries, np.int32).reshape(-1, 2).T
    lane = np.zeros((len(entries), B), np.uint16)
    gather = EntryArrays(src, dst, np.zeros(len(entries), np.bool_), lane)
    core = CoreImage(ROWS, [], np.zeros((128, B, B), np.uint16), slots, gather)
    xs = tuple(Port(f"x{i}", (rows, B)) for i, rows in enumerate(inputs))
    ys = tuple(Port(f"y{i}", (rows, B)) for i, rows in enumerate(outputs))
    kept = [State(f"s{c}_{row}", (B,), c, row) for c in range(config.cores) for row in states]
    model = Model("m", 0, len(code), xs, ys, tuple(kept), tuple(rings))
    return Image(config, list(code), [core] * config.cores, [model])


def simulated(program: Image, arrival: int = 0, model_index: int = 0, inferences: int = 1) -> CycleReport:
    """The simulator's count."""
    parsed = _core.Program.parse(program.to_bytes())
    raw: dict[str, Any] = _core.cycles(parsed, model_index, arrival, inferences)
    raw["busy"] = tuple(tuple(units) for units in raw["busy"])
    return CycleReport(**raw)


def transfer(rows: int, source: int = 0, targets: Sequence[int] = (1,)) -> list[Instr]:
    """Rows from 0 on of a core to rows from 100 on of others."""
    mask = sum(1 << t for t in targets)
    receives = [op("receive", t, dst=100, rows=rows, source=source) for t in targets]
    return [op("send", source, src=0, rows=rows, targets=mask), *receives]


def both(program: Image, arrival: int = 0) -> CycleReport:
    """The count of the simulator and of the estimate, which must be equal."""
    report = simulated(program, arrival)
    assert report == estimate(program, 0, arrival)
    return report


# ---- random programs -------------------------------------------------------------------------------------------

# Few rows, so that instructions meet on them: two regions, since what a matmul or gather writes must not overlap
# what it reads. From its base an operand reaches 15 rows or less to either side, and 9 more by a stride.
# A third holds states, which may turn as rings: they are read by all, and written by state_write.
_REGIONS = (32, 96)  # bases are drawn from the 16 rows from here on
_STATES = range(160, 224)
_READ = (*_REGIONS, _STATES.start + 24)
_PLAIN = [
    i.name
    for i in isa.INSTRUCTIONS
    if i.unit in ("matrix", "vector", "activation", "synapse", "reduce", "move") and i.name != "state_write"
]
_STORE_LAST = (0, 1, 1, 0, 0, 1, 0, 1)
_STORE_ENTRIES = ((0, 0), (3, 1), (1, 1), (2, 3), (0, 2))


class _Draw:
    """Draws instructions that a loader accepts, given the loops that stand around them."""

    def __init__(self, draw: st.DrawFn, config: Config) -> None:
        self.draw = draw
        self.config = config

    def number(self, low: int, high: int) -> int:
        return self.draw(st.integers(low, high))

    def row(self, depth: int, regions: Sequence[int] = _REGIONS) -> Row:
        low = self.draw(st.sampled_from(regions))
        level = self.number(0, depth)
        return Row(self.number(low, low + 15), self.number(-3, 3) if level else 0, level)

    def block(self, depth: int, budget: int) -> list[Instr]:
        """Up to `budget` items: instructions, loops around blocks, sends and later their receives."""
        code: list[Instr] = []
        for _ in range(self.number(1, budget)):
            kind = self.number(0, 9)
            if kind == 0 and depth < isa.MAX_LOOP_DEPTH and budget > 1:
                code += [op("loop", count=self.number(1, 4)), *self.block(depth + 1, budget // 2), op("end")]
            elif kind in (1, 2) and self.config.cores > 1:
                code += self.transfer(depth, budget)
            elif kind == 3:
                code.append(self.plain(depth, "state_write"))
            else:
                code.append(self.plain(depth))
        return code

    def transfer(self, depth: int, budget: int) -> list[Instr]:
        cores = range(self.config.cores)
        sender = self.draw(st.sampled_from(cores))
        targets = self.draw(st.sets(st.sampled_from([c for c in cores if c != sender]), min_size=1))
        rows = self.number(1, min(3, self.config.link_fifo_rows))
        mask = sum(1 << t for t in targets)
        between = [self.plain(depth) for _ in range(self.number(0, budget // 2))]
        receives = [op("receive", t, dst=self.row(depth), rows=rows, source=sender) for t in targets]
        return [op("send", sender, src=self.row(depth, _READ), rows=rows, targets=mask), *between, *receives]

    def plain(self, depth: int, name: str = "") -> Instr:
        name = name or self.draw(st.sampled_from(_PLAIN))
        row = isa.BY_NAME[name]
        apart = ("matrix", "synapse", "gather", "transpose", "product", "dot")
        region = self.number(0, 1) if row.format.pattern in apart else None
        fields = {f.name: self.operand(name, f, depth, region) for f in row.format.fields}
        return Instr(name, self.number(0, self.config.cores - 1), fields)

    def operand(self, name: str, f: isa.Field, depth: int, region: int | None) -> Any:
        if f.kind == "row":
            if name == "state_write" and f.name == "dst":
                return self.row(depth, _READ[-1:])
            if region is None:
                return self.row(depth, _REGIONS if f.name == "dst" else _READ)
            writes = f.name in ("dst", "num")
            return self.row(
                depth,
                (_REGIONS[region],) if writes else (_REGIONS[1 - region], *_READ[2 + (f.name == "den") :]),
            )
        match f.name:
            case "k" if not name.startswith("column"):
                return self.number(1, 5 * self.config.block_size)
            case "slots" | "entries" | "lane" | "weights":
                return 0
            case "targets":
                return self.number(1, sum(_STORE_LAST))
            case "a_lanes":
                return 13  # two steps of i and two of j, of three lanes each, and the first
            case "count":
                return self.number(1, len(_STORE_ENTRIES))
            case "dst_rows" | "src_rows":
                return 4
            case "precision":
                return self.number(0, 1)
        if f.kind == "flag":
            return self.number(0, 1)
        return self.number(1, 3) if f.kind == "u32" else self.number(-2, 3)


@dataclass(frozen=True)
class Drawn:
    """A random program, which prints as its code."""

    config: Config
    code: list[Instr]
    rings: list[Ring]
    outputs: int  # ports, of OUT rows each

    def image(self) -> Image:
        stores: Any = {"last": _STORE_LAST, "entries": _STORE_ENTRIES, "states": _STATES, "rings": self.rings}
        return image(self.config, self.code, inputs=[IN], outputs=[OUT] * self.outputs, **stores)

    def __repr__(self) -> str:
        return f"\n{self.config}\n{self.rings}\n{disassemble(self.code)}"


@st.composite
def programs(draw: st.DrawFn) -> Drawn:
    """Random programs with loops, links, hazards, an input, outputs of some cores, on machines with random figures."""
    latency = {name: draw(st.integers(1, 9)) for name in LATENCY.__dataclass_fields__}
    config = machine(
        cores=draw(st.integers(1, 3)),
        block_size=draw(st.sampled_from((4, 8, 16, 64, 128))),
        read_ports=draw(st.sampled_from((3, 4, 16))),
        accumulators=draw(st.integers(1, 3)),
        link_fifo_rows=draw(st.integers(1, 4)),
        issue_queue=draw(st.integers(1, 4)),
        fp32_beats=draw(st.integers(1, 4)),
        output_rows=draw(st.integers(2 * OUT, 4 * OUT)),
        **latency,
    )
    d = _Draw(draw, config)
    core = d.number(0, config.cores - 1)
    senders = draw(st.lists(st.sampled_from(range(config.cores)), min_size=1, unique=True))
    outputs = [
        i for port, c in enumerate(senders)
        for i in (op("output", c, src=d.row(0, _READ), rows=OUT, port=port), *(d.block(0, 1) if d.number(0, 1) else ()))
    ]  # fmt: skip
    code = [
        *d.block(0, 2),
        op("input", core, dst=d.row(0), rows=IN),
        *d.block(0, 8),
        *([op("loop", count=2), *outputs, op("end")] if d.number(0, 2) == 0 else outputs),
        *d.block(0, 2),
    ]
    rings = []
    for turning in range(config.cores):
        rows = draw(st.sampled_from((0, 1, 2, 4, 8, 16)))
        if rows:
            places = len(_STATES) // rows
            rings.append(Ring(turning, _STATES.start, places, rows, d.number(1, min(3, places - 1))))
    return Drawn(config, code, rings, len(senders))
