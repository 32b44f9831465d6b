"""Rolls an unrolled loop over time up again, into a scan: detect, execute, compare, accept.

A model with `for t in range(T)` in its forward is recorded with T copies of the loop's body. Where repeats.py finds
them to be iterations of one loop, they become one `run_scan` node, which streams and whose program does not grow with
T. The new graph executes the very operations of the old one. It is taken if its outputs have the same bits on the
example inputs and on others; if they differ in one bit, the recording stays as it was.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from torch import Tensor, fx
from torch.utils import _pytree as pytree

from ltc_torch.fx.record.exact import widened
from ltc_torch.fx.reroll.constants import settle
from ltc_torch.fx.reroll.repeats import find
from ltc_torch.fx.reroll.rolled import as_scan
from ltc_torch.fx.reroll.windowed import cut_windows

_LIMIT = 64  # loops of one model


def rolled(module: fx.GraphModule, examples: Sequence[Sequence[Tensor]]) -> fx.GraphModule | None:
    """The module with its loops over an axis as scans, or None if it has none.

    examples: inputs, as the placeholders take them.
    """
    settle(module, reads_alone=True)
    cut_windows(module.graph)
    best = None
    for _ in range(_LIMIT):
        new = next((m for m in _candidates(module) if _agree(module, m, examples)), None)
        if new is None:
            break
        best = module = new
    if best is not None:
        settle(best)
    return best


def _candidates(module: fx.GraphModule) -> Iterator[fx.GraphModule]:
    for loop in find(module.graph, NodeNames(module)):
        yield as_scan(module, loop)


def _agree(old: fx.GraphModule, new: fx.GraphModule, examples: Sequence[Sequence[Tensor]]) -> bool:
    for inputs in examples:
        try:
            a, b = (pytree.tree_leaves(m(*(t.clone() for t in inputs))) for m in (old, new))
        except RuntimeError:  # shapes that do not fit: the hypothesis was wrong
            return False
        pairs = zip(a, b, strict=True)
        if len(a) != len(b) or not all(_same_bits(x, y) for x, y in pairs if isinstance(x, Tensor)):
            return False
    return True


def _same_bits(a: Tensor, b: Tensor) -> bool:
    return a.shape == b.shape and bool(((a == b) | (a.isnan() & b.isnan())).all())


class NodeNames:
    """Names nodes by what they hold: constants of equal elements, and equal bodies, are the same in all iterations."""

    def __init__(self, module: fx.GraphModule) -> None:
        self._module = module
        self._found: dict[fx.Node, Any] = {}

    def __call__(self, node: fx.Node) -> Any:
        if node.op != "get_attr":
            return node
        if node not in self._found:
            self._found[node] = self._name(node)
        return self._found[node]

    def _name(self, node: fx.Node) -> Any:
        body = node.meta.get("body")
        if body is not None:
            return _printed(body)
        exact = node.meta["exact"]
        return node.meta["dtype"], exact.shape, widened(exact).tobytes()


def _printed(body: fx.GraphModule) -> Any:
    """A body's operations, its constants by their elements."""
    names, number = NodeNames(body), {n: i for i, n in enumerate(body.graph.nodes) if n.op != "get_attr"}
    constants = [n for n in body.graph.nodes if n.op == "get_attr"]
    known = {n: names(n) for n in constants}

    def shown(n: fx.Node) -> str:
        return f"%{number[n]}" if n in number else f"constant {known[n]!r}"

    lines = []
    for node in body.graph.nodes:
        if node.op != "get_attr":
            target = node.target if isinstance(node.target, str) else id(node.target)
            target = "" if node.op == "placeholder" else target
            lines.append(
                (node.op, target, repr(fx.node.map_arg((node.args, node.kwargs), lambda n: _Shown(shown(n)))))
            )
    return tuple(lines)


class _Shown(str):
    __slots__ = ()

    def __repr__(self) -> str:
        return str(self)
