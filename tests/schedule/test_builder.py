"""Several models in one program."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from ltc_compiler import (
    NNIR,
    AllocationError,
    Config,
    ConfigError,
    InputError,
    Program,
    ProgramBuilder,
    StateError,
)
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


def over_time(name: str, steps: int = 6) -> NNIR:
    """(steps, 24) -> (steps, 1): a running sum of what `model` sums."""
    graph = Graph(name)
    x = graph.add_input(Type((steps, 24)))
    y = add(
        graph, "tanh", add(graph, "linear", x, graph.constant(WEIGHT), graph.constant(np.zeros(len(WEIGHT))))
    )
    graph.add_output(add(graph, "sum", y, axis=1, keepdims=True))
    return NNIR(graph)


def test_streamed_and_whole_models_lie_side_by_side() -> None:
    """The ports, streaming axes, states and cycles of each model are those that it has alone."""
    config = Config.small_c2b16()
    models = {
        "whole": over_time("whole"),
        "steps": over_time("steps").streaming_transform(0)[0],
        "state": model("state", 0.5),
    }
    builder = ProgramBuilder(config)
    for name, nnir in models.items():
        builder.add_nnir(nnir, name)
    built = builder.to_program(quick_compile=True)
    for program in (built, Program.load_bytes(built.save_bytes())):
        assert [program.model_name(i) for i in range(program.num_models)] == list(models)
        vm = program.to_vm()
        for i, nnir in enumerate(models.values()):
            alone = nnir.to_program(config, quick_compile=True)
            shapes = [p.input_shape(k, 0) for p, k in ((program, i), (alone, 0))]
            assert shapes[0] == shapes[1] == nnir.input_shapes[0]
            assert program.input_streaming_dim(i) == alone.input_streaming_dim() == (0 if i == 1 else None)
            assert program.output_format(i) == alone.output_format()
            assert program.cycle_count_per_inference(i) == alone.cycle_count_per_inference()
            x = np.random.default_rng(i).standard_normal(shapes[0]).astype(np.float32)
            single = alone.to_vm()
            for _ in range(3):
                assert vm.run(x, model_index=i).tobytes() == single.run(x).tobytes()
        listed = program.metrics()["models"]
        assert [m["name"] for m in listed] == list(models)


def test_reset_takes_one_model_or_all() -> None:
    program = (
        ProgramBuilder(Config.small_c2b16()).add_nnir(model("a", 1.0)).add_nnir(model("b", 3.0)).to_program()
    )
    x = np.ones((1, 24), np.float32)
    vm, oracle = program.to_vm(), program.to_oracle()

    def totals() -> list[float]:
        found = [[m.get_state(i)["total"].item() for i in (0, 1)] for m in (vm, oracle)]
        assert found[0] == found[1]
        return found[0]

    for machine in (vm, oracle):
        for i in (0, 1):
            machine.run(x, model_index=i)
    assert all(totals())
    for machine in (vm, oracle):
        machine.reset(0)
    assert totals()[0] == 0
    assert totals()[1] != 0
    for machine in (vm, oracle):
        machine.reset()
    assert totals() == [0, 0]
    for index in (2, -1):
        for machine in (vm, oracle):
            with pytest.raises(InputError, match="model_index"):
                machine.reset(index)
            with pytest.raises(InputError, match="model_index"):
                machine.run(x, model_index=index)
        with pytest.raises(InputError, match="model_index"):
            program.cycle_count_per_inference(index)


def test_what_does_not_fit_together_says_which_store() -> None:
    big = [np.random.default_rng(k).standard_normal((512, 512)) for k in range(2)]
    config = Config.from_dict({**Config.tiny_c1b8().to_dict(), "name": "just", "weight_blocks": 5000})
    one = ProgramBuilder(config).add_nnir(model("a", 1.0, big[0]))
    one.to_program(quick_compile=True)
    with pytest.raises(
        AllocationError, match="weight blocks of core 0: 8192 needed, 5000 available"
    ) as caught:
        one.add_nnir(model("b", 1.0, big[1])).to_program()
    assert (caught.value.needed, caught.value.available) == (8192, 5000)
    assert "more weight_blocks or more cores" in caught.value.remedy
    same = ProgramBuilder(config).add_nnir(model("a", 1.0, big[0])).add_nnir(model("b", 1.0, big[0]))
    assert len(same.to_program(quick_compile=True).image.cores[0].weights) == 4096, "shared weights fit"


# ---------------------------------------------------------------- the keywords of to_program


def test_quick_compile_takes_one_schedule_and_optimize_orders_it() -> None:
    """No result changes; cycles grow from the best schedule to the quick one to the one as written."""
    from ltc_compiler.schedule import search
    from ltc_compiler.schedule.encode import encode

    weights = np.random.default_rng(4).standard_normal((3, 96, 96)) / 10
    graph = Graph("pair")
    x = graph.add_input(Type((1, 96)))
    first, second, third = ([graph.constant(w), graph.constant(np.zeros(96))] for w in weights)
    y = add(graph, "tanh", add(graph, "linear", x, *first))
    y = add(graph, "linear", y, *second)  # waits, and as written the next product waits behind it
    graph.add_output(add(graph, "mul", y, add(graph, "linear", x, *third)))
    nnir, config = NNIR(graph), Config.small_c2b16()
    made: list[int] = []

    def counted(*arguments: Any) -> Any:
        made.append(1)
        return encode(*arguments)

    levels: list[dict[str, Any]] = [{}, {"quick_compile": True}, {"optimize": False}]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(search, "encode", counted)
        counts, programs = [], []
        for keywords in levels:
            made.clear()
            programs.append(nnir.to_program(config, **keywords))
            counts.append(len(made))
    assert counts[0] > 4  # a draft of every schedule that is tried, and the program of the best
    assert counts[1:] == [1, 1]
    cycles = [p.cycle_count_per_inference(spaced=False) for p in programs]
    assert cycles[0] <= cycles[1] < cycles[2]
    given = np.random.default_rng(5).standard_normal((1, 96)).astype(np.float32)
    assert len({p.to_vm().run(given).tobytes() for p in programs}) == 1


def test_the_name_is_the_models() -> None:
    config = Config.tiny_c1b8()
    assert model("a", 1.0).to_program(config).model_name() == "a"
    assert model("a", 1.0).to_program(config, "other").model_name() == "other"


def test_a_program_without_state_reset_refuses_it_and_keeps_its_state() -> None:
    x = np.ones((1, 24), np.float32)
    config = Config.tiny_c1b8()
    for program in (
        model("a", 1.0).to_program(config, generate_state_reset=False),
        ProgramBuilder(config).add_nnir(model("a", 1.0)).to_program(generate_state_reset=False),
    ):
        again = Program.load_bytes(program.save_bytes())
        for machine in (program.to_vm(), program.to_oracle(), again.to_vm()):
            before = machine.run(x)
            with pytest.raises(StateError, match="no state reset"):
                machine.reset()
            assert machine.get_state()["total"].item() == before.item() != 0
    model("a", 1.0).to_program(config).to_vm().reset()
