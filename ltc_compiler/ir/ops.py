"""The op table of NNIR: attributes, shape rule, streaming rule and NumPy meaning of every operation.

A row (families/row.py) is all that the graph level knows of an op. Rows stand in families, which are joined and checked
here: pointwise ops, sums, elements that take another place, the scan. Passes, the verifier, the text form and `run` are
loops over the table; the machine's side of an op is in schedule/select/select.py. Reductions and scans name one axis;
front ends decompose the rest.
Meanings compute in the dtype of their operands (fp64 or fp32), so that every transform can be tested for equal meaning.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

from ltc_compiler.errors import GraphError
from ltc_compiler.ir.families import elements, pointwise, scan, sums
from ltc_compiler.ir.families.pointwise import BINARY, BY_ARITY, TERNARY, UNARY
from ltc_compiler.ir.families.row import Attrs, Op, ShapeError, axis_of, broadcast_shapes
from ltc_compiler.ir.families.scan import scan_parts
from ltc_compiler.ir.graph import Graph, Source, Type, Value

__all__ = [
    "BINARY",
    "BY_ARITY",
    "LAYOUT",
    "MOVES",
    "NOWHERE",
    "OPS",
    "POINTWISE",
    "TERNARY",
    "UNARY",
    "Attrs",
    "Op",
    "ShapeError",
    "add",
    "add_many",
    "axis_of",
    "broadcast_shapes",
    "check_names",
    "check_operation",
    "check_rows",
    "scan_parts",
]

NOWHERE = Source()
LARGEST = 2**63 - 1  # of the whole numbers in attributes and texts


def _joined(families: Sequence[Sequence[Op]]) -> dict[str, Op]:
    rows = [row for family in families for row in family]
    names = [row.name for row in rows]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ImportError(f"ops that have two rows in the op table: {twice}")
    if unknown := [row.name for row in rows if (row.evaluate is None) != (Graph in row.attrs.values())]:
        raise ImportError(f"an op has either a meaning or a body, and these have not: {unknown}")
    return {row.name: row for row in rows}


OPS = _joined((elements.ROWS, pointwise.ROWS, sums.ROWS, scan.ROWS))
POINTWISE = frozenset(row.name for row in pointwise.ROWS)
LAYOUT = frozenset(row.name for row in elements.ROWS if row.arity != 0)  # elements take another place
MOVES = frozenset(
    row.name for row in elements.ROWS if row.arity == 1
)  # those of one operand, in its precision


def check_rows(table: str, rows: Collection[str], beside: Collection[str] = ()) -> None:
    """Demand that a table beside this one, named as in "NAME in path", has a row for every op but those `beside`.

    Raises ImportError that names what is missing, and rows whose op there is not.
    """
    if missing := sorted(set(OPS) - set(rows) - set(beside)):
        raise ImportError(f"{table} has no row for these ops: {', '.join(missing)}")
    check_names(table, rows)


def check_names(table: str, rows: Collection[str]) -> None:
    """As `check_rows`, for a table that has rows for some ops alone."""
    if unknown := sorted(set(rows) - set(OPS)):
        raise ImportError(f"{table} has rows for what is no op: {', '.join(unknown)}")


def check_operation(name: str, types: Sequence[Type], attrs: Attrs) -> tuple[Type, ...]:
    """The result types of an operation. Raises ShapeError on a wrong arity, attribute or shape."""
    op = OPS.get(name)
    if op is None:
        raise ShapeError(f"there is no op {name!r}")
    low, high = op.arity if isinstance(op.arity, tuple) else (op.arity, op.arity)
    if not low <= len(types) <= high:
        raise ShapeError(f"{name} takes {op.arity} operands and has {len(types)}")
    if set(attrs) != set(op.attrs):
        raise ShapeError(f"{name} has the attributes {sorted(op.attrs)} and was given {sorted(attrs)}")
    for key, kind in op.attrs.items():
        if not isinstance(attrs[key], kind) or (kind is int and isinstance(attrs[key], bool)):
            raise ShapeError(f"attribute {key} of {name} is {attrs[key]!r}, expected a {kind.__name__}")
        if kind is tuple and not all(type(item) is int for item in attrs[key]):
            raise ShapeError(f"attribute {key} of {name} is {attrs[key]!r}, expected whole numbers")
        numbers = attrs[key] if kind is tuple else (attrs[key],) if kind is int else ()
        if any(abs(item) > LARGEST for item in numbers):
            raise ShapeError(f"attribute {key} of {name} is {attrs[key]!r}, expected at most 2^63 - 1")
    return op.infer(types, attrs)


def add(
    graph: Graph, op: str, *operands: Value, source: Source = NOWHERE, name: str = "", **attrs: Any
) -> Value:
    """Append an op and return its first result; types are inferred. Raises GraphError at the user's place."""
    return add_many(graph, op, operands, attrs, source, name)[0]


def add_many(
    graph: Graph, op: str, operands: Sequence[Value], attrs: Attrs, source: Source = NOWHERE, name: str = ""
) -> tuple[Value, ...]:
    """As `add`, for ops with several results. Negative axes are made positive."""
    if "axis" in attrs and attrs["axis"] < 0:
        attrs = {**attrs, "axis": attrs["axis"] + operands[0].type.rank}
    if op == "scan":
        attrs = {**attrs, **scan.positive_axes(operands, attrs)}
    try:
        types = check_operation(op, [v.type for v in operands], attrs)
    except ShapeError as error:
        raise GraphError(
            f"{op}: {error}", where=str(source), remedy="mend the shapes or attributes"
        ) from None
    return graph.append(op, operands, attrs, types, source, name)
