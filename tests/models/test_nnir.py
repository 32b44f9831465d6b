"""Every model of the zoo, as NNIR: its text, what the passes make of it, and its steps mean what the graph means."""

from __future__ import annotations

import numpy as np
import pytest
from nnir_cases import assert_same, assert_streams

from ltc_compiler.ir.graph import Array, Graph
from ltc_compiler.ir.parse import parse_graph
from ltc_compiler.ir.run import evaluate
from ltc_compiler.ir.text import print_graph
from ltc_compiler.ir.verify import verify
from ltc_compiler.transforms.pipeline import run_pipeline
from ltc_compiler.transforms.streaming.transform import streaming_transform
from ltc_torch.fx import prepare_shape
from ltc_torch.fx.nnir import to_nnir
from zoo import SMALL, ZooModel, build, context

CASES = [pytest.param(case, id=name) for name, case in SMALL.items()]


def convert(case: ZooModel) -> tuple[Graph, list[Array]]:
    """The graph, and inputs in [0, 1), which may be elapsed times."""
    model, inputs = build(case)
    graph = to_nnir(prepare_shape(model, *inputs)[0], context=context(case, inputs)).graph
    rng = np.random.default_rng(0)
    return graph, [rng.uniform(0, 1, v.shape) for v in graph.inputs]


@pytest.mark.parametrize("case", CASES)
def test_text_and_passes_keep_a_model(case: ZooModel) -> None:
    graph, inputs = convert(case)
    text = print_graph(graph)
    assert print_graph(parse_graph(text)) == text
    compiled = run_pipeline(graph)
    verify(compiled, folded=True)
    assert_same(evaluate(compiled, inputs), evaluate(graph, inputs), case.name)


@pytest.mark.parametrize(
    "case", [p for p, c in zip(CASES, SMALL.values(), strict=True) if c.streaming is not None]
)
def test_a_model_streams(case: ZooModel) -> None:
    assert case.streaming is not None
    graph, inputs = convert(case)
    step = streaming_transform(graph, case.streaming)
    assert_streams(graph, step, inputs)
    assert_streams(graph, run_pipeline(step), inputs)
