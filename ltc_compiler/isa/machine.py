"""The machine's parameters, each in one place: name, type, range, unit, meaning and default.

From the three classes below come the fields of Config with their checks, the keys of its TOML files, their
documentation (docs/configuration.md) and JSON schema, the section MACH of a program, and in C++ the struct of a machine
with its reader and limits. A new parameter is a new line; a new line of Latencies is a latency class that an
instruction can name.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import MISSING, dataclass, field, fields
from typing import Any

STORE = 65536  # rows, blocks, slots, entries or instructions that a store of one core can have
CYCLES = 1000  # of any latency

NAME = "^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$"  # of a machine

Scalar = bool | int | float | str


def _row(
    low: float = 0,
    high: float = 0,
    unit: str = "",
    meaning: str = "",
    *,
    default: Scalar | None = None,
    mach: int | None = None,
    power_of_two: bool = False,
    made_of: str = "",
) -> Any:
    """One parameter. mach: its place among the counts, or the features, of section MACH; None: it is not in there."""
    metadata = {
        "low": low,
        "high": high,
        "unit": unit,
        "meaning": meaning,
        "mach": mach,
        "power_of_two": power_of_two,
        "made_of": made_of,
    }
    return field(metadata=metadata) if default is None else field(default=default, metadata=metadata)


def _cycles(default: int, meaning: str, made_of: str) -> Any:
    """A latency; made_of: how its default comes about. Numbers in brackets are the sources of docs/machine.md."""
    return _row(1, CYCLES, "cycles", meaning, default=default, made_of=made_of)


@dataclass(frozen=True, kw_only=True)
class Latencies:
    """The latency classes in the order of section MACH, which has all of them."""

    issue: int = _cycles(
        1, "between two instructions of one core", "the next instruction is decoded while this one issues"
    )
    add: int = _cycles(4, "fp32 add and subtract", "read 1, add 2 ([4]: 2 at 805 MHz; [5]: 1), finish 1")
    mul: int = _cycles(4, "fp32 multiply", "read 1, multiply 2 ([4]: 3 at 805 MHz; [5]: 2), finish 1")
    div: int = _cycles(
        17,
        "fp32 divide",
        "read 1, divide 15 ([5]: 14; one radix-4 digit per stage and rounding needs 15), finish 1",
    )
    sqrt: int = _cycles(17, "fp32 square root", "as `div`; [5]: 12, [6]: 28")
    compare: int = _cycles(2, "compare, minimum, maximum and select", "read 1, compare, select, round 1")
    move: int = _cycles(2, "copy and broadcast of a row", "read 1, finish 1")
    gather: int = _cycles(
        3,
        "gather of lanes into a row",
        "`move`, and one stage of the lane crossbar; a row out of the corner turn leaves it by the same "
        "stage",
    )
    activation: int = _cycles(
        5,
        "bf16 activation, a table look-up",
        "read 1, round and find the segment 1, multiply 1, add and correct 1, finish 1: eight significand"
        " bits need no full table but one of some hundred segments",
    )
    activation_fp32: int = _cycles(
        65,
        "fp32 activation, a sequence of operations",
        "the longest sequence of rule 10, softplus: 61 cycles of dependent operations with the operators "
        "of [5] (add 1, multiply 2, divide 14, select 1), 2 of margin, and read and finish",
    )
    rsqrt: int = _cycles(
        32,
        "fp32 reciprocal square root: a square root, then a division",
        "in fp32: read 1, square root 15, divide 15, finish 1. An fp32 reciprocal is a division, and "
        "takes `div`",
    )
    accumulate: int = _cycles(
        4,
        "one addition to an accumulator of the matrix unit",
        "one pass of an accumulator's adder; four chains interleaved on one adder are a documented mode [1]",
    )
    accumulate_reduce: int = _cycles(
        1,
        "one addition to an accumulator of the reduction unit",
        "one addition in the block's inner loop-back [1]: the reduction unit has one adder for two lanes "
        "where the matrix unit has B, and can afford the mode in which nothing else shares it",
    )
    matrix: int = _cycles(
        27,
        "matrix unit from the last beat on: multiplier, adder tree, write",
        "read and broadcast 2, multiply 2, two passes of the accumulator 8, six levels of the tree 12, "
        "bias 2, finish 1",
    )
    reduce: int = _cycles(
        25,
        "reduction of a row: adder tree and write",
        "read 1, two additions 4, six levels of the tree 12, broadcast to the lanes 4, finish 1; 3 of margin",
    )
    product: int = _cycles(
        30,
        "sum of products of computed rows: multiplier, adder tree, addend, write",
        "`reduce`, with 2 more of the multiplier, 1 to flush the sum and 2 to add",
    )
    synapse: int = _cycles(
        15,
        "synapse unit from the last row of synapses on",
        "the copies are filled 2, fetch 2, subtract 2, multiply 2, round and sigmoid 3 (as in "
        "`activation`), multiply 1 (two significands of 8 bits: the product is exact), accumulate 2, "
        "finish 1",
    )
    synapse_fp32: int = _cycles(
        57,
        "the same where the synapses are fp32",
        "`synapse`, with the sequence of a sigmoid, 43 and 2 of margin, in place of the 3 of its table",
    )
    update: int = _cycles(
        27,
        "update of an LTC state, from its last operands on",
        "read 1, D = conductance + den 2, D·v 2, N − D·v 2, by h 2, divide 15, v + 2, finish 1; h·D and "
        "cm + h·D beside that",
    )
    link: int = _cycles(
        12,
        "a row from one core to another",
        "read 1, six register stages across the die, FIFO write, flag and read 4, arbitration 1",
    )
    io_in: int = _cycles(
        7,
        "a row from the host's side into a tensor row",
        "from the host interface's buffer: clock crossing 4, the core's FIFO 2, finish 1",
    )
    io_out: int = _cycles(
        8,
        "a tensor row out to the host's side",
        "read 1, the core's FIFO 2, clock crossing 4, output register 1",
    )
    crossing: int = _cycles(
        6,
        "more than these for a core other than the first, which is beside the host's side",
        "register stages across the die, as in `link`; the first core is beside the host interface, every"
        " other core has these on its way from and to it",
    )


@dataclass(frozen=True, kw_only=True)
class HostLink:
    """The way between the host's memory and the accelerator; no cycle depends on it."""

    latency_us: float = _row(
        0, 1_000_000, "µs", "time of a transfer one way besides that of its bytes", default=0.7
    )
    bytes_per_us: float = _row(
        0.001, 1_000_000_000, "bytes per µs", "bandwidth in each direction", default=12000.0
    )


@dataclass(frozen=True, kw_only=True)
class Machine:
    """Everything that a machine has; counts of stores are per core. What has no default, every machine gives."""

    name: str = _row(meaning='name of 1 to 64 letters, digits, "_" or "-", the first a letter or a digit')
    cores: int = _row(1, 16, "cores", "cores, each with stores and units of its own", mach=0)
    block_size: int = _row(
        4, 128, "lanes", "lanes of a row, and sides of a weight block", mach=1, power_of_two=True
    )
    clock_mhz: float = _row(1, 2000, "MHz", "clock")
    weight_blocks: int = _row(1, STORE, "blocks per core", "size of the weight store, in bf16 blocks", mach=2)
    tensor_rows: int = _row(1, STORE, "rows per core", "size of the tensor store", mach=3)
    read_ports: int = _row(  # a select reads three rows at once
        3, 16, "rows per cycle", "rows that the tensor store of a core reads at most", default=6, mach=11
    )
    accumulators: int = _row(
        1,
        64,
        "row tiles",
        "row tiles of a product that the matrix unit has in flight at most",
        default=8,
        mach=4,
    )
    synapse_slots: int = _row(
        1, STORE, "slots per core", "size of the synapse store; a slot is one synapse per lane", mach=5
    )
    gather_entries: int = _row(
        1,
        STORE,
        "entries per core",
        "size of the gather store; an entry moves lanes of one row to another",
        default=4096,
        mach=6,
    )
    instruction_slots: int = _row(
        16, STORE, "instructions per core", "size of the instruction store", default=8192, mach=7
    )
    input_rows: int = _row(
        1,
        STORE,
        "rows per core",
        "rows of one inference's inputs that wait beside a core; there are two such stores per core",
        default=8192,
        mach=12,
    )
    rings: int = _row(
        0,
        STORE,
        "rings per core",
        "delay lines whose row addresses turn with every inference; with 0, inferences move their rows",
        default=1024,
        mach=13,
    )
    output_rows: int = _row(
        1,
        STORE,
        "rows per core",
        "rows that a core has put out and the host has not taken; a core puts out no more in an inference",
        default=8192,
        mach=14,
    )
    link_fifo_rows: int = _row(
        1, 4096, "rows per link", "rows that can wait at the end of a link", default=64, mach=8
    )
    issue_queue: int = _row(
        1,
        64,
        "instructions per unit",
        "instructions that a unit holds, the one at work included",
        default=8,
        mach=10,
    )
    fp32_beats: int = _row(
        1, 64, "cycles", "time that a beat of fp32 operands holds its unit", default=9, mach=9
    )
    fp32_matmul: bool = _row(meaning="the matrix unit multiplies fp32 weights too", default=True, mach=0)
    fp8_weights: bool = _row(meaning="the weight store expands FP8 weights", default=True, mach=1)
    synapse_unit: bool = _row(meaning="there is a synapse unit", default=True, mach=2)
    latency: Latencies = field(default_factory=Latencies)
    host: HostLink = field(default_factory=HostLink)


TABLES: dict[str, type[Latencies | HostLink]] = {"latency": Latencies, "host": HostLink}


@dataclass(frozen=True)
class Parameter:
    """One parameter as a value: what a line of the classes above says."""

    name: str  # those of a table are called like "latency.add"
    kind: str  # int, float, bool or str
    low: float
    high: float
    unit: str
    meaning: str
    default: Scalar | None
    mach: int | None
    power_of_two: bool
    made_of: str

    def __post_init__(self) -> None:
        if self.kind not in ("int", "float", "bool", "str"):
            raise ValueError(f"parameter {self.name}: type {self.kind!r} is not int, float, bool or str")
        if not self.meaning:
            raise ValueError(f"parameter {self.name} has no meaning")
        if self.kind in ("int", "float"):
            if not self.unit or self.low >= self.high:
                raise ValueError(f"parameter {self.name} needs a unit and a range")
            if isinstance(self.default, int | float) and not self.low <= self.default <= self.high:
                raise ValueError(f"parameter {self.name}: default {self.default} is outside its range")
        if self.made_of == "" and self.name.startswith("latency."):
            raise ValueError(f"parameter {self.name} does not say what it is made of")
        if self.mach is not None and self.kind not in ("int", "bool"):
            raise ValueError(f"parameter {self.name}: section MACH holds no {self.kind}")


def powers_of_two(p: Parameter) -> Iterator[int]:
    """Those in the parameter's range."""
    value = 1
    while value <= p.high:
        if value >= p.low:
            yield value
        value *= 2


def _parameters() -> Iterator[Parameter]:
    for prefix, kind in (("", Machine), *((f"{table}.", kind) for table, kind in TABLES.items())):
        for f in fields(kind):
            if f.name not in TABLES:
                default = None if f.default is MISSING else f.default
                yield Parameter(f"{prefix}{f.name}", str(f.type), default=default, **f.metadata)


def _section(kind: str) -> tuple[Parameter, ...]:
    """The parameters of one type in section MACH, in its order; ValueError if two have one place, or one is free."""
    found = sorted(
        (p for p in PARAMETERS if p.kind == kind and p.mach is not None), key=lambda p: p.mach or 0
    )
    places = [p.mach for p in found]
    if places != list(range(len(found))):
        raise ValueError(
            f"the places of {kind} parameters in section MACH are {places}, not 0, 1, 2 and so on"
        )
    return tuple(found)


PARAMETERS: tuple[Parameter, ...] = tuple(_parameters())
COUNTS = _section("int")
FEATURES = _section("bool")
LATENCIES = tuple(f.name for f in fields(Latencies))
