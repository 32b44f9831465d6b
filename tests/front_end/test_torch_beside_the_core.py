"""PyTorch in the process of the core: its tensors as inputs of a VM, and its switch that flushes subnormal numbers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from float_environment import DAZ, FTZ, SEEDS, X86_ONLY, mxcsr, plainly, runs_of_a_program
from ltcasm import file_image

from ltc_compiler import numerics
from ltc_compiler.errors import InputError, LtcError
from ltc_compiler.program import Program
from ltc_compiler.vm import VM


@pytest.fixture
def vm() -> VM:
    """total += x * dt."""
    return Program(file_image("elapsed")).to_vm()


def test_cpu_tensors_are_read(vm: VM) -> None:
    np.testing.assert_array_equal(vm.run(torch.tensor([1.0, 2.0]), torch.tensor(0.5)), [0.5, 1])
    x = torch.tensor([1.0, 2.0], dtype=torch.bfloat16)
    np.testing.assert_array_equal(vm.run(x, torch.tensor(0.5)), [1, 2])


def test_tensors_that_cannot_be_read_are_refused(vm: VM) -> None:
    cases = [
        (torch.ones(2, requires_grad=True), "requires grad", "detach"),
        (torch.ones(2, device="meta"), "on meta", "cpu"),
        (torch.ones(2, dtype=torch.float64), "torch.float64", "float()"),
    ]
    for tensor, what, remedy in cases:
        with pytest.raises(InputError, match=what) as caught:
            vm.run(tensor, torch.tensor(0.5))
        assert remedy in caught.value.remedy
    np.testing.assert_array_equal(vm.state["total"], [0, 0])


@X86_ONLY
def test_torch_can_flush_without_changing_a_bit() -> None:
    if not torch.set_flush_denormal(True):
        pytest.skip("this CPU has no flush mode that torch knows")

    def call(entry: Callable[[], Any]) -> Any:
        torch.set_flush_denormal(True)
        try:
            result, left = entry(), mxcsr()
        finally:
            torch.set_flush_denormal(False)
        assert left & (FTZ | DAZ) == FTZ | DAZ
        return result

    for seed in SEEDS:
        assert runs_of_a_program(seed, True, call) == runs_of_a_program(seed, True, plainly)


def test_a_thread_that_torch_lets_flush_is_refused() -> None:
    if not torch.set_flush_denormal(True):
        pytest.skip("this CPU has no flush mode that torch knows")
    try:
        with pytest.raises(LtcError, match="flushes subnormal numbers"):
            numerics.require_ieee()
    finally:
        torch.set_flush_denormal(False)
    numerics.require_ieee()
