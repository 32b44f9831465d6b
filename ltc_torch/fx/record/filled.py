"""Tensors that are built part by part: recorded as chains of writes or of joins, they are one join of their parts.

`out[:, t] = y` in a loop, blocks of channels written into torch.empty, and `out = torch.cat([out, y], 1)` say the same
in different words. A part that is read again before the tensor is full is what was written there.
"""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import fx

from ltc_torch.fx.record.views import Region, read_region

_LEAST_WRITES = 2


class _Part(NamedTuple):
    """A rectangle of a tensor, and the write that filled it."""

    region: Region
    write: fx.Node


def join_parts(graph: fx.Graph) -> None:
    """Write chains of writes and of concatenations as single joins, each where its last part is known."""
    _read_through(graph)
    _drop_unread(graph)
    for node in list(graph.nodes):
        _join_writes(graph, node)
    for node in reversed(list(graph.nodes)):
        _join_growing(graph, node)


def _named(node: Any, *names: str) -> bool:
    return isinstance(node, fx.Node) and getattr(node.target, "__name__", node.target) in names


# ---------------------------------------------------------------- reads of what was written


def _drop_unread(graph: fx.Graph) -> None:
    """Views that a line makes to write through, `out[:, t].copy_(y)`, go: nothing reads any of them. Of a line whose
    views are read, in the next iteration say, all stay."""
    views: dict[Any, list[fx.Node]] = {}
    for node in graph.nodes:
        if _named(node, "getitem", "read_region") or (_named(node, "select", "narrow") and node.args):
            source = node.meta["source"]
            views.setdefault((node.args[0], source.module, source.file, source.line), []).append(node)
    for found in views.values():
        if not any(view.users for view in found):
            for view in found:
                graph.erase_node(view)


def _read_through(graph: fx.Graph) -> None:
    """A read of a part is the value that was written there, or a read of the tensor before writes to other parts."""
    for node in list(graph.nodes):
        base, region = _part_read(node)
        if not _named(base, "write_region") or _of_input(base):
            continue
        while _named(base, "write_region") and _apart(base.args[1], region):
            base = base.args[0]
        shape = tuple(node.meta["shape"])
        if all(r == slice(0, n, 1) for r, n in zip(region, base.meta["shape"], strict=True)):
            _put(graph, node, base, shape)
        elif _named(base, "write_region") and base.args[1] == region and _fits(base):
            _put(graph, node, base.args[2], shape)
        else:
            node.target, node.args = read_region, (base, region, shape)


def _of_input(write: fx.Node) -> bool:
    """Whether writes go into an input or a state, which is one tensor, however often its parts are written."""
    node: Any = write
    while _named(node, "write_region"):
        node = node.args[0]
    return bool(node.op == "placeholder")


def _part_read(node: fx.Node) -> tuple[Any, Region]:
    """The tensor and the rectangle that a node reads; no tensor for other nodes."""
    if _named(node, "read_region"):
        return node.args[0], node.args[1]  # type: ignore[return-value]
    if node.target is not operator.getitem or not isinstance(node.args[0], fx.Node):
        return None, ()
    base: Any = node.args[0]
    key: Any = node.args[1]
    items = [i for i in (key if isinstance(key, tuple) else (key,)) if i is not None]
    sizes = base.meta["shape"]
    if isinstance(sizes, list) or any(type(i) not in (int, slice, type(...)) for i in items):
        return None, ()
    at = next((k for k, i in enumerate(items) if i is Ellipsis), len(items))
    rest = items[at + 1 :]
    items = [*items[:at], *[slice(None)] * (len(sizes) - at - len(rest)), *rest]
    region = []
    for item, size in zip(items, sizes, strict=True):
        at = item % size if isinstance(item, int) else 0
        bounds = (at, at + 1, 1) if isinstance(item, int) else item.indices(size)
        region.append(slice(*bounds))
    return (base, tuple(region)) if all(r.step == 1 and r.start < r.stop for r in region) else (None, ())


def _put(graph: fx.Graph, node: fx.Node, value: fx.Node, shape: tuple[int, ...]) -> None:
    """The elements of `value` in the place of a node."""
    if tuple(value.meta["shape"]) != shape:
        node.target, node.args = torch.reshape, (value, shape)
    else:
        node.replace_all_uses_with(value)
        graph.erase_node(node)


def _apart(a: Region, b: Region) -> bool:
    """Whether two rectangles have no element in common, as far as their bounds say."""
    return any(x.stop <= y.start or y.stop <= x.start for x, y in zip(a, b, strict=True))


def _fits(write: fx.Node) -> bool:
    """Whether what is written has the tensor's dtype already."""
    value: Any = write.args[2]
    return bool(value.meta["dtype"] == write.meta["dtype"])


# ---------------------------------------------------------------- writes


def _join_writes(graph: fx.Graph, last: fx.Node) -> None:
    if not _named(last, "write_region") or any(_named(user, "write_region") for user in last.users):
        return
    chain = _chain(last)
    parts = _visible(chain)
    if parts is None or len(chain) < _LEAST_WRITES or (len(parts) < len(chain) and _of_input(last)):
        return
    whole = tuple(slice(0, n, 1) for n in last.meta["shape"])
    made = _tiled(_Tiler(graph, chain[0]), whole, parts)
    if made is None:
        return
    if last.users and made not in (p.write.args[2] for p in parts):
        min(last.users).prepend(made)  # behind the iteration that wrote the last part
    last.replace_all_uses_with(made)
    for write in reversed(chain):
        graph.erase_node(write)


def _chain(last: fx.Node) -> list[fx.Node]:
    """The writes that end in a node, each but the last being read by the next alone."""
    found: list[fx.Node] = []
    node: Any = last
    while _named(node, "write_region") and not (found and len(node.users) > 1):
        found.append(node)
        node = node.args[0]
    return found[::-1]


def _visible(chain: Sequence[fx.Node]) -> list[_Part] | None:
    """The parts that later ones leave visible; None where one covers another in part."""
    parts: dict[tuple[tuple[int, int], ...], _Part] = {}
    for write in chain:
        region: Any = write.args[1]
        if any(r.step != 1 for r in region) or not _fits(write):
            return None
        bounds = tuple((r.start, r.stop) for r in region)
        parts.pop(bounds, None)
        parts[bounds] = _Part(region, write)
    return list(parts.values())


class _Tiler(NamedTuple):
    """Makes the nodes of one chain of writes."""

    graph: fx.Graph
    first: fx.Node

    def at(self, write: fx.Node, target: Any, args: tuple[Any, ...], box: Region) -> fx.Node:
        with self.graph.inserting_before(write):
            made = self.graph.call_function(target, args)
        made.meta = {**write.meta, "shape": _sizes(box)}
        return made

    def untouched(self, box: Region) -> fx.Node:
        with self.graph.inserting_before(self.first):
            made = self.graph.call_function(read_region, (self.first.args[0], box, _sizes(box)))
        made.meta = {**self.first.meta, "shape": _sizes(box)}
        return made


def _tiled(t: _Tiler, box: Region, parts: list[_Part]) -> fx.Node | None:
    """The node of what stands in a box; None if the parts do not tile it by straight cuts."""
    if not parts:
        return t.untouched(box)
    latest = max(p.write for p in parts)
    if len(parts) == 1 and parts[0].region == box:
        value = parts[0].write.args[2]
        assert isinstance(value, fx.Node)
        same = tuple(value.meta["shape"]) == _sizes(box)
        return value if same else t.at(latest, torch.reshape, (value, _sizes(box)), box)
    cuts = [(axis, _slabs(box, parts, axis)) for axis in range(len(box))]
    axis, slabs = max(cuts, key=lambda found: len(found[1]), default=(0, []))
    if len(slabs) < 2:
        return None
    values = _single(slabs, axis)
    if values is not None:
        return t.at(latest, torch.stack, (values, axis), box)
    tiles = [_tiled(t, slab, inside) for slab, inside in slabs]
    return None if None in tiles else t.at(latest, torch.cat, (tiles, axis), box)


def _single(slabs: Sequence[tuple[Region, list[_Part]]], axis: int) -> list[fx.Node] | None:
    """The values of slabs of one element each, where they were written without that axis."""
    values = []
    for slab, inside in slabs:
        sizes = _sizes(slab)
        if sizes[axis] != 1 or len(inside) != 1 or inside[0].region != slab:
            return None
        value = inside[0].write.args[2]
        assert isinstance(value, fx.Node)
        if tuple(value.meta["shape"]) != (*sizes[:axis], *sizes[axis + 1 :]):
            return None
        values.append(value)
    return values


def _slabs(box: Region, parts: Sequence[_Part], axis: int) -> list[tuple[Region, list[_Part]]]:
    """A box cut across an axis wherever no part is cut, with what lies in each slab."""
    ordered = sorted(parts, key=lambda p: (p.region[axis].start, p.region[axis].stop))
    found: list[tuple[Region, list[_Part]]] = []

    def add(start: int, stop: int, inside: list[_Part]) -> None:
        if start < stop:
            found.append(((*box[:axis], slice(start, stop, 1), *box[axis + 1 :]), inside))

    inside: list[_Part] = []
    at = end = box[axis].start
    for part in ordered:
        if part.region[axis].start >= end:
            add(at, end, inside)
            add(end, part.region[axis].start, [])
            at, inside = part.region[axis].start, []
        inside.append(part)
        end = max(end, part.region[axis].stop)
    add(at, end, inside)
    add(end, box[axis].stop, [])
    return found


def _sizes(box: Region) -> tuple[int, ...]:
    return tuple(r.stop - r.start for r in box)


# ---------------------------------------------------------------- joins


def _join_growing(graph: fx.Graph, last: fx.Node) -> None:
    """torch.cat([torch.cat([a, b]), c]) along one axis is torch.cat([a, b, c])."""
    joined = _joined(last) if last.users else None
    if joined is None:
        return
    (*rest,), axis = joined
    rest, inner, absorbed = rest[::-1], _joined(rest[0]), []
    while inner is not None and inner[1] == axis and len(rest[-1].users) == rest.count(rest[-1]) == 1:
        absorbed.append(rest.pop())
        rest += inner[0][::-1]
        inner = _joined(rest[-1])
    if absorbed:
        last.args, last.kwargs = (rest[::-1], axis), {}
        min(last.users).prepend(last)  # behind the iteration that joined the last part
        for node in absorbed:
            graph.erase_node(node)


def _joined(node: Any) -> tuple[list[fx.Node], int] | None:
    """What a concatenation joins, and along which axis."""
    if not _named(node, "cat", "concat", "concatenate") or not node.args:
        return None
    parts, rank = node.args[0], len(node.meta["shape"])
    axis = node.args[1] if len(node.args) > 1 else node.kwargs.get("dim", node.kwargs.get("axis", 0))
    if not isinstance(parts, (list, tuple)) or not parts or not all(isinstance(p, fx.Node) for p in parts):
        return None
    same = all(p.meta["dtype"] == node.meta["dtype"] for p in parts)
    return ([*parts], axis % rank) if same and isinstance(axis, int) else None
