"""From a loaded ONNX model to an NNIR graph: one walk over the nodes, in order.

What follows from constants alone is evaluated on the way, so that shapes are numbers when a converter needs them.
What cannot be lowered is collected, with everything that reads it left out, and reported at once.
"""

from __future__ import annotations

import re
from collections.abc import Container, Mapping, Sequence
from typing import Any

import numpy as np
from onnx import AttributeProto, helper, numpy_helper

from ltc_compiler.errors import GraphError, Unsupported, UnsupportedError
from ltc_compiler.frontend.compose import FOLD_LIMIT, Budget, Composer, Refused
from ltc_compiler.ir.graph import Array, Graph, Source, State, Value
from ltc_compiler.ir.ops import ShapeError
from ltc_compiler.onnx import control
from ltc_compiler.onnx.call import Call, Results, Tensor
from ltc_compiler.onnx.evaluate import FOLDABLE, fold
from ltc_compiler.onnx.gelu import find_gelus
from ltc_compiler.onnx.load import read_tensor
from ltc_compiler.onnx.loops import COUNTED, Iteration, counted
from ltc_compiler.onnx.registry import CONVERTERS, REFUSED, STRUCTURED
from ltc_compiler.onnx.scope import Scope
from ltc_compiler.onnx.standard import function_of
from ltc_compiler.onnx.wholes import whole_results

# Elements of constants that one import may keep and compute, beside what the size of the file pays for. A weight of one
# byte is held as stored, as converted and as the graph holds it; a weight that many steps share is read again by each.
HELD, HELD_PER_BYTE = 2 * FOLD_LIMIT, 8
TOUCHED, TOUCHED_PER_BYTE = 1 << 29, 256
WRITTEN = 1 << 19  # operations that one import may write
NODES_LIMIT = 100_000  # nodes that one import may visit, calls of functions included
DEPTH_LIMIT = 40  # functions and bodies within each other
SHOWN_INPUTS = 6  # of a node, by name, in errors
ONNX_DOMAINS = ("", "ai.onnx")
MISFITS = (ArithmeticError, LookupError, TypeError, ValueError, MemoryError, AttributeError)


class Importer:
    """Converts nodes of one model, and collects what it cannot convert."""

    def __init__(self, model: Any, file: str) -> None:
        self.model = model
        self.file = file
        self.entries: list[Unsupported] = []
        self.masks: set[Value] = set()
        self.wholes: set[Value] = set()
        self.visited = 0
        size = model.ByteSize()
        self.budget = Budget(HELD + HELD_PER_BYTE * size, TOUCHED + TOUCHED_PER_BYTE * size, WRITTEN)
        self.functions = {(f.domain, f.name, f.overload): f for f in model.functions}

    def run(self, graph: Graph, inputs: Mapping[str, Tensor], states: dict[str, State]) -> Graph:
        """Convert the model's main graph. `inputs` are already in `graph`, or constants, by name, and `states`, by the
        output that follows them. Raises UnsupportedError."""
        opsets = {o.domain: o.version for o in self.model.opset_import}
        scope = Scope(Composer(graph, budget=self.budget), None, opsets)
        scope.tensors.update(inputs)
        scope.wholes = self.wholes
        proto = self.model.graph
        self.subgraph(proto, scope, [], overridden=set(inputs))
        for output in proto.output:
            try:
                value = scope.read_value(output.name)
            except (Refused, GraphError) as error:
                refusal = error if isinstance(error, Refused) else Refused(error.what)
                self._report(Source(module=output.name), "output", refusal)
                continue
            if output.name in states:
                states[output.name].next = value
            else:
                graph.add_output(value, output.name)
        if self.entries:
            raise UnsupportedError(self.entries)
        return graph

    def subgraph(
        self, proto: Any, scope: Scope, inputs: Sequence[Any], overridden: Container[str] = ()
    ) -> None:
        """Convert the nodes of a graph in a scope; `inputs` are its formal inputs, in order."""
        if scope.depth > DEPTH_LIMIT:
            raise Refused(f"bodies and functions lie more than {DEPTH_LIMIT} deep in each other")
        place = scope.c.source
        constants = {t.name: read_tensor(t, self.file) for t in proto.initializer if t.name not in overridden}
        if proto.sparse_initializer:
            raise Refused("sparse initializers", "dense ones")
        scope.tensors.update(constants)
        for formal, given in zip(proto.input, inputs, strict=False):
            scope.tensors[formal.name] = given
        self._nodes(proto.node, scope, constants)
        scope.c.source = place

    def _nodes(self, nodes: Sequence[Any], scope: Scope, constants: dict[str, Array]) -> None:
        nodes = list(nodes)
        gelus, inside = _gelus(nodes, constants)
        for node in nodes:
            if id(node) in inside:
                continue
            if id(node) in gelus:
                node = helper.make_node("Gelu", [gelus[id(node)]], list(node.output), node.name)
            self._node(node, scope)

    @property
    def nodes_left(self) -> int:
        return NODES_LIMIT - self.visited

    def visit(self, source: Source) -> None:
        """Count a node, or an iteration of a loop that is written out; raises UnsupportedError past the limit."""
        self.visited += 1
        if self.visited > NODES_LIMIT:
            what = f"the model has more than {NODES_LIMIT} nodes, its functions and loops written out"
            raise UnsupportedError.single(what, where=str(source), rewrite="a smaller model")

    def _node(self, node: Any, scope: Scope) -> None:
        place = scope.c.source = self._source(node)
        self.visit(place)
        try:
            results = self._convert(node, scope)
        except Refused as refusal:
            self._report(place, node.op_type, refusal)
            if self.budget.exhausted:
                raise UnsupportedError(self.entries) from None
            results = [Refused("")] * len(node.output)
        except (GraphError, ShapeError) as error:
            reason = error.what if isinstance(error, GraphError) else f"{node.op_type}: {error}"
            self._report(place, node.op_type, Refused(reason, "mend the shapes or attributes"))
            results = [Refused("")] * len(node.output)
        except MISFITS as error:
            reason = f"its inputs or attributes are not as ONNX defines them: {type(error).__name__}: {error}"
            self._report(place, node.op_type, Refused(reason, "check the model with onnx.checker"))
            results = [Refused("")] * len(node.output)
        listed = [results] if isinstance(results, (Value, np.ndarray)) else list(results)
        missing: list[Refused] = [Refused("an output that is not supported")] * (
            len(node.output) - len(listed)
        )
        for name, result in zip(node.output, [*listed, *missing], strict=False):
            if name:
                scope.tensors[name] = result
                if isinstance(result, Value) and not result.name:
                    result.name = name

    def _convert(self, node: Any, scope: Scope) -> Results:
        function = self.functions.get((node.domain, node.op_type, node.overload))
        found = [scope.find(name) for name in node.input]
        opset = scope.opsets.get(node.domain, scope.opsets.get("ai.onnx" if not node.domain else "", 0))
        constant = not any(isinstance(t, (Value, Refused)) for t in found)
        if function is None and not self._converted(node, constant):
            function = self._standard(node, found, opset)
        if any(isinstance(t, Iteration) for t in found) and function is None and node.op_type in COUNTED:
            return [counted(node, found, _attributes(node, scope), scope.c)]
        for tensor in found:
            if isinstance(tensor, Refused):
                raise tensor
        inputs = [t for t in found if not isinstance(t, Refused)]
        attributes = _attributes(node, scope)
        if function is not None:
            return self._call(function, node, scope, inputs)
        if node.op_type == "Constant":
            return _constant(node, attributes)
        if node.op_type in FOLDABLE and all(not isinstance(t, Value) for t in inputs):
            resolved = helper.make_node(node.op_type, list(node.input), list(node.output), domain="")
            resolved.attribute.extend(_resolved(a, scope) for a in node.attribute if _present(a, scope))
            return fold(resolved, [t for t in inputs if not isinstance(t, Value)], self.budget)
        call = Call(
            node.op_type, scope.c, inputs, attributes, opset, len(node.output), self.masks, self.wholes
        )
        if node.op_type in STRUCTURED:
            return control.CONVERT[node.op_type](self, scope, call)
        return whole_results(call, CONVERTERS[node.op_type].convert)

    def _converted(self, node: Any, constant: bool) -> bool:
        """Whether something here converts the operator. Refuses those of other domains."""
        if node.domain not in ONNX_DOMAINS:
            reason = f"operator {node.op_type} of {node.domain!r} is not one of ONNX"
            raise Refused(reason, "export with ONNX operators alone")
        known = node.op_type in CONVERTERS or node.op_type in STRUCTURED
        return known or (constant and node.op_type in FOLDABLE)

    def _standard(self, node: Any, found: Sequence[Tensor | Refused | None], opset: int) -> Any:
        """What ONNX defines an operator as; refuses one that nothing here knows, whatever its operands are."""
        operands = [None if isinstance(t, Refused) else t for t in found]
        function = None if node.op_type in REFUSED else function_of(node, operands, opset)
        if function is None:
            raise Refused(*REFUSED.get(node.op_type, ("there is no converter for this operator", "")))
        return function

    def _call(self, function: Any, node: Any, scope: Scope, inputs: Sequence[Tensor | None]) -> Results:
        """A call of one of the model's own functions: its nodes, in a scope of their own."""
        if scope.depth > DEPTH_LIMIT:
            raise Refused(f"functions lie more than {DEPTH_LIMIT} deep in each other", "inline them")
        opsets = {o.domain: o.version for o in function.opset_import}
        inner = Scope(scope.c, None, opsets, scope.depth + 1)
        inner.wholes = scope.wholes
        inner.tensors = dict.fromkeys(function.input)
        inner.tensors.update(zip(function.input, inputs, strict=False))
        inner.attributes = {a.name: a for a in function.attribute_proto}
        inner.attributes |= {a.name: _resolved(a, scope) for a in node.attribute if _present(a, scope)}
        place = scope.c.source
        self._nodes(function.node, inner, {})
        scope.c.source = place
        wanted = zip(function.output, node.output, strict=False)
        return [inner.find(name) if result else None for name, result in wanted]

    def _source(self, node: Any) -> Source:
        """The node's name and inputs, and the user's line if the exporter wrote it down."""
        name = node.name or next((o for o in node.output if o), "")
        inputs = [*node.input[:SHOWN_INPUTS], *(["..."] if len(node.input) > SHOWN_INPUTS else [])]
        text = f"{node.op_type}({', '.join(inputs)}) in {self.file}"
        for item in node.metadata_props:
            lines = (
                re.findall(r'File "([^"]+)", line (\d{1,9})', item.value) if "stack_trace" in item.key else []
            )
            if lines:
                return Source(name, lines[-1][0], int(lines[-1][1]), text)
        return Source(module=name, text=text)

    def _report(self, source: Source, op: str, refusal: Refused) -> None:
        if refusal.reason:
            where = str(source) if source.text else f"{source.module} in {self.file}"
            self.entries.append(
                Unsupported(f"{op} {source.module}".strip(), where, refusal.reason, refusal.rewrite)
            )


def _gelus(nodes: Sequence[Any], constants: dict[str, Array]) -> tuple[dict[int, str], set[int]]:
    if not any(n.op_type == "Erf" and n.input and n.output for n in nodes):
        return {}, set()
    singles = {n.output[0]: _constant(n, {a.name: _decoded(a) for a in n.attribute}) for n in nodes
               if n.op_type == "Constant" and n.output and not any(a.ref_attr_name for a in n.attribute)}  # fmt: skip
    small = {k: a for k, a in (constants | singles).items() if isinstance(a, np.ndarray) and a.size == 1}
    return find_gelus(nodes, small)


# ---------------------------------------------------------------- attributes


def _present(attribute: Any, scope: Scope) -> bool:
    return not attribute.ref_attr_name or attribute.ref_attr_name in scope.attributes


def _resolved(attribute: Any, scope: Scope) -> Any:
    """The attribute, or what the function's caller gave for it, under its name here."""
    if not attribute.ref_attr_name:
        return attribute
    copy = AttributeProto()
    copy.CopyFrom(scope.attributes[attribute.ref_attr_name])
    copy.name = attribute.name
    return copy


def _attributes(node: Any, scope: Scope) -> dict[str, Any]:
    return {a.name: _decoded(_resolved(a, scope)) for a in node.attribute if _present(a, scope)}


def _decoded(attribute: Any) -> Any:
    if attribute.type == AttributeProto.TENSOR:
        return numpy_helper.to_array(attribute.t)
    value = helper.get_attribute_value(attribute)
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    if attribute.type == AttributeProto.STRINGS:
        return [v.decode("utf-8", "replace") for v in value]
    return value


def _constant(node: Any, attributes: dict[str, Any]) -> Array:
    """The array of a Constant node."""
    types = {
        "value_float": np.float32,
        "value_floats": np.float32,
        "value_int": np.int64,
        "value_ints": np.int64,
    }
    for name, value in attributes.items():
        if name == "value" and isinstance(value, np.ndarray):
            return value
        if name in types:
            return np.asarray(value, types[name])
    raise Refused(f"{node.op_type} without a value of numbers", "a tensor")
