"""Tensors that a loop fills, `out[:, t] = y`: recorded as a chain of writes, they are a stack of what was written."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import fx

_LEAST_WRITES = 3


def join_writes(graph: fx.Graph) -> None:
    """A tensor that is written index by index, and read only when it is full, is a stack of what was written."""
    for node in list(graph.nodes):
        chain = _chain(node)
        if not chain:
            continue
        axis = _filled(chain)
        if axis is None:
            continue
        values = [_written(n) for n in chain]
        shape = node.meta["shape"]
        kept = all(len(v.meta["shape"]) == len(shape) for v in values)
        with graph.inserting_before(node):
            made = graph.call_function(torch.cat if kept else torch.stack, (values, axis))
        made.meta = dict(node.meta)
        node.replace_all_uses_with(made)
        for write in reversed(chain):
            graph.erase_node(write)


def _chain(last: fx.Node) -> list[fx.Node]:
    """The writes that end in a node, if each but the last is read by the next alone."""
    found: list[fx.Node] = []
    node: Any = last
    while isinstance(node, fx.Node) and getattr(node.target, "__name__", "") == "write_region":
        if found and len(node.users) > 1:
            return []
        found.append(node)
        node = node.args[0]
    following = [u for u in last.users if getattr(u.target, "__name__", "") == "write_region"]
    return found[::-1] if len(found) >= _LEAST_WRITES and not following else []


def _filled(chain: Sequence[fx.Node]) -> int | None:
    """The axis along which the writes fill all of the tensor, index by index."""
    shape = chain[-1].meta["shape"]
    for axis, size in enumerate(shape):
        full = [slice(0, n, 1) for n in shape]
        regions = []
        for k in range(size):
            full[axis] = slice(k, k + 1, 1)
            regions.append(tuple(full))
        written = [n.args[1] for n in chain]
        if size == len(chain) and written == regions:
            rest = (*shape[:axis], *shape[axis + 1 :])
            widths = {tuple(_written(n).meta["shape"]) for n in chain}
            if widths in ({rest}, {(*rest[:axis], 1, *rest[axis:])}):
                return axis
    return None


def _written(write: fx.Node) -> fx.Node:
    value = write.args[2]
    assert isinstance(value, fx.Node)
    return value
