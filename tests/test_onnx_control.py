"""Structured ONNX models: Scan, Loop, If, the model's own functions, and the layouts of recurrent operators."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper, parser, save
from onnx_cases import check_model, model_of, run_nnir
from test_onnx_operators import recurrent

from ltc_compiler.errors import ModelFileError, UnsupportedError
from ltc_compiler.nnir import NNIR

RNG = np.random.default_rng(3)
HEAD = '<ir_version: 10, opset_import: ["" : 20, "own" : 1]>\n'


def given_for(model: Any) -> dict[str, Any]:
    shapes = {i.name: [d.dim_value for d in i.type.tensor_type.shape.dim] for i in model.graph.input}
    return {name: RNG.uniform(-1, 1, shape).astype(np.float32) for name, shape in shapes.items()}


def check(text: str, folder: Path) -> NNIR:
    model = parser.parse_model(HEAD + text)
    return check_model(model, given_for(model), folder)


SCAN = """
main (float[1,3] h0, float[{x}] x, float[3] k) => (float[1,3] h, float[{y}] y) {{
  h, y = Scan <num_scan_inputs = 1, {attrs} body = step (float[1,3] c, float[1,3] x_t)
    => (float[1,3] c_next, float[1,3] out) {{
      half = Constant <value_float = 0.5> ()
      fading = Mul (c, half)
      scaled = Mul (x_t, k)
      sum = Add (fading, scaled)
      c_next = Tanh (sum)
      out = Identity (c_next)
  }}> (h0, x)
}}
"""


@pytest.mark.parametrize(
    ("x", "y", "attrs"),
    [
        ("5,1,3", "5,1,3", ""),
        ("5,1,3", "5,1,3", "scan_input_directions = [1],"),
        ("5,1,3", "5,1,3", "scan_input_directions = [1], scan_output_directions = [1],"),
        ("1,5,3", "1,5,3", "scan_input_axes = [1], scan_output_axes = [1],"),
        ("1,3,5", "1,5,3", "scan_input_axes = [-1], scan_output_axes = [-2],"),
    ],
)
def test_scan_is_a_scan(x: str, y: str, attrs: str, tmp_path: Path) -> None:
    nnir = check(SCAN.format(x=x, y=y, attrs=attrs), tmp_path)
    scan = next(n for n in nnir.graph.nodes if n.op == "scan")
    assert (scan.attrs["carries"], scan.attrs["scanned"], len(scan.operands)) == (1, 1, 3)  # k is captured


def test_scans_lie_in_scans(tmp_path: Path) -> None:
    nnir = check("""
main (float[3] h0, float[4,3] x, float[2,3] z) => (float[3] h, float[4,3] y) {
  h, y = Scan <num_scan_inputs = 1, body = outer (float[3] c, float[3] x_t) => (float[3] c_out, float[3] out) {
      c_in = Scan <num_scan_inputs = 1, body = inner (float[3] d, float[3] z_t) => (float[3] d_out) {
          a = Add (d, z_t)
          b = Mul (a, x_t)
          d_out = Sigmoid (b)
      }> (c, z)
      c_out = Identity (c_in)
      out = Neg (c_in)
  }> (h0, x)
}
""", tmp_path)  # fmt: skip
    assert [n.op for n in nnir.graph.walk()].count("scan") == 2


LOOP = """
main (float[3] h0, float[3] k) => (float[3] h, float[6,3] y) {{
  count = Constant <value_int = 6> ()
  go = Constant <value = bool {{1}}> ()
  h, y = Loop <body = step (int64 i, bool on, float[3] c) => (bool still, float[3] c_out, float[3] out) {{
      still = Identity (on)
      a = Mul (c, k)
      {line}
      out = Identity (c_out)
  }}> (count, go, h0)
}}
"""


def test_a_loop_of_constant_length_is_a_scan(tmp_path: Path) -> None:
    nnir = check(LOOP.format(line="c_out = Tanh (a)"), tmp_path)
    assert [n.attrs["trip_count"] for n in nnir.graph.nodes if n.op == "scan"] == [6]


def test_a_loop_that_reads_its_counter_is_refused(tmp_path: Path) -> None:
    text = LOOP.format(line="f = Cast <to = 1> (i)\n c_out = Mul (a, f)")
    save(parser.parse_model(HEAD + text), tmp_path / "model.onnx")
    with pytest.raises(UnsupportedError, match="reads the iteration number of a loop"):
        NNIR.from_onnx(tmp_path / "model.onnx")


def test_if_with_a_constant_condition_is_its_branch(tmp_path: Path) -> None:
    nnir = check("""
main (float[2,3] x) => (float[2,3] y) {
  shape = Shape (x)
  index = Constant <value_int = 0> ()
  rows = Gather (shape, index)
  two = Constant <value_int = 2> ()
  is_two = Equal (rows, two)
  y = If <then_branch = yes () => (float[2,3] a) { a = Exp (x) }, else_branch = no () => (float[2,3] b) { b = Erf (x) }>
    (is_two)
}
""", tmp_path)  # fmt: skip
    assert [n.op for n in nnir.graph.nodes] == ["exp"]


def test_functions_of_the_model_are_called(tmp_path: Path) -> None:
    nnir = check("""
main (float[2,3] x) => (float[2,3] y) {
  a = own.twice <alpha = 0.5> (x)
  y = own.twice <alpha = 0.25> (a)
}
<domain: "own", opset_import: ["" : 20, "own" : 1]>
twice <alpha> (x) => (y) { t = own.once <alpha: float = @alpha> (x) y = own.once <alpha: float = @alpha> (t) }
<domain: "own", opset_import: ["" : 20]>
once <alpha> (x) => (y) { n = LeakyRelu <alpha: float = @alpha> (x) y = Neg (n) }
""", tmp_path)  # fmt: skip
    assert [n.op for n in nnir.graph.nodes if n.op != "constant"].count("neg") == 4


def test_functions_that_call_themselves_are_refused(tmp_path: Path) -> None:
    body = [helper.make_node("again", ["x"], ["y"], domain="own")]
    function = helper.make_function("own", "again", ["x"], ["y"], body, [helper.make_opsetid("own", 1)])
    info = [helper.make_tensor_value_info(n, TensorProto.FLOAT, [2]) for n in ("x", "y")]
    graph = helper.make_graph(body, "main", info[:1], info[1:])
    opsets = [helper.make_opsetid("", 20), helper.make_opsetid("own", 1)]
    save(
        helper.make_model(graph, functions=[function], opset_imports=opsets, ir_version=10),
        tmp_path / "m.onnx",
    )
    with pytest.raises(ModelFileError, match="Cycle"):
        NNIR.from_onnx(tmp_path / "m.onnx")


def test_functions_that_grow_without_bounds_are_refused(tmp_path: Path) -> None:
    """Each of 30 functions calls the next one twice: a billion nodes."""
    names = [f"f{k}" for k in range(30)]
    opsets = [helper.make_opsetid("", 20), helper.make_opsetid("own", 1)]
    functions = [
        helper.make_function("own", a, ["x"], ["y"], [
            helper.make_node(b, ["x"], ["t"], domain="own"), helper.make_node(b, ["t"], ["y"], domain="own"),
        ], opsets)
        for a, b in pairwise(names)
    ]  # fmt: skip
    functions.append(
        helper.make_function("own", names[-1], ["x"], ["y"], [helper.make_node("Neg", ["x"], ["y"])], opsets)
    )
    info = [helper.make_tensor_value_info(n, TensorProto.FLOAT, [2]) for n in ("x", "y")]
    graph = helper.make_graph(
        [helper.make_node("f0", ["x"], ["y"], domain="own")], "main", info[:1], info[1:]
    )
    save(
        helper.make_model(graph, functions=functions, opset_imports=opsets, ir_version=10),
        tmp_path / "m.onnx",
    )
    with pytest.raises(UnsupportedError, match="more than 100000 nodes"):
        NNIR.from_onnx(tmp_path / "m.onnx")


@pytest.mark.parametrize("op", ["LSTM", "GRU", "RNN"])
@pytest.mark.parametrize("direction", ["forward", "bidirectional"])
def test_batch_first_is_time_first_transposed(op: str, direction: str, tmp_path: Path) -> None:
    """onnxruntime does not run layout 1, so it is compared with layout 0."""
    case = recurrent(op, starts=True, attrs={"direction": direction})
    model, given = model_of(case)
    nnir = check_model(model, given, tmp_path)
    expected = run_nnir(nnir, given)
    node = model.graph.node[0]
    node.attribute.append(helper.make_attribute("layout", 1))
    swapped = {k: v.swapaxes(0, 1) for k, v in given.items()}
    for info in model.graph.input:
        for dim, size in zip(info.type.tensor_type.shape.dim, swapped[info.name].shape, strict=True):
            dim.dim_value = size
    for info in model.graph.output:
        info.type.tensor_type.ClearField("shape")
        info.type.tensor_type.shape.dim.add().dim_param = "any"
    save(model, tmp_path / "layout.onnx")
    found = run_nnir(NNIR.from_onnx(tmp_path / "layout.onnx"), swapped)
    np.testing.assert_allclose(found[0].transpose(1, 2, 0, 3), expected[0])
    for a, b in zip(found[1:], expected[1:], strict=True):
        np.testing.assert_allclose(a.swapaxes(0, 1), b)


def test_the_error_function_inside_of_gelu_is_taken(tmp_path: Path) -> None:
    """The three orders in which exporters write x * (1 + erf(x / sqrt 2)) / 2."""
    start = "main (float[9] x) => (float[9] y) { root = Constant <value_float = 1.4142135> () "
    start += "one = Constant <value_float = 1.0> () half = Constant <value_float = 0.5> () "
    start += "d = Div (x, root) e = Erf (d) p = Add (e, one) "
    for end in (
        "m = Mul (x, p) y = Mul (m, half) }",
        "h = Mul (x, half) y = Mul (h, p) }",
        "h = Mul (p, half) y = Mul (x, h) }",
    ):
        nnir = check(start + end, tmp_path)
        assert "gelu" in [n.op for n in nnir.graph.nodes]
