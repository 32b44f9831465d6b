"""The instruction table of the LTC machine: one table, many readers.

A row of ``INSTRUCTIONS`` says everything about an instruction that is not its arithmetic: opcode, unit, operand
format, iteration pattern, latency class and meaning. The assembler, the disassembler, the C++ operand structs and
decoder, the verifier's bounds checks, the VM's dispatch, the trace and ``docs/isa.md`` are loops over it.
This file imports the standard library alone: the build prints the C++ header from it before the package around it can
be imported.
"""

from __future__ import annotations

import hashlib
import struct
from dataclasses import dataclass

from ltc_compiler.isa.machine import COUNTS, FEATURES, LATENCIES

MAX_LOOP_DEPTH = 4
ALL_CORES = 255  # the `core` of control instructions: every core executes them
ABSENT = 0xFFFF  # a lane of a gather entry or synapse slot that is not there

UNITS = (
    "control", "matrix", "vector", "activation", "synapse", "reduce", "move", "link_out", "link_in", "io_in", "io_out",
)  # fmt: skip

# kind of field -> its encoding (little endian). A row address is base, stride, level:
# the row is base + counter[level] * stride, with counter[0] = 0 outside every loop.
ENCODINGS = {
    "row": "<IiB",
    "u8": "<B",
    "u16": "<H",
    "u32": "<I",
    "i32": "<i",
    "precision": "<B",  # 0: fp32, 1: bf16
    "flag": "<B",  # 0: no, 1: yes
    "block": "<I",  # address in the weight store
    "slot": "<I",  # address in the synapse store
    "entry": "<I",  # address in the gather store
}
PRECISIONS = ("fp32", "bf16")


@dataclass(frozen=True)
class Field:
    """One operand field of a format: `kind` is a key of ENCODINGS."""

    name: str
    kind: str
    doc: str = ""

    def __post_init__(self) -> None:
        if self.kind not in ENCODINGS:
            raise ValueError(f"field {self.name}: kind {self.kind!r} is not one of {sorted(ENCODINGS)}")


@dataclass(frozen=True)
class Access:
    """What one row field touches: rows `field + sum(i_d * step_d)` for every i_d in [0, count_d).

    `extents` holds (count, step) pairs, outermost first. A count is the name of a u32 field, or ``rows(F)`` for the
    rows that F elements fill, ceil(F / block_size). A step is the name of an i32 field, or a number.
    """

    field: str
    write: bool
    extents: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Format:
    """Operand fields shared by a family of instructions, and the rows that they reach."""

    name: str
    pattern: str
    fields: tuple[Field, ...]
    accesses: tuple[Access, ...]

    def __post_init__(self) -> None:
        names = {f.name: f.kind for f in self.fields}
        if len(names) != len(self.fields):
            raise ValueError(f"format {self.name}: a field name occurs twice")
        for a in self.accesses:
            if names.get(a.field) != "row":
                raise ValueError(f"format {self.name}: access names {a.field!r}, which is no row field")
            for count, step in a.extents:
                count = count[5:-1] if count.startswith("rows(") else count
                if names.get(count) != "u32":
                    raise ValueError(f"format {self.name}: count {count!r} is no u32 field")
                if not step.isdigit() and names.get(step) != "i32":
                    raise ValueError(f"format {self.name}: step {step!r} is no i32 field")
        reached = {a.field for a in self.accesses}
        for f in self.fields:
            if f.kind == "row" and f.name not in reached:
                raise ValueError(f"format {self.name}: row field {f.name!r} has no access")


def _grid(*sources: str) -> tuple[tuple[Field, ...], tuple[Access, ...]]:
    """dst and its sources over n_outer x n_inner rows, each with two row steps of its own."""
    fields: list[Field] = []
    accesses: list[Access] = []
    for name in ("dst", *sources):
        fields += [
            Field(name, "row", "written" if name == "dst" else "read"),
            Field(f"{name}_outer", "i32", "rows from one outer index to the next"),
            Field(f"{name}_inner", "i32", "rows from one inner index to the next; 0 repeats the row"),
        ]
        extents = (("n_outer", f"{name}_outer"), ("n_inner", f"{name}_inner"))
        accesses.append(Access(name, name == "dst", extents))
    fields += [
        Field("n_outer", "u32", "outer count"),
        Field("n_inner", "u32", "inner count"),
        Field("precision", "precision", "bf16 rounds the result once more, to bf16"),
    ]
    return tuple(fields), tuple(accesses)


def _stepped(*sources: str) -> tuple[tuple[Field, ...], tuple[Access, ...]]:
    """dst and its sources over n rows, each with a row step of its own."""
    fields: list[Field] = []
    for name in ("dst", *sources):
        fields += [
            Field(name, "row", "written" if name == "dst" else "read"),
            Field(f"{name}_step", "i32", "rows from one index to the next; 0 repeats the row"),
        ]
    accesses = (Access(name, name == "dst", (("n", f"{name}_step"),)) for name in ("dst", *sources))
    return (*fields, Field("n", "u32", "count")), tuple(accesses)


def _row_and(name: str, *rest: Field) -> tuple[Field, ...]:
    return (Field(name, "row"), *rest)


FORMATS = (
    Format("Unary", "elementwise", *_grid("a")),
    Format("Binary", "elementwise", *_grid("a", "b")),
    Format("Ternary", "elementwise", *_grid("a", "b", "c")),
    Format(
        "Splat",
        "elementwise",
        (*_grid("a")[0], Field("lane", "u16", "lane of the source row, below block_size")),
        _grid("a")[1],
    ),
    Format(
        "RowReduce",
        "row_reduce",
        (
            Field("dst", "row", "one row a group; the result stands in every lane"),
            Field("dst_step", "i32", "rows from one group's result to the next"),
            Field("src", "row", "the first row of the first group"),
            Field("src_step", "i32", "rows from one group to the next"),
            Field("groups", "u32", "number of groups"),
            Field("k", "u32", "elements of a group; they fill rows(k) rows from lane 0"),
            Field("precision", "precision"),
        ),
        (
            Access("dst", True, (("groups", "dst_step"),)),
            Access("src", False, (("groups", "src_step"), ("rows(k)", "1"))),
        ),
    ),
    Format(
        "ColumnReduce",
        "column_reduce",
        (
            Field("dst", "row"),
            Field("src", "row", "element k of row i is row src + k * k_step + i"),
            Field("k_step", "i32", "rows from one element to the next"),
            Field("k", "u32", "elements of the reduction"),
            Field("n_inner", "u32", "rows of the result"),
            Field("precision", "precision"),
        ),
        (
            Access("dst", True, (("n_inner", "1"),)),
            Access("src", False, (("k", "k_step"), ("n_inner", "1"))),
        ),
    ),
    Format(
        "Matmul",
        "matrix",
        (
            Field("dst", "row"),
            Field("dst_step", "i32", "rows from one vector's result to the next"),
            Field("x", "row", "rows(k) rows of the first tap of a vector; lanes from k on are absent"),
            Field("x_step", "i32", "rows from one vector to the next"),
            Field("taps", "u32", "runs of rows that make up a vector, one behind the other"),
            Field("tap_step", "i32", "rows from one tap to the next"),
            Field("bias", "row", "m_rows rows for a vector, added last"),
            Field("bias_step", "i32", "rows from one vector's bias to the next; 0: the same for all"),
            Field(
                "weights",
                "block",
                "block of output row o and row i of tap t: weights + ((o * taps + t) * rows(k) + i) * size",
            ),
            Field("k", "u32", "input elements of a tap"),
            Field("m_rows", "u32", "output rows"),
            Field("batch", "u32", "number of vectors"),
            Field("precision", "precision", "of the result"),
            Field(
                "addend",
                "flag",
                "the product is finished as a written fp32 row before the bias is added to it",
            ),
            Field("relu", "flag", "max(sum, +0) of the finished fp32 sum is the result"),
        ),
        (
            Access("dst", True, (("batch", "dst_step"), ("m_rows", "1"))),
            Access("x", False, (("batch", "x_step"), ("taps", "tap_step"), ("rows(k)", "1"))),
            Access("bias", False, (("batch", "bias_step"), ("m_rows", "1"))),
        ),
    ),
    Format(
        "Synapse",
        "synapse",
        (
            Field("num", "row", "sum of s * we"),
            Field("den", "row", "sum of s * w"),
            Field("v", "row", "v_rows rows of the presynaptic vector; source i is lane i % B of row i / B"),
            Field("v_rows", "u32"),
            Field("slots", "slot", "the first slot; a target row ends with a slot marked last"),
            Field("targets", "u32", "rows of targets"),
            Field("precision", "precision", "bf16: rule 11; fp32: its FP32 variant"),
        ),
        (
            Access("num", True, (("targets", "1"),)),
            Access("den", True, (("targets", "1"),)),
            Access("v", False, (("v_rows", "1"),)),
        ),
    ),
    Format("Update", "update", *_stepped("v", "cm", "h", "leak", "conductance", "num", "den")),
    Format(
        "Gather",
        "gather",
        (
            Field("dst", "row", "entries add their destination offset to it"),
            Field("dst_rows", "u32", "rows that the entries may write"),
            Field("src", "row", "entries add their source offset to it"),
            Field("src_rows", "u32", "rows that the entries may read"),
            Field("entries", "entry", "the first entry"),
            Field("count", "u32", "number of entries"),
        ),
        (
            Access("dst", True, (("dst_rows", "1"),)),
            Access("src", False, (("src_rows", "1"),)),
        ),
    ),
    Format(
        "Transpose",
        "transpose",
        (
            Field("dst", "row", "the first row written"),
            Field("dst_step", "i32", "rows from one row written to the next"),
            Field("dst_rows", "u32", "lanes to take of each row read, at most block_size"),
            Field("src", "row", "the first row read"),
            Field("src_step", "i32", "rows from one row read to the next"),
            Field("src_rows", "u32", "rows read, at most block_size"),
        ),
        (
            Access("dst", True, (("dst_rows", "dst_step"),)),
            Access("src", False, (("src_rows", "src_step"),)),
        ),
    ),
    Format(
        "Send",
        "send",
        _row_and(
            "src",
            Field("rows", "u32", "at most the configuration's link_fifo_rows"),
            Field("targets", "u16", "mask of destination cores, never the sender"),
        ),
        (Access("src", False, (("rows", "1"),)),),
    ),
    Format(
        "Receive",
        "receive",
        _row_and("dst", Field("rows", "u32"), Field("source", "u8", "the sending core")),
        (Access("dst", True, (("rows", "1"),)),),
    ),
    Format(
        "Input",
        "input",
        _row_and(
            "dst",
            Field("rows", "u32", "whole vectors of the array, or rows of one"),
            Field("port", "u16", "index among the model's inputs"),
            Field("first", "u32", "the first of them, among the rows that the array fills"),
        ),
        (Access("dst", True, (("rows", "1"),)),),
    ),
    Format(
        "Output",
        "output",
        _row_and(
            "src",
            Field("rows", "u32", "whole vectors of the array, or rows of one"),
            Field("port", "u16", "index among the model's outputs"),
            Field("first", "u32", "the first of them, among the rows that the array fills"),
        ),
        (Access("src", False, (("rows", "1"),)),),
    ),
    Format("Loop", "loop", (Field("count", "u32", "number of turns, at least 1"),), ()),
    Format("End", "end", (), ()),
)


@dataclass(frozen=True)
class Instruction:
    """One row of the table.

    latency, latency_fp32: the classes that the configuration gives in cycles; the second one is for results in fp32,
    and is another one in the activation unit alone.
    """

    opcode: int
    name: str
    format: Format
    unit: str
    latency: str
    meaning: str
    latency_fp32: str

    def __post_init__(self) -> None:
        if self.unit not in UNITS:
            raise ValueError(f"instruction {self.name}: unit {self.unit!r} is not one of {UNITS}")
        for latency in (self.latency, self.latency_fp32):
            if latency not in LATENCIES:
                raise ValueError(
                    f"instruction {self.name}: latency class {latency!r} is not in machine.Latencies"
                )

    @property
    def size(self) -> int:
        """Encoded bytes: opcode, core, then the fields."""
        return 2 + sum(struct.calcsize(ENCODINGS[f.kind]) for f in self.format.fields)


ACTIVATION_MEANINGS = (
    ("sigmoid", "1 / (1 + e^-a)"),
    ("tanh", "tanh(a)"),
    ("exp", "e^a"),
    ("exp2", "2^a"),
    ("log", "natural logarithm of a"),
    ("softplus", "log(1 + e^a)"),
    ("silu", "a * sigmoid(a)"),
    ("gelu", "a * Phi(a), with erf"),
    ("gelu_tanh", "the tanh form of gelu"),
    ("reciprocal", "1 / a"),
    ("rsqrt", "1 / sqrt(a)"),
    ("sin", "sine of a, in radians"),
    ("cos", "cosine of a, in radians"),
    ("erf", "error function of a"),
    ("atan", "arc tangent of a, in radians"),
)

# The latency class of an fp32 activation that is no sequence of many operations.
_SHORT_FP32 = {"reciprocal": "div", "rsqrt": "rsqrt"}


def _table() -> tuple[Instruction, ...]:
    formats = {f.name: f for f in FORMATS}
    rows: list[tuple[str, str, str, str, str]] = [
        (
            "loop",
            "Loop",
            "control",
            "issue",
            "begin a hardware loop of `count` turns; its counter starts at 0",
        ),
        (
            "end",
            "End",
            "control",
            "issue",
            "end of the innermost loop: count up, and turn back while turns are left",
        ),
        ("move", "Unary", "move", "move", "dst = a"),
        ("state_write", "Unary", "move", "move", "dst = a, where dst is a row of the persistent state"),
        ("splat", "Splat", "move", "gather", "every lane of dst = lane `lane` of a"),
        (
            "gather",
            "Gather",
            "move",
            "gather",
            "for each entry: lane l of row dst + entry.dst = lane entry.lane[l] of row src + entry.src; "
            "an absent lane keeps its value, or becomes +0 where the entry says clear",
        ),
        (
            "transpose",
            "Transpose",
            "move",
            "gather",
            "lane i of row j of dst = lane j of row i of src; +0 in the lanes from src_rows on",
        ),
        ("add", "Binary", "vector", "add", "dst = a + b"),
        ("sub", "Binary", "vector", "add", "dst = a - b"),
        ("mul", "Binary", "vector", "mul", "dst = a * b"),
        ("div", "Binary", "vector", "div", "dst = a / b"),
        ("min", "Binary", "vector", "compare", "NaN if either is NaN, else a < b ? a : b"),
        ("max", "Binary", "vector", "compare", "NaN if either is NaN, else a > b ? a : b"),
        ("gt", "Binary", "vector", "compare", "dst = a > b ? 1 : 0"),
        ("ge", "Binary", "vector", "compare", "dst = a >= b ? 1 : 0"),
        ("lt", "Binary", "vector", "compare", "dst = a < b ? 1 : 0"),
        ("le", "Binary", "vector", "compare", "dst = a <= b ? 1 : 0"),
        ("eq", "Binary", "vector", "compare", "dst = a == b ? 1 : 0"),
        ("ne", "Binary", "vector", "compare", "dst = a != b ? 1 : 0"),
        ("select", "Ternary", "vector", "compare", "dst = a != 0 ? b : c (a NaN counts as not zero)"),
        ("neg", "Unary", "vector", "compare", "dst = -a"),
        ("abs", "Unary", "vector", "compare", "dst = |a|"),
        ("relu", "Unary", "vector", "compare", "dst = max(a, +0)"),
        ("sqrt", "Unary", "vector", "sqrt", "dst = square root of a, correctly rounded"),
        ("floor", "Unary", "vector", "add", "dst = the largest whole number that is not above a"),
        ("round", "Unary", "vector", "add", "dst = the nearest whole number, of two the even one"),
        (
            "fmod",
            "Binary",
            "vector",
            "activation_fp32",
            "dst = a - n * b, with n = a / b cut to a whole number; exact, and NaN where |a| / |b| is 2^40 or more",
        ),
        (
            "ltc_update",
            "Update",
            "vector",
            "update",
            "dst = v + (h * (N - D * v)) / (cm + h * D), with N = leak + num and D = conductance + den: rule 12",
        ),
        (
            "row_sum",
            "RowReduce",
            "reduce",
            "reduce",
            "sum of the group's elements by the 64-accumulator rule",
        ),
        (
            "row_max",
            "RowReduce",
            "reduce",
            "reduce",
            "maximum of the group's elements, ascending, by the rule of max",
        ),
        (
            "column_sum",
            "ColumnReduce",
            "reduce",
            "reduce",
            "lane by lane the sum over k by the 64-accumulator rule",
        ),
        ("column_max", "ColumnReduce", "reduce", "reduce", "lane by lane the maximum over k, ascending"),
        ("matmul", "Matmul", "matrix", "matrix", "dst = W bf16(x) + bias; bf16 weights; size = 1"),
        (
            "matmul_fp32",
            "Matmul",
            "matrix",
            "matrix",
            "dst = W x + bias; fp32 weights, high halves in one block and low halves in the next; size = 2",
        ),
        ("synapse", "Synapse", "synapse", "synapse", "numerator and denominator of every target's synapses"),
        ("send", "Send", "link_out", "link", "push rows into the link FIFO of every target core"),
        ("receive", "Receive", "link_in", "move", "pop rows from the link FIFO that `source` fills"),
        ("input", "Input", "io_in", "io_in", "rows of a host array, padded with +0, by the host-load rule"),
        ("output", "Output", "io_out", "io_out", "rows to a host array"),
    ]
    rows += [
        (name, "Unary", "activation", "activation", f"dst = {text}") for name, text in ACTIVATION_MEANINGS
    ]
    return tuple(
        Instruction(i + 1, name, formats[fmt], unit, latency, meaning, _latency_fp32(name, unit, latency))
        for i, (name, fmt, unit, latency, meaning) in enumerate(rows)
    )


def _latency_fp32(name: str, unit: str, latency: str) -> str:
    return _SHORT_FP32.get(name, "activation_fp32") if unit == "activation" else latency


INSTRUCTIONS: tuple[Instruction, ...] = _table()
BY_NAME: dict[str, Instruction] = {i.name: i for i in INSTRUCTIONS}
BY_OPCODE: dict[int, Instruction] = {i.opcode: i for i in INSTRUCTIONS}

# The first table was hashed with its words. Programs of it are still those of the table with this structure.
_FIRST_STRUCTURE = "613d2fedf435206c28d971ca028fd8a55c6c6686ccc3ff70ea041954f01ecad6"
_FIRST_HASH = "32746bc1d9c04c727bbe4b13f02a72407363eef97f89f38779d5dee4ee2bfe1c"


def isa_hash() -> bytes:
    """SHA-256 over what fixes the encoding and the meaning of a program's bytes, and no word of explanation: 32 bytes.

    An instruction that is to compute something else needs another name: nothing here says what it computes.
    """
    digest = hashlib.sha256(repr(_structure()).encode()).hexdigest()
    return bytes.fromhex(_FIRST_HASH if digest == _FIRST_STRUCTURE else digest)


def _structure() -> tuple[object, ...]:
    formats = [
        (
            f.name,
            f.pattern,
            [(x.name, x.kind) for x in f.fields],
            [(a.field, a.write, a.extents) for a in f.accesses],
        )
        for f in FORMATS
    ]
    rows = [(i.opcode, i.name, i.format.name, i.unit, i.latency, i.latency_fp32) for i in INSTRUCTIONS]
    section = [[p.name for p in COUNTS], [p.name for p in FEATURES], LATENCIES]
    return formats, rows, UNITS, sorted(ENCODINGS.items()), PRECISIONS, section
