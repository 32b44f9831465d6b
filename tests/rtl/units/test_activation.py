"""The activation unit on all 65,536 inputs of every function, against the tables that define them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from verilated import ARITHMETIC, RTL, UNITS, build, needs_verilator, step

from ltc_compiler import numerics
from ltc_compiler.numerics import segment_images, segments

LANES = 8
INPUTS = np.arange(65536, dtype=np.uint16)


@pytest.mark.parametrize("name", numerics.ACTIVATIONS)
def test_segments_are_the_table(name: str) -> None:
    """By the definition of a segment alone, without hardware."""
    np.testing.assert_array_equal(segments.segments().evaluate(name, INPUTS), numerics.ACTIVATIONS_BF16[name])


def test_the_numbers_that_the_documents_give() -> None:
    """docs/numerics.md, rule 9: all segments, and those of sine and cosine."""
    tables = segments.segments()
    ends = (tables.first + 2**tables.splits).max(axis=(1, 2))
    sine = numerics.ACTIVATIONS.index("sin")
    assert (len(tables.slope), ends[sine + 1] - ends[sine - 1]) == (39662, 32692)


@needs_verilator
@pytest.mark.parametrize("latency", [5, 7])
def test_every_input_of_every_function(tmp_path: Path, latency: int) -> None:
    """A row every cycle, the functions mixed; the lower half of each fp32 number is rounded away."""
    segment_images.write(tmp_path)
    sources = [*ARITHMETIC, tmp_path / segment_images.PACKAGE_FILE, RTL / "units" / "activation_bf16.sv"]
    bench = build("activation_bench", [*sources, UNITS / "activation_bench.sv"], LANES=LANES, LATENCY=latency)
    functions, rows = len(numerics.ACTIVATIONS), len(INPUTS) // LANES
    which = np.tile(np.arange(functions), rows)
    x = np.repeat(INPUTS.reshape(rows, LANES), functions, axis=0).astype(np.uint32) << 16
    x ^= np.where(np.random.default_rng(1).random(x.shape) < 0.5, np.uint32(0x7FFF), np.uint32(0))
    finite = (x & 0x7FFFFFFF) < 0x7F7F0000
    x = np.where(finite, x, x & np.uint32(0xFFFF0000))
    expected = np.zeros_like(x)
    for function, name in enumerate(numerics.ACTIVATIONS):
        here = which == function
        expected[here] = numerics.bits(numerics.activation_bf16(name, numerics.from_bits(x[here])))
    stimulus = np.concatenate([x, which[:, None].astype(np.uint32)], axis=1)
    stimulus = np.concatenate([stimulus, np.zeros((latency - 1, stimulus.shape[1]), np.uint32)])
    np.testing.assert_array_equal(step(bench, stimulus, tmp_path)[latency - 1 :], expected)
