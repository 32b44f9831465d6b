"""Pieces of random graphs: the builder that grows one, and operations that move data or look along the stream."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass, field

import numpy as np

from ltc_compiler.ir.graph import Graph, Source, Type, Value
from ltc_compiler.ir.ops import add, add_many

SIZES = (1, 2, 3, 5, 7, 8, 9, 15, 16, 17, 31, 32, 33, 63, 64, 65, 70)
MAX_ELEMENTS = 1 << 12


@dataclass
class Builder:
    """A graph that grows. `pool` holds values to read; a streamable graph keeps the stream on axis 0 of each."""

    rng: np.random.Generator
    graph: Graph
    streamable: bool
    ops: Collection[str] | None
    depth: int = 0
    steps: int = 0
    sizes: tuple[int, ...] = SIZES
    pool: list[Value] = field(default_factory=list)
    line: int = 0
    specials: float = 0.1  # constants that are 0, -0, 1 or 0.5 throughout, of all
    ended: bool = (
        False  # whether something depends on the end of the stream: there is no last step in it then
    )

    def chance(self, p: float) -> bool:
        return bool(self.rng.random() < p)

    def size(self) -> int:
        return int(self.rng.choice(self.sizes))

    def allowed(self, op: str) -> bool:
        return self.ops is None or op in self.ops

    def pick(self, ready: Callable[[Value], bool] = lambda v: True) -> Value | None:
        found = [v for v in self.pool if ready(v)]
        return found[int(self.rng.integers(len(found)))] if found else None

    def place(self) -> Source:
        self.line += 1
        return Source("net", "model.py", self.line, f"line {self.line}")

    def weights(self, *shape: int) -> Value:
        scale = 1.0 / max(1, shape[-1]) ** 0.5 if shape else 1.0
        array = self.rng.uniform(-1.5, 1.5, shape) * scale
        if self.chance(self.specials):
            array = np.full(shape, float(self.rng.choice([0.0, -0.0, 1.0, 0.5])))
        return self.graph.constant(array, source=self.place())

    def keep(self, *values: Value) -> None:
        self.pool += [v for v in values if v.type.size <= MAX_ELEMENTS]


def _reshape(b: Builder) -> None:
    x = b.pick()
    if x is None:
        return
    first = int(b.streamable)
    rest = list(x.shape[first:])
    if len(rest) >= 2 and b.chance(0.5):
        rest[:2] = [rest[0] * rest[1]]
    else:
        rest.insert(int(b.rng.integers(0, len(rest) + 1)), 1)
    if len(rest) <= 3:
        b.keep(add(b.graph, "reshape", x, shape=(*x.shape[:first], *rest), source=b.place()))


def _permute(b: Builder) -> None:
    x = b.pick(lambda v: v.type.rank >= 2)
    if x is None:
        return
    first = int(b.streamable)
    dims = (*range(first), *(first + int(d) for d in b.rng.permutation(x.type.rank - first)))
    b.keep(add(b.graph, "permute", x, dims=dims, source=b.place()))


def _slice(b: Builder) -> None:
    x = b.pick(lambda v: v.type.rank > b.streamable)
    if x is None:
        return
    axis = int(b.rng.integers(int(b.streamable), x.type.rank))
    start = int(b.rng.integers(0, x.shape[axis]))
    stop = int(b.rng.integers(start + 1, x.shape[axis] + 1))
    step = int(b.rng.choice([1, 1, 1, 2, 3]))
    b.keep(add(b.graph, "slice", x, axis=axis, start=start, stop=stop, step=step, source=b.place()))


def _concat(b: Builder) -> None:
    x = b.pick(lambda v: v.type.rank > b.streamable)
    if x is None:
        return
    axis = int(b.rng.integers(int(b.streamable), x.type.rank))
    other = b.pick(lambda v: v.type.rank == x.type.rank and all(
        i == axis or d == e for i, (d, e) in enumerate(zip(v.shape, x.shape, strict=True))))  # fmt: skip
    b.keep(add(b.graph, "concat", x, other or x, axis=axis, source=b.place()))


def _padded(b: Builder) -> None:
    """Constants before and behind a value: zeros of either sign, ones, or some of each, of any width."""
    x = b.pick(lambda v: v.type.rank > b.streamable)
    if x is None:
        return
    axis = x.type.rank - 1 if b.chance(0.7) else int(b.rng.integers(int(b.streamable), x.type.rank))
    before, behind = (filling(b, x.shape, axis) if b.chance(p) else [] for p in (0.3, 0.8))
    if before or behind:
        b.keep(add(b.graph, "concat", *before, x, *behind, axis=axis, source=b.place()))


def filling(b: Builder, shape: tuple[int, ...], axis: int) -> list[Value]:
    """One or two constants for a concat along `axis`, the same at every step of a stream."""
    parts = []
    for _ in range(int(b.rng.integers(1, 3))):
        wide = (*shape[:axis], int(b.rng.choice([1, 2, 3, 5, 9, 11])), *shape[axis + 1 :])
        some = ([0.0], [0.0], [-0.0], [1.0], [0.0, -0.0], [0.0, 1.0])[int(b.rng.integers(6))]
        array = b.rng.choice(some, wide[1:] if b.streamable else wide)
        parts.append(b.graph.constant(np.broadcast_to(array, wide).copy(), source=b.place()))
    return parts


def _broadcast(b: Builder) -> None:
    x = b.pick(lambda v: v.type.rank > b.streamable and 1 in v.shape[int(b.streamable) :])
    if x is None:
        return
    first = int(b.streamable)
    shape = tuple(b.size() if d == 1 and i >= first and b.chance(0.7) else d for i, d in enumerate(x.shape))
    if np.prod(shape) <= MAX_ELEMENTS:
        b.keep(add(b.graph, "broadcast", x, shape=shape, source=b.place()))


def _turned(b: Builder) -> None:
    """The stream on another axis than the first while something is done to it, and back on the first then."""
    x = b.pick(lambda v: 2 <= v.type.rank <= 3)
    if x is None or not b.streamable:
        return
    rank = x.type.rank
    at = int(b.rng.integers(1, rank))
    dims = [*range(1, rank)]
    dims.insert(at, 0)
    y = add(b.graph, "permute", x, dims=tuple(dims), source=b.place())
    other = int(b.rng.choice([a for a in range(rank) if a != at]))
    kind = str(b.rng.choice(["reduce", "slice", "concat", "unsqueeze", "linear", "row"]))
    if kind == "reduce":
        y = add(b.graph, "sum", y, axis=other, keepdims=True, source=b.place())
    elif kind == "slice":
        size = y.shape[other]
        y = add(b.graph, "slice", y, axis=other, start=size // 2, stop=size, step=1, source=b.place())
    elif kind == "concat":
        y = add(b.graph, "concat", y, y, axis=other, source=b.place())
    elif kind == "linear" and at != rank - 1:
        weights = b.weights(5, y.shape[-1]), b.weights(5)
        y = add(b.graph, "linear", y, *weights, source=b.place())
    elif kind == "row":
        y = add(
            b.graph,
            "mul",
            y,
            b.weights(*(1 if a == at else n for a, n in enumerate(y.shape))),
            source=b.place(),
        )
    elif kind == "unsqueeze":
        place = int(b.rng.integers(0, rank + 1))
        y = add(b.graph, "reshape", y, shape=(*y.shape[:place], 1, *y.shape[place:]), source=b.place())
        at += place <= at
        rank += 1
        if b.chance(0.7):
            wide = (*y.shape[:place], 3, *y.shape[place + 1 :])
            y = add(b.graph, "broadcast", y, shape=wide, source=b.place())
    dims = [at, *(a for a in range(rank) if a != at)]
    b.keep(add(b.graph, "permute", y, dims=tuple(dims), source=b.place()))


def _cut(b: Builder) -> None:
    """A part of the sequence: it begins later, or ends before the end."""
    x = b.pick(lambda v: v.type.rank >= 2 and v.shape[0] >= 4)
    if x is None or not b.streamable or b.depth:
        return
    start, end = (int(n) for n in b.rng.integers(0, 2, 2))
    stop = x.shape[0] - end
    b.keep(add(b.graph, "slice", x, axis=0, start=start, stop=stop, step=1, source=b.place()))


def _window(b: Builder) -> None:
    """A convolution over the stream, one weight a tap: causal if padded on the left, else late. What is padded more
    leaves room for further windows; what is padded on the right needs the end of the stream.
    """
    x = b.pick(lambda v: v.type.rank >= 2 and v.shape[0] >= 3)
    if x is None or not b.streamable or b.depth:
        return
    taps = int(b.rng.integers(1, 4))
    rows = int(
        b.rng.choice([0, taps, taps, int(b.rng.integers(0, taps + 1)), int(b.rng.integers(0, 3 * taps))])
    )
    behind = int(b.rng.choice([0, 0, 0, taps, int(b.rng.integers(0, taps + 2))]))
    b.ended |= behind > 0
    before, after = ([_constant_steps(b, n, x)] if n else [] for n in (rows, behind))
    padded = x
    if before or after:
        padded = add(b.graph, "concat", *before, x, *after, axis=0, source=b.place())
    length = padded.shape[0] - taps
    if length < 2:
        return
    total: Value | None = None
    for k in range(taps + 1):
        tap = add(b.graph, "slice", padded, axis=0, start=k, stop=k + length, step=1, source=b.place())
        term = add(b.graph, "mul", tap, b.weights(x.shape[-1]), source=b.place())
        total = term if total is None else add(b.graph, "add", total, term, source=b.place())
    assert total is not None
    b.pool.append(total)


def _joined(b: Builder) -> None:
    """Values side by side, two or three, of one width or of several, and a product over them: by itself, or in a cell
    that reads them step by step."""
    x = b.pick(lambda v: v.type.rank >= 2 and v.shape[0] > 1)
    if x is None or not (b.allowed("linear") and b.allowed("slice")) or b.depth:
        return
    count, most = int(b.rng.integers(2, 4)), min(x.shape[-1], 33)
    width = int(b.rng.integers(1, most + 1))
    widths = [width if b.chance(0.8) else int(b.rng.integers(1, most + 1)) for _ in range(count)]
    starts = [int(b.rng.integers(0, x.shape[-1] - w + 1)) for w in widths]
    axis, place = x.type.rank - 1, b.place()
    parts = [add(b.graph, "slice", x, axis=axis, start=s, stop=s + w, step=1, source=place)
             for s, w in zip(starts, widths, strict=True)]  # fmt: skip
    parts[0] = add(b.graph, "tanh", parts[0], source=b.place())
    both = add(b.graph, "concat", *parts, axis=axis, source=b.place())
    b.keep(_cell(b, both) if b.allowed("scan") and b.chance(0.7) else _product(b, b.graph, both))


def _product(b: Builder, graph: Graph, x: Value) -> Value:
    weights = b.rng.uniform(-1, 1, (5, x.shape[-1])) / x.shape[-1] ** 0.5, b.rng.uniform(-1, 1, 5)
    return add(graph, "linear", x, *map(graph.constant, weights), source=b.place())


def _cell(b: Builder, x: Value) -> Value:
    """h' = W x + h / 2 along axis 0: a rounding to bf16 would hide the last bit of a sum."""
    body = Graph("cell")
    state = (*x.shape[1:-1], 5)
    h, now = body.add_input(Type(state), "h"), body.add_input(Type(x.shape[1:]), "x")
    half = add(body, "mul", h, body.constant(0.5))
    body.add_output(add(body, "add", _product(b, body, now), half))
    body.add_output(body.outputs[0])
    attrs = {
        "body": body,
        "carries": 1,
        "scanned": 1,
        "trip_count": x.shape[0],
        "in_axes": (0,),
        "out_axes": (0,),
    }
    return add_many(b.graph, "scan", [b.graph.constant(np.zeros(state)), x], attrs, b.place())[1]


def _constant_steps(b: Builder, count: int, x: Value) -> Value:
    """Constants for some steps more of a stream: the same in each of them, or not."""
    steps = 1 if b.chance(0.6) else count
    array = b.rng.uniform(-1, 1, (steps, *x.shape[1:])) * b.chance(0.5)
    return b.graph.constant(np.broadcast_to(array, (count, *x.shape[1:])).copy(), source=b.place())


def _beside(b: Builder) -> None:
    """Values beside values, beside constants, or beside each other for a product."""
    (_concat, _padded, _joined)[int(b.rng.integers(3))](b)


MOVES: dict[str, tuple[Collection[str], Callable[[Builder], None]]] = {
    "reshape": (("reshape",), _reshape),
    "permute": (("permute",), _permute),
    "slice": (("slice",), _slice),
    "concat": (("concat",), _beside),
    "broadcast": (("broadcast",), _broadcast),
    "window": (("slice",), _window),
    "turned": (("permute",), _turned),
    "cut": (("slice",), _cut),
}
