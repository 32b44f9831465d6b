"""How a tensor lies in rows: the last axis along the lanes, every other axis a row step.

Rows of the last axis follow each other (`block_step` 1), or one row stands for all of them (0: every lane of every
row is the same). Slices, permutations and broadcasts of the other axes are views and cost nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import prod

import numpy as np
from numpy.typing import NDArray

from ltc_compiler import numerics
from ltc_compiler.schedule.rows.virtual import Ref


def row_count(width: int, block: int) -> int:
    """Rows that `width` elements fill."""
    return -(-width // block)


def canonical_steps(dims: Sequence[int], rows: int) -> tuple[int, ...]:
    """Row steps of the leading axes of a tensor whose innermost vectors fill `rows` rows, without gaps."""
    return tuple(rows * prod(dims[i + 1 :]) for i in range(len(dims)))


@dataclass(frozen=True)
class View:
    """A tensor in the rows of a buffer. `uniform`: each row holds one value in all of its lanes."""

    ref: Ref
    shape: tuple[int, ...]
    steps: tuple[int, ...]
    block: int
    block_step: int = 1
    uniform: bool = False

    @property
    def dims(self) -> tuple[int, ...]:
        return self.shape[:-1]

    @property
    def width(self) -> int:
        return self.shape[-1] if self.shape else 1

    @property
    def rows(self) -> int:
        """Rows of one innermost vector."""
        return row_count(self.width, self.block)

    @property
    def contiguous(self) -> bool:
        """Rows stand one after the other, as a host array's do."""
        if self.block_step == 0 and self.rows > 1:
            return False
        canonical = canonical_steps(self.dims, self.rows)
        return all(s == c or d == 1 for d, s, c in zip(self.dims, self.steps, canonical, strict=True))

    @property
    def total_rows(self) -> int:
        return prod(self.dims) * self.rows


def fresh(ref: Ref, shape: tuple[int, ...], block: int, uniform: bool = False) -> View:
    """A canonical view of a new buffer."""
    width = shape[-1] if shape else 1
    steps = canonical_steps(shape[:-1], row_count(width, block))
    return View(ref, shape, steps, block, 1, uniform)


def pack(array: NDArray[np.float64], block: int) -> NDArray[np.float32]:
    """Rows of a host array: the last axis padded to whole rows with +0; a last axis of 1 fills every lane."""
    width = array.shape[-1] if array.ndim else 1
    vectors = numerics.fold_fp32(array).reshape(-1, width)
    if width == 1:
        return np.repeat(vectors, block, axis=1)
    padded = np.zeros((len(vectors), row_count(width, block) * block), np.float32)
    padded[:, :width] = vectors
    return padded.reshape(-1, block)


# One loop of an iteration space: its count, and the row step of every operand.
Axis = tuple[int, tuple[int, ...]]


def iteration(views: Sequence[View], shape: tuple[int, ...]) -> list[Axis]:
    """The loops that visit all rows of `shape`, adjacent ones merged where every operand allows it.

    Operands broadcast by NumPy's rule. The last loop runs over the rows of the last axis.
    """
    rank = len(shape)
    axes: list[Axis] = []
    for d in range(rank - 1):
        steps = []
        for v in views:
            own = d - (rank - len(v.shape))
            steps.append(v.steps[own] if own >= 0 and v.shape[own] != 1 else 0)
        axes.append((shape[d], tuple(steps)))
    block = views[0].block
    rows = row_count(shape[-1] if shape else 1, block)
    axes.append((rows, tuple(v.block_step if v.width != 1 or rows == 1 else 0 for v in views)))
    return merge(axes)


def merge(axes: Sequence[Axis]) -> list[Axis]:
    """Drop loops of one iteration and join neighbours that advance alike."""
    merged: list[Axis] = []
    for count, steps in axes:
        if count == 1:
            continue
        if merged:
            outer_count, outer = merged[-1]
            if all(o == count * s for o, s in zip(outer, steps, strict=True)):
                merged[-1] = (outer_count * count, steps)
                continue
        merged.append((count, steps))
    return merged or [(1, tuple(0 for _ in axes[-1][1]))]


def leading(views: Sequence[View]) -> list[Axis]:
    """The loops over all axes but the last, merged; the views have the same leading shape."""
    first = views[0]
    axes = [(count, tuple(v.steps[d] for v in views)) for d, count in enumerate(first.dims)]
    return merge(axes) if prod(first.dims) > 1 else []


def innermost(view: View) -> list[View]:
    """The vectors of a view, in row-major order."""
    offsets = [0]
    for count, step in zip(view.dims, view.steps, strict=True):
        offsets = [o + i * step for o in offsets for i in range(count)]
    return [replace(view, ref=view.ref.at(o), shape=(view.width,), steps=()) for o in offsets]


def element_rows(view: View) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Row offset (from view.ref) and lane of every element, in the tensor's shape."""
    shape = view.shape or (1,)
    rows = np.zeros(shape, np.int64)
    for axis, step in enumerate(view.steps):
        index = np.arange(shape[axis]).reshape([-1 if i == axis else 1 for i in range(len(shape))])
        rows = rows + index * step
    lane = np.arange(shape[-1])
    rows = rows + (lane // view.block) * view.block_step
    lanes = np.broadcast_to(np.zeros_like(lane) if view.uniform else lane % view.block, shape)
    return rows, lanes
