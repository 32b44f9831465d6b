"""The text form of NNIR and its printer; parse.py reads it back to the same graph, constants and sources included.

    graph "main" (%x: f32[12,3], %dt: f32[12] elapsed_time) {
      state "h" %h: f32[8] = splat(0.0)
      %w = constant() {value=base64("...")} : f32[8,3]
      %y = linear(%x, %w, %b) : f32[12,8] loc("cell", "model.py", 12, "y = self.f(x)")
      next "h" = %v
      return %y as "y0"
    }

A state that the user named says so after its type: `module` or `tied`. One whose initial value the machine computes
ends in `from "name"`, an output of the graph `prologue "..." () {...}` that then stands behind the first. After its
types an operation may say `wish bf16` (the user's precision) and `on (2, 3)` (the user's cores). Names are local to a
graph or a body; a value without a name prints as a number. An array is dense(...) in shortest decimal form if it is
small, splat(x) if all its elements are equal, else the base64 of its little-endian fp64 bytes.
`//` starts a comment.
"""

from __future__ import annotations

import base64
import json
import re
from typing import Any

import numpy as np

from ltc_compiler.ir.graph import Array, Graph, Node, Role, Source, State, StateKind, Value
from ltc_compiler.ir.ops import OPS

NAME = r"[A-Za-z_][\w.\-]*"  # a name that needs no quotes
DENSE_LIMIT = 16  # elements that are still printed as decimals


def print_graph(graph: Graph, elide: bool = False) -> str:
    """The text of a graph. `elide` leaves large constants out, for people: such text does not parse back."""
    lines = _Printer(elide).graph(graph, "graph", "")
    if graph.prologue is not None:
        lines += _Printer(elide).graph(graph.prologue, "prologue", "")
    return "\n".join(lines) + "\n"


class _Names:
    """Gives every value of one graph a printed name of its own."""

    def __init__(self) -> None:
        self._given: dict[Value, str] = {}
        self._taken: set[str] = set()
        self._unnamed = 0

    def define(self, value: Value) -> str:
        name, suffix = value.name, 0
        while name in self._taken:
            suffix += 1
            name = f"{value.name}_{suffix}"
        if not name:
            shown, self._unnamed = str(self._unnamed), self._unnamed + 1
        else:
            self._taken.add(name)
            shown = name if re.fullmatch(NAME, name) else json.dumps(name)
        self._given[value] = f"%{shown}"
        return self._given[value]

    def __getitem__(self, value: Value) -> str:
        return self._given.get(value, "%undefined")


class _Printer:
    def __init__(self, elide: bool) -> None:
        self.elide = elide

    def graph(self, graph: Graph, keyword: str, indent: str, tail: str = "") -> list[str]:
        names = _Names()
        roles = {v: "" if v.role is Role.PLAIN else f" {v.role.value}" for v in graph.inputs}
        inputs = ", ".join(f"{names.define(v)}: {v.type}{roles[v]}" for v in graph.inputs)
        lines = [f"{indent}{keyword} {json.dumps(graph.name)} ({inputs}){_streaming(graph)} {{"]
        inner = indent + "  "
        for s in graph.states:
            start = self.array(s.initial) + (f" from {json.dumps(s.begins)}" if s.begins else "")
            lines.append(
                f"{inner}state {json.dumps(s.name)} {names.define(s.value)}: {s.value.type}{_kind(s)} = {start}"
            )
        for node in graph.nodes:
            lines += self.node(node, names, inner)
        for s in graph.states:
            if s.next is not None:
                lines.append(f"{inner}next {json.dumps(s.name)} = {names[s.next]}")
        outputs = ", ".join(
            names[v] + ("" if name == f"y{i}" else f" as {json.dumps(name)}")
            for i, (v, name) in enumerate(zip(graph.outputs, graph.output_names, strict=True))
        )
        return [*lines, f"{inner}return {outputs}".rstrip(), f"{indent}}}{tail}"]

    def node(self, node: Node, names: _Names, indent: str) -> list[str]:
        operands = ", ".join(names[v] for v in node.operands)
        results = ", ".join(names.define(v) for v in node.results)
        types = ", ".join(str(v.type) for v in node.results)
        order = [*OPS[node.op].attrs, *node.attrs] if node.op in OPS else node.attrs  # one text for one graph
        plain = {k: node.attrs[k] for k in order if k in node.attrs and not isinstance(node.attrs[k], Graph)}
        attrs = ", ".join(f"{k}={self.attribute(v)}" for k, v in plain.items())
        line = (
            f"{indent}{results} = {node.op}({operands})" + (f" {{{attrs}}}" if attrs else "") + f" : {types}"
        )
        if node.precision is not None:
            line += f" wish {node.precision.value}"
        if node.cores:
            line += f" on {self.attribute(node.cores)}"
        place = f" {_location(node.source)}" if node.source != Source() else ""
        if "body" not in node.attrs:
            return [line + place]
        head, *rest = self.graph(node.body, "body", indent, place)
        return [f"{line} {head.lstrip()}", *rest]

    def attribute(self, value: Any) -> str:
        if isinstance(value, np.ndarray):
            return self.array(value)
        if isinstance(value, bool):
            return "true" if value else "false"
        if isinstance(value, tuple):
            return f"({', '.join(map(str, value))})"
        return str(value)

    def array(self, array: Array) -> str:
        values = np.ascontiguousarray(array, dtype="<f8")
        flat = values.reshape(-1)
        if flat.size > 1 and (flat.view(np.uint64) == flat.view(np.uint64)[0]).all():
            return f"splat({float(flat[0])!r})"
        if flat.size <= DENSE_LIMIT:
            return f"dense({', '.join(repr(float(x)) for x in flat)})"
        if self.elide:
            return f"elided({flat.size})"
        return f'base64("{base64.b64encode(values.tobytes()).decode()}")'


def _kind(state: State) -> str:
    return "" if state.kind is StateKind.STREAM else f" {state.kind.value}"


def _location(source: Source) -> str:
    module, file, text = map(json.dumps, (source.module, source.file, source.text))
    return f"loc({module}, {file}, {source.line}, {text})"


def _streaming(graph: Graph) -> str:
    fields = {
        "in": graph.input_streaming_dims,
        "out": graph.output_streaming_dims,
        "late": graph.output_latencies,
        "tail": graph.output_tails,
    }
    given = [
        f"{key}=({', '.join('none' if d is None else str(d) for d in dims)})"
        for key, dims in fields.items()
        if dims is not None
    ]
    names = {"count": graph.step_counter, "end": graph.end_marker}
    given += [f"{key}={json.dumps(name)}" for key, name in names.items() if name]
    given += [f"limit={graph.step_limit}"] if graph.step_limit else []
    given += [f"block={graph.block}"] if graph.block != 1 else []
    return f" streaming {' '.join(given)}" if given else ""
