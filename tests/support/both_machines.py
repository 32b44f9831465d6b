"""The simulator beside the reference machine: the same inputs and states, and the same bits, or the test fails."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from random_programs import inputs_of, values

from ltc_compiler.bytecode import Image, disassemble
from ltc_compiler.program import Program

F32 = NDArray[np.float32]
Arrays = tuple[Any, ...]

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
    for run in range(RUNS):
        inputs = inputs_of(rng, model)
        found, expected = vm.run(*inputs), oracle.run(*inputs)
        found, expected = (r if isinstance(r, tuple) else (r,) for r in (found, expected))
        for port, mine, theirs in zip(model.outputs, found, expected, strict=True):
            assert_same(image, {port.name: mine}, {port.name: theirs}, f"run {run}")
        assert_same(image, vm.state, oracle.state, f"state after run {run}")
        state = {s.name: values(rng, s.shape) for s in model.states}
        for machine in (vm, oracle):
            if run < RUNS - 2:
                machine.set_state(state)
            else:  # the last run shows the copies of a state too, as every row that there is
                machine.reset()
        assert_same(image, vm.state, oracle.state, f"state set after run {run}")


def assert_same(image: Image, found: dict[str, F32], expected: dict[str, F32], when: str) -> None:
    for name, theirs in expected.items():
        differ = np.argwhere(bits(found[name]) != bits(theirs))
        if len(differ):
            at = tuple(differ[0])
            pytest.fail(
                f"{when}: {name}{[int(i) for i in at]} and {len(differ) - 1} more differ: the simulator has"
                f" {bits(found[name])[at]:#010x}, the oracle {bits(theirs)[at]:#010x}\n{disassemble(image.code)}"
            )


def outputs(result: Any) -> Arrays:
    return result if isinstance(result, tuple) else (result,)


def same(a: Arrays, b: Arrays) -> bool:
    return all(x.tobytes() == y.tobytes() for x, y in zip(a, b, strict=True))


def run_both(program: Program, inputs: list[Any], bit_accurate: bool) -> Arrays:
    """The simulator's outputs, after comparing them with the oracle's."""
    found = outputs(program.to_vm(bit_accurate=bit_accurate).run(*inputs))
    expected = outputs(program.to_oracle(bit_accurate=bit_accurate).run(*inputs))
    assert same(found, expected), f"VM and oracle differ, bit_accurate={bit_accurate}"
    return found
