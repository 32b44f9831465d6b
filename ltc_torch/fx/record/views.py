"""Where a view lies in the tensor that it was cut from, and the operations that read and write it there.

Most views are rectangles of their base (a strided slice on each axis), with their axes in another order, joined, split
or repeated; these become slices and concatenations. Any other view (a diagonal, rows across an edge, positions in a
list) is read by the number of each element, and written by a choice between old and new elements.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

Region = tuple[slice, ...]
Numbers = NDArray[np.int64]


@dataclass(frozen=True)
class Place:
    """The elements of a view, by their numbers in the base's own order.

    numbers: in the view's shape. region: the rectangle that they fill in order once the view's axes are permuted by
    `axes` (those that repeat one element, `repeated`, being cut to one); None if there is none.
    """

    numbers: Numbers
    base: tuple[int, ...]
    region: Region | None
    axes: tuple[int, ...]
    repeated: tuple[int, ...]

    @property
    def whole(self) -> bool:
        """Whether the region is all of the base."""
        full = tuple(slice(0, size, 1) for size in self.base)
        return self.region == full

    @property
    def plain(self) -> bool:
        """Whether the view's axes stand as they do in the region."""
        return not self.repeated and self.axes == tuple(range(len(self.axes)))

    @property
    def ordered(self) -> tuple[int, ...]:
        """The view's shape with its axes in the order of the base."""
        return tuple(1 if a in self.repeated else self.numbers.shape[a] for a in self.axes)


def place_of(part: Tensor, base: Tensor) -> Place | None:
    """Where a tensor lies in another one of the same storage; None if some of it lies outside."""
    ours = _positions(part)
    if base.is_contiguous():
        numbers = ours - int(base.storage_offset())
        if ours.size and (numbers.min() < 0 or numbers.max() >= base.numel()):
            return None
    else:
        theirs = _positions(base).reshape(-1)
        order = np.argsort(theirs, kind="stable")
        found = np.minimum(np.searchsorted(theirs[order], ours), theirs.size - 1)
        numbers = order[found]
        if (theirs[numbers] != ours).any():
            return None
    return place(numbers, tuple(base.shape))


def place(numbers: Numbers, base: tuple[int, ...]) -> Place:
    """The place of elements that are given by their numbers."""
    steps = [_step(numbers, axis) for axis in range(numbers.ndim)]
    repeated = tuple(a for a, step in enumerate(steps) if step == 0)
    moving = sorted((a for a, step in enumerate(steps) if step), key=lambda a: -(steps[a] or 0))
    at = iter(moving)
    axes = tuple(next(at) if step else a for a, step in enumerate(steps))
    ordered = numbers[tuple(slice(0, 1) if a in repeated else slice(None) for a in range(numbers.ndim))]
    return Place(numbers, base, _rectangle(ordered.transpose(axes).reshape(-1), base), axes, repeated)


def _positions(tensor: Tensor) -> Numbers:
    """The storage position of every element, in the tensor's shape."""
    found = np.full(tuple(tensor.shape), tensor.storage_offset(), dtype=np.int64)
    for axis, (size, stride) in enumerate(zip(tensor.shape, tensor.stride(), strict=True)):
        shape = [1] * tensor.dim()
        shape[axis] = size
        found += (np.arange(size) * stride).reshape(shape)
    return found


def _step(numbers: Numbers, axis: int) -> int | None:
    """How far the second element of an axis is from the first; None if there is one only."""
    if numbers.shape[axis] < 2 or numbers.size == 0:
        return None
    line = np.moveaxis(numbers, axis, 0)
    return int(line[1].flat[0] - line[0].flat[0])


def _rectangle(numbers: Numbers, base: tuple[int, ...]) -> Region | None:
    """The rectangle of a tensor of shape `base` that elements fill in order."""
    if numbers.size == 0:
        return None
    if not base:
        return ()
    region = []
    axes: list[Numbers] = []
    for column in np.unravel_index(numbers, base):
        hits = np.unique(column)
        steps = np.diff(hits)
        step = int(steps[0]) if steps.size else 1
        if (steps != step).any():
            return None
        region.append(slice(int(hits[0]), int(hits[-1]) + 1, step))
        axes.append(hits)
    if int(np.prod([len(hits) for hits in axes])) != numbers.size:
        return None
    filled = np.ravel_multi_index(np.ix_(*axes), base)
    return tuple(region) if np.array_equal(np.reshape(filled, -1), numbers) else None


# ---------------------------------------------------------------- the operations of a recording


def read_region(base: Tensor, region: Region, shape: Sequence[int]) -> Tensor:
    """The part of `base` in `region`, in the given shape."""
    return base[region].reshape(tuple(shape))


def write_region(base: Tensor, region: Region, value: Tensor) -> Tensor:
    """`base` with `region` replaced by the elements of `value`, in order."""
    result = base.clone()
    result[region] = value.reshape(result[region].shape).to(result.dtype)
    return result
