"""Programs drawn at random over the whole instruction table, for VM against oracle.

Every instruction is drawn by a walk over its row of the table, so a new row is drawn too. A core's tensor store is
cut into regions: instructions write to LOW and HIGH, state_write to STATE and, where the state of another core has a
copy there, to COPY, nothing to CONSTANT; those that may not read what they write (matmul, gather, the two sums of a
synapse) write to LOW alone and read elsewhere. Beside the ports of whole rows there are one of vectors of any width,
read and written whole, a vector or some rows at a time, and perhaps an elapsed time. A state, or its copy, may be a
ring. At the end every row of every core
goes to an output, so that a comparison of outputs compares everything that was written.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from ltc_compiler import isa, numerics
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
)
from ltc_compiler.config import Config

LOW, HIGH, CONSTANT, STATE, COPY = range(12), range(12, 24), range(24, 32), range(32, 40), range(40, 48)
ROWS = 48
BLOCKS, SLOTS, ENTRIES = 40, 24, 16
FIFO = 6
CONTROL = ("loop", "end", "send", "receive", "input", "output")
DRAWN = tuple(name for name in isa.BY_NAME if name not in CONTROL)
APART = ("Matmul", "Gather", "Transpose", "Synapse", "WeightedSum", "Dot")
TIED = np.array([0x00000000, 0x80000000, 0x3F800000, 0xBF800000, 0x3F000000], np.uint32)
WIDTHS = (4, 8, 16, 32, 64, 128)  # from 64 on, accumulators are used more than once
SPECIALS = np.array(
    [0x00000000, 0x80000000, 0x3F800000, 0xBF800000, 0x7F800000, 0xFF800000, 0x7FC00000, 0x7F800001, 0xFFFFFFFF,
     0x00000001, 0x807FFFFF, 0x00800000, 0x80800000, 0x7F7FFFFF, 0xFF7FFFFF, 0x3F808000, 0x3F818000, 0x7F7F8000,
     0x42B17218, 0xC2AEAC50, 0x3F008000, 0x33800000],
    np.uint32,
)  # fmt: skip


def op(name: str, core: int = 0, **given: int | Row) -> Instr:
    """An instruction by hand; a field not given gets the plainest value: count 1, inner step 1, else 0."""
    row = isa.BY_NAME[name]
    operands: dict[str, int | Row] = {}
    for f in row.format.fields:
        plainest = (
            1
            if (f.kind == "u32" and f.name not in ("first", "lane_i", "lane_j")) or f.name.endswith("_inner")
            else 0
        )
        operands[f.name] = given.pop(f.name, plainest)
    assert not given, f"{name} has no {sorted(given)}"
    return Instr(name, isa.ALL_CORES if row.unit == "control" else core, operands)


def values(rng: np.random.Generator, shape: tuple[int, ...]) -> NDArray[np.float32]:
    """fp32 bit patterns. Most rows hold numbers of moderate size, whose sums show every rounding and every order;
    others hold few different values, for ties, or special and arbitrary bits, which soon make NaN of everything.
    """
    moderate = (rng.standard_normal(shape) * 2.0 ** rng.integers(-6, 6, shape)).astype(np.float32)
    tied = rng.choice(TIED, shape).view(np.float32)
    special = rng.choice(SPECIALS, shape).view(np.float32)
    arbitrary = rng.integers(0, 2**32, shape, np.uint32).view(np.float32)
    strange = np.where(
        rng.random(shape) < 0.3, np.where(rng.random(shape) < 0.5, special, arbitrary), moderate
    )
    kind = rng.choice(4, (*shape[:-1], 1) if shape else (), p=(0.5, 0.15, 0.15, 0.2))
    kind = np.broadcast_to(kind, shape)
    return np.choose(kind, [moderate, numerics.to_bf16(moderate), tied, strange]).astype(np.float32)


def inputs_of(rng: np.random.Generator, model: Model) -> list[NDArray[np.float32]]:
    """Inputs of a run: any bit patterns, but elapsed times that are not refused."""
    return [
        np.array(rng.uniform(0, 2, port.shape), np.float32)
        if port.role == "elapsed_time"
        else values(rng, port.shape)
        for port in model.inputs
    ]


def draw(seed: int, size: int = 30, names: Sequence[str] = DRAWN, whole_rows: bool = True) -> Image:
    """A program of one model with about `size` instructions, most of them from `names`.

    whole_rows: False for outputs of the first lanes of each row alone, so that many lanes are read by nothing.
    """
    rng = np.random.default_rng(seed)
    width = int(rng.choice(WIDTHS, p=(0.2, 0.2, 0.2, 0.2, 0.15, 0.05)))
    cores = int(rng.integers(1, 4))
    config = replace(
        Config.tiny_c2b8(),
        name="random",
        cores=cores,
        block_size=width,
        link_fifo_rows=FIFO,
        tensor_rows=ROWS,
    )
    stores = [_core(rng, width) for _ in range(cores)]
    formats = [str(rng.choice(isa.PRECISIONS)) for _ in range(cores + 1)]
    inputs = [Port(f"x{c}", (24, width), precision=formats[c]) for c in range(cores)]
    inputs.append(Port("narrow", _narrow(rng, width), precision=formats[cores]))
    if rng.random() < 0.5:
        inputs.append(Port("elapsed", (), role="elapsed_time"))
    read = [width] * cores if whole_rows else np.random.default_rng(seed).integers(1, width + 1, cores)
    outputs = [Port(f"y{c}", (ROWS, int(read[c]))) for c in range(cores)]
    outputs.append(Port("narrow", _narrow(rng, width)))
    places = [int(c) for c in rng.permutation(cores)]  # of the copy of each core's state
    copied = rng.random(cores) < 0.6
    copies = {places[c] for c in range(cores) if copied[c]}
    rings = _rings(np.random.default_rng([seed, 1]), cores, copies)
    writer = _Writer(rng, config, names, inputs, outputs, copies, rings)
    for core in range(cores):
        writer.emit("input", core, dst=Row(0), rows=len(LOW) + len(HIGH), port=core, first=0)
    while len(writer.code) < size or writer.counts:
        writer.next_instruction(closing=len(writer.code) >= size)
    for core in range(cores):
        for rows in segments(rings, core):
            writer.emit("output", core, src=Row(rows.start), rows=len(rows), port=core, first=rows.start)
    writer.emit("output", 0, src=Row(0), rows=outputs[cores].rows(width), port=cores, first=0)
    states = [
        State(f"s{c}", (2, 2, 2 * width - 1), c, STATE.start, ((places[c], COPY.start),) if copied[c] else ())
        for c in range(cores)
    ]
    model = Model("random", 0, len(writer.code), tuple(inputs), tuple(outputs), tuple(states), tuple(rings))
    return Image(config, writer.code, stores, [model])


def _rings(rng: np.random.Generator, cores: int, copies: set[int]) -> list[Ring]:
    """Some of the states and their copies, as rings of any shape. They are drawn apart from all else."""
    found = []
    for core in range(cores):
        for region in (STATE, COPY) if core in copies else (STATE,):
            if rng.random() < 0.4:
                rows = int(rng.choice((1, 2, 4)))
                places = len(region) // rows
                found.append(Ring(core, region.start, places, rows, int(rng.integers(1, places))))
    return found


def segments(rings: Sequence[Ring], core: int) -> list[range]:
    """The rows of a core, cut at the ends of its rings: what an instruction reaches lies in one of them."""
    ends = {row for ring in rings if ring.core == core for row in (ring.row, ring.end)}
    cuts = sorted({0, *ends, ROWS})
    return [range(a, b) for a, b in pairwise(cuts)]


def _narrow(rng: np.random.Generator, width: int) -> tuple[int, int]:
    """A few vectors of up to three rows each, the last of which is seldom full."""
    across = int(rng.integers(1, 4))
    return int(rng.integers(1, 4)), int(rng.integers((across - 1) * width + 1, across * width + 1))


def _core(rng: np.random.Generator, width: int) -> CoreImage:
    src = rng.integers(0, 2 * width, (SLOTS, width)).astype(np.uint16)
    src[rng.random(src.shape) < 0.3] = isa.ABSENT
    last = rng.random(SLOTS) < 0.4
    last[-4:] = True
    mu, sigma, w, we = (values(rng, (SLOTS, width)) for _ in range(4))
    lane = rng.integers(0, width, (ENTRIES, width)).astype(np.uint16)
    lane[rng.random(lane.shape) < 0.3] = isa.ABSENT
    entries = EntryArrays(
        rng.integers(0, 3, ENTRIES, np.int32), rng.integers(0, 3, ENTRIES, np.int32),
        rng.random(ENTRIES) < 0.5, lane,
    )  # fmt: skip
    weights = (values(rng, (BLOCKS, width, width)).view(np.uint32) >> np.uint32(16)).astype(np.uint16)
    constants = numerics.write_fp32(values(rng, (len(CONSTANT) + len(STATE) + len(COPY), width)))
    return CoreImage(
        ROWS, [(CONSTANT.start, constants)], weights, SlotArrays(src, mu, sigma, w, we, last), entries,
        values(rng, weights.shape), values(rng, (SLOTS, 4, width)),
    )  # fmt: skip


class _Writer:
    """Emits instructions. counts: those of the loops that are open. copies: the cores with a state in COPY. rings: of
    all cores."""

    def __init__(
        self,
        rng: np.random.Generator,
        config: Config,
        names: Sequence[str],
        inputs: Sequence[Port],
        outputs: Sequence[Port],
        copies: set[int],
        rings: Sequence[Ring],
    ) -> None:
        self.rng, self.config, self.names = rng, config, names
        self.inputs, self.outputs, self.copies, self.rings = inputs, outputs, copies, rings
        self.code: list[Instr] = []
        self.counts: list[int] = []

    def emit(self, name: str, core: int, **operands: int | Row) -> None:
        self.code.append(Instr(name, core, operands))

    def next_instruction(self, closing: bool) -> None:
        """One instruction, a whole exchange between cores, or a bracket of a loop."""
        chance = self.rng.random()
        if self.counts and (closing or chance < 0.08):
            self.counts.pop()
            self.emit("end", isa.ALL_CORES)
        elif not closing and chance < 0.18 and len(self.counts) < isa.MAX_LOOP_DEPTH:
            self.counts.append(int(self.rng.integers(1, 4)))
            self.emit("loop", isa.ALL_CORES, count=self.counts[-1])
        elif chance < 0.26 and self.config.cores > 1:
            self.exchange()
        elif chance < 0.32:
            self.port()
        else:
            name, core = str(self.rng.choice(self.names)), int(self.rng.integers(self.config.cores))
            while not self.draw(name, core):
                pass

    def exchange(self) -> None:
        """A send, and a receive on every core that it names."""
        sender = int(self.rng.integers(self.config.cores))
        others = [c for c in range(self.config.cores) if c != sender]
        targets = [c for c in others if self.rng.random() < 0.7] or others[:1]
        rows = int(self.rng.integers(1, FIFO + 1))
        source = self.row(self.readable(sender, 0, rows), 0, rows - 1)
        self.emit("send", sender, src=source, rows=rows, targets=sum(1 << c for c in targets))
        for core in targets:
            self.emit("receive", core, dst=self.row([*LOW, *HIGH], 0, rows - 1), rows=rows, source=sender)

    def port(self) -> None:
        """An input or output of a port of vectors: of all of them, of one, or of some rows of one."""
        rng, width, core = self.rng, self.config.block_size, int(self.rng.integers(self.config.cores))
        reads = rng.random() < 0.6
        ports = self.inputs if reads else self.outputs
        core = core if reads else 0  # an output row has one core, which writes all of it at the end
        number = int(rng.integers(self.config.cores, len(ports)))
        rows, across = ports[number].rows(width), self.config.block_rows((ports[number].shape or (1,))[-1])
        first = 0
        kind = rng.integers(3)
        if kind > 0:
            first, rows = across * int(rng.integers(rows // across)), across
        if kind > 1:
            skipped = int(rng.integers(across))
            first, rows = first + skipped, int(rng.integers(1, across - skipped + 1))
        at = self.row([*LOW, *HIGH] if reads else self.readable(core, 0, rows), 0, rows - 1)
        self.emit(
            "input" if reads else "output",
            core,
            **{"dst" if reads else "src": at},
            rows=rows,
            port=number,
            first=first,
        )

    def draw(self, name: str, core: int) -> bool:
        """Any instruction of DRAWN with operands that the verifier accepts; False if its rows did not fit."""
        row = isa.BY_NAME[name]
        operands: dict[str, int | Row] = {}
        for f in row.format.fields:
            if f.kind != "row":
                operands[f.name] = self.number(row, f, core)
        if row.format.name == "Gather":
            first = operands["entries"]
            assert isinstance(first, int)
            operands["count"] = int(self.rng.integers(1, ENTRIES - first + 1))
        if row.format.pattern == "column_reduce" and operands["k_step"] == 0:
            operands["k"] = int(self.rng.integers(1, 300))
        if row.format.name in ("WeightedSum", "Dot"):
            self.sum_of_products(operands)
        for access in row.format.accesses:
            region = self.region(name, row.format.name, access, core)
            low, high = self.reach(access, operands)
            if high - low >= len(region):
                return False
            operands[access.field] = self.row(region, low, high)
        self.emit(name, core, **operands)
        return True

    def sum_of_products(self, operands: dict[str, int | Row]) -> None:
        """Long sums where no row moves, results of several rows where B is one row, and lanes of A that are there."""
        if operands["b_j"] == 0:
            longest = 2 * self.config.block_size if "k" in operands else 300 if operands["a_j"] == 0 else 3
            operands["n_j"] = int(self.rng.integers(1, longest + 1))
        if "a_lanes" in operands:
            steps = [(operands[f"n_{x}"], operands[f"lane_{x}"]) for x in "ij"]
            last = sum((n - 1) * step for n, step in steps if isinstance(n, int) and isinstance(step, int))
            operands["a_lanes"] = last + int(self.rng.integers(1, 4))

    def number(self, row: isa.Instruction, f: isa.Field, core: int) -> int:
        """A value for a field that is no row, small enough for the regions."""
        rng, width = self.rng, self.config.block_size
        ranges = {
            "precision": (0, 2), "lane": (0, width), "weights": (0, 4), "entries": (0, ENTRIES),
            "slots": (0, SLOTS - 4), "targets": (1, 4), "v_rows": (2, 4), "src_rows": (3, 5), "dst_rows": (3, 5),
            "groups": (1, 4), "batch": (1, 3), "m_rows": (1, 4), "n_outer": (1, 4), "n_inner": (1, 4),
            "lane_i": (0, 3), "lane_j": (0, 3),
        }  # fmt: skip
        if f.name == "k":
            longest = 4 if row.format.pattern == "column_reduce" else 3 * width
            return int(rng.integers(1, longest + 1))
        if f.kind == "i32":
            return int(rng.integers(-2, 3))
        if f.kind == "flag":
            return int(rng.integers(2))
        return int(rng.integers(*ranges.get(f.name, (1, 3))))

    def reach(self, access: isa.Access, operands: dict[str, int | Row]) -> tuple[int, int]:
        """Lowest and highest row relative to the base that the access touches, loops aside."""
        low = high = 0
        for count, step in access.extents:
            n = operands[count[5:-1] if count.startswith("rows(") else count]
            stride = int(step) if step.isdigit() else operands[step]
            assert isinstance(n, int)
            assert isinstance(stride, int)
            n = self.config.block_rows(n) if count.startswith("rows(") else n
            low, high = low + min(0, (n - 1) * stride), high + max(0, (n - 1) * stride)
        return low, high

    def region(self, name: str, format_name: str, access: isa.Access, core: int) -> range | list[int]:
        if name == "state_write" and access.write:
            return COPY if core in self.copies and self.rng.random() < 0.5 else STATE
        if format_name in APART and access.field != "addend":
            if access.field == "num":
                return LOW[:6]
            written = LOW[6:] if access.field == "den" else LOW
            return written if access.write else self.readable(core, HIGH.start)
        return self.readable(core) if not access.write else [*LOW, *HIGH]

    def readable(self, core: int, first: int = 0, rows: int = 1) -> range:
        """Rows to read from, `first` and behind, as many as asked for: all that there are, or those between two ends
        of rings."""
        pieces = [range(max(first, s.start), s.stop) for s in segments(self.rings, core)]
        fitting = [piece for piece in pieces if len(piece) >= rows]
        return fitting[int(self.rng.integers(len(fitting)))] if len(fitting) > 1 else fitting[0]

    def row(self, region: range | list[int], low: int, high: int) -> Row:
        """A base, perhaps with a stride on an open loop, from which low to high stay inside the region."""
        level = int(self.rng.integers(0, len(self.counts) + 1))
        for stride in (int(self.rng.integers(-2, 3)), 0):
            moved = stride * (self.counts[level - 1] - 1) if level else 0
            first = region[0] - low - min(0, moved)
            final = region[-1] - high - max(0, moved)
            if first <= final:
                return Row(int(self.rng.integers(first, final + 1)), stride if level else 0, level)
        raise AssertionError(f"a reach of {low} to {high} does not fit {region}")
