"""Tests of the tests: a deliberate fault in the Python half must be noticed by the comparison that guards it.

Each comparison runs without a fault first and must pass, so that what notices a fault notices the fault alone. Faults
in the C++ half need a build each: tests/proof/mutate_core.py plants those.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from both_machines import compare
from folders import ROOT
from programs_for_timing import image as timed_image
from programs_for_timing import machine
from programs_for_timing import op as timed_op
from programs_for_timing import simulated as simulator_count
from random_programs import DRAWN, draw

from ltc_compiler import Config, LtcError, _core, isa, numerics
from ltc_compiler.bytecode import Image, Ring
from ltc_compiler.bytecode.rings import turn
from ltc_compiler.ir.graph import Graph, Node, Type
from ltc_compiler.ir.ops import add
from ltc_compiler.nnir import NNIR
from ltc_compiler.numerics import activations, arithmetic, rounding
from ltc_compiler.oracle import beats, clock, semantics
from ltc_compiler.oracle.clock import estimate
from ltc_compiler.oracle.semantics import SEMANTICS, Semantics
from ltc_compiler.schedule.rows.contents import weight_blocks
from ltc_compiler.schedule.select import matmul, select
from ltc_compiler.schedule.select.lowering import Lowering
from tests.proof.core_faults import FAULTS, Fault, edited

F32 = Any
Patch = pytest.MonkeyPatch
Plant = Callable[[Patch], None]


def noticed(check: Callable[[], None]) -> bool:
    """Whether a comparison fails."""
    try:
        check()
    except (AssertionError, pytest.fail.Exception):
        return True
    return False


# --- the arithmetic: simulator against reference machine -------------------------------------------------------


def machines_agree(programs: Sequence[Image]) -> None:
    """What test_differential asks of every program."""
    for seed, image in enumerate(programs):
        compare(image, seed, bit_accurate=True)


@cache
def sound_programs(instructions: tuple[str, ...]) -> list[Image]:
    """Random programs of these instructions, drawn before any fault is planted, on which the machines agree."""
    programs = [draw(seed, 14, names=instructions) for seed in range(12)]
    machines_agree(programs)
    return programs


def truncate(x: F32) -> F32:
    return rounding.write_fp32(rounding.from_bits(rounding.bits(x) & np.uint32(0xFFFF0000)))


def ties_away(x: F32) -> F32:
    u = rounding.bits(x)
    rounded = rounding.from_bits((u + np.uint32(0x8000)) & np.uint32(0xFFFF0000))
    return rounding.write_fp32(np.where(np.isfinite(x), rounded, x))


def only_nans(u: rounding.U32) -> rounding.U32:
    return np.where((u & rounding.MAGNITUDE) > rounding.INFINITY_BITS, rounding.NAN_BITS, u)


def odd_before_even(x: F32) -> F32:
    """Rule 7 with the two terms of every pair exchanged."""
    x = np.asarray(x, np.float32)
    padded = np.concatenate([x, np.zeros((*x.shape[:-1], x.shape[-1] % 2), np.float32)], -1)
    pairs = padded.reshape(*x.shape[:-1], -1, 2)
    return TREE_SUM(pairs[..., ::-1].reshape(padded.shape))


@rounding.quiet
def halves_in_the_tree(x: F32) -> F32:
    """Rule 7 with the accumulators i and i + half added, in place of neighbours."""
    x = np.asarray(x, np.float32)
    total = np.zeros((*x.shape[:-1], 64), np.float32)
    for k in range(x.shape[-1]):
        total[..., k // 2 % 64] += x[..., k]
    while total.shape[-1] > 1:
        half = total.shape[-1] // 2
        total = total[..., :half] + total[..., half:]
    return total[..., 0]


@rounding.quiet
def bias_first(w: F32, x: F32, bias: F32, fp32: bool) -> F32:
    """Rule 7 with the bias in accumulator 0 from the start."""
    assert fp32
    products = w * x[..., None, :]
    products[..., 0] += bias
    return TREE_SUM(products)


TREE_SUM = arithmetic.tree_sum


def attribute(owner: Any, name: str, value: Any) -> Plant:
    return lambda patch: patch.setattr(owner, name, value)


def meaning(name: str, value: Semantics) -> Plant:
    return lambda patch: patch.setitem(SEMANTICS, name, value)


def plain(operation: Callable[..., F32]) -> Semantics:
    return semantics._plain(rounding.quiet(operation))


ARITHMETIC: dict[str, tuple[tuple[str, ...], Plant]] = {
    "bf16 is truncated": (("add", "mul"), attribute(numerics, "to_bf16", truncate)),
    "ties are rounded away from zero": (("move", "splat"), attribute(numerics, "to_bf16", ties_away)),
    "odd terms before even ones": (("matmul",), attribute(arithmetic, "tree_sum", odd_before_even)),
    "another shape of the adder tree": (("matmul",), attribute(arithmetic, "tree_sum", halves_in_the_tree)),
    "32 accumulators": (("matmul_fp32", "row_sum"), attribute(arithmetic, "ACCUMULATORS", 32)),
    "a row is summed like a list": (
        ("row_sum",),
        meaning("row_sum", semantics._row_reduce(lambda x: np.add.accumulate(x)[-1:])),
    ),
    "the bias is added first": (("matmul",), attribute(numerics, "dot", bias_first)),
    "nothing is flushed": (("mul", "div"), attribute(rounding, "_flush", only_nans)),
    "the NaN has a payload": (("add", "sub"), attribute(rounding, "NAN_BITS", np.uint32(0x7FC00001))),
    "relu keeps -0": (("relu",), meaning("relu", plain(lambda x: numerics.maximum(np.float32(0), x)))),
    "max passes NaN by": (("max",), meaning("max", plain(np.fmax))),
    "min takes its first zero": (("min",), meaning("min", plain(lambda a, b: numerics.minimum(b, a)))),
    "a division is a product": (("div",), meaning("div", plain(lambda a, b: a * (np.float32(1) / b)))),
    "select takes NaN for zero": (
        ("select",),
        meaning("select", plain(lambda c, a, b: np.where((c != 0) & (c == c), a, b))),
    ),
    "a synapse rounds once more": (
        ("synapse",),
        attribute(numerics, "sub", lambda a, b: rounding.to_bf16(arithmetic.sub(a, b))),
    ),
    "tanh for sigmoid": (("sigmoid",), meaning("sigmoid", semantics._activation("tanh"))),
}


@pytest.mark.parametrize("name", ARITHMETIC)
def test_a_fault_in_the_arithmetic_is_noticed(name: str, monkeypatch: Patch) -> None:
    instructions, plant = ARITHMETIC[name]
    assert set(instructions) <= set(DRAWN)
    programs = sound_programs(instructions)
    plant(monkeypatch)
    assert noticed(lambda: machines_agree(programs))


def test_a_fault_in_the_activation_table_is_noticed(tmp_path: Path, monkeypatch: Patch) -> None:
    """One bit of 5.8 million, wherever it is."""
    name = "activation_tables.bin"
    data = bytearray((resources.files("ltc_compiler") / name).read_bytes())
    monkeypatch.setattr("importlib.resources.files", lambda package: tmp_path)
    table = activations._table.__wrapped__  # without its cache
    (tmp_path / name).write_bytes(data)
    assert table().shape == (len(numerics.ACTIVATIONS), 1 << 16)
    for at in (0, len(data) // 3, len(data) - 1):
        data[at] ^= 1
        (tmp_path / name).write_bytes(data)
        with pytest.raises(LtcError, match="SHA-256"):
            table()
        data[at] ^= 1


# --- the clock: the scheduler's estimate against the simulator's walk -------------------------------------------


@cache
def timed(seed: int) -> tuple[Image, dict[str, Any]]:
    """A random program on a machine on which every figure matters, and the simulator's count."""
    image = draw(seed, 60)
    latency = replace(image.config.latency, **{n: 2 + i for i, n in enumerate(isa.LATENCIES)})
    sizes = {"accumulators": 2, "fp32_beats": 3, "issue_queue": 2, "read_ports": 3}
    image = replace(image, config=replace(image.config, latency=latency, **sizes))  # type: ignore[arg-type]
    return image, _core.cycles(_core.Program.parse(image.to_bytes()), 0, 0)


def clocks_agree(change: Callable[[Config], Config] = lambda config: config) -> None:
    for seed in range(60):
        image, simulated = timed(seed)
        estimated = estimate(replace(image, config=change(image.config)))
        assert (estimated.total, estimated.last_in, estimated.last_out) == (
            simulated["total"],
            simulated["last_in"],
            simulated["last_out"],
        )


def test_the_clocks_agree() -> None:
    clocks_agree()


@pytest.mark.parametrize("name", isa.LATENCIES)
def test_a_fault_in_a_latency_is_noticed(name: str) -> None:
    def slower(config: Config) -> Config:
        value = getattr(config.latency, name) + 1
        return replace(config, latency=replace(config.latency, **{name: value}))

    assert noticed(lambda: clocks_agree(slower))


@pytest.mark.parametrize(
    "name", ["accumulators", "fp32_beats", "issue_queue", "link_fifo_rows", "read_ports"]
)
def test_a_fault_in_a_size_that_time_depends_on_is_noticed(name: str) -> None:
    def larger(config: Config) -> Config:
        return replace(config, **{name: getattr(config, name) + 1})

    assert noticed(lambda: clocks_agree(larger))


START = clock._Walk._start


Place = tuple[int, str]


def rows_forget_reads(walk: Any, place: Place, beat: beats.Beat, earliest: int, until_written: int) -> int:
    """Rows are overwritten while they are still to be read."""
    walk._to_be_touched[place[0]] = walk._to_be_written[place[0]]
    return START(walk, place, beat, earliest, until_written)


def rows_are_always_ready(
    walk: Any, place: Place, beat: beats.Beat, earliest: int, until_written: int
) -> int:
    return START(walk, place, beat._replace(reads={}), earliest, until_written)


def reads_pass_writes(walk: Any, place: Place, beat: beats.Beat, earliest: int, until_written: int) -> int:
    """A row is read although it stands among those that an older instruction has still to write."""
    walk._to_be_written[place[0]] = -1
    return START(walk, place, beat, earliest, until_written)


INTERVALS = clock._Touched.intervals


def rows_between_go_ahead(touched: Any, written: bool | None) -> Any:
    """Only the rows themselves wait, not those between them."""
    for rows, last in INTERVALS(touched, written):
        own = {row for touches in touched._fields.values() for row, _ in touches}
        yield (
            rows,
            [at if row in own else -1 for row, at in zip(range(rows.start, rows.stop), last, strict=True)],
        )


def intervals_stay(touched: Any, written: bool | None) -> Any:
    """The rows of an instruction wait until its last beat."""
    for rows, last in INTERVALS(touched, written):
        yield rows, last.max()


def results_land_together(
    walk: Any, place: Place, beat: beats.Beat, earliest: int, until_written: int
) -> int:
    """A unit has as many write ports as it wants."""
    walk._landings[place[0]][place[1]].clear()
    return START(walk, place, beat, earliest, until_written)


def beats_do_not_wait(walk: Any, place: Place, beat: beats.Beat, earliest: int, until_written: int) -> int:
    """Neither for an accumulator, nor for a link, nor for the host."""
    return START(walk, place, beat._replace(after=0), earliest, until_written)


CLOCK: dict[str, Plant] = {
    "rows forget who reads them": attribute(clock._Walk, "_start", rows_forget_reads),
    "reads pass writes": attribute(clock._Walk, "_start", reads_pass_writes),
    "rows between go ahead": attribute(clock._Touched, "intervals", rows_between_go_ahead),
    "intervals stay": attribute(clock._Touched, "intervals", intervals_stay),
    "rows are always ready": attribute(clock._Walk, "_start", rows_are_always_ready),
    "results land together": attribute(clock._Walk, "_start", results_land_together),
    "beats do not wait": attribute(clock._Walk, "_start", beats_do_not_wait),
    "fp32 costs nothing": attribute(beats, "occupancy", lambda instr, config: 1),
    "a target row has one slot": attribute(beats, "slots_walked", lambda core, first, targets: [1] * targets),
}


@pytest.mark.parametrize("name", CLOCK)
def test_a_fault_in_the_clock_is_noticed(name: str, monkeypatch: Patch) -> None:
    CLOCK[name](monkeypatch)
    assert noticed(clocks_agree)


def rings_agree() -> None:
    """Two inferences, in both walks, of which the second reads each place of a ring."""
    for read in range(100, 104):
        code = [
            timed_op("relu", dst=60, a=read),
            timed_op("div", dst=50, a=0, b=0),
            timed_op("state_write", dst=100, a=50),
        ]
        image = timed_image(machine(), code, states=range(100, 104), rings=[Ring(0, 100, 4)])
        assert estimate(image, inferences=2) == simulator_count(image, inferences=2)


def turn_back(stands: Sequence[Any], rings: Sequence[Ring]) -> None:
    """The newest places come first."""
    turn(stands, [replace(ring, advance=ring.places - ring.advance) for ring in rings])


RINGS: dict[str, Plant] = {
    "rings stand still": attribute(clock, "turn", lambda stands, rings: None),
    "rings turn back": attribute(clock, "turn", turn_back),
}


@pytest.mark.parametrize("name", RINGS)
def test_a_fault_in_the_clock_of_rings_is_noticed(name: str, monkeypatch: Patch) -> None:
    rings_agree()
    RINGS[name](monkeypatch)
    assert noticed(rings_agree)


# --- the compiler: the program against the graph ---------------------------------------------------------------


def programs_keep_the_meaning() -> None:
    """A graph of differences, products with weights, and sums, compiled and run, against its NumPy meaning."""
    rng = np.random.default_rng(3)
    graph = Graph("meaning")
    x, y = (graph.add_input(Type((2, 12)), name) for name in "xy")
    weight, bias = graph.constant(rng.standard_normal((20, 12)) / 4), graph.constant(rng.standard_normal(20))
    z = add(graph, "linear", add(graph, "sub", x, y), weight, bias)
    graph.add_output(add(graph, "sum", add(graph, "tanh", z), axis=0, keepdims=False))
    nnir = NNIR(graph)
    inputs = [rng.standard_normal((2, 12)).astype(np.float32) for _ in range(2)]
    found = nnir.to_program(Config.tiny_c2b8()).to_vm().run(*inputs)
    np.testing.assert_allclose(found, nnir.run(*inputs), atol=0.05)


def exchanged(low: Lowering, node: Node) -> Any:
    """A pointwise op whose operands are the wrong way round."""
    node.operands = list(node.operands)[::-1]  # type: ignore[assignment]
    return select.select_pointwise(low, node)


COMPILER: dict[str, Plant] = {
    "operands are exchanged": lambda patch: patch.setitem(select.SELECTORS, "sub", exchanged),
    "weights are transposed in their block": attribute(
        matmul,
        "weight_blocks",
        lambda *a: tuple(np.ascontiguousarray(t.swapaxes(1, 2)) for t in weight_blocks(*a)),
    ),
}


@pytest.mark.parametrize("name", COMPILER)
def test_a_fault_in_the_compiler_is_noticed(name: str, monkeypatch: Patch) -> None:
    programs_keep_the_meaning()
    COMPILER[name](monkeypatch)
    assert noticed(programs_keep_the_meaning)


# --- the C++ half: tests/proof/mutate_core.py plants these, a build each ----------------------------------------


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_the_text_of_a_fault_in_the_core_is_there(fault: Fault) -> None:
    texts = edited(fault.edits, ROOT)
    assert all(text != (ROOT / file).read_text(encoding="utf-8") for file, text in texts.items())
    assert (ROOT / fault.tests[0]).exists()


# --- the instruction table: what has no meaning does not import -------------------------------------------------

NEW_ROW = """
from dataclasses import replace
from importlib import reload
from ltc_compiler import isa
from ltc_compiler.oracle import semantics
isa.BY_NAME["nameless"] = replace(isa.BY_NAME["add"], name="nameless", opcode=200)
reload(semantics)
"""
NEW_PATTERN = """
from dataclasses import replace
from importlib import reload
from ltc_compiler import isa
from ltc_compiler.oracle import beats
isa.PATTERNS["spiral"] = isa.PATTERNS["elementwise"]
isa.FORMATS += (replace(isa.FORMATS[0], name="Spiral", pattern="spiral"),)
reload(beats)
"""


@pytest.mark.parametrize(
    ("code", "complaint"), [(NEW_ROW, "differ in {'nameless'}"), (NEW_PATTERN, "['spiral']")]
)
def test_a_row_without_a_meaning_does_not_import(code: str, complaint: str) -> None:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert "ImportError" in done.stderr
    assert complaint in done.stderr
