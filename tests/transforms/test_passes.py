"""Every pass: keeps the meaning of any graph, gives a valid graph, and does what it is there for."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
import pytest
from generators import random_graph, random_inputs
from hypothesis import given, settings
from hypothesis import strategies as st
from nnir_cases import HERE, assert_same, body, graph, inputs_for, leaky, ops_of, scan

from ltc_compiler.config import Config
from ltc_compiler.errors import GraphError
from ltc_compiler.ir.graph import Graph, Precision, Value
from ltc_compiler.ir.ops import add
from ltc_compiler.ir.run import evaluate
from ltc_compiler.ir.text import print_graph
from ltc_compiler.ir.verify import verify
from ltc_compiler.program import Program
from ltc_compiler.schedule.search import Job, best_schedule
from ltc_compiler.transforms.cleanup import cleanup
from ltc_compiler.transforms.fold import fold
from ltc_compiler.transforms.fuse import fuse_synapses, merge_linears
from ltc_compiler.transforms.hoist import hoist
from ltc_compiler.transforms.pipeline import PASSES, Pass, run_pipeline
from ltc_compiler.transforms.precisions import assign_precision


@pytest.mark.parametrize("step", {p.run: p for p in PASSES}.values(), ids=lambda p: p.name)
@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_a_pass_alone_keeps_the_meaning(step: Pass, seed: int) -> None:
    rng = np.random.default_rng(seed)
    g = random_graph(rng)
    text = print_graph(g)
    new = step.run(g)
    verify(new)
    assert print_graph(g) == text, "the pass changed its input"
    x = random_inputs(rng, g)
    assert_same(evaluate(new, x), evaluate(g, x), step.name)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32), st.booleans())
def test_the_pipeline_keeps_the_meaning(seed: int, optimize: bool) -> None:
    rng = np.random.default_rng(seed)
    g = random_graph(rng)
    new = run_pipeline(g, optimize=optimize)
    verify(new, folded=True)
    x = random_inputs(rng, g)
    assert_same(evaluate(new, x), evaluate(g, x))


def test_the_pipeline_stops_where_asked() -> None:
    g, (x,) = graph((4,))
    g.add_output(add(g, "add", x, add(g, "sin", g.constant(np.ones(4)))))
    assert ops_of(run_pipeline(g, stop_after="fold")) == ["add"]
    assert all(
        v.type.precision is Precision.FP32 for n in run_pipeline(g, "linears").nodes for v in n.results
    )
    with pytest.raises(ValueError, match="the passes are windows, fold, hoist"):
        run_pipeline(g, stop_after="magic")


# ---------------------------------------------------------------- fold


def test_what_depends_on_constants_is_computed_in_fp64() -> None:
    g, (x,) = graph((3,))
    w = add(g, "softplus", g.constant([0.1, 0.2, 0.3]))
    g.add_output(add(g, "mul", x, add(g, "mul", w, g.constant([3.0, 2.0, 1.0]))))
    new = fold(g)
    assert ops_of(new) == ["mul"]
    factor = new.nodes[-1].operands[1].constant()
    assert factor is not None
    np.testing.assert_array_equal(factor, np.logaddexp([0.1, 0.2, 0.3], 0) * [3.0, 2.0, 1.0])


def test_captured_and_steady_scanned_constants_move_into_the_body() -> None:
    g, (x,) = graph((4,))
    inner, (h, dt, tau) = body((4,), (), (4,))
    rate = add(inner, "div", dt, add(inner, "softplus", tau))
    inner.add_output(add(inner, "sub", h, add(inner, "mul", h, rate)))
    g.add_output(scan(g, inner, [x, g.constant(np.full(6, 0.1)), g.constant(np.ones(4))], 1, 6, (0,))[0])
    new = fold(g)
    (loop,) = [n for n in new.nodes if n.op == "scan"]
    assert len(loop.operands) == 1
    assert [n.op for n in loop.body.nodes if n.op != "constant"] == ["mul", "sub"]
    assert_same(evaluate(new, inputs_for(g)), evaluate(g, inputs_for(g)))


def test_a_scan_of_one_step_is_its_body() -> None:
    g, (x,) = graph((1, 8))
    for value in leaky(g, x, 8):
        g.add_output(value)
    new = fold(g)
    assert "scan" not in ops_of(new)
    assert_same(evaluate(new, inputs_for(g)), evaluate(g, inputs_for(g)))


def test_a_scan_over_constants_is_a_constant() -> None:
    g, _ = graph()
    g.add_output(leaky(g, g.constant(np.ones((5, 3))), 3)[1])
    assert ops_of(fold(g)) == []


def test_layout_that_does_nothing_goes() -> None:
    g, (x,) = graph((2, 1, 6))
    y = add(g, "reshape", add(g, "reshape", x, shape=(12,)), shape=(2, 6))
    y = add(g, "permute", add(g, "permute", y, dims=(1, 0)), dims=(1, 0))
    y = add(g, "slice", y, axis=1, start=0, stop=6, step=1)
    y = add(g, "broadcast", add(g, "concat", y, axis=0), shape=(2, 6))
    y = add(g, "slice", add(g, "concat", y, y, axis=1), axis=1, start=6, stop=12, step=1)
    g.add_output(add(g, "neg", y))
    new = cleanup(fold(g))
    assert ops_of(new) == ["reshape", "neg"]
    assert_same(evaluate(new, inputs_for(g)), evaluate(g, inputs_for(g)))


def test_padding_is_not_folded_on() -> None:
    """In fp64 a short padded sequence would round otherwise than its steps, which see the padding as a state."""
    g, (x,) = graph((3, 8))
    both = add(g, "concat", g.constant(np.arange(24.0).reshape(3, 8)), x, axis=0)
    tap = add(g, "slice", both, axis=0, start=0, stop=3, step=1)
    g.add_output(add(g, "mul", tap, g.constant(0.1)))
    assert ops_of(run_pipeline(g)) == ["concat", "slice", "mul"]


def test_pointwise_ops_read_what_was_broadcast() -> None:
    g, (x, y) = graph((5, 8), (8,))
    wide = add(g, "broadcast", y, shape=(5, 8))
    g.add_output(add(g, "add", x, wide))
    g.add_output(add(g, "neg", wide))
    new = cleanup(fold(g))
    assert ops_of(new) == ["broadcast", "add", "neg"]
    assert_same(evaluate(new, inputs_for(g)), evaluate(g, inputs_for(g)))


def test_a_constant_that_repeats_is_stored_once() -> None:
    g, (x,) = graph((5, 8))
    g.add_output(add(g, "mul", x, g.constant(np.full((5, 8), 0.5))))
    g.add_output(add(g, "mul", x, g.constant([[0.0] * 4 + [-0.0] * 4] * 5)))
    assert [n.results[0].shape for n in cleanup(fold(g)).nodes if n.op == "constant"] == [(1, 1), (1, 8)]


# ---------------------------------------------------------------- hoist


def test_known_times_become_a_table() -> None:
    g, (x,) = graph((4,))
    inner, (h, t) = body((4,), ())
    drive = add(inner, "cos", add(inner, "mul", t, inner.constant(3.0)))
    inner.add_output(add(inner, "add", h, drive))
    g.add_output(scan(g, inner, [x, g.constant(np.linspace(0, 1, 7))], 1, 7, (0,))[0])
    new = cleanup(hoist(fold(g)))
    (loop,) = [n for n in new.nodes if n.op == "scan"]
    assert [n.op for n in loop.body.nodes] == ["add"]
    table = loop.operands[1].constant()
    assert table is not None
    np.testing.assert_array_equal(table, np.cos(np.linspace(0, 1, 7) * 3.0))


def test_invariant_work_runs_once() -> None:
    g, (x, u) = graph((6,), (6,))
    inner, (h, drive) = body((6,), (6,))
    pushed = add(inner, "tanh", add(inner, "mul", drive, inner.constant(np.arange(6.0))))
    inner.add_output(add(inner, "add", h, pushed))
    g.add_output(scan(g, inner, [x, u], 1, 9)[0])
    new = hoist(g)
    assert ops_of(new) == ["mul", "tanh", "scan", "add"]
    assert_same(evaluate(new, inputs_for(g)), evaluate(g, inputs_for(g)))


def test_what_depends_on_a_carry_stays() -> None:
    g, (x,) = graph((5, 8))
    g.add_output(leaky(g, x, 8)[1])
    assert print_graph(hoist(g)) == print_graph(g)


# ---------------------------------------------------------------- cleanup


def test_dead_and_repeated_work_goes() -> None:
    g, (x,) = graph((4,))
    add(g, "exp", x)
    a, b = (add(g, "mul", x, g.constant(2.0)) for _ in range(2))
    g.add_output(add(g, "add", a, b))
    new = cleanup(g)
    assert ops_of(new) == ["mul", "add"]
    assert len(new.nodes) == 3


def test_minus_zero_is_not_zero() -> None:
    g, (x,) = graph((4,))
    g.add_output(add(g, "mul", x, g.constant(0.0)))
    g.add_output(add(g, "mul", x, g.constant(-0.0)))
    assert ops_of(cleanup(g)) == ["mul", "mul"]


def test_ops_of_different_precision_are_not_shared() -> None:
    g, (x,) = graph((4,))
    for precision in (None, Precision.FP32):
        g.add_output(add(g, "tanh", x))
        g.nodes[-1].precision = precision
    assert ops_of(cleanup(g)) == ["tanh", "tanh"]


def test_constants_of_different_formats_are_not_shared() -> None:
    g, (x,) = graph((3, 4))
    w = g.constant(np.eye(4))
    y = add(g, "linear", x, w, g.constant(np.zeros(4)))
    g.add_output(add(g, "add", add(g, "sum", y, axis=0, keepdims=True), w))
    new = cleanup(assign_precision(g))
    assert precisions(new, "linear") == ["f32,bf16,f32 -> f32"]
    assert precisions(new, "add") == ["f32,f32 -> f32"]


def test_scans_lose_what_nothing_needs() -> None:
    g, (x, u, unused) = graph((5,), (9, 5), (9, 5))
    inner, (a, dead, same, at, never, whole) = body((5,), (5,), (5,), (5,), (5,), (5,))
    inner.add_output(add(inner, "add", add(inner, "mul", a, same), add(inner, "mul", at, whole)))
    inner.add_output(add(inner, "add", dead, never))
    inner.add_output(same)
    inner.add_output(add(inner, "exp", dead))
    operands = [x, x, x, u, unused, add(g, "neg", x)]
    first, *_ = scan(g, inner, operands, 3, 9, (0, 0), (0,))
    g.add_output(first)
    new = cleanup(g)
    (loop,) = [n for n in new.nodes if n.op == "scan"]
    assert [loop.attrs[k] for k in ("carries", "scanned", "out_axes")] == [1, 1, ()]
    assert [v.name for v in loop.body.inputs] == ["x0", "x3", "x5", "x2"]
    assert_same(evaluate(new, inputs_for(g)), evaluate(g, inputs_for(g)))


def test_a_scan_may_lose_all_that_it_reads() -> None:
    """What is wanted is the same in every iteration, and both carries, one of which reads the other, go."""
    g, (x,) = graph((3,))
    inner, (a, b) = body((3,), (3,))
    inner.add_output(add(inner, "add", a, b))
    inner.add_output(add(inner, "tanh", b))
    inner.add_output(inner.constant([1.0, 2.0, 3.0]))
    g.add_output(scan(g, inner, [x, x], 2, 4, (), (0,))[2])
    new = cleanup(g)
    (loop,) = [n for n in new.nodes if n.op == "scan"]
    assert (loop.attrs["carries"], len(loop.operands)) == (0, 1)
    assert_same(evaluate(new, inputs_for(g)), evaluate(g, inputs_for(g)))


def test_states_that_no_output_needs_go() -> None:
    g, (x,) = graph((4,))
    kept, dropped = g.add_state(np.zeros(4), "kept"), g.add_state(np.zeros(4), "dropped")
    kept.next = add(g, "add", kept.value, x)
    dropped.next = add(g, "add", dropped.value, kept.value)
    g.add_output(kept.next)
    assert [s.name for s in cleanup(g).states] == ["kept"]


# ---------------------------------------------------------------- fuse


def written_out_synapse(
    g: Graph, v: Value, targets_first: bool = False, mask: bool = True
) -> tuple[Value, Value]:
    """num and den of an LTC as PyTorch code writes them, for v (..., sources)."""
    rng = np.random.default_rng(3)
    sources, targets = v.shape[-1], 7
    mu, sigma, w, erev = (rng.uniform(0.1, 1, (sources, targets)) for _ in range(4))
    exists = (rng.random((sources, targets)) < 0.6).astype(float)
    side = -2 if targets_first else -1
    shape = (*v.shape[:-1], 1, sources) if targets_first else (*v.shape, 1)

    def constant(a: np.ndarray) -> Value:
        return g.constant(a.T if targets_first else a)

    spread = add(g, "reshape", v, shape=shape, source=HERE)
    gate = add(g, "sigmoid", add(g, "mul", constant(sigma), add(g, "sub", spread, constant(mu))), source=HERE)
    active = add(g, "mul", constant(w), gate)
    if mask:
        active = add(g, "mul", active, constant(exists))
    axis = v.type.rank + 1 + (-1 if side == -2 else -2)
    num = add(g, "sum", add(g, "mul", active, constant(erev)), axis=axis, keepdims=False, source=HERE)
    den = add(g, "sum", active, axis=axis, keepdims=False, source=HERE)
    return num, den


@pytest.mark.parametrize("shape", [(5,), (2, 5), (3, 1, 5)])
@pytest.mark.parametrize("targets_first", [False, True])
@pytest.mark.parametrize("mask", [False, True])
def test_written_out_synapses_become_one_op(shape: tuple[int, ...], targets_first: bool, mask: bool) -> None:
    g, (v,) = graph(shape)
    num, den = written_out_synapse(g, v, targets_first, mask)
    g.add_output(add(g, "div", num, add(g, "add", den, g.constant(1.0))))
    new = cleanup(fuse_synapses(fold(g)))
    assert ops_of(new) == ["synapse", "add", "div"]
    assert_same(evaluate(new, inputs_for(g)), evaluate(g, inputs_for(g)))
    (synapse,) = [n for n in new.nodes if n.op == "synapse"]
    exists = synapse.operands[5].constant()
    assert exists is not None
    assert bool((exists == 0).any()) == mask, "absent synapses are not evaluated"
    assert synapse.source == HERE


@pytest.mark.parametrize("which", [0, 1])
def test_one_sum_alone_is_a_synapse_too(which: int) -> None:
    g, (v,) = graph((5,))
    g.add_output(written_out_synapse(g, v)[which])
    new = cleanup(fuse_synapses(fold(g)))
    assert ops_of(new) == ["synapse"]
    assert_same(evaluate(new, inputs_for(g)), evaluate(g, inputs_for(g)))


def test_a_synapse_that_only_one_sum_feels_exists() -> None:
    g, (v,) = graph((5,))
    spread = add(g, "reshape", v, shape=(5, 1))
    gate = add(
        g, "sigmoid", add(g, "mul", g.constant(np.eye(5) + 1), add(g, "sub", spread, g.constant(np.eye(5))))
    )
    g.add_output(add(g, "sum", add(g, "mul", gate, g.constant(np.eye(5))), axis=0, keepdims=False))
    g.add_output(add(g, "sum", gate, axis=0, keepdims=False))  # every weight is 1
    new = cleanup(fuse_synapses(fold(g)))
    assert ops_of(new) == ["synapse"]
    assert_same(evaluate(new, inputs_for(g)), evaluate(g, inputs_for(g)))


def test_synapses_in_bodies_are_found() -> None:
    g, (x,) = graph((7,))
    inner, (v,) = body((7,))
    num, den = written_out_synapse(inner, v)
    inner.add_output(add(inner, "sub", num, den))
    g.add_output(scan(g, inner, [x], 1, 6)[0])
    new = run_pipeline(g)
    assert ops_of(new) == ["scan", "synapse", "sub"]
    assert_same(evaluate(new, inputs_for(g)), evaluate(g, inputs_for(g)))


def test_a_wish_for_fp32_stays_with_the_synapse() -> None:
    g, (v,) = graph((5,))
    g.add_output(written_out_synapse(g, v)[0])
    for node in g.nodes:
        if node.op == "sigmoid":
            node.precision = Precision.FP32
    (synapse,) = [n for n in run_pipeline(g).nodes if n.op == "synapse"]
    assert synapse.precision is Precision.FP32
    assert {v.type.precision for v in synapse.operands[1:]} == {Precision.FP32}


@pytest.mark.parametrize("spoil", ["gate", "varying sigma", "keepdims", "other axis"])
def test_what_only_looks_like_a_synapse_stays(spoil: str) -> None:
    g, (v, sigma) = graph((5,), (5, 5))
    slope = sigma if spoil == "varying sigma" else g.constant(np.full((5, 5), 2.0) + np.eye(5))
    spread = add(g, "reshape", v, shape=(1, 5) if spoil == "other axis" else (5, 1))
    inside = add(g, "mul", slope, add(g, "sub", spread, g.constant(np.eye(5))))
    gate = add(g, "tanh" if spoil == "gate" else "sigmoid", inside)
    product = add(g, "mul", gate, g.constant(np.eye(5) + 1))
    g.add_output(add(g, "sum", product, axis=0, keepdims=spoil == "keepdims"))
    assert "synapse" not in ops_of(run_pipeline(g))


def written_out_update(g: Graph, x: Sequence[Value], swap: int = 0, spoil: str = "") -> Value:
    """v + (h * (N - D * v)) / (cm + h * D) of v, num, den, leak, conductance, cm, h; bits of `swap` turn operands."""
    v, num, den, leak, conductance, cm, h = x

    def turned(op: str, a: Value, b: Value, bit: int) -> Value:
        return add(g, op, *((b, a) if swap >> bit & 1 else (a, b)), source=HERE)

    n, d = turned("add", leak, num, 0), turned("add", conductance, den, 1)
    decay = turned("mul", d, num if spoil == "state" else v, 2)
    difference = add(g, "sub", *((decay, n) if spoil == "order" else (n, decay)))
    drive = turned("mul", h, difference, 3)
    inertia = turned("add", cm, turned("mul", leak if spoil == "elapsed" else h, d, 4), 5)
    quotient = add(g, "div", drive, inertia)
    if spoil == "wish":
        g.nodes[-1].precision = Precision.BF16
    return turned("add", v, quotient, 6)


@pytest.mark.parametrize("swap", [0, 1, 2, 4, 8, 16, 32, 64, 127])
def test_a_written_out_update_becomes_one_op_with_the_same_bits(swap: int) -> None:
    g, x = graph((2, 5), (2, 5), (5,), (2, 5), (5,), (1,), (2, 1))
    g.add_output(written_out_update(g, x, swap))
    new = run_pipeline(g)
    assert ops_of(new) == ["ltc_update"]
    assert new.nodes[0].source == HERE
    values = [np.abs(a).astype(np.float32) + np.float32(0.25) for a in inputs_for(g)]
    plain, fused = (
        Program(best_schedule([Job("g", form, (0,))], Config.tiny_c1b8()).image)
        for form in (run_pipeline(g, optimize=False), new)
    )
    assert "ltc_update" in fused.disassemble()
    assert "ltc_update" not in plain.disassemble()
    np.testing.assert_array_equal(plain.to_vm().run(*values), fused.to_vm().run(*values))


def test_an_update_without_constant_terms_is_one_too() -> None:
    g, (v, n, d, cm, h) = graph((5,), (5,), (5,), (5,), (5,))
    drive = add(g, "mul", h, add(g, "sub", n, add(g, "mul", d, v)))
    g.add_output(add(g, "add", v, add(g, "div", drive, add(g, "add", cm, add(g, "mul", h, d)))))
    new = run_pipeline(g)
    assert ops_of(new) == ["ltc_update"]
    assert_same(evaluate(new, inputs_for(g)), evaluate(g, inputs_for(g)))


@pytest.mark.parametrize("spoil", ["state", "order", "elapsed", "wish"])
def test_what_only_looks_like_an_update_stays(spoil: str) -> None:
    g, x = graph(*[(5,)] * 7)
    g.add_output(written_out_update(g, x, spoil=spoil))
    assert "ltc_update" not in ops_of(run_pipeline(g))


@pytest.mark.parametrize(("op", "second"), [("add", 0.0), ("sub", 0.0), ("mul", 1.0), ("div", 1.0)])
def test_an_operand_that_changes_nothing_goes(op: str, second: float) -> None:
    g, (x, y) = graph((3, 5), (1, 5))
    g.add_output(add(g, "neg", add(g, op, x, g.constant(np.full((5,), second)))))
    assert ops_of(cleanup(fold(g))) == ["neg"]
    g.add_output(
        add(g, "neg", add(g, op, y, g.constant(np.full((3, 5), second))))
    )  # it makes the result larger
    g.add_output(add(g, "neg", add(g, op, x, g.constant(np.arange(5.0)))))
    assert ops_of(cleanup(fold(g))).count(op) == 2
    if op in ("sub", "div"):
        g.add_output(add(g, op, g.constant(second), x))
        assert ops_of(cleanup(fold(g))).count(op) == 3


def linears(g: Graph, x: Value, *rows: int) -> list[Value]:
    rng = np.random.default_rng(4)
    return [
        add(g, "linear", x, g.constant(rng.normal(size=(m, x.shape[-1]))), g.constant(rng.normal(size=m)))
        for m in rows
    ]


@pytest.mark.parametrize(
    ("rows", "count"), [((64, 64), 1), ((64, 20), 1), ((20, 64, 30, 128), 2), ((20, 20), 2)]
)
def test_linears_of_one_input_are_merged_on_block_boundaries(rows: tuple[int, ...], count: int) -> None:
    g, (x,) = graph((3, 10))
    for value in linears(g, x, *rows):
        g.add_output(value)
    new = cleanup(merge_linears(g))
    assert Counter(ops_of(new))["linear"] == count
    assert all(n.attrs["start"] % 64 == 0 for n in new.nodes if n.op == "slice")
    for a, b in zip(evaluate(new, inputs_for(g)), evaluate(g, inputs_for(g)), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-12)


def test_linears_of_different_precision_stay_apart() -> None:
    g, (x,) = graph((3, 10))
    for value in linears(g, x, 64, 64):
        g.add_output(value)
    next(n for n in g.nodes if n.op == "linear").precision = Precision.FP32
    assert Counter(ops_of(merge_linears(g)))["linear"] == 2


# ---------------------------------------------------------------- precision


def precisions(g: Graph, op: str) -> list[str]:
    """Of every `op`: the operands' precisions, and the result's."""
    return [
        ",".join(v.type.precision.value for v in n.operands) + " -> " + n.results[0].type.precision.value
        for n in g.walk()
        if n.op == op
    ]


def test_the_default_policy() -> None:
    g, (x,) = graph((3, 4))
    y = add(g, "sigmoid", linears(g, x, 4)[0])
    z = add(g, "reshape", add(g, "exp", y), shape=(12,))
    g.add_output(add(g, "mul", add(g, "reshape", y, shape=(12,)), z))
    new = assign_precision(g)
    assert precisions(new, "linear") == ["f32,bf16,f32 -> f32"]
    assert precisions(new, "sigmoid") == ["f32 -> bf16"]
    assert precisions(new, "exp") == ["bf16 -> f32"]
    assert sorted(precisions(new, "reshape")) == ["bf16 -> bf16", "f32 -> f32"]
    assert precisions(new, "mul") == ["bf16,f32 -> f32"]


def test_a_constant_that_is_weight_and_operand_is_stored_twice() -> None:
    g, (x,) = graph((3, 4))
    w = g.constant(np.eye(4))
    y = add(g, "linear", x, w, g.constant(np.zeros(4)))
    g.add_output(add(g, "add", add(g, "sum", y, axis=0, keepdims=True), w))
    new = assign_precision(g)
    assert precisions(new, "linear") == ["f32,bf16,f32 -> f32"]
    assert precisions(new, "add") == ["f32,f32 -> f32"]


def test_wishes_override_the_policy() -> None:
    g, (x,) = graph((3, 4))
    for wish in (Precision.FP32, Precision.FP8_E4M3):
        g.add_output(linears(g, x, 4)[0])
        g.nodes[-1].precision = wish
    for op, wish in (("tanh", Precision.FP32), ("add", Precision.BF16)):
        g.add_output(add(g, op, *[x] * (2 if op == "add" else 1)))
        g.nodes[-1].precision = wish
    new = assign_precision(g)
    assert precisions(new, "linear") == ["f32,f32,f32 -> f32", "f32,f8e4m3,f32 -> f32"]
    assert precisions(new, "tanh") == ["f32 -> f32"]
    assert precisions(new, "add") == ["f32,f32 -> bf16"]


def test_fp8_is_refused_where_nothing_stores_it() -> None:
    g, (x,) = graph((3, 4))
    g.add_output(add(g, "tanh", x, name="y", source=HERE))
    g.nodes[-1].precision = Precision.FP8_E4M3
    with pytest.raises(GraphError, match=r"%y = tanh is wanted in FP8") as error:
        assign_precision(g)
    assert "model.py:12" in error.value.where


def test_bodies_follow_the_policy_and_carries_are_fp32() -> None:
    g, (x,) = graph((5, 8))
    for value in leaky(g, add(g, "tanh", x), 8):
        g.add_output(value)
    new = assign_precision(g)
    (loop,) = [n for n in new.nodes if n.op == "scan"]
    assert [v.type.precision.value for v in loop.operands] == ["f32", "bf16"]
    assert [v.type.precision.value for v in loop.body.inputs] == ["f32", "bf16"]
    assert [v.type.precision.value for v in loop.results] == ["f32", "bf16"]
    verify(new)
