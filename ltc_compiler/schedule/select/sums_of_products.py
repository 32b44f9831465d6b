"""Sums of products of computed values in a graph: matrix products, attention.

A graph has them as a `sum` over one axis of a `mul`. Where the rows of both factors can be read as `product` or `dot`
reads them, the instruction has the same bits, and the products are never written. The factors are looked for behind
transpositions, new axes and broadcasts, which are not carried out either if nothing else reads them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from ltc_compiler.ir.graph import Graph, Node, Precision, Value
from ltc_compiler.schedule.rows.layout import View


@dataclass(frozen=True)
class Factor:
    """A value, and for each axis of the products the axis of the value that goes with it; None where it repeats."""

    value: Value
    axes: tuple[int | None, ...]

    @property
    def lanes(self) -> int | None:
        """The axis of the products that goes along the lanes of the value."""
        last = self.value.type.rank - 1
        return self.axes.index(last) if last in self.axes else None

    def steps(self, view: View) -> list[int]:
        """The row step of the value's view along each axis of the products; 0 along the lanes."""
        rows = (*view.steps, 0)
        return [0 if a is None else rows[a] for a in self.axes]


@dataclass(frozen=True)
class SumOfProducts:
    """left and right, multiplied over `shape` and summed over `axis`. Lane `lanes` of the result is lane of `right`, or
    a row of it where `along` says that both factors have the summed axis in their lanes."""

    left: Factor
    right: Factor
    shape: tuple[int, ...]
    axis: int
    lanes: int
    along: bool

    @property
    def inner(self) -> int | None:
        """The axis other than the summed one that goes along the lanes of `left`, which no loop can step through."""
        return self.left.lanes if self.left.lanes != self.axis else None


def find_products(graph: Graph) -> tuple[dict[Value, SumOfProducts], set[Value]]:
    """By its result, every sum that is a product; and the values that are then never computed."""
    uses = graph.uses()
    kept = {*graph.outputs, *(s.next for s in graph.states)}
    found = {}
    spared: set[Value] = set()
    for node in graph.nodes:
        terms = node.operands[0] if node.op == "sum" else None
        if terms is None or terms.node is None or terms in kept or uses[terms] != [node]:
            continue
        product = _product(node, terms.node)
        if product is not None:
            found[node.results[0]] = product
            spared.add(terms)
    read = {factor.value for product in found.values() for factor in (product.left, product.right)}
    for node in reversed(graph.nodes):
        if node.op in ("permute", "reshape", "broadcast") and node.results[0] not in kept | read:
            readers = uses.get(node.results[0], [])
            if readers and all(reader.results[0] in spared for reader in readers):
                spared.add(node.results[0])
    return found, spared


def _product(node: Node, terms: Node) -> SumOfProducts | None:
    """The sum as a product, the factors taken from as far behind as one of the forms allows."""
    narrow = Precision.BF16 in (node.results[0].type.precision, terms.results[0].type.precision)
    if terms.op != "mul" or narrow or terms.cores != node.cores:
        return None
    shape, axis = terms.results[0].shape, node.attrs["axis"] % terms.results[0].type.rank
    lanes = max((d for d in range(len(shape)) if node.attrs["keepdims"] or d != axis), default=axis)
    if lanes == axis or shape[lanes] == 1:
        return None
    sides = [list(_origins(v, shape)) for v in terms.operands]
    for first in sides[0]:
        for second in sides[1]:
            for left, right in ((first, second), (second, first)):
                product = SumOfProducts(left, right, shape, axis, lanes, right.lanes == axis)
                if _fits(product):
                    return product
    return None


def _fits(p: SumOfProducts) -> bool:
    """Whether an instruction reads the factors as they lie."""
    if p.left.axes[p.lanes] is not None or p.right.axes[p.lanes] is None:
        return False
    if p.along:
        return p.left.lanes == p.axis
    return p.right.lanes == p.lanes and (p.inner is None or p.right.axes[p.inner] is None)


def _origins(value: Value, shape: tuple[int, ...]) -> Iterator[Factor]:
    """A factor, from the value that is furthest behind to the operand itself."""
    extra = len(shape) - value.type.rank
    axes = [d - extra if d >= extra and value.shape[d - extra] != 1 else None for d in range(len(shape))]
    chain = [Factor(value, tuple(axes))]
    while (behind := _behind(chain[-1])) is not None:
        chain.append(behind)
    return reversed(chain)


def _behind(factor: Factor) -> Factor | None:
    """The operand of a node that only gives the axes other places."""
    node = factor.value.node
    if node is None or node.op not in ("permute", "reshape", "broadcast"):
        return None
    source, shape = node.operands[0], factor.value.shape
    if node.op == "permute":
        came: list[int | None] = list(node.attrs["dims"])
    elif node.op == "broadcast":
        extra = len(shape) - source.type.rank
        came = [d - extra if d >= extra else None for d in range(len(shape))]
    else:
        wide = [d for d, n in enumerate(source.shape) if n != 1]
        if [source.shape[d] for d in wide] != [n for n in shape if n != 1]:
            return None
        old = iter(wide)
        came = [next(old) if n != 1 else None for n in shape]
    came = [d if d is not None and source.shape[d] != 1 else None for d in came]
    return Factor(source, tuple(None if a is None else came[a] for a in factor.axes))
