"""Whole models through ONNX: PyTorch's exports come in, streamed and compiled; every model of the zoo goes out."""

from __future__ import annotations

import logging
import subprocess
import sys
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from folders import DOCS
from onnx import checker, load, parser, save
from onnx_cases import assert_close, model_of, run_nnir, run_ort
from onnx_operators import recurrent
from torch import nn
from torch.utils import _pytree as pytree

from ltc_compiler.config import Config
from ltc_compiler.ir.graph import Array, Role
from ltc_compiler.ir.run import evaluate
from ltc_compiler.nnir import NNIR
from ltc_compiler.onnx import __main__ as command
from ltc_compiler.onnx.registry import operators_markdown
from ltc_compiler.program import Program
from ltc_compiler.transforms.pipeline import run_pipeline
from ltc_torch.fx import prepare_shape
from ltc_torch.fx.nnir import to_nnir
from zoo import SMALL, ZooModel, build, context


class Recurrent(nn.Module):
    """A recurrent layer, and what is made of its last step."""

    def __init__(self, kind: str, **kwargs: Any) -> None:
        super().__init__()
        self.layer = getattr(nn, kind)(5, 6, batch_first=True, **kwargs)
        self.out = nn.Linear(12 if kwargs.get("bidirectional") else 6, 2)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        y, _ = self.layer(x)
        return y, self.out(y[:, -1])


class Encoder(nn.Module):
    """Attention, norms, and a depthwise convolution over time."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True, dropout=0.0)
        self.conv = nn.Conv1d(8, 8, 3, padding=1, groups=8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.conv(self.encoder(x).transpose(1, 2)).mean(-1)


def dense() -> nn.Module:
    return nn.Sequential(
        nn.Linear(5, 7), nn.GELU(), nn.LayerNorm(7), nn.SiLU(), nn.Linear(7, 2), nn.Softmax(-1)
    )


OPTIONS: list[dict[str, Any]] = [{}, {"bidirectional": True}, {"num_layers": 2}, {"bias": False}]
TORCH: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "dense": (dense, (3, 5)),
    "encoder": (Encoder, (1, 6, 8)),
    **{
        f"{kind} {options}": (partial(Recurrent, kind, **options), (2, 9, 5))
        for kind in ("LSTM", "GRU", "RNN")
        for options in OPTIONS
    },
}


def export(model: nn.Module, inputs: tuple[Any, ...], path: Path, dynamo: bool) -> None:
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        version: dict[str, Any] = {"verbose": False} if dynamo else {"opset_version": 17}
        torch.onnx.export(model, inputs, path, dynamo=dynamo, **version)


@pytest.mark.parametrize("dynamo", [False, True], ids=["script", "dynamo"])
@pytest.mark.parametrize("name", TORCH)
def test_an_export_of_torch_is_taken(name: str, dynamo: bool, tmp_path: Path) -> None:
    make, shape = TORCH[name]
    torch.manual_seed(0)
    model, x = make().eval(), torch.randn(shape)
    export(model, (x,), tmp_path / "model.onnx", dynamo)
    nnir = NNIR.from_onnx(tmp_path / "model.onnx")
    given = {nnir.graph.inputs[0].name: x.numpy()}
    with torch.no_grad():
        expected = model(x)
    found = run_nnir(nnir, given)
    assert_close(found, [y.numpy() for y in (expected if isinstance(expected, tuple) else (expected,))])
    assert_close(found, run_ort(tmp_path / "model.onnx", given))


class Convolutions(nn.Module):
    """What exporters of older opsets write with attributes: pads, axes, bounds, shape arithmetic."""

    def __init__(self) -> None:
        super().__init__()
        layers = [
            nn.Conv2d(1, 4, 3, padding=1),
            nn.BatchNorm2d(4),
            nn.ReLU6(),
            nn.MaxPool2d(2),
            nn.Conv2d(4, 8, 3),
        ]
        self.features = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1))
        self.out = nn.Linear(8, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = nn.functional.pad(x, (1, 2, 0, 1))
        y = self.features(x)
        y = torch.log_softmax(self.out(y.view(y.size(0), -1)), 1).unsqueeze(0)
        return torch.cat(
            [y, x.clamp(-0.5, 0.5).mean((1, 2)).unsqueeze(0)[..., -3:], y.cumsum(-1) * y.size(1)], 2
        )


class Written(nn.Module):
    """A loop that TorchScript keeps, with a list of what it made."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(11, 6)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        h = torch.zeros(x.size(1), 6)
        out: list[torch.Tensor] = []
        for t in range(x.size(0)):
            h = torch.tanh(self.linear(torch.cat([x[t], h], 1)))
            out.append(h)
        return torch.stack(out), h


OLDER: dict[str, tuple[Callable[[], Any], tuple[int, ...], tuple[int, ...]]] = {
    "convolutions": (Convolutions, (2, 1, 9, 8), (11, 12, 14)),
    "LSTM": (partial(Recurrent, "LSTM", num_layers=2), (2, 9, 5), (9, 12, 14)),
    "GRU": (partial(Recurrent, "GRU", bidirectional=True), (2, 9, 5), (9, 13)),
    "a scripted loop": (lambda: torch.jit.script(Written()), (7, 2, 5), (11, 13, 17)),
}


@pytest.mark.parametrize(("name", "opset"), [(n, v) for n, (_, _, opsets) in OLDER.items() for v in opsets])
def test_an_export_of_an_older_opset_is_taken(name: str, opset: int, tmp_path: Path) -> None:
    make, shape, _ = OLDER[name]
    torch.manual_seed(0)
    model, x = make().eval(), torch.randn(shape)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(model, (x,), tmp_path / "model.onnx", dynamo=False, opset_version=opset)
    nnir = NNIR.from_onnx(tmp_path / "model.onnx")
    given = {nnir.graph.inputs[0].name: x.numpy()}
    assert_close(run_nnir(nnir, given), run_ort(tmp_path / "model.onnx", given))
    assert "scan" in {n.op for n in nnir.graph.nodes}
    if name == "a scripted loop":
        step, _ = nnir.streaming_transform(0)
        states = step.initial_states()
        rows = [step.run(x[t].numpy(), states=states)[0] for t in range(7)]
        np.testing.assert_allclose(np.stack(rows), run_nnir(nnir, given)[0])


# Models of the zoo that both exporters of torch take, and the streaming that comes with them: the rest unrolls time,
# or streams by a form of attention that ONNX does not have.
SCRIPTED = [
    "mlp", "mlp_sequence", "arithmetic", "activations", "reductions", "causal_convolutions",
    "padded_convolution", "causal_attention", "multihead_attention", "in_place", "tcn", "wavenet", "depthwise",
    "unpadded", "pooling", "running_sum", "difference", "windowed_attention", "transformer_encoder",
    "causal_heads", "state_space", "lstm_stack", "recurrent_state_lstm", "ode_euler", "ode_midpoint", "ode_rk4",
    "ode_module", "ode_one_time", "lstm", "lstm_two_layers", "lstm_bidirectional", "lstm_states",
    "lstm_unbatched", "gru", "gru_state", "rnn_tanh", "rnn_relu", "cell_loop", "gated_ltc_cell", "cfc_pure",
    "ltc_cell",
]  # fmt: skip
DYNAMO = [
    "layout", "norms", "strided_convolutions", "attention", "constants", "transformer_block", "lstm",
    "cell_loop",
]  # fmt: skip
EXPORTED = [*((n, False) for n in SCRIPTED), *((n, True) for n in DYNAMO)]
STREAMS = {
    "mlp_sequence", "causal_convolutions", "padded_convolution", "tcn", "wavenet", "depthwise", "unpadded",
    "pooling", "running_sum", "difference", "recurrent_state_lstm", "lstm", "lstm_two_layers", "lstm_unbatched",
    "gru", "rnn_tanh",
}  # fmt: skip


@pytest.mark.parametrize(
    ("name", "dynamo"), EXPORTED, ids=lambda x: x if isinstance(x, str) else "dynamo" if x else ""
)
def test_an_exported_model_runs_as_onnxruntime_does(name: str, dynamo: bool, tmp_path: Path) -> None:
    """In NNIR, and on the machine in plain fp32; step by step it is the same bits as at once."""
    case = SMALL[name]
    model, inputs = build(case)
    export(model, inputs, tmp_path / "model.onnx", dynamo)
    nnir = NNIR.from_onnx(tmp_path / "model.onnx")
    tensors = [x.numpy() for x in pytree.tree_leaves(inputs) if x is not None]
    given = dict(zip((v.name for v in nnir.graph.inputs), tensors, strict=True))
    expected = run_ort(tmp_path / "model.onnx", given)
    assert_close(run_nnir(nnir, given), expected)
    program = nnir.to_program(Config.v80_c6b32(), quick_compile=True)
    assert_close(as_list(program.to_vm(bit_accurate=False).run(*tensors)), expected)
    if name in STREAMS:
        assert case.streaming is not None
        step, _ = nnir.streaming_transform(case.streaming)
        whole = as_list(program.to_vm().run(*tensors))
        assert_steps_equal(step, tensors, case.streaming, whole)


def as_list(x: Any) -> list[Array]:
    return list(x) if isinstance(x, tuple) else [x]


def assert_steps_equal(
    step: NNIR, tensors: list[Array], axes: tuple[int | None, ...], whole: list[Array]
) -> None:
    """The machine's outputs step by step are those of the whole sequence, from when they come out."""
    vm = step.to_program(Config.v80_c6b32(), quick_compile=True).to_vm()
    steps = next(x.shape[a] for x, a in zip(tensors, axes, strict=True) if a is not None)
    rows = [
        as_list(vm.run(*(x if a is None else x.take(t, a) for x, a in zip(tensors, axes, strict=True))))
        for t in range(steps)
    ]
    dims, late = step.graph.output_streaming_dims, step.graph.output_latencies
    assert dims is not None
    assert late is not None
    for k, (axis, behind) in enumerate(zip(dims, late, strict=True)):
        if axis is None:
            np.testing.assert_array_equal(rows[-1][k], whole[k])
        else:
            found = np.stack([row[k] for row in rows[behind:]], axis)
            np.testing.assert_array_equal(found, whole[k].take(range(found.shape[axis]), axis))


def test_the_exporters_places_are_kept(tmp_path: Path) -> None:
    export(dense().eval(), (torch.randn(3, 5),), tmp_path / "model.onnx", dynamo=True)
    nodes = [n for n in NNIR.from_onnx(tmp_path / "model.onnx").graph.nodes if n.op == "linear"]
    assert all(n.source.file.endswith(".py") and n.source.line > 0 for n in nodes)


@pytest.mark.parametrize("op", ["LSTM", "GRU", "RNN"])
def test_a_recurrent_operator_streams_and_compiles(op: str, tmp_path: Path) -> None:
    """Whole and step by step: the machine's outputs are the same bits, near to onnxruntime's."""
    model, given = model_of(recurrent(op, time=12, batch=1))
    save(model, tmp_path / "model.onnx")
    nnir = NNIR.from_onnx(tmp_path / "model.onnx")
    assert [n.op for n in nnir.graph.nodes if n.op == "scan"] == ["scan"]
    expected = run_ort(tmp_path / "model.onnx", given)
    x = given["in0"]
    whole = nnir.to_program(Config.tiny_c2b8()).to_vm().run(x)
    step, axes = nnir.streaming_transform(0)
    assert axes == (0, *[None] * (len(expected) - 1))
    vm = step.to_program(Config.tiny_c2b8()).to_vm()
    rows = [vm.run(row) for row in x]
    np.testing.assert_array_equal(np.stack([r[0] for r in rows]), whole[0])
    np.testing.assert_allclose(whole[0], expected[0], atol=0.03)


@pytest.mark.parametrize("case", [pytest.param(c, id=n) for n, c in SMALL.items()])
def test_a_model_goes_out_and_comes_back(case: ZooModel, tmp_path: Path) -> None:
    """Before and after the passes of the compiler, which bring in synapses and scans without slices."""
    model, inputs = build(case)
    nnir = NNIR(to_nnir(prepare_shape(model, *inputs)[0]).graph)
    rng = np.random.default_rng(0)
    given = {v.name: rng.uniform(0.1, 1, v.shape).astype(np.float32) for v in nnir.graph.inputs}
    expected = run_nnir(nnir, given)
    for version in (nnir, NNIR(run_pipeline(nnir.graph))):
        version.to_onnx(tmp_path / "model.onnx")
        checker.check_model(tmp_path / "model.onnx", full_check=True)
        assert_close(run_ort(tmp_path / "model.onnx", given), expected)
        back = NNIR.from_onnx(tmp_path / "model.onnx")
        assert_close(run_nnir(back, given), expected)
        assert [v.role for v in back.graph.inputs] == [v.role for v in nnir.graph.inputs]


STREAMED = [c for c in SMALL.values() if c.streaming]


@pytest.mark.parametrize("case", [pytest.param(c, id=c.name) for c in STREAMED])
def test_a_streamed_model_goes_out_with_its_state(case: ZooModel, tmp_path: Path) -> None:
    """onnxruntime, fed with the states that it returned, computes each step as NNIR does."""
    assert case.streaming is not None
    model, inputs = build(case)
    nnir = to_nnir(prepare_shape(model, *inputs)[0], context=context(case, inputs))
    step, _ = nnir.streaming_transform(case.streaming)
    step.to_onnx(tmp_path / "step.onnx")
    checker.check_model(tmp_path / "step.onnx", full_check=True)
    states, rng = step.initial_states(), np.random.default_rng(0)
    carried: dict[str, Array] = {}
    count = len(step.graph.outputs)
    names = [i.name for i in load(tmp_path / "step.onnx").graph.input[len(step.graph.inputs) :]]
    assert len(names) == len(states)
    for _ in range(3):
        given = {v.name: rng.uniform(0.1, 1, v.shape).astype(np.float32) for v in step.graph.inputs}
        found = run_ort(tmp_path / "step.onnx", {**given, **carried})
        carried = dict(zip(names, found[count:], strict=True))
        assert_close(found[:count], as_list(step.run(*given.values(), states=states)))


def test_synapses_and_elapsed_times_come_back(tmp_path: Path) -> None:
    case = SMALL["ltc_spans"]
    model, inputs = build(case)
    graph = run_pipeline(to_nnir(prepare_shape(model, *inputs)[0]).graph)
    assert "synapse" in {n.op for n in graph.walk()}
    NNIR(graph).to_onnx(tmp_path / "model.onnx")
    back = NNIR.from_onnx(tmp_path / "model.onnx").graph
    assert Role.ELAPSED_TIME in {v.role for v in back.inputs}
    again = run_pipeline(back)
    assert [n.op for n in again.walk()].count("synapse") == [n.op for n in graph.walk()].count("synapse")


def test_states_are_defaulted_inputs_and_outputs(tmp_path: Path) -> None:
    model, given = model_of(recurrent("LSTM", time=6, batch=1))
    save(model, tmp_path / "model.onnx")
    step, _ = NNIR.from_onnx(tmp_path / "model.onnx").streaming_transform(0)
    step.to_onnx(tmp_path / "step.onnx")
    back = NNIR.from_onnx(tmp_path / "step.onnx")
    assert [s.name for s in back.graph.states] == [s.name for s in step.graph.states]
    states = back.initial_states()
    carried: dict[str, Array] = {}
    count = len(step.graph.outputs)
    for row in given["in0"]:
        expected = run_ort(tmp_path / "step.onnx", {step.graph.inputs[0].name: row, **carried})
        carried = dict(zip(states, expected[count:], strict=True))
        found = evaluate(back.graph, [row.astype(np.float64)], states)
        assert_close(found, expected[:count])


# ---------------------------------------------------------------- the command line and the documentation


def test_the_command_compiles_and_saves(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model, _ = model_of(recurrent("GRU", time=6, batch=1))
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_param = "time"
    save(model, tmp_path / "gru.onnx")
    path, output = str(tmp_path / "gru.onnx"), str(tmp_path / "gru.ltcp")
    arguments = [path, "--config", "tiny_c1b8", "--shape", "in0=6,1,3", "--stream", "0", "--output", output]
    assert command.main(arguments) == 0
    printed = capsys.readouterr().out
    assert "configuration   tiny_c1b8" in printed
    assert "cycles spaced" in printed
    assert "input 0         (1, 3) " in printed
    vm = Program.load(output).to_vm()
    step, _ = NNIR.from_onnx(path, {"in0": (6, 1, 3)}).streaming_transform(0)
    x = np.ones((1, 3), np.float32)
    expected = step.to_program(Config.tiny_c1b8()).to_vm().run(x)
    assert [y.tobytes() for y in vm.run(x)] == [y.tobytes() for y in expected]
    assert command.main([*arguments, "--quick"]) == 0
    capsys.readouterr()
    assert command.main([path]) == 1
    assert "not fixed: in0 (axis 0: time)" in capsys.readouterr().err
    assert command.main([path, "--shape", "in0"]) == 1
    assert "--shape is 'in0'" in capsys.readouterr().err
    assert command.main([path, "--config", "no_such_board", "--shape", "in0=6,1,3"]) == 1
    assert "no_such_board" in capsys.readouterr().err


def test_the_command_fixes_inputs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = """
<ir_version: 8, opset_import: ["" : 16]>
main (float[4] x, int64 sr, bool[1] loud, float[2] range) => (float[4] y) {
  low = Constant <value = int64 {8000}> ()
  slow = Equal (sr, low)
  either = Or (slow, loud)
  wide = ReduceSum <keepdims = 0> (range)
  y = If (either) <
    then_branch = a () => (float[4] p) { p = Mul (x, wide) }, else_branch = b () => (float[4] q) { q = Neg (x) }>
}
"""
    save(parser.parse_model(text), tmp_path / "m.onnx")
    arguments = [str(tmp_path / "m.onnx"), "--quick", "--output", str(tmp_path / "m.ltcp")]
    fixed = [f"--constant={c}" for c in ("sr=16000", "loud=true", "range=-1,3.5")]
    assert command.main([*arguments, *fixed]) == 0
    x = np.array([1, -2, 3, 0.5], np.float32)
    np.testing.assert_array_equal(np.ravel(Program.load(tmp_path / "m.ltcp").to_vm().run(x)), x * 2.5)
    assert command.main([*arguments, *fixed[:2], "--constant=range=1,x"]) == 1
    assert "write it as --constant sr=16000" in capsys.readouterr().err
    assert command.main([*arguments, *fixed[:2], "--constant=range=1,2,3"]) == 1
    assert "constants gives the shape (3,)" in capsys.readouterr().err


def test_the_command_helps_and_leaves_with_a_status(tmp_path: Path) -> None:
    """As a process: help names presets and statuses; 2 for wrong usage; 1 and no traceback for a bad file."""
    (tmp_path / "bad.onnx").write_bytes(b"not a model")

    def run(*arguments: str) -> tuple[int, str]:
        words = [sys.executable, "-m", "ltc_compiler.onnx", *arguments]
        done = subprocess.run(words, capture_output=True, text=True, check=False, cwd=tmp_path)
        return done.returncode, done.stdout + done.stderr

    status, text = run("--help")
    assert status == 0
    assert all(word in text for word in ("v80_c6b32", "--stream", "exit status", "examples:"))
    assert run()[0] == run("x.onnx", "--stream", "first")[0] == 2
    for name in ("bad.onnx", "missing.onnx"):
        status, text = run(name)
        assert status == 1
        assert text.startswith("error: ")
        assert "Traceback" not in text


def test_the_table_of_operators_is_up_to_date(capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main(["--operators"]) == 0
    table = capsys.readouterr().out
    assert table == operators_markdown()
    assert table in (DOCS / "onnx.md").read_text(encoding="utf-8"), (
        "run `python -m ltc_compiler.onnx --operators`"
    )
