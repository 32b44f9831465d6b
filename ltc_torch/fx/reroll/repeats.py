"""Finds loops over an axis that a Python `for` has unrolled: equal stretches of a recording, one for each index.

A recording lists operations in the order in which they ran, so a loop is a stretch of `period` operations that repeats,
with the same lines, shapes and arguments but for the index that is read. `find` looks for reads of one tensor at
following indices, and checks that every argument of every operation is the same in all iterations, or follows from
the iteration before. What it returns is a hypothesis: reroll.py executes it and compares before it is believed.
"""

from __future__ import annotations

import operator
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, NamedTuple

from torch import fx

from ltc_torch.fx.reroll.windowed import has_windows

LEAST_ITERATIONS = 3
_MOST_READS = 4  # of one tensor in one iteration
_LONGEST_LAG = 8  # iterations that an argument may come from


class Read(NamedTuple):
    """A node that reads index `at` of `axis` of `tensor`; `rest` is what else its index holds, `keep` the axis."""

    tensor: fx.Node
    axis: int
    at: int
    rest: (
        tuple[Any, ...] | None
    )  # the other entries of an index, with a slice(None) for the axis if it is kept
    keep: bool


class Carried(NamedTuple):
    """An argument that is the value of operation `place`, `len(initial)` iterations ago; in the first iterations it is
    one of `initial`.
    """

    place: int
    initial: tuple[fx.Node, ...]


@dataclass
class Loop:
    """`iterations` times `period` operations of `sequence` from `start` on.

    arguments: for every operation of an iteration, where its node arguments come from: an int is an operation of the
    same iteration, a node is the same in all iterations, Carried comes from an earlier one. scanned: reads that advance
    with the iteration.
    """

    sequence: list[fx.Node]
    start: int
    period: int
    iterations: int
    arguments: list[list[int | fx.Node | Carried]] = field(default_factory=list)
    scanned: dict[int, tuple[Read, int]] = field(default_factory=dict)  # place -> (first read, stride)

    def node(self, iteration: int, place: int) -> fx.Node:
        return self.sequence[self.start + iteration * self.period + place]

    def sample(self, place: int) -> fx.Node:
        """A place's operation in a later iteration: in the first, a state may lack axes that broadcasting gives it."""
        return self.node(1, place)

    def place(self, node: fx.Node) -> tuple[int, int] | None:
        """The iteration and the place of a node of the loop."""
        at = self._positions.get(node)
        return None if at is None else divmod(at, self.period)

    def __post_init__(self) -> None:
        end = self.start + self.iterations * self.period
        self._positions = {n: i for i, n in enumerate(self.sequence[self.start : end])}


def leaves(node: fx.Node) -> list[fx.Node]:
    """The nodes among a node's arguments, in order, with repetitions."""
    found: list[fx.Node] = []
    fx.node.map_arg((node.args, node.kwargs), lambda n: found.append(n))
    return found


# ---------------------------------------------------------------- reads


def reads(node: fx.Node) -> list[Read]:
    """The ways to see a node as a read of one index of an axis."""
    if node.op == "call_function" and node.target is operator.getitem:
        tensor, key = node.args
        if isinstance(tensor, fx.Node) and isinstance(tensor.meta.get("shape"), list):
            return _part(tensor, key)
        return _indexed(tensor, key) if isinstance(tensor, fx.Node) else []
    name = getattr(node.target, "__name__", node.target)
    if name in ("select", "narrow") and len(node.args) >= 3 and not node.kwargs:
        tensor, axis, index, *length = node.args
        if (
            isinstance(tensor, fx.Node)
            and isinstance(axis, int)
            and isinstance(index, int)
            and length in ([], [1])
        ):
            shape = tensor.meta["shape"]
            return [Read(tensor, axis % len(shape), index % shape[axis], (), bool(length))]
    return []


def _part(producer: fx.Node, key: Any) -> list[Read]:
    """One of the parts of unbind, or of split and chunk into single elements."""
    name = getattr(producer.target, "__name__", producer.target)
    if name not in ("unbind", "split", "chunk", "tensor_split") or not isinstance(key, int):
        return []
    tensor = producer.args[0]
    given = producer.args[1:] if name == "unbind" else producer.args[2:]
    axis = producer.kwargs.get("dim", given[0] if given else 0)
    if not isinstance(tensor, fx.Node) or not isinstance(axis, int):
        return []
    shape = tensor.meta["shape"]
    axis %= len(shape)
    if len(producer.meta["shape"]) != shape[axis]:
        return []
    return [Read(tensor, axis, key % shape[axis], (), name != "unbind")]


def _indexed(tensor: fx.Node, key: Any) -> list[Read]:
    shape = tensor.meta.get("shape")
    items = list(key) if isinstance(key, tuple) else [key]
    if not isinstance(shape, tuple) or any(
        not isinstance(i, (int, slice, type(None), type(...))) for i in items
    ):
        return []
    used = sum(i is not None and i is not Ellipsis for i in items)
    if Ellipsis in items:
        at = items.index(Ellipsis)
        items[at : at + 1] = [slice(None)] * (len(shape) - used)
    found, axis = [], 0
    for place, item in enumerate(items):
        if item is None:
            continue
        size = shape[axis]
        if isinstance(item, int) and not isinstance(item, bool):
            rest = (*items[:place], *items[place + 1 :])
            found.append(Read(tensor, axis, item % size, rest, False))
        elif isinstance(item, slice) and size > 1:
            start, stop, step = item.indices(size)
            if len(range(start, stop, step)) == 1:
                rest = (*items[:place], slice(None), *items[place + 1 :])
                found.append(Read(tensor, axis, start, rest, True))
        axis += 1
    return found


# ---------------------------------------------------------------- loops


def may_have_loops(graph: fx.Graph) -> bool:
    """Whether a tensor is read at enough indices of an axis."""
    counts: dict[Any, set[int]] = {}
    for node in graph.nodes:
        for read in reads(node):
            counts.setdefault((read.tensor, read.axis), set()).add(read.at)
    return any(len(found) >= LEAST_ITERATIONS for found in counts.values()) or has_windows(graph)


def find(graph: fx.Graph, same: Callable[[fx.Node], Any]) -> Iterator[Loop]:
    """The loops that a graph may hold. `same` names a get_attr node by what it holds."""
    for sequence, anchors in _candidates(graph):
        for loop in _periods(sequence, anchors):
            if _connect(loop, same) and len(loop.scanned) < loop.period:  # more than reads
                yield loop


def longest_run(graph: fx.Graph) -> tuple[list[fx.Node], list[fx.Node]] | None:
    """The operations in order, and those among them that read one tensor index by index, most often."""
    return next(_candidates(graph), None)


def _candidates(graph: fx.Graph) -> Iterator[tuple[list[fx.Node], list[fx.Node]]]:
    """Runs of reads, the longest first, each with the order of operations in which such reads stand where they are
    needed."""
    order = [n for n in graph.nodes if n.op not in ("placeholder", "get_attr", "output")]
    groups: dict[Any, list[tuple[fx.Node, Read]]] = {}
    for node in order:
        for read in reads(node):
            key = (read.tensor, read.axis, repr(read.rest), read.keep, _line(node))
            groups.setdefault(key, []).append((node, read))
    position = {n: i for i, n in enumerate(order)}
    first_reader = {n: min((position[u] for u in n.users if u in position), default=-1) for n in order}
    parts: dict[Any, list[fx.Node]] = {}
    for node in order:
        if node.target is operator.getitem and reads(node) and isinstance(_shape_read(node), list):
            parts.setdefault(node.args[0], []).append(node)
    for group in sorted(groups.values(), key=len, reverse=True):
        for anchors in _runs(group):
            starts = sorted(first_reader[a] for a in anchors)
            moving = {n for n, _ in group}
            for (
                of_one
            ) in parts.values():  # those of a sequence are read one after another, those of a state at once
                if len({bisect_right(starts, first_reader[n]) for n in of_one}) >= LEAST_ITERATIONS:
                    moving.update(of_one)
            yield _sunk(order, moving), anchors


def _shape_read(node: fx.Node) -> Any:
    """The shape of what a getitem reads: a list of shapes for one of several results."""
    tensor = node.args[0]
    return tensor.meta.get("shape") if isinstance(tensor, fx.Node) else None


def _runs(group: Sequence[tuple[fx.Node, Read]]) -> Iterator[list[fx.Node]]:
    """Reads one iteration apart, where an iteration reads the tensor once or a few times."""
    indices = [read.at for _, read in group]
    for reads_per_iteration in range(1, _MOST_READS + 1):
        for stride in (1, -1):
            begin = 0
            while begin < len(group):
                end = begin + reads_per_iteration
                while end < len(group) and indices[end] - indices[end - reads_per_iteration] == stride:
                    end += 1
                if (end - begin) // reads_per_iteration >= LEAST_ITERATIONS:
                    yield [n for n, _ in group[begin:end:reads_per_iteration]]
                begin = max(begin + 1, end - reads_per_iteration + 1)


def _sunk(order: Sequence[fx.Node], moving: set[fx.Node]) -> list[fx.Node]:
    """The order with some nodes right before their first reader."""
    found: list[fx.Node] = []
    placed: set[fx.Node] = set()
    for node in order:
        if node in moving and node.users:
            continue
        for argument in leaves(node):
            if argument in moving and argument not in placed:
                found.append(argument)
                placed.add(argument)
        found.append(node)
    found += [n for n in order if n in moving and n.users and n not in placed]
    return found


def _periods(sequence: list[fx.Node], anchors: list[fx.Node]) -> Iterator[Loop]:
    """The stretches around evenly spaced anchors; without the first iteration, where that differs from the others."""
    position = {n: i for i, n in enumerate(sequence)}
    places = [position[a] for a in anchors]
    for first in (0, 1):
        at, iterations = places[first:], len(places) - first
        period = at[1] - at[0] if iterations >= LEAST_ITERATIONS else 0
        if period < 1 or any(b - a != period for a, b in pairwise(at)):
            continue
        back = 0
        while (
            back < period - 1
            and at[0] > back
            and _alike(sequence[at[0] - back - 1], sequence[at[1] - back - 1], broadcast=True)
        ):
            back += 1
        for earlier in dict.fromkeys((back, 0)):
            start = at[0] - earlier
            end = start + iterations * period
            if end <= len(sequence) and all(
                _alike(sequence[i], sequence[i + period], broadcast=i < start + period)
                for i in range(start, end - period)
            ):
                yield Loop(sequence, start, period, iterations)


def _line(node: fx.Node) -> Any:
    source = node.meta["source"]
    return source.module, source.file, source.line


def _alike(a: fx.Node, b: fx.Node, broadcast: bool) -> bool:
    """The same operation at the same line; which nodes it reads, and at which index, is seen later.

    broadcast: the first may have a shape that the second one's is broadcast from, as where a first state has no batch.
    """
    same = (a.op, a.target, a.meta["dtype"]) == (b.op, b.target, b.meta["dtype"]) and _line(a) == _line(b)
    before, after = a.meta["shape"], b.meta["shape"]
    fits = before == after or (broadcast and isinstance(before, tuple) and _is_broadcast(before, after))
    return same and fits and _skeleton(a) == _skeleton(b)


def _is_broadcast(before: tuple[int, ...], after: tuple[int, ...]) -> bool:
    """Whether a tensor of the first shape can be broadcast to the second."""
    pairs = zip(before[::-1], after[::-1], strict=False)
    return len(before) <= len(after) and all(n in (1, m) for n, m in pairs)


def _skeleton(node: fx.Node) -> Any:
    found = [(r.axis, [isinstance(i, int) or repr(i) for i in r.rest or ()], r.keep) for r in reads(node)]
    return found or repr(fx.node.map_arg((node.args, node.kwargs), lambda n: 0))


def _connect(loop: Loop, same: Callable[[fx.Node], Any]) -> bool:
    """Fill in where the arguments of an iteration come from; False where iterations differ."""
    for place in range(loop.period):
        iterations = [loop.node(k, place) for k in range(loop.iterations)]
        if _scanned(loop, place, iterations):
            loop.arguments.append([])
            continue
        differ = any(n.args != iterations[0].args for n in iterations)
        if differ and reads(iterations[0]) and not _equal_index(iterations):
            return False
        columns = list(zip(*map(leaves, iterations), strict=False))
        if any(len(leaves(n)) != len(columns) for n in iterations):
            return False
        found = [_origin(loop, column, same) for column in columns]
        if any(origin is None for origin in found):
            return False
        loop.arguments.append([origin for origin in found if origin is not None])
    return True


def _equal_index(iterations: Sequence[fx.Node]) -> bool:
    return len({repr(fx.node.map_arg((n.args, n.kwargs), lambda n: 0)) for n in iterations}) == 1


def _scanned(loop: Loop, place: int, iterations: Sequence[fx.Node]) -> bool:
    """Whether the operation reads a tensor from outside of the loop, one index further in each iteration."""
    for candidates in zip(*map(reads, iterations), strict=False):
        first, second = candidates[:2]
        stride = second.at - first.at
        same = all(c.tensor is first.tensor and repr(c.rest) == repr(first.rest) for c in candidates)
        outside = same and loop.place(first.tensor) is None
        even = all(c.at == first.at + k * stride for k, c in enumerate(candidates))
        if outside and even and stride in (1, -1):
            loop.scanned[place] = (first, stride)
            return True
    return False


def _origin(
    loop: Loop, column: Sequence[fx.Node], same: Callable[[fx.Node], Any]
) -> int | fx.Node | Carried | None:
    places = [loop.place(n) for n in column]
    if all(p is None for p in places):
        return column[0] if len({same(n) for n in column}) == 1 else None
    lag = next((k for k, p in enumerate(places) if p is not None), 0)
    if lag > _LONGEST_LAG:
        return None
    at = places[lag]
    assert at is not None
    if any(p != (k - lag, at[1]) for k, p in enumerate(places) if k >= lag):
        return None
    return at[1] if lag == 0 else Carried(at[1], tuple(column[:lag]))
