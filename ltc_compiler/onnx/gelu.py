"""Finds x * (1 + erf(x / sqrt 2)) / 2, which exporters write for Gelu, since the machine has no unit for erf alone."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ltc_compiler.ir.graph import Array


class _Nodes:
    """Who makes and who reads a tensor, among the nodes of one graph."""

    def __init__(self, nodes: Iterable[Any], constants: Mapping[str, Array]) -> None:
        self.constants = constants
        self.maker: dict[str, Any] = {}
        self.readers: dict[str, list[Any]] = {}
        for node in nodes:
            self.maker.update(dict.fromkeys(node.output, node))
            for name in node.input:
                self.readers.setdefault(name, []).append(node)

    def other(self, node: Any, op: str, name: str) -> str | None:
        """The other operand of a two-operand node of that op."""
        if node is None or node.op_type != op or len(node.input) != 2 or name not in node.input:
            return None
        return str(node.input[1] if node.input[0] == name else node.input[0])

    def is_number(self, name: str | None, number: float) -> bool:
        array = None if name is None else self.constants.get(name)
        return (
            array is not None
            and array.size == 1
            and math.isclose(float(array.reshape(())), number, rel_tol=1e-3)
        )

    def scaled(self, name: str, factor: float) -> str | None:
        """x, if `name` is x times the factor, written as a product or a quotient."""
        node = self.maker.get(name)
        if node is None or len(node.input) != 2:
            return None
        a, b = node.input
        if node.op_type == "Div" and self.is_number(b, 1 / factor):
            return str(a)
        if node.op_type == "Mul":
            return str(a) if self.is_number(b, factor) else str(b) if self.is_number(a, factor) else None
        return None

    def only_reader(self, name: str) -> Any:
        readers = self.readers.get(name, [])
        return readers[0] if len(readers) == 1 else None


def find_gelus(nodes: Sequence[Any], constants: Mapping[str, Array]) -> tuple[dict[int, str], set[int]]:
    """By the id of a node that ends a Gelu, its x; and the ids of the nodes that only lead there."""
    known = _Nodes(nodes, constants)
    ends: dict[int, str] = {}
    inside: set[int] = set()
    for erf in nodes:
        if erf.op_type != "Erf":
            continue
        x = known.scaled(erf.input[0], math.sqrt(0.5))
        plus = known.only_reader(erf.output[0])
        if x is None or not known.is_number(known.other(plus, "Add", erf.output[0]), 1.0):
            continue
        end = _end(known, x, plus)
        if end is not None:
            ends[id(end)] = x
            inside |= {id(erf), id(plus)}
            inside |= {id(n) for n in known.readers.get(plus.output[0], []) if n is not end}
    return ends, inside


def _end(known: _Nodes, x: str, plus: Any) -> Any:
    """The node that makes x * plus / 2: (x * plus) * 0.5, (x * 0.5) * plus or x * (plus * 0.5)."""
    name = plus.output[0]
    product = known.only_reader(name)
    other = known.other(product, "Mul", name)
    if other is not None and known.scaled(other, 0.5) == x:
        return product
    final = known.only_reader(product.output[0]) if product is not None else None
    if other == x:
        whole = known.other(final, "Mul", product.output[0])
        halved = final is not None and known.scaled(final.output[0], 0.5) == product.output[0]
        return final if known.is_number(whole, 0.5) or halved else None
    if known.is_number(other, 0.5) and known.other(final, "Mul", product.output[0]) == x:
        return final
    return None
