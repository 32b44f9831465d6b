"""The op table of NNIR: attributes, shape rule, streaming rule and NumPy meaning of every operation.

A row is all that the graph level knows of an op. Passes, the verifier, the text form and `run` are loops over it;
the machine's side of an op is in schedule/select/select.py. Reductions and scans name one axis; front ends decompose
the rest.
Meanings compute in the dtype of their operands (fp64 or fp32), so that every transform can be tested for equal meaning.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ltc_compiler.errors import GraphError
from ltc_compiler.ir.graph import Array, Graph, Source, Type, Value

Attrs = dict[str, Any]
NOWHERE = Source()
Infer = Callable[[Sequence[Type], Attrs], tuple[Type, ...]]
Evaluate = Callable[[Sequence[Array], Attrs], tuple[Array, ...]]


@dataclass(frozen=True)
class Op:
    """One row: operand count (a pair where it varies), attribute names and types, rules and meaning.

    `streaming` names the rule in transforms/streaming/transform.py that the op follows.
    """

    name: str
    arity: int | tuple[int, int]
    attrs: dict[str, type]
    infer: Infer
    evaluate: Evaluate
    streaming: str
    doc: str


class ShapeError(ValueError):
    """A shape rule refused its operands; `add` turns it into a GraphError with the place."""


# ---------------------------------------------------------------- shape rules


def broadcast_shapes(*shapes: tuple[int, ...]) -> tuple[int, ...]:
    """NumPy's broadcasting rule."""
    try:
        return tuple(int(d) for d in np.broadcast_shapes(*shapes))
    except ValueError:
        raise ShapeError(f"shapes {' and '.join(map(str, shapes))} do not broadcast") from None


def axis_of(rank: int, axis: int) -> int:
    """A non-negative axis; refuses one that is out of range."""
    if not -rank <= axis < rank:
        raise ShapeError(f"axis {axis} is out of range for rank {rank}")
    return axis % rank


def _pointwise(types: Sequence[Type], attrs: Attrs) -> tuple[Type, ...]:
    return (Type(broadcast_shapes(*(t.shape for t in types))),)


def _linear(types: Sequence[Type], attrs: Attrs) -> tuple[Type, ...]:
    x, weight, bias = types
    if weight.rank != 2 or x.rank < 1:
        raise ShapeError(f"weight has rank {weight.rank} and x rank {x.rank}, expected 2 and at least 1")
    if x.shape[-1] != weight.shape[1]:
        raise ShapeError(f"x has {x.shape[-1]} features and the weight takes {weight.shape[1]}")
    result = (*x.shape[:-1], weight.shape[0])
    if bias.shape not in (weight.shape[:1], result):
        raise ShapeError(f"bias has shape {bias.shape}, expected {weight.shape[:1]} or {result}")
    return (Type(result),)


def _synapse(types: Sequence[Type], attrs: Attrs) -> tuple[Type, ...]:
    v, mu, *others = types
    if mu.rank != 2 or v.rank < 1 or v.shape[-1] != mu.shape[0]:
        raise ShapeError(
            f"v has shape {v.shape} and mu {mu.shape}, expected (..., sources) and (sources, targets)"
        )
    for name, t in zip(("sigma", "w", "we", "mask"), others, strict=True):
        if t.shape != mu.shape:
            raise ShapeError(f"{name} has shape {t.shape}, expected {mu.shape}")
    result = Type((*v.shape[:-1], mu.shape[1]))
    return (result, result)


def _reduce(types: Sequence[Type], attrs: Attrs) -> tuple[Type, ...]:
    shape = list(types[0].shape)
    axis = axis_of(len(shape), attrs["axis"])
    if attrs["keepdims"]:
        shape[axis] = 1
    else:
        del shape[axis]
    return (Type(tuple(shape)),)


def _reshape(types: Sequence[Type], attrs: Attrs) -> tuple[Type, ...]:
    new = Type(tuple(attrs["shape"]), types[0].precision)
    if new.size != types[0].size:
        raise ShapeError(f"{types[0].shape} has {types[0].size} elements and {new.shape} has {new.size}")
    return (new,)


def _permute(types: Sequence[Type], attrs: Attrs) -> tuple[Type, ...]:
    dims = tuple(attrs["dims"])
    if sorted(dims) != list(range(types[0].rank)):
        raise ShapeError(f"{dims} is no permutation of the {types[0].rank} axes")
    return (Type(tuple(types[0].shape[d] for d in dims), types[0].precision),)


def _slice(types: Sequence[Type], attrs: Attrs) -> tuple[Type, ...]:
    shape = list(types[0].shape)
    axis = axis_of(len(shape), attrs["axis"])
    start, stop, step = attrs["start"], attrs["stop"], attrs["step"]
    if not (0 <= start < stop <= shape[axis] and step >= 1):
        raise ShapeError(f"[{start}:{stop}:{step}] is empty or outside axis {axis} of {types[0].shape}")
    shape[axis] = -(-(stop - start) // step)
    return (Type(tuple(shape), types[0].precision),)


def _concat(types: Sequence[Type], attrs: Attrs) -> tuple[Type, ...]:
    axis = axis_of(types[0].rank, attrs["axis"])
    rest = [t.shape[:axis] + t.shape[axis + 1 :] for t in types]
    if any(t.rank != types[0].rank for t in types) or any(r != rest[0] for r in rest):
        raise ShapeError(f"shapes {[t.shape for t in types]} differ outside axis {axis}")
    shape = list(types[0].shape)
    shape[axis] = sum(t.shape[axis] for t in types)
    return (Type(tuple(shape)),)


def _broadcast(types: Sequence[Type], attrs: Attrs) -> tuple[Type, ...]:
    shape = tuple(attrs["shape"])
    if broadcast_shapes(types[0].shape, shape) != shape:
        raise ShapeError(f"{types[0].shape} does not broadcast to {shape}")
    return (Type(shape, types[0].precision),)


def _constant(types: Sequence[Type], attrs: Attrs) -> tuple[Type, ...]:
    return (Type(attrs["value"].shape),)


def scan_parts(values: Sequence[Any], attrs: Attrs) -> tuple[Sequence[Any], Sequence[Any], Sequence[Any]]:
    """A scan's operands (or its body's inputs) split into carries, scanned and captured ones."""
    c, s = attrs["carries"], attrs["scanned"]
    return values[:c], values[c : c + s], values[c + s :]


def _scan(types: Sequence[Type], attrs: Attrs) -> tuple[Type, ...]:
    body: Graph = attrs["body"]
    carries, scanned, _ = scan_parts(types, attrs)
    count = attrs["trip_count"]
    if count < 1:
        raise ShapeError(f"trip_count is {count}, expected at least 1")
    if min(attrs["carries"], attrs["scanned"]) < 0 or attrs["carries"] + attrs["scanned"] > len(types):
        raise ShapeError(
            f"{attrs['carries']} carries and {attrs['scanned']} scanned operands of {len(types)}"
        )
    if len(attrs["in_axes"]) != attrs["scanned"]:
        raise ShapeError(f"{attrs['scanned']} operands are scanned and in_axes names {len(attrs['in_axes'])}")
    if len(body.outputs) < attrs["carries"]:
        raise ShapeError(
            f"the body returns {len(body.outputs)} values and there are {attrs['carries']} carries"
        )
    if len(body.inputs) != len(types):
        raise ShapeError(f"the body takes {len(body.inputs)} inputs and the scan has {len(types)} operands")
    if body.states:
        raise ShapeError("the body of a scan has states of its own")
    for i, (t, axis) in enumerate(zip(scanned, attrs["in_axes"], strict=True)):
        if t.shape[axis_of(t.rank, axis)] != count:
            raise ShapeError(
                f"scanned operand {i} has shape {t.shape}: axis {axis} is not trip_count = {count}"
            )
    expected = [t.shape for t in types]
    for i, axis in enumerate(attrs["in_axes"]):
        shape = scanned[i].shape
        a = axis_of(len(shape), axis)
        expected[len(carries) + i] = shape[:a] + shape[a + 1 :]
    for value, shape in zip(body.inputs, expected, strict=True):
        if value.shape != shape:
            raise ShapeError(f"body input %{value.name} has shape {value.shape}, expected {shape}")
    for i, (t, value) in enumerate(zip(carries, body.outputs, strict=False)):
        if value.shape != t.shape:
            raise ShapeError(f"carry {i} has shape {t.shape} and the body returns {value.shape}")
    stacked = body.outputs[len(carries) :]
    if len(stacked) != len(attrs["out_axes"]):
        raise ShapeError(
            f"the body has {len(stacked)} stacked outputs and out_axes names {len(attrs['out_axes'])}"
        )
    results = [Type(t.shape) for t in carries]
    for value, axis in zip(stacked, attrs["out_axes"], strict=True):
        a = axis_of(value.type.rank + 1, axis)
        results.append(Type((*value.shape[:a], count, *value.shape[a:])))
    return tuple(results)


# ---------------------------------------------------------------- meanings


def sigmoid(x: Array) -> Array:
    """1 / (1 + e^-x) without overflow."""
    e = np.exp(-np.abs(x))
    return np.where(x < 0, e, np.ones_like(e)) / (1 + e)


def _erf(x: Array) -> Array:
    from math import erf

    return np.vectorize(erf, otypes=[np.float64])(x).astype(x.dtype)


def _linear_value(operands: Sequence[Array], attrs: Attrs) -> tuple[Array, ...]:
    """Equal vectors give equal results, as a value that is the same at every step must: a BLAS does not promise it."""
    x, weight, bias = operands
    shape = (*x.shape[:-1], len(weight))
    for axis in range(x.ndim - 1):
        first = x.take([0], axis) if x.shape[axis] > 1 else x
        x = first if (x == first).all() else x
    return (np.broadcast_to(x @ weight.T, shape) + bias,)


def _synapse_value(operands: Sequence[Array], attrs: Attrs) -> tuple[Array, ...]:
    v, mu, sigma, w, we, mask = operands
    s = sigmoid(sigma * (v[..., :, None] - mu)) * (mask != 0)
    return (s * we).sum(-2), (s * w).sum(-2)


def _ltc_update_value(operands: Sequence[Array], attrs: Attrs) -> tuple[Array, ...]:
    v, num, den, leak, conductance, cm, h = operands
    n, d = leak + num, conductance + den
    return (v + (h * (n - d * v)) / (cm + h * d),)


def scan_value(
    operands: Sequence[Array], attrs: Attrs, run_body: Callable[[Sequence[Array]], Sequence[Array]]
) -> tuple[Array, ...]:
    """The meaning of a scan, for a given meaning of its body."""
    carries, scanned, captured = scan_parts(list(operands), attrs)
    stacked: list[list[Array]] = [[] for _ in attrs["out_axes"]]
    for t in range(attrs["trip_count"]):
        slices = [np.take(x, t, axis) for x, axis in zip(scanned, attrs["in_axes"], strict=True)]
        results = run_body([*carries, *slices, *captured])
        carries = results[: len(carries)]
        for column, y in zip(stacked, results[len(carries) :], strict=True):
            column.append(y)
    return (*carries, *(np.stack(c, axis) for c, axis in zip(stacked, attrs["out_axes"], strict=True)))


def _scan_value(operands: Sequence[Array], attrs: Attrs) -> tuple[Array, ...]:
    from ltc_compiler.ir.run import evaluate

    return scan_value(operands, attrs, lambda inputs: evaluate(attrs["body"], inputs))


def _slice_value(operands: Sequence[Array], attrs: Attrs) -> tuple[Array, ...]:
    x = operands[0]
    index: list[Any] = [slice(None)] * x.ndim
    index[attrs["axis"]] = slice(attrs["start"], attrs["stop"], attrs["step"])
    return (x[tuple(index)],)


def _maximum(a: Array, b: Array) -> Array:
    return np.where(np.isnan(a) | np.isnan(b), np.nan, np.where(a > b, a, b)).astype(a.dtype)


def _minimum(a: Array, b: Array) -> Array:
    return np.where(np.isnan(a) | np.isnan(b), np.nan, np.where(a < b, a, b)).astype(a.dtype)


UNARY: dict[str, tuple[Callable[[Array], Array], str]] = {
    "neg": (np.negative, "-x"),
    "abs": (np.abs, "|x|"),
    "relu": (lambda x: _maximum(x, np.zeros_like(x)), "max(x, 0)"),
    "sqrt": (np.sqrt, "square root"),
    "sigmoid": (sigmoid, "1 / (1 + e^-x)"),
    "tanh": (np.tanh, "hyperbolic tangent"),
    "exp": (np.exp, "e^x"),
    "exp2": (np.exp2, "2^x"),
    "log": (np.log, "natural logarithm"),
    "softplus": (lambda x: np.logaddexp(x, np.zeros_like(x)), "log(1 + e^x)"),
    "silu": (lambda x: x * sigmoid(x), "x * sigmoid(x)"),
    "gelu": (lambda x: 0.5 * x * (1 + _erf(x * 2**-0.5)), "x * Phi(x)"),
    "gelu_tanh": (
        lambda x: 0.5 * x * (1 + np.tanh((2 / np.pi) ** 0.5 * (x + 0.044715 * x**3))),
        "tanh form of gelu",
    ),
    "reciprocal": (lambda x: 1 / x, "1 / x"),
    "rsqrt": (lambda x: 1 / np.sqrt(x), "1 / sqrt(x)"),
    "floor": (np.floor, "the largest whole number that is not above x"),
    "round": (np.rint, "the nearest whole number, of two the even one"),
    "sin": (np.sin, "sine"),
    "cos": (np.cos, "cosine"),
    "erf": (_erf, "error function"),
    "atan": (np.arctan, "arc tangent"),
}

BINARY: dict[str, tuple[Callable[[Array, Array], Array], str]] = {
    "add": (np.add, "a + b"),
    "sub": (np.subtract, "a - b"),
    "mul": (np.multiply, "a * b"),
    "div": (np.divide, "a / b"),
    "min": (_minimum, "NaN if either is NaN, else the smaller"),
    "max": (_maximum, "NaN if either is NaN, else the larger"),
    "gt": (lambda a, b: (a > b).astype(a.dtype), "1 where a > b, else 0"),
    "ge": (lambda a, b: (a >= b).astype(a.dtype), "1 where a >= b, else 0"),
    "lt": (lambda a, b: (a < b).astype(a.dtype), "1 where a < b, else 0"),
    "le": (lambda a, b: (a <= b).astype(a.dtype), "1 where a <= b, else 0"),
    "eq": (lambda a, b: (a == b).astype(a.dtype), "1 where a == b, else 0"),
    "fmod": (
        np.fmod,
        "a less the whole multiple of b towards 0; on the machine NaN for |a / b| from 2^40 on",
    ),
    "ne": (lambda a, b: (a != b).astype(a.dtype), "1 where a != b, else 0"),
}


def _rows() -> list[Op]:
    rows = [
        Op(
            "constant",
            0,
            {"value": np.ndarray},
            _constant,
            lambda x, a: (a["value"],),
            "constant",
            "a constant array",
        )
    ]
    for name, (unary, doc) in UNARY.items():
        rows.append(Op(name, 1, {}, _pointwise, lambda x, a, f=unary: (f(x[0]),), "pointwise", doc))  # type: ignore[misc]
    for name, (binary, doc) in BINARY.items():
        rows.append(Op(name, 2, {}, _pointwise, lambda x, a, f=binary: (f(x[0], x[1]),), "pointwise", doc))  # type: ignore[misc]
    rows += [
        Op(
            "select",
            3,
            {},
            _pointwise,
            lambda x, a: (np.where(x[0] != 0, x[1], x[2]),),
            "pointwise",
            "b where a is not 0, else c",
        ),
        Op(
            "linear",
            3,
            {},
            _linear,
            _linear_value,
            "linear",
            "x (..., K), constant weight (M, K), bias: constant (M), or a value (..., M) to add -> (..., M)",
        ),
        Op(
            "ltc_update",
            7,
            {},
            _pointwise,
            _ltc_update_value,
            "pointwise",
            "v, num, den, leak, conductance, cm, h -> v + (h * (N - D * v)) / (cm + h * D), with N = leak + num and "
            "D = conductance + den: one unfold of a liquid time-constant network",
        ),
        Op(
            "synapse",
            6,
            {},
            _synapse,
            _synapse_value,
            "linear",
            "v (..., S), constants mu, sigma, w, we = w * erev, mask (S, T) -> sums over the sources of s * we and "
            "s * w, (..., T) each, with s = sigmoid(sigma * (v - mu)) where mask is not 0",
        ),
        Op(
            "sum",
            1,
            {"axis": int, "keepdims": bool},
            _reduce,
            lambda x, a: (x[0].sum(a["axis"], keepdims=a["keepdims"]),),
            "reduce",
            "sum over one axis",
        ),
        Op(
            "amax",
            1,
            {"axis": int, "keepdims": bool},
            _reduce,
            lambda x, a: (x[0].max(a["axis"], keepdims=a["keepdims"]),),
            "reduce",
            "maximum over one axis",
        ),
        Op(
            "reshape",
            1,
            {"shape": tuple},
            _reshape,
            lambda x, a: (x[0].reshape(a["shape"]),),
            "reshape",
            "the same elements in row-major order",
        ),
        Op(
            "permute",
            1,
            {"dims": tuple},
            _permute,
            lambda x, a: (x[0].transpose(a["dims"]),),
            "permute",
            "result axis i is operand axis dims[i]",
        ),
        Op(
            "slice",
            1,
            {"axis": int, "start": int, "stop": int, "step": int},
            _slice,
            _slice_value,
            "slice",
            "elements start, start + step, ... below stop of one axis",
        ),
        Op(
            "concat",
            (1, 1 << 16),
            {"axis": int},
            _concat,
            lambda x, a: (np.concatenate(x, a["axis"]),),
            "concat",
            "operands side by side on one axis",
        ),
        Op(
            "broadcast",
            1,
            {"shape": tuple},
            _broadcast,
            lambda x, a: (np.broadcast_to(x[0], a["shape"]),),
            "broadcast",
            "repeat to a shape, by NumPy's rule",
        ),
        Op(
            "scan",
            (1, 1 << 16),
            {
                "body": Graph,
                "carries": int,
                "scanned": int,
                "trip_count": int,
                "in_axes": tuple,
                "out_axes": tuple,
            },
            _scan,
            _scan_value,
            "scan",
            "operands are initial carries, scanned arrays, captured values; the body maps (carries, slices, captured) "
            "to (carries, outputs), trip_count times; results are the final carries and the stacked outputs",
        ),
    ]
    return rows


OPS: dict[str, Op] = {op.name: op for op in _rows()}
POINTWISE = frozenset(op.name for op in OPS.values() if op.streaming == "pointwise")


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
        attrs = {**attrs, **_positive_axes(operands, attrs)}
    try:
        types = check_operation(op, [v.type for v in operands], attrs)
    except ShapeError as error:
        raise GraphError(
            f"{op}: {error}", where=str(source), remedy="mend the shapes or attributes"
        ) from None
    return graph.append(op, operands, attrs, types, source, name)


def _positive_axes(operands: Sequence[Value], attrs: Attrs) -> Attrs:
    scanned = scan_parts(operands, attrs)[1]
    stacked = attrs["body"].outputs[attrs["carries"] :]
    in_axes = (a + v.type.rank * (a < 0) for v, a in zip(scanned, attrs["in_axes"], strict=False))
    out_axes = (a + (v.type.rank + 1) * (a < 0) for v, a in zip(stacked, attrs["out_axes"], strict=False))
    complete = len(scanned) == len(attrs["in_axes"]) and len(stacked) == len(attrs["out_axes"])
    return {"in_axes": tuple(in_axes), "out_axes": tuple(out_axes)} if complete else {}
