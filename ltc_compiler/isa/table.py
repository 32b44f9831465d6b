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

from ltc_compiler.isa.formats import ENCODINGS, FORMATS, PRECISIONS, Format
from ltc_compiler.isa.machine import COUNTS, FEATURES, LATENCIES

MAX_LOOP_DEPTH = 4
ALL_CORES = 255  # the `core` of control instructions: every core executes them
ABSENT = 0xFFFF  # a lane of a gather entry or synapse slot that is not there

UNITS = (
    "control", "matrix", "vector", "activation", "synapse", "reduce", "move", "link_out", "link_in", "io_in", "io_out",
)  # fmt: skip


@dataclass(frozen=True)
class Instruction:
    """One row of the table.

    latency, latency_fp32: the classes that the configuration gives in cycles; the second one is for instructions whose
    precision is fp32. entries: of the store of its pattern that a beat reads. passes: how often `fp32_beats` cycles a
    beat of fp32 operands holds its unit; 0: one cycle, as with bf16.
    """

    opcode: int
    name: str
    format: Format
    unit: str
    latency: str
    meaning: str
    latency_fp32: str
    entries: int = 1
    passes: int = 0

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

_ENTRIES = {"matmul_fp32": 2}  # the block of the high halves, and that of the low ones

# The latency class of an fp32 activation that is no sequence of many operations.
_SHORT_FP32 = {"reciprocal": "div", "rsqrt": "rsqrt"}

# Passes over the operators of a lane, where one is not enough for the operations of a sequence (docs/machine.md).
_LONG = {"gelu": 2, "erf": 2, "sin": 2, "cos": 2, "gelu_tanh": 3}
_HELD = {"matmul_fp32": 1, "synapse": 1, "fmod": 1}


def _table() -> tuple[Instruction, ...]:
    formats = {f.name: f for f in FORMATS}
    rows: list[tuple[str, str, str, str, str]] = [
        (
            "loop",
            "Loop",
            "control",
            "issue",
            "begin a hardware loop of `count` iterations; its counter starts at 0",
        ),
        (
            "end",
            "End",
            "control",
            "issue",
            "end of the innermost loop: count up, and go back while iterations are left",
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
        (
            "product",
            "WeightedSum",
            "reduce",
            "product",
            "dst[i] = addend[i] + sum over j of A(i, j) * B[j], lane by lane: the bits of mul, column_sum and add",
        ),
        (
            "dot",
            "Dot",
            "reduce",
            "product",
            "lane j of dst[i] = addend + sum over k of A[i, k] * B[j, k]: the bits of mul, row_sum and add; in the "
            "lanes from n_j on the sum is +0",
        ),
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
        Instruction(
            i + 1,
            name,
            formats[fmt],
            unit,
            latency,
            meaning,
            _latency_fp32(name, unit, latency),
            _ENTRIES.get(name, 1),
            _passes(name, unit),
        )
        for i, (name, fmt, unit, latency, meaning) in enumerate(rows)
    )


def _latency_fp32(name: str, unit: str, latency: str) -> str:
    if unit == "synapse":
        return "synapse_fp32"
    return _SHORT_FP32.get(name, "activation_fp32") if unit == "activation" else latency


def _passes(name: str, unit: str) -> int:
    if unit == "activation":
        return 0 if name in _SHORT_FP32 else _LONG.get(name, 1)
    return _HELD.get(name, 0)


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
