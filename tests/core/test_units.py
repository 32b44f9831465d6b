"""The kernels' own ways to a result: sequences instead of tables, fused products, sources picked from registers.

Each must give the bits of the definition on every instruction set.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from core_images import assert_bits, image, kernel_names, vm
from random_programs import op

from ltc_compiler import numerics
from ltc_compiler.bytecode import Image, Port, Row, SlotArrays

F32 = np.ndarray[Any, np.dtype[np.float32]]
ABSENT = 0xFFFF
every_set_of_kernels = pytest.mark.parametrize("kernels", kernel_names())


@every_set_of_kernels
@pytest.mark.parametrize("width", [4, 8, 16])
@pytest.mark.parametrize("unit", ["sigmoid", "tanh"])
def test_sequence_equals_the_table_on_every_input(
    unit: str, width: int, kernels: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All 65,536 bf16 inputs, and as many fp32 inputs that have to be rounded first."""
    monkeypatch.setenv("LTC_SIMD", kernels)
    rows = 2048
    code = [
        op("input", dst=Row(0), rows=rows, port=0),
        op(unit, dst=Row(rows), a=Row(0), n_inner=rows, dst_inner=1, a_inner=1, precision=1),
        op("output", src=Row(rows), rows=rows, port=0),
    ]
    port = (rows, width)
    machine = vm(image(code, [Port("x", port)], [Port("y", port)], width=width, rows=2 * rows))
    table = np.arange(65536, dtype=np.uint32) << 16
    noise = np.random.default_rng(7).integers(0, 65536, 65536, dtype=np.uint32)
    inputs = np.concatenate([table, table | noise, table | 0x8000]).view(np.float32)
    for start in range(0, inputs.size, rows * width):
        x = inputs[start : start + rows * width].reshape(port)
        assert_bits(machine.run(0, [x])[0], numerics.activation_bf16(unit, numerics.write_fp32(x)))


def magnitudes(rng: np.random.Generator, shape: tuple[int, ...], low: int, high: int) -> F32:
    """bf16 values of either sign with exponents from low to high, both of them there; some zeros."""
    exponents = rng.integers(low, high + 1, shape)
    exponents.ravel()[:2] = low, high
    mantissas = 1 + rng.integers(0, 128, shape) / 128
    mantissas.ravel()[:2] = 1, 255 / 128
    zeros = rng.random(shape) < 0.1
    zeros.ravel()[:2] = False
    return np.where(zeros, 0, np.ldexp(mantissas * rng.choice([-1.0, 1.0], shape), exponents)).astype(
        np.float32
    )


@every_set_of_kernels
@pytest.mark.parametrize("above", [-3, -1, 0, 1, 20])
def test_products_at_the_edge_of_exactness(above: int, kernels: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Exponents that add up to just more, just as much or just less than fused products need (rule 7)."""
    monkeypatch.setenv("LTC_SIMD", kernels)
    rng = np.random.default_rng(above + 100)
    width, k, batch = 16, 144, 3
    for low, high in ((-112 + above, -60), (60, 126 - above), (-112 + above, 126 - above)):
        w = magnitudes(rng, (width, k), low // 2, high // 2)
        x = magnitudes(rng, (batch, k), low - low // 2, high - high // 2)
        blocks = numerics.bf16_bits(w.reshape(width, k // width, width).transpose(1, 0, 2))
        rows = k // width
        code = [
            op("input", dst=Row(0), rows=batch * rows, port=0),
            op(
                "matmul",
                dst=Row(40),
                dst_step=1,
                x=Row(0),
                x_step=rows,
                bias=Row(50),
                k=k,
                m_rows=1,
                batch=batch,
            ),
            op("output", src=Row(40), rows=batch, port=0),
        ]
        program = image(
            code,
            [Port("x", (batch, k))],
            [Port("y", (batch, width))],
            width=width,
            weights=np.ascontiguousarray(blocks),
        )
        (found,) = vm(program).run(0, [x])
        bias = np.zeros(width, np.float32)
        expected = np.stack([numerics.dot(w, row, bias, fp32=True) for row in x])
        assert_bits(found, numerics.write_fp32(expected))


@every_set_of_kernels
def test_products_just_past_exactness(kernels: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sums through a subnormal (exponents that add up to -113) and past an overflow (127), on one accumulator."""
    monkeypatch.setenv("LTC_SIMD", kernels)
    width, k = 16, 144
    small = 2.0**-60 * np.array([1 + 2.0**-7, -(1 + 2.0**-6), 1.0])
    large = 2.0**63 * np.array([-1.5, 1.75, 0.0])
    factors = (2.0**-53 * np.array([1 + 2.0**-7, 1.0, 1.0]), 2.0**64 * np.array([1.25, 1.5, 0.0]))
    for values, others in zip((small, large), factors, strict=True):
        w, x = np.zeros((width, k), np.float32), np.zeros((1, k), np.float32)
        w[:, [0, 1, 128]], x[0, [0, 1, 128]] = values, others
        blocks = numerics.bf16_bits(
            np.ascontiguousarray(w.reshape(width, k // width, width).transpose(1, 0, 2))
        )
        code = [
            op("input", dst=Row(0), rows=k // width, port=0),
            op("matmul", dst=Row(40), x=Row(0), bias=Row(50), k=k, m_rows=1),
            op("output", src=Row(40), rows=1, port=0),
        ]
        program = image(code, [Port("x", (k,))], [Port("y", (width,))], width=width, weights=blocks)
        expected = numerics.dot(w, x[0], np.zeros(width, np.float32), fp32=True)
        assert_bits(vm(program).run(0, [x[0]])[0], numerics.write_fp32(expected))


@every_set_of_kernels
def test_results_of_a_batch_that_overlap_are_written_in_order(
    kernels: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each vector's two rows of results start where the second row of the one before stands."""
    monkeypatch.setenv("LTC_SIMD", kernels)
    width, batch = 16, 4
    w = numerics.to_bf16(np.random.default_rng(3).standard_normal((2, width, width)).astype(np.float32))
    x = numerics.to_bf16(np.random.default_rng(4).standard_normal((batch, width)).astype(np.float32))
    code = [
        op("input", dst=Row(0), rows=batch, port=0),
        op(
            "matmul",
            dst=Row(10),
            dst_step=1,
            x=Row(0),
            x_step=1,
            bias=Row(40),
            k=width,
            m_rows=2,
            batch=batch,
        ),
        op("output", src=Row(10), rows=batch + 1, port=0),
    ]
    program = image(
        code,
        [Port("x", (batch, width))],
        [Port("y", (batch + 1, width))],
        width=width,
        weights=numerics.bf16_bits(w),
    )
    (found,) = vm(program).run(0, [x])
    bias = np.zeros(width, np.float32)
    expected = [numerics.dot(w[0], row, bias, fp32=True) for row in x] + [
        numerics.dot(w[1], x[-1], bias, fp32=True)
    ]
    assert_bits(found, np.stack(expected))


def synapse_sums(v: F32, slots: SlotArrays) -> tuple[F32, F32]:
    """num and den of one target row, by rule 11 in NumPy."""
    num = den = np.zeros(slots.src.shape[1], np.float32)
    for src, mu, sigma, w, we in zip(slots.src, slots.mu, slots.sigma, slots.w, slots.we, strict=True):
        there = src != ABSENT
        d = numerics.write_fp32(numerics.sub(numerics.to_bf16(v)[np.where(there, src, 0)], mu))
        s = numerics.activation_bf16("sigmoid", numerics.mul(sigma, d))
        products = (numerics.write_fp32(numerics.mul(s, p)) for p in (we, w))
        num, den = (
            np.where(there, numerics.write_fp32(numerics.add(total, p)), total)
            for total, p in zip((num, den), products, strict=True)
        )
    return numerics.add(num, 0), numerics.add(den, 0)


def synapse_program(slots: SlotArrays, sources: int) -> Image:
    """The sums of one target row from presynaptic values that the host gives."""
    width = slots.src.shape[1]
    rows = sources // width
    code = [
        op("input", dst=Row(0), rows=rows, port=0),
        op("synapse", num=Row(80), den=Row(81), v=Row(0), v_rows=rows, slots=0, targets=1, precision=1),
        op("output", src=Row(80), rows=2, port=0),
    ]
    return image(code, [Port("v", (sources,))], [Port("y", (2, width))], width=width, rows=82, slots=slots)


def last_of(depth: int) -> np.ndarray[Any, np.dtype[np.bool_]]:
    return np.arange(depth) == depth - 1


@every_set_of_kernels
@pytest.mark.parametrize("width", [4, 8, 16, 32])
@pytest.mark.parametrize("sources", [32, 64, 96, 128, 160])
def test_synapses_read_every_source(
    sources: int, width: int, kernels: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As many sources as fill two registers, four, and more; absent lanes beside a source that is NaN."""
    monkeypatch.setenv("LTC_SIMD", kernels)
    rng = np.random.default_rng(sources)
    shape = (24, width)
    src = rng.integers(0, sources, shape).astype(np.uint16)
    src[rng.random(shape) < 0.3] = ABSENT
    src.ravel()[:2] = 0, sources - 1
    mu, sigma, w, we = (numerics.to_bf16(rng.standard_normal(shape).astype(np.float32)) for _ in range(4))
    slots = SlotArrays(src, mu, sigma, w, we, last_of(24))
    v = rng.standard_normal(sources).astype(np.float32)
    machine = vm(synapse_program(slots, sources))
    for special in (0.0, np.inf, np.nan):
        v[0] = special
        assert_bits(machine.run(0, [v])[0], np.stack(synapse_sums(v, slots)))


@every_set_of_kernels
@pytest.mark.parametrize("missing", [0.0, 0.1, 0.5])
@pytest.mark.parametrize("depth", [1, 2, 3, 7, 8, 13])
def test_synapses_of_lanes_that_share_their_sources(
    depth: int, missing: float, kernels: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every lane has the same sources or lacks a few, in their order. NaN and infinity where nobody looks."""
    monkeypatch.setenv("LTC_SIMD", kernels)
    rng = np.random.default_rng(depth)
    width, sources = 32, 64
    chosen = np.sort(rng.permutation(np.arange(2, sources))[:depth]).astype(np.uint16)
    src = np.full((depth, width), ABSENT, np.uint16)
    for lane in range(width):
        here = chosen[rng.random(depth) >= missing]
        src[: len(here), lane] = here
    mu, sigma, w, we = (numerics.to_bf16(rng.standard_normal(src.shape).astype(np.float32)) for _ in range(4))
    w[0, :4], we[0, 2:6] = -0.0, -0.0
    slots = SlotArrays(src, mu, sigma, w, we, last_of(depth))
    machine = vm(synapse_program(slots, sources))
    v = rng.standard_normal(sources).astype(np.float32)
    for special in (0.0, np.nan):
        v[:2], v[chosen[0]] = (np.inf, np.nan), special
        assert_bits(machine.run(0, [v])[0], np.stack(synapse_sums(v, slots)))


@every_set_of_kernels
@pytest.mark.parametrize("width", [8, 16])
@pytest.mark.parametrize("case", ["gates", "shut", "closed", "weights", "potentials", "slopes"])
def test_synapses_at_the_edge_of_exactness(
    case: str, width: int, kernels: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Gates, weights, potentials and slopes at random about the limits of fused operations, each alone past its own."""
    monkeypatch.setenv("LTC_SIMD", kernels)
    rng = np.random.default_rng(5)
    shape, sources = (12, width), 32
    src = np.sort(rng.integers(0, sources, shape), axis=0).astype(np.uint16)
    mu, sigma = np.zeros(shape, np.float32), np.ones(shape, np.float32)
    w, we = (magnitudes(rng, shape, -40, -37) for _ in range(2))
    v = -rng.choice([38.5, 39.75, 40.0], sources)
    if case == "gates":
        v = -rng.choice(
            [49.0, 55.0, 59.0, 60.0, 61.5, 63.0, 79.0], sources
        )  # products as with the weights below
    elif case == "shut":
        v = -rng.choice([40.0, 40.25, 86.0, 87.0, 87.5], sources)
        w[::3] = we[::3] = 2.0**-30
    elif case == "closed":
        v = -rng.choice([-200.0, 38.5, 40.0, 87.5, 88.0, 88.5, 200.0, 1e20], sources)
    elif case == "weights":
        w, we = (
            magnitudes(rng, shape, -78, -46) for _ in range(2)
        )  # products about 2^-126 on sums that feel them
    elif case == "potentials":
        v = magnitudes(rng, (sources,), 125, 127)
        sigma = magnitudes(rng, shape, -127, -120)
        mu = magnitudes(rng, shape, 125, 127)
    else:
        v, mu = magnitudes(rng, (sources,), -126, -124), magnitudes(rng, shape, -126, -124)
        sigma = magnitudes(rng, shape, 98, 127)
    mu, sigma, w, we = (numerics.to_bf16(a) for a in (mu, sigma, w, we))
    slots = SlotArrays(src, mu, sigma, w, we, last_of(12))
    assert_bits(
        vm(synapse_program(slots, sources)).run(0, [v.astype(np.float32)])[0],
        np.stack(synapse_sums(v.astype(np.float32), slots)),
    )
