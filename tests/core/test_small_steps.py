"""What makes a step of a small model cheap: products of few terms, lanes that nothing reads, sums of short rows."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from both_machines import run_both
from core_images import assert_bits, image, kernel_names, vm
from random_programs import op, values

from ltc_compiler import numerics
from ltc_compiler.bytecode import EntryArrays, Image, Port, Row, State
from ltc_compiler.program import Program

F32 = np.ndarray[Any, np.dtype[np.float32]]
every_set_of_kernels = pytest.mark.parametrize("kernels", kernel_names())


def product(k: int, width: int, weights: Any, **given: Any) -> Image:
    """One vector of k elements, and an addend of two rows, through a matmul of two rows of results."""
    across = -(-k // width)
    code = [
        op("input", dst=Row(0), rows=across, port=0),
        op("input", dst=Row(10), rows=2, port=1),
        op("matmul", dst=Row(20), x=Row(0), bias=Row(10), k=k, m_rows=2, **given),
        op("output", src=Row(20), rows=2, port=0),
    ]
    return image(
        code, [Port("x", (k,)), Port("b", (2, width))], [Port("y", (2, width))], width=width, weights=weights
    )


@every_set_of_kernels
@pytest.mark.parametrize("scale", [0, 55, -70, 100])
def test_products_of_few_terms(scale: int, kernels: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """1 to 52 terms, within and beyond what fused operations compute exactly, with each way to the result."""
    monkeypatch.setenv("LTC_SIMD", kernels)
    rng = np.random.default_rng(scale + 100)
    for k in range(1, 53):
        width = int(rng.choice([16, 32]))
        across = -(-k // width)
        w = numerics.to_bf16(rng.standard_normal((2 * width, across * width)).astype(np.float32))
        blocks = numerics.bf16_bits(
            np.ascontiguousarray(w.reshape(2, width, across, width).transpose(0, 2, 1, 3)).reshape(
                -1, width, width
            )
        )
        x = np.ldexp(rng.standard_normal(k), scale).astype(np.float32)
        x[rng.random(k) < 0.1] = -0.0
        bias = np.ldexp(rng.standard_normal((2, width)), scale).astype(np.float32)
        bias[:, ::3] = rng.choice([0.0, -0.0], bias[:, ::3].shape)
        given = {"addend": k % 2, "relu": k // 2 % 2, "precision": k // 4 % 2}
        (found,) = vm(product(k, width, blocks, **given)).run(0, [x, bias])
        sums = np.array([numerics.dot(row[:k], numerics.to_bf16(x)) for row in w], np.float32)
        y = numerics.add(numerics.write_fp32(sums).reshape(2, width), bias)
        y = numerics.relu(numerics.write_fp32(y)) if given["relu"] else y
        assert_bits(found, (numerics.to_bf16 if given["precision"] else numerics.write_fp32)(y))


@every_set_of_kernels
@pytest.mark.parametrize("width", [4, 16, 32])
def test_row_sums_of_every_length(width: int, kernels: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rule 7's tree, with signed zeros, subnormal sums, infinities and NaN among the elements."""
    monkeypatch.setenv("LTC_SIMD", kernels)
    rng = np.random.default_rng(width)
    for k in [*range(1, 2 * width + 3), 63, 64, 65, 127, 128, 129, 255, 256, 257, 300]:
        rows = -(-k // width)
        code = [
            op("input", dst=Row(0), rows=4 * rows, port=0),
            op("row_sum", dst=Row(320), dst_step=1, src=Row(0), src_step=rows, groups=4, k=k),
            op("output", src=Row(320), rows=4, port=0),
        ]
        x = values(rng, (4, k))
        x[0] = -0.0
        port = Port("y", (4, width))
        (found,) = vm(image(code, [Port("x", (4, k))], [port], width=width, rows=324)).run(0, [x])
        sums = numerics.write_fp32(numerics.tree_sum(numerics.write_fp32(x)))
        assert_bits(found, np.repeat(sums[:, None], width, 1))


@every_set_of_kernels
def test_lanes_that_only_one_instruction_reads(kernels: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The output takes 3 lanes of 32; a splat, a gather and row sums read further, one of them through a loop."""
    monkeypatch.setenv("LTC_SIMD", kernels)
    width = 32
    lane = np.full((1, width), 0xFFFF, np.uint16)
    lane[0, :3] = 30, 17, 1
    code = [
        op("input", dst=Row(0), rows=1, port=0),
        op("add", dst=Row(1), a=Row(0), b=Row(0)),  # read by the splat alone
        op("mul", dst=Row(2), a=Row(0), b=Row(0)),  # by the gather
        op("mul", dst=Row(3), a=Row(0), b=Row(0)),  # by the row sum
        op("add", dst=Row(9), a=Row(0), b=Row(0)),  # by the loop, a turn later
        op("move", dst=Row(11), a=Row(0)),
        op("splat", dst=Row(4), a=Row(1), lane=20),
        op("gather", dst=Row(5), src=Row(2), entries=0, count=1, dst_rows=1, src_rows=1),
        op("row_sum", dst=Row(6), src=Row(3), groups=1, k=29),
        op("loop", count=3),
        op("move", dst=Row(10), a=Row(11)),
        op("move", dst=Row(11), a=Row(9)),
        op("end"),
        op("row_sum", dst=Row(7), src=Row(10), groups=1, k=32),
        op("move", dst=Row(8), a=Row(10)),
        op("output", src=Row(4), rows=5, port=0),
    ]
    zero = np.zeros(1, np.int32)
    entries = EntryArrays(zero, zero, np.ones(1, np.bool_), lane)
    program = image(code, [Port("x", (width,))], [Port("y", (5, 3))], width=width, entries=entries)
    for seed in range(4):
        x = np.random.default_rng(seed).standard_normal(width).astype(np.float32)
        run_both(Program(program), [x], bit_accurate=True)


GATES = [
    ("sigmoid", "i", "pi"), ("sigmoid", "f", "pf"), ("tanh", "g", "pg"), ("sigmoid", "o", "po"),
    ("mul", "fc", "f", "c"), ("mul", "ig", "i", "g"), ("add", "n", "fc", "ig"), ("tanh", "t", "n"),
    ("state_write", "c", "n"), ("mul", "h", "o", "t"),
]  # fmt: skip
GRU = [
    ("add", "r0", "a", "b"), ("add", "z0", "p", "q"), ("sigmoid", "r", "r0"), ("sigmoid", "z", "z0"),
    ("mul", "rh", "r", "u"), ("add", "n0", "x", "rh"), ("tanh", "n", "n0"), ("sub", "d", "c", "n"),
    ("mul", "zd", "z", "d"), ("add", "h", "n", "zd"),
]  # fmt: skip
CFC = [
    ("add", "s", "a", "b"), ("tanh", "u", "x"), ("tanh", "v", "p"), ("sigmoid", "t", "s"),
    ("sub", "m", "q", "t"), ("mul", "tv", "t", "v"), ("mul", "um", "u", "m"), ("add", "h", "um", "tv"),
]  # fmt: skip


@every_set_of_kernels
@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("cell", [GATES, GRU, CFC], ids=["lstm", "gru", "cfc"])
def test_runs_that_one_function_executes(
    cell: list[tuple[str, ...]], seed: int, kernels: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As networks have them; with names that share rows, sources swapped, a row of another length, lanes apart."""
    monkeypatch.setenv("LTC_SIMD", kernels)
    rng = np.random.default_rng(seed)
    width, rows = int(rng.choice([8, 16, 32])), int(rng.integers(1, 4))
    names = sorted({name for line in cell for name in line[1:]})
    place = {name: 3 + rows * n for n, name in enumerate(names)}
    state = place.pop("c") if "c" in place else place[names[0]]
    end = 3 + rows * len(names)
    kind = seed % 4  # of what keeps a run from being one, if anything
    code = [op("input", dst=Row(0), rows=end, port=0)]
    code += [op("state_write", dst=Row(end), a=Row(state), n_inner=rows, dst_inner=1, a_inner=1)]
    place["c"] = end
    if kind == 1:  # two results in one row, or a result over a source
        first, second = rng.choice([name for name in names if name != "c"], 2, replace=False)
        place[str(first)] = place[str(second)] + (int(rng.integers(rows)) if seed % 8 == 5 else 0)
    for name, result, *sources in cell:
        if kind == 2 and rng.random() < 0.3:
            sources = [str(s) for s in rng.permutation(sources)]
        n = 1 if kind == 3 and rng.random() < 0.1 else rows
        given: dict[str, Any] = {k: Row(place[s]) for k, s in zip("ab", sources, strict=False)}
        given |= {f"{k}_inner": 1 for k in "ab"[: len(sources)]}
        precision = int(name in ("sigmoid", "tanh"))
        code.append(op(name, dst=Row(place[result]), n_inner=n, dst_inner=1, precision=precision, **given))
    code += [op("output", src=Row(0), rows=end, port=0)]
    states = (State("c", (rows, width), 0, end, ()),)
    shape = (end, width)
    program = image(code, [Port("x", shape)], [Port("y", shape)], width=width, rows=end + rows, states=states)
    machine, oracle = Program(program).to_vm(), Program(program).to_oracle()
    for _ in range(2):
        x = values(rng, shape)
        assert_bits(machine.run(x), oracle.run(x))
        assert_bits(machine.state["c"], oracle.state["c"])
