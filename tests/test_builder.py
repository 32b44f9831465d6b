"""Several models in one program."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from ltc_compiler import NNIR, Config, ConfigError, ProgramBuilder
from ltc_compiler.ir.graph import Graph, Type
from ltc_compiler.ir.ops import add

WEIGHT = np.random.default_rng(0).standard_normal((40, 24))


def model(name: str, scale: float, weight: Any = WEIGHT) -> NNIR:
    """state' = state + scale * sum of tanh(W x); the output is the new state."""
    graph = Graph(name)
    x = graph.add_input(Type((1, weight.shape[1])))
    y = add(
        graph, "tanh", add(graph, "linear", x, graph.constant(weight), graph.constant(np.zeros(len(weight))))
    )
    state = graph.add_state(np.zeros((1, 1)), "total")
    y = add(graph, "mul", add(graph, "sum", y, axis=1, keepdims=True), graph.constant(scale))
    state.next = add(graph, "add", state.value, y)
    graph.add_output(state.next)
    return NNIR(graph)


def test_models_share_weights_and_nothing_else() -> None:
    config = Config.small_c2b16()
    x = np.random.default_rng(1).standard_normal((1, 24)).astype(np.float32)
    program = ProgramBuilder(config).add_nnir(model("a", 1.0)).add_nnir(model("b", -2.0)).to_program()
    assert (program.num_models, program.model_name(0), program.model_name(1)) == (2, "a", "b")
    single = model("a", 1.0).to_program(config)
    together = [len(core.weights) for core in program.image.cores]
    assert sum(together) == sum(len(core.weights) for core in single.image.cores), "the weights are equal"
    vm, oracle = program.to_vm(), program.to_oracle()
    alone = [model("a", 1.0).to_program(config).to_vm(), model("b", -2.0).to_program(config).to_vm()]
    for index in (0, 1, 1, 0, 1):
        y = vm.run(x, model_index=index)
        assert y.tobytes() == alone[index].run(x).tobytes() == oracle.run(x, model_index=index).tobytes()
    vm.reset(model_index=1)
    alone[1].reset()
    for index in (0, 1):
        assert vm.run(x, model_index=index).tobytes() == alone[index].run(x).tobytes()


def test_a_model_stays_on_its_cores() -> None:
    big = np.random.default_rng(2).standard_normal((512, 512))
    config = Config.v80_c6b32()
    builder = ProgramBuilder(config).add_nnir(model("a", 1.0, big), core_indices=[2])
    program = builder.add_nnir(model("b", 1.0, big), core_indices=[5, 3, 4]).to_program()
    cores = [{i.core for i in program.image.code[m.begin : m.end]} for m in program.image.models]
    assert cores[0] == {2}
    assert cores[1] <= {3, 4, 5}
    assert {s.core for m in program.image.models for s in m.states} == {2, 5}
    x = np.random.default_rng(1).standard_normal((1, 512)).astype(np.float32)
    vm = program.to_vm()
    assert vm.run(x, model_index=0).tobytes() == vm.run(x, model_index=1).tobytes(), (
        "the cores do not change the bits"
    )


@pytest.mark.parametrize("cores", [[], [6], [-1], [1, 1]])
def test_bad_cores_are_refused(cores: list[int]) -> None:
    with pytest.raises(ConfigError, match="core_indices"):
        ProgramBuilder(Config.v80_c6b32()).add_nnir(model("a", 1.0), core_indices=cores)


def test_a_name_is_taken_once_and_a_program_needs_a_model() -> None:
    builder = ProgramBuilder(Config.tiny_c1b8())
    with pytest.raises(ConfigError, match="no model"):
        builder.to_program()
    with pytest.raises(ConfigError, match="already"):
        builder.add_nnir(model("a", 1.0)).add_nnir(model("a", 2.0))
