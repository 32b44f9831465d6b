"""What the operators that hold graphs (control.py, loops.py) need of the importer: scopes of tensors, and its walk."""

from __future__ import annotations

from collections.abc import Container, Sequence
from typing import Any, Protocol

from onnx import AttributeProto

from ltc_compiler.errors import Unsupported
from ltc_compiler.frontend.compose import Composer, Refused
from ltc_compiler.ir.graph import Source, Value
from ltc_compiler.onnx.call import Tensor, as_value


class Scope:
    """The tensors that nodes of one graph see; a scope that is no `boundary` writes to its parent's NNIR graph."""

    def __init__(self, c: Composer, parent: Scope | None, opsets: dict[str, int], depth: int = 0) -> None:
        self.c = c
        self.parent = parent
        self.opsets = opsets
        self.depth = depth
        self.boundary = False
        self.wholes: set[Value] = set()  # of all scopes of a model
        self.tensors: dict[str, Tensor | Refused | None] = {}
        self.attributes: dict[str, AttributeProto] = {}  # of the function that is being called
        self.captured: dict[Value, Value] = {}  # inputs of a body by what they are outside, in order

    def child(self, c: Composer, boundary: bool = False) -> Scope:
        inner = Scope(c, self, self.opsets, self.depth + 1)
        inner.boundary = boundary
        inner.wholes = self.wholes
        inner.attributes = self.attributes
        return inner

    def find(self, name: str) -> Tensor | Refused | None:
        """A tensor by name; one from outside of a body becomes an input of the body."""
        if not name:
            return None
        if name in self.tensors:
            return self.tensors[name]
        if self.parent is None:
            raise Refused(f"tensor {name!r} is not defined before it is read")
        found = self.parent.find(name)
        if self.boundary and isinstance(found, Value):
            outer, found = found, self.c.graph.add_input(found.type, name)
            self.captured[found], self.tensors[name] = outer, found
            self.wholes.update([found] if outer in self.wholes else ())
        return found

    def read(self, name: str) -> Tensor:
        """A tensor that must be there. A reason-less refusal says that it was reported where it arose."""
        found = self.find(name)
        if isinstance(found, Refused):
            raise found
        if found is None:
            raise Refused("an output is missing")
        return found

    def read_value(self, name: str) -> Value:
        """As `read`; a constant becomes a node."""
        return as_value(self.c, self.read(name))


class Walker(Protocol):
    """The importer, as converters of bodies use it: it converts further graphs, and collects what it cannot convert."""

    entries: list[Unsupported]
    wholes: set[Value]

    @property
    def nodes_left(self) -> int:
        """How many nodes the import may still visit."""

    def visit(self, source: Source) -> None:
        """Count a node, or an iteration of a loop that is written out; raises UnsupportedError past the limit."""

    def subgraph(
        self, proto: Any, scope: Scope, inputs: Sequence[Any], overridden: Container[str] = ()
    ) -> None:
        """Convert the nodes of a graph in a scope; `inputs` are its formal inputs, in order."""
