"""Structured ONNX models: Scan, Loop, If, the model's own functions, and the layouts of recurrent operators."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper, parser, save
from onnx_cases import check_model, model_of, run_nnir
from onnx_operators import recurrent

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


@pytest.mark.parametrize("line", [
    "f = Cast <to = 1> (i)\n c_out = Mul (a, f)",
    "one = Unsqueeze (i, zero)\n f = Cast <to = 1> (one)\n c_out = Sub (a, f)",
    "j = Identity (i)\n row = Gather <axis = 1> (table, j)\n c_out = Add (a, row)",
    "one = Unsqueeze (i, zero)\n row = Gather (x, one)\n flat = Squeeze (row, zero)\n c_out = Sub (a, flat)",
])  # fmt: skip
def test_an_iteration_number_is_scanned(line: str, tmp_path: Path) -> None:
    """As a float, and where it takes a row of the outside: the loop stays one scan, and streams."""
    head = f"main (float[3] h0, float[3] k, float[8,3] x) => (float[3] h, float[6,3] y) {{ {ZERO} {TABLE}"
    text = LOOP.format(line=line).replace(
        "main (float[3] h0, float[3] k) => (float[3] h, float[6,3] y) {", head
    )
    nnir = check(text, tmp_path)
    assert [n.attrs["trip_count"] for n in nnir.graph.nodes if n.op == "scan"] == [6]


ZERO = "zero = Constant <value = int64[1] {0}> ()"
TABLE = "table = Constant <value = float[3,6] {1,2,3,4,5,6,7,8,9,8,7,6,5,4,3,2,1,0}> ()"
WRITTEN_OUT = {
    "a number of its own": ("float[3] y", """
  count = Constant <value_int = 4> ()
  i0 = Constant <value_int = 3> ()
  one = Constant <value_int = 1> ()
  y, last = Loop <body = step (int64 i, bool on, float[3] c, int64 k) => (bool still, float[3] c_out, int64 k_out) {
      still = Identity (on)
      row = Gather (x, k)
      both = Add (c, row)
      c_out = Tanh (both)
      k_out = Sub (k, one)
  }> (count, , h0, i0)
"""),
    "a computed position": ("float[3] y", """
  count = Constant <value_int = 3> ()
  two = Constant <value_int = 2> ()
  y = Loop <body = step (int64 i, bool on, float[3] c) => (bool still, float[3] c_out) {
      still = Identity (on)
      twice = Mul (i, two)
      row = Gather (x, twice)
      c_out = Mul (c, row)
  }> (count, , h0)
"""),
    "while": ("float[3] y", """
  go = Constant <value = bool {1}> ()
  i0 = Constant <value_int = 0> ()
  two = Constant <value_int = 2> ()
  five = Constant <value_int = 5> ()
  y, last = Loop <body = step (int64 i, bool on, float[3] c, int64 k) => (bool still, float[3] c_out, int64 k_out) {
      k_out = Add (k, two)
      still = Less (k_out, five)
      c_out = Sin (c)
  }> (, go, h0, i0)
""".replace("Sin", "Tanh")),
    "growing": ("float[a,3] y", """
  count = Constant <value_int = 3> ()
  start = Unsqueeze (h0, zero)
  y = Loop <body = step (int64 i, bool on, float[n,3] c) => (bool still, float[m,3] c_out) {
      still = Identity (on)
      half = Mul (c, k)
      c_out = Concat <axis = 0> (c, half)
  }> (count, , start)
"""),
    "stacked": ("int64[4] sizes, float[3] h, float[4,3] y", """
  count = Constant <value_int = 4> ()
  ten = Constant <value_int = 10> ()
  h, sizes, y = Loop <
    body = step (int64 i, bool on, float[3] c) => (bool still, float[3] c_out, int64 s, float[3] out) {
      still = Identity (on)
      s = Mul (i, ten)
      c_out = Mul (c, k)
      out = Exp (c_out)
  }> (count, , h0)
"""),
    "a branch for one iteration": ("float[3] y", """
  count = Constant <value_int = 4> ()
  one = Constant <value_int = 1> ()
  y = Loop <body = step (int64 i, bool on, float[3] c) => (bool still, float[3] c_out) {
      still = Identity (on)
      first = Less (i, one)
      c_out = If <
        then_branch = a () => (float[3] p) { p = Mul (c, k) }, else_branch = b () => (float[3] q) { q = Add (c, k) }>
        (first)
  }> (count, , h0)
"""),
    "a loop in a loop": ("float[3] y", """
  count = Constant <value_int = 3> ()
  y = Loop <body = outer (int64 i, bool on, float[3] c) => (bool still, float[3] c_out) {
      still = Identity (on)
      row = Gather (x, i)
      c_out = Loop <body = inner (int64 j, bool go, float[3] d) => (bool more, float[3] d_out) {
          more = Identity (go)
          f = Cast <to = 1> (i)
          e = Mul (d, k)
          r = Add (e, row)
          d_out = Sub (r, f)
      }> (count, , c)
  }> (count, , h0)
"""),
    "once": ("float[3] y", """
  count = Constant <value_int = 1> ()
  y = Loop <body = step (int64 i, bool on, float[3] c) => (bool still, float[3] c_out) {
      still = Identity (on)
      row = Gather (x, i)
      c_out = Mul (c, row)
  }> (count, , h0)
"""),
    "never": ("float[3] y", """
  count = Constant <value_int = 0> ()
  z = Loop <body = step (int64 i, bool on, float[3] c) => (bool still, float[3] c_out) {
      still = Identity (on)
      c_out = Mul (c, k)
  }> (count, , h0)
  y = Neg (z)
"""),
}  # fmt: skip


@pytest.mark.parametrize("kind", WRITTEN_OUT)
def test_a_loop_of_constants_is_written_out(kind: str, tmp_path: Path) -> None:
    outputs, lines = WRITTEN_OUT[kind]
    check(f"main (float[3] h0, float[3] k, float[8,3] x) => ({outputs}) {{ {ZERO} {lines} }}", tmp_path)


REFUSED_LOOPS = {
    "ends by the data": (
        "still = Greater (peak, one)\n c_out = Mul (c, k)",
        "a loop whose end depends on the data",
    ),
    "never ends": (
        "still = Identity (on)\n c_out = Mul (c, k)",
        "more than 500 nodes, its functions and loops",
    ),
    "computes nothing": ("still = Identity (on)\n c_out = Identity (c)", "more than 500 nodes"),
    "holds what is refused": (
        "still = Identity (on)\n c_out = Det (c)",
        "1 operation cannot be lowered\n  Det",
    ),
}


@pytest.mark.parametrize("kind", REFUSED_LOOPS)
def test_a_loop_is_refused(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ltc_compiler.onnx.importer.NODES_LIMIT", 500)
    line, message = REFUSED_LOOPS[kind]
    count = "count = Constant <value_int = 3> ()" if kind == "holds what is refused" else ""
    text = f"""
main (float[3] h0, float[3] k) => (float[3] y) {{
  go = Constant <value = bool {{1}}> () one = Constant <value_float = 1.0> () {count}
  y = Loop <body = step (int64 i, bool on, float[3] c) => (bool still, float[3] c_out) {{
      peak = ReduceMax <keepdims = 0> (c)
      {line}
  }}> ({"count" if count else ""}, go, h0)
}}
"""
    save(parser.parse_model(HEAD + text), tmp_path / "model.onnx")
    with pytest.raises(UnsupportedError, match=message):
        NNIR.from_onnx(tmp_path / "model.onnx")


def test_a_long_loop_that_becomes_no_scan_says_why(tmp_path: Path) -> None:
    line = "f = Cast <to = 1> (i)\n p = Mul (i, i)\n row = Gather (x, p)\n c_out = Mul (a, row)"
    text = (
        LOOP.format(line=line)
        .replace("value_int = 6", "value_int = 60000")
        .replace("float[3] k)", "float[3] k, float[9,3] x)")
    )
    save(parser.parse_model(HEAD + text), tmp_path / "model.onnx")
    with pytest.raises(
        UnsupportedError, match=r"no scan, as it computes with the iteration number(.|\n)*too many"
    ):
        NNIR.from_onnx(tmp_path / "model.onnx")


@pytest.mark.parametrize("value", [False, True])
def test_if_with_a_computed_condition_chooses(value: bool, tmp_path: Path) -> None:
    model = parser.parse_model(HEAD + """
main (float[2,3] x, bool c) => (float[2,3] y, float[2,3] z) {
  y, z = If (c) <
    then_branch = a () => (float[2,3] p, float[2,3] q) { p = Exp (x) q = Neg (p) },
    else_branch = b () => (float[2,3] r, float[2,3] s) {
      r = Tanh (x) s = Constant <value = float[2,3] {1,2,3,4,5,6}> () }>
}
""")  # fmt: skip
    given = {"x": RNG.uniform(-1, 1, (2, 3)).astype(np.float32), "c": np.asarray(value)}
    check_model(model, given, tmp_path)


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


SEQUENCES = {
    "collected by a loop": (
        "float[6,3] y",
        """
  count = Constant <value_int = 6> ()
  empty = SequenceEmpty <dtype = 1> ()
  h, all = Loop <
    body = step (int64 i, bool on, float[3] c, seq(float) s) => (bool still, float[3] c_out, seq(float) s_out) {
      still = Identity (on)
      row = Gather (x, i)
      m = Mul (c, row)
      c_out = Tanh (m)
      s_out = SequenceInsert (s, c_out)
  }> (count, , h0, empty)
  y = ConcatFromSequence <axis = 0, new_axis = 1> (all)
""",
    ),
    "begun before the loop": (
        "float[3,3] y, float[3] z",
        """
  count = Constant <value_int = 2> ()
  one = Constant <value_int = 1> ()
  begun = SequenceConstruct (h0)
  all = Loop <body = step (int64 i, bool on, seq(float) s) => (bool still, seq(float) s_out) {
      still = Identity (on)
      row = Gather (x, i)
      s_out = SequenceInsert (s, row)
  }> (count, , begun)
  y = ConcatFromSequence <axis = 0, new_axis = 1> (all)
  z = SequenceAt (all, one)
""",
    ),
    "split and taken": (
        "float[3] y, int64 n",
        """
  last = Constant <value_int = -1> ()
  two = Constant <value_int = 2> ()
  rows = SplitToSequence <axis = 0, keepdims = 0> (x)
  fewer = SequenceErase (rows, two)
  n = SequenceLength (fewer)
  a = SequenceAt (fewer, last)
  b = SequenceAt (fewer, two)
  y = Sub (a, b)
""",
    ),
    "of several sizes": (
        "float[8,3] y",
        """
  sizes = Constant <value = int64[3] {1, 5, 2}> ()
  one = Constant <value_int = 1> ()
  zero0 = Constant <value_int = 0> ()
  parts = SplitToSequence <axis = 0> (x, sizes)
  first = SequenceAt (parts, zero0)
  rest = SequenceErase (parts, zero0)
  again = SequenceInsert (rest, first, one)
  y = ConcatFromSequence <axis = 0> (again)
""",
    ),
    "made of two": (
        "float[2,3] y",
        """
  three = Constant <value_int = 3> ()
  both = SequenceConstruct (h0, k)
  y = ConcatFromSequence <axis = 0, new_axis = 1> (both)
""",
    ),
}


@pytest.mark.parametrize("kind", SEQUENCES)
def test_a_sequence_of_tensors_is_known(kind: str, tmp_path: Path) -> None:
    outputs, lines = SEQUENCES[kind]
    nnir = check(
        f"main (float[3] h0, float[3] k, float[8,3] x) => ({outputs}) {{ {ZERO} {lines} }}", tmp_path
    )
    assert [n.op for n in nnir.graph.nodes].count("scan") == (kind == "collected by a loop")


def test_a_sequence_as_an_output_is_refused(tmp_path: Path) -> None:
    text = "main (float[3] x) => (seq(float) y) { y = SequenceConstruct (x, x) }"
    save(parser.parse_model(HEAD + text), tmp_path / "model.onnx")
    with pytest.raises(UnsupportedError, match=r"a sequence of tensors(.|\n)*one output for each"):
        NNIR.from_onnx(tmp_path / "model.onnx")


def test_quotients_of_whole_numbers_are_refused(tmp_path: Path) -> None:
    """Positions are plain numbers here: what ONNX would cut off, in a body too, is no quotient."""
    head = "main (float[3,4] x) => (float[3] y) { two = Constant <value_int = 2> () "
    head += "n = ArgMax <axis = 1, keepdims = 0> (x)"
    for lines in (
        "m = Add (n, two) h = Div (m, two) y = Cast <to = 1> (h)",
        "count = Constant <value_int = 2> () z = Constant <value = float[3] {0, 0, 0}> () y = Loop <body = step "
        "(int64 i, bool on, float[3] c) => (bool still, float[3] d) { still = Identity (on) h = Div (n, two) "
        "f = Cast <to = 1> (h) d = Add (c, f) }> (count, , z)",
    ):
        save(parser.parse_model(HEAD + head + lines + "}"), tmp_path / "model.onnx")
        with pytest.raises(UnsupportedError, match=r"a quotient of whole numbers(.|\n)*Cast to float first"):
            NNIR.from_onnx(tmp_path / "model.onnx")
    good = head + "f = Cast <to = 1> (n) half = Constant <value_float = 0.5> () t = Cast <to = 7> (n)"
    check(good + "g = Cast <to = 1> (t) q = Div (g, half) y = Add (q, f) }", tmp_path)
