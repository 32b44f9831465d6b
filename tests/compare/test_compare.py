"""Comparisons: probes change no bit and read the right values, figures are right, losses and remedies are found."""

from __future__ import annotations

import csv
import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from generators import random_graph, random_inputs
from hypothesis import given, settings
from hypothesis import strategies as st
from nnir_cases import HERE, body, graph, leaky, scan

from ltc_compiler.compare import COLUMNS, ULP_BINS, Comparison
from ltc_compiler.compare.comparison import _check_bits
from ltc_compiler.compare.inputs import expectations
from ltc_compiler.compare.measure import errors, measure, rms
from ltc_compiler.compare.probe import probe, read_values
from ltc_compiler.compare.runs import run_exact, run_machine, schedule, schedule_probes, widened
from ltc_compiler.config import Config
from ltc_compiler.errors import AllocationError, ConfigError, InputError, LtcError
from ltc_compiler.ir.graph import Graph, Precision, Value
from ltc_compiler.ir.ops import add
from ltc_compiler.ir.run import evaluate
from ltc_compiler.nnir import NNIR
from ltc_compiler.transforms.pipeline import run_pipeline
from ltc_compiler.transforms.streaming.transform import streaming_transform

CONFIG = Config.tiny_c2b8()
RNG = np.random.default_rng(0)
SEEDS = st.integers(0, 2**32 - 1)


def recurrence(steps: int = 6) -> NNIR:
    """h = tanh(0.5 h - x) over the steps; every h, and the last."""
    g, (x,) = graph((steps, 8))
    final, every = leaky(g, add(g, "neg", x, source=HERE), 8)
    g.add_output(every, "hidden")
    g.add_output(final, "state")
    return NNIR(g)


def nested() -> NNIR:
    """Three iterations of a scan, each with two iterations of another around it: v = tanh(v + w), then w = v."""
    inner, (v, w) = body((8,), (8,))
    inner.add_output(add(inner, "tanh", add(inner, "add", v, w)))
    outer, (a, b) = body((8,), (8,))
    (last,) = scan(outer, inner, [a, b], 1, 2)
    outer.add_output(last)
    outer.add_output(a)  # the old value: carries change places
    g, (x, y) = graph((8,), (8,))
    for result in scan(g, outer, [x, y], 2, 3):
        g.add_output(result)
    return NNIR(g)


def linear_then(op: str) -> NNIR:
    g, (x,) = graph((1, 16))
    weight = g.constant(np.random.default_rng(1).normal(size=(16, 16)) / 4)
    hidden = add(g, "linear", x, weight, g.constant(np.zeros(16)), source=HERE)
    g.add_output(add(g, op, hidden, source=HERE), "y")
    return NNIR(g)


def row_of(result: Comparison, op: str) -> dict[str, Any]:
    (row,) = [row for row in result.rows if row["op"] == op]
    return row


# --- probes -------------------------------------------------------------------------------------------------------


def check_probes(g: Graph, inputs: list[Any], steps: int) -> None:
    """The outputs keep their bits, and the values that a probed fp64 run hands out are those of the graph."""
    passed = run_pipeline(g)
    arrays = [x.astype(np.float32) for x in inputs]
    probed = probe(passed, 64)
    program = schedule_probes(probed.graph, CONFIG)
    for accurate in (True, False):
        plain = run_machine(schedule(passed, CONFIG, True), arrays, steps, accurate)
        found = run_machine(program, arrays, steps, accurate)
        assert [a.tobytes() for a in plain] == [a.tobytes() for a in found[: len(plain)]]
    exact = run_exact(probed.graph, arrays, steps)
    values = read_values(passed, probed, exact, steps)
    for value, array in zip(passed.outputs, exact, strict=False):
        np.testing.assert_array_equal(values[value], array)
    assert all(v in values for node in passed.nodes for v in node.results)


@given(SEEDS)
@settings(max_examples=25, deadline=None)
def test_probes_change_no_bit(seed: int) -> None:
    rng = np.random.default_rng(seed)
    g = random_graph(rng)
    check_probes(g, [x[None] for x in random_inputs(rng, g)], 1)


@given(SEEDS)
@settings(max_examples=15, deadline=None)
def test_probes_of_steps_change_no_bit(seed: int) -> None:
    rng = np.random.default_rng(seed)
    g = random_graph(rng, streamable=True)
    inputs = random_inputs(rng, g)
    check_probes(streaming_transform(g, 0), inputs, len(inputs[0]))


def test_values_inside_nested_scans() -> None:
    passed = run_pipeline(nested().graph)
    x, y = RNG.normal(size=(2, 1, 8)).astype(np.float32)
    probed = probe(passed, 6)
    values = read_values(passed, probed, run_exact(probed.graph, [x, y], 1), 1)
    tanh = next(v for v in probed.values if v.node is not None and v.node.op == "tanh")
    a, b = x[0].astype(np.float64), y[0].astype(np.float64)
    expected = []
    for _ in range(3):
        v = a
        for _ in range(2):
            v = np.tanh(v + b)
            expected.append(v)
        a, b = v, a
    np.testing.assert_allclose(values[tanh], expected, rtol=1e-14)
    check_probes(nested().graph, [x, y], 1)


def test_long_scans_are_not_opened() -> None:
    scans = [n for n in nested().graph.walk() if n.op == "scan"]
    assert [len(probe(nested().graph, count).inside) for count in (2, 3, 5, 6)] == [0, 1, 1, len(scans)]
    result = nested().compare(CONFIG, *RNG.normal(size=(2, 8)), iterations=3)
    assert len(result.unopened) == 1
    assert "not looked into, too many iterations" in str(result)
    assert not any(row["op"] == "tanh" for row in result.rows)


def test_a_probe_that_changed_a_bit_is_refused() -> None:
    zero = [np.zeros(3, np.float32)]
    _check_bits(zero, [np.zeros(3, np.float32), np.ones(1, np.float32)])
    with pytest.raises(LtcError, match="output 0 changes"):
        _check_bits(zero, [-np.zeros(3, np.float32)])


def test_every_comparison_checks_its_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    def other(g: Graph, config: Config) -> Any:
        return schedule_probes(widened(g, next(n for n in g.nodes if n.op == "tanh")), config)

    monkeypatch.setattr("ltc_compiler.compare.comparison.schedule_probes", other)
    with pytest.raises(LtcError, match="output 0 changes"):
        linear_then("tanh").compare(CONFIG, RNG.normal(size=(1, 16)))


def test_iterations_of_several_steps_keep_their_operands() -> None:
    """An fp32 sum of a carry, what the body captures and what it scans, exact but for its rounding per iteration."""
    inner, (carry, row, whole) = body((8,), (8,), (8,))
    inner.add_output(add(inner, "tanh", add(inner, "add", carry, add(inner, "add", row, whole))))
    g, (x, rows) = graph((8,), (3, 8))
    start = add(g, "exp", x)
    (last,) = scan(g, inner, [start, rows, add(g, "neg", x)], 1, 3, (0,))
    g.add_output(last)
    result = NNIR(g).compare(CONFIG, RNG.normal(size=(4, 8)), RNG.normal(size=(4, 3, 8)))
    sums = [row for row in result.rows if row["op"] == "add"]
    assert [row["elements"] for row in sums] == [4 * 3 * 8] * 2
    assert all(0 < row["own"] < 1e-7 for row in sums)


# --- figures ------------------------------------------------------------------------------------------------------


def test_figures_of_known_errors() -> None:
    exact = np.array([1.0, 1.0, 1.5, -4.0, 0.0, 1e39, 1e-41, 2.0])
    ulp = 2.0**-7  # of bf16, from 1 to 2
    machine = np.array([1.0, 1 + ulp / 2, 1.5 - ulp, -4 - 4 * 5 * ulp, 0.0, np.inf, 0.0, np.nan])
    found = measure(machine, exact)
    assert found.bf16_ulps == (2, 2, 1, 0, 0, 1, 0, 2)  # 1e-41 is less than half an ulp of 2^-126
    assert (found.saturated, found.flushed, found.nans) == (1, 1, 1)
    assert found.max == found.rms == np.inf
    assert measure(machine[:4], exact[:4]).max == 20 * ulp
    assert measure(machine[:4], exact[:4]).fp32_ulps == (1, 0, 0, 0, 0, 0, 0, 3)
    np.testing.assert_allclose(measure(np.array([3.0, 4.5]), np.array([3.0, 4.0])).relative, 0.1)
    assert len(found.fp32_ulps) == len(ULP_BINS) + 1


def test_the_same_infinity_or_nan_is_no_error() -> None:
    special = np.array([np.inf, -np.inf, np.nan])
    assert errors(special, special).tolist() == [0, 0, 0]
    assert errors(-special, special).tolist() == [np.inf, np.inf, 0]
    assert measure(special, special).relative == 0


def test_rms_neither_overflows_nor_underflows() -> None:
    for scale in (1e300, 1.0, 1e-300):
        np.testing.assert_allclose(rms(np.array([3.0, 4.0]) * scale), 12.5**0.5 * scale)
    assert rms(np.zeros(2)) == 0


def test_lost_values_are_counted() -> None:
    g, (x,) = graph((3,))
    e = add(g, "exp", x)
    g.add_output(add(g, "sub", e, add(g, "exp", add(g, "mul", x, g.constant(1.0)))))
    g.add_output(e)
    result = NNIR(g).compare(CONFIG, np.array([100.0, -100.0, 0.0]))
    first = next(row for row in result.rows if row["op"] == "exp")
    assert (first["saturated"], first["flushed"], first["nans"]) == (1, 1, 0)
    assert row_of(result, "sub")["nans"] == 1  # inf - inf, exactly 0
    assert "1 inf, 1 flushed" in str(result)
    assert "1 NaN" in result._repr_html_()


# --- rows ---------------------------------------------------------------------------------------------------------


def test_errors_are_those_of_the_machine() -> None:
    nnir, x = linear_then("tanh"), RNG.normal(size=(1, 16)).astype(np.float32)
    result = nnir.compare(CONFIG, x, what_if=0)
    program = nnir.to_program(CONFIG)
    error = np.abs(program.to_vm().run(x) - nnir.run(x))
    row = row_of(result, "tanh")
    assert row["max_error"] == error.max() == result.max_error == result.outputs[0]["max_error"]
    np.testing.assert_allclose(row["rms_error"], (error**2).mean() ** 0.5)
    assert row["fp32_max_error"] == np.abs(program.to_vm(bit_accurate=False).run(x) - nnir.run(x)).max()
    assert (row["file"], row["line"], row["text"]) == ("model.py", 12, "y = self.f(x)")
    assert [r["op"] for r in result.rows] == ["input", "linear", "tanh"]
    assert all(list(r) == list(COLUMNS) for r in result.rows)
    assert result.cycles == program.cycle_count_per_inference()


def test_own_is_what_the_operation_adds() -> None:
    """The table look-up rounds to bf16 once, whatever error comes in; negation adds nothing."""
    for op, low, high in (("tanh", 2**-11, 2**-8), ("neg", 0, 0)):
        result = linear_then(op).compare(CONFIG, RNG.normal(size=(1, 16)))
        assert low <= row_of(result, op)["own"] <= high
        assert row_of(result, op)["relative"] > 2**-12


def test_the_first_loss_is_a_rounding_to_bf16() -> None:
    loss = linear_then("tanh").compare(CONFIG, RNG.normal(size=(1, 16))).first_loss
    assert loss is not None
    assert loss["op"] == "linear"
    assert loss["precision"] == "bf16"


def test_the_first_loss_is_a_cancellation() -> None:
    g, (x,) = graph((8,))
    big = add(g, "add", x, g.constant(1000.0), source=HERE)
    g.add_output(add(g, "sub", add(g, "exp", x), add(g, "sub", big, g.constant(1000.0), source=HERE)))
    result = NNIR(g).compare(CONFIG, RNG.normal(size=8))
    loss = result.first_loss
    assert loss is not None
    assert (loss["op"], loss["own"]) == ("sub", 0)
    assert loss["growth"] > 100
    assert "precision is first lost in sub  model.py:12  y = self.f(x)" in str(result)
    assert not any(row["bf16_ulps"][-1] for row in result.rows)


def test_fp32_mathematics_loses_nothing() -> None:
    g, (x,) = graph((8,))
    g.add_output(add(g, "exp", add(g, "mul", x, g.constant(0.3))))
    result = NNIR(g).compare(CONFIG, RNG.normal(size=8))
    assert result.first_loss is None
    assert "no operation loses precision" in str(result)
    assert all(row["what_if_max_error"] is None for row in result.rows)


def test_a_loss_in_a_loop_is_found_in_the_body() -> None:
    result = recurrence().compare(CONFIG, RNG.normal(size=(6, 8)))
    loss = result.first_loss
    assert loss is not None
    assert (loss["op"], loss["iterations"], loss["elements"]) == ("tanh", 6, 48)
    assert not any(row["loses"] for row in result.rows if row["op"] == "scan")


def test_what_reaches_the_outputs() -> None:
    """Where one operation alone loses precision, its own errors make up that of the outputs, also through a loop."""
    result = linear_then("neg").compare(CONFIG, RNG.normal(size=(1, 16)))
    np.testing.assert_allclose(row_of(result, "linear")["reaches_outputs"], result.relative, rtol=1e-6)
    assert row_of(result, "neg")["reaches_outputs"] is None
    step, _ = recurrence().streaming_transform(0)
    x = RNG.normal(size=(6, 8))
    for nnir in (recurrence(), step):
        result = nnir.compare(CONFIG, x)
        np.testing.assert_allclose(row_of(result, "tanh")["reaches_outputs"], result.relative, rtol=0.02)


# --- what if ------------------------------------------------------------------------------------------------------


def in_fp32(op: str) -> Any:
    nnir = linear_then("tanh")
    (node,) = [n for n in nnir.graph.nodes if n.op == op]
    node.precision = Precision.FP32
    return nnir.to_program(CONFIG)


def test_what_one_operation_in_fp32_gains_and_costs() -> None:
    nnir, x = linear_then("tanh"), RNG.normal(size=(1, 16)).astype(np.float32)
    result = nnir.compare(CONFIG, x)
    for op in ("linear", "tanh"):
        row, program = row_of(result, op), in_fp32(op)
        assert row["what_if_max_error"] == np.abs(program.to_vm().run(x) - nnir.run(x)).max()
        assert row["what_if_cycles"] == program.cycle_count_per_inference() - result.cycles
    assert row_of(result, "input")["what_if_max_error"] is None
    assert re.search(r"the outputs gain most from (linear|tanh)  model.py:12", str(result))


def test_what_if_reaches_into_bodies() -> None:
    result = recurrence().compare(CONFIG, RNG.normal(size=(6, 8)))
    row = row_of(result, "tanh")
    assert row["what_if_max_error"] < 1e-6 < 1e-4 < result.max_error
    assert row["what_if_cycles"] > 0


def test_only_the_worst_are_tried() -> None:
    result = linear_then("tanh").compare(CONFIG, RNG.normal(size=(1, 16)), what_if=1)
    tried = [row for row in result.rows if row["what_if_max_error"] is not None]
    assert [row["reaches_outputs"] for row in tried] == [
        max(row["reaches_outputs"] or 0 for row in result.rows)
    ]


def test_a_machine_without_fp32_products_says_so() -> None:
    config = Config.from_dict({**CONFIG.to_dict(), "fp32_matmul": False})
    row = row_of(linear_then("tanh").compare(config, RNG.normal(size=(1, 16))), "linear")
    assert row["what_if_max_error"] is None
    assert "fp32" in row["what_if_refused"].lower()


# --- steps and expected outputs -----------------------------------------------------------------------------------


def test_steps_carry_their_states() -> None:
    whole, x = recurrence(), RNG.normal(size=(6, 8)).astype(np.float32)
    step, _ = whole.streaming_transform(0)
    hidden = whole.run(x)[0]
    for steps in (x, list(x), [row.tolist() for row in x]):
        result = step.compare(CONFIG, steps, expected=(hidden, hidden[-1]))
        assert result.steps == 6
        assert row_of(result, "tanh")["elements"] == 48
        outputs = step.to_program(CONFIG).to_vm().run_timesteps(x)
        assert result.outputs[0]["max_error"] == np.abs(outputs[0] - hidden).max()
        assert result.outputs[0]["reference_max_error"] < 1e-7
        assert abs(result.outputs[1]["expected_max_error"] - np.abs(outputs[1][-1] - hidden[-1]).max()) < 1e-7


def test_a_late_output_is_compared_when_it_comes() -> None:
    g, (x,) = graph((6, 4))
    g.add_output(add(g, "slice", x, axis=0, start=2, stop=6, step=1))
    step, _ = NNIR(g).streaming_transform(0)
    late = (step.graph.output_latencies or (0,))[0]
    values = np.arange(24.0).reshape(6, 4)
    ((steps, found),) = expectations(step.graph, values[: 6 - late], 6)
    assert steps == slice(late, 6)
    np.testing.assert_array_equal(found, values[: 6 - late])
    (all_steps,) = expectations(step.graph, values, 6)
    np.testing.assert_array_equal(all_steps[1], found)


def test_an_input_without_time_axis_is_the_same_at_every_step() -> None:
    g, (x, y) = graph((4,), (4,))
    g.add_output(add(g, "mul", x, y))
    assert NNIR(g).compare(CONFIG, np.ones((3, 4)), np.ones(4)).steps == 3
    assert NNIR(g).compare(CONFIG, np.ones(4), np.ones(4)).steps == 1


BAD: list[tuple[tuple[Any, ...], dict[str, Any], str]] = [
    ((), {}, "0 inputs are given, expected 2"),
    ((np.ones(5), np.ones(4)), {}, r"x0 has shape \(5,\), expected \(4,\) or \(steps, 4\)"),
    ((np.ones((3, 4)), np.ones((2, 4))), {}, "the inputs have different numbers of steps: x0 3, x1 2"),
    ((np.ones((0, 4)), np.ones(4)), {}, "x0 has shape"),
    (([np.ones(4), np.ones(3)], np.ones(4)), {}, "the steps of x0 have the shapes"),
    (("four", np.ones(4)), {}, "x0 is a str"),
    ((np.ones(4), np.ones(4)), {"iterations": -1}, "iterations is -1"),
    ((np.ones(4), np.ones(4)), {"what_if": 1.5}, "what_if is 1.5"),
    ((np.ones(4), np.ones(4)), {"factor": 1}, "factor is 1"),
    (
        (np.ones(4), np.ones(4)),
        {"expected": (np.ones(4), np.ones(4))},
        "2 outputs are expected, the graph has 1",
    ),
    ((np.ones(4), np.ones(4)), {"expected": np.ones(3)}, "y0 has shape"),
    ((np.ones((2, 4)), np.ones(4)), {"expected": np.ones((3, 4))}, "y0 is expected for 3 steps"),
]


@pytest.mark.parametrize(("inputs", "options", "what"), BAD)
def test_bad_arguments_are_refused(inputs: tuple[Any, ...], options: dict[str, Any], what: str) -> None:
    g, (x, y) = graph((4,), (4,))
    g.add_output(add(g, "mul", x, y))
    with pytest.raises(InputError, match=what):
        NNIR(g).compare(CONFIG, *inputs, **options)


def test_a_configuration_is_asked_for() -> None:
    with pytest.raises(ConfigError, match="not a Config"):
        recurrence().compare(np.ones((6, 8)))  # type: ignore[arg-type]


def test_no_room_for_all_values() -> None:
    value: Value
    g, (value,) = graph((64, 8))
    for _ in range(1100):
        value = add(g, "neg", add(g, "exp", value))
    g.add_output(value)
    with pytest.raises(AllocationError, match="with every value as an output"):
        schedule_probes(probe(g, 64).graph, CONFIG)


# --- forms --------------------------------------------------------------------------------------------------------


@pytest.fixture
def result() -> Comparison:
    return linear_then("tanh").compare(CONFIG, np.random.default_rng(3).normal(size=(1, 16)))


def test_text_has_a_line_for_every_row(result: Comparison) -> None:
    text = str(result)
    for row in result.rows:
        assert re.search(
            rf"^>? *{row['op']} .*{re.escape(format(row['max_error'], '.1e'))}", text, re.MULTILINE
        )
    assert f"{result.cycles} cycles an inference" in text
    assert "█" in text


def test_a_long_comparison_shows_the_worst() -> None:
    g, (x,) = graph((4,))
    for _ in range(70):
        x = add(g, "add", add(g, "neg", x), g.constant(RNG.normal(size=4)))
    g.add_output(add(g, "tanh", x))
    text = str(NNIR(g).compare(CONFIG, np.ones(4), what_if=0))
    assert re.search(r"\.\.\. and \d+ with smaller errors of their own in \.rows", text)
    assert re.search("^> *tanh", text, re.MULTILINE)


def test_csv_and_data_frame_hold_the_rows(result: Comparison, tmp_path: Path) -> None:
    result.to_csv(tmp_path / "rows.csv")
    with (tmp_path / "rows.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["op"] for row in rows] == ["input", "linear", "tanh"]
    assert [float(row["max_error"]) for row in rows] == [row["max_error"] for row in result.rows]
    assert sum(map(int, rows[2]["bf16_ulps"].split())) == 16
    pytest.importorskip("pandas")
    frame = result.to_dataframe()
    assert list(frame.columns) == list(COLUMNS)
    assert frame["relative"].tolist() == [row["relative"] for row in result.rows]


def test_html_escapes_the_source() -> None:
    g, (x,) = graph((4,))
    g.add_output(add(g, "tanh", x, source=type(HERE)("net", "m.py", 1, "x < <b>y</b>")))
    html = NNIR(g).compare(CONFIG, np.ones(4) / 3)._repr_html_()
    assert "&lt;b&gt;" in html
    assert "<b>" not in html
    assert html.count('<tr class="loses">') == 1


def test_plot_draws_every_row(result: Comparison) -> None:
    matplotlib = pytest.importorskip("matplotlib")
    matplotlib.use("agg")
    import matplotlib.pyplot as plt

    _, ax = plt.subplots()
    assert result.plot(ax) is ax
    labels = [label.get_text() for label in ax.get_yticklabels()]
    assert labels == ["input x0", "linear model.py:12", "tanh model.py:12"]
    assert ax.get_xscale() == "log"
    plt.close("all")


@pytest.mark.parametrize(("module", "method"), [("pandas", "to_dataframe"), ("matplotlib.pyplot", "plot")])
def test_a_missing_package_is_named(
    result: Comparison, module: str, method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(LtcError, match=f"needs {module.split('.')[0]}, which is not installed"):
        getattr(result, method)()


# --- from PyTorch -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["ltc", "cfc_wired", "lstm_two_layers", "gated_ltc_rk4", "causal_attention"])
def test_a_model_from_pytorch(name: str) -> None:
    from ltc_torch.fx import prepare_shape
    from ltc_torch.fx.nnir import to_nnir
    from zoo import SMALL, build, context

    model, inputs = build(SMALL[name])
    traced, expected = prepare_shape(model, *inputs)
    axes = SMALL[name].streaming
    assert axes is not None
    graph = to_nnir(traced, context=context(SMALL[name], inputs)).graph
    step = NNIR(streaming_transform(graph, axes))
    result = step.compare(CONFIG, *inputs, expected=expected, what_if=1, optimize=False)
    assert all(row["reference_max_error"] < 1e-5 < row["expected_max_error"] < 0.1 for row in result.outputs)
    loss = result.first_loss
    assert loss is not None
    assert loss["op"] in ("linear", "synapse")
    assert loss["file"].endswith(".py")
    assert loss["text"]


@pytest.mark.parametrize("streaming", [None, 1])
def test_a_module_is_compared_in_one_call(streaming: int | None) -> None:
    """As a user does it: with the values that PyTorch itself returned at the ends of the chain."""
    import torch
    from ncps.torch import LTC
    from ncps.wirings import AutoNCP

    import ltc_torch

    torch.manual_seed(0)
    model, x = LTC(5, AutoNCP(12, 3), batch_first=True).eval(), torch.randn(1, 7, 5)
    result = ltc_torch.compare(model, x, config=CONFIG, streaming=streaming, what_if=1, optimize=False)
    y, state = result.outputs
    with torch.no_grad():
        returned = model(x)[0].numpy()
    assert y["reference_max_error"] < 1e-5 < y["expected_max_error"] < 0.1 * np.abs(returned).max()
    assert state["expected_max_error"] < 0.1
    assert result.steps == (1 if streaming is None else 7)
    synapses = [row for row in result.rows if row["op"] == "synapse"]
    assert synapses
    assert all("ltc_torch.compare(model, x" in row["text"] for row in synapses), "the user's line, not ours"
    assert result.first_loss is not None
    assert str(result.first_loss["line"]) in str(result)


def test_evaluation_of_the_copy_means_the_same() -> None:
    passed = run_pipeline(recurrence().graph)
    x = RNG.normal(size=(6, 8))
    for a, b in zip(evaluate(passed, [x]), evaluate(probe(passed, 64).graph, [x]), strict=False):
        np.testing.assert_array_equal(a, b)
