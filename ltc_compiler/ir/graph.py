"""The NNIR graph: values, nodes, states, and the graph that holds them in SSA order.

A value is produced once, by a graph input, a state or a node, and has a type. Nodes stand in an order in which every
operand precedes its reader. A structured node (`scan`) owns a body graph that sees nothing but its own inputs.
A pass never edits a graph in place: it builds a new one with `Graph.add` and `rewrite`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ltc_compiler.errors import GraphError, shown

Array = NDArray[Any]

MAX_RANK = 32  # NumPy's own limit
MAX_ELEMENTS = 1 << 30  # of one array, as the machine's host arrays have at most


class Precision(Enum):
    """The format in which a value is stored. FP8_E4M3 is for constants alone."""

    FP32 = "f32"
    BF16 = "bf16"
    FP8_E4M3 = "f8e4m3"


class Role(Enum):
    """What the host must know of an input: elapsed times may be neither negative nor NaN."""

    PLAIN = "plain"
    ELAPSED_TIME = "elapsed_time"


class StateKind(Enum):
    """Whose a state is: the streaming transform made it, a module keeps it from call to call, or two ports are tied."""

    STREAM = "stream"
    MODULE = "module"
    TIED = "tied"


@dataclass(frozen=True)
class Type:
    """Shape (outermost axis first) and storage precision of a value."""

    shape: tuple[int, ...]
    precision: Precision = Precision.FP32

    def __post_init__(self) -> None:
        if any(not isinstance(d, int) or d < 1 for d in self.shape):
            raise GraphError(
                f"shape {shown(self.shape)} has an axis that is no positive whole number",
                where="NNIR type",
                remedy="give every axis at least one element",
            )
        if len(self.shape) > MAX_RANK or math.prod(self.shape) > MAX_ELEMENTS:
            raise GraphError(
                f"shape {shown(self.shape)} has more than {MAX_RANK} axes, or more than 2^30 elements",
                where="NNIR type",
                remedy="split the array: no machine holds so many",
            )

    @property
    def rank(self) -> int:
        return len(self.shape)

    @property
    def size(self) -> int:
        return math.prod(self.shape)

    def __str__(self) -> str:
        return f"{self.precision.value}[{','.join(map(str, self.shape))}]"


@dataclass(frozen=True)
class Source:
    """Where the user wrote it: module path, file, line and the line's text. All may be empty."""

    module: str = ""
    file: str = ""
    line: int = 0
    text: str = ""

    def __str__(self) -> str:
        place = f"{self.file}:{self.line}" if self.file else ""
        parts = [p for p in (self.module, place, self.text) if p]
        return "  ".join(parts) if parts else "(unknown place)"


@dataclass(eq=False)
class Value:
    """An SSA value. Identity is equality; `name` is for people and unique within a printed graph."""

    type: Type
    name: str = ""
    node: Node | None = None
    index: int = 0
    role: Role = Role.PLAIN

    @property
    def shape(self) -> tuple[int, ...]:
        return self.type.shape

    @property
    def is_constant(self) -> bool:
        """Whether `constant` is an array; costs nothing."""
        return self.node is not None and self.node.op == "constant"

    def constant(self) -> Array | None:
        """The array of a constant in fp64, else None. A large weight is widened each time: see `stored`."""
        array = self.stored()
        return None if array is None else np.asarray(array, np.float64)

    def stored(self) -> Array | None:
        """The array of a constant as the graph holds it, read-only, in fp64 or fp32; else None. What computes with it
        takes `constant`."""
        return self.node.attrs["value"] if self.node is not None and self.node.op == "constant" else None


@dataclass(eq=False)
class Node:
    """An operation: `op` is a row of the op table, `attrs` are its attributes."""

    op: str
    operands: tuple[Value, ...]
    attrs: dict[str, Any]
    results: tuple[Value, ...]
    source: Source = Source()
    precision: Precision | None = (
        None  # the precision requested for this op; None leaves it to the precision pass
    )
    cores: tuple[
        int, ...
    ] = ()  # where the user wants it, the home of its results first; () leaves it to the compiler

    @property
    def body(self) -> Graph:
        body = self.attrs["body"]
        assert isinstance(body, Graph)
        return body


@dataclass(eq=False)
class State:
    """A value that lives from one run to the next: read as `value`, replaced by `next` when the run ends.

    What the user named (every kind but STREAM) is kept although no output depends on it. begins: the output of the
    graph's prologue that computes the initial value; `initial` is that in fp64, and "" says that it is exact. plain:
    the initial value of the plain fp32 machine, where that is not `initial`.
    """

    name: str
    value: Value
    initial: Array
    next: Value | None = None
    kind: StateKind = StateKind.STREAM
    begins: str = ""
    plain: Array | None = None


@dataclass(eq=False, repr=False)
class Graph:
    """Inputs, states, nodes in order, outputs. `print_graph` in text.py gives its text.

    The streaming transform sets, of every input and output, the axis that its steps stood on (None for none), how
    many steps after its index an output comes out (its latency), and how many of its elements are still to come after
    the last step (its tail; negative: so many of the last are none of the whole's). step_counter: the name of the
    scalar state that counts the steps of a stream, up to the largest latency and the limit at least; "" where no output
    is late and there is no limit. step_limit: how many steps a stream may have, as its tables hold values for no more;
    0 for any number.
    block: the steps of one run; with more than one, what streams has its axis of so many steps, and an output that lost
    none has it in front.
    prologue: a graph without inputs whose outputs states begin with; the machine's own arithmetic computes them.
    end_marker: the name of the scalar state that is 0, and n in the nth step after the end of a stream, set by whoever
    runs the graph; "" where nothing depends on the end.

    written_out: what kept a loop over time from being a scan, its line and a remedy, for StreamingError to say.
    """

    name: str = "main"
    inputs: list[Value] = field(default_factory=list)
    states: list[State] = field(default_factory=list)
    nodes: list[Node] = field(default_factory=list)
    outputs: list[Value] = field(default_factory=list)
    output_names: list[str] = field(default_factory=list)
    input_streaming_dims: tuple[int | None, ...] | None = None
    output_streaming_dims: tuple[int | None, ...] | None = None
    output_latencies: tuple[int, ...] | None = None
    output_tails: tuple[int, ...] | None = None
    step_counter: str = ""
    step_limit: int = 0
    block: int = 1
    end_marker: str = ""
    prologue: Graph | None = None
    written_out: tuple[str, str, str] | None = None

    def add_input(self, kind: Type, name: str = "", role: Role = Role.PLAIN) -> Value:
        """A new input, after those that are there."""
        value = Value(kind, name or f"x{len(self.inputs)}", None, len(self.inputs), role)
        self.inputs.append(value)
        return value

    def add_state(self, initial: Array, name: str = "", kind: StateKind = StateKind.STREAM) -> State:
        """A new state with its initial value; set its `next` before the graph is finished."""
        initial = np.asarray(initial, dtype=np.float64)
        state_name = name or f"state{len(self.states)}"
        state = State(state_name, Value(Type(initial.shape), state_name), initial, kind=kind)
        self.states.append(state)
        return state

    def copy_state(self, state: State) -> Value:
        """A new state like `state`; its value, which the next value of the old one must follow."""
        copy = self.add_state(state.initial, state.name, state.kind)
        copy.begins, copy.plain = state.begins, state.plain
        return copy.value

    def constant(self, value: Any, name: str = "", source: Source = Source()) -> Value:
        """A constant, rounded once, when it is stored in a program. It is held in fp64, or in fp32 if it is given so,
        and is copied unless nothing can write into it."""
        array = (
            value
            if isinstance(value, np.ndarray) and value.dtype == np.float32
            else np.asarray(value, np.float64)
        )
        if not _is_fixed(array):
            array = fixed(array.copy())
        return self.append("constant", (), {"value": array}, (Type(array.shape),), source, name)[0]

    def append(
        self,
        op: str,
        operands: Sequence[Value],
        attrs: dict[str, Any],
        types: Sequence[Type],
        source: Source = Source(),
        name: str = "",
    ) -> tuple[Value, ...]:
        """A node with given result types. `add` in ops.py infers them and is what passes should use."""
        node = Node(op, tuple(operands), attrs, (), source)
        node.results = tuple(Value(t, name if i == 0 else "", node, i) for i, t in enumerate(types))
        self.nodes.append(node)
        return node.results

    def add_output(self, value: Value, name: str = "") -> None:
        self.outputs.append(value)
        self.output_names.append(name or f"y{len(self.outputs) - 1}")

    def inherit_cores(self, node: Node, begin: int) -> None:
        """The nodes from `begin` on, which a pass made of `node`, stay where the user wants it."""
        for made in self.nodes[begin:]:
            made.cores = made.cores or node.cores

    def uses(self) -> dict[Value, list[Node]]:
        """The readers of every value that has any; graph outputs and state updates are not listed."""
        readers: dict[Value, list[Node]] = {}
        for node in self.nodes:
            for operand in node.operands:
                readers.setdefault(operand, []).append(node)
        return readers

    def walk(self) -> Iterator[Node]:
        """Every node, those of bodies included."""
        for node in self.nodes:
            yield node
            if "body" in node.attrs:
                yield from node.body.walk()


def fixed(array: Array) -> Array:
    """The array itself, which nobody writes into from here on."""
    array.flags.writeable = False
    return array


def _is_fixed(array: Array) -> bool:
    """Whether nothing can write into an array, nor into what it is a view of."""
    owner: object = array
    while isinstance(owner, np.ndarray):
        if owner.flags.writeable:
            return False
        owner = owner.base
    return owner is None


# A rewrite rule sees a node and its operands in the new graph. It returns the new results, or None to copy the node.
Rule = Callable[[Graph, Node, tuple[Value, ...]], tuple[Value, ...] | None]


def empty_copy(graph: Graph) -> Graph:
    """A graph of the same name and streaming dims, without inputs, states, nodes and outputs."""
    return Graph(
        graph.name,
        input_streaming_dims=graph.input_streaming_dims,
        output_streaming_dims=graph.output_streaming_dims,
        output_latencies=graph.output_latencies,
        output_tails=graph.output_tails,
        step_counter=graph.step_counter,
        step_limit=graph.step_limit,
        block=graph.block,
        end_marker=graph.end_marker,
        prologue=graph.prologue,
        written_out=graph.written_out,
    )


def rewrite(graph: Graph, rule: Rule, into_bodies: bool = True) -> Graph:
    """A copy of `graph` in which `rule` replaced nodes; bodies are rewritten first, by the same rule."""
    new = empty_copy(graph)
    env: dict[Value, Value] = {}
    for value in graph.inputs:
        env[value] = new.add_input(value.type, value.name, value.role)
    for state in graph.states:
        env[state.value] = new.copy_state(state)
    for node in graph.nodes:
        operands = tuple(env[v] for v in node.operands)
        if into_bodies and "body" in node.attrs:
            attrs = {**node.attrs, "body": rewrite(node.body, rule)}
            node = replace(node, attrs=attrs)
        begin = len(new.nodes)
        results = rule(new, node, operands)
        if results is None:
            results = copy_node(new, node, operands)
        new.inherit_cores(node, begin)
        env.update(zip(node.results, results, strict=True))
    for value, name in zip(graph.outputs, graph.output_names, strict=True):
        new.add_output(env[value], name)
    for old, made in zip(graph.states, new.states, strict=True):
        made.next = env[old.next] if old.next is not None else None
    return new


def copy_node(graph: Graph, node: Node, operands: Sequence[Value]) -> tuple[Value, ...]:
    """Append the same operation on other operands; names and source come along."""
    results = graph.append(node.op, operands, dict(node.attrs), [v.type for v in node.results], node.source)
    graph.nodes[-1].precision, graph.nodes[-1].cores = node.precision, node.cores
    for new, old in zip(results, node.results, strict=True):
        new.name = old.name
    return results
