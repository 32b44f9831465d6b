"""NNIR as a user meets it: run with checked inputs, explicit states, text on disk, a drawing, streaming."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from generators import random_graph
from hypothesis import given, settings
from hypothesis import strategies as st
from nnir_cases import HERE, graph, leaky

from ltc_compiler.errors import GraphError, InputError
from ltc_compiler.ir.graph import Graph
from ltc_compiler.ir.ops import add
from ltc_compiler.nnir import NNIR


def recurrence() -> NNIR:
    g, (x,) = graph((6, 8))
    final, every = leaky(g, add(g, "neg", x, name="turned & <small>", source=HERE), 8)
    g.add_output(every, "hidden")
    g.add_output(final, "state")
    return NNIR(g)


def test_an_invalid_graph_is_no_nnir() -> None:
    g = Graph("g")
    g.outputs.append(g.constant(1.0))
    with pytest.raises(GraphError, match="1 outputs have 0 names"):
        NNIR(g)


def test_run_gives_one_array_or_a_tuple() -> None:
    x = np.linspace(-1, 1, 48).reshape(6, 8)
    hidden, state = recurrence().run(x)
    assert hidden.shape == (6, 8)
    np.testing.assert_array_equal(hidden[-1], state)
    g, (v,) = graph((2,))
    g.add_output(add(g, "exp", v))
    np.testing.assert_array_equal(NNIR(g).run([0, 1]), np.exp([0.0, 1.0]))


def test_run_in_fp32() -> None:
    x = np.random.default_rng(0).normal(size=(6, 8))
    single, double = recurrence().run(x, dtype=np.float32)[0], recurrence().run(x)[0]
    assert single.dtype == np.float32
    assert double.dtype == np.float64
    assert 0 < np.abs(single - double).max() < 1e-6


@pytest.mark.parametrize(("inputs", "what"), [
    ((), r"0 inputs are given, expected 1 \(%x0\)"),
    ((np.zeros((6, 8)), np.zeros(3)), "2 inputs are given"),
    ((np.zeros((5, 8)),), r"expected numbers of shape \(6, 8\), found float64 of \(5, 8\)"),
    ((np.zeros((6, 8), dtype=complex),), "found complex128"),
    (("text",), "found <U4"),
])  # fmt: skip
def test_bad_inputs_are_refused(inputs: tuple[Any, ...], what: str) -> None:
    with pytest.raises(InputError, match=what):
        recurrence().run(*inputs)


def test_bad_dtypes_are_refused() -> None:
    with pytest.raises(InputError, match="dtype is float16"):
        recurrence().run(np.zeros((6, 8)), dtype=np.float16)


def test_streaming_and_states_that_the_caller_keeps() -> None:
    whole = recurrence()
    step, axes = whole.streaming_transform(0)
    assert axes == (0, None)
    x = np.random.default_rng(1).normal(size=(6, 8))
    states = step.initial_states()
    rows = [step.run(row, states=states) for row in x]
    hidden, final = whole.run(x)
    np.testing.assert_allclose([r[0] for r in rows], hidden, rtol=1e-13)
    np.testing.assert_allclose(rows[-1][1], final, rtol=1e-13)
    np.testing.assert_allclose(states["net.cell.x0"], final, rtol=1e-13)
    np.testing.assert_array_equal(step.initial_states()["net.cell.x0"], np.full(8, 0.25))


def test_one_output_gives_one_axis() -> None:
    g, (x,) = graph((1, 6, 8))
    g.add_output(add(g, "exp", x))
    assert NNIR(g).streaming_transform(-2)[1] == 1


def test_missing_and_wrong_states_are_refused() -> None:
    step, _ = recurrence().streaming_transform(0)
    with pytest.raises(InputError, match=r"the graph has states \(net.cell.x0\) and run was given none"):
        step.run(np.zeros(8))
    with pytest.raises(InputError, match=r"expected shape \(8,\) and found shape \(7,\)"):
        step.run(np.zeros(8), states={"net.cell.x0": np.zeros(7)})
    with pytest.raises(InputError, match="found nothing"):
        step.run(np.zeros(8), states={})


def test_text_and_file(tmp_path: Path) -> None:
    nnir = recurrence()
    nnir.save(tmp_path / "model.nnir")
    assert str(NNIR.load(tmp_path / "model.nnir")) == str(nnir) == str(NNIR.parse(str(nnir)))
    assert repr(nnir) == "NNIR('main': (x0: f32[6,8]) -> (hidden: f32[6,8], state: f32[8]), 3 nodes)"


class Tags(HTMLParser):
    """Fails on a tag that is closed by another one."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.words: list[str] = []

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words.append(data)


def words_of(html: str) -> str:
    parser = Tags()
    parser.feed(html)
    assert not parser.open
    return " ".join(parser.words)


def test_the_drawing_shows_nodes_shapes_sources_and_bodies() -> None:
    html = recurrence()._repr_html_()
    words = words_of(html)
    for part in (
        "%turned & <small>",
        "f32[6,8]",
        "scan",
        "model.py:12",
        "body, 6 times",
        "output hidden",
        "tanh",
    ):
        assert part in words
    assert not re.search(r"(?:href|src)=", html), "the drawing needs nothing from outside"
    assert "state" in words_of(recurrence().streaming_transform(0)[0]._repr_html_())


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32))
def test_every_graph_draws(seed: int) -> None:
    g = random_graph(np.random.default_rng(seed))
    words = words_of(NNIR(g)._repr_html_())
    assert all(node.op in words for node in g.walk())
