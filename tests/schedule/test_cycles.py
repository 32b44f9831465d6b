"""The regression gate of the schedule: exact cycles of fixed models on two boards, as text that a reviewer reads.

A change that makes a program faster or slower shows as a difference from tests/golden/cycles.txt. To accept it, run

    LTC_REFRESH_CYCLES=1 python -m pytest tests/schedule/test_cycles.py

and say in CHANGELOG.md why the figures moved. Weights are random: cycles do not depend on values.
"""

from __future__ import annotations

import difflib
import os
from dataclasses import replace

import pytest
from folders import GOLDEN
from programs_for_timing import simulated

from ltc_compiler import Config, ProgramBuilder
from ltc_compiler.oracle.clock import estimate
from ltc_compiler.program import Program
from zoo import ZOO, step_graph

CYCLES = GOLDEN / "cycles.txt"
REFRESH = "LTC_REFRESH_CYCLES"
BOARDS = ("v80_c6b32", "ia_840f_c3b64")

# Models of the zoo, one step where they stream, else the whole: small ones of many kinds.
SMALL = (
    "mlp_sequence", "activations", "reductions", "norms", "causal_convolutions", "strided_convolutions", "depthwise",
    "tcn", "wavenet", "attention", "causal_attention", "windowed_attention", "transformer_block", "state_space",
    "lstm", "lstm_two_layers", "lstm_projected", "lstm_bidirectional", "gru", "rnn_tanh", "ltc", "ltc_mixed",
    "ltc_spans", "ltc_explicit", "cfc", "cfc_pure", "cfc_no_gate", "cfc_wired", "gated_ltc", "gated_ltc_rk4",
    "ode_midpoint", "ode_rk4", "user_scan",
)  # fmt: skip


# Of trained size.
LARGE = (
    "mlp 256-384-384-128", "mlp 4x512", "slp 1024-1024", "convolution 64x8", "lstm 1x354", "lstm 2x128", "lstm 4x177",
    "ltc AutoNCP(32, 8)", "ltc FullyConnected(64)", "cfc 64", "gru 2x256", "lstm 1x96, 20 steps at once",
    "lstm 2x128, fp32", "mlp 256-384-384-128, fp8", "ltc AutoNCP(32, 8), fp32",
)  # fmt: skip
TOGETHER = ("lstm 2x128", "cfc 64")  # as two models of one program


def table() -> str:
    """A line a model and board: cycles spaced, contiguous and from one inference to the next, and instructions."""
    graphs = {name: step_graph(ZOO[name]) for name in (*SMALL, *LARGE)}
    lines = [
        f"{'model':28} {'board':14} {'spaced':>7} {'contiguous':>11} {'interval':>9} {'instructions':>13}"
    ]
    for name, nnir in graphs.items():
        lines += [row(name, nnir.to_program(Config.preset(board))) for board in BOARDS]
    for board in BOARDS:
        builder = ProgramBuilder(Config.preset(board))
        for name in TOGETHER:
            builder.add_nnir(graphs[name], name)
        program = builder.to_program()
        lines += [row(f"{name}, of {len(TOGETHER)} models", program, i) for i, name in enumerate(TOGETHER)]
    return "\n".join(lines) + "\n"


def row(name: str, program: Program, model: int = 0) -> str:
    """The line of a model, whose cycles the compiler's own clock counts like the simulator's."""
    assert simulated(program.image, model_index=model) == estimate(program.image, model)
    spaced, contiguous = (program.cycle_count_per_inference(model, mode) for mode in (True, False))
    interval, code = program.cycle_interval_per_inference(model), program.image.models[model]
    counts = f"{spaced:7} {contiguous:11} {interval:9g} {code.end - code.begin:13}"
    return f"{name:28} {program.hw_config.name:14} {counts}"


def difference(golden: str, found: str) -> str:
    """Nothing if they are equal, else the changed lines, old above new."""
    lines = difflib.unified_diff(golden.splitlines(), found.splitlines(), "golden", "found", lineterm="", n=0)
    return "\n".join(lines)


def test_cycles_are_those_that_were_accepted() -> None:
    found = table()
    if os.environ.get(REFRESH):
        CYCLES.write_text(found, encoding="utf-8")
        pytest.skip(f"{CYCLES.name} is written anew: read its difference, and say in CHANGELOG.md why")
    changed = difference(CYCLES.read_text(encoding="utf-8"), found)
    if changed:
        remedy = f"if they should, run this with {REFRESH}=1 and say in CHANGELOG.md why"
        pytest.fail(f"cycles changed; {remedy}\n{changed}", pytrace=False)


@pytest.mark.parametrize("name", LARGE)
def test_six_read_ports_are_enough(name: str) -> None:
    """What docs/machine.md says of the presets: with more ports these models would be no faster."""
    image = step_graph(ZOO[name]).to_program(Config.v80_c6b32()).image
    config = replace(image.config, read_ports=16)
    assert config.read_ports > image.config.read_ports == 6
    few, many = (
        Program(replace(image, config=c)).cycle_summary_per_inference() for c in (image.config, config)
    )
    assert few == many


def test_a_change_of_one_cycle_shows() -> None:
    golden = CYCLES.read_text(encoding="utf-8")
    line = golden.splitlines()[-1]
    spaced = line.split()[-4]
    slower = line.replace(f" {spaced} ", f" {int(spaced) + 1} ", 1)
    changed = difference(golden, golden.replace(line, slower))
    assert f"-{line}" in changed
    assert f"+{slower}" in changed
    assert difference(golden, golden) == ""
