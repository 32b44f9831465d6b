"""Which of PyTorch's values belongs to which operation: found by the source line, and there by the numbers.

The passes of the compiler split, join and reorder what PyTorch called, so that operations and calls do not correspond
one to one. Of the values that were computed at an operation's source line, its own is the one nearest to its exact
value, if any is near.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import permutations
from typing import NamedTuple

import numpy as np

from ltc_compiler.compare.measure import relative, rms
from ltc_compiler.ir.graph import Array, Node, Source, Value

NEAR = 1e-3  # relative error; fp32 leaves 1e-7 to 1e-5
MOST_AXES = 4


class Observed(NamedTuple):
    """Results of one call, (executions, *shape): a call in the body of a loop is executed in every iteration."""

    source: Source
    values: Array


def match(
    found: Iterable[tuple[Node | None, Value]], exact: Mapping[Value, Array], observed: Sequence[Observed]
) -> dict[Value, Array]:
    """For every value that some call computes, what it computed, as (steps * iterations, *shape)."""
    calls: dict[tuple[Source, int], list[tuple[float, Array]]] = defaultdict(list)
    for source, values in observed:
        calls[source, values.size].append((rms(values), values))
    matched = {}
    for node, value in found:
        wanted = exact[value]
        size = rms(wanted)
        best = NEAR
        for other, values in calls.get((node.source, wanted.size), ()) if node is not None else ():
            if abs(other - size) > NEAR * size:  # whatever the order of its elements
                continue
            for array in _arranged(values, wanted.shape):
                distance = relative(array, wanted)
                if distance < best:
                    best, matched[value] = distance, array
    return matched


def _arranged(values: Array, shape: tuple[int, ...]) -> Iterator[Array]:
    """The values in every order of their axes: here the steps come first, and passes may have permuted the others."""
    axes = [axis for axis, n in enumerate(values.shape) if n > 1]
    if len(axes) > MOST_AXES:
        yield values.reshape(shape)
        return
    for order in permutations(axes):
        yield np.squeeze(values).transpose([axes.index(axis) for axis in order]).reshape(shape)
