"""Sequences of a program whose outputs are late: in the places of their inputs, joined over calls, and ended."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from ltc_compiler.builder import ProgramBuilder
from ltc_compiler.config import Config
from ltc_compiler.errors import InputError, ModelFileError, ProgramError, StateError
from ltc_compiler.nnir import NNIR
from ltc_compiler.onnx.__main__ import report as command_line_report
from ltc_compiler.program import Program
from ltc_torch.fx import prepare_shape
from ltc_torch.fx.nnir import to_nnir

T, CHANNELS, LATE, TAILS = 10, 3, (3, 0, 1, 0), (3, 0, 0, -2)


class Late(nn.Module):
    """(1, 3, time) to four outputs: two padded layers, one that looks nowhere ahead, a bare window, a shorter one."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv1d(CHANNELS, 5, 5, padding=2), nn.Conv1d(5, 2, 3, padding=1)
        self.c = nn.Conv1d(CHANNELS, 2, 2)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return self.b(F.relu(self.a(x))), torch.tanh(x), self.c(x), x[..., :-2] * 2


@pytest.fixture(scope="module")
def whole() -> NNIR:
    torch.manual_seed(1)
    return to_nnir(prepare_shape(Late().eval(), torch.randn(1, CHANNELS, T))[0])


@pytest.fixture(scope="module")
def program(whole: NNIR) -> Program:
    return whole.streaming_transform(2)[0].to_program(Config.tiny_c2b8())


@pytest.fixture(scope="module")
def x() -> np.ndarray:
    return np.random.default_rng(5).normal(size=(1, CHANNELS, T)).astype(np.float32)


@pytest.fixture(scope="module")
def expected(whole: NNIR, x: np.ndarray) -> tuple[np.ndarray, ...]:
    """The whole sequence at once."""
    return tuple(whole.to_program(Config.v80_c6b32(), quick_compile=True).to_vm().run(x))


MACHINES = [Program.to_vm, Program.to_oracle]


def same(found: Sequence[np.ndarray], expected: Sequence[np.ndarray]) -> None:
    for i, (a, b) in enumerate(zip(found, expected, strict=True)):
        assert a.shape == b.shape, f"output {i}"
        assert a.tobytes() == b.tobytes(), f"output {i}"


def joined(parts: Sequence[Sequence[np.ndarray]]) -> list[np.ndarray]:
    return [np.concatenate(columns, 2) for columns in zip(*parts, strict=True)]


def test_a_program_says_what_is_late(program: Program) -> None:
    again = Program.load_bytes(program.save_bytes())
    for p in (program, again):
        assert p.output_latencies == LATE
        assert tuple(p.output_latency(0, i) for i in range(4)) == LATE
        assert tuple(p.output_tail(0, i) for i in range(4)) == TAILS
        assert p.metrics()["models"][0]["output_latencies"] == list(LATE)
        assert p.metrics()["models"][0]["output_tails"] == list(TAILS)
        assert "output y0 (1, 2) fp32 plain, 3 steps late\n" in p.disassemble()
        assert "output y2 (1, 2) fp32 plain, 1 step late\n" in p.disassemble()
        assert "y0 is 3 steps late; y2 is 1 step late" in str(p.report()).splitlines()[0]
        assert "output 0        (1, 2) fp32, 3 steps late\n" in command_line_report(p)
        assert p.report().to_dict()["late_steps"] == {"y0": 3, "y2": 1}
    with pytest.raises(InputError, match="no output 4"):
        program.output_latency(0, 4)


@pytest.mark.parametrize("make", MACHINES)
@pytest.mark.parametrize("cuts", [[], [1], [2, 3], [1, 2, 3, 4, 5, 6, 7, 8], [4, 4, 8]])
def test_calls_join_to_the_whole(
    make: Callable[[Program], Any], cuts: list[int], program: Program, x: np.ndarray, expected: Any
) -> None:
    machine = make(program)
    for _ in range(2):  # the second time after a reset
        *first, last = np.split(x, cuts, 2)
        parts = [machine.run_timesteps(part) for part in first]
        state = machine.get_state()
        same(joined([*parts, machine.run_timesteps(last, end=True)]), expected)
        machine.set_state(state)
        open_end = joined([*parts, machine.run_timesteps(last)])
        assert [a.shape[2] for a in open_end] == [T - n for n in LATE], "nothing is flushed that is no end"
        same([a[..., : e.shape[2]] for a, e in zip(open_end, expected, strict=True)],
             [e[..., : a.shape[2]] for a, e in zip(open_end, expected, strict=True)])  # fmt: skip
        machine.reset()


@pytest.mark.parametrize("make", MACHINES)
def test_an_end_leaves_the_stream_as_it_was(
    make: Callable[[Program], Any], program: Program, x: np.ndarray, expected: Any
) -> None:
    machine, other = make(program), make(program)
    ended, open_end = machine.run_timesteps(x[..., :6], end=True), other.run_timesteps(x[..., :6])
    same(list(machine.state.values()), list(other.state.values()))
    if make is Program.to_vm:
        assert machine.steps_done() == 6, "what runs behind the end is no step of the stream"
    assert [a.shape[2] for a in ended] == [6, 6, 5, 4]
    same(joined([open_end, machine.run_timesteps(x[..., 6:], end=True)]), expected)


def test_an_end_without_steps(program: Program, x: np.ndarray, expected: Any) -> None:
    vm = program.to_vm()
    vm.run_timesteps(x)
    with pytest.raises(
        InputError, match="output 3 ends 2 steps before its input, and the call with the end has 0 steps"
    ):
        vm.run_timesteps(x[..., :0], end=True)
    short = NNIR.parse(
        str(
            to_nnir(
                prepare_shape(nn.Conv1d(CHANNELS, 4, 3, padding=1).eval(), torch.randn(1, CHANNELS, T))[0]
            )
        )
    )
    at_once = short.to_program(Config.tiny_c1b8()).to_vm().run(x)
    vm = short.streaming_transform(2)[0].to_program(Config.tiny_c1b8()).to_vm()
    found = [
        vm.run_timesteps(x),
        vm.run_timesteps(x[..., :0], end=True),
        vm.run_timesteps(x[..., :0], end=True),
    ]
    assert [a.shape[2] for a in found] == [T - 1, 1, 1]
    assert np.concatenate(found[:2], 2).tobytes() == at_once.tobytes()
    assert found[1].tobytes() == found[2].tobytes()


@pytest.mark.parametrize("steps", [1, 2, 3])
def test_a_stream_shorter_than_its_latency(steps: int, x: np.ndarray) -> None:
    model = nn.Sequential(
        nn.Conv1d(CHANNELS, 4, 5, padding=2), nn.ReLU(), nn.Conv1d(4, 2, 5, padding=2)
    ).eval()
    nnir = to_nnir(prepare_shape(model, torch.randn(1, CHANNELS, T))[0])
    vm = nnir.streaming_transform(2)[0].to_program(Config.tiny_c1b8()).to_vm()
    found = vm.run_timesteps(x[..., :steps], end=True)
    wanted = model(torch.from_numpy(x[..., :steps])).detach().numpy()
    assert found.shape == wanted.shape
    assert np.abs(found - wanted).max() < 0.02
    assert vm.run_timesteps(x[..., steps:]).shape[2] == T - 4, "the stream goes on, and is still aligned"


def test_single_steps_are_steps_of_the_stream(program: Program, x: np.ndarray, expected: Any) -> None:
    """run() and run_into() give what comes out, and move the stream on."""
    vm = program.to_vm()
    raw = program.to_vm().run_timesteps(x, align=False)
    assert [a.shape[2] for a in raw] == [T] * 4
    same(vm.run(x[..., 0]), [a[..., 0] for a in raw])
    made = [np.empty(p.shape, np.float32) for p in program.image.models[0].outputs]
    vm.run_into(np.ascontiguousarray(x[..., 1]), made)
    same(made, [a[..., 1] for a in raw])
    rest = vm.run_timesteps(x[..., 2:], end=True)
    same(rest, [e[..., max(0, 2 - late) :] for e, late in zip(expected, LATE, strict=True)])


def test_a_saved_stream_stays_aligned(program: Program, x: np.ndarray, expected: Any) -> None:
    first = program.to_vm()
    begun = first.run_timesteps(x[..., :2])
    second = Program.load_bytes(program.save_bytes()).to_vm()
    second.run_timesteps(x)
    second.set_state(first.get_state())
    same(joined([begun, second.run_timesteps(x[..., 2:], end=True)]), expected)


@pytest.mark.parametrize("threads", [1, 3])
def test_batches_of_streams(threads: int, program: Program, x: np.ndarray, expected: Any) -> None:
    streams = np.stack([x, x * 0.5, x + 1, -x])
    steps = np.ascontiguousarray(np.moveaxis(streams, 3, 1))  # (streams, time, 1, 3)
    alone = [program.to_vm().run_timesteps(s, end=True) for s in streams]
    vm = program.to_vm()
    for _ in range(2):
        parts = [vm.run_batch(p, threads=threads) for p in (steps[:, :2], steps[:, 2:5])]
        parts.append(vm.run_batch(steps[:, 5:], threads=threads, end=True))
        found = [np.concatenate(columns, 1) for columns in zip(*parts, strict=True)]
        for n, outputs in enumerate(alone):
            same([np.ascontiguousarray(np.moveaxis(f[n], 0, 2)) for f in found], outputs)
        vm.reset()
    raw = vm.run_batch(steps[:, 0])
    assert [a.shape for a in raw] == [(4, *p.shape) for p in program.image.models[0].outputs]
    assert [a.shape[1] for a in vm.run_batch(steps[:, 1:], align=False)] == [T - 1] * 4


def test_streams_of_different_ages_are_refused(program: Program, x: np.ndarray) -> None:
    steps = np.ascontiguousarray(np.moveaxis(np.stack([x, x]), 3, 1))
    vm = program.to_vm()
    vm.run_timesteps(x[..., :2])
    state = vm.get_state()
    with pytest.raises(InputError, match="the streams are at different steps") as caught:
        vm.run_batch(steps)
    assert "run the new streams by themselves first" in str(caught.value.remedy)
    same(list(vm.get_state().values()), list(state.values()))
    vm.run_timesteps(x[..., 2:4])  # the remedy: both have run for the latency now
    vm.run_batch(steps[:, :4], align=False)
    assert [a.shape[:2] for a in vm.run_batch(steps)] == [(2, T)] * 4


def test_the_graph_itself_does_the_same(whole: NNIR, x: np.ndarray) -> None:
    step, wanted = whole.streaming_transform(2)[0], whole.run(x)
    for found, exact in zip(step.run_timesteps(x, end=True), wanted, strict=True):
        np.testing.assert_allclose(found, exact, atol=1e-12)
    states = step.initial_states()
    first = step.run_timesteps(x[..., :4], states=states)
    held = {name: value.copy() for name, value in states.items()}
    assert [a.shape[2] for a in step.run_timesteps(x[..., :0], states=dict(states))] == [0] * 4
    parts = [first, step.run_timesteps(x[..., 4:], states=states, end=True)]
    for found, exact in zip(joined(parts), wanted, strict=True):
        np.testing.assert_allclose(found, exact, atol=1e-12)
    for name, value in held.items():
        states[name] = value
    assert [a.shape[2] for a in step.run_timesteps(x[..., 4:], states=states, align=False)] == [T - 4] * 4
    with pytest.raises(InputError, match="the graph has no steps"):
        whole.run_timesteps(x)
    with pytest.raises(
        InputError, match=r"expected numbers of shape \(1, 3, 10\), found float32 of \(2, 3, 10\)"
    ):
        step.run_timesteps(np.repeat(x, 2, 0))


def test_a_comparison_knows_what_is_late(whole: NNIR, x: np.ndarray) -> None:
    """What is expected may end with the input, or have all that comes behind its end."""
    step, wanted = whole.streaming_transform(2)[0], whole.run(x)
    found = step.compare(Config.tiny_c1b8(), x, expected=wanted, what_if=0)
    assert [row["late"] for row in found.outputs] == list(LATE)
    assert "y0, 3 steps late: largest error" in str(found)
    assert all(row["reference_max_error"] < 1e-6 for row in found.outputs)
    assert all(row["expected_max_error"] < 0.05 for row in found.outputs)
    shorter = [y[..., : T - late] for y, late in zip(wanted, LATE, strict=True)]
    same_rows = step.compare(Config.tiny_c1b8(), x, expected=shorter, what_if=0).outputs
    assert [r["expected_max_error"] for r in same_rows] == [r["expected_max_error"] for r in found.outputs]


def test_an_exported_step_says_what_is_late(whole: NNIR, tmp_path: Any) -> None:
    onnx = pytest.importorskip("onnx")
    whole.streaming_transform(2)[0].to_onnx(tmp_path / "step.onnx")
    outputs = onnx.load(tmp_path / "step.onnx").graph.output
    notes = [{p.key: p.value for p in o.metadata_props}.get("ltc.late", "0") for o in outputs[:4]]
    assert notes == [str(n) for n in LATE]


def test_an_exported_step_comes_back_as_a_stream(whole: NNIR, x: np.ndarray, tmp_path: Any) -> None:
    """Its outputs stand in the places of their inputs, as before; a note that does not fit is no stream."""
    onnx = pytest.importorskip("onnx")
    path, step = tmp_path / "step.onnx", whole.streaming_transform(2)[0]
    step.to_onnx(path)
    again = NNIR.from_onnx(path)
    program = again.to_program(Config.tiny_c1b8())
    assert program.output_latencies == LATE
    assert tuple(program.output_tail(0, i) for i in range(4)) == TAILS
    vm = program.to_vm(bit_accurate=False)
    found = joined([vm.run_timesteps(x[..., :4]), vm.run_timesteps(x[..., 4:], end=True)])
    for a, b in zip(found, whole.run(x), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-4)
    model = onnx.load(path)
    (note,) = (p for p in model.metadata_props if p.key == "ltc.stream")
    for text in ("", "[]", "{}", note.value.replace("3", '"3"'), note.value.replace("y0", "y9")):
        note.value = text
        onnx.save(model, path)
        with pytest.raises(ModelFileError, match=r"ltc\.stream"):
            NNIR.from_onnx(path)


def test_models_of_one_program_have_streams_of_their_own(whole: NNIR, x: np.ndarray, expected: Any) -> None:
    step = whole.streaming_transform(2)[0]
    builder = (
        ProgramBuilder(Config.small_c2b16()).add_nnir(whole, "whole").add_nnir(step, "a").add_nnir(step, "b")
    )
    program = builder.to_program(quick_compile=True)
    assert [program.output_latency(m, 0) for m in range(3)] == [0, 3, 3]
    vm = program.to_vm()
    begun = vm.run_timesteps(x[..., :4], model_index=1)
    same(vm.run_timesteps(x, model_index=2, end=True), expected)
    same(joined([begun, vm.run_timesteps(x[..., 4:], model_index=1, end=True)]), expected)


def test_an_input_without_time_stays_as_it_is_behind_the_end() -> None:
    """The gain of a padded stream, which every step reads, is there when the end is flushed too."""

    class Scaled(nn.Module):
        def forward(self, x: torch.Tensor, gain: torch.Tensor) -> torch.Tensor:
            return F.avg_pool1d(x, 3, 1, padding=1) * gain

    gain, x = torch.randn(1, 3, 1), torch.randn(1, 3, T)
    nnir = to_nnir(prepare_shape(Scaled().eval(), x, gain)[0])
    step = nnir.streaming_transform([2, None])[0]
    program = step.to_program(Config.tiny_c1b8(), quick_compile=True)
    given = x.numpy(), gain.numpy()
    wanted = nnir.to_program(Config.tiny_c1b8(), quick_compile=True).to_vm().run(*given)
    for machine in (program.to_vm(), program.to_oracle()):
        assert (
            machine.run_timesteps(*given, input_timestep_dim=(2, None), end=True).tobytes()
            == wanted.tobytes()
        )


def test_what_cannot_be_aligned_is_refused(program: Program, x: np.ndarray) -> None:
    vm = program.to_vm()
    refusal = "end=True is given for outputs that are not aligned"
    with pytest.raises(InputError, match=refusal):
        vm.run_timesteps(x, align=False, end=True)
    with pytest.raises(InputError, match=refusal):
        vm.run_batch(x[..., 0][None], end=True)
    vm.set_state({"step": np.float32(np.nan)})
    with pytest.raises(StateError, match="the step counter is nan"):
        vm.run_timesteps(x)
    vm.reset()
    vm.run_timesteps(x)


@pytest.mark.parametrize(("entry", "fault"), [
    ({"latencies": [3, 0, 1]}, "the model 4 of them"),
    ({"latencies": [-1, 0, 0, 0]}, r"latencies \[-1, 0, 0, 0\]"),
    ({"tails": [True, 0, 0, 0]}, "tails"),
    ({"tails": [1 << 40, 0, 0, 0]}, "tails"),
    ({"counter": "stop"}, "the counter 'stop', which is no scalar state"),
    ({"marker": ["past_end"]}, "the marker"),
    ({"counter": ""}, "the counter '', which is no scalar state"),
])  # fmt: skip
def test_a_file_that_contradicts_itself_is_refused(
    program: Program, entry: dict[str, Any], fault: str
) -> None:
    image = program.image
    streaming = [{**image.meta["streaming"][0], **entry}]
    data = replace(image, meta={**image.meta, "streaming": streaming}).to_bytes()
    with pytest.raises(ProgramError, match=fault) as caught:
        Program.load_bytes(data)
    assert caught.value.where == "section META"
