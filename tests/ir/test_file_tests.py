"""File tests of NNIR: tests/filetests/nnir/*.nnir hold a graph, what passes make of it, and numbers.

    // what the test is about
    // run: fold, cleanup                 passes by name, or `stream 0`
    // input: [[1, 2], [3, 4]]            one line for each input
    // output: [[2, 4], [6, 8]]           one line for each output
    graph ...
    // becomes
    graph ...

The first graph prints back as written, the passes give the second one, and both compute the numbers. LTC_UPDATE=1
writes what the passes give into the file instead, for people to read before they keep it.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
from folders import FILETESTS
from nnir_cases import run_steps

from ltc_compiler.ir.graph import Graph
from ltc_compiler.ir.parse import parse_graph
from ltc_compiler.ir.run import evaluate
from ltc_compiler.ir.text import print_graph
from ltc_compiler.ir.verify import verify
from ltc_compiler.transforms.pipeline import PASSES
from ltc_compiler.transforms.streaming.transform import streaming_transform

FILES = sorted((FILETESTS / "nnir").glob("*.nnir"))
BECOMES = "// becomes\n"
PASS = {p.name: p.run for p in PASSES}


def directives(text: str, key: str) -> list[str]:
    start = f"// {key}: "
    return [line.removeprefix(start) for line in text.splitlines() if line.startswith(start)]


def transform(graph: Graph, step: str) -> Graph:
    words = step.split()
    return streaming_transform(graph, int(words[1])) if words[0] == "stream" else PASS[step](graph)


def outputs_of(graph: Graph, inputs: list[np.ndarray]) -> list[np.ndarray]:
    """Of a step graph: the outputs of all steps together, or the last one of those that have no steps."""
    if graph.input_streaming_dims is None:
        return evaluate(graph, inputs)
    steps = run_steps(graph, inputs)
    dims, late = graph.output_streaming_dims or (), graph.output_latencies or ()
    return [
        steps[-1][i] if dim is None else np.stack([s[i] for s in steps[late[i] :]], dim)
        for i, dim in enumerate(dims)
    ]


def test_there_are_files() -> None:
    assert len(FILES) >= 8


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.stem)
def test_file(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    before, _, expected = text.partition(BECOMES)
    graph = parse_graph(before)
    assert print_graph(graph) == before[before.index("graph ") :]
    made = graph
    for step in directives(before, "run")[0].split(", "):
        made = transform(made, step)
        verify(made)
    if os.environ.get("LTC_UPDATE"):
        path.write_text(before + BECOMES + print_graph(made), encoding="utf-8")
        return
    assert print_graph(made) == expected
    inputs = [np.array(json.loads(line)) for line in directives(before, "input")]
    numbers = [np.array(json.loads(line)) for line in directives(before, "output")]
    for candidate in (graph, made, parse_graph(expected)):
        found = outputs_of(candidate, inputs)
        assert len(found) == len(numbers)
        for a, b in zip(found, numbers, strict=True):
            assert a.shape == b.shape
            np.testing.assert_allclose(a, b, rtol=1e-12)
