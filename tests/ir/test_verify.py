"""Every rule of the verifier has a graph that breaks it, and an error that names the value and the user's place."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from nnir_cases import HERE, body, graph, leaky, scan

from ltc_compiler.errors import GraphError
from ltc_compiler.ir.graph import Graph, Precision, State, Type, Value
from ltc_compiler.ir.ops import add
from ltc_compiler.ir.verify import verify


def valid() -> Graph:
    g, (x,) = graph((5, 8))
    y = add(g, "tanh", x, name="y", source=HERE)
    state = g.add_state(np.zeros(8), "h")
    state.next = add(g, "sum", y, axis=0, keepdims=False, name="total")
    g.add_output(leaky(g, y, 8)[1])
    return g


def use_before_definition(g: Graph) -> None:
    g.nodes.reverse()


def foreign_operand(g: Graph) -> None:
    g.nodes[0].operands = (Value(Type((5, 8)), "stranger"),)


def wrong_shape(g: Graph) -> None:
    g.nodes[0].results[0].type = Type((5, 9))


def unknown_op(g: Graph) -> None:
    g.nodes[0].op = "frobnicate"


def missing_attribute(g: Graph) -> None:
    del g.nodes[1].attrs["axis"]


def attribute_of_wrong_type(g: Graph) -> None:
    g.nodes[1].attrs["axis"] = "first"


def negative_axis(g: Graph) -> None:
    g.nodes[1].attrs["axis"] = -2


def wrong_arity(g: Graph) -> None:
    g.nodes[0].operands *= 2


def fp8_result(g: Graph) -> None:
    g.nodes[0].results[0].type = Type((5, 8), Precision.FP8_E4M3)


def fp8_input(g: Graph) -> None:
    g.inputs[0].type = Type((5, 8), Precision.FP8_E4M3)


def changed_precision(g: Graph) -> None:
    y = add(g, "reshape", g.inputs[0], shape=(40,), source=HERE)
    y.type = Type((40,), Precision.BF16)


def fp16_constant(g: Graph) -> None:
    value = g.constant(np.zeros(3), source=HERE)
    assert value.node is not None
    value.node.attrs["value"] = np.zeros(3, dtype=np.float16)


def constant_of_other_shape(g: Graph) -> None:
    value = g.constant(np.zeros(3))
    value.type = Type((4,))


def body_reads_outside(g: Graph) -> None:
    node = next(n for n in g.nodes if n.op == "scan")
    node.body.nodes[-1].operands = (g.inputs[0],)


def body_with_state(g: Graph) -> None:
    node = next(n for n in g.nodes if n.op == "scan")
    node.body.add_state(np.zeros(8)).next = node.body.inputs[0]


def body_without_outputs(g: Graph) -> None:
    inner, _ = body((5, 8))
    node = g.nodes[-1]
    node.operands, node.results = (g.inputs[0],), ()
    node.attrs = {**node.attrs, "body": inner, "carries": 0, "scanned": 0, "in_axes": (), "out_axes": ()}
    g.outputs, g.output_names = [], []


def carry_count_beyond_operands(g: Graph) -> None:
    next(n for n in g.nodes if n.op == "scan").attrs["carries"] = 7


def narrow_carry(g: Graph) -> None:
    next(n for n in g.nodes if n.op == "scan").body.inputs[0].type = Type((8,), Precision.BF16)


def trip_count_of_another_axis(g: Graph) -> None:
    next(n for n in g.nodes if n.op == "scan").attrs["trip_count"] = 4


def two_states_of_one_name(g: Graph) -> None:
    g.states.append(State("h", Value(Type((8,)), "h"), np.zeros(8), g.states[0].next))


def state_without_next(g: Graph) -> None:
    g.states[0].next = None


def state_next_of_other_shape(g: Graph) -> None:
    g.states[0].next = g.inputs[0]


def state_initial_of_other_shape(g: Graph) -> None:
    g.states[0].initial = np.zeros(9)


def two_inputs_of_one_name(g: Graph) -> None:
    g.add_input(Type((2,)), "x0")


def output_of_another_graph(g: Graph) -> None:
    g.outputs[0] = Value(Type((2,)), "stranger")


def output_without_name(g: Graph) -> None:
    g.output_names.clear()


def streaming_dim_out_of_range(g: Graph) -> None:
    g.input_streaming_dims = (3,)


def streaming_dim_missing(g: Graph) -> None:
    g.output_streaming_dims = ()


def negative_latency(g: Graph) -> None:
    g.output_latencies = (-1,)


def tail_missing(g: Graph) -> None:
    g.output_tails = ()


def late_without_a_count(g: Graph) -> None:
    g.output_latencies = (1,)


def end_marker_of_a_vector(g: Graph) -> None:
    g.end_marker = g.add_state(np.zeros(2), "end").name
    g.states[-1].next = g.states[-1].value


BROKEN: list[tuple[Callable[[Graph], None], str]] = [
    (use_before_definition, "is not defined before"),
    (foreign_operand, "%stranger"),
    (wrong_shape, "results have the shapes"),
    (unknown_op, "there is no op 'frobnicate'"),
    (missing_attribute, "has the attributes"),
    (attribute_of_wrong_type, "expected a int"),
    (negative_axis, "axis is -2"),
    (wrong_arity, "takes 1 operands"),
    (fp8_result, "constants alone"),
    (fp8_input, "constants alone"),
    (changed_precision, "reshape of f32"),
    (fp16_constant, "holds float16"),
    (constant_of_other_shape, "results have the shapes"),
    (body_reads_outside, "is not defined before"),
    (body_with_state, "has states of its own"),
    (body_without_outputs, "the body returns nothing"),
    (carry_count_beyond_operands, "7 carries"),
    (narrow_carry, "is read as"),
    (trip_count_of_another_axis, "is not trip_count"),
    (two_states_of_one_name, "state names are used twice"),
    (state_without_next, "is followed by nothing"),
    (state_next_of_other_shape, "is followed by %x0"),
    (state_initial_of_other_shape, "holds float64 of shape"),
    (two_inputs_of_one_name, "input names are used twice"),
    (output_of_another_graph, "is no value of this graph"),
    (output_without_name, "1 outputs have 0 names"),
    (streaming_dim_out_of_range, "outside 0 to 2"),
    (streaming_dim_missing, "have 0 streaming dims"),
    (negative_latency, "have the latencies"),
    (tail_missing, "have the tails"),
    (late_without_a_count, "the step counter is '', which is no scalar state"),
    (end_marker_of_a_vector, "the end marker is 'end', which is no scalar state"),
]


def test_the_graph_that_is_broken_is_valid_before() -> None:
    verify(valid())


@pytest.mark.parametrize(("damage", "what"), BROKEN, ids=lambda p: getattr(p, "__name__", ""))
def test_a_broken_rule_is_refused(damage: Callable[[Graph], None], what: str) -> None:
    g = valid()
    damage(g)
    with pytest.raises(GraphError, match=what) as error:
        verify(g)
    assert error.value.where
    assert error.value.remedy


def test_an_error_names_the_node_and_the_users_line() -> None:
    g = valid()
    wrong_shape(g)
    with pytest.raises(GraphError) as error:
        verify(g)
    assert "%y = tanh" in error.value.where
    assert "model.py:12" in error.value.where


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e-310])
def test_any_number_may_be_a_constant(value: float) -> None:
    g, _ = graph()
    g.add_output(g.constant([value, 1.0]))
    verify(g)


def test_weights_are_constants_after_folding() -> None:
    g, (x, w) = graph((2, 3), (4, 3))
    g.add_output(add(g, "linear", x, w, g.constant(np.zeros(4)), source=HERE))
    verify(g)
    with pytest.raises(GraphError, match="the weight of linear is computed from an input"):
        verify(g, folded=True)


def test_a_captured_weight_is_no_constant_yet() -> None:
    g, (x,) = graph((5, 3))
    inner, (h, w) = body((3,), (3, 3))
    inner.add_output(add(inner, "linear", h, w, inner.constant(np.zeros(3))))
    g.add_output(scan(g, inner, [add(g, "sum", x, axis=0, keepdims=False), g.constant(np.eye(3))], 1, 2)[0])
    verify(g)
    with pytest.raises(GraphError, match="the weight of linear"):
        verify(g, folded=True)
