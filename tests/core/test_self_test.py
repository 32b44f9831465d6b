"""The self-test that every VM makes: its pinned hashes are those of the reference machine, and a difference is refused.

The program of sim_core/vm/self_test.cpp is written here once more, for the reference machine.
"""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pytest
from children import run_python
from core_images import kernel_names
from random_programs import op

from ltc_compiler import Config, _core, isa
from ltc_compiler.bytecode import CoreImage, EntryArrays, Image, Instr, Model, Port, Row, SlotArrays
from ltc_compiler.program import Program

LANES, BLOCK = 16, 10
ROWS, K = 2 * BLOCK, BLOCK * LANES
OPERANDS, SLOTS, SOURCES = 3 * ROWS, 6, 2 * LANES
UPDATED = ("v", "cm", "h", "leak", "conductance", "num", "den")
UPDATES = BLOCK - len(UPDATED) + 1
KINDS = {0: "", BLOCK: " of any bits", 5 * BLOCK: " of small numbers"}


class Numbers:
    """The generator of the C++ half."""

    def __init__(self) -> None:
        self.state = 1

    def any(self) -> int:
        self.state = (self.state * 1664525 + 1013904223) % 2**32
        return self.state ^ self.state >> 16

    def moderate(self) -> int:
        u = self.any()
        return u & 0x807FFFFF | 120 + (u >> 23 & 15) << 23

    def small(self) -> int:
        u = self.any()
        return u & 0x807FFFFF | 1 + (u >> 23 & 127) << 23


def floats(patterns: list[int], *shape: int) -> Any:
    return np.array(patterns, np.uint32).view(np.float32).reshape(shape)


def inputs() -> Any:
    numbers, rows = Numbers(), []
    for row in range(OPERANDS):
        first = row // BLOCK * BLOCK
        draw = numbers.small if first == 5 * BLOCK else numbers.any if row // BLOCK % 2 else numbers.moderate
        rows += [draw() for _ in range(LANES)]
    return floats(rows, OPERANDS, LANES)


def core() -> CoreImage:
    numbers = Numbers()
    weights = np.array([numbers.moderate() >> 16 for _ in range(4 * BLOCK * LANES * LANES)], np.uint16)
    drawn = [[numbers.any(), *(numbers.moderate() for _ in range(4))] for _ in range(SLOTS * LANES)]
    src = [isa.ABSENT if u % 5 == 0 else u % SOURCES for u, *_ in drawn]
    mu, sigma, w, we = (floats([row[n] for row in drawn], SLOTS, LANES) for n in range(1, 5))
    slots = SlotArrays(
        np.array(src, np.uint16).reshape(SLOTS, LANES), mu, sigma, w, we, np.arange(SLOTS) == SLOTS - 1
    )
    return CoreImage(OPERANDS + ROWS, [], weights.reshape(-1, LANES, LANES), slots, EntryArrays.empty(LANES))


def shown() -> list[tuple[str, int, Instr]]:
    """Name of the result, its rows, and the instruction that writes it from row OPERANDS on."""
    found = []
    to = Row(OPERANDS)
    for number, precision in enumerate(isa.PRECISIONS):
        for name, row in isa.BY_NAME.items():
            if row.unit in ("vector", "activation") and row.format.pattern == "elementwise":
                operands: Any = {
                    c: Row(i * ROWS) for i, c in enumerate("abc") if c in [f.name for f in row.format.fields]
                }
                found.append((f"{name} {precision}", ROWS,
                              op(name, dst=to, n_inner=ROWS, precision=number, **operands)))  # fmt: skip
        for first, kind in KINDS.items():
            x = Row(first)
            for name in ("row_sum", "row_max"):
                found.append((f"{name} {precision}{kind}", 1,
                              op(name, dst=to, dst_step=1, src=x, src_step=1, k=K, precision=number)))  # fmt: skip
            for name in ("column_sum", "column_max"):
                found.append((f"{name} {precision}{kind}", 1,
                              op(name, dst=to, src=x, k_step=1, k=BLOCK, precision=number)))  # fmt: skip
            for narrow, of in enumerate(("", " of bf16")):
                either: Any = {"dst": to, "dst_i": 1, "a": x, "a_i": 1, "b": x, "addend": Row(2 * ROWS),
                               "addend_i": 1, "n_i": 2, "narrow": narrow}  # fmt: skip
                found += [(f"product {precision}{of}{kind}", 2,
                           op("product", **either, lane_i=7 * narrow, lane_j=1, a_lanes=2 * LANES,
                              n_j=BLOCK, b_j=1, precision=number)),
                          (f"dot {precision}{of}{kind}", 2,
                           op("dot", **either, b_j=1 - narrow, n_j=BLOCK - 1, k=2 * LANES - 3,
                              precision=number))]  # fmt: skip
            for name in ("matmul", "matmul_fp32"):
                found.append((f"{name} {precision}{kind}", 2,
                              op(name, dst=to, dst_step=1, x=x, x_step=1, bias=Row(2 * ROWS), k=K, m_rows=2,
                                 weights=0, precision=number)))  # fmt: skip
            found.append((f"matmul {precision} of taps{kind}", 2,
                          op("matmul", dst=to, dst_step=1, x=x, x_step=1, taps=2, tap_step=3, bias=Row(2 * ROWS),
                             k=LANES + 3, m_rows=2, weights=0, precision=number)))  # fmt: skip
            found.append((f"synapse {precision}{kind}", 2,
                          op("synapse", num=to, den=Row(OPERANDS + 1), v=x, v_rows=2, slots=0, targets=1,
                             precision=number)))  # fmt: skip
            if precision == "fp32":
                sources: Any = {name: Row(first + i) for i, name in enumerate(UPDATED)}
                steps: Any = {f"{name}_step": 1 for name in ("dst", *UPDATED)}
                found.append((f"ltc_update fp32{kind}", UPDATES,
                              op("ltc_update", dst=to, n=UPDATES, **sources, **steps)))  # fmt: skip
    return found


@cache
def program() -> Program:
    code, ports = [op("input", dst=Row(0), rows=OPERANDS, port=0)], list[Port]()
    for name, rows, instruction in shown():
        code += [instruction, op("output", src=Row(OPERANDS), rows=rows, port=len(ports))]
        ports.append(Port(name, (rows, LANES)))
    config = replace(Config.tiny_c1b8(), name="self-test", block_size=LANES, fp32_matmul=True,
                     tensor_rows=OPERANDS + ROWS, weight_blocks=4 * BLOCK, synapse_slots=SLOTS,
                     instruction_slots=1000)  # fmt: skip
    model = Model("self-test", 0, len(code), (Port("x", (OPERANDS, LANES)),), tuple(ports))
    return Program(Image(config, code, [core()], [model]))


def fnv(values: Any) -> int:
    hashed = 0xCBF29CE484222325
    for u in values.view(np.uint32).ravel().tolist():
        hashed = (hashed ^ u) * 0x100000001B3 % 2**64
    return hashed


@cache
def expected() -> dict[str, int]:
    results = program().to_oracle().run(inputs())
    return {name: fnv(y) for (name, _, _), y in zip(shown(), results, strict=True)}


@pytest.mark.parametrize("kernels", kernel_names())
def test_pinned_hashes_are_those_of_the_reference_machine(
    kernels: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LTC_SIMD", kernels)
    wrong = [
        f'{{"{name}", {value:#018x}}},'
        for name, value in expected().items()
        if (name, value, value) not in _core.numerics.self_test()
    ]
    assert not wrong, "sim_core/vm/self_test.cpp must pin, for this contract:\n" + "\n".join(wrong)
    assert len(_core.numerics.self_test()) == len(expected())


def test_every_result_holds_numbers() -> None:
    """A result of NaNs alone would prove little."""
    results = program().to_oracle().run(inputs())
    for (name, _, _), y in zip(shown(), results, strict=True):
        if "any bits" not in name:
            assert np.isfinite(y).mean() > 0.4, name


def test_a_difference_is_refused_and_named() -> None:
    """In a process of its own, since a VM was made here already."""
    script = "from core_images import vm, image\nvm(image([], [], []))"
    done = run_python(script, environment={"LTC_SELF_TEST": "sigmoid bf16"})
    assert done.returncode != 0
    assert (
        "ArithmeticMismatchError: this CPU, or this build, computes other bits than the contract: sigmoid bf16\n"
        in done.stderr
    )
    assert "where: kernels " in done.stderr
    assert "LTC_SIMD" in done.stderr
    assert run_python(script).returncode == 0
