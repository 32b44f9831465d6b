"""The text form of NNIR: what is printed parses back to the same graph, and bad text is refused at its line."""

from __future__ import annotations

import contextlib

import numpy as np
import pytest
from generators import random_graph, random_inputs
from hypothesis import given, settings
from hypothesis import strategies as st
from nnir_cases import HERE, assert_same, body, graph, leaky, scan

from ltc_compiler.errors import GraphError
from ltc_compiler.ir.graph import Graph, Node, Precision, Role, Source, Type, Value
from ltc_compiler.ir.ops import add
from ltc_compiler.ir.parse import parse_graph
from ltc_compiler.ir.run import evaluate
from ltc_compiler.ir.text import print_graph
from ltc_compiler.ir.verify import verify
from ltc_compiler.transforms.fold import fold


def signature(g: Graph) -> list[object]:
    """Everything that a graph says, with values numbered in order: equal for equal graphs."""
    number: dict[Value, int] = {}

    def value(v: Value) -> object:
        return (number.setdefault(v, len(number)), v.type, v.role)

    def node(n: Node) -> object:
        attrs = [
            (
                k,
                signature(a)
                if isinstance(a, Graph)
                else (a.shape, a.tobytes())
                if isinstance(a, np.ndarray)
                else a,
            )
            for k, a in n.attrs.items()
        ]
        return (
            n.op,
            [value(v) for v in n.operands],
            attrs,
            [value(v) for v in n.results],
            n.source,
            n.precision,
        )

    return [
        g.name, [(v.name, value(v)) for v in g.inputs], [node(n) for n in g.nodes],
        [(s.name, value(s.value), s.initial.tobytes(), value(s.next or s.value)) for s in g.states],
        [value(v) for v in g.outputs], g.output_names,
        g.input_streaming_dims, g.output_streaming_dims, g.output_latencies,
        g.output_tails, g.step_counter, g.end_marker, g.step_limit,
    ]  # fmt: skip


def assert_round_trip(g: Graph) -> None:
    text = print_graph(g)
    back = parse_graph(text)
    assert signature(back) == signature(g)
    assert print_graph(back) == text


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32))
def test_random_graphs_print_and_parse(seed: int) -> None:
    rng = np.random.default_rng(seed)
    g = random_graph(rng)
    assert_round_trip(g)
    x = random_inputs(rng, g)
    for a, b in zip(evaluate(parse_graph(print_graph(g)), x), evaluate(g, x), strict=True):
        assert a.tobytes() == b.tobytes()


def test_everything_that_text_can_hold() -> None:
    g = Graph('a "quoted" name')
    x = g.add_input(Type((4, 3), Precision.BF16), "x")
    g.add_input(Type(()), "elapsed", Role.ELAPSED_TIME)
    state = g.add_state(np.array([0.1, -0.0, 1e-310]), "h")
    w = g.constant(np.random.default_rng(0).normal(size=(3, 9)), 'odd name \\ with "quotes"')
    w.type = Type(w.shape, Precision.FP8_E4M3)
    y = add(
        g, "sum", x, axis=0, keepdims=False, name="h", source=Source("m", "f.py", 3, 'a = "b" // no comment')
    )
    g.nodes[-1].precision = Precision.BF16
    state.next = add(g, "add", y, state.value, name="3")
    g.add_output(state.next, "the output")
    g.add_output(w)
    for name in ("step", "past end"):
        counter = g.add_state(np.array(0.0), name)
        counter.next = counter.value
    g.input_streaming_dims, g.output_streaming_dims, g.output_latencies = (0, None), (None, 1), (0, 3)
    g.output_tails, g.step_counter, g.end_marker = (-2, 3), "step", "past end"
    g.step_limit = 17
    text = print_graph(g)
    back = parse_graph(text)
    assert signature(back) == signature(g)
    assert print_graph(back) == text
    assert "wish bf16" in text
    assert "elapsed_time" in text


@pytest.mark.parametrize("values", [
    [np.nan, np.inf, -np.inf, -0.0, 5e-324, 1.7976931348623157e308],
    [0.1, 1 / 3, 2**-126, 1e16, 123456789.123456789],
    [-0.0] * 40,
    [0.0] * 20 + [-0.0] * 20,
    list(np.random.default_rng(1).normal(size=50)),
])  # fmt: skip
def test_constants_come_back_to_the_bit(values: list[float]) -> None:
    g, _ = graph()
    g.add_output(g.constant(values))
    back = parse_graph(print_graph(g)).outputs[0].constant()
    assert back is not None
    assert back.tobytes() == np.array(values).tobytes()


def test_bodies_are_indented_and_their_names_are_their_own() -> None:
    g, (x,) = graph((5, 8))
    g.add_output(leaky(g, x, 8)[1])
    lines = print_graph(g).splitlines()
    assert any(line.startswith("    %2 = add(%1, %x1)") for line in lines), "\n".join(lines)
    assert any(line.startswith("  } loc(") for line in lines)
    assert_round_trip(g)


def test_attributes_print_in_the_order_of_the_op_table() -> None:
    g, (x,) = graph((4,))
    g.add_output(add(g, "slice", x, step=1, stop=3, start=0, axis=0))
    assert "{axis=0, start=0, stop=3, step=1}" in print_graph(g)


def test_elided_text_is_for_people() -> None:
    g, _ = graph()
    g.add_output(g.constant(np.arange(100.0), "w"))
    text = print_graph(g, elide=True)
    assert "elided(100)" in text
    with pytest.raises(GraphError, match="left out when the graph was printed"):
        parse_graph(text)


@pytest.mark.parametrize(("text", "line", "what"), [
    ("", "line 1", "expected 'graph' and found 'the end'"),
    ('graph "g" () {\n  return\n', "line 2", "expected a value and found 'the end'"),
    ('graph "g" () {\n  %y = frob() : f32[]\n  return %y\n}', "line 2", "there is no op 'frob'"),
    ('graph "g" (%x: f32[2]) {\n  %y = neg(%z) : f32[2]\n  return %y\n}', "line 2", "%z is not defined above"),
    ('graph "g" (%x: f32[2]) {\n  %x = neg(%x) : f32[2]\n  return %x\n}', "line 2", "%x is defined twice"),
    ('graph "g" (%x: f16[2]) {\n  return %x\n}', "line 1", "'f16' is no precision"),
    ('graph "g" (%x: f32[2] fast) {\n  return %x\n}', "line 1", "'fast' is no role"),
    ('graph "g" (%x: f32[2.5]) {\n  return %x\n}', "line 1", "expected a whole number"),
    ('graph "g" () {\n  %c = constant() {value=dense(1, 2)} : f32[3]\n  return %c\n}', "line 2", "2 elements stands"),
    ('graph "g" () {\n  %c = constant() {value=base64("A")} : f32[3]\n  return %c\n}', "line 2", "base64 .* damaged"),
    ('graph "g" () {\n  next "h" = %c\n  return\n}', "line 2", "there is no state 'h'"),
    ('graph "g" () {\n  return\n} ?', "line 3", "is no token"),
    ('graph "g" () {\n  return\n}\n}', "line 4", "expected 'the end' and found '}'"),
    ('graph "g" () {\n  %a, %b = constant() {value=dense(1)} : f32[]\n  return %a\n}', "line 2", "2 results have 1"),
    ('graph "g" (%x: f32[0]) {\n  return %x\n}', "line 1", "no positive whole number"),
])  # fmt: skip
def test_bad_text_is_refused_at_its_line(text: str, line: str, what: str) -> None:
    with pytest.raises(GraphError, match=what) as error:
        parse_graph(text)
    assert line in error.value.where
    assert error.value.remedy


FAR = """graph "g" (%x: f32[8]) {
  %y = slice(%x) {axis=0, start=3, stop=7, step=9223372036854775807} : f32[1]
  return %y
}
"""


def test_whole_numbers_are_those_of_64_bits() -> None:
    assert print_graph(parse_graph(FAR)) == FAR
    with pytest.raises(GraphError, match=r"at most 2\^63 - 1 and found '9223372036854775808'"):
        parse_graph(FAR.replace("807}", "808}"))
    g = Graph("g")
    with pytest.raises(GraphError, match="attribute step of slice is 9223372036854775808, expected at most"):
        add(g, "slice", g.add_input(Type((8,)), "x"), axis=0, start=3, stop=7, step=2**63)


def test_steps_of_slices_of_slices_stay_in_64_bits() -> None:
    again = FAR.replace(
        "  return", "  %z = slice(%y) {axis=0, start=0, stop=1, step=4} : f32[1]\n  return"
    ).replace("return %y", "return %z")
    simplified = fold(parse_graph(again))
    assert print_graph(parse_graph(print_graph(simplified))) == print_graph(simplified)
    assert evaluate(simplified, [np.arange(8.0)])[0].tolist() == [3.0]


def test_parsed_graphs_are_verified_unless_asked_not_to() -> None:
    text = 'graph "g" (%x: f32[2]) {\n  %y = neg(%x) : f32[3]\n  return %y\n}\n'
    with pytest.raises(GraphError, match="results have the shapes"):
        parse_graph(text)
    assert print_graph(parse_graph(text, check=False)) == text


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 2**32), st.data())
def test_damaged_text_is_refused_or_a_valid_graph(seed: int, data: st.DataObject) -> None:
    text = print_graph(random_graph(np.random.default_rng(seed), nodes=3))
    at = data.draw(st.integers(0, len(text) - 1))
    damaged = (
        text[:at]
        + data.draw(st.sampled_from(["", "%", "}", "(", "0", '"', "f32", "\n", "-"]))
        + text[at + 1 :]
    )
    with contextlib.suppress(GraphError):  # any other error fails this test
        verify(parse_graph(damaged, check=False))


def test_source_and_scan_survive() -> None:
    g, (x,) = graph((3, 4))
    inner, (h, row) = body((), (4,))
    inner.add_output(add(inner, "add", h, add(inner, "sum", row, axis=0, keepdims=False, source=HERE)))
    (total,) = scan(g, inner, [g.constant(0.0), x], 1, 3, (0,))
    g.add_output(total)
    back = parse_graph(print_graph(g))
    assert [n.source for n in back.walk() if n.op == "sum"] == [HERE]
    assert_same(evaluate(back, [np.ones((3, 4))]), [np.array(12.0)])
