"""Converters of ONNX operators that move, cut, join or repeat elements. Positions and sizes are constants."""

from __future__ import annotations

import math

import numpy as np

from ltc_compiler.frontend.compose import FOLD_LIMIT, Refused, check_runs, check_size
from ltc_compiler.frontend.compounds import pad as pad_axis
from ltc_compiler.ir.graph import Value
from ltc_compiler.onnx.call import Call, Results
from ltc_compiler.onnx.registry import converts


def _at(axis: int, rank: int) -> int:
    if not -rank <= axis < rank:
        raise Refused(f"axis {axis} is out of range for {rank} axes")
    return axis % rank


@converts("Reshape")
def reshape(call: Call) -> Results:
    wanted = list(call.ints("shape", 1) or ())
    shape = call.x.shape
    if not call.attr("allowzero", 0):
        wanted = [shape[i] if d == 0 else d for i, d in enumerate(wanted)]
    if -1 in wanted:
        rest = math.prod(d for d in wanted if d != -1)
        wanted[wanted.index(-1)] = math.prod(shape) // max(rest, 1)
    if math.prod(wanted) != math.prod(shape):
        raise Refused(f"{shape} does not have as many elements as {tuple(wanted)}")
    return call.c.reshape(call.x, wanted)


@converts("Flatten")
def flatten(call: Call) -> Results:
    shape = call.x.shape
    axis = int(call.attr("axis", 1))
    axis += len(shape) * (axis < 0)
    return call.c.reshape(call.x, (math.prod(shape[:axis]), math.prod(shape[axis:])))


@converts("Squeeze")
def squeeze(call: Call) -> Results:
    shape = call.x.shape
    axes = call.ints("axes", 1)
    gone = [i for i, d in enumerate(shape) if d == 1] if axes is None else [_at(a, len(shape)) for a in axes]
    if any(shape[a] != 1 for a in gone):
        raise Refused(f"axes {gone} of {shape} have more than one element")
    return call.c.reshape(call.x, [d for i, d in enumerate(shape) if i not in gone])


@converts("Unsqueeze")
def unsqueeze(call: Call) -> Results:
    axes = call.ints("axes", 1) or ()
    rank = len(call.x.shape) + len(axes)
    new = {_at(a, rank) for a in axes}
    rest = iter(call.x.shape)
    if len(new) != len(axes):
        raise Refused(f"axes {axes} name one twice")
    return call.c.reshape(call.x, [1 if i in new else next(rest) for i in range(rank)])


@converts("Transpose")
def transpose(call: Call) -> Results:
    rank = len(call.x.shape)
    return call.c.permute(call.x, call.ints("perm", default=range(rank)[::-1]) or ())


@converts("Concat")
def concat(call: Call) -> Results:
    axis = call.axis(1 if call.opset < 4 else 0)
    return call.c.concat([call.value(i) for i in range(len(call.inputs))], axis)


@converts("Slice")
def slice_(call: Call) -> Results:
    rank = len(call.x.shape)
    starts, ends = call.ints("starts", 1) or (), call.ints("ends", 2) or ()
    axes = call.ints("axes", 3, range(len(starts))) or ()
    steps = call.ints("steps", 4, [1] * len(starts)) or ()
    x = call.x
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        at = _at(axis, rank)
        first, last, stride = slice(start, end, step).indices(x.shape[at])
        if stride < 0:
            check_runs(len(range(first, last, stride)))
            x = call.c.gather(x, at, np.arange(first, last, stride))
        else:
            x = call.c.slice(x, at, first, last, stride)
    return x


@converts("Split")
def split(call: Call) -> Results:
    axis, x = call.axis(0), call.x
    total = x.shape[axis]
    sizes = call.ints("split", 1)
    if sizes is None:
        share = -(-total // int(call.attr("num_outputs", call.results)))
        check_runs(-(-total // share))
        sizes = tuple(min(share, total - at) for at in range(0, total, share))
    if sum(sizes) != total:
        raise Refused(f"parts of {sizes} do not make up the {total} elements of axis {axis}")
    ends = np.cumsum(sizes)
    return [call.c.slice(x, axis, int(e) - n, int(e)) for e, n in zip(ends, sizes, strict=True)]


@converts("Gather", limits="indices that are computed from an input")
def gather(call: Call) -> Results:
    x, index, axis = call.x, call.array(1, "indices"), call.axis(0)
    if index.ndim == 0:
        return call.c.select(x, axis, int(index))
    rows = call.c.gather(x, axis, index.reshape(-1).astype(np.int64))
    return call.c.reshape(rows, (*x.shape[:axis], *index.shape, *x.shape[axis + 1 :]))


@converts("DepthToSpace", "SpaceToDepth")
def depth_to_space(call: Call) -> Results:
    """Blocks of an image against its channels; mode CRD has the channel outside of the block."""
    x, size = call.x, int(call.attr("blocksize"))
    batch, channels, height, width = x.shape
    if call.op == "SpaceToDepth":
        parts = call.c.reshape(x, (batch, channels, height // size, size, width // size, size))
        moved = call.c.permute(parts, (0, 3, 5, 1, 2, 4))
        return call.c.reshape(moved, (batch, channels * size * size, height // size, width // size))
    rest = channels // (size * size)
    if call.attr("mode", "DCR") == "CRD":
        parts = call.c.reshape(x, (batch, rest, size, size, height, width))
        moved = call.c.permute(parts, (0, 1, 4, 2, 5, 3))
    else:
        parts = call.c.reshape(x, (batch, size, size, rest, height, width))
        moved = call.c.permute(parts, (0, 3, 4, 1, 5, 2))
    return call.c.reshape(moved, (batch, rest, height * size, width * size))


@converts("EyeLike")
def eye_like(call: Call) -> Results:
    rows, columns = call.tensor(0).shape
    check_size(rows, columns)
    return np.eye(rows, columns, int(call.attr("k", 0)), dtype=np.float32)


@converts("Expand")
def expand(call: Call) -> Results:
    shape = np.broadcast_shapes(call.x.shape, call.ints("shape", 1) or ())
    return call.c.broadcast(call.x, shape)


@converts("Tile")
def tile(call: Call) -> Results:
    x = call.x
    counts = call.ints("repeats", 1) or ()
    if len(counts) != len(x.shape) or min(counts, default=1) < 1:
        raise Refused(f"repeats are {counts}, expected a positive number for each of {len(x.shape)} axes")
    # every axis becomes (count, size), and the two are merged again
    pairs = call.c.reshape(x, [d for size in x.shape for d in (1, size)])
    wide = call.c.broadcast(pairs, [d for n, size in zip(counts, x.shape, strict=True) for d in (n, size)])
    return call.c.reshape(wide, [n * size for n, size in zip(counts, x.shape, strict=True)])


@converts("Pad", limits="padding with a computed value")
def pad(call: Call) -> Results:
    x = call.x
    mode = {"constant": "constant", "edge": "edge", "reflect": "reflect", "wrap": "wrap"}[
        call.attr("mode", "constant")
    ]
    widths = call.ints("pads", 1) or ()
    axes = call.ints("axes", 3, range(len(x.shape))) or ()
    fill = call.setting("value", 2, 0.0)
    for before, after, axis in zip(widths[: len(axes)], widths[len(axes) :], axes, strict=True):
        if before or after:
            _check_width(x, before, after)
            x = pad_axis(call.c, x, _at(axis, len(x.shape)), before, after, mode, float(np.reshape(fill, ())))
    return x


def _check_width(x: Value, before: int, after: int) -> None:
    if max(before, after) > FOLD_LIMIT:
        raise Refused(f"padding of {max(before, after)} elements", f"at most {FOLD_LIMIT}")


@converts("Shape", "Size")
def shape_of(call: Call) -> Results:
    shape = call.x.shape
    if call.op == "Size":
        return np.asarray(math.prod(shape), np.int64)
    end = call.attr("end")
    return np.asarray(shape[call.attr("start", 0) : end], np.int64)


@converts("Trilu")
def trilu(call: Call) -> Results:
    x = call.x
    diagonal = int(call.array(1, "k")) if call.has(1) else 0
    check_size(*x.shape[-2:])
    triangle = np.triu if call.attr("upper", 1) else np.tril
    return call.c.add("select", triangle(np.ones(x.shape[-2:]), diagonal), x, 0.0)
