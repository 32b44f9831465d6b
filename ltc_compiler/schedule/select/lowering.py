"""The lowering of one model: everything that selection knows of it, in one hand."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from numpy.typing import NDArray

from ltc_compiler.errors import UnsupportedError
from ltc_compiler.ir.graph import Graph, Node, Value
from ltc_compiler.schedule.rows.build import InstructionBuilder
from ltc_compiler.schedule.rows.contents import Contents
from ltc_compiler.schedule.rows.layout import View
from ltc_compiler.schedule.rows.places import Location
from ltc_compiler.schedule.rows.values import Values
from ltc_compiler.schedule.select.plan import Plan
from ltc_compiler.schedule.select.rings import Rings
from ltc_compiler.schedule.spread.partition import Cut, Spread

Selector = Callable[["Lowering", Node], Sequence[Location]]


class Lowering:
    """A model on its way from a graph to instructions.

    contents: of the program, which its models share. build: makes the instructions. values: where each value lies.
    plan: how products are divided. rings: which states turn. products: the rows of a product in a band, on a core.
    pieces: of a product that is cut, where each piece lies.
    """

    def __init__(
        self, contents: Contents, cores: Sequence[int], spread: Spread, selectors: Mapping[str, Selector]
    ) -> None:
        """cores: those that the model may use. selectors: by op, the function that selects its instructions; it
        returns where the results lie, none for a result that is never whole."""
        self.contents = contents
        self.config = contents.config
        self.build = InstructionBuilder(contents, cores[: spread.cores or None])
        self.values = Values(self.build)
        self.plan = Plan(contents.config, spread, cores)
        self.rings = Rings(contents)
        self.products: dict[tuple[Value, int, int], View] = {}
        self.pieces: dict[Value, dict[Cut, Location]] = {}
        self._selectors = selectors

    def select(self, graph: Graph) -> None:
        """Select the instructions of every node, in order, and record where its results lie."""
        self.plan.add(graph, self.build.cores)
        for node in graph.nodes:
            if node.op == "constant" or node.results[0] in self.plan.spared:
                continue
            with self.build.schedule.working_on(str(node.source), node.op), self.build.on_cores(node.cores):
                for value, where in zip(node.results, self._selectors[node.op](self, node), strict=False):
                    self.values.place(value, where)

    def parameters(self, node: Node, first: int, end: int | None = None) -> list[NDArray[Any]]:
        """The operands from `first` on, to below `end`, as stored, in fp64 or fp32. Raises UnsupportedError if one of
        them is no constant."""
        arrays = [v.stored() for v in node.operands[first:end]]
        if any(a is None for a in arrays):
            raise self.refusal(
                f"{node.op} takes constant parameters and one of them depends on an input",
                "make the weights parameters or buffers of the module",
            )
        return [a for a in arrays if a is not None]

    def refusal(self, what: str, rewrite: str) -> UnsupportedError:
        """The error for something that the machine cannot do, at the user's current place."""
        return UnsupportedError.single(what, where=self.build.schedule.source, rewrite=rewrite)
