"""One body from as many recordings of a step as a scan has iterations, for steps that read their constants by value.

A step may look a constant up: the ODE function of a neural CDE finds the piece of its path by the solver's time. Such
a step is recorded once for each iteration, with that iteration's constants. Where the recordings are the same
operations, the constants in which they differ are scanned, and so are the rows that they read of outer tensors.
"""

from __future__ import annotations

import operator
from collections.abc import Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, fx
from torch.utils import _pytree as pytree

from ltc_torch.fx.record.active import paused
from ltc_torch.fx.record.exact import widened
from ltc_torch.fx.record.record import Recorder
from ltc_torch.fx.record.sources import refuse

_ARITHMETIC = frozenset({"add", "sub", "rsub", "mul", "div", "truediv", "multiply", "subtract", "divide"})
_REMEDY = "compute with the time as a tensor, or let every step run the same operations"


class Recording(NamedTuple):
    """One iteration: its recorder, and what its placeholders are outside (None for a carry)."""

    body: Recorder
    outside: dict[fx.Node, Tensor | None]
    calls: list[fx.Node]  # the output last


def merge(recorder: Recorder, bodies: Sequence[Recorder], carries: int) -> list[tuple[Tensor, int]]:
    """Make the first body, which has placeholders for carries and captures, that of every iteration.

    Returns what is scanned, in the order of its new placeholders: outer tensors, and the axes to scan along. Raises
    UnsupportedError where the iterations are not alike.
    """
    merger = _Merger(recorder, [_recording(body, carries) for body in bodies])
    merger.merge()
    return merger.scanned


def _recording(body: Recorder, carries: int) -> Recording:
    places = [n for n in body.graph.nodes if n.op == "placeholder"]
    outside: dict[fx.Node, Tensor | None] = dict.fromkeys(places[:carries])
    outside |= dict(zip(places[carries:], body.captures, strict=True))
    return Recording(body, outside, [n for n in body.graph.nodes if n.op not in ("placeholder", "get_attr")])


class Column(NamedTuple):
    """One argument of an operation in all recordings, and what it is there, comparable."""

    leaves: tuple[Any, ...]
    keys: list[Any]


class _Merger:
    """Changes the first recording's graph into that of all."""

    def __init__(self, recorder: Recorder, recordings: Sequence[Recording]) -> None:
        self.recorder = recorder
        self.session = recorder.session
        self.recordings = recordings
        self.first = recordings[0]
        self.scanned: list[tuple[Tensor, int]] = []
        self._known: dict[Any, fx.Node] = {}  # what is scanned already, by what it holds
        self._numbers = [{n: i for i, n in enumerate(r.calls)} for r in recordings]
        self._last = next(n for n in reversed(self.first.outside) if self.first.outside[n] is None)

    def merge(self) -> None:
        for before, after in pairwise(self.recordings):
            self._compare(before.calls, after.calls)
        differences = [
            self._difference(nodes) for nodes in zip(*(r.calls for r in self.recordings), strict=True)
        ]
        for node, varying in zip(self.first.calls, differences, strict=True):
            self._settle(node, varying)
        self._drop_captures()

    def _compare(self, one: Sequence[fx.Node], other: Sequence[fx.Node]) -> None:
        for a, b in zip(one, other, strict=False):
            if (a.op, a.target) != (b.op, b.target) or len(_leaves(a)) != len(_leaves(b)):
                raise self._refuse(f"at other times a step runs other operations ({a.name}, then {b.name})")
        if len(one) != len(other):
            raise self._refuse(f"at other times a step runs {len(other)} operations and not {len(one)}")

    def _refuse(self, reason: str) -> Exception:
        return refuse("scan", self.session.module, reason, _REMEDY)

    def _difference(self, nodes: Sequence[fx.Node]) -> dict[int, Column]:
        """The arguments, by their place, in which an operation differs between the recordings."""
        found = {}
        for i, leaves in enumerate(zip(*(_leaves(n) for n in nodes), strict=True)):
            keys = [self._key(k, leaf) for k, leaf in enumerate(leaves)]
            if any(key != keys[0] for key in keys):
                found[i] = Column(leaves, keys)
        return found

    def _settle(self, node: fx.Node, varying: dict[int, Column]) -> None:
        """Let an operation of the first recording read what differs from slices."""
        if (
            len(varying) == 1
            and 0 not in varying
            and node.target in (operator.getitem, "select", torch.select)
        ):
            ((place, column),) = varying.items()
            row = self._row(node, column.leaves, place)
            if row is not None:
                node.replace_all_uses_with(row)
                self.first.body.graph.erase_node(node)
                return
        for place, column in varying.items():
            self._replace(node, place, self._stacked(node, column))

    def _key(self, k: int, leaf: Any) -> Any:
        """What an argument is, comparable between recordings."""
        if not isinstance(leaf, fx.Node):
            return (type(leaf), repr(leaf))
        if leaf in self._numbers[k]:
            return self._numbers[k][leaf]
        if leaf.op == "get_attr":
            if leaf.meta.get("body") is not None:
                raise self._refuse("a step that reads its time by value holds a loop of its own")
            exact = leaf.meta["exact"]
            return (leaf.meta["dtype"], exact.shape, widened(exact).tobytes())
        outer = self.recordings[k].outside.get(leaf)
        return ("carry", leaf.name) if outer is None else id(outer)

    def _row(self, node: fx.Node, indices: Sequence[Any], place: int) -> fx.Node | None:
        """The scanned rows of an outer tensor of which every iteration reads one; None if it is no such read."""
        source = _leaves(node)[0]
        outer = self.first.outside.get(source) if isinstance(source, fx.Node) else None
        positions = [p for p in map(_position, indices) if p is not None]
        if outer is None or len(positions) < len(indices):
            return None
        items, at = _items(node, place)
        others = [*items[:at], *items[at + 1 :]]
        if any(isinstance(i, (fx.Node, bool)) for i in others):
            return None
        known = (id(outer), repr(others), at, tuple(positions))
        if known not in self._known:
            self._known[known] = self._scan(*_rows(outer, items, at, positions), node)
        return self._known[known]

    def _stacked(self, node: fx.Node, varying: Column) -> fx.Node:
        """A placeholder for an argument that is another tensor or number in each iteration."""
        column, known = varying.leaves, tuple(map(repr, varying.keys))
        if known in self._known:
            return self._known[known]
        if (
            all(isinstance(x, float) for x in column)
            and _name(node).strip("_").removeprefix("r") in _ARITHMETIC
        ):
            with paused():
                rows = torch.tensor(column, dtype=torch.float64)
                wide = rows.numpy()
                rows = rows.to(torch.get_default_dtype())
            self.session.exact.keep(rows, torch.from_numpy(wide))
        else:
            tensors = [self._tensor(k, x) for k, x in enumerate(column)]
            if (
                any(t is None for t in tensors)
                or len({(t.shape, t.dtype) for t in tensors if t is not None}) > 1
            ):
                raise self._refuse(f"an argument of {_name(node)} follows from the time and is no tensor")
            rows = torch.stack([t for t in tensors if t is not None])
            if not rows.is_floating_point() and rows.dtype != torch.bool:
                raise self._refuse(
                    f"an argument of {_name(node)} follows from the time and is a whole number"
                )
            if (
                all(isinstance(x, fx.Node) and x.op == "get_attr" for x in column)
                and rows.is_floating_point()
            ):
                wide = np.stack([widened(x.meta["exact"]) for x in column])
                self.session.exact.keep(rows, torch.from_numpy(wide))
        self._known[known] = self._scan(rows, 0, node)
        return self._known[known]

    def _tensor(self, k: int, leaf: Any) -> Tensor | None:
        if not isinstance(leaf, fx.Node):
            return None
        if leaf.op == "get_attr":
            found = operator.attrgetter(str(leaf.target))(self.session.home)
            assert isinstance(found, Tensor)
            return found
        return self.recordings[k].outside.get(leaf)

    def _scan(self, rows: Tensor, axis: int, like: fx.Node) -> fx.Node:
        """A placeholder for the slices of an outer tensor, behind those that are there."""
        with paused():
            example = rows.select(axis, 0).detach().clone()
        with self.first.body.graph.inserting_after(self._last):
            node = self.first.body.graph.placeholder(f"slice_{len(self.scanned)}")
        self.first.body.annotate(node, example)
        node.meta["source"] = like.meta.get("source", node.meta["source"])
        self._last = node
        self.scanned.append((rows, axis))
        return node

    def _replace(self, node: fx.Node, place: int, new: fx.Node) -> None:
        leaves, spec = _flat(node)
        leaves[place] = new
        node.args, node.kwargs = pytree.tree_unflatten(leaves, spec)

    def _drop_captures(self) -> None:
        """Forget outer tensors that nothing reads any more, and the constants of the other recordings."""
        body = self.first.body
        body.graph.eliminate_dead_code(is_impure_node=lambda n: n.op in ("placeholder", "output"))
        unused = [n for n, outer in self.first.outside.items() if outer is not None and not n.users]
        kept = [t for n, t in self.first.outside.items() if t is not None and n not in unused]
        for node in unused:
            body.graph.erase_node(node)
        body.captures[:] = kept


def _position(leaf: Any) -> int | None:
    """A whole number, or what a constant tensor of one holds."""
    if isinstance(leaf, fx.Node):
        if leaf.op != "get_attr" or leaf.meta["shape"] != () or leaf.meta["dtype"].is_floating_point:
            return None
        return int(leaf.meta["exact"])
    return leaf if isinstance(leaf, int) and not isinstance(leaf, bool) else None


def _items(node: fx.Node, place: int) -> tuple[list[Any], int]:
    """The items of the index of a getitem or select, and which of them is the argument at a place."""
    if node.target is operator.getitem:
        key = node.args[1]
        return (list(key), place - 1) if isinstance(key, tuple) else ([key], 0)
    dim = int(_leaves(node)[1])  # (tensor, dim, index)
    rank = len(_leaves(node)[0].meta["shape"])
    return [*[slice(None)] * (dim % rank), _leaves(node)[2]], dim % rank


def _rows(outer: Tensor, items: Sequence[Any], at: int, positions: Sequence[int]) -> tuple[Tensor, int]:
    """outer[items] with each of the positions in the place `at`, on one axis; and which axis that is."""
    before, after = list(items[:at]), list(items[at + 1 :])
    if any(isinstance(i, int) for i in (*before, *after)):
        return torch.stack([outer[(*before, k, *after)] for k in positions]), 0
    rows = outer[(*before, torch.tensor(positions), *after)]
    behind = sum(i is not Ellipsis for i in after)
    return rows, rows.dim() - 1 - behind if Ellipsis in before else at


def _flat(node: fx.Node) -> tuple[list[Any], Any]:
    return pytree.tree_flatten((node.args, node.kwargs), is_leaf=lambda x: isinstance(x, (fx.Node, slice)))


def _leaves(node: fx.Node) -> list[Any]:
    return _flat(node)[0]


def _name(node: fx.Node) -> str:
    return node.target if isinstance(node.target, str) else getattr(node.target, "__name__", str(node.target))
