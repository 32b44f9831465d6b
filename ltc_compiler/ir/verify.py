"""The rules of a valid NNIR graph. The verifier runs after every pass.

1. Every value is defined once, by an input, a state or a node, and before it is read. `Value.node` and `index` say
   where.
2. Every op stands in the op table, with that row's arity and attributes; axes are not negative.
3. A node's result shapes are those that the op's shape rule gives.
4. FP8 is the precision of constants alone. Reshape, permute, slice and broadcast keep their operand's precision.
5. A constant is an fp64 array of its type's shape. Any value is allowed in it, NaN and infinities too.
6. A body sees nothing but its own inputs, has no states, and returns at least one value. A scan hands values over in
   a format that holds them: an FP32 value never enters or leaves a body through a BF16 one.
7. Input and state names are unique, except in a body, whose names nobody sees. A state has an fp64 initial value and
   a next value, both of its shape.
8. A graph has as many output names as outputs. Streaming dims, where set, are one for each input and output, and
   lie within the rank that the whole sequence had. Where an output is late, the step counter names a scalar state;
   the end marker, if there is one, names another. A prologue has no inputs, and a state that begins with one of its
   outputs has the shape of that.
9. After folding (`folded=True`): the weight of a linear, its bias if that is a vector for all, and the parameters of
   a synapse, are constants.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ltc_compiler.errors import GraphError
from ltc_compiler.ir.graph import Array, Graph, Node, Precision, Value
from ltc_compiler.ir.ops import MOVES, check_names, check_operation, scan_parts

PARAMETERS = {
    "linear": ("weight", "bias"),
    "synapse": ("mu", "sigma", "w", "we", "mask"),
}  # operands after the first
check_names("PARAMETERS in ltc_compiler/ir/verify.py", PARAMETERS)


def verify(graph: Graph, folded: bool = False) -> None:
    """Raises GraphError for the first rule that is broken, naming the value and the user's place."""
    place = f"graph {graph.name!r}"
    _verify(graph, folded, place)
    _names(graph, place)
    _prologue(graph, place)


def describe(node: Node) -> str:
    """A node as errors name it: its results, as far as they have names, and its op."""
    names = ", ".join(f"%{v.name}" for v in node.results if v.name)
    return f"{names} = {node.op}" if names else node.op


def _refuse(what: str, where: str, remedy: str) -> GraphError:
    return GraphError(what, where=where, remedy=remedy)


def _verify(graph: Graph, folded: bool, place: str) -> None:
    known: set[Value] = set()
    for i, value in enumerate(graph.inputs):
        if value in known or value.node is not None or value.index != i:
            raise _refuse(
                f"input {i} (%{value.name}) is another value too, or has another index",
                place,
                "use Graph.add_input",
            )
        known.add(value)
    for state in graph.states:
        if state.value in known or state.value.node is not None:
            raise _refuse(
                f"the value of state {state.name!r} is another value too", place, "use Graph.add_state"
            )
        known.add(state.value)
    for node in graph.nodes:
        _node(node, known, folded, f"{describe(node)}  at {node.source}  in {place}")
    for value in (*graph.inputs, *(s.value for s in graph.states)):
        if value.type.precision is Precision.FP8_E4M3:
            raise _refuse(
                f"%{value.name} is FP8, which constants alone may be", place, "make it BF16 or FP32"
            )
    for state in graph.states:
        _array(state.initial, state.value, f"state {state.name!r}", place)
        if state.next is None or state.next not in known or state.next.shape != state.value.shape:
            found = "nothing" if state.next is None else f"%{state.next.name} of shape {state.next.shape}"
            raise _refuse(f"state {state.name!r} of shape {state.value.shape} is followed by {found}", place,
                          "set State.next to a value of this graph of the same shape")  # fmt: skip
    if len(graph.output_names) != len(graph.outputs):
        raise _refuse(f"{len(graph.outputs)} outputs have {len(graph.output_names)} names", place,
                      "use Graph.add_output")  # fmt: skip
    for i, value in enumerate(graph.outputs):
        if value not in known:
            raise _refuse(
                f"output {i} (%{value.name}) is no value of this graph", place, "return a value of it"
            )
    _streaming(graph, place)


def _names(graph: Graph, place: str) -> None:
    for kind, names in (("input", [v.name for v in graph.inputs]), ("state", [s.name for s in graph.states])):
        repeated = sorted({n for n in names if names.count(n) > 1})
        if repeated:
            raise _refuse(
                f"{kind} names are used twice: {repeated}", place, f"give every {kind} a name of its own"
            )


def _prologue(graph: Graph, place: str) -> None:
    begun = {s.name: s for s in graph.states if s.begins}
    if graph.prologue is None:
        if begun:
            raise _refuse(f"states {sorted(begun)} begin with values of a prologue, and there is none", place,
                          "set Graph.prologue")  # fmt: skip
        return
    if graph.prologue.inputs or graph.prologue.prologue is not None:
        raise _refuse("the prologue has inputs, or a prologue of its own", place, "compute it from constants")
    verify(graph.prologue)
    shapes = {n: v.shape for n, v in zip(graph.prologue.output_names, graph.prologue.outputs, strict=True)}
    for name, state in begun.items():
        if shapes.get(state.begins) != state.value.shape:
            raise _refuse(f"state {name!r} of shape {state.value.shape} begins with {state.begins!r}, and the outputs"
                          f" of the prologue are {shapes}", place, "name an output of the state's shape")  # fmt: skip


def _array(array: Array, value: Value, name: str, place: str) -> None:
    kinds = "float64 or float32" if value.node is not None else "float64"
    if (
        not isinstance(array, np.ndarray)
        or array.dtype.name not in kinds.split(" or ")
        or array.shape != value.shape
    ):
        found = (
            f"{array.dtype} of shape {array.shape}" if isinstance(array, np.ndarray) else type(array).__name__
        )
        raise _refuse(f"{name} holds {found}, expected {kinds} of shape {value.shape}", place,
                      "use Graph.constant or Graph.add_state")  # fmt: skip


def _node(node: Node, known: set[Value], folded: bool, place: str) -> None:
    for i, operand in enumerate(node.operands):
        if operand not in known:
            raise _refuse(f"operand {i} (%{operand.name}) is not defined before", place,
                          "order the nodes so that an operand stands before its readers")  # fmt: skip
    for i, value in enumerate(node.results):
        if value in known or value.node is not node or value.index != i:
            raise _refuse(
                f"result {i} (%{value.name}) is another value too, or has another index",
                place,
                "use Graph.append",
            )
        known.add(value)
    _operation(node, place)
    if node.op == "constant":
        _array(node.attrs["value"], node.results[0], "the constant", place)
    elif any(v.type.precision is Precision.FP8_E4M3 for v in node.results):
        raise _refuse("the result is FP8, which constants alone may be", place, "make it BF16 or FP32")
    if node.op in MOVES and node.results[0].type.precision is not node.operands[0].type.precision:
        raise _refuse(f"{node.op} of {node.operands[0].type} gives {node.results[0].type}", place,
                      "keep the operand's precision")  # fmt: skip
    if folded and node.op in PARAMETERS:
        for name, value in zip(PARAMETERS[node.op], node.operands[1:], strict=True):
            addend = node.op == "linear" and name == "bias" and value.shape == node.results[0].shape
            if not value.is_constant and not addend:
                raise _refuse(f"the {name} of {node.op} is computed from an input", place,
                              "make it a constant, or write the product with mul and sum")  # fmt: skip
    if node.op == "scan":
        _scan(node, folded, place)


def _operation(node: Node, place: str) -> None:
    try:
        types = check_operation(node.op, [v.type for v in node.operands], node.attrs)
    except ValueError as error:
        raise _refuse(f"{node.op}: {error}", place, "mend the shapes or attributes") from None
    expected, found = [t.shape for t in types], [v.shape for v in node.results]
    if expected != found:
        raise _refuse(f"results have the shapes {found}, and {node.op} gives {expected}", place,
                      "use ops.add, which infers them")  # fmt: skip
    for key in ("axis", "in_axes", "out_axes"):
        axes = node.attrs.get(key, ())
        if any(a < 0 for a in (axes if isinstance(axes, tuple) else (axes,))):
            raise _refuse(f"{key} is {axes}", place, "count axes from the front: use ops.add")


def _scan(node: Node, folded: bool, place: str) -> None:
    body = node.body
    if not body.outputs:
        raise _refuse("the body returns nothing", place, "remove the scan")
    _verify(body, folded, f"the body of {place}")
    carries = node.attrs["carries"]
    _handed_over(node.operands, body.inputs, "operand", place)
    _handed_over(body.outputs, node.results, "body output", place)
    first, later = scan_parts(body.inputs, node.attrs)[0], body.outputs[:carries]
    _handed_over(later, first, "carry", place)


def _handed_over(given: Sequence[Value], taken: Sequence[Value], kind: str, place: str) -> None:
    for i, (a, b) in enumerate(zip(given, taken, strict=True)):
        if a.type.precision is Precision.FP32 and b.type.precision is not Precision.FP32:
            raise _refuse(f"{kind} {i} is {a.type} and is read as {b.type}", place, "read it as FP32")


def _streaming(graph: Graph, place: str) -> None:
    for kind, dims, values in (
        ("input", graph.input_streaming_dims, graph.inputs),
        ("output", graph.output_streaming_dims, graph.outputs),
    ):
        if dims is None:
            continue
        if len(dims) != len(values):
            raise _refuse(
                f"{len(values)} {kind}s have {len(dims)} streaming dims", place, "give one for each"
            )
        for i, (dim, value) in enumerate(zip(dims, values, strict=True)):
            if dim is not None and not 0 <= dim <= value.type.rank:
                raise _refuse(f"streaming dim {dim} of {kind} {i} is outside 0 to {value.type.rank}", place,
                              "count axes of the whole sequence from the front")  # fmt: skip
    _block(graph, place)
    late, tails = graph.output_latencies, graph.output_tails
    if late is not None and (len(late) != len(graph.outputs) or min(late, default=0) < 0):
        raise _refuse(
            f"{len(graph.outputs)} outputs have the latencies {late}", place, "give one of 0 or more for each"
        )
    if tails is not None and len(tails) != len(graph.outputs):
        raise _refuse(f"{len(graph.outputs)} outputs have the tails {tails}", place, "give one for each")
    scalars = {s.name for s in graph.states if not s.value.shape}
    counted = any(late or ()) or graph.step_limit != 0
    needed = {"step counter": (graph.step_counter, counted), "end marker": (graph.end_marker, False)}
    for kind, (name, always) in needed.items():
        if (name or always) and name not in scalars:
            raise _refuse(
                f"the {kind} is {name!r}, which is no scalar state", place, "name a state of shape ()"
            )


def _block(graph: Graph, place: str) -> None:
    """What streams has an axis of as many elements as a run has steps."""
    if graph.block < 1 or (graph.block > 1 and graph.input_streaming_dims is None):
        raise _refuse(f"a run has {graph.block} steps", place, "give one or more to a graph that streams")
    if graph.block == 1:
        return
    inputs = [
        (v, d) for v, d in zip(graph.inputs, graph.input_streaming_dims or (), strict=True) if d is not None
    ]
    outputs = [(v, d or 0) for v, d in zip(graph.outputs, graph.output_streaming_dims or (), strict=True)]
    for value, dim in inputs + outputs:
        if dim >= value.type.rank or value.shape[dim] != graph.block:
            raise _refuse(f"%{value.name} of shape {value.shape} has no axis {dim} of the {graph.block} steps of a run",
                          place, "give what streams the axis of its steps")  # fmt: skip
