"""Streams that a batch runs together give the bits of single streams, whatever their number and what they hold."""

from __future__ import annotations

import copy
import itertools
import json
import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from both_machines import outputs
from children import run_python
from core_images import image, kernel_names
from numpy.typing import NDArray
from random_programs import DRAWN, draw, inputs_of, op, values

from ltc_compiler import Config
from ltc_compiler.bytecode import Port, Row, State
from ltc_compiler.ir.graph import Graph, Type
from ltc_compiler.ir.ops import add, add_many
from ltc_compiler.nnir import NNIR
from ltc_compiler.program import Program
from ltc_compiler.vm import VM

F32 = NDArray[np.float32]
KERNELS = kernel_names()
SPECIAL = np.array([np.inf, -np.inf, np.nan, 1e30, -1e30, 1e-36, -0.0], np.float32)
ONE_BY_ONE = ("product", "dot")  # no handler for groups: a program that holds one runs stream by stream
GROUPED = tuple(name for name in DRAWN if name not in ONE_BY_ONE)
STREAMS_ONE_BY_ONE = 7  # up to so many do not make a group


def wide_images(names: tuple[str, ...] = GROUPED, size: int = 40, widths: tuple[int, ...] = (16, 32)) -> Any:
    """Random programs, with their seeds, whose rows are at least as long as any CPU's vectors. No state has a copy on
    another core, which such a program would write apart from the state.
    """
    for seed in itertools.count():
        drawn = draw(seed, size, names)
        if drawn.config.block_size in widths and not any(s.copies for s in drawn.models[0].states):
            yield seed, drawn


def batch_of(rng: np.random.Generator, model: Any, streams: int, steps: int) -> list[F32]:
    """(streams, steps, *shape) of each input; here and there values that no fused operation takes."""
    arrays = []
    for port in model.inputs:
        shape = (streams * steps, *port.shape)
        x = values(rng, shape) if port.role != "elapsed_time" else rng.uniform(0, 2, shape).astype(np.float32)
        if port.role != "elapsed_time" and port.shape:
            x[rng.random(x.shape) < 0.001] = rng.choice(SPECIAL)
        arrays.append(x.reshape(streams, steps, *port.shape))
    return arrays


class Alone:
    """A VM for each stream."""

    def __init__(self, fresh: VM) -> None:
        self.fresh, self.machines = fresh, [fresh]
        self.machines = [copy.copy(fresh)]

    def run(self, x: list[F32]) -> list[bytes]:
        """The bits of every output of every stream."""
        while len(self.machines) < len(x[0]):
            self.machines.append(copy.copy(self.fresh))
        return [
            b"".join(
                np.concatenate([np.ravel(o) for o in outputs(machine.run(*(a[n, t] for a in x)))]).tobytes()
                for t in range(x[0].shape[1])
            )
            for n, machine in enumerate(self.machines[: len(x[0])])
        ]


def bits_of_batch(vm: VM, x: list[F32], threads: int) -> list[bytes]:
    y = outputs(vm.run_batch(*x, threads=threads))
    streams, steps = x[0].shape[:2]
    return [
        b"".join(np.concatenate([np.ravel(o[n, t]) for o in y]).tobytes() for t in range(steps))
        for n in range(streams)
    ]


def state_bits(vm: VM, stream: int = 0) -> bytes:
    return b"".join(a.tobytes() for a in vm.get_state(stream=stream).values())


def compare(drawn: Any, seed: int, counts: tuple[int, ...], vm: VM, grouped: bool | None = True) -> None:
    """Batches of changing numbers of streams, with single runs between, beside single VMs."""
    rng, alone, model = np.random.default_rng(seed), Alone(copy.copy(vm)), drawn.models[0]
    for turn, streams in enumerate(counts):
        x = batch_of(rng, model, streams, 1 + turn % 3)
        assert bits_of_batch(vm, x, 1 + turn % 2) == alone.run(x), f"seed {seed}, {streams} streams"
        if grouped is not None:
            assert (vm.metrics()["group"] > 1) == (grouped and streams > STREAMS_ONE_BY_ONE)
        one = inputs_of(rng, model)
        found, expected = outputs(vm.run(*one)), outputs(alone.machines[0].run(*one))
        assert all(a.tobytes() == b.tobytes() for a, b in zip(found, expected, strict=True))
    for n, machine in enumerate(alone.machines):
        assert state_bits(vm, n) == state_bits(machine), f"seed {seed}, stream {n}"


@pytest.mark.parametrize("kernels", KERNELS)
def test_every_set_of_kernels(kernels: str) -> None:
    for seed, drawn in itertools.islice(wide_images(), 4):
        compare(drawn, seed, (17, 3, 33), Program(drawn).to_vm(kernels=kernels, bit_accurate=seed % 4 != 0))


def test_any_number_of_streams() -> None:
    for seed, drawn in itertools.islice(wide_images(size=20), 1):
        compare(drawn, seed, (1, 130, 7, 8, 33, 2, 129), Program(drawn).to_vm())


@pytest.mark.parametrize("name", GROUPED)
def test_every_instruction_runs_in_groups(name: str) -> None:
    """And gives the reference machine's bits: a group is no fourth opinion."""
    for seed, drawn in itertools.islice(wide_images((name, "move"), 12), 2):
        program = Program(drawn)
        vm, oracle = program.to_vm(), program.to_oracle()
        compare(drawn, seed, (9,), vm)
        state = vm.get_state(stream=8)
        vm.set_state(state, stream=8)  # without what stands behind the last elements
        oracle.set_state(state)
        x = batch_of(np.random.default_rng(seed), drawn.models[0], 9, 1)
        expected = outputs(oracle.run(*(a[8, 0] for a in x)))
        assert bits_of_batch(vm, x, 1)[8] == np.concatenate([np.ravel(o) for o in expected]).tobytes()


def test_rows_shorter_than_a_vector_run_one_by_one() -> None:
    seed, drawn = next(wide_images(size=20, widths=(4,)))
    for kernels in KERNELS:
        vm = Program(drawn).to_vm(kernels=kernels)
        compare(drawn, seed, (12,), vm, grouped=vm.metrics()["lanes"] <= 4)


def test_rows_that_are_kept_from_run_to_run_belong_to_a_stream() -> None:
    """Row 1 counts runs, and is no state: each stream needs it for its own."""
    ports = Port("x", (16,)), Port("y", (16,))
    code = [
        op("input", dst=Row(0), rows=1, port=0, first=0),
        op("add", dst=Row(1), a=Row(1), b=Row(0)),
        op("output", src=Row(1), rows=1, port=0, first=0),
    ]
    vm = Program(image(code, [ports[0]], [ports[1]], width=16)).to_vm()
    x = np.arange(20 * 16, dtype=np.float32).reshape(20, 1, 16)
    for run in range(1, 4):
        assert np.array_equal(vm.run_batch(x, threads=2), run * x)
    assert vm.metrics()["group"] == 1


def test_copies_of_a_state_that_differ_from_it_belong_to_a_stream() -> None:
    """Random programs write the two apart from each other."""
    found = 0
    for seed in range(12):
        drawn = draw(seed, 40)
        if drawn.config.block_size >= 16 and any(state.copies for state in drawn.models[0].states):
            compare(drawn, seed, (9, 12), vm := Program(drawn).to_vm(), grouped=None)
            found += vm.metrics()["group"] == 1
    assert found > 0


def test_an_element_out_of_range_changes_no_other_stream() -> None:
    for seed, drawn in itertools.islice(wide_images(("matmul", "synapse")), 3):
        program = Program(drawn)
        x = batch_of(np.random.default_rng(seed), drawn.models[0], 20, 1)
        before = bits_of_batch(program.to_vm(), x, 1)
        spoilt = [a.copy() for a in x]
        for a, port in zip(spoilt, drawn.models[0].inputs, strict=True):
            if port.role != "elapsed_time":
                a[6] = 1e38
        after = bits_of_batch(program.to_vm(), spoilt, 1)
        assert [a == b for n, (a, b) in enumerate(zip(after, before, strict=True)) if n != 6] == [True] * 19
        assert after == Alone(program.to_vm()).run(spoilt)


@pytest.mark.parametrize("kernels", KERNELS)
def test_products_below_the_normal_range_are_kept_in_the_stream_that_has_them(kernels: str) -> None:
    """A fused bf16 product would flush them: their sums are normal."""
    rng, graph = np.random.default_rng(0), Graph("product")
    weights = graph.constant(rng.uniform(0.1, 1, (32, 64)))
    x = graph.add_input(Type((64,)), "x")
    graph.add_output(add(graph, "linear", x, weights, graph.constant(np.zeros(32))))
    vm = NNIR(graph).to_program(Config.v80_c6b32()).to_vm(kernels=kernels)
    batch = rng.normal(size=(20, 1, 64)).astype(np.float32)
    batch[6] = rng.uniform(1.2e-38, 3e-38, 64)
    alone = Alone(copy.copy(vm)).run([batch])
    assert bits_of_batch(vm, [batch], 1) == alone
    assert np.frombuffer(alone[6], np.float32).min() > np.finfo(np.float32).tiny


@pytest.mark.parametrize("kernels", KERNELS)
def test_gates_that_are_all_but_shut_count_in_the_stream_that_has_them(kernels: str) -> None:
    """A gate of 2e-38 times a weight is below the normal range; the sum of 32 of them is not."""
    rng, graph = np.random.default_rng(0), Graph("gates")
    shape = (32, 32)
    weights = rng.uniform(0.1, 0.6, shape)
    arrays = (np.zeros(shape), np.ones(shape), weights, weights * 0.9, np.ones(shape))
    x = graph.add_input(Type((32,)), "x")
    sums = add_many(graph, "synapse", (x, *(graph.constant(a) for a in arrays)), {})
    for total in sums:
        graph.add_output(total)
    vm = NNIR(graph).to_program(Config.v80_c6b32()).to_vm(kernels=kernels)
    batch = rng.normal(size=(20, 1, 32)).astype(np.float32)
    batch[6] = -rng.uniform(86.0, 87.0, 32)
    alone = Alone(copy.copy(vm)).run([batch])
    assert bits_of_batch(vm, [batch], 1) == alone
    assert np.frombuffer(alone[6], np.float32).min() > np.finfo(np.float32).tiny


def test_a_group_goes_on_where_its_streams_were() -> None:
    vm = Program(large_state(1)).to_vm()
    x = np.arange(1, 20 * 16 + 1, dtype=np.float32).reshape(20, 1, 16)
    for runs in range(1, 4):
        assert np.array_equal(vm.run_batch(x, threads=1), runs * x)
    assert vm.metrics()["group"] > 1


TOO_MANY = """
import json, resource, sys
import numpy as np
from ltc_compiler.errors import InputError
from ltc_compiler.program import Program
from test_groups import large_state
vm = Program(large_state()).to_vm()
x = np.ones((50_000, 1, 16), np.float32)
first = vm.run_batch(x[:20], threads=1)
used = int(next(l for l in open("/proc/self/status") if l.startswith("VmSize")).split()[1]) * 1024
resource.setrlimit(resource.RLIMIT_AS, (used + (256 << 20), -1))  # the states alone take 1.6 GB
try:
    vm.run_batch(x, threads=1)
except InputError as error:
    refused = str(error)
second = vm.run_batch(x[:20], threads=1)
print(json.dumps([refused, vm.metrics()["streams"], float(first[0, 0, 0]), float(second[19, 0, 0])]))
"""


def large_state(rows: int = 512) -> Any:
    """Each run adds its input to a state of so many rows."""
    code = [
        op("input", dst=Row(0), rows=1, port=0, first=0),
        op("add", dst=Row(1), a=Row(0), b=Row(2)),
        op("state_write", dst=Row(2), a=Row(1)),
        op("output", src=Row(2), rows=1, port=0, first=0),
    ]
    state = State("sum", (rows, 16), 0, 2)
    return image(code, [Port("x", (16,))], [Port("y", (16,))], width=16, rows=rows + 2, states=(state,))


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
@pytest.mark.skipif("LD_PRELOAD" in os.environ, reason="the sanitizer takes terabytes of addresses")
def test_a_batch_whose_states_do_not_fit_is_refused_and_nothing_is_lost() -> None:
    done = run_python(TOO_MANY, folders=(str(Path(__file__).parent),))
    assert done.returncode == 0, done.stderr
    refused, streams, first, second = json.loads(done.stdout.splitlines()[-1])
    assert "49980 new streams take 16" in refused
    assert "give fewer streams" in refused
    assert (streams, first, second) == (20, 1, 2)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
@pytest.mark.skipif("LD_PRELOAD" in os.environ, reason="the sanitizer keeps memory that was given back")
def test_a_stream_takes_memory_for_its_states() -> None:
    """And not for 4,000 rows more that its program works in."""
    vm = Program(replaced_rows(large_state(2), 4000)).to_vm()
    x = np.ones((4000, 1, 16), np.float32)
    vm.run_batch(x[:128], threads=2)
    before = resident()
    vm.run_batch(x, threads=2)
    assert resident() - before < 4000 * (2 * 16 * 4 + 200) + (8 << 20)


def replaced_rows(drawn: Any, rows: int) -> Any:
    """The program with more rows, all of which it clears."""
    clear = op("sub", dst=Row(4), dst_inner=1, a=Row(0), a_inner=0, b=Row(0), b_inner=0, n_inner=rows - 4)
    core = replace(drawn.cores[0], tensor_rows=rows)
    code = [drawn.code[0], clear, *drawn.code[1:]]
    model = replace(drawn.models[0], end=len(code))
    return replace(
        drawn, config=replace(drawn.config, tensor_rows=4096), code=code, cores=[core], models=[model]
    )


def resident() -> int:
    """Bytes of memory that this process has."""
    with open("/proc/self/status", encoding="ascii") as file:
        return int(next(line for line in file if line.startswith("VmRSS")).split()[1]) * 1024
