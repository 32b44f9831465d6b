"""Ctrl-C ends what takes long within 50 ms, with every state as after a whole number of steps; max_work bounds it."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from random_programs import op

from ltc_compiler.bytecode import CoreImage, Image, Instr, Model, Port, Ring, Row, State
from ltc_compiler.config import Config
from ltc_compiler.errors import InputError, ProgramError
from ltc_compiler.program import Program

B = 8
LATE = 0.05 if "LTC_CORE" not in os.environ else 1.0  # seconds; a sanitized core is slow


class AlarmError(Exception):
    """What the handler of the tests' signal raises."""


@pytest.fixture(autouse=True)
def handler() -> Iterator[None]:
    def ring(number: int, frame: object) -> None:
        raise AlarmError

    before = signal.signal(signal.SIGUSR1, ring)
    yield
    signal.signal(signal.SIGUSR1, before)


def interrupted(call: Callable[[], object], after: float = 0.1) -> float:
    """Seconds from a signal, sent while `call` is under way, to its end."""
    sent: list[float] = []

    def send() -> None:
        time.sleep(after)
        sent.append(time.perf_counter())
        os.kill(os.getpid(), signal.SIGUSR1)

    thread = threading.Thread(target=send)
    thread.start()
    finished = False
    try:
        call()
        finished = True
        time.sleep(10)
    except AlarmError:
        end = time.perf_counter()
    thread.join()
    assert not finished, "it ended before the signal"
    return end - sent[0]


def ends_soon(call: Callable[[], object], after: float = 0.1) -> None:
    """The best of three: a machine with other work may be late by itself."""
    assert min(interrupted(call, after) for _ in range(3)) < LATE


def counter(*before: Instr, width: int = B) -> Program:
    """One state, which goes up by one a step; `before` is executed ahead of that."""
    code = [op("input", dst=Row(0)), *before, op("add", dst=Row(2), a=Row(1), b=Row(0)),
            op("state_write", dst=Row(1), a=Row(2)), op("output", src=Row(1))]  # fmt: skip
    model = Model("m", 0, len(code), (Port("x", (1,)),), (Port("y", (1,)),), (State("s", (1,), 0, 1),))
    config = replace(Config.ip_core(1, width), name="counter")
    return Program(Image(config, code, [CoreImage.empty(width, 16)], [model]))


def nested(*body: Instr, depth: int = 4, count: int = 256) -> list[Instr]:
    return [op("loop", count=count)] * depth + list(body) + [op("end")] * depth


# The state is written halfway through the loops, so that a run that is cut short would show.
COUNT_UP = (op("add", dst=Row(2), a=Row(1), b=Row(0)), op("state_write", dst=Row(1), a=Row(2)))
HOURS = nested(*COUNT_UP)
ONES = np.ones(1, np.float32)


def test_a_sequence_stops_between_two_steps() -> None:
    vm = counter().to_vm()
    x = np.ones((10_000_000, 1), np.float32)
    ends_soon(lambda: vm.run_timesteps(x))
    vm.reset()
    interrupted(lambda: vm.run_timesteps(x))
    done = vm.steps_done()
    assert 0 < done < len(x)
    assert (vm.state["s"] == done).all()
    assert (vm.run(ONES) == done + 1).all()


def test_a_ring_stands_as_after_whole_steps() -> None:
    """Its newest row is written before the long part of a step, in which the run is stopped."""
    line = range(4, 7)
    double = op("add", dst=Row(3), a=Row(0), b=Row(0))
    code = [op("input", dst=Row(0)), op("state_write", dst=Row(line.start), a=Row(0)), op("loop", count=1 << 18),
            double, op("end"), op("output", src=Row(0))]  # fmt: skip
    states = tuple(State(f"s{row}", (1,), 0, row) for row in line)
    model = Model(
        "m", 0, len(code), (Port("x", (1,)),), (Port("y", (1,)),), states, (Ring(0, line.start, 3),)
    )
    config = replace(Config.ip_core(1, B), name="line")
    vm = Program(Image(config, code, [CoreImage.empty(B, line.stop)], [model])).to_vm()
    x = np.arange(1, 20_001, dtype=np.float32)[:, None]
    interrupted(lambda: vm.run_timesteps(x))
    done = vm.steps_done()
    assert 3 < done < len(x)
    assert [float(a[0]) for a in vm.state.values()] == [done - 2, done - 1, done]
    vm.run(np.zeros(1, np.float32))
    assert [float(a[0]) for a in vm.state.values()] == [done - 1, done, 0]


@pytest.mark.parametrize("threads", [1, 3])
def test_every_stream_of_a_batch_stops_between_two_steps(threads: int) -> None:
    vm = counter().to_vm()
    x = np.ones((4, 3_000_000, 1), np.float32)
    ends_soon(lambda: vm.run_batch(x, threads=threads))
    vm.reset()
    interrupted(lambda: vm.run_batch(x, threads=threads))
    done = [vm.steps_done(n) for n in range(4)]
    assert sum(done) < 4 * x.shape[1]
    for n in range(4):
        assert (vm.get_state(stream=n)["s"] == done[n]).all()
    ones = np.ones((4, 1, 1), np.float32)
    y = vm.run_batch(ones, threads=threads)
    assert [int(v[0, 0]) for v in y] == [n + 1 for n in done]


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize(("count", "steps"), [(1, 600_000), (1 << 14, 2_000)])
def test_a_group_stops_with_all_its_streams_between_two_steps(threads: int, count: int, steps: int) -> None:
    """Also one whose single step takes long, which is stopped in its middle."""
    double = op("add", dst=Row(3), a=Row(0), b=Row(0))
    vm, streams = counter(op("loop", count=count), double, op("end"), width=16).to_vm(), 40
    x = np.ones((streams, steps, 1), np.float32)
    ends_soon(lambda: vm.run_batch(x, threads=threads))
    vm.reset()
    interrupted(lambda: vm.run_batch(x, threads=threads))
    assert vm.metrics()["group"] > 1
    done = [vm.steps_done(n) for n in range(streams)]
    assert 0 < max(done) < steps
    assert done == [vm.get_state(stream=n)["s"] for n in range(streams)]


def test_a_step_of_hours_ends_where_it_began() -> None:
    vm = counter(*HOURS).to_vm()
    vm.set_state({"s": 7 * ONES})
    ends_soon(lambda: vm.run(ONES))
    assert (vm.state["s"] == 7).all()
    ends_soon(lambda: vm.run_batch(np.ones((3, 1), np.float32), threads=2))
    assert all((vm.get_state(stream=n)["s"] == (7 if n == 0 else 0)).all() for n in range(3))


def test_a_single_loop_of_short_iterations_ends_where_it_began() -> None:
    """No body around it takes long enough to be polled in its stead."""
    vm = counter(*nested(*COUNT_UP, depth=1, count=1 << 29)).to_vm()
    vm.set_state({"s": 7 * ONES})
    ends_soon(lambda: vm.run(ONES))
    assert (vm.state["s"] == 7).all()


LONG_STEPS: dict[str, Instr] = {
    "elementwise": op("add", dst=Row(2), n_outer=65536, n_inner=512, dst_inner=0, a_inner=0, b_inner=0),
    "column": op("column_sum", dst=Row(2), src=Row(0), k=65536, n_inner=14),
    "product": op("product", dst=Row(2), a=Row(0), b=Row(0), n_i=14, n_j=65536),
    "groups": op("row_max", dst=Row(2), src=Row(0), groups=65536, k=16 * B),
}  # fmt: skip


@pytest.mark.parametrize("name", LONG_STEPS)
def test_one_long_instruction_is_cut_into_pieces(name: str) -> None:
    vm = counter(*nested(LONG_STEPS[name], depth=1, count=5000)).to_vm()
    ends_soon(lambda: vm.run(ONES))
    assert not vm.state["s"].any()


def straight(instr: Instr, rows: int, inputs: int, weights: Any = None) -> Program:
    """Rows 0 to `inputs` from the host, one instruction, all rows back. Padded by moves, so that it takes long."""
    code = [op("input", dst=Row(0), rows=inputs), instr, op("output", src=Row(0), rows=rows)]
    empty = CoreImage.empty(B)
    blocks = np.zeros((0, B, B), np.uint16) if weights is None else weights
    core = CoreImage(rows, [], blocks, empty.slots, empty.entries)
    model = Model("m", 0, len(code), (Port("x", (inputs, B)),), (Port("y", (rows, B)),))
    config = replace(Config.ip_core(1, B), name="straight", output_rows=1 << 16)
    return Program(Image(config, code, [core], [model]))


OVER = {"n_outer": 1100, "n_inner": 60, "dst_inner": 0, "a_inner": 0}
OVERLAPPING: dict[str, Instr] = {
    "add": op("add", dst=Row(40), dst_outer=1, a=Row(39), a_outer=1, b=Row(0), **OVER),
    "row_sum": op("row_sum", dst=Row(60), dst_step=1, src=Row(5), src_step=1, groups=1100, k=60 * B),
    "product": op(
        "product",
        dst=Row(140),
        dst_i=1,
        a=Row(0),
        lane_i=1,
        a_lanes=1100,
        b=Row(5),
        n_i=1100,
        n_j=60,
        addend=Row(139),
        addend_i=1,
    ),
    "column_max": op("column_max", dst=Row(60), src=Row(0), k_step=1, k=60, n_inner=1100),
}


@pytest.mark.parametrize("name", OVERLAPPING)
def test_pieces_compute_what_the_whole_does(name: str) -> None:
    """An instruction of 66,000 beats, each of which reads what the one before it wrote."""
    program = straight(OVERLAPPING[name], 1240, 40)
    assert program.work_per_inference()["beats"] > 1 << 16
    x = np.random.default_rng(0).standard_normal((40, B)).astype(np.float32)
    assert program.to_vm().run(x).tobytes() == program.to_oracle().run(x).tobytes()


def test_pieces_of_a_product_compute_what_the_whole_does() -> None:
    """Against short programs, whose products are whole; test_core_runs compares these with the reference."""
    rng = np.random.default_rng(0)
    weights = rng.integers(0x3F00, 0x3F80, (9, B, B)).astype(np.uint16)
    x = rng.standard_normal((8000, B)).astype(np.float32)

    def products(x: Any) -> Any:
        n = len(x)
        matmul = op(
            "matmul",
            dst=Row(n),
            dst_step=1,
            x=Row(0),
            x_step=1,
            taps=9,
            k=B,
            bias=Row(2 * n),
            m_rows=1,
            batch=n,
        )
        return straight(matmul, 2 * n + 1, n, weights).to_vm().run(x)[n : 2 * n]

    expected = [products(x[first : first + 1000]) for first in range(0, 8000, 1000)]
    assert products(x).tobytes() == np.concatenate(expected).tobytes()


def test_cycles_and_reports_end_soon() -> None:
    program = counter(*nested(*COUNT_UP, depth=4, count=200))
    ends_soon(lambda: program.cycle_count_per_inference())
    ends_soon(lambda: program.report())


def test_the_reference_machine_ends_where_it_began() -> None:
    oracle = counter(*HOURS).to_oracle()
    oracle.set_state({"s": 7 * ONES})
    ends_soon(lambda: oracle.run(ONES))
    assert (oracle.state["s"] == 7).all()


def test_a_signal_whose_handler_returns_changes_nothing() -> None:
    rung = []
    signal.signal(signal.SIGUSR1, lambda number, frame: rung.append(number))
    vm, x = counter().to_vm(), np.ones((3_000_000, 1), np.float32)
    timer = threading.Timer(0.05, lambda: os.kill(os.getpid(), signal.SIGUSR1))
    timer.start()
    y = vm.run_timesteps(x)
    timer.join()
    assert (y[-1] == len(x)).all()
    assert rung


def test_another_thread_runs_on() -> None:
    """Signals are the main thread's: a run of another is not ended by one."""
    vm, x = counter().to_vm(), np.ones((3_000_000, 1), np.float32)
    found: list[Any] = []
    thread = threading.Thread(target=lambda: found.append(vm.run_timesteps(x)[-1, 0]))
    thread.start()
    with pytest.raises(AlarmError):
        signal.raise_signal(signal.SIGUSR1)
    thread.join()
    assert found == [len(x)]


# ---- max_work --------------------------------------------------------------------------------------------------


def test_work_is_counted_from_the_loops() -> None:
    program = counter(*nested(op("add", dst=Row(2), a=Row(0), b=Row(0), n_outer=3), depth=2, count=5))
    # input, 2 loops with 5 + 25 ends, 25 adds of 3 rows, and the three of every step
    assert program.work_per_inference() == {"instructions": 1 + 1 + 5 + 5 + 25 + 25 + 3, "beats": 1 + 75 + 3}


def test_a_file_is_bounded_by_max_work() -> None:
    program = counter(*nested(op("move", dst=Row(2), a=Row(0)), depth=2, count=1000))
    data = program.save_bytes()
    assert Program.load_bytes(data).work_per_inference()["beats"] == 1_000_004
    with pytest.raises(ProgramError, match="1000004 beats, more than 1000000") as caught:
        Program.load_bytes(data, max_work=1_000_000)
    assert "larger max_work" in caught.value.remedy
    Program.load_bytes(data, max_work=3_000_000)
    with pytest.raises(ProgramError, match="more than 5000"):
        program.to_vm(max_work=5000)
    for wrong in (0, -1, 1 << 63, 1.5, True):
        with pytest.raises(InputError, match="max_work is"):
            Program.load_bytes(data, max_work=wrong)  # type: ignore[arg-type]


def test_hours_are_refused_by_default() -> None:
    program = counter(*HOURS)
    with pytest.raises(ProgramError, match="beats, more than 8589934592"):
        Program.load_bytes(program.save_bytes())
    program.to_vm()  # what was compiled here may run: Ctrl-C ends it
