"""Models of the zoo on the machine: recorded under a precision policy, compiled, run on both machines, streamed.

The simulator and the reference machine must agree in every bit, and so must the steps of a streamed model and its whole
sequence. Against PyTorch there is an error, which ERRORS records as it was measured: a test allows FACTOR times that.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from folders import GOLDEN
from numpy.typing import NDArray
from torch.utils import _pytree as pytree

from ltc_compiler import Config
from ltc_compiler.nnir import NNIR
from ltc_compiler.program import Program
from ltc_torch import Fp8Weights, Fp32Activations
from ltc_torch.fx import prepare_shape
from ltc_torch.fx.nnir import to_nnir
from zoo import ZooModel, build, context

F32 = NDArray[np.float32]

# The policies of docs/numerics.md, rule 14: what a user puts around the recording.
POLICIES: dict[str, Callable[[], AbstractContextManager[None]]] = {
    "default": nullcontext,
    "fp32": Fp32Activations,
    "fp8": Fp8Weights,
}

ERRORS = GOLDEN / "model_errors.csv"
FACTOR = 1.25  # of the measured error
FLOOR = 1e-6  # PyTorch's own fp32 rounding, which its kernels may change


@dataclass(frozen=True)
class Recorded:
    """A model's graph, its inputs, and what PyTorch computes from them."""

    case: ZooModel
    nnir: NNIR
    inputs: list[F32]
    expected: list[F32]


def record(case: ZooModel, policy: str) -> Recorded:
    """Record a model of the zoo under a policy."""
    model, inputs = build(case)
    with POLICIES[policy]():
        graph_module, expected = prepare_shape(model, *inputs)
    tensors = [t for t in pytree.tree_leaves(expected) if isinstance(t, torch.Tensor)]
    given = pytree.tree_leaves(inputs)
    arrays = [[t.detach().numpy().copy() for t in group] for group in (given, tensors)]
    return Recorded(case, to_nnir(graph_module, context=context(case, inputs)), *arrays)


def error(found: Sequence[F32], expected: Sequence[F32]) -> float:
    """The largest difference of any output, relative to that output's largest element."""
    assert [f.shape for f in found] == [e.shape for e in expected]
    return max(
        float(np.abs(f - e).max() / (np.abs(e).max() + 1e-9)) for f, e in zip(found, expected, strict=True)
    )


def run_both(program: Program, inputs: Sequence[F32]) -> list[F32]:
    """The outputs of one run, the same bits on the simulator and on the reference machine."""
    found, expected = _leaves(program.to_vm().run(*inputs)), _leaves(program.to_oracle().run(*inputs))
    assert_same_bits(found, expected, "the simulator and the oracle")
    return found


def assert_same_bits(found: Sequence[F32], expected: Sequence[F32], what: str) -> None:
    """Two lists of outputs agree in every bit."""
    assert len(found) == len(expected)
    for i, (a, b) in enumerate(zip(found, expected, strict=True)):
        assert a.shape == b.shape, f"{what}: output {i}"
        assert a.tobytes() == b.tobytes(), f"{what} differ in output {i} by up to {np.abs(a - b).max()}"


def assert_streams(recorded: Recorded, config: Config, whole: Sequence[F32]) -> None:
    """The law: step by step, on both machines, gives the bits of the whole sequence; after a reset again."""
    axes = recorded.case.streaming
    assert axes is not None
    step, output_axes = recorded.nnir.streaming_transform(axes)
    late = step.graph.output_latencies
    assert late is not None
    steps = next(x.shape[a] for x, a in zip(recorded.inputs, axes, strict=True) if a is not None)
    program = step.to_program(config)
    vm, oracle = program.to_vm(), program.to_oracle()
    for call in range(2):
        rows = []
        for t in range(steps):
            x = [a if i is None else np.take(a, t, i) for a, i in zip(recorded.inputs, axes, strict=True)]
            rows.append(_leaves(vm.run(*x)))
            if call == 0:
                assert_same_bits(
                    rows[-1], _leaves(oracle.run(*x)), f"step {t} of the simulator and the oracle"
                )
        for i, axis in enumerate(output_axes if isinstance(output_axes, tuple) else (output_axes,)):
            _assert_output(whole[i], [row[i] for row in rows], axis, late[i])
        vm.reset()
    for machine in (vm, program.to_oracle()):
        aligned = _leaves(machine.run_timesteps(*recorded.inputs, input_timestep_dim=axes, end=True))
        at_the_end = [
            a if i is not None else a[-1]
            for a, i in zip(aligned, step.graph.output_streaming_dims or (), strict=True)
        ]
        assert_same_bits(at_the_end, whole, "the stream with its end and the whole sequence")


def _assert_output(whole: F32, rows: Sequence[F32], axis: int | None, late: int) -> None:
    """Element t of the whole comes out at step t + late; an output without the axis is as of the last step."""
    if axis is None:
        assert rows[-1].tobytes() == whole.tobytes(), "the last step and the whole sequence differ"
        return
    for t in range(min(whole.shape[axis], len(rows) - late)):
        assert rows[t + late].tobytes() == np.take(whole, t, axis).tobytes(), (
            f"step {t} differs from the whole"
        )


def measured() -> dict[str, dict[str, float]]:
    """The recorded errors: model -> policy -> error against PyTorch."""
    with ERRORS.open(newline="") as file:
        return {row["model"]: {p: float(row[p]) for p in POLICIES} for row in csv.DictReader(file)}


def write_measured(errors: dict[str, dict[str, float]]) -> None:
    """Replace the recorded errors."""
    lines = [",".join(["model", *POLICIES])]
    lines += [",".join([name, *(f"{row[p]:.3g}" for p in POLICIES)]) for name, row in errors.items()]
    ERRORS.write_text("\n".join(lines) + "\n")


def _leaves(outputs: Any) -> list[F32]:
    return list(outputs) if isinstance(outputs, tuple) else [outputs]
