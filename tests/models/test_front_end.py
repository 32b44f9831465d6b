"""Every model of the zoo: recorded, converted, and evaluated on other inputs than the recorded, against PyTorch."""

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from ltc_compiler.ir.graph import Role
from ltc_torch.fx import prepare_shape
from ltc_torch.fx.nnir import to_nnir
from zoo import SMALL, Inputs, ZooModel, build, context

# In fp64 the two differ by rounding alone; in fp32 by the model's own.
TOLERANCE = {torch.float64: 1e-9, torch.float32: 1e-5}


@pytest.fixture(autouse=True)
def _default_dtype() -> Iterator[None]:
    yield
    torch.set_default_dtype(torch.float32)


def tensors(tree: object) -> list[Tensor]:
    return [t for t in pytree.tree_leaves(tree) if isinstance(t, Tensor)]


def run(model: nn.Module, inputs: Inputs) -> list[np.ndarray]:
    with torch.no_grad():
        return [t.double().numpy() for t in tensors(model(*pytree.tree_map(torch.clone, inputs)))]


def others(inputs: Inputs) -> Inputs:
    """Other values of the same kind: what was positive (elapsed times) stays positive."""

    def other(x: Tensor) -> Tensor:
        return x * 1.25 if bool((x >= 0).all()) else x + 0.3 * torch.randn_like(x)

    return pytree.tree_map(other, inputs)


def largest_error(wanted: list[np.ndarray], given: list[np.ndarray]) -> float:
    assert [w.shape for w in wanted] == [g.shape for g in given]
    return max(
        float(np.abs(w - g).max() / (np.abs(w).max() + 1e-9)) for w, g in zip(wanted, given, strict=True)
    )


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["fp64", "fp32"])
@pytest.mark.parametrize("case", SMALL.values(), ids=list(SMALL))
def test_model_equals_its_nnir(case: ZooModel, dtype: torch.dtype) -> None:
    torch.set_default_dtype(dtype)
    model, inputs = build(case, dtype)
    graph_module, expected = prepare_shape(model, *inputs)
    nnir = to_nnir(graph_module)
    assert largest_error(run(model, inputs), [t.detach().double().numpy() for t in tensors(expected)]) == 0
    for x in (inputs, others(inputs)):
        given = nnir.run(*(t.double().numpy() for t in tensors(x)))
        given = list(given) if isinstance(given, (tuple, list)) else [given]
        assert largest_error(run(model, x), given) < TOLERANCE[dtype]


STREAMED = [case for case in SMALL.values() if case.streaming is not None]


@pytest.mark.parametrize("case", STREAMED, ids=[c.name for c in STREAMED])
def test_streaming_equals_the_whole_sequence(case: ZooModel) -> None:
    axes = case.streaming
    assert axes is not None
    model, inputs = build(case)
    nnir = to_nnir(prepare_shape(model, *inputs)[0], context=context(case, inputs))
    step, output_axes = nnir.streaming_transform(axes)
    arrays = [x.double().numpy() for x in tensors(inputs)]
    whole = pytree.tree_leaves(nnir.run(*arrays))
    states = step.initial_states()
    length = arrays[0].shape[axes[0] or 0]
    latencies = step.graph.output_latencies
    assert latencies is not None
    rows = []
    for k in range(length):
        slices = [a if axis is None else np.take(a, k, axis) for a, axis in zip(arrays, axes, strict=True)]
        rows.append(pytree.tree_leaves(step.run(*slices, states=states)))
    spread = output_axes if isinstance(output_axes, tuple) else (output_axes,)
    for i, (wanted, axis) in enumerate(zip(whole, spread, strict=True)):
        given = rows[-1][i] if axis is None else np.stack([row[i] for row in rows[latencies[i] :]], axis)
        assert np.abs(given - wanted).max() < 1e-12


def test_elapsed_times_are_known_to_the_host() -> None:
    """The role is found through squeezes, slices and the scan over time, and given to nothing else."""
    for name, roles in {
        "ltc_spans": [Role.PLAIN, Role.ELAPSED_TIME],
        "ltc_spans_column": [Role.PLAIN, Role.ELAPSED_TIME],
        "ltc_cell": [Role.PLAIN, Role.PLAIN, Role.ELAPSED_TIME],
        "gated_ltc_spans": [Role.PLAIN, Role.ELAPSED_TIME],
        "ltc_state": [Role.PLAIN, Role.PLAIN],
        "user_scan": [Role.PLAIN, Role.PLAIN],
    }.items():
        model, inputs = build(SMALL[name])
        graph = to_nnir(prepare_shape(model, *inputs)[0]).graph
        assert [v.role for v in graph.inputs] == roles, name


def test_ltc_is_two_scans_and_two_synapse_ops_whatever_its_length() -> None:
    model, inputs = build(SMALL["ltc"])
    for length in (6, 60):
        x = torch.randn(2, length, inputs[0].shape[2])
        graph = to_nnir(prepare_shape(model, x)[0]).graph
        ops = [node.op for node in graph.walk() if node.op in ("scan", "synapse")]
        assert sorted(ops) == ["scan", "scan", "synapse", "synapse"]
        counts = [n.attrs["trip_count"] for n in graph.walk() if n.op == "scan"]
        assert counts == [length, 6]


def test_constants_fold_in_fp64() -> None:
    """A constant derived from parameters is not rounded to the model's fp32 on the way."""

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.tau = nn.Parameter(torch.tensor([0.1, 0.7]))

        def forward(self, x: Tensor) -> Tensor:
            return x * (1 / nn.functional.softplus(self.tau))

    model = Model()
    graph = to_nnir(prepare_shape(model.eval(), torch.ones(2))[0]).graph
    (constant,) = [n.attrs["value"] for n in graph.nodes if n.op == "constant"]
    tau = model.tau.detach().double().numpy()
    assert np.abs(constant - 1 / np.log1p(np.exp(tau))).max() < 1e-15
