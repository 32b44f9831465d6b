"""The law: the simulator and the reference machine agree bit for bit, on any program, input and state."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from random_programs import DRAWN, draw, inputs_of, values

from ltc_compiler.bytecode import Image, disassemble
from ltc_compiler.errors import ConfigError
from ltc_compiler.program import Program

F32 = NDArray[np.float32]

RUNS = 3


def bits(array: F32) -> NDArray[np.uint32]:
    return np.asarray(array, np.float32).view(np.uint32)


def compare(image: Image, seed: int, bit_accurate: bool) -> None:
    """Run both on the same random inputs and states, and compare every output and state."""
    program = Program(image)
    vm, oracle = program.to_vm(bit_accurate), program.to_oracle(bit_accurate)
    rng = np.random.default_rng(seed)
    model = image.models[0]
    assert_same(image, vm.state, oracle.state, "initial state")
    for turn in range(RUNS):
        inputs = inputs_of(rng, model)
        found, expected = vm.run(*inputs), oracle.run(*inputs)
        found, expected = (r if isinstance(r, tuple) else (r,) for r in (found, expected))
        for port, mine, theirs in zip(model.outputs, found, expected, strict=True):
            assert_same(image, {port.name: mine}, {port.name: theirs}, f"run {turn}")
        assert_same(image, vm.state, oracle.state, f"state after run {turn}")
        state = {s.name: values(rng, s.shape) for s in model.states}
        for machine in (vm, oracle):
            if turn < RUNS - 2:
                machine.set_state(state)
            else:  # the last run shows the copies of a state too, as every row that there is
                machine.reset()
        assert_same(image, vm.state, oracle.state, f"state set after run {turn}")


def assert_same(image: Image, found: dict[str, F32], expected: dict[str, F32], when: str) -> None:
    for name, theirs in expected.items():
        differ = np.argwhere(bits(found[name]) != bits(theirs))
        if len(differ):
            at = tuple(differ[0])
            pytest.fail(
                f"{when}: {name}{[int(i) for i in at]} and {len(differ) - 1} more differ: the simulator has"
                f" {bits(found[name])[at]:#010x}, the oracle {bits(theirs)[at]:#010x}\n{disassemble(image.code)}"
            )


@settings(max_examples=150, deadline=None)
@given(st.integers(0, 2**32), st.integers(4, 60))
def test_random_programs(seed: int, size: int) -> None:
    compare(draw(seed, size), seed, bit_accurate=True)


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 2**32), st.integers(4, 60))
def test_random_programs_in_plain_fp32(seed: int, size: int) -> None:
    compare(draw(seed, size), seed, bit_accurate=False)


@pytest.mark.parametrize("simd", ["sse2", "avx2", "avx512", "avx512_bf16"])
def test_every_instruction_set(simd: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LTC_SIMD", simd)
    try:
        found = Program(draw(0)).to_vm().metrics()["simd"]
    except ConfigError as error:
        pytest.skip(error.what)
    assert found == simd
    for seed in range(40):
        compare(draw(seed, 40), seed, bit_accurate=seed % 4 != 0)


@pytest.mark.parametrize("name", DRAWN)
def test_every_instruction(name: str) -> None:
    """Each instruction often, so that a fault in a rare one is found in every run."""
    for seed in range(8):
        compare(draw(seed, 12, names=(name, "move")), seed, bit_accurate=True)
        compare(draw(seed, 12, names=(name, "move")), seed, bit_accurate=False)
