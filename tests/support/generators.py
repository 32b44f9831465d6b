"""Random NNIR graphs for property tests: general ones over all ops, and ones that can be streamed along axis 0.

`random_graph(rng, ...)` is a plain function of a numpy Generator, so that a hypothesis integer is its seed. Values stay
of moderate size, so that fp64 comparisons need no special care; sizes cross the block sizes 8, 16, 32 and 64.
"""

from __future__ import annotations

from collections.abc import Callable, Collection

import numpy as np
from graph_builder import MOVES, SIZES, Builder

from ltc_compiler.ir.graph import Array, Graph, Precision, Role, Type, Value
from ltc_compiler.ir.ops import BINARY, BY_ARITY, TERNARY, UNARY, add, add_many


def random_graph(
    rng: np.random.Generator,
    streamable: bool = False,
    ops: Collection[str] | None = None,
    nodes: int | None = None,
    sizes: tuple[int, ...] = SIZES,
    steps: int | None = None,
    wishes: bool = False,
    specials: float = 0.1,
    ports: int = 2,
) -> Graph:
    """A graph of some random nodes, all of ops the machine has; `ops` restricts them to a set of names.

    streamable: every input has the same number of steps on axis 0, and every output streams along some axis or is as
    of the last step, so that `streaming_transform(graph, 0)` accepts it. sizes: the axis sizes to choose from. wishes:
    half of the graphs have nodes that ask for a precision, so that they are far from their fp64 meaning. specials: the
    part of the constants that are 0, -0, 1 or 0.5 throughout. ports: inputs, at most.
    """
    graph = Graph("random")
    steps = int(rng.integers(3, 9)) if steps is None else steps
    builder = Builder(rng, graph, streamable, ops, steps=steps, sizes=sizes, specials=specials)
    for i in range(int(rng.integers(1, ports + 1))):
        rank = int(rng.integers(1, 3))
        shape = tuple(builder.size() if j == rank - 1 else min(builder.size(), 5) for j in range(rank))
        role = Role.ELAPSED_TIME if i == 1 and rng.random() < 0.3 else Role.PLAIN
        builder.keep(graph.add_input(Type((steps, *shape) if streamable else shape), f"x{i}", role))
    _grow(builder, int(rng.integers(3, 13)) if nodes is None else nodes)
    read = {v for n in graph.nodes for v in n.operands}
    ends = [v for v in builder.pool if v not in read and v.node is not None] or [builder.pool[-1]]
    for value in ends[:4]:
        graph.add_output(value)
    if streamable:
        _last_step(builder, ends[0])
    if wishes and rng.random() < 0.5:
        wish(rng, graph)
    return graph


def wish(rng: np.random.Generator, graph: Graph) -> None:
    """Precisions that the user asks for, at some of the nodes."""
    fp32, bf16, fp8 = Precision.FP32, Precision.BF16, Precision.FP8_E4M3
    for node in graph.walk():
        if rng.random() < 0.4:
            some = {"linear": (fp32, fp8), "synapse": (fp32,)}.get(node.op, (bf16, bf16, fp32))
            node.precision = some[int(rng.integers(len(some)))]


def random_inputs(rng: np.random.Generator, graph: Graph) -> list[Array]:
    """Inputs in [-2, 2]; elapsed times in [0, 1]."""
    return [rng.uniform(0 if v.role is Role.ELAPSED_TIME else -2, 1 if v.role is Role.ELAPSED_TIME else 2, v.shape)
            for v in graph.inputs]  # fmt: skip


def _grow(b: Builder, count: int) -> None:
    kinds = [
        k
        for k, (names, _) in _GROW.items()
        if any(map(b.allowed, names)) and (b.streamable or k not in ("turned", "cut"))
    ]
    made = attempts = 0
    while made < count and attempts < 20 * count:
        attempts += 1
        kind = kinds[int(b.rng.integers(len(kinds)))]
        before = len(b.pool)
        _GROW[kind][1](b)
        made += len(b.pool) > before
    assert b.pool, "an empty graph"


def _last_step(b: Builder, value: Value) -> None:
    if value.type.rank and value.shape[0] > 1 and b.allowed("slice") and not b.ended and b.chance(0.4):
        size = value.shape[0]
        last = add(b.graph, "slice", value, axis=0, start=size - 1, stop=size, step=1, source=b.place())
        b.graph.add_output(last, "last")


def _tame(b: Builder, x: Value) -> Value:
    """A bounded value, for ops that grow fast."""
    return add(b.graph, "tanh", x, source=b.place()) if b.allowed("tanh") else x


def _grows(meaning: Callable[..., Array], arity: int) -> bool:
    """Whether a chain of such ops leaves moderate sizes behind: more than a product does."""
    return bool(np.abs(meaning(*[np.array(8.0)] * arity)) > 64)


GROWING = {op for n, rows in BY_ARITY.items() for op, (meaning, _) in rows.items() if _grows(meaning, n)}
GROWING.add("gelu_tanh")  # its meaning has a cube inside


def _unary(b: Builder) -> None:
    op = str(b.rng.choice([u for u in UNARY if b.allowed(u)] or ["relu"]))
    x = b.pick()
    if x is None or not b.allowed(op):
        return
    if op in GROWING:
        x = _tame(b, x)
    if op in ("sqrt", "log", "reciprocal", "rsqrt"):
        x = add(b.graph, "add", add(b.graph, "abs", x), b.graph.constant(0.5))
    b.keep(add(b.graph, op, x, source=b.place()))


def _binary(b: Builder) -> None:
    op = str(b.rng.choice([u for u in BINARY if b.allowed(u)] or ["add"]))
    x = b.pick()
    if x is None or not b.allowed(op):
        return
    y = _partner(b, x)
    if op in GROWING:
        x, y = _tame(b, x), _tame(b, y)
    if op in ("div", "fmod"):
        y = add(b.graph, "add", add(b.graph, "abs", y), b.graph.constant(0.5))
    operands = (y, x) if op not in ("div", "fmod") and b.chance(0.3) else (x, y)
    b.keep(add(b.graph, op, *operands, source=b.place()))


def _partner(b: Builder, x: Value) -> Value:
    """Something that broadcasts with x: of the same shape, a row, a scalar, or a constant."""
    if b.chance(0.5):
        other = b.pick(lambda v: v.shape == x.shape)
        if other is not None and other is not x:
            return other
    shape = tuple(1 if b.chance(0.4) or (b.streamable and i == 0) else d for i, d in enumerate(x.shape))
    return b.weights(*shape[int(b.rng.integers(0, len(shape) + 1)) :])


def _ternary(b: Builder) -> None:
    op = str(b.rng.choice([t for t in TERNARY if b.allowed(t)] or ["select"]))
    x = b.pick()
    if x is not None and b.allowed(op):
        first = add(b.graph, "gt", x, b.graph.constant(0.25), source=b.place())
        x = _tame(b, x) if op in GROWING else x
        b.keep(add(b.graph, op, first, x, _partner(b, x), source=b.place()))


def _linear(b: Builder) -> None:
    x = b.pick(lambda v: v.type.rank > b.streamable)
    if x is not None:
        m = b.size()
        b.keep(add(b.graph, "linear", x, b.weights(m, x.shape[-1]), b.weights(m), source=b.place()))


def _layer(b: Builder) -> None:
    """A product, often added to something, and often clipped: the matrix unit does all of it."""
    x = b.pick(lambda v: v.type.rank > b.streamable)
    if x is None or not b.allowed("add"):
        return
    m = b.size()
    bias = b.graph.constant(np.zeros(m)) if b.chance(0.7) else b.weights(m)
    y = add(b.graph, "linear", x, b.weights(m, x.shape[-1]), bias, source=b.place())
    other = b.pick(lambda v: v.shape == y.shape)
    if other is None and b.chance(0.7):
        other = add(b.graph, "linear", x, b.weights(m, x.shape[-1]), b.weights(m), source=b.place())
    if other is not None:
        y = add(b.graph, "add", *((y, other) if b.chance(0.5) else (other, y)), source=b.place())
    b.keep(add(b.graph, "relu", y, source=b.place()) if b.allowed("relu") and b.chance(0.6) else y)


def _synapse(b: Builder) -> None:
    x = b.pick(lambda v: v.type.rank > b.streamable)
    if x is None:
        return
    sources, targets = x.shape[-1], min(b.size(), 33)
    mask = (b.rng.random((sources, targets)) < 0.7).astype(np.float64)
    arrays = [b.rng.uniform(-1, 1, mask.shape), b.rng.uniform(0.5, 3, mask.shape),
              b.rng.uniform(0, 1, mask.shape), b.rng.uniform(-1, 1, mask.shape), mask]  # fmt: skip
    operands = (x, *(b.graph.constant(a) for a in arrays))
    b.keep(*add_many(b.graph, "synapse", operands, {}, b.place()))


def _ltc_update(b: Builder) -> None:
    """Operands whose denominator stays away from zero."""
    v = b.pick(lambda v: v.type.rank > b.streamable)
    if v is None:
        return
    num = b.pick(lambda x: x.shape == v.shape)
    assert num is not None
    square = add(b.graph, "mul", num, num, source=b.place())
    parameters = (b.graph.constant(b.rng.uniform(0.1, 1, v.shape[-1])) for _ in range(4))
    b.keep(add(b.graph, "ltc_update", v, num, square, *parameters, source=b.place()))


def _reduce(b: Builder) -> None:
    x = b.pick(lambda v: v.type.rank > b.streamable)
    op = str(b.rng.choice([o for o in ("sum", "amax") if b.allowed(o)] or ["sum"]))
    if x is not None and b.allowed(op):
        axis = int(b.rng.integers(int(b.streamable), x.type.rank))
        b.keep(add(b.graph, op, x, axis=axis, keepdims=b.chance(0.5), source=b.place()))


def _scan(b: Builder) -> None:
    """Along the stream (or the first axis), or a count of iterations within each step, as an ODE solver makes them."""
    x = b.pick(lambda v: 1 <= v.type.rank <= 2 + b.streamable and v.type.size <= 1 << 10)
    if x is None or b.depth >= 2:
        return
    along = x.type.rank > 1 and b.chance(0.6) and not (b.streamable and b.depth)
    count = x.shape[0] if along else int(b.rng.integers(1, 5))
    if count > 40:
        return
    body = Graph(f"body{b.depth}")
    inner = Builder(
        b.rng, body, b.streamable and not along, b.ops, b.depth + 1, b.steps, b.sizes, specials=b.specials
    )
    seen = x.shape[1:] if along else x.shape
    carry, slices = body.add_input(Type(seen), "h"), body.add_input(Type(seen), "x")
    inner.keep(carry, slices)
    start = b.graph.constant(np.full(seen, float(b.rng.uniform(-0.5, 0.5))), source=b.place())
    operands = [start, x]
    if b.chance(0.5):
        times = b.graph.constant(np.linspace(0, 1, count) if b.chance(0.5) else np.full(count, 0.25), "times")
        if not (b.streamable and along):
            operands.insert(1, times)
            body.inputs.insert(1, time := Value(Type(()), "t", None, 1))
            slices.index = 2
            wave = str(b.rng.choice(("sin", "cos")))
            moving = add(body, wave, time) if b.allowed(wave) else time
            inner.keep(add(body, "mul", carry, moving))
    _grow(inner, int(b.rng.integers(1, 4)))
    fit = inner.pick(lambda v: v.shape == seen and v.node is not None)
    moved = (
        add(body, "mul", slices, body.constant(0.5)) if b.streamable else slices
    )  # a carry that streams from the start
    total = add(body, "add", add(body, "add", carry, fit or slices), moved)
    if len(seen) > inner.streamable and b.allowed("linear") and b.chance(0.4):  # as a recurrent cell
        weights = inner.weights(seen[-1], seen[-1]), inner.weights(seen[-1])
        total = add(body, "add", total, add(body, "linear", carry, *weights))
    following = add(body, "tanh", total)
    body.add_output(following)
    output = inner.pick(lambda v: v.node is not None) if b.chance(0.5) else None
    if output is not None:
        body.add_output(output)
    scanned = len(operands) - 1 if along else len(operands) - 2
    results = add_many(b.graph, "scan", operands, {
        "body": body, "carries": 1, "scanned": scanned, "trip_count": count, "in_axes": (0,) * scanned,
        "out_axes": () if output is None else ((0 if along or not b.streamable else 1),)}, b.place())  # fmt: skip
    if b.streamable and along:
        b.keep(*results[1:])
        within = x.shape[0] <= b.steps and not b.ended  # else the final state comes after the last step
        if within and b.chance(0.3) and len(b.graph.outputs) < 4:
            b.graph.add_output(results[0])
    else:
        b.keep(*results)


_GROW: dict[str, tuple[Collection[str], Callable[[Builder], None]]] = {
    "unary": (UNARY, _unary),
    "binary": (BINARY, _binary),
    "ternary": (TERNARY, _ternary),
    "linear": (("linear",), _linear),
    "layer": (("linear",), _layer),
    "synapse": (("synapse",), _synapse),
    "ltc_update": (("ltc_update",), _ltc_update),
    "reduce": (("sum", "amax"), _reduce),
    **MOVES,
    "scan": (("scan",), _scan),
    "scan again": (("scan",), _scan),
}
