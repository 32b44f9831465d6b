"""The VM of the C++ core: every set of kernels gives the same bits, long sums keep their order, calls are checked."""

from __future__ import annotations

import contextlib
import threading
from typing import Any

import numpy as np
import pytest
from core_images import F32, assert_bits, image, kernel_names, vm
from random_programs import draw, inputs_of, op, values

from ltc_compiler import _core, numerics
from ltc_compiler.bytecode import Image, Port, Row, State
from ltc_compiler.errors import InputError, ProgramError, StateError


def test_every_set_of_kernels_gives_the_same_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    names = kernel_names()
    for seed in range(12):
        program, rng = draw(seed, 40), np.random.default_rng(seed)
        inputs = inputs_of(rng, program.models[0])
        results = []
        for name in names:
            monkeypatch.setenv("LTC_SIMD", name)
            machine = vm(program)
            assert machine.metrics()["simd"] == name
            results.append(np.concatenate([y.ravel() for y in machine.run(0, inputs)]))
        for result in results[1:]:
            assert_bits(result, results[0])


# ---- long sums: every chunk of accumulators, partly and fully used ----

LENGTHS = (1, 2, 15, 16, 17, 31, 33, 63, 64, 100, 113, 127, 128, 129, 143, 144, 200, 255, 256, 257, 300)


@pytest.mark.parametrize("kernels", kernel_names())
@pytest.mark.parametrize("width", [4, 16, 64, 128])
def test_matmul_sums_in_order(width: int, kernels: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LTC_SIMD", kernels)
    rng = np.random.default_rng(width)
    for k in LENGTHS:
        across, m_rows, batch = -(-k // width), 3, 2
        for wide in (False, True):
            m = m_rows * width
            w = values(rng, (m, k)) if wide else numerics.to_bf16(values(rng, (m, k)))
            grid = np.zeros((m, across * width), np.float32)
            grid[:] = 7.0  # lanes from k on are absent, whatever the block holds there
            grid[:, :k] = w
            blocks = (
                grid.reshape(m_rows, width, across, width).transpose(0, 2, 1, 3).reshape(-1, width, width)
            )
            words = blocks.copy().view(np.uint32)
            halves = (words >> 16).astype(np.uint16)
            store = (
                np.stack([halves, words.astype(np.uint16)], 1).reshape(-1, width, width) if wide else halves
            )
            bias = numerics.write_fp32(values(rng, (m_rows, width)))
            code = [
                op("input", dst=Row(0), rows=batch * across, port=0),
                op(
                    "matmul_fp32" if wide else "matmul", dst=Row(3 * 300), dst_step=m_rows, x=Row(0),
                    x_step=across, bias=Row(1000), weights=0, k=k, m_rows=m_rows, batch=batch,
                ),
                op("output", src=Row(900), rows=batch * m_rows, port=0),
            ]  # fmt: skip
            ports = [Port("x", (batch, across * width))], [Port("y", (batch * m_rows, width))]
            program = image(code, *ports, width=width, rows=1010, weights=store, constants=[(1000, bias)])
            x = values(rng, (batch, across * width))
            (found,) = vm(program).run(0, [x])
            read = numerics.write_fp32(x)[:, :k]
            read = read if wide else numerics.to_bf16(read)
            expected = numerics.write_fp32(numerics.dot(w, read, bias.ravel(), fp32=True))
            assert_bits(found, expected.reshape(batch * m_rows, width))


@pytest.mark.parametrize("kernels", kernel_names())
@pytest.mark.parametrize("width", [4, 8, 32, 128])
def test_taps_are_read_where_they_lie(width: int, kernels: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """As a product over their rows one behind the other, with +0 where a tap has no element, whatever is there."""
    monkeypatch.setenv("LTC_SIMD", kernels)
    rng = np.random.default_rng(width)
    for k, taps, step in (
        (1, 2, 2),
        (3, 5, 1),
        (width - 1, 3, 3),
        (width, 2, -2),
        (2 * width + 1, 4, 3),
        (5, 3, 0),
    ):
        inner = -(-k // width)
        m_rows, batch, first = 2, 5, 8
        w = numerics.to_bf16(values(rng, (m_rows * width, taps * inner * width)))
        grid = w.reshape(m_rows, width, taps * inner, width).transpose(0, 2, 1, 3)
        words = np.ascontiguousarray(grid).reshape(-1, width, width).view(np.uint32)
        bias = numerics.write_fp32(values(rng, (m_rows, width)))
        x = values(rng, (40, width))
        code = [
            op("input", dst=Row(0), rows=40, port=0),
            op("matmul", dst=Row(50), dst_step=m_rows, x=Row(first), x_step=1, taps=taps, tap_step=step,
               bias=Row(100), weights=0, k=k, m_rows=m_rows, batch=batch),
            op("output", src=Row(50), rows=batch * m_rows, port=0),
        ]  # fmt: skip
        ports = [Port("x", (40, width))], [Port("y", (batch * m_rows, width))]
        store = (words >> 16).astype(np.uint16)
        program = image(code, *ports, width=width, rows=110, weights=store, constants=[(100, bias)])
        (found,) = vm(program).run(0, [x])
        read = numerics.to_bf16(numerics.write_fp32(x))
        there = np.tile(np.arange(inner * width) < k, taps)
        for b in range(batch):
            rows = [first + b + t * step + i for t in range(taps) for i in range(inner)]
            vector = np.where(there, read[rows].ravel(), np.float32(0))
            expected = numerics.write_fp32(
                numerics.dot(np.where(there, w, np.float32(0)), vector, bias.ravel(), fp32=True)
            )
            assert_bits(found[b * m_rows : (b + 1) * m_rows], expected.reshape(m_rows, width))


@pytest.mark.parametrize("kernels", kernel_names())
@pytest.mark.parametrize("width", [4, 32, 128])
def test_reductions_sum_in_order(width: int, kernels: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LTC_SIMD", kernels)
    rng = np.random.default_rng(width)
    for k in LENGTHS:
        rows = 300
        code = [
            op("input", dst=Row(0), rows=rows, port=0),
            op("row_sum", dst=Row(rows), src=Row(0), k=k),
            op("row_max", dst=Row(rows + 1), src=Row(0), k=k),
            op("column_sum", dst=Row(rows + 2), src=Row(0), k=k, k_step=1),
            op("column_max", dst=Row(rows + 3), src=Row(0), k=k, k_step=1),
            op("output", src=Row(rows), rows=4, port=0),
        ]
        program = image(code, [Port("x", (rows, width))], [Port("y", (4, width))], width=width, rows=rows + 4)
        x = values(rng, (rows, width))
        (found,) = vm(program).run(0, [x])
        x = numerics.write_fp32(x)
        expected = [
            np.broadcast_to(numerics.tree_sum(x.ravel()[:k]), width),
            np.broadcast_to(numerics.reduce_max(x.ravel()[:k]), width),
            numerics.tree_sum(np.ascontiguousarray(x[:k].T)),
            numerics.reduce_max(np.ascontiguousarray(x[:k].T)),
        ]
        assert_bits(found, numerics.write_fp32(np.stack(expected).astype(np.float32)))


def test_operands_that_overlap_go_row_by_row() -> None:
    """dst is one row behind a: every row then becomes the first."""
    for width in (4, 8, 64):
        code = [
            op("input", dst=Row(0), rows=4, port=0),
            op("move", dst=Row(1), a=Row(0), n_inner=3, dst_inner=1, a_inner=1),
            op("output", src=Row(0), rows=4, port=0),
        ]
        x = np.arange(4 * width, dtype=np.float32).reshape(4, width)
        (found,) = vm(image(code, [Port("x", (4, width))], [Port("y", (4, width))], width=width)).run(0, x)
        assert_bits(found, np.tile(x[0], (4, 1)))


# ---- calls ----


def accumulator() -> Image:
    """y = s + x, s' = y, twice a run; dt is loaded and not used."""
    code = [
        op("input", dst=Row(0), rows=1, port=0),
        op("input", dst=Row(1), rows=1, port=1),
        op("loop", count=2),
        op("add", dst=Row(2), a=Row(0), b=Row(8)),
        op("state_write", dst=Row(8), a=Row(2)),
        op("end"),
        op("output", src=Row(2), rows=1, port=0),
    ]
    ports = [Port("x", (5,)), Port("dt", (), role="elapsed_time")], [Port("y", (5,))]
    return image(code, *ports, states=(State("s", (5,), 0, 8),), constants=[(8, np.ones((1, 8), np.float32))])


X, DT = np.arange(5, dtype=np.float32), np.float32(0.5) * np.ones((), np.float32)


def test_state_lives_from_run_to_run_and_is_reset() -> None:
    machine = vm(accumulator())
    assert machine.get_state(0, 0).tolist() == [1] * 5
    assert machine.run(0, (X, DT))[0].tolist() == (2 * X + 1).tolist()
    out = np.empty(5, np.float32)
    machine.run_into(0, [X, DT], out)
    assert out.tolist() == machine.get_state(0, 0).tolist() == (4 * X + 1).tolist()
    machine.set_state(0, 0, np.array([0, 1e-40, -1e-40, np.inf, np.nan], np.float32))
    assert_bits(machine.get_state(0, 0), np.array([0, 0, -0.0, np.inf, np.nan], np.float32))
    machine.reset()
    assert machine.get_state(0, 0).tolist() == [1] * 5


def test_timesteps_are_runs() -> None:
    one, many = vm(accumulator()), vm(accumulator())
    x = np.random.default_rng(0).standard_normal((7, 5)).astype(np.float32)
    dt, y = np.ones(7, np.float32), np.empty((7, 5), np.float32)
    many.run_timesteps(0, 7, [x, dt], [y])
    assert_bits(y, np.stack([one.run(0, (x[t], DT))[0] for t in range(7)]))


@pytest.mark.parametrize("bad", [-1e-45, -1.0, float("-inf"), float("nan")])
def test_a_bad_elapsed_time_is_refused_before_the_first_step(bad: float) -> None:
    machine = vm(accumulator())
    dt = np.ones(4, np.float32)
    dt[3] = bad
    y = np.full((4, 5), 9, np.float32)
    with pytest.raises(InputError, match="elapsed time") as caught:
        machine.run_timesteps(0, 4, [np.tile(X, (4, 1)), dt], [y])
    assert caught.value.where == "dt"
    assert (y == 9).all()
    with pytest.raises(InputError, match="elapsed time"):
        machine.run(0, (X, dt[3:4].reshape(())))
    assert machine.get_state(0, 0).tolist() == [1] * 5
    machine.run(0, (X, np.array(-0.0, np.float32)))


READ_ONLY = np.empty(5, np.float32)
READ_ONLY.flags.writeable = False


@pytest.mark.parametrize(
    ("fault", "inputs", "outputs"),
    [
        ("2 inputs, 1 arrays given", X, np.empty(5, np.float32)),
        ("2 inputs, 3 arrays given", [X, DT, DT], np.empty(5, np.float32)),
        ("1 outputs, 2 arrays given", [X, DT], [np.empty(5, np.float32)] * 2),
        ("shape \\(5,\\), given: format d", [X.astype(np.float64), DT], np.empty(5, np.float32)),
        ("given: format e", [X.astype(np.float16), DT], np.empty(5, np.float32)),
        ("given: format >f", [X.astype(">f4"), DT], np.empty(5, np.float32)),
        ("given: format f, shape \\(6,\\)", [np.ones(6, np.float32), DT], np.empty(5, np.float32)),
        ("given: format f, shape \\(1, 5\\)", [X[None], DT], np.empty(5, np.float32)),
        ("shape \\(\\), given: format f, shape \\(1,\\)", [X, DT[None]], np.empty(5, np.float32)),
        ("given: <class 'numpy.ndarray'>", [np.ones(10, np.float32)[::2], DT], np.empty(5, np.float32)),
        ("given: <class 'float'>", [X, 0.5], np.empty(5, np.float32)),
        ("given: <class 'NoneType'>", [None, DT], np.empty(5, np.float32)),
        ("writable C-contiguous", [X, DT], READ_ONLY),
        ("writable", [X, DT], np.empty(4, np.float32)),
        ("shares memory with an input", [X, DT], X),
    ],
)
def test_a_bad_call_is_refused_and_changes_nothing(fault: str, inputs: Any, outputs: Any) -> None:
    machine = vm(accumulator())
    with pytest.raises(InputError, match=fault):
        machine.run_into(0, inputs, outputs)
    assert machine.get_state(0, 0).tolist() == [1] * 5
    machine.run(0, (X, DT))  # and it is not left busy


def test_arrays_of_another_number_of_steps_or_streams_are_refused() -> None:
    machine = vm(accumulator())
    x, dt, y = np.ones((3, 5), np.float32), np.ones(3, np.float32), np.empty((3, 5), np.float32)
    with pytest.raises(InputError, match="shape \\(4, 5\\), given: format f, shape \\(3, 5\\)"):
        machine.run_timesteps(0, 4, [x, dt], y)
    with pytest.raises(InputError, match="shape \\(2, 3, 5\\), given: format f, shape \\(1, 3, 5\\)"):
        machine.run_batch(0, 2, 3, [x[None], dt[None]], y[None], 1)
    assert machine.get_state(0, 0).tolist() == [1] * 5
    assert machine.metrics()["streams"] == 1


def test_what_is_not_there_is_refused() -> None:
    machine = vm(accumulator())
    for call in (
        lambda: machine.run(1, (X, DT)),
        lambda: machine.run(-1, (X, DT)),
        lambda: machine.reset(-2),
    ):
        with pytest.raises(InputError, match="no model"):
            call()
    with pytest.raises(StateError, match="no state 1"):
        machine.get_state(0, 1)
    with pytest.raises(InputError, match="shape"):
        machine.set_state(0, 0, np.ones(4, np.float32))


def test_plain_fp32_needs_the_originals() -> None:
    weights = np.zeros((1, 8, 8), np.uint16)
    code = [op("output", src=Row(0), rows=1, port=0)]
    with pytest.raises(ProgramError, match="no fp32 originals"):
        vm(image(code, [], [Port("y", (8,))], weights=weights), bit_accurate=False)
    vm(image(code, [], [Port("y", (8,))]), bit_accurate=False)  # nothing to have originals of


def slow() -> Image:
    """A run of about a tenth of a second."""
    code = [
        op("input", dst=Row(0), rows=1, port=0),
        op("loop", count=2_000_000),
        op("add", dst=Row(1), a=Row(0), b=Row(1)),
        op("state_write", dst=Row(8), a=Row(1)),
        op("end"),
        op("output", src=Row(1), rows=1, port=0),
    ]
    return image(code, [Port("x", (8,))], [Port("y", (8,))], states=(State("s", (8,), 0, 8),))


def test_a_busy_vm_refuses_and_does_not_wait() -> None:
    machine, x = vm(slow()), np.ones(8, np.float32)
    busy = threading.Event()
    refused: list[StateError] = []

    def call() -> None:
        while not busy.is_set():
            try:
                machine.get_state(0, 0)
            except StateError as error:
                refused.append(error)
                busy.set()

    other = threading.Thread(target=call)
    other.start()
    runs = 0
    while not busy.is_set() and runs < 100:
        with contextlib.suppress(StateError):  # if the other thread is inside get_state
            machine.run(0, [x])
        runs += 1
    busy.set()
    other.join()
    assert refused, "the GIL is not released, or a busy VM is entered"
    assert "running in another thread" in refused[0].what
    machine.run(0, [x])


def test_two_vms_of_one_program_run_in_two_threads() -> None:
    program = _core.Program.parse(slow().to_bytes())
    x = np.full(8, 1.5, np.float32)
    (expected,) = _core.VM(program).run(0, [x])
    found: dict[int, F32] = {}

    def work(n: int) -> None:
        found[n] = _core.VM(program).run(0, [x])[0]

    threads = [threading.Thread(target=work, args=(n,)) for n in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert_bits(found[0], expected)
    assert_bits(found[1], expected)
