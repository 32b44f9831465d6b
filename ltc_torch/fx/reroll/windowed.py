"""Windows that a loop cuts out of a sequence, `x[:, t - 2 : t + 1]`, as joins of single indices, which a scan can read.

A filter that sums long slices, `w[k] * x[:, k : k + n]`, cuts windows as well, and no loop over those streams: they are
wider than they are many as a rule, and their results are not joined.
"""

from __future__ import annotations

import operator
from collections.abc import Iterator
from itertools import pairwise
from typing import Any, NamedTuple

import torch
from torch import fx

_WIDEST = 64  # elements of a window; each is an operation of every iteration


class _Window(NamedTuple):
    """Elements `start` to `start + width` of `axis` of `tensor`; place: of the slice in `items`, which has all axes."""

    node: fx.Node
    tensor: fx.Node
    items: tuple[Any, ...]
    place: int
    start: int
    width: int

    @property
    def axis(self) -> int:
        """The window's axis in what the read gives."""
        return sum(not isinstance(item, int) for item in self.items[: self.place])


def has_windows(graph: fx.Graph) -> bool:
    """Whether windows of one line go forwards by one index."""
    return any(True for _ in _sliding(graph))


def cut_windows(graph: fx.Graph) -> None:
    """Write windows that go forwards by one index as joins of slices of one element."""
    for window in [w for run in _sliding(graph) for w in run]:
        node, shape = window.node, list(window.node.meta["shape"])
        shape[window.axis] = 1
        parts = []
        with graph.inserting_before(node):
            for at in range(window.start, window.start + window.width):
                items = (*window.items[: window.place], slice(at, at + 1), *window.items[window.place + 1 :])
                part = graph.call_function(operator.getitem, (window.tensor, items))
                part.meta = {**node.meta, "shape": tuple(shape)}
                parts.append(part)
            whole = graph.call_function(torch.cat, (parts, window.axis))
        whole.meta = dict(node.meta)
        node.replace_all_uses_with(whole)
        graph.erase_node(node)


def _sliding(graph: fx.Graph) -> Iterator[list[_Window]]:
    """The windows of a tensor, read on one line, each an index further than the one before; as many are joined."""
    groups: dict[Any, list[_Window]] = {}
    for node in graph.nodes:
        for window in _windows(node):
            source = node.meta["source"]
            others = (*window.items[: window.place], *window.items[window.place + 1 :])
            key = (window.tensor, window.place, window.width, repr(others))
            groups.setdefault((*key, source.module, source.file, source.line), []).append(window)
    joined = max(map(_parts, graph.nodes), default=0)
    for group in groups.values():
        if joined >= len(group) > group[0].width and all(b.start - a.start == 1 for a, b in pairwise(group)):
            yield group


def _parts(node: fx.Node) -> int:
    """How many tensors a node joins."""
    name = getattr(node.target, "__name__", node.target)
    parts = node.args[0] if name in ("stack", "cat", "concat", "concatenate") and node.args else ()
    return len(parts) if isinstance(parts, (list, tuple)) else 0


def _windows(node: fx.Node) -> Iterator[_Window]:
    """The ways to see a read by an index as a window."""
    if node.target is not operator.getitem:
        return
    tensor: Any = node.args[0]
    key: Any = node.args[1]
    shape, items = tensor.meta.get("shape"), list(key) if isinstance(key, tuple) else [key]
    if not isinstance(shape, tuple) or any(type(i) not in (int, slice, type(...)) for i in items):
        return
    if Ellipsis in items:
        at = items.index(Ellipsis)
        items[at : at + 1] = [slice(None)] * (len(shape) - len(items) + 1)
    items += [slice(None)] * (len(shape) - len(items))
    for place, (item, size) in enumerate(zip(items, shape, strict=True)):
        if isinstance(item, slice):
            start, stop, step = item.indices(size)
            if step == 1 and 1 < stop - start < min(size, _WIDEST + 1):
                yield _Window(node, tensor, tuple(items), place, start, stop - start)
