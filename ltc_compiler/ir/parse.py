"""Parses the text form of NNIR, whose grammar stands at the top of text.py: tokens, then recursive descent.

Every refusal is a GraphError that gives the line and what was expected there. Names are local to a graph or a body.
"""

from __future__ import annotations

import base64
import json
import math
import re
from enum import Enum
from typing import Any, TypeVar

import numpy as np

from ltc_compiler.errors import GraphError, shown
from ltc_compiler.ir.graph import Array, Graph, Precision, Role, Source, State, StateKind, Type, Value
from ltc_compiler.ir.ops import LARGEST, OPS
from ltc_compiler.ir.text import NAME
from ltc_compiler.ir.verify import verify

_Member = TypeVar("_Member", bound=Enum)

STRING = r'"(?:[^"\\\n]|\\.)*"'
MAX_DEPTH = 32  # of bodies in bodies; a machine has loops of isa.MAX_LOOP_DEPTH
SMALL = 1 << 16  # elements
_INTEGER = re.compile(r"[-+]?\d{1,19}")  # no more digits are converted than a whole number can have


def parse_graph(text: str, check: bool = True) -> Graph:
    """The graph that `text` describes, verified unless `check` is False.

    Raises GraphError with the line, and what was expected there.
    """
    parser = _Parser(text)
    parser.expect("graph")
    graph = parser.graph()
    if parser.accept("prologue"):
        graph.prologue = parser.graph()
    parser.expect("")
    if check:
        verify(graph)
    return graph


_TOKEN = re.compile(
    rf"(?P<space>\s+|//[^\n]*)|(?P<string>{STRING})|(?P<value>%(?:{STRING}|{NAME}|\d+))"
    r"|(?P<number>[-+]?(?:\d+(?:\.\d*)?(?:e[-+]?\d+)?|inf\b|nan\b))|(?P<word>[A-Za-z_]\w*)|(?P<mark>[(){}\[\],:=])"
)


class _Parser:
    """Recursive descent over a list of tokens; the empty token is the end of the text."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.tokens: list[tuple[str, str, int]] = []
        self.at = 0
        self.depth = 0  # of bodies around the present place
        position = 0
        while position < len(text):
            match = _TOKEN.match(text, position)
            if match is None:
                raise self.error(f"{text[position : position + 20]!r} is no token of NNIR text", position)
            if match.lastgroup != "space":
                self.tokens.append((str(match.lastgroup), match[0], position))
            position = match.end()
        self.tokens.append(("end", "", len(text)))

    def error(self, what: str, position: int | None = None) -> GraphError:
        position = self.tokens[self.at][2] if position is None else position
        lines = self.text.splitlines() or [""]
        number = min(self.text.count("\n", 0, position) + 1, len(lines))
        line = lines[number - 1].strip()
        shown = line if len(line) <= 100 else line[:97] + "..."
        return GraphError(
            what, where=f"line {number}: {shown}", remedy="write the form that print_graph prints"
        )

    def peek(self) -> str:
        return self.tokens[self.at][1]

    def accept(self, token: str) -> bool:
        found = self.peek() == token and self.tokens[self.at][0] != "string"
        self.at += found and token != ""
        return found

    def expect(self, token: str) -> None:
        if not self.accept(token):
            raise self.error(f"expected {token or 'the end'!r} and found {self.peek() or 'the end'!r}")

    def take(self, kind: str) -> str:
        found, token, _ = self.tokens[self.at]
        if found != kind:
            raise self.error(f"expected a {kind} and found {token or 'the end'!r}")
        self.at += 1
        return token

    def sequence(self, close: str) -> int:
        """0 at the closing mark, which is taken; else 1, after a comma if one is there."""
        if self.accept(close):
            return 0
        if self.tokens[self.at - 1][1] not in ("(", "[", "{"):
            self.expect(",")
        return 0 if self.accept(close) else 1

    def string(self) -> str:
        return self.unquoted(self.take("string"))

    def unquoted(self, token: str) -> str:
        try:
            return str(json.loads(token))
        except ValueError as error:
            self.at -= 1
            raise self.error(f"{shown(token)} is no string of JSON: {error}") from None

    def integer(self) -> int:
        token = self.take("number")
        if not _INTEGER.fullmatch(token) or abs(int(token)) > LARGEST:
            self.at -= 1
            raise self.error(f"expected a whole number of at most 2^63 - 1 and found {shown(token)}")
        return int(token)

    def integers(self) -> tuple[int, ...]:
        self.expect("(")
        items: list[int] = []
        while self.sequence(")"):
            items.append(self.integer())
        return tuple(items)

    def member(self, kind: type[_Member], what: str) -> _Member:
        word = self.take("word")
        try:
            return kind(word)
        except ValueError:
            self.at -= 1
            known = ", ".join(str(member.value) for member in kind)
            raise self.error(f"{word!r} is no {what}; there are {known}") from None

    def precision(self) -> Precision:
        return self.member(Precision, "precision")

    def type(self) -> Type:
        precision = self.precision()
        self.expect("[")
        shape: list[int] = []
        while self.sequence("]"):
            shape.append(self.integer())
        try:
            return Type(tuple(shape), precision)
        except GraphError as error:
            raise self.error(error.what) from None

    def define(self, scope: dict[str, Value], value: Value, token: str, position: int | None = None) -> None:
        if token in scope:
            raise self.error(f"{token} is defined twice", position)
        scope[token] = value
        name = token[1:]
        value.name = "" if name.isdecimal() else self.unquoted(name) if name.startswith('"') else name

    def use(self, scope: dict[str, Value]) -> Value:
        token = self.take("value")
        if token not in scope:
            self.at -= 1
            raise self.error(f"{token} is not defined above")
        return scope[token]

    def graph(self) -> Graph:
        graph = Graph(self.string())
        scope: dict[str, Value] = {}
        self.expect("(")
        while self.sequence(")"):
            token = self.take("value")
            self.expect(":")
            value = Value(self.type(), "", None, len(graph.inputs))
            if self.tokens[self.at][0] == "word":
                value.role = self.member(Role, "role")
            self.define(scope, value, token)
            graph.inputs.append(value)
        if self.accept("streaming"):
            self.streaming(graph)
        self.expect("{")
        while self.accept("state"):
            self.state(graph, scope)
        while self.tokens[self.at][0] == "value":
            self.node(graph, scope)
        while self.accept("next"):
            name = self.string()
            self.expect("=")
            matching = [s for s in graph.states if s.name == name]
            if not matching:
                raise self.error(f"there is no state {name!r}")
            matching[0].next = self.use(scope)
        self.expect("return")
        while not self.accept("}"):
            if graph.outputs:
                self.expect(",")
            graph.add_output(self.use(scope), self.string() if self.accept("as") else "")
        return graph

    def streaming(self, graph: Graph) -> None:
        while self.tokens[self.at][0] == "word":
            key = self.take("word")
            self.expect("=")
            if key == "count":
                graph.step_counter = self.string()
                continue
            if key == "end":
                graph.end_marker = self.string()
                continue
            if key == "limit":
                graph.step_limit = self.integer()
                continue
            if key == "block":
                graph.block = self.integer()
                continue
            self.expect("(")
            dims: list[int | None] = []
            while self.sequence(")"):
                dims.append(None if self.accept("none") else self.integer())
            if key == "in":
                graph.input_streaming_dims = tuple(dims)
            elif key == "out":
                graph.output_streaming_dims = tuple(dims)
            elif key == "late":
                graph.output_latencies = tuple(d or 0 for d in dims)
            elif key == "tail":
                graph.output_tails = tuple(d or 0 for d in dims)
            else:
                raise self.error(
                    f"streaming has in, out, late, tail, count, end, limit and block, and not {key!r}"
                )

    def state(self, graph: Graph, scope: dict[str, Value]) -> None:
        name = self.string()
        token = self.take("value")
        self.expect(":")
        kind = self.type()
        whose = self.member(StateKind, "kind of state") if self.peek() != "=" else StateKind.STREAM
        self.expect("=")
        state = State(name, Value(kind), self.array(kind.shape), kind=whose)
        if self.accept("from"):
            state.begins = self.string()
        self.define(scope, state.value, token)
        graph.states.append(state)

    def node(self, graph: Graph, scope: dict[str, Value]) -> None:
        position = self.tokens[self.at][2]
        tokens = [self.take("value")]
        while self.accept(","):
            tokens.append(self.take("value"))
        self.expect("=")
        op = self.take("word")
        if op not in OPS:
            self.at -= 1
            raise self.error(f"there is no op {op!r}")
        self.expect("(")
        operands: list[Value] = []
        while self.sequence(")"):
            operands.append(self.use(scope))
        attributes_at = self.at  # arrays need the result type, which stands behind them
        self.skip_attributes()
        self.expect(":")
        types = [self.type()]
        while self.accept(","):
            types.append(self.type())
        after, self.at = self.at, attributes_at
        attrs = self.attributes(types[0].shape)
        self.at = after
        if len(types) != len(tokens):
            raise self.error(f"{len(tokens)} results have {len(types)} types", position)
        request = self.precision() if self.accept("wish") else None
        cores = self.integers() if self.accept("on") else ()
        if self.accept("body"):
            if self.depth == MAX_DEPTH:
                raise self.error(f"bodies are nested more than {MAX_DEPTH} deep")
            self.depth += 1
            attrs["body"] = self.graph()
            self.depth -= 1
        attrs = {key: attrs[key] for key in (*OPS[op].attrs, *attrs) if key in attrs}
        results = graph.append(op, operands, attrs, types, self.location())
        graph.nodes[-1].precision, graph.nodes[-1].cores = request, cores
        for token, value in zip(tokens, results, strict=True):
            self.define(scope, value, token, position)

    def skip_attributes(self) -> None:
        if self.accept("{"):
            while not self.accept("}"):
                if self.tokens[self.at][0] == "end":
                    raise self.error("expected '}' and found the end")
                self.at += 1

    def attributes(self, shape: tuple[int, ...]) -> dict[str, Any]:
        attrs: dict[str, Any] = {}
        if self.accept("{"):
            while self.sequence("}"):
                key = self.take("word")
                self.expect("=")
                attrs[key] = self.attribute(shape)
        return attrs

    def attribute(self, shape: tuple[int, ...]) -> Any:
        if self.peek() in ("true", "false"):
            return self.take("word") == "true"
        if self.peek() == "(":
            return self.integers()
        return self.integer() if self.tokens[self.at][0] == "number" else self.array(shape)

    def array(self, shape: tuple[int, ...]) -> Array:
        form = self.take("word")
        self.expect("(")
        if form == "base64":
            flat = self.decoded()
        elif form in ("dense", "splat"):
            numbers: list[float] = []
            while self.tokens[self.at][0] == "number":
                numbers.append(float(self.take("number")))
                if not self.accept(","):
                    break
            flat = np.array(numbers, dtype=np.float64)
            if (
                form == "splat" and flat.size == 1
            ):  # a short text stands for a large array: no memory for it yet
                self.expect(")")
                return (
                    np.full(shape, flat[0]) if math.prod(shape) <= SMALL else np.broadcast_to(flat[0], shape)
                )
        elif form == "elided":
            raise self.error("this constant was left out when the graph was printed for people")
        else:
            raise self.error(f"an array is dense(...), splat(...) or base64(...), and not {form}(...)")
        if flat.size != Type(shape).size:
            raise self.error(f"an array of {flat.size} elements stands for the shape {list(shape)}")
        self.expect(")")
        return flat.reshape(shape)

    def decoded(self) -> Array:
        text = self.string()
        try:
            return np.frombuffer(base64.b64decode(text, validate=True), dtype="<f8").astype(np.float64)
        except ValueError as error:
            raise self.error(f"the base64 of a constant is damaged: {error}") from None

    def location(self) -> Source:
        if not self.accept("loc"):
            return Source()
        self.expect("(")
        module = self.string()
        self.expect(",")
        file = self.string()
        self.expect(",")
        line = self.integer()
        self.expect(",")
        text = self.string()
        self.expect(")")
        return Source(module, file, line, text)
