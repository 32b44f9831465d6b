"""Laws that hold for every program: what may not change a bit, on random graphs and random bytecode.

Step by step equals whole sequence: tests/streaming/test_law.py. Every set of kernels: test_every_set_of_kernels.py.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from generators import random_graph, random_inputs
from graph_builder import SIZES
from hypothesis import HealthCheck, assume, event, given, settings
from hypothesis import strategies as st
from random_programs import draw, inputs_of

from ltc_compiler import Config, InputError, ProgramBuilder, StateError
from ltc_compiler.ir.graph import Graph, Value, copy_node
from ltc_compiler.nnir import NNIR
from ltc_compiler.program import Program
from ltc_compiler.transforms.pipeline import run_pipeline

SEEDS = st.integers(0, 2**32)


def roomy(config: Config) -> Config:
    """Room for every random graph: how much fits is not what these tests ask."""
    return replace(config, tensor_rows=1 << 16)


SMALL, WIDE = roomy(Config.tiny_c1b8()), roomy(Config.v80_c6b32())


def leaves(result: Any) -> tuple[Any, ...]:
    return result if isinstance(result, tuple) else (result,)


def bits(arrays: Any) -> list[bytes]:
    return [np.ascontiguousarray(a).tobytes() for a in leaves(arrays)]


def steps_of(seed: int) -> tuple[NNIR, list[Any]]:
    """A random graph of one step, with whatever states it has, and a sequence for each of its inputs.

    One in three is wide: its products are spread over cores, and its states lie on several.
    """
    rng = np.random.default_rng(seed)
    sizes = SIZES if seed % 3 else (40, 64, 70)
    whole = NNIR(random_graph(rng, streamable=True, sizes=sizes, wishes=True))
    inputs = [x.astype(np.float32) for x in random_inputs(rng, whole.graph)]
    return whole.streaming_transform(0)[0], inputs


# --- the machine -------------------------------------------------------------------------------------------------


@settings(max_examples=15, deadline=None)
@given(
    SEEDS,
    st.lists(
        st.tuples(st.integers(1, 8), st.sampled_from([4, 8, 16, 32, 64, 128]), st.booleans()),
        min_size=2,
        max_size=3,
    ),
)
def test_cores_block_size_and_schedule_change_nothing(
    seed: int, machines: list[tuple[int, int, bool]]
) -> None:
    rng = np.random.default_rng(seed)
    graph = random_graph(rng, wishes=True)
    inputs = [x.astype(np.float32) for x in random_inputs(rng, graph)]
    expected = bits(NNIR(graph).to_program(SMALL).to_vm().run(*inputs))
    for cores, block_size, optimize in machines:
        config = roomy(replace(WIDE, name="drawn", cores=cores, block_size=block_size))
        program = NNIR(graph).to_program(config, optimize=optimize)
        assert bits(program.to_vm().run(*inputs)) == expected, f"{cores} cores of {block_size} lanes"


@pytest.mark.parametrize("name", Config.presets())
def test_every_preset_gives_the_same_bits(name: str) -> None:
    for seed in range(6):
        rng = np.random.default_rng(seed)
        graph = random_graph(rng, wishes=True)
        inputs = [x.astype(np.float32) for x in random_inputs(rng, graph)]
        found, expected = (
            NNIR(graph).to_program(machine).to_vm().run(*inputs)
            for machine in (roomy(Config.preset(name)), SMALL)
        )
        assert bits(found) == bits(expected), seed


@settings(max_examples=10, deadline=None)
@given(SEEDS)
def test_steps_do_not_depend_on_the_machine(seed: int) -> None:
    step, inputs = steps_of(seed)
    found = []
    for config in (SMALL, WIDE, roomy(Config.ia_840f_c3b64())):
        vm = step.to_program(config).to_vm()
        found.append([bits(vm.run(*(x[t] for x in inputs))) for t in range(len(inputs[0]))])
    assert found[0] == found[1] == found[2]


# --- the file ----------------------------------------------------------------------------------------------------


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(SEEDS, st.booleans())
def test_saving_and_loading_change_nothing(tmp_path: Path, seed: int, bit_accurate: bool) -> None:
    program = Program(draw(seed, 30))
    path = tmp_path / "program"
    program.save(path)
    programs = [program, Program.load(path), Program.load_bytes(program.save_bytes())]
    assert programs[1].save_bytes() == programs[2].save_bytes() == program.save_bytes()
    rng = np.random.default_rng(seed)
    machines = [p.to_vm(bit_accurate) for p in programs]
    for _ in range(2):
        inputs = inputs_of(rng, program.image.models[0])
        first, *others = ([*bits(m.run(*inputs)), *bits(tuple(m.state.values()))] for m in machines)
        assert all(other == first for other in others)


# --- the calls ---------------------------------------------------------------------------------------------------


@settings(max_examples=15, deadline=None)
@given(SEEDS, st.booleans())
def test_a_sequence_is_its_steps_and_a_reset_machine_is_a_new_one(seed: int, bit_accurate: bool) -> None:
    step, inputs = steps_of(seed)
    program = step.to_program(SMALL)
    steps = len(inputs[0])
    vm = program.to_vm(bit_accurate)
    singly = [leaves(vm.run(*(x[t] for x in inputs))) for t in range(steps)]
    state = bits(tuple(vm.state.values()))
    stacked = bits(tuple(np.stack([y[i] for y in singly]) for i in range(program.num_outputs())))
    vm.reset()
    for machine in (vm, program.to_vm(bit_accurate)):
        assert bits(tuple(machine.state.values())) == bits(tuple(program.to_vm(bit_accurate).state.values()))
        assert (
            bits(machine.run_timesteps(*inputs, input_timestep_dim=0, output_timestep_dim=0, align=False))
            == stacked
        )
        assert bits(tuple(machine.state.values())) == state
    vm.reset()
    outputs = [np.full(port.shape, np.nan, np.float32) for port in program.image.models[0].outputs]
    for t in range(steps):
        vm.run_into([np.ascontiguousarray(x[t]) for x in inputs], outputs)
        assert bits(tuple(outputs)) == bits(singly[t])
    assert bits(tuple(vm.state.values())) == state


@settings(max_examples=10, deadline=None)
@given(SEEDS)
def test_a_refused_call_changes_nothing(seed: int) -> None:
    step, inputs = steps_of(seed)
    vm, other = (step.to_program(SMALL).to_vm() for _ in range(2))
    for t in range(len(inputs[0])):
        with pytest.raises(InputError):
            vm.run(*(x[t] for x in inputs), inputs[0][t])
        arrays = [x[t] for x in inputs]
        assert bits(vm.run(*arrays)) == bits(other.run(*arrays))


# --- threads -----------------------------------------------------------------------------------------------------


@settings(max_examples=8, deadline=None)
@given(SEEDS)
def test_two_threads_change_nothing(seed: int) -> None:
    """Two VMs of one program, and one of another, at the same time."""
    images = [draw(seed, 30), draw(seed, 30), draw(seed + 1, 30)]
    programs = [Program(images[0])] * 2 + [Program(images[2])]
    inputs = []
    for n, image in enumerate(images):
        rng = np.random.default_rng(seed + n)
        inputs.append([inputs_of(rng, image.models[0]) for _ in range(20)])
    expected = [
        [bits(vm.run(*x)) for x in xs] for vm, xs in zip(map(Program.to_vm, programs), inputs, strict=True)
    ]
    machines = [p.to_vm() for p in programs]
    found: list[list[list[bytes]]] = [[], [], []]
    start = threading.Barrier(3)

    def work(n: int) -> None:
        start.wait()
        found[n] += [bits(machines[n].run(*x)) for x in inputs[n]]

    run_all([lambda n=n: work(n) for n in range(3)])
    assert found == expected


@settings(max_examples=6, deadline=None)
@given(SEEDS)
def test_one_machine_in_two_threads_refuses_and_is_not_spoilt(seed: int) -> None:
    """What was not refused happened one after the other: the outputs are those of so many steps, each once."""
    step, inputs = steps_of(seed)
    assume(step.graph.states)
    program = step.to_program(SMALL)
    x = [np.ascontiguousarray(a[0]) for a in inputs]
    vm, other = program.to_vm(), program.to_vm()
    found: list[list[bytes]] = []
    refusals = []

    def work() -> None:
        for _ in range(50):
            try:
                found.append(bits(vm.run(*x)))
            except StateError:
                refusals.append(1)

    run_all([work, work])
    event("refused" if refusals else "never met")
    expected = [bits(other.run(*x)) for _ in found]
    assert len(found) + len(refusals) == 100
    assert sorted(found) == sorted(expected)
    assert bits(tuple(vm.state.values())) == bits(tuple(other.state.values()))


def run_all(work: Sequence[Any]) -> None:
    threads = [threading.Thread(target=w) for w in work]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


# --- parts -------------------------------------------------------------------------------------------------------


def cut(graph: Graph, position: int) -> tuple[Graph, Graph, list[int]]:
    """The graph as two that run back to back: nodes before `position`, and the rest. What crosses the cut is an output
    of the first; the list says which of the graph's own inputs the second takes after those.

    Values that follow from constants alone are no one's: both parts compute them, as the compiler would.
    """
    moving: set[Value] = set(graph.inputs)
    for node in graph.nodes:
        if any(v in moving for v in node.operands):
            moving.update(node.results)
    early = {r for n in graph.nodes[:position] for r in n.results if r in moving}
    wanted = [v for n in graph.nodes[position:] for v in n.operands] + graph.outputs
    crossing = list(dict.fromkeys(v for v in wanted if v in early))
    first, second = Graph("first"), Graph("second")
    env = {v: first.add_input(v.type, v.name, v.role) for v in graph.inputs}
    for node in graph.nodes[:position]:
        env.update(zip(node.results, copy_node(first, node, [env[v] for v in node.operands]), strict=True))
    for value in crossing:
        first.add_output(env[value])
    env = {v: second.add_input(v.type) for v in crossing}
    again = [i for i, v in enumerate(graph.inputs) if v in wanted]
    env |= {graph.inputs[i]: second.add_input(graph.inputs[i].type, f"again{i}") for i in again}
    for n, node in enumerate(graph.nodes):
        if n >= position or node.results[0] not in moving:
            env.update(
                zip(node.results, copy_node(second, node, [env[v] for v in node.operands]), strict=True)
            )
    for value in graph.outputs:
        second.add_output(env[value])
    return first, second, again


@settings(max_examples=30, deadline=None)
@given(SEEDS, st.floats(0.1, 0.9), st.booleans())
def test_a_program_cut_in_two_gives_the_same_bits(seed: int, where: float, bit_accurate: bool) -> None:
    rng = np.random.default_rng(seed)
    graph = random_graph(rng, wishes=True)
    position = int(where * len(graph.nodes))
    first, second, again = cut(graph, position)
    assume(first.outputs and second.nodes)
    # What turns out to be a constant is folded on with what reads it, in fp64 (rule 13): not so across a cut.
    assume(all(v.constant() is None for v in run_pipeline(first).outputs))
    inputs = [x.astype(np.float32) for x in random_inputs(rng, graph)]
    expected = bits(NNIR(graph).to_program(SMALL).to_vm(bit_accurate).run(*inputs))
    crossing = leaves(NNIR(first).to_program(WIDE).to_vm(bit_accurate).run(*inputs))
    found = NNIR(second).to_program(SMALL).to_vm(bit_accurate).run(*crossing, *(inputs[i] for i in again))
    assert bits(found) == expected


@settings(max_examples=8, deadline=None)
@given(st.lists(SEEDS, min_size=2, max_size=3, unique=True))
def test_models_of_one_program_are_as_alone(seeds: list[int]) -> None:
    """Run in turns, each with a state of its own; a reset of one leaves the others."""
    made = [steps_of(seed) for seed in seeds]
    builder = ProgramBuilder(WIDE)
    for n, (step, _) in enumerate(made):
        step.graph.name = f"model{n}"
        builder.add_nnir(step)
    vm = builder.to_program().to_vm()
    alone = [step.to_program(SMALL).to_vm() for step, _ in made]
    for t in (0, 1, 0):
        for n, (_, inputs) in enumerate(made):
            arrays = [x[t] for x in inputs]
            assert bits(vm.run(*arrays, model_index=n)) == bits(alone[n].run(*arrays)), f"model {n}"
        vm.reset(model_index=t)
        alone[t].reset()
