"""Converters of products and distances of tensors that are no plain matrix product, and of diagonals.

outer, tensordot, kron, cross; diagonals and traces; cosines and distances between vectors.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ltc_compiler.ir.graph import Value
from ltc_torch.fx.convert.emit import Emitter
from ltc_torch.fx.convert.linear import product
from ltc_torch.fx.registry import Refused, converts


@converts("outer", "ger")
def outer(c: Emitter, input: Value, other: Value) -> Value:
    return c.add("mul", c.unsqueeze(input, 1), c.unsqueeze(other, 0))


@converts("tensordot")
def tensordot(c: Emitter, a: Value, b: Value, dims: Any = 2, *_: Any, **__: Any) -> Value:
    """One matrix product: the axes that are summed last in `a` and first in `b`."""
    if isinstance(dims, int):
        left, right = list(range(len(a.shape) - dims, len(a.shape))), list(range(dims))
    else:
        left, right = ([int(d) for d in np.atleast_1d(side)] for side in dims)
    left, right = [d % len(a.shape) for d in left], [d % len(b.shape) for d in right]
    free_a = [d for d in range(len(a.shape)) if d not in left]
    free_b = [d for d in range(len(b.shape)) if d not in right]
    depth = math.prod(a.shape[d] for d in left)
    rows, columns = tuple(a.shape[d] for d in free_a), tuple(b.shape[d] for d in free_b)
    x = c.reshape(c.permute(a, [*free_a, *left]), (math.prod(rows), depth))
    y = c.reshape(c.permute(b, [*right, *free_b]), (depth, math.prod(columns)))
    return c.reshape(product(c, x, y), (*rows, *columns))


@converts("kron")
def kron(c: Emitter, input: Value, other: Value) -> Value:
    rank = max(len(input.shape), len(other.shape))
    a = c.reshape(input, (1,) * (rank - len(input.shape)) + input.shape)
    b = c.reshape(other, (1,) * (rank - len(other.shape)) + other.shape)
    pairs = [n for pair in zip(a.shape, b.shape, strict=True) for n in pair]
    left = c.reshape(a, [n for n in a.shape for n in (n, 1)])
    right = c.reshape(b, [n for n in b.shape for n in (1, n)])
    wide = c.broadcast(c.add("mul", left, right), pairs)
    return c.reshape(wide, [m * n for m, n in zip(a.shape, b.shape, strict=True)])


@converts("cross", "linalg_cross")
def cross(c: Emitter, input: Value, other: Value, dim: int | None = None) -> Value:
    """Along an axis of three; without `dim`, torch.cross takes the first such axis."""
    shape = np.broadcast_shapes(input.shape, other.shape)
    if dim is None:
        dim = -1 if c.target == "linalg_cross" else shape.index(3)
    axis = dim % len(shape)
    a, b = c.broadcast(input, shape), c.broadcast(other, shape)
    a1, a2 = (c.gather(a, axis, np.array(p)) for p in ([1, 2, 0], [2, 0, 1]))
    b1, b2 = (c.gather(b, axis, np.array(p)) for p in ([1, 2, 0], [2, 0, 1]))
    return c.add("sub", c.add("mul", a1, b2), c.add("mul", a2, b1))


@converts("addbmm")
def addbmm(
    c: Emitter, input: Value, batch1: Value, batch2: Value, *, beta: float = 1, alpha: float = 1
) -> Value:
    y = c.reduce("sum", product(c, batch1, batch2), [0], False)
    y = y if alpha == 1 else c.add("mul", y, alpha)
    return c.add("add", input if beta == 1 else c.add("mul", input, beta), y)


@converts("addr")
def addr(c: Emitter, input: Value, vec1: Value, vec2: Value, *, beta: float = 1, alpha: float = 1) -> Value:
    y = outer(c, vec1, vec2)
    y = y if alpha == 1 else c.add("mul", y, alpha)
    return c.add("add", input if beta == 1 else c.add("mul", input, beta), y)


# ---------------------------------------------------------------- diagonals


@converts("diagonal", "diag", "trace")
def diagonal(
    c: Emitter,
    input: Value,
    offset: int | None = None,
    dim1: int = 0,
    dim2: int = 1,
    *,
    diagonal: int = 0,
) -> Value:
    shift = diagonal if offset is None else int(offset)
    if c.target == "diag" and len(input.shape) == 1:
        return diag_embed(c, input, shift)
    rank = len(input.shape)
    first, second = dim1 % rank, dim2 % rank
    rest = [d for d in range(rank) if d not in (first, second)]
    x = c.permute(input, [*rest, first, second])
    rows, columns = x.shape[-2:]
    count = min(rows, columns - shift) if shift >= 0 else min(rows + shift, columns)
    if count < 1:
        raise Refused("a diagonal has no elements", "every tensor needs at least one element")
    start = shift if shift >= 0 else -shift * columns
    flat = c.reshape(x, (*x.shape[:-2], rows * columns))
    y = c.gather(flat, -1, start + (columns + 1) * np.arange(count))
    return c.reduce("sum", y, [-1], False) if c.target == "trace" else y


@converts("diag_embed", "diagflat")
def diag_embed(c: Emitter, input: Value, offset: int = 0, dim1: int = -2, dim2: int = -1) -> Value:
    """The elements of the last axis where a constant mask is 1, and 0 elsewhere."""
    x = c.reshape(input, (input.type.size,)) if c.target == "diagflat" else input
    size = x.shape[-1] + abs(offset)
    zeros = [np.zeros((*x.shape[:-1], abs(offset))), x]
    wide = c.concat(zeros if offset > 0 else zeros[::-1], -1) if offset else x  # one element a column
    square = c.add("select", np.eye(size, k=offset), c.unsqueeze(wide, -2), 0.0)
    rank = len(square.shape)
    first, second = dim1 % rank, dim2 % rank
    dims = [d for d in range(rank) if d not in (first, second)]
    order = dict(zip(dims, range(rank - 2), strict=True)) | {first: rank - 2, second: rank - 1}
    return c.permute(square, [order[d] for d in range(rank)])


# ---------------------------------------------------------------- angles and distances


@converts("cosine_similarity")
def cosine_similarity(c: Emitter, x1: Value, x2: Value, dim: int = 1, eps: float = 1e-8) -> Value:
    """The product of the vectors, each divided by its length, which counts as `eps` at least."""
    parts = []
    for x in (x1, x2):
        length = c.add("sqrt", c.reduce("sum", c.add("mul", x, x), [dim], True))
        parts.append(c.add("div", x, c.add("max", length, eps)))
    return c.reduce("sum", c.add("mul", *parts), [dim], False)


def _length(c: Emitter, x: Value, p: float, axis: int, keepdim: bool) -> Value:
    if p == 2:
        return c.add("sqrt", c.reduce("sum", c.add("mul", x, x), [axis], keepdim))
    size = c.add("abs", x)
    if p == 1 or p == math.inf:
        return c.reduce("sum" if p == 1 else "amax", size, [axis], keepdim)
    raise Refused(f"a distance of order {p:g}", "order 1, 2 or infinity")


@converts("pairwise_distance")
def pairwise_distance(
    c: Emitter, x1: Value, x2: Value, p: float = 2.0, eps: float = 1e-6, keepdim: bool = False
) -> Value:
    return _length(c, c.add("add", c.add("sub", x1, x2), eps), p, -1, keepdim)


@converts("cdist")
def cdist(c: Emitter, x1: Value, x2: Value, p: float = 2.0, compute_mode: str = "") -> Value:
    """Every row of x1 with every row of x2, from their differences."""
    away = c.add("sub", c.unsqueeze(x1, -2), c.unsqueeze(x2, -3))
    return _length(c, away, p, len(away.shape) - 1, False)


@converts("dist")
def dist(c: Emitter, input: Value, other: Value, p: float = 2.0) -> Value:
    away = c.add("sub", input, other)
    return _length(c, c.reshape(away, (away.type.size,)), p, 0, False)
