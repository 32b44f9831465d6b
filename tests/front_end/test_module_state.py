"""Module state: a program goes on as the module does, and what cannot be state is refused by name and line."""

from __future__ import annotations

import copy
import warnings
from typing import Any

import numpy as np
import pytest
import stateful_models as models
import torch
from folders import DOCS
from stateful_models import NAMES, SEQUENCES, B, D, T
from torch import Tensor, nn

import ltc_torch
from ltc_compiler import NNIR, Config, Program
from ltc_compiler.errors import GraphError, InputError, StreamingError, UnsupportedError
from ltc_compiler.ir.graph import Precision
from ltc_torch.fx import prepare_shape
from ltc_torch.fx.nnir import to_nnir
from ltc_torch.fx.state.held import held
from ltc_torch.fx.state.trials import same_elements

CONFIG = Config.small_c2b16()
CALLS = 6
pytestmark = pytest.mark.filterwarnings("ignore:module state is carried")


def build(cls: type[models.Base]) -> tuple[models.Base, list[Tensor]]:
    """A model, and one input for each of some calls."""
    torch.manual_seed(1)
    shape = (B, T, D) if cls in SEQUENCES else (B, D)
    return cls().eval(), [torch.randn(shape) for _ in range(CALLS)]


def leaves(outputs: Any) -> list[np.ndarray[Any, Any]]:
    return [np.asarray(y) for y in (outputs if isinstance(outputs, tuple) else (outputs,))]


@pytest.mark.parametrize("cls", NAMES, ids=lambda c: c.__name__)
@torch.no_grad()
def test_the_program_goes_on_as_the_module_does(cls: type[models.Base]) -> None:
    model, xs = build(cls)
    before = {path: t.clone() for path, t in held(model).tensors.items()}
    traced, expected = prepare_shape(model, xs[0])
    after = held(model).tensors
    assert after.keys() == before.keys()
    assert all(same_elements(before[path], after[path]) for path in before)
    nnir = to_nnir(traced)
    assert " ".join(sorted(s.name for s in nnir.graph.states)) == NAMES[cls]
    program = nnir.to_program(CONFIG, quick_compile=True)
    assert set(program.state_kinds().values()) == {"module"}
    vm, states = program.to_vm(), nnir.initial_states()
    for i, x in enumerate(xs):
        wanted = leaves(model(x))
        if i == 0:
            assert all(np.array_equal(a, b) for a, b in zip(leaves(expected), wanted, strict=True))
        found = (leaves(traced(x)), leaves(nnir.run(x.numpy(), states=states)), leaves(vm.run(x.numpy())))
        for given, tolerance in zip(found, (1e-5, 1e-4, 0.04), strict=True):
            for a, b in zip(given, wanted, strict=True):
                np.testing.assert_allclose(a, b, atol=tolerance * max(1, np.abs(b).max()))


# ---------------------------------------------------------------- what is asked for


def test_reset_starts_every_call_anew_and_refuse_refuses() -> None:
    model, xs = build(models.BufferReplaced)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        traced, expected = prepare_shape(model, xs[0], module_state="reset")
    vm = to_nnir(traced).to_program(CONFIG, quick_compile=True).to_vm()
    assert not vm.state
    assert vm.run(xs[0].numpy()).tobytes() == vm.run(xs[0].numpy()).tobytes()
    np.testing.assert_allclose(vm.run(xs[0].numpy()), expected.detach(), atol=0.02)
    with pytest.raises(UnsupportedError, match="h: a call leaves it changed") as caught:
        prepare_shape(model, xs[0], module_state="refuse")
    assert caught.match(r"stateful_models.py:\d+  self.h = torch.tanh")
    prepare_shape(nn.Linear(D, D).eval(), xs[0], module_state="refuse")
    with pytest.raises(InputError, match="module_state is 'keep'"):
        prepare_shape(model, xs[0], module_state="keep")  # type: ignore[arg-type]


def test_what_is_found_is_said_once() -> None:
    model, xs = build(models.InSubmodules)
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        prepare_shape(model, xs[0])
    (warning,) = seen
    assert "encoder.0.h (2, 4), encoder.1.h (2, 4), heads.a.mem (2, 4)" in str(warning.message)
    assert warning.filename == __file__


def test_a_model_that_was_used_goes_on_from_there() -> None:
    model, xs = build(models.TupleFromNone)
    for x in xs:
        model(x)  # with gradients: the state has a graph behind it
    traced, _ = prepare_shape(model, xs[0])
    vm = to_nnir(traced).to_program(CONFIG, quick_compile=True).to_vm()
    first: Any = copy.copy(model.hx)
    for x in xs:
        np.testing.assert_allclose(vm.run(x.numpy()), model(x).detach(), atol=0.02)
    vm.reset()
    np.testing.assert_allclose(vm.state["hx[0]"], first[0].detach(), atol=1e-6)


def test_the_program_keeps_names_through_files_batches_and_onnx(tmp_path: Any) -> None:
    model, xs = build(models.Welford)
    nnir = to_nnir(prepare_shape(model, xs[0])[0])
    program = nnir.to_program(CONFIG, quick_compile=True)
    program.save(tmp_path / "welford.ltcp")
    again = Program.load(tmp_path / "welford.ltcp")
    assert again.state_kinds() == {"m2": "module", "mean": "module", "n": "module"}
    rows = torch.stack([torch.stack(xs), torch.stack(xs[::-1])])
    found = again.to_vm().run_batch(rows.numpy())
    for row, order in zip(found, (xs, xs[::-1]), strict=True):
        fresh = build(models.Welford)[0]
        for y, x in zip(row, order, strict=True):
            np.testing.assert_allclose(y, fresh(x).detach(), atol=0.02)
    vm = again.to_vm()
    vm.run(xs[0].numpy())
    assert vm.state["n"] == 1
    vm.set_state({"n": np.float32(7)})
    vm.run(xs[0].numpy())
    assert vm.state["n"] == 8
    nnir.to_onnx(tmp_path / "welford.onnx")
    back = NNIR.from_onnx(tmp_path / "welford.onnx")
    assert [(s.name, s.kind.value) for s in back.graph.states] == [(n, "module") for n in ("m2", "mean", "n")]


def test_the_recorded_graph_is_a_module_with_state_of_its_own() -> None:
    model, xs = build(models.NotAtZero)
    traced, expected = prepare_shape(model, xs[0])
    kept: Any = model.h
    initial = kept.double().numpy()
    again: Any = copy.deepcopy(traced)
    for x in xs:
        traced(x)
    assert torch.equal(again(xs[0]), expected)
    for graph in (traced, again):  # the value when it was recorded, however often the graph has run since
        assert (to_nnir(graph).graph.states[0].initial == initial).all()
    nnir = to_nnir(traced, [Precision.BF16])  # for the inputs alone
    assert [v.type.precision for v in nnir.graph.inputs] == [Precision.BF16]
    with pytest.raises(GraphError, match="2 inputs_precisions for 1 input"):
        to_nnir(traced, [Precision.BF16] * 2)


def test_random_state_and_inputs_stay_as_they_were() -> None:
    model, xs = build(models.Leaky)
    torch.manual_seed(5)
    np.random.seed(5)
    given = xs[0].clone()
    prepare_shape(model, xs[0])
    drawn = torch.rand(3), np.random.rand(3)
    torch.manual_seed(5)
    np.random.seed(5)
    assert torch.equal(drawn[0], torch.rand(3))
    assert (drawn[1] == np.random.rand(3)).all()
    assert torch.equal(given, xs[0])


# ---------------------------------------------------------------- streaming


STREAMED = (
    models.Kept,
    models.KeptLtc,
    models.KeptLstm,
    models.KeptGru,
    models.LoopOverTime,
    models.Smoothed,
    models.FromTheLastOutput,
)


@pytest.mark.parametrize("cls", STREAMED, ids=lambda c: c.__name__)
@torch.no_grad()
def test_under_streaming_module_state_is_the_carry_of_the_loop_over_time(cls: type[models.Base]) -> None:
    """Step by step over many calls' sequences: PyTorch's numbers, and the bits of the whole sequences."""
    model, xs = build(cls)
    whole = to_nnir(prepare_shape(model, xs[0])[0])
    step, axis = whole.streaming_transform(1)
    assert axis == 1
    assert " ".join(sorted(s.name for s in step.graph.states if s.kind.value == "module")) == NAMES[cls]
    assert not [s.name for s in step.graph.states if s.kind.value == "stream"]
    program = step.to_program(CONFIG, quick_compile=True)
    vm, whole_vm = program.to_vm(), whole.to_program(CONFIG, quick_compile=True).to_vm()
    for x in xs:
        wanted = model(x).numpy()
        found = vm.run_timesteps(x.numpy())
        np.testing.assert_allclose(found, wanted, atol=0.04 * max(1, np.abs(wanted).max()))
        assert found.tobytes() == whole_vm.run(x.numpy()).tobytes()
    for name, value in vm.state.items():
        assert value.tobytes() == whole_vm.state[name].tobytes()
    rows = program.to_vm().run_batch(np.stack([np.moveaxis(x.numpy(), 1, 0) for x in xs[:2]]))
    for row, x in zip(rows, xs, strict=False):
        fresh = build(cls)[0](x).numpy()
        np.testing.assert_allclose(np.moveaxis(row, 0, 1), fresh, atol=0.04 * max(1, np.abs(fresh).max()))


@torch.no_grad()
def test_tied_ports_of_a_whole_sequence_stream_as_well() -> None:
    """forward(x, h) over a sequence, with the loop's state in and out: tied, it is the loop's carry."""

    class Ports(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.gru = nn.GRU(D, 5, batch_first=True)

        def forward(self, x: Tensor, h: Tensor) -> dict[str, Tensor]:
            y, h = self.gru(x, h)
            return {"y": y, "h_out": h}

    torch.manual_seed(3)
    model, h = Ports().eval(), torch.randn(1, B, 5)
    nnir = to_nnir(prepare_shape(model, torch.randn(B, T, D), h)[0]).tie({"h_out": "h"}, {"h": h.numpy()})
    step, _ = nnir.streaming_transform(1)
    assert [(s.name, s.kind.value, s.value.shape) for s in step.graph.states] == [("h", "tied", (1, B, 5))]
    vm = step.to_program(CONFIG, quick_compile=True).to_vm()
    for x in torch.randn(3, B, T, D):
        wanted = model(x, h)
        h = wanted["h_out"]
        np.testing.assert_allclose(vm.run_timesteps(x.numpy()), wanted["y"], atol=0.04)
        np.testing.assert_allclose(vm.state["h"], h, atol=0.04)
    with pytest.raises(StreamingError, match="a step graph already"):
        step.streaming_transform(0)


def test_the_example_of_the_document() -> None:
    document = (DOCS / "state.md").read_text(encoding="utf-8")
    example = document.partition("```python\n")[2].partition("```")[0]
    names: dict[str, Any] = {"nn": nn, "torch": torch, "prepare_shape": prepare_shape}
    with pytest.warns(UserWarning, match=r"carried from call to call: h \(1, 16\)"):
        exec(compile(example, "state.md", "exec"), names)
    assert [s.name for s in to_nnir(names["traced"]).graph.states] == ["h"]


def test_stream_carries_module_state_or_starts_anew() -> None:
    model, xs = build(models.KeptLstm)
    step, axis = ltc_torch.stream(model, xs[0], axis=1)
    assert (axis, [s.kind.value for s in step.graph.states]) == (1, ["module"] * 2)
    fresh, _ = ltc_torch.stream(model, xs[0], axis=1, module_state="reset")
    assert {s.kind.value for s in fresh.graph.states} == {"stream"}
    assert all(not s.initial.any() for s in fresh.graph.states)
