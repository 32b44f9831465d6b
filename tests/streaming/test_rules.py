"""The streaming law: running the step graph over T steps gives the whole graph, and what has no steps is refused."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from generators import random_graph, random_inputs
from hypothesis import given, settings
from hypothesis import strategies as st
from nnir_cases import HERE, assert_streams, body, graph, inputs_for, leaky, ops_of, scan

from ltc_compiler.errors import StreamingError
from ltc_compiler.ir.graph import Graph, Role, Type, Value
from ltc_compiler.ir.ops import add
from ltc_compiler.transforms.pipeline import run_pipeline
from ltc_compiler.transforms.streaming.transform import streaming_transform

T = 9


@settings(max_examples=150, deadline=None)
@given(st.integers(0, 2**32))
def test_random_graphs_keep_the_law(seed: int) -> None:
    rng = np.random.default_rng(seed)
    g = random_graph(rng, streamable=True)
    step = streaming_transform(g, 0)
    x = random_inputs(rng, g)
    assert_streams(g, step, x)
    assert_streams(g, run_pipeline(step), x)


def law(g: Graph, axis: int | list[int | None] = 0, late: int = 0) -> Graph:
    """Stream `g`, check the law before and after the pipeline, and the latency of output 0."""
    step = streaming_transform(g, axis)
    assert_streams(g, step, inputs_for(g))
    assert_streams(g, run_pipeline(step), inputs_for(g))
    assert step.output_latencies is not None
    assert step.output_latencies[0] == late
    return step


def window(g: Graph, x: Value, start: int, stop: int, axis: int = 0) -> Value:
    return add(g, "slice", x, axis=axis, start=start, stop=stop, step=1, source=HERE)


def padded(g: Graph, x: Value, padding: np.ndarray) -> Value:
    return add(g, "concat", g.constant(padding), x, axis=0, source=HERE)


def convolution(g: Graph, x: Value, taps: int) -> Value:
    """sum_k w_k x[k : k + len - taps + 1], each tap with a weight of its own."""
    length = x.shape[0] - taps + 1
    terms = [add(g, "mul", window(g, x, k, k + length), g.constant(0.5 - k)) for k in range(taps)]
    total = terms[0]
    for term in terms[1:]:
        total = add(g, "add", total, term)
    return total


# ---------------------------------------------------------------- what streams


@pytest.mark.parametrize("axis", [0, 1, -2])
def test_the_streamed_axis_is_dropped(axis: int) -> None:
    g, (x,) = graph((T, 8) if axis == 0 else (1, T, 8))
    weight = g.constant(np.random.default_rng(0).normal(size=(5, 8)))
    g.add_output(add(g, "tanh", add(g, "linear", x, weight, g.constant(np.ones(5)))))
    step = law(g, axis)
    assert step.inputs[0].shape == ((8,) if axis == 0 else (1, 8))
    assert step.input_streaming_dims == (0 if axis == 0 else 1,)
    assert step.output_streaming_dims == step.input_streaming_dims
    assert not step.states


def test_a_scan_along_the_axis_becomes_its_body_with_state() -> None:
    g, (x,) = graph((T, 8))
    final, every = leaky(g, x, 8)
    g.add_output(every)
    g.add_output(final)
    step = law(g)
    assert "scan" not in ops_of(step)
    assert [s.initial.tolist() for s in step.states] == [[0.25] * 8]
    assert step.output_streaming_dims == (0, None)


def test_a_scan_along_another_axis_of_its_operand() -> None:
    g, (x,) = graph((2, T, 8))
    shape = (2, 8)
    inner, (h, at) = body(shape, shape)
    new = add(inner, "tanh", add(inner, "add", h, at))
    inner.add_output(new)
    inner.add_output(new)
    results = scan(g, inner, [g.constant(np.zeros(shape)), x], 1, T, (1,), (2,))
    g.add_output(results[1])
    g.add_output(results[0])
    assert law(g, 1).output_streaming_dims == (2, None)


def test_stacked_scans_and_a_last_step() -> None:
    g, (x,) = graph((T, 8))
    every = leaky(g, leaky(g, x, 8)[1], 8)[1]
    last = add(g, "reshape", window(g, every, T - 1, T), shape=(8,))
    g.add_output(add(g, "exp", last))
    step = law(g)
    assert len(step.states) == 2
    assert step.output_streaming_dims == (None,)
    assert step.outputs[0].shape == (8,)


def test_elapsed_time_is_a_step_input() -> None:
    g = Graph("main")
    x, dt = g.add_input(Type((1, T, 4)), "x"), g.add_input(Type((1, T)), "dt", Role.ELAPSED_TIME)
    inner, (h, at, elapsed) = body((1, 4), (1, 4), (1,))
    rate = add(inner, "reshape", elapsed, shape=(1, 1))
    moved = add(inner, "add", h, add(inner, "mul", rate, add(inner, "sub", at, h)))
    inner.add_output(moved)
    inner.add_output(moved)
    g.add_output(scan(g, inner, [g.constant(np.zeros((1, 4))), x, dt], 1, T, (1, 1), (1,))[1])
    step = law(g, 1)
    assert [(v.name, v.shape, v.role) for v in step.inputs] == [
        ("x", (1, 4), Role.PLAIN),
        ("dt", (1,), Role.ELAPSED_TIME),
    ]


def test_a_difference_is_late_by_one() -> None:
    g, (x,) = graph((T, 8))
    g.add_output(add(g, "sub", window(g, x, 1, T), window(g, x, 0, T - 1)))
    step = law(g, late=1)
    assert [s.name for s in step.states] == ["x0.delay1", "step"]


@pytest.mark.parametrize("taps", [1, 2, 5])
def test_left_padding_costs_no_latency_and_one_chain(taps: int) -> None:
    g, (x,) = graph((T, 8))
    g.add_output(convolution(g, padded(g, x, np.zeros((taps - 1, 8))) if taps > 1 else x, taps))
    assert len(law(g).states) == taps - 1


def test_padding_is_the_initial_content_of_the_window() -> None:
    g, (x,) = graph((T, 8))
    g.add_output(convolution(g, padded(g, x, np.arange(16.0).reshape(2, 8)), 3))
    step = law(g)
    assert [s.initial[0] for s in step.states] == [8.0, 0.0]


def test_windows_with_other_padding_have_a_chain_each() -> None:
    g, (x,) = graph((T, 8))
    g.add_output(convolution(g, padded(g, x, np.zeros((2, 8))), 3))
    g.add_output(convolution(g, padded(g, x, np.ones((2, 8))), 3))
    g.add_output(convolution(g, padded(g, x, np.zeros((1, 8))), 2))
    assert len(law(g).states) == 4


def test_stacked_causal_convolutions() -> None:
    g, (x,) = graph((T, 8))
    y = convolution(g, padded(g, x, np.zeros((2, 8))), 3)
    g.add_output(convolution(g, padded(g, add(g, "tanh", y), np.full((3, 8), 0.5)), 4))
    assert len(law(g).states) == 5


def test_unpadded_convolutions_add_their_latency() -> None:
    g, (x,) = graph((T, 8))
    g.add_output(convolution(g, add(g, "tanh", convolution(g, x, 3)), 2))
    law(g, late=3)


@pytest.mark.parametrize(
    "padding", [np.zeros((3, 8)), np.arange(24.0).reshape(3, 8), np.arange(8.0).reshape(1, 8)]
)
def test_padding_a_late_stream(padding: np.ndarray) -> None:
    g, (x,) = graph((T, 8))
    late = convolution(g, x, 3)
    g.add_output(convolution(g, padded(g, late, padding), 3))
    law(g, late=max(0, 4 - len(padding)))


def test_a_late_scan_is_held_back() -> None:
    g, (x,) = graph((T, 8))
    final, every = leaky(g, convolution(g, x, 4), 8)
    g.add_output(every)
    g.add_output(final)
    step = law(g, late=3)
    assert "select" in ops_of(step)
    assert "step" in [s.name for s in step.states]


def test_a_scan_over_a_padded_sequence_starts_with_the_padding() -> None:
    g, (x,) = graph((T, 8))
    every = leaky(g, padded(g, x, np.ones((2, 8))), 8)[1]
    g.add_output(window(g, every, 2, T + 2))
    step = streaming_transform(g, 0)
    assert step.output_latencies == (2,), "the padding takes steps of the recurrence"
    assert_streams(g, step, inputs_for(g))


def test_the_last_of_a_stream_that_ends_early() -> None:
    g, (x,) = graph((T, 8))
    g.add_output(window(g, window(g, x, 0, T - 2), T - 3, T - 2))
    assert len(law(g).states) == 2


def test_the_axis_moves_with_layout() -> None:
    g, (x,) = graph((1, T, 6))
    y = add(g, "reshape", x, shape=(T, 2, 3))
    y = add(g, "permute", y, dims=(2, 0, 1))
    y = add(g, "reshape", y, shape=(3, 1, T, 1, 2))
    y = add(g, "broadcast", y, shape=(2, 3, 4, T, 1, 2))
    y = add(g, "sum", y, axis=1, keepdims=False)
    y = add(g, "amax", y, axis=4, keepdims=True)
    g.add_output(add(g, "slice", y, axis=1, start=1, stop=4, step=2))
    assert law(g, 1).output_streaming_dims == (2,)


def test_operands_of_different_rank_and_constants_beside_the_axis() -> None:
    g, (x, u) = graph((2, T, 5), (T, 1))
    y = add(g, "mul", x, u)
    y = add(g, "add", y, g.constant(np.random.default_rng(0).normal(size=(2, 1, 5))))
    y = add(g, "add", y, g.constant(np.full((T, 1), 3.0)))
    g.add_output(add(g, "concat", y, g.constant(np.full((2, T, 1), 7.0)), axis=2))
    assert law(g, [1, 0]).inputs[1].shape == (1,)


@pytest.mark.parametrize("taps", [1, 3])
def test_a_scan_may_start_from_an_input(taps: int) -> None:
    """The initial carry is an input of every step, read in the first that counts, after a latency too."""
    g, (x, start) = graph((T, 8), (8,))
    inner, (h, at) = body((8,), (8,))
    new = add(inner, "tanh", add(inner, "add", h, at))
    inner.add_output(new)
    inner.add_output(new)
    begin = add(g, "mul", start, g.constant(0.5))
    final, every = scan(g, inner, [begin, convolution(g, x, taps)], 1, T - taps + 1, (0,), (0,))
    g.add_output(every)
    g.add_output(final)
    step = law(g, [0, None], late=taps - 1)
    assert step.input_streaming_dims == (0, None)


def test_an_input_may_stay_out_of_the_stream() -> None:
    g, (x, gain) = graph((T, 8), (8,))
    g.add_output(leaky(g, add(g, "mul", x, gain), 8)[1])
    g.add_output(add(g, "exp", gain))
    step = law(g, [0, None])
    assert step.input_streaming_dims == (0, None)
    assert step.output_streaming_dims == (0, None)


def ode(g: Graph, x: Value, start: Value, out_axes: tuple[int, ...] = ()) -> tuple[Value, ...]:
    """Six iterations of v = v + h (tanh(W v + x) - v): a solver that runs within each step."""
    inner, (v, time, drive) = body(start.shape, (), x.shape)
    width = start.shape[-1]
    weight = inner.constant(np.random.default_rng(1).normal(size=(width, width)))
    pushed = add(inner, "add", add(inner, "linear", v, weight, inner.constant(np.zeros(width))), drive)
    change = add(inner, "sub", add(inner, "tanh", pushed), v)
    new = add(inner, "add", v, add(inner, "mul", add(inner, "cos", time), change))
    inner.add_output(new)
    for _ in out_axes:
        inner.add_output(new)
    return scan(g, inner, [start, g.constant(np.linspace(0, 1, 6)), x], 1, 6, (0,), out_axes)


def test_an_ode_solve_runs_within_each_step() -> None:
    g, (x,) = graph((T, 8))
    final, every = ode(g, x, g.constant(np.zeros((T, 8))), (0,))
    g.add_output(final)
    g.add_output(every)
    step = law(g)
    assert ops_of(step).count("scan") == 1
    assert step.output_streaming_dims == (0, 1)
    assert step.outputs[1].shape == (6, 8)


def test_an_ode_solve_that_starts_from_the_stream() -> None:
    g, (x,) = graph((1, T, 8))
    results = ode(g, x, add(g, "neg", x), (2,))
    g.add_output(results[1])
    assert law(g, 1).output_streaming_dims == (1,)


def test_an_ode_solve_within_a_recurrence() -> None:
    g, (x,) = graph((T, 8))
    inner, (h, at) = body((8,), (8,))
    (new,) = ode(inner, at, h)
    inner.add_output(new)
    inner.add_output(new)
    g.add_output(scan(g, inner, [g.constant(np.zeros(8)), x], 1, T, (0,), (0,))[1])
    step = law(g)
    assert ops_of(step).count("scan") == 1
    assert len(step.states) == 1


def test_a_scan_over_another_axis() -> None:
    g, (x,) = graph((T, 3, 8))
    shape = (T, 8)
    inner, (h, at) = body(shape, shape)
    new = add(inner, "add", add(inner, "mul", h, inner.constant(0.5)), at)
    inner.add_output(new)
    inner.add_output(new)
    results = scan(g, inner, [g.constant(np.zeros(shape)), x], 1, 3, (1,), (1,))
    g.add_output(results[0])
    g.add_output(results[1])
    step = law(g)
    assert step.output_streaming_dims == (0, 0)
    assert step.outputs[1].shape == (3, 8)


@pytest.mark.parametrize("values", [[0.0], [0.0, 0.0, 0.0], [1.5, 1.5, -2.0, 0.25], [-np.inf]])
@pytest.mark.parametrize("cut", [0, 1, 4])
def test_what_stands_behind_the_end_comes_there(values: list[float], cut: int) -> None:
    """Behind a sequence, one that is late, or one that ended before; with windows before it and behind."""
    g, (x,) = graph((T, 8))
    before = window(g, add(g, "tanh", convolution(g, padded(g, x, np.ones((1, 8))), 3)), 0, T - 1 - cut)
    behind = g.constant(np.repeat(np.array(values)[:, None], 8, 1))
    both = add(g, "concat", padded(g, before, np.zeros((1, 8))), behind, axis=0, source=HERE)
    y = add(g, "max", window(g, both, 1, both.shape[0]), window(g, both, 0, both.shape[0] - 1))
    g.add_output(y)
    g.add_output(before)
    step = streaming_transform(g, 0)
    assert_streams(g, step, inputs_for(g))
    assert_streams(g, run_pipeline(step), inputs_for(g))
    assert step.end_marker == "past_end"
    assert step.output_tails is not None
    assert step.output_latencies is not None
    assert step.output_tails[0] == y.shape[0] - T + step.output_latencies[0]


def test_each_layer_has_padding_of_its_own_at_the_end() -> None:
    """relu(conv(pad(relu(conv(pad(x)))))): behind the end of the second layer's input stand zeros, no sums of zeros."""
    g, (x,) = graph((T, 8))
    y: Value = x
    for _ in range(2):
        zeros = g.constant(np.zeros((1, 8)))
        both = add(g, "concat", zeros, y, zeros, axis=0, source=HERE)
        y = add(g, "relu", add(g, "add", convolution(g, both, 3), g.constant(0.5)))
    g.add_output(y)
    assert law(g, late=2).output_tails == (2,)


def test_a_step_counter_only_where_something_is_late() -> None:
    g, (x,) = graph((T, 8))
    g.add_output(convolution(g, padded(g, x, np.zeros((2, 8))), 3))
    causal = law(g)
    assert (causal.step_counter, causal.end_marker, causal.output_tails) == ("", "", (0,))
    g.add_output(convolution(g, x, 3))
    late = streaming_transform(g, 0)
    assert (late.step_counter, late.end_marker, late.output_tails) == ("step", "", (0, 0))
    assert "step" in [s.name for s in run_pipeline(late).states]


def test_what_is_not_known_behind_the_end_is_refused() -> None:
    g, (x, end) = graph((T, 8), (1, 8))
    g.add_output(add(g, "concat", x, end, axis=0, source=HERE))
    with pytest.raises(StreamingError, match="what stands behind the stream is no constant"):
        streaming_transform(g, [0, None])


# ---------------------------------------------------------------- what does not


def sum_over_time(g: Graph, x: Value) -> Value:
    return add(g, "sum", x, axis=0, keepdims=False, name="y", source=HERE)


def product_over_time(g: Graph, x: Value) -> Value:
    turned = add(g, "permute", x, dims=(1, 0))
    return add(
        g, "linear", turned, g.constant(np.ones((2, T))), g.constant(np.zeros(2)), name="y", source=HERE
    )


def position_weights(g: Graph, x: Value) -> Value:
    return add(g, "add", x, g.constant(np.arange(T * 8.0).reshape(T, 8)), name="y", source=HERE)


def merged_axis(g: Graph, x: Value) -> Value:
    return add(g, "reshape", x, shape=(T * 8,), name="y", source=HERE)


def strided(g: Graph, x: Value) -> Value:
    return add(g, "slice", x, axis=0, start=0, stop=T, step=2, name="y", source=HERE)


def fixed_step(g: Graph, x: Value) -> Value:
    return add(g, "slice", x, axis=0, start=3, stop=4, step=1, name="y", source=HERE)


def two_streams_end_to_end(g: Graph, x: Value) -> Value:
    return add(g, "concat", x, x, axis=0, name="y", source=HERE)


def axes_that_differ(g: Graph, x: Value) -> Value:
    square = add(g, "slice", add(g, "concat", x, x, axis=1), axis=1, start=0, stop=T, step=1)
    return add(g, "add", square, add(g, "permute", square, dims=(1, 0)), name="y", source=HERE)


def last_joined_with_all(g: Graph, x: Value) -> Value:
    return add(g, "add", x, window(g, x, T - 1, T), name="y", source=HERE)


def other_lengths(g: Graph, x: Value) -> Value:
    padding = padded(g, x, np.zeros((2, 8)))
    inner, (h, a, b) = body((8,), (8,), (8,))
    inner.add_output(add(inner, "add", h, add(inner, "add", a, b)))
    longer = window(g, padding, 0, T)
    return scan(g, inner, [add(g, "amax", x, axis=0, keepdims=False), longer, x], 1, T, (0, 0))[0]


def start_from_the_last(g: Graph, x: Value) -> Value:
    inner, (h, at) = body((8,), (8,))
    inner.add_output(add(inner, "add", h, at))
    last = add(g, "reshape", window(g, x, T - 1, T), shape=(8,))
    return scan(g, inner, [last, x], 1, T, (0,))[0]


def start_from_the_sequence(g: Graph, x: Value) -> Value:
    inner, (h, at) = body((T, 8), (8,))
    inner.add_output(add(inner, "add", h, at))
    return scan(g, inner, [x, x], 1, T, (0,))[0]


def whole_sequence_captured(g: Graph, x: Value) -> Value:
    inner, (h, at, everything) = body((8,), (8,), (T, 8))
    total = add(inner, "sum", everything, axis=0, keepdims=False)
    inner.add_output(add(inner, "add", h, add(inner, "mul", at, total)))
    return scan(g, inner, [g.constant(np.zeros(8)), x, x], 1, T, (0,))[0]


def numbered_steps(g: Graph, x: Value) -> Value:
    inner, (h, at, number) = body((8,), (8,), ())
    inner.add_output(add(inner, "add", h, add(inner, "mul", at, number)))
    return scan(g, inner, [g.constant(np.zeros(8)), x, g.constant(np.arange(float(T)))], 1, T, (0, 0))[0]


def window_within_a_solver(g: Graph, x: Value) -> Value:
    inner, (v,) = body((T, 8))
    late = add(inner, "slice", v, axis=0, start=1, stop=T, step=1, source=HERE)
    filled = add(inner, "concat", late, inner.constant(np.zeros((1, 8))), axis=0, source=HERE)
    inner.add_output(filled)
    return scan(g, inner, [x], 1, 3)[0]


def weights_that_stream(g: Graph, x: Value) -> Value:
    return add(g, "linear", g.constant(np.ones((2, 8))), x, g.constant(np.zeros(T)), name="y", source=HERE)


REFUSED: list[tuple[Callable[[Graph, Value], Value], str]] = [
    (sum_over_time, "%y = sum: reduces over all 9 elements of the streamed axis"),
    (product_over_time, "%y = linear: the product sums over the streamed axis"),
    (merged_axis, "%y = reshape: .* merges or splits the streamed axis"),
    (strided, "%y = slice: a step of 2 changes the rate"),
    (fixed_step, "%y = slice: selects the fixed step 3 of 9"),
    (two_streams_end_to_end, "%y = concat: joins two streams end to end"),
    (axes_that_differ, "joins two streams|operands stream on different axes|stream"),
    (last_joined_with_all, "%y = add: joins the last step of a sequence with the sequence itself"),
    (other_lengths, "reduces over all 9 elements"),
    (start_from_the_last, "joins the last step of a sequence with the sequence itself"),
    (start_from_the_sequence, "the initial carry 0 is computed from the sequence that streams"),
    (whole_sequence_captured, "reads another stream whole"),
    (window_within_a_solver, "slices the streamed axis inside a scan"),
    (weights_that_stream, "%y = linear: its weights stream"),
]


@pytest.mark.parametrize(("build", "what"), REFUSED, ids=lambda p: getattr(p, "__name__", ""))
def test_what_has_no_step_by_step_form_is_refused(build: Callable[[Graph, Value], Value], what: str) -> None:
    g, (x,) = graph((T, 8))
    g.add_output(build(g, x))
    axes: list[int | None] = [0] + [None] * (len(g.inputs) - 1)
    with pytest.raises(StreamingError, match=what) as error:
        streaming_transform(g, axes)
    assert error.value.remedy
    if "%y" in what:
        assert "model.py:12" in error.value.where


def test_padding_with_something_unknown() -> None:
    g, (x, before) = graph((T, 8), (1, 8))
    g.add_output(add(g, "concat", before, x, axis=0, source=HERE))
    with pytest.raises(StreamingError, match="what stands before the stream is no constant"):
        streaming_transform(g, [0, None])


@pytest.mark.parametrize("build", [position_weights, numbered_steps])
def test_constants_that_vary_along_the_stream_are_tables(build: Callable[[Graph, Value], Value]) -> None:
    g, (x,) = graph((T, 8))
    g.add_output(build(g, x))
    law(g)


@pytest.mark.parametrize("width", [6, 33, 70])
def test_a_product_of_what_is_the_same_at_every_step_streams(width: int) -> None:
    """As an initial state repeated along the sequence: no BLAS may make its rows differ in the last place."""
    rng = np.random.default_rng(width)
    g, (x,) = graph((T, width))
    same = g.constant(np.tile(rng.normal(size=width), (T, 1)))
    weight, bias = g.constant(rng.normal(size=(width, width))), g.constant(rng.normal(size=width))
    g.add_output(add(g, "add", x, add(g, "linear", same, weight, bias)))
    law(g)


def test_the_end_of_right_padding_cannot_be_known() -> None:
    g, (x,) = graph((T, 8))
    both = add(g, "concat", x, g.constant(np.zeros((1, 8))), axis=0)
    g.add_output(window(g, both, T, T + 1))
    with pytest.raises(StreamingError, match="after the end of the sequence"):
        streaming_transform(g, 0)


@pytest.mark.parametrize(("axes", "what"), [
    (2, "axis 2 is out of range for input %x0"),
    ([0], "1 axes are given for 2 inputs"),
    ([None, None], "no input has one"),
    ([0, 1], "%x0: 9, %x1: 8"),
])  # fmt: skip
def test_axes_that_do_not_fit_the_inputs(axes: int | list[int | None], what: str) -> None:
    g, (x, _) = graph((T, 8), (T, 8))
    g.add_output(x)
    with pytest.raises(StreamingError, match=what):
        streaming_transform(g, axes)


def test_a_step_graph_is_not_streamed_again() -> None:
    g, (x,) = graph((T, 8))
    g.add_output(leaky(g, x, 8)[1])
    with pytest.raises(StreamingError, match="step graph already"):
        streaming_transform(streaming_transform(g, 0), 0)
