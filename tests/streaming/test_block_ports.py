"""Blocks as users meet them: what programs, files, texts and commands say of them, and what they refuse."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from torch import Tensor, nn

import ltc_torch
from ltc_compiler import Config, Program
from ltc_compiler.errors import (
    AllocationError,
    GraphError,
    InputError,
    LtcError,
    ModelFileError,
    ProgramError,
    StreamingError,
)
from ltc_compiler.ir.graph import Graph
from ltc_compiler.ir.verify import verify
from ltc_compiler.nnir import NNIR
from ltc_compiler.onnx import __main__ as command
from ltc_torch.fx import prepare_shape
from ltc_torch.fx.nnir import to_nnir
from ltc_torch.nn import PaddedConv1d

MACHINE = Config.v80_c6b32()


def lstm() -> NNIR:
    return to_nnir(prepare_shape(nn.LSTM(4, 8).eval(), torch.randn(9, 1, 4))[0])


def test_a_program_says_how_many_steps_an_inference_takes(tmp_path: Path) -> None:
    whole = lstm()
    made, _ = whole.streaming_transform(0, block=8)
    made.to_program(MACHINE).save(tmp_path / "b.ltcp")
    back = Program.load(tmp_path / "b.ltcp")
    assert (back.block_steps(), back.input_shape()) == (8, (8, 1, 4))
    model = back.metrics()["models"][0]
    assert model["block_steps"] == 8
    assert model["cycles_per_step"] == back.cycle_interval_per_inference() / 8
    assert "8 steps an inference" in back.disassemble().split("\n")[1]
    single = whole.streaming_transform(0)[0].to_program(MACHINE)
    assert (single.block_steps(), single.metrics()["models"][0]["block_steps"]) == (1, 1)
    assert "an inference" not in single.disassemble().split("\n")[1]


def test_the_text_of_a_graph_says_it() -> None:
    made, _ = lstm().streaming_transform(0, block=8)
    back = NNIR.parse(str(made))
    assert str(back) == str(made)
    assert back.graph.block == 8
    with pytest.raises(StreamingError, match="a step graph already"):
        back.streaming_transform(0, block=2)


def no_steps(g: Graph) -> None:
    g.block = 0


def not_streamed(g: Graph) -> None:
    g.input_streaming_dims = None


def another_length(g: Graph) -> None:
    g.block = 4


def another_axis(g: Graph) -> None:
    g.output_streaming_dims = (1, *(g.output_streaming_dims or ())[1:])


@pytest.mark.parametrize(
    ("damage", "what"),
    [
        (no_steps, "a run has 0 steps"),
        (not_streamed, "a run has 8 steps"),
        (another_length, r"has no axis 0 of the 4 steps"),
        (another_axis, r"has no axis 1 of the 8 steps"),
    ],
)
def test_a_graph_whose_ports_are_no_blocks_is_refused(damage: Callable[[Graph], None], what: str) -> None:
    graph = lstm().streaming_transform(0, block=8)[0].graph
    damage(graph)
    with pytest.raises(GraphError, match=what):
        verify(graph)


@pytest.mark.parametrize("block", [0, 3, True, "8", 1 << 40])
def test_a_program_file_with_another_block_is_refused(block: Any) -> None:
    image = lstm().streaming_transform(0, block=8)[0].to_program(MACHINE).image
    entry = {**image.meta["streaming"][0], "block": block}
    with pytest.raises(ProgramError, match=r"has the block|has a block of 3 steps"):
        Program(replace(image, meta={**image.meta, "streaming": [entry]}))


def test_a_block_goes_through_an_onnx_file(tmp_path: Path) -> None:
    whole = to_nnir(prepare_shape(nn.Conv1d(3, 4, 5, padding=2).eval(), torch.randn(1, 3, 16))[0])
    made, _ = whole.streaming_transform(2, block=4)
    made.to_onnx(tmp_path / "b.onnx")
    back = NNIR.from_onnx(tmp_path / "b.onnx")
    assert back.graph.block == 4
    x = np.random.default_rng(0).normal(size=(1, 3, 12))
    np.testing.assert_allclose(back.run_timesteps(x, end=True), whole_of(whole, x), atol=1e-6)
    model = onnx.load(tmp_path / "b.onnx")
    note = next(p for p in model.metadata_props if p.key == "ltc.stream")
    for block in ("four", 0, 5, -4):
        note.value = json.dumps(json.loads(note.value) | {"block": block})
        onnx.save(model, tmp_path / "bad.onnx")
        with pytest.raises((ModelFileError, GraphError)):
            NNIR.from_onnx(tmp_path / "bad.onnx")


def whole_of(whole: NNIR, x: Any) -> Any:
    """The convolution of a sequence of another length, by single steps of fp64."""
    return whole.streaming_transform(2)[0].run_timesteps(x, end=True)


def test_the_command_takes_a_block(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lstm().to_onnx(tmp_path / "m.onnx")
    path, output = str(tmp_path / "m.onnx"), str(tmp_path / "m.ltcp")
    assert command.main([path, "--stream", "0", "--block", "8", "--output", output]) == 0
    printed = capsys.readouterr().out
    program = Program.load(output)
    per_step = program.cycle_interval_per_inference() / 8
    assert f"block           8 steps an inference, {per_step:.1f} cycles a step" in printed
    assert program.block_steps() == 8
    assert command.main([path, "--block", "8"]) == 1
    assert "--block is given without --stream" in capsys.readouterr().err
    assert command.main([path, "--stream", "0", "--block", "0"]) == 1
    assert "block is 0" in capsys.readouterr().err


class Calls(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.cumsum(1) * (1 + (x.shape[1] > 20))


@pytest.mark.parametrize("block", [4, 100])
def test_stream_checks_blocks(block: int) -> None:
    model, x = nn.GRU(3, 4, batch_first=True).eval(), torch.randn(1, 9, 3)
    step, axes = ltc_torch.stream(model, x, axis=1, block=block)
    assert step.graph.block == block
    assert axes == (1, None)
    with pytest.raises(StreamingError, match="of step 0 is"):
        ltc_torch.stream(Calls(), x, axis=1, block=block)


def test_a_fault_in_a_block_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A convolution whose delay line is behind by a step after each block."""
    model, x = PaddedConv1d(3, 4, 3).eval(), torch.randn(1, 3, 12)
    ltc_torch.stream(model, x, axis=2, block=4)
    right = NNIR.streaming_transform

    def wrong(self: NNIR, *given: Any) -> Any:
        step, dims = right(self, *given)
        states = step.graph.states
        states[0].next, states[1].next = states[1].next, states[0].next
        return step, dims

    monkeypatch.setattr(NNIR, "streaming_transform", wrong)
    with pytest.raises(StreamingError, match="of step 4 is"):
        ltc_torch.stream(model, x, axis=2, block=4)


def test_a_context_shorter_than_a_block_is_said_to_be_unchecked() -> None:
    with pytest.warns(UserWarning, match="a block has 16 steps, and the check 5"):
        ltc_torch.stream(
            nn.GRU(3, 4, batch_first=True).eval(), torch.randn(1, 9, 3), axis=1, block=16, context=5
        )


def test_a_block_that_does_not_fit_says_to_take_fewer_steps() -> None:
    whole = to_nnir(prepare_shape(PaddedConv1d(4, 8, 3).eval(), torch.randn(1, 4, 16))[0])
    small = Config.tiny_c1b8()
    with pytest.raises(AllocationError, match="take fewer steps in one run than 2048") as refused:
        whole.streaming_transform(2, block=2048)[0].to_program(small)
    assert isinstance(refused.value, LtcError)
    assert whole.streaming_transform(2, block=16)[0].to_program(small).block_steps() == 16


def test_what_looks_into_single_steps_refuses_blocks() -> None:
    made, _ = lstm().streaming_transform(0, block=8)
    with pytest.raises(InputError, match="takes 8 steps in one run"):
        made.compare(MACHINE, np.zeros((8, 1, 4), np.float32))
