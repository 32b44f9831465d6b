"""Windows over padded sequences as streams: no later than they must be, and with the bits of the whole sequence from
the first element to the last.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from generators import wish
from hypothesis import given, settings
from hypothesis import strategies as st
from nnir_cases import assert_streams, graph, inputs_for
from padded_stacks import random_stack
from torch import nn
from torch.nn import functional as F

from ltc_compiler.builder import ProgramBuilder
from ltc_compiler.config import Config
from ltc_compiler.errors import GraphError
from ltc_compiler.ir.ops import add
from ltc_compiler.nnir import NNIR
from ltc_compiler.program import Program
from ltc_compiler.schedule.compile import compile_graphs
from ltc_compiler.schedule.search import Job
from ltc_compiler.transforms.streaming.transform import streaming_transform
from ltc_torch.fx import prepare_shape
from ltc_torch.fx.nnir import to_nnir

T = 9
WHOLE, STEP = (
    replace(c, tensor_rows=1 << 16, gather_entries=1 << 16, weight_blocks=1 << 12)
    for c in (Config.tiny_c1b8(), Config.small_c2b16())
)


def outputs(result: Any) -> tuple[Any, ...]:
    return result if isinstance(result, tuple) else (result,)


def assert_bits(whole: NNIR, step: NNIR, x: np.ndarray, axis: int = 0, on: Config = WHOLE) -> None:
    """The whole sequence at once, in one call with its end, and in parts, in both arithmetics and on both machines."""
    compiled, program = whole.to_program(on, quick_compile=True), step.to_program(STEP, quick_compile=True)
    cut = x.shape[axis] // 2
    for bit_accurate in (True, False):
        expected = outputs(compiled.to_vm(bit_accurate=bit_accurate).run(x))
        vm, oracle = program.to_vm(bit_accurate=bit_accurate), program.to_oracle(bit_accurate=bit_accurate)
        parts = [outputs(vm.run_timesteps(part)) for part in np.split(x, [cut], axis)]
        ends = outputs(vm.run_timesteps(np.take(x, range(0), axis), end=True))
        joined = [np.concatenate([parts[0][i], parts[1][i], ends[i]], axis) for i in range(len(expected))]
        vm.reset()
        for found in (joined, *(outputs(m.run_timesteps(x, end=True)) for m in (vm, oracle))):
            for a, b in zip(found, expected, strict=True):
                assert a.shape == b.shape
                assert a.tobytes() == b.tobytes()


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32), st.booleans())
def test_random_stacks_keep_the_law(seed: int, once: bool) -> None:
    rng = np.random.default_rng(seed)
    g = random_stack(rng, T, once)
    step = streaming_transform(g, 0)
    assert_streams(g, step, inputs_for(g, seed))
    if once:
        assert step.output_latencies == (0,) * len(g.outputs)
        assert step.step_counter == ""


@settings(max_examples=12, deadline=None)
@given(st.integers(0, 2**32), st.booleans())
def test_random_stacks_have_the_bits_of_the_whole(seed: int, once: bool) -> None:
    rng = np.random.default_rng(seed)
    whole = NNIR(random_stack(rng, T, once))
    assert_bits(whole, whole.streaming_transform(0)[0], inputs_for(whole.graph, seed)[0].astype(np.float32))


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 2**32), st.booleans())
def test_precisions_and_cores_of_the_user_change_nothing_of_that(seed: int, once: bool) -> None:
    """A delay line that cores share is written on all of them, and a prologue knows nothing of cores."""
    rng = np.random.default_rng(seed)
    g = random_stack(rng, T, once)
    wish(rng, g)
    for node in g.walk():
        if rng.random() < 0.3:
            node.cores = (1,) if rng.random() < 0.5 else (0, 1)
    whole = NNIR(g)
    x = inputs_for(g, seed)[0].astype(np.float32)
    assert_bits(whole, whole.streaming_transform(0)[0], x, on=STEP)


class Gated(nn.Module):
    """A layer of a WaveNet: gated taps, a product of its own for the condition, what is left of the input beside it."""

    def __init__(self, channels: int, dilation: int) -> None:
        super().__init__()
        self.taps = nn.Conv1d(channels, 2 * channels, 3, dilation=dilation)
        self.condition, self.mix = nn.Conv1d(1, 2 * channels, 1), nn.Conv1d(channels, channels, 1)

    def forward(
        self, x: torch.Tensor, condition: torch.Tensor, steps: int
    ) -> tuple[torch.Tensor, torch.Tensor]:
        z = self.taps(x)
        left, right = (z + self.condition(condition)[..., -z.shape[2] :]).chunk(2, 1)
        z = torch.tanh(left) * torch.sigmoid(right)
        return x[..., -z.shape[2] :] + self.mix(z), z[..., -steps:]


class WaveNet(nn.Module):
    """(batch, time) samples in and out, padded once by all that its layers take away, as amplifier models are."""

    def __init__(self, channels: int, dilations: list[int]) -> None:
        super().__init__()
        self.first, self.last = nn.Conv1d(1, channels, 1, bias=False), nn.Conv1d(channels, 1, 1)
        self.layers = nn.ModuleList(Gated(channels, d) for d in dilations)
        self.padding = 2 * sum(dilations)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        condition = F.pad(x[:, None], (self.padding, 0))
        h, heard = self.first(condition), torch.zeros(1)
        for layer in self.layers:
            h, skip = layer(h, condition, x.shape[1])
            heard = heard + skip
        return self.last(heard)[:, 0]


@pytest.fixture(scope="module")
def wavenet() -> tuple[NNIR, NNIR, np.ndarray, np.ndarray]:
    """The whole sequence, a step, an input, and what PyTorch makes of it; 1170 samples of zeros in front."""
    torch.manual_seed(0)
    model, x = WaveNet(3, [1, 8, 64, 512]).eval(), torch.randn(1, 12)
    recorded, expected = prepare_shape(model, x)
    whole = to_nnir(recorded)
    return whole, whole.streaming_transform(1)[0], x.numpy(), expected.detach().numpy()


def test_a_wavenet_answers_at_once(wavenet: tuple[NNIR, NNIR, np.ndarray, np.ndarray]) -> None:
    whole, step, x, expected = wavenet
    graph = step.graph
    assert (graph.output_latencies, graph.output_tails, graph.step_counter) == ((0,), (0,), "")
    assert graph.prologue is not None
    assert len(graph.states) == 1170, "what the layers wait for, and no more"
    assert len(graph.prologue.nodes) < 120, "an element that stands there many times is computed once"
    roomy = replace(
        Config.v80_c6b32(), tensor_rows=1 << 16, gather_entries=1 << 16, instruction_slots=1 << 16
    )
    compiled, program = (n.to_program(roomy, quick_compile=True) for n in (whole, step))
    for bit_accurate in (True, False):
        found = program.to_vm(bit_accurate=bit_accurate).run_timesteps(x)
        assert found.tobytes() == compiled.to_vm(bit_accurate=bit_accurate).run(x).tobytes()
    assert np.abs(found - expected).max() < 1e-5
    states = step.initial_states()
    doubles = [step.run(x[:, t], states=states) for t in range(3)]
    assert np.abs(np.stack(doubles, 1) - expected[:, :3]).max() < 1e-5


def small() -> tuple[NNIR, NNIR, np.ndarray]:
    """Two layers of windows behind padding that differs from step to step."""
    g, (x,) = graph((T, 5))
    rng = np.random.default_rng(3)
    y = add(g, "concat", g.constant(rng.normal(size=(4, 5))), x, axis=0)
    for _ in range(2):
        n = y.shape[0] - 2
        taps = [add(g, "slice", y, axis=0, start=k, stop=n + k, step=1) for k in range(3)]
        wide = add(g, "concat", *taps, axis=1)
        y = add(
            g,
            "tanh",
            add(g, "linear", wide, g.constant(rng.normal(size=(5, 15))), g.constant(rng.normal(size=5))),
        )
    g.add_output(y)
    whole = NNIR(g)
    return whole, whole.streaming_transform(0)[0], inputs_for(g)[0].astype(np.float32)


def test_padding_of_different_steps_has_the_bits_of_the_whole() -> None:
    whole, step, x = small()
    assert step.graph.output_latencies == (0,)
    assert len({s.begins for s in step.graph.states if s.begins}) == 2, "each step of it by itself"
    assert_bits(whole, step, x)


def test_a_prologue_is_kept_as_text_and_in_programs() -> None:
    _, step, x = small()
    text = str(step)
    assert 'prologue "prologue" () {' in text
    back = NNIR.parse(text)
    assert str(back) == text
    program = step.to_program(STEP)
    assert back.to_program(STEP).save_bytes() == program.save_bytes()
    assert (
        ProgramBuilder(STEP).add_nnir(back, step.graph.name).to_program().save_bytes() == program.save_bytes()
    )
    for bit_accurate in (True, False):
        made, loaded = (
            p.to_vm(bit_accurate).run_timesteps(x)
            for p in (program, Program.load_bytes(program.save_bytes()))
        )
        assert made.tobytes() == loaded.tobytes()


def test_a_prologue_that_does_not_fit_its_graph_is_refused() -> None:
    _, step, _ = small()
    with pytest.raises(GraphError, match="its states begin with what a prologue computes") as caught:
        compile_graphs([Job("step", step.graph, (0,))], STEP)
    assert "NNIR.to_program" in str(caught.value.remedy)
    text = str(step)
    for wrong, what in (
        (text.replace('from "begin_0"', 'from "begin_7"'), "begins with 'begin_7'"),
        (text[: text.index("prologue")], "and there is none"),
        (
            text.replace('prologue "prologue" ()', 'prologue "prologue" (%more: f32[3])'),
            "the prologue has inputs",
        ),
    ):
        with pytest.raises(GraphError, match=what):
            NNIR.parse(wrong)


def test_a_comparison_starts_from_the_same_states() -> None:
    whole, step, x = small()
    found = step.compare(STEP, x, expected=whole.run(x), what_if=0).outputs[0]
    assert found["reference_max_error"] < 1e-6, "fp64 starts with the prologue in fp64"
    assert found["fp32_max_error"] < 1e-5, "plain fp32 with that of plain fp32"


def test_onnx_has_the_initial_values(tmp_path: Any) -> None:
    runtime = pytest.importorskip("onnxruntime")
    whole, step, x = small()
    step.to_onnx(tmp_path / "step.onnx")
    session = runtime.InferenceSession(tmp_path / "step.onnx")
    names = [o.name for o in session.get_outputs()]
    held: dict[str, np.ndarray] = {}
    found = []
    states = [s.name for s in step.graph.states]
    for t in range(T):
        result = dict(zip(names, session.run(None, {"x0": x[t], **held}), strict=True))
        found.append(result.pop(names[0]))
        held = dict(zip(states, result.values(), strict=True))
    np.testing.assert_allclose(np.stack(found), whole.run(x), atol=1e-5)


def test_what_an_input_decides_is_not_known_before_it_comes() -> None:
    """A gain that does not stream: what it makes of the padding is there in the first step, not before it."""
    g, (x, gain) = graph((T, 3), (3,))
    padded = add(g, "concat", g.constant(np.ones((2, 3))), x, axis=0)
    y = add(g, "mul", padded, gain)
    taps = [add(g, "slice", y, axis=0, start=k, stop=T + k, step=1) for k in (0, 2)]
    g.add_output(add(g, "add", *taps))
    step = streaming_transform(g, [0, None])
    assert step.output_latencies == (2,)
    assert step.prologue is None
    assert_streams(g, step, inputs_for(g))


def test_the_first_step_and_padding_behind_the_end() -> None:
    """cat(x[:1] * 2, x[1:] + 1, zeros): both ends of a sequence at once."""
    g, (x,) = graph((T, 3))
    first = add(g, "mul", add(g, "slice", x, axis=0, start=0, stop=1, step=1), g.constant(2.0))
    rest = add(g, "add", add(g, "slice", x, axis=0, start=1, stop=T, step=1), g.constant(1.0))
    both = add(g, "concat", first, rest, g.constant(np.zeros((1, 3))), axis=0)
    taps = [add(g, "slice", both, axis=0, start=k, stop=T + k, step=1) for k in (0, 1)]
    g.add_output(add(g, "max", *taps))
    assert_streams(g, streaming_transform(g, 0), inputs_for(g))
