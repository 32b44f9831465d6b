"""Schedules near what the machine allows: a few points of benchmarks/bound.py, and its bounds by hand."""

from __future__ import annotations

import importlib
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from folders import BENCHMARKS

from ltc_compiler import Config
from ltc_compiler.transforms.pipeline import run_pipeline
from zoo import SWEEP, step_graph

sys.path.insert(0, str(BENCHMARKS))
bound: Any = importlib.import_module("bound")


@pytest.mark.parametrize(
    ("model", "board", "spaced", "contiguous"),
    [
        ("lstm 1x64", "v80_c6b32", 1.0, 1.0),
        ("lstm 3x128", "v80_c6b32", 1.1, 1.0),
        ("lstm 3x480", "v80_c6b32", 1.0, 1.15),
        ("lstm 1x256", "ia_840f_c3b64", 1.1, 1.0),
        ("gru 2x256", "artena_c8b32", 1.0, 1.15),
        ("mlp 8x512", "v80_c6b32", 0.95, 0.95),
        ("mlp 2x100", "ia_840f_c2b64d", 1.0, 1.0),
        ("cnn 3x128 k8 d1", "v80_c6b32", 1.0, 1.15),
        ("residual 2x64 k4", "v80_c6b32", 1.0, 1.0),
        ("cfc 64", "v80_c6b32", 1.15, 1.15),
    ],
)
def test_cycles_are_near_the_bound(model: str, board: str, spaced: float, contiguous: float) -> None:
    found = bound.measure(step_graph(SWEEP[model]), Config.preset(board))
    assert found["spaced"]["ratio"] <= spaced
    assert found["contiguous"]["ratio"] <= contiguous


def test_the_bounds_of_a_perceptron_by_hand() -> None:
    config = Config.v80_c6b32()
    graph = run_pipeline(step_graph(SWEEP["mlp 8x512"]).graph)
    bounds = bound.Bounds(graph, config, spaced=True)
    latency = config.latency
    assert bounds.work == 8 * 16 * 16
    per_layer = 16 * 16 / 6 + latency.link + latency.matrix
    assert bounds.path == pytest.approx(latency.io_in + 8 * per_layer + latency.io_out)
    assert bounds.depth == latency.matrix + latency.io_out
    assert bounds.cycles == bounds.path > bound.SPARE * bounds.work / 6 + bounds.depth


def test_models_that_do_not_fit_are_named_and_left_out(tmp_path: Path) -> None:
    script = BENCHMARKS / "published_cycles.py"
    options = ["--config", "tiny_c1b8", "--models", "slp"]
    done = subprocess.run(
        [sys.executable, str(script), *options], cwd=tmp_path, capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, done.stderr
    assert "slp input=1024;output=1024;activation=ReLU does not fit: weight blocks of core 0" in done.stdout
    assert "| slp input=128;output=128;activation=ReLU" in done.stdout
    assert "geometric mean" in done.stdout
