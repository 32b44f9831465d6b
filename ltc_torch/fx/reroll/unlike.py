"""Why a loop over an axis stays written out: the first iteration that differs from the others, and in what.

repeats.py proposes loops and says nothing about what it does not propose. Here the iterations of the longest run of
reads are laid side by side, for the message of a refusal.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator
from itertools import pairwise, zip_longest
from typing import Any

from torch import fx

from ltc_torch.fx.reroll.repeats import leaves, longest_run, reads

Same = Callable[[fx.Node], Any]


def unlike(graph: fx.Graph, same: Same) -> tuple[str, str, str] | None:
    """What keeps a graph's longest loop from being one, its line, and a remedy; None where nothing is seen."""
    found = longest_run(graph)
    if found is None:
        return None
    sequence, anchors = found
    where = str(anchors[0].meta["source"])
    first, second = (reads(anchor)[0].at for anchor in anchors[:2])
    if second < first:
        what = "a loop goes backwards in time, and a stream begins with its first step"
        return what, where, "run the whole sequence, or go forwards"
    position = {n: i for i, n in enumerate(sequence)}
    iterations = [sequence[position[a] : position[b]] for a, b in pairwise(anchors)]
    which = {n: k for k, nodes in enumerate(iterations) for n in nodes}
    usual = len(iterations) // 2
    for k in (*range(1, len(iterations)), 0):  # the first may differ, and a loop begins with the next
        for a, b in zip_longest(iterations[k], iterations[usual]):
            text = "" if k == usual else _difference(a, b, k, usual, which, same)
            if text:
                remedy = "let every iteration do the same, or write the loop with ltc_torch.nn.Scan"
                return f"a loop over time whose iterations differ: {text}", where, remedy
    return None


def _difference(
    a: fx.Node | None, b: fx.Node | None, k: int, usual: int, which: dict[fx.Node, int], same: Same
) -> str:
    """How operation a of iteration k differs from operation b of a usual one; "" where it does not."""
    if a is None or b is None:
        extra, without = (a, usual) if b is None else (b, k)
        assert extra is not None
        return f"iteration {without} has no {_shown(extra)}, iteration {k + usual - without} has"
    if _name(a) != _name(b) or a.meta["source"].line != b.meta["source"].line:
        return f"iteration {k} goes on with {_shown(a)}, iteration {usual} with {_shown(b)}"
    if a.meta["shape"] != b.meta["shape"] or a.meta["dtype"] != b.meta["dtype"]:
        kinds = [f"{n.meta['dtype']} {n.meta['shape']}".replace("torch.", "") for n in (a, b)]
        return f"{_shown(a)} gives {kinds[0]} in iteration {k} and {kinds[1]} in iteration {usual}"
    if not reads(a):
        pairs = zip(_literals(a), _literals(b), strict=False)
        other = next(((x, y) for x, y in pairs if x != y), None)
        if other is not None:
            return f"{_shown(a)} has {other[0]} in iteration {k} and {other[1]} in iteration {usual}"
    for x, y in zip(leaves(a), leaves(b), strict=False):
        if x not in which and y not in which and same(x) != same(y) and not (reads(x) or reads(y)):
            return f"{_shown(a)} reads another constant or input in iteration {k} than in iteration {usual}"
        back, usually = k - which.get(x, k), usual - which.get(y, usual)
        if (x in which) == (y in which) and back != usually:
            ago = (
                f"{back} iteration{'s' * (back != 1)} ago in iteration {k}, of {usually} in iteration {usual}"
            )
            return f"{_shown(a)} reads a value of {ago}"
    return ""


def _name(node: fx.Node) -> str:
    return getattr(node.target, "__name__", str(node.target))


def _shown(node: fx.Node) -> str:
    source = node.meta["source"]
    name = "an index" if node.target is operator.getitem else _name(node).strip("_")
    return f"{name} (line {source.line}: {source.text})"


def _literals(node: fx.Node) -> Iterator[Any]:
    """A call's arguments that are no tensors, in order."""

    def walk(value: Any) -> Iterator[Any]:
        if isinstance(value, (tuple, list)):
            for item in value:
                yield from walk(item)
        elif isinstance(value, dict):
            yield from walk(list(value.values()))
        elif not isinstance(value, fx.Node):
            yield value

    yield from walk((node.args, node.kwargs))
