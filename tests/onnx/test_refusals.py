"""What from_onnx and to_onnx refuse: unsupported nodes all at once, missing shapes, broken and hostile files."""

from __future__ import annotations

import resource
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper, parser, save
from onnx_cases import Case, Const, ints, model_of
from onnx_operators import recurrent

from ltc_compiler.errors import FileError, InputError, LtcError, ModelFileError, UnsupportedError
from ltc_compiler.frontend.compose import FOLD_LIMIT
from ltc_compiler.nnir import NNIR
from ltc_compiler.onnx import InputShapes

HEAD = '<ir_version: 10, opset_import: ["" : 20]>\n'


def write(text: str, folder: Path, head: str = HEAD) -> Path:
    path = folder / "model.onnx"
    save(parser.parse_model(head + text), path)
    return path


def test_everything_unsupported_is_reported_at_once(tmp_path: Path) -> None:
    path = write("""
main (float[2,3] x) => (float[2,3] y, float[2,3] z) {
  a = NonZero (x)
  y = Add (a, x)
  q = QuantizeLinear (x, x)
  z = Exp (q)
}
""", tmp_path)  # fmt: skip
    with pytest.raises(UnsupportedError) as caught:
        NNIR.from_onnx(path)
    assert [e.node for e in caught.value.entries] == ["NonZero a", "QuantizeLinear q"]
    message = str(caught.value)
    assert message.startswith("2 operations cannot be lowered")
    assert "where: q  QuantizeLinear(x, x) in model.onnx" in message
    assert "remedy: export it before quantisation" in message


REFUSED = [
    (Case("Conv", [(1, 2, 5), (3, 2, 3)]), "W is computed from an input"),
    (Case("MaxPool", [(1, 2, 5)], {"kernel_shape": [2]}, outputs=2), "the positions of a maximum"),
    (Case("Dropout", [(3,), Const(0.5), Const(True, bool)]), "draws random numbers"),
    (Case("Cast", [(3,)], {"to": 7}), "conversion to INT64"),
    (Case("Slice", [(3,), ints(2), ints(2)]), "no elements"),
    (Case("Einsum", [(3, 3)], {"equation": "ii->i"}), "einsum 'ii->i'"),
    (
        Case("BatchNormalization", [(2, 3), *[Const(np.ones(3))] * 4], {"training_mode": 1}, outputs=3),
        "statistics",
    ),
    (recurrent("RNN", attrs={"activations": ["Affine"]}), "Affine without activation_alpha"),
    (recurrent("GRU", attrs={"activations": ["Mish", "Tanh"]}), "activations"),
    (
        Case("ScatterND", [(4, 3), Const([[1], [1]], np.int64), (2, 3)], {"reduction": "add"}),
        "several updates",
    ),
    (Case("GatherND", [(4, 3), Const([[4]], np.int64)]), "out of range"),
    (
        Case("QuantizeLinear", [(3,), Const(0.1), Const(1, np.uint8)]),
        "quantised(.|\n)*export it before quantisation",
    ),
    (Case("DequantizeLinear", [(3,), Const(0.1)]), "quantised"),
    (
        Case("Resize", [(1, 1, 4), None, Const([1.0, 1.0, 2.0])], {"mode": "linear", "antialias": 1}),
        "antialiasing",
    ),
    (Case("Resize", [(1, 1, 4), None, None, ints(1, 1, 1 << 30)]), "sizes of"),
    (Case("OneHot", [(3,), Const(float(1 << 20)), Const([0.0, 1.0])]), "a depth of 1048576"),
    (Case("NonZero", [(3,)]), "depends on the data"),
    (recurrent("LSTM", attrs={"activations": ["Sigmoid"]}), "activations"),
    (Case("TopK", [(3,), ints(2)], outputs=2), "sorting depends on the data"),
    (Case("RandomNormalLike", [(3,)]), "there is no converter for this operator"),
    (Case("Pad", [(2,), ints(1 << 40, 0)]), "elements"),
    (Case("Tile", [Const(np.ones(1 << 10)), ints(1 << 30)]), "a constant of"),
    (Case("ConstantOfShape", [ints(1 << 20, 1 << 20)]), "a constant of"),
]


@pytest.mark.parametrize(("case", "message"), REFUSED, ids=lambda x: x.id if isinstance(x, Case) else "")
def test_a_setting_is_refused(case: Case, message: str, tmp_path: Path) -> None:
    save(model_of(case)[0], tmp_path / "model.onnx")
    with pytest.raises(UnsupportedError, match=message) as caught:
        NNIR.from_onnx(tmp_path / "model.onnx")
    assert all(e.where.endswith("in model.onnx") for e in caught.value.entries)


def test_a_computed_condition_between_shapes_is_refused(tmp_path: Path) -> None:
    path = write("""
main (float[3] x, bool c) => (float[n] y) {
  y = If (c) <then_branch = a () => (float[3] p) { p = Neg (x) },
    else_branch = b () => (float[6] q) { q = Concat <axis = 0> (x, x) }>
}
""", tmp_path)  # fmt: skip
    with pytest.raises(
        UnsupportedError, match=r"shapes \(3,\) and \(6,\)(.|\n)*If\(c\)(.|\n)*branches of one shape"
    ):
        NNIR.from_onnx(path)


def test_sequence_lengths_shorter_than_the_sequence_are_refused(tmp_path: Path) -> None:
    case = recurrent("GRU")
    operands = [*case.operands, *[None] * (4 - len(case.operands)), Const([5, 3], np.int32)]
    save(model_of(replace(case, operands=operands))[0], tmp_path / "model.onnx")
    with pytest.raises(UnsupportedError, match="sequence_lens shorter than the sequence"):
        NNIR.from_onnx(tmp_path / "model.onnx")


def test_a_random_constant_is_refused(tmp_path: Path) -> None:
    path = write(
        "main (float[3] x) => (float[3] y) { r = RandomNormal <shape = [3]> () y = Add (x, r) }", tmp_path
    )
    with pytest.raises(UnsupportedError, match="RandomNormal r: there is no converter"):
        NNIR.from_onnx(path)


def test_shapes_that_do_not_fit_are_refused_at_their_node(tmp_path: Path) -> None:
    path = write("main (float[3] x, float[4] z) => (float[3] y) { y = Add (x, z) }", tmp_path)
    with pytest.raises(UnsupportedError, match=r"Add y: add: shapes \(3,\) and \(4,\) do not broadcast"):
        NNIR.from_onnx(path)


def test_operators_of_other_domains_are_refused(tmp_path: Path) -> None:
    head = '<ir_version: 10, opset_import: ["" : 20, "com.microsoft" : 1]>\n'
    text = "main (float[3] x) => (float[3] y) { y = com.microsoft.QuickGelu (x) }"
    with pytest.raises(UnsupportedError, match=r"QuickGelu of 'com\.microsoft' is not one of ONNX"):
        NNIR.from_onnx(write(text, tmp_path, head))


# ---------------------------------------------------------------- shapes

DYNAMIC = "main (float[N,T,3] x, float[N,2] z) => (float[N,2] y) { y = Neg (z) u = Neg (x) }"


def test_shapes_by_name_and_by_order(tmp_path: Path) -> None:
    path = write(DYNAMIC, tmp_path)
    assert NNIR.from_onnx(path, {"x": (4, 7, 3)}).input_shapes == [(4, 7, 3), (4, 2)]  # N follows
    assert NNIR.from_onnx(path, [(4, 7, 3), (4, 2)]).input_shapes == [(4, 7, 3), (4, 2)]


@pytest.mark.parametrize(
    ("shapes", "message"),
    [
        (None, r"not fixed: x \(axis 0: N, axis 1: T\); z \(axis 0: N\)"),
        ({"z": (4, 2)}, r"not fixed: x \(axis 1: T\)"),
        ({"x": (4, 7, 5)}, r"input_shapes gives \(4, 7, 5\) and the model has \['N', 'T', 3\]"),
        ({"x": (4, 7)}, "input_shapes gives"),
        ({"x": (0, 7, 3)}, "input_shapes gives"),
        ({"w": (1,)}, "names w, which are no inputs"),
        ([(4, 7, 3)], "1 input_shapes are given for 2 inputs"),
        ([(4, 7, 3), (5, 2)], "axis 'N' is 5 here and 4 in another input"),
        ({"x": (1 << 20, 1 << 20, 3)}, "expected 1 to"),
    ],
)
def test_shapes_that_are_missing_or_wrong(shapes: InputShapes | None, message: str, tmp_path: Path) -> None:
    path = write(DYNAMIC, tmp_path)
    with pytest.raises(InputError, match=message):
        NNIR.from_onnx(path, shapes)


def test_inputs_of_whole_numbers_are_refused(tmp_path: Path) -> None:
    path = write("main (int64[3] x) => (int64[3] y) { y = Neg (x) }", tmp_path)
    with pytest.raises(InputError, match="has the type INT64"):
        NNIR.from_onnx(path)


# ---------------------------------------------------------------- inputs that are made constants

RATES = """
main (float[4] x, int64{shape} sr) => (float[4] y) {{
  rate = Constant <value = int64 {{16000}}> ()
  one = ReduceMax <keepdims = 0> (sr)
  same = Equal (one, rate)
  y = If (same) <
    then_branch = a () => (float[4] p) {{ p = Neg (x) }}, else_branch = b () => (float[4] q) {{ q = Exp (x) }}>
}}
"""


@pytest.mark.parametrize("shape", ["", "[1]", "[N]"])
def test_an_input_of_whole_numbers_is_fixed_to_a_value(shape: str, tmp_path: Path) -> None:
    path = write(RATES.format(shape=shape), tmp_path)
    with pytest.raises(InputError, match=r"has the type INT64(.|\n)*constants={'sr': value}"):
        NNIR.from_onnx(path)
    for rate in (16000, np.int32(8000)):
        x = np.linspace(-1, 1, 4)
        nnir = NNIR.from_onnx(path, constants={"sr": rate})
        assert [v.name for v in nnir.graph.inputs] == ["x"]
        np.testing.assert_array_equal(nnir.run(x), -x if rate == 16000 else np.exp(x))


def test_a_default_is_replaced_and_an_axis_follows_a_constant(tmp_path: Path) -> None:
    model = parser.parse_model(HEAD + "main (float[N] x, float[N] k) => (float[N] y) { y = Mul (x, k) }")
    model.graph.initializer.append(helper.make_tensor("k", TensorProto.FLOAT, [2], [3.0, 4.0]))
    save(model, tmp_path / "model.onnx")
    x = np.array([1.0, 2.0, 3.0])
    with pytest.raises(InputError, match=r"not fixed: x \(axis 0: N\)"):
        NNIR.from_onnx(tmp_path / "model.onnx")
    nnir = NNIR.from_onnx(tmp_path / "model.onnx", constants={"k": [1.0, 0.5, 2.0]})
    np.testing.assert_array_equal(nnir.run(x), [1, 1, 6])


@pytest.mark.parametrize(
    ("constants", "message"),
    [
        ({"rate": 16000}, "constants names rate, which are no inputs(.|\n)*the inputs are x, sr"),
        ({"sr": 16000.5}, "constants gives 16000.5, expected values of the type INT64"),
        ({"sr": "16000"}, "expected values of the type INT64"),
        ({"sr": 1 << 70}, "expected values of the type INT64"),
        ({"sr": [16000, 8000]}, r"constants gives the shape \(2,\) and the model has \[1\]"),
        ({"sr": [[16000]]}, r"constants gives the shape \(1, 1\) and the model has \[1\]"),
    ],
)
def test_a_constant_that_does_not_fit(constants: dict[str, Any], message: str, tmp_path: Path) -> None:
    path = write(RATES.format(shape="[1]"), tmp_path)
    with pytest.raises(InputError, match=message):
        NNIR.from_onnx(path, constants=constants)


# ---------------------------------------------------------------- files


@pytest.mark.parametrize("data", [b"", b"\x00" * 64, b"not a model", b"\x08\x0a\x12\xff\xff\xff\xff\x0f"])
def test_a_file_that_is_no_model(data: bytes, tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(data)
    with pytest.raises(ModelFileError, match="no valid ONNX model") as caught:
        NNIR.from_onnx(path)
    assert caught.value.__suppress_context__


def tensor_file(folder: Path, **fields: Any) -> Path:
    """x * w, with w as an initializer of these fields."""
    model = parser.parse_model(HEAD + "main (float[3] x) => (float[3] y) { y = Mul (x, w) }")
    tensor = TensorProto(name="w", data_type=TensorProto.FLOAT, **fields)
    if fields.get("data_location"):
        entry = tensor.external_data.add()
        entry.key, entry.value = "location", "w.bin"
    model.graph.initializer.append(tensor)
    path = folder / "model.onnx"
    path.write_bytes(model.SerializeToString())
    return path


def test_weights_in_a_file_of_their_own(tmp_path: Path) -> None:
    path = tensor_file(tmp_path, dims=[3], data_location=TensorProto.EXTERNAL)
    with pytest.raises(ModelFileError, match=r"w\.bin"):
        NNIR.from_onnx(path)
    (tmp_path / "w.bin").write_bytes(np.arange(2, dtype=np.float32).tobytes())
    with pytest.raises(ModelFileError, match="no valid ONNX model"):
        NNIR.from_onnx(path)
    (tmp_path / "w.bin").write_bytes(np.arange(3, dtype=np.float32).tobytes())
    np.testing.assert_array_equal(NNIR.from_onnx(path).run(np.full(3, 2.0)), [0, 2, 4])
    path.write_bytes(path.read_bytes().replace(b"w.bin", b"../wb"))
    with pytest.raises(ModelFileError, match="outside"):
        NNIR.from_onnx(path)


def test_a_size_without_data_takes_no_memory(tmp_path: Path) -> None:
    for fields in (
        {"dims": [1 << 40]},
        {"dims": [1 << 40], "raw_data": bytes(12)},
        {"dims": [-3], "raw_data": bytes(12)},
    ):
        with pytest.raises(ModelFileError):
            NNIR.from_onnx(tensor_file(tmp_path, **fields))


SPENDERS = {
    "held": ["big{i} = ConstantOfShape (size)", "big{last}"],
    "computed": ["big{next} = Sin (big{i})", "big{last}"],
    "values": ["big{i} = ConstantOfShape (size)\n y{i} = Mul (x, big{i})", "y{last}"],
    "indices": ["big{next} = Transpose (big{i})\n y{i} = Mul (x, big{i})", "y{last}"],
}


def spender(kind: str) -> str:
    line, last = SPENDERS[kind]
    lines = [line.format(i=i, next=i + 1) for i in range(40)]
    return f"""
main (float[1] x) => (float[n] y) {{
  size = Constant <value = int64[1] {{{FOLD_LIMIT}}}> ()
  big0 = ConstantOfShape (size)
  {chr(10).join(lines[1:] if "{i} = Con" in line else lines)}
  y = Identity ({last.format(last=39)})
}}
"""


def test_constants_are_bounded_in_sum(tmp_path: Path) -> None:
    """A kilobyte asks for 40 constants of 64 MiB: refused before a gigabyte is taken."""
    paths = []
    for kind in SPENDERS:
        (tmp_path / kind).mkdir()
        paths.append(str(write(spender(kind), tmp_path / kind)))
    code = f"""
import resource, sys
from ltc_compiler.errors import UnsupportedError
from ltc_compiler.nnir import NNIR
import ltc_compiler.onnx.importer, onnx.reference
held = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for path in {paths!r}:
    try:
        NNIR.from_onnx(path)
        sys.exit(path)
    except UnsupportedError as error:
        assert "larger, in all" in str(error), error
sys.exit(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - held > 1 << 20)
"""
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


WIDE = {
    "split": "q = SplitToSequence (wide) y = SequenceAt (q, zero)",
    "slice": "minus = Constant <value = int64[1] {-1}> () low = Constant <value = int64[1] {-2000000000}> () "
             "axis = Constant <value = int64[1] {0}> () y = Slice (wide, minus, low, axis, minus)",
    "gather": "y = GatherElements (wide, index)",
    "largest": "n = ArgMax (wide) y = Cast <to = 1> (n)",
    "scatter": "y = ScatterElements (wide, index, x)",
    "split by number": "y, z = Split <num_outputs = 1073741824> (wide)",
    "reverse": "one = Constant <value = int64[1] {1}> () two = Unsqueeze (wide, one) y = ReverseSequence (two, one)",
}  # fmt: skip


@pytest.mark.parametrize("kind", WIDE)
def test_a_wide_value_is_refused_before_its_positions_are_listed(kind: str, tmp_path: Path) -> None:
    """Of 2^29 elements, which are no memory yet; a list of their positions would be 4 GiB."""
    path = write(f"""
main (float[1] x) => (float[n] y) {{
  size = Constant <value = int64[1] {{{1 << 29}}}> ()
  zero = Constant <value = int64 {{0}}> () index = Constant <value = int64[1] {{0}}> ()
  wide = Expand (x, size)
  {WIDE[kind]}
}}
""", tmp_path)  # fmt: skip
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(UnsupportedError, match=r"runs|larger than|sizes"):
        NNIR.from_onnx(path)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 1 << 18


def test_a_weight_that_many_nodes_share_is_held_once(tmp_path: Path) -> None:
    """A thousand steps with one weight of 64 KiB: as one constant, under Gemm, MatMul and Mul alike."""
    steps = "\n".join(
        f"a{i} = Gemm <transB = 1> (h{i}, w)\n b{i} = MatMul (a{i}, w)\n h{i + 1} = Mul (b{i}, k)"
        for i in range(300)
    )
    weights = f"w = Constant <value = float[128,128] {{{', '.join(['0.01'] * (1 << 14))}}}> ()"
    scales = f"k = Constant <value = float[1,128] {{{', '.join(['0.5'] * 128)}}}> ()"
    path = write(f"main (float[1,128] h0) => (float[1,128] h300) {{ {weights} {scales} {steps} }}", tmp_path)
    nnir = NNIR.from_onnx(path)
    arrays = [n.attrs["value"] for n in nnir.graph.nodes if n.op == "constant"]
    assert sum(a.size >= 1 << 14 for a in arrays) <= 2


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ModelFileError, match="cannot be read"):
        NNIR.from_onnx(tmp_path / "model.onnx")


def test_an_old_opset(tmp_path: Path) -> None:
    text = "main (float[3] x) => (float[3] y) { y = Neg (x) }"
    path = write(text, tmp_path, '<ir_version: 3, opset_import: ["" : 6]>\n')
    with pytest.raises(ModelFileError, match="uses opset 6, expected 7 to"):
        NNIR.from_onnx(path)


def test_a_folder_cannot_be_written(tmp_path: Path) -> None:
    nnir = NNIR.from_onnx(write("main (float[3] x) => (float[3] y) { y = Neg (x) }", tmp_path))
    with pytest.raises(FileError, match="cannot be written"):
        nnir.to_onnx(tmp_path)


def test_without_the_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(ModelFileError, match=r"onnx is not installed(.|\n)*ltc-compiler\[onnx\]"):
        NNIR.from_onnx(tmp_path / "model.onnx")


def test_broken_files_raise_errors_of_ours_alone(tmp_path: Path) -> None:
    """Bytes of a good file are changed or cut off: it is read, or refused with a typed error."""
    save(model_of(recurrent("LSTM", starts=True))[0], tmp_path / "good.onnx")
    good = (tmp_path / "good.onnx").read_bytes()
    path = tmp_path / "model.onnx"
    rng = np.random.default_rng(0)
    outcomes = set()
    for k in range(300):
        data = bytearray(good[: int(rng.integers(1, len(good)))] if k % 3 == 0 else good)
        for _ in range(int(rng.integers(1, 4))):
            data[int(rng.integers(len(data)))] = int(rng.integers(256))
        path.write_bytes(bytes(data))
        try:
            NNIR.from_onnx(path)
            outcomes.add("read")
        except LtcError as error:
            outcomes.add(type(error).__name__)
    assert {"ModelFileError", "UnsupportedError"} <= outcomes
