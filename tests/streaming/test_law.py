"""The streaming law on the machine: step by step equals the whole sequence, bit for bit."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from generators import random_graph, random_inputs
from hypothesis import given, settings
from hypothesis import strategies as st

from ltc_compiler.config import Config
from ltc_compiler.nnir import NNIR

# Room for every random graph: how much fits is not what these tests ask.
WHOLE, STEP = (
    replace(c, tensor_rows=1 << 16, gather_entries=1 << 16)
    for c in (Config.tiny_c1b8(), Config.small_c2b16())
)


def outputs(result: Any) -> tuple[Any, ...]:
    return result if isinstance(result, tuple) else (result,)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32), st.booleans())
def test_step_by_step_equals_the_whole_sequence(seed: int, bit_accurate: bool) -> None:
    rng = np.random.default_rng(seed)
    whole = NNIR(random_graph(rng, streamable=True))
    steps = whole.graph.inputs[0].shape[0]
    inputs = [x.astype(np.float32) for x in random_inputs(rng, whole.graph)]
    step, axes = whole.streaming_transform(0)
    latencies = step.graph.output_latencies
    assert latencies is not None
    expected = outputs(whole.to_program(WHOLE).to_vm(bit_accurate=bit_accurate).run(*inputs))
    vm = step.to_program(STEP).to_vm(bit_accurate=bit_accurate)
    for _ in range(2):  # the second time after a reset
        found = [outputs(vm.run(*(x[t] for x in inputs))) for t in range(steps)]
        for i, (y, axis, late) in enumerate(zip(expected, outputs(axes), latencies, strict=True)):
            check_output(y, [f[i] for f in found], axis, late)
        vm.reset()
        aligned = outputs(vm.run_timesteps(*inputs, end=True))
        for y, found_whole, axis in zip(expected, aligned, outputs(axes), strict=True):
            assert (found_whole[-1] if axis is None else found_whole).tobytes() == y.tobytes()
        vm.reset()


def check_output(whole: Any, steps: list[Any], axis: int | None, late: int) -> None:
    """Element t of the whole output comes out at step t + late; one without the axis is as of the last step."""
    if axis is None:
        assert steps[-1].tobytes() == whole.tobytes()
        return
    for t in range(whole.shape[axis]):
        if 0 <= t + late < len(steps):
            assert steps[t + late].tobytes() == np.take(whole, t, axis).tobytes(), f"step {t}"


ONE_STEP = """graph "net" (%x: f32[8,2]) {
  %start = constant() {value=splat(0.3)} : f32[8,2]
  %times = constant() {value=dense(0.25)} : f32[1]
  %last, %seen = scan(%start, %times, %x) {carries=1, scanned=1, trip_count=1, in_axes=(0), out_axes=(1)} : f32[8,2], f32[8,1,2] body "once" (%h: f32[8,2], %t: f32[], %x: f32[8,2]) {
    %s = sin(%t) : f32[]
    %m = mul(%h, %s) : f32[8,2]
    %n = add(%h, %x) : f32[8,2]
    return %n, %m
  }
  %zero = constant() {value=splat(0.01)} : f32[1,2]
  %h = scan(%zero, %seen) {carries=1, scanned=1, trip_count=8, in_axes=(0), out_axes=()} : f32[1,2] body "cell" (%h: f32[1,2], %y: f32[1,2]) {
    %a = add(%h, %y) : f32[1,2]
    %c = constant() {value=dense(1.1)} : f32[]
    %b = mul(%a, %c) : f32[1,2]
    return %b
  }
  return %h, %last
}
"""  # noqa: E501


def test_what_a_loop_of_one_step_makes_of_constants_is_a_constant_of_the_stream_too() -> None:
    whole = NNIR.parse(ONE_STEP)
    x = np.random.default_rng(3).normal(size=(8, 2)).astype(np.float32)
    step, _ = whole.streaming_transform(0)
    for bit_accurate in (True, False):
        last, sums = whole.to_program(WHOLE).to_vm(bit_accurate).run(x)
        found, found_sums = step.to_program(STEP).to_vm(bit_accurate).run_timesteps(x, end=True)
        assert found[-1].tobytes() == last.tobytes()
        assert found_sums.tobytes() == sums.tobytes()
