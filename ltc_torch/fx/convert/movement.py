"""Converters of torch functions that move, cut, join or repeat elements; no arithmetic happens here."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from ltc_compiler.ir.graph import Value
from ltc_torch.fx.convert.emit import Emitter
from ltc_torch.fx.convert.indexing import constant_index
from ltc_torch.fx.registry import Refused, converts


def flat_ints(sizes: Sequence[Any]) -> tuple[int, ...]:
    """`f(1, 2)` and `f((1, 2))` alike."""
    if len(sizes) == 1 and isinstance(sizes[0], (tuple, list)):
        sizes = sizes[0]
    return tuple(int(s) for s in sizes)


# ---------------------------------------------------------------- shapes


@converts("reshape", "view")
def reshape(c: Emitter, input: Value, *shape: Any, **kwargs: Any) -> Value:
    sizes = flat_ints(shape or (kwargs.get("shape", kwargs.get("size")),))
    if -1 in sizes:
        rest = math.prod(s for s in sizes if s != -1)
        sizes = tuple(input.type.size // rest if s == -1 else s for s in sizes)
    return c.reshape(input, sizes)


@converts("view_as", "reshape_as")
def reshape_as(c: Emitter, input: Value, other: Value) -> Value:
    return c.reshape(input, other.shape)


@converts("flatten", "ravel")
def flatten(c: Emitter, input: Value, start_dim: int = 0, end_dim: int = -1) -> Value:
    shape, rank = input.shape, max(len(input.shape), 1)
    first, last = start_dim % rank, end_dim % rank
    return c.reshape(input, (*shape[:first], math.prod(shape[first : last + 1]), *shape[last + 1 :]))


@converts("unflatten")
def unflatten(c: Emitter, input: Value, dim: int, sizes: Sequence[int]) -> Value:
    dim %= len(input.shape)
    return (
        reshape(c, input, (*input.shape[:dim], *sizes, *input.shape[dim + 1 :]))
        if -1 not in sizes
        else _filled(c, input, dim, list(sizes))
    )


def _filled(c: Emitter, x: Value, dim: int, sizes: list[int]) -> Value:
    sizes[sizes.index(-1)] = x.shape[dim] // -math.prod(sizes)
    return c.reshape(x, (*x.shape[:dim], *sizes, *x.shape[dim + 1 :]))


@converts("unsqueeze")
def unsqueeze(c: Emitter, input: Value, dim: int) -> Value:
    return c.unsqueeze(input, dim)


@converts("squeeze")
def squeeze(c: Emitter, input: Value, *dim: Any, **kwargs: Any) -> Value:
    dims = dim or ((kwargs["dim"],) if "dim" in kwargs else ())
    rank = len(input.shape)
    drop = {a % rank for a in flat_ints(dims)} if dims else set(range(rank))
    return c.reshape(input, [s for a, s in enumerate(input.shape) if a not in drop or s != 1])


@converts("permute")
def permute(c: Emitter, input: Value, *dims: Any, **kwargs: Any) -> Value:
    return c.permute(input, flat_ints(dims or (kwargs["dims"],)))


@converts("transpose", "swapaxes", "swapdims")
def transpose(c: Emitter, input: Value, dim0: int, dim1: int) -> Value:
    dims = list(range(len(input.shape)))
    dims[dim0], dims[dim1] = dims[dim1], dims[dim0]
    return c.permute(input, dims)


@converts("t", "adjoint")
def swap_last(c: Emitter, input: Value) -> Value:
    return input if len(input.shape) < 2 else transpose(c, input, -2, -1)


@converts("movedim", "moveaxis")
def movedim(c: Emitter, input: Value, source: Any, destination: Any) -> Value:
    rank = len(input.shape)
    pairs = zip(
        [a % rank for a in np.atleast_1d(source)], [a % rank for a in np.atleast_1d(destination)], strict=True
    )
    dims = [-1] * rank
    for a, b in pairs:
        dims[b] = int(a)
    rest = iter(a for a in range(rank) if a not in dims)
    return c.permute(input, [next(rest) if d == -1 else d for d in dims])


@converts("getattr")
def attribute(c: Emitter, input: Value, name: str) -> Value:
    if name in ("mT", "mH"):
        return transpose(c, input, -2, -1)
    return c.permute(input, range(len(input.shape))[::-1]) if name in ("T", "H") else input


@converts("expand", "broadcast_to")
def expand(c: Emitter, input: Value, *sizes: Any, **kwargs: Any) -> Value:
    shape = list(flat_ints(sizes or (kwargs.get("size"),)))
    for k in range(1, len(input.shape) + 1):
        shape[-k] = input.shape[-k] if shape[-k] == -1 else shape[-k]
    return c.broadcast(input, shape)


@converts("expand_as")
def expand_as(c: Emitter, input: Value, other: Value) -> Value:
    return c.broadcast(input, other.shape)


@converts("broadcast_tensors", "meshgrid")
def broadcast_tensors(c: Emitter, *tensors: Any, indexing: str = "ij") -> list[Value]:
    values = [c.value(t) for t in (tensors[0] if isinstance(tensors[0], (tuple, list)) else tensors)]
    if c.target == "meshgrid":
        shapes = [
            tuple(v.type.size if i == j else 1 for j in range(len(values))) for i, v in enumerate(values)
        ]
        values = [c.reshape(v, s) for v, s in zip(values, shapes, strict=True)]
        if indexing == "xy":
            raise Refused("meshgrid with indexing='xy'", "indexing='ij' and a transpose")
    shape = np.broadcast_shapes(*(v.shape for v in values))
    return [c.broadcast(v, shape) for v in values]


# ---------------------------------------------------------------- joining and repeating


@converts("cat", "concat", "concatenate")
def cat(c: Emitter, tensors: Sequence[Value], dim: int = 0, axis: int | None = None) -> Value:
    return c.concat(tensors, dim if axis is None else axis)


@converts("stack")
def stack(c: Emitter, tensors: Sequence[Value], dim: int = 0) -> Value:
    values = [c.value(t) for t in tensors]
    dim %= len(values[0].shape) + 1
    return c.concat([c.unsqueeze(v, dim) for v in values], dim)


@converts("hstack", "vstack", "row_stack", "column_stack", "dstack")
def named_stack(c: Emitter, tensors: Sequence[Value]) -> Value:
    values = [c.value(t) for t in tensors]
    rank = len(values[0].shape)
    if c.target == "hstack":
        return c.concat([c.reshape(v, v.shape or (1,)) for v in values], 0 if rank < 2 else 1)
    if c.target == "column_stack":
        return c.concat([c.reshape(v, (v.type.size, 1)) if rank < 2 else v for v in values], 1)
    if c.target == "dstack":
        cubes = [
            v if len(v.shape) > 2 else c.unsqueeze(c.reshape(v, (1, v.type.size)) if rank < 2 else v, 2)
            for v in values
        ]
        return c.concat(cubes, 2)
    return c.concat([c.reshape(v, (1, v.type.size)) if rank < 2 else v for v in values], 0)


@converts("repeat", "tile")
def repeat(c: Emitter, input: Value, *sizes: Any, **kwargs: Any) -> Value:
    counts = flat_ints(sizes or (kwargs.get("repeats", kwargs.get("dims")),))
    counts = (1,) * (len(input.shape) - len(counts)) + counts
    x = c.reshape(input, (1,) * (len(counts) - len(input.shape)) + input.shape)
    for axis, count in enumerate(counts):
        x = c.concat([x] * count, axis)
    return x


@converts("repeat_interleave")
def repeat_interleave(c: Emitter, input: Value, repeats: int, dim: int | None = None, **_: Any) -> Value:
    if not isinstance(repeats, int):
        raise Refused("repeat_interleave with a tensor of counts", "one count")
    x = c.reshape(input, (input.type.size,)) if dim is None else input
    axis = 0 if dim is None else dim % len(x.shape)
    wide = c.broadcast(c.unsqueeze(x, axis + 1), (*x.shape[: axis + 1], repeats, *x.shape[axis + 1 :]))
    return c.reshape(wide, (*x.shape[:axis], x.shape[axis] * repeats, *x.shape[axis + 1 :]))


@converts("interpolate")
def interpolate(
    c: Emitter,
    input: Value,
    size: Any = None,
    scale_factor: Any = None,
    mode: str = "nearest",
    *_: Any,
    **__: Any,
) -> Value:
    """The nearest neighbour at a whole factor: (batch, channels, time, ...)."""
    axes = range(2, len(input.shape))
    sizes, factors = (
        list(v) if isinstance(v, (tuple, list)) else [v] * len(axes) for v in (size, scale_factor)
    )
    if sizes[0] is not None:
        factors = [n / input.shape[a] for n, a in zip(sizes, axes, strict=True)]
    if mode not in ("nearest", "nearest-exact") or any(f != int(f) or f < 1 for f in factors):
        reason = f"resampling with mode={mode!r} and the factors {factors}"
        raise Refused(reason, "mode='nearest' with a whole factor, or do it on the host")
    for axis, factor in zip(axes, factors, strict=True):
        input = repeat_interleave(c, input, int(factor), axis)
    return input


@converts("flip", "flipud", "fliplr")
def flip(c: Emitter, input: Value, *dims: Any, **kwargs: Any) -> Value:
    axes = {"flipud": (0,), "fliplr": (1,)}.get(c.target) or flat_ints(dims or (kwargs["dims"],))
    x = input
    for axis in axes:
        x = c.gather(x, axis, np.arange(x.shape[axis])[::-1])
    return x


@converts("roll")
def roll(c: Emitter, input: Value, shifts: Any, dims: Any = None) -> Value:
    if dims is None:
        return c.reshape(roll(c, c.reshape(input, (input.type.size,)), shifts, 0), input.shape)
    x = input
    for shift, axis in zip(np.atleast_1d(shifts), np.atleast_1d(dims), strict=True):
        x = c.gather(x, int(axis), np.roll(np.arange(x.shape[axis]), int(shift)))
    return x


@converts("pad")
def pad(
    c: Emitter, input: Value, pad: Sequence[int], mode: str = "constant", value: float | None = None
) -> Value:
    x, filling = input, 0.0 if value is None else float(value)
    for k in range(len(pad) // 2):
        axis, before, after = len(x.shape) - 1 - k, int(pad[2 * k]), int(pad[2 * k + 1])
        size = x.shape[axis]
        if mode == "constant":
            if min(before, after) < 0:
                x = c.slice(x, axis, max(0, -before), size - max(0, -after))
            fill = [
                (np.full((*x.shape[:axis], n, *x.shape[axis + 1 :]), filling) if n > 0 else None)
                for n in (before, after)
            ]
            x = c.concat([p for p in (fill[0], x, fill[1]) if p is not None], axis)
        else:
            np_mode: Any = {"reflect": "reflect", "replicate": "edge", "circular": "wrap"}[mode]
            x = c.gather(x, axis, np.pad(np.arange(size), (before, after), mode=np_mode))
    return x


# ---------------------------------------------------------------- cutting


def each_axis(setting: Any, axes: int) -> list[int]:
    """A setting of a window for every axis that it slides along, where torch takes one number for all."""
    values = [int(v) for v in np.atleast_1d(setting)]
    return values * axes if len(values) == 1 else values


@converts("select")
def select(c: Emitter, input: Value, dim: int, index: int) -> Value:
    return c.select(input, dim, int(index))


@converts("narrow")
def narrow(c: Emitter, input: Value, dim: int, start: int, length: int) -> Value:
    start = int(start) % input.shape[dim] if int(start) < 0 else int(start)
    return c.slice(input, dim, start, start + length)


@converts("unbind")
def unbind(c: Emitter, input: Value, dim: int = 0) -> list[Value]:
    return [c.select(input, dim, i) for i in range(input.shape[dim])]


@converts("split", "split_with_sizes", "chunk", "tensor_split", "unsafe_chunk", "unsafe_split")
def split(c: Emitter, input: Value, sizes: Any = None, dim: int = 0, **kwargs: Any) -> list[Any]:
    given = [
        v for k, v in kwargs.items() if k in ("split_size_or_sections", "chunks", "split_size", "split_sizes")
    ]
    sizes, total = (given[0] if given else sizes), input.shape[dim]
    if c.target in ("chunk", "unsafe_chunk"):
        sizes = -(-total // sizes)
    elif c.target == "tensor_split":
        bounds = kwargs.get("indices", kwargs.get("sections", sizes))
        cuts = [
            len(p)
            for p in np.array_split(np.arange(total), bounds if isinstance(bounds, int) else list(bounds))
        ]
        sizes = cuts
    if isinstance(sizes, int):
        sizes = [min(sizes, total - start) for start in range(0, total, sizes)]
    starts = np.cumsum([0, *sizes])
    empty = Refused("a part without elements", "leave it out")
    return [c.slice(input, dim, int(a), int(b)) if a < b else empty for a, b in pairwise(starts)]


@converts("index_select")
def index_select(c: Emitter, input: Value, dim: int, index: Value) -> Value:
    return c.gather(input, dim, constant_index(index))


@converts("diff")
def diff(
    c: Emitter,
    input: Value,
    n: int = 1,
    dim: int = -1,
    prepend: Value | None = None,
    append: Value | None = None,
) -> Value:
    x = c.concat([p for p in (prepend, input, append) if p is not None], dim % len(input.shape))
    for _ in range(n):
        size = x.shape[dim]
        x = c.add("sub", c.slice(x, dim, 1, size), c.slice(x, dim, 0, size - 1))
    return x


@converts("tril", "triu")
def triangle(c: Emitter, input: Value, diagonal: int = 0) -> Value:
    mask = getattr(np, c.target)(np.ones(input.shape[-2:]), diagonal)
    return c.add("select", mask, input, 0.0)
