"""The operand formats of the instructions: their fields, and the rows that they reach."""

from __future__ import annotations

from dataclasses import dataclass

from ltc_compiler.isa.patterns import PATTERNS, WALKED

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

    `extents` holds (count, step) pairs, outermost first. A count is as in patterns.py; a step is the name of an i32
    field, or a number.
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
                self._check(count, names)
                if not step.isdigit() and names.get(step) != "i32":
                    raise ValueError(f"format {self.name}: step {step!r} is no i32 field")
        reached = {a.field for a in self.accesses}
        for f in self.fields:
            if f.kind == "row" and f.name not in reached:
                raise ValueError(f"format {self.name}: row field {f.name!r} has no access")
        if self.pattern not in PATTERNS:
            raise ValueError(f"format {self.name}: no beats for the pattern {self.pattern!r} in PATTERNS")
        for count in PATTERNS[self.pattern].counts:
            if count != WALKED and not count.isdigit():
                self._check(count, names)
        for field in reached:
            PATTERNS[self.pattern].touch(field)

    def _check(self, count: str, kinds: dict[str, str]) -> None:
        name = count[5:-1] if count.startswith("rows(") else count
        if kinds.get(name) != "u32":
            raise ValueError(f"format {self.name}: count {count!r} is no u32 field")


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
        "WeightedSum",
        "product",
        (
            *_row_and("dst", Field("dst_i", "i32", "rows from one i to the next")),
            Field("a", "row", "A(i, j) is lane i * lane_i + j * lane_j of row a + i * a_i + j * a_j"),
            Field("a_i", "i32"),
            Field("a_j", "i32"),
            Field("lane_i", "u32", "lanes behind those of a row are those of the rows that follow"),
            Field("lane_j", "u32"),
            Field("a_lanes", "u32", "A's lanes are below it: they fill rows(a_lanes) rows"),
            Field("b", "row", "row r of element j is row b + j * b_j + r"),
            Field("b_j", "i32"),
            Field("addend", "row", "row r of i is row addend + i * addend_i + r"),
            Field("addend_i", "i32", "0: the same for all"),
            Field("n_i", "u32", "vectors of the result"),
            Field("n_j", "u32", "elements of the sum"),
            Field("n_inner", "u32", "rows of a vector of the result"),
            Field("narrow", "flag", "A and B are rounded to bf16 as they are read"),
            Field("precision", "precision"),
        ),
        (
            Access("dst", True, (("n_i", "dst_i"), ("n_inner", "1"))),
            Access("a", False, (("n_i", "a_i"), ("n_j", "a_j"), ("rows(a_lanes)", "1"))),
            Access("b", False, (("n_j", "b_j"), ("n_inner", "1"))),
            Access("addend", False, (("n_i", "addend_i"), ("n_inner", "1"))),
        ),
    ),
    Format(
        "Dot",
        "dot",
        (
            *_row_and("dst", Field("dst_i", "i32", "rows from one i to the next")),
            Field("a", "row", "A[i, :] is k elements from lane 0 of row a + i * a_i on"),
            Field("a_i", "i32"),
            Field("b", "row", "B[j, :] is k elements from lane 0 of row b + j * b_j on"),
            Field("b_j", "i32"),
            Field("addend", "row", "element j of i is lane j of the rows from addend + i * addend_i on"),
            Field("addend_i", "i32", "0: the same for all"),
            Field("n_i", "u32", "vectors of the result"),
            Field("n_j", "u32", "elements of a vector of the result; they fill rows(n_j) rows"),
            Field("k", "u32", "elements of the sum"),
            Field("narrow", "flag", "A and B are rounded to bf16 as they are read"),
            Field("precision", "precision"),
        ),
        (
            Access("dst", True, (("n_i", "dst_i"), ("rows(n_j)", "1"))),
            Access("a", False, (("n_i", "a_i"), ("rows(k)", "1"))),
            Access("b", False, (("n_j", "b_j"), ("rows(k)", "1"))),
            Access("addend", False, (("n_i", "addend_i"), ("rows(n_j)", "1"))),
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
    Format("Loop", "loop", (Field("count", "u32", "number of iterations, at least 1"),), ()),
    Format("End", "end", (), ()),
)
