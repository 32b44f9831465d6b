"""Tied ports: what the caller would feed back is a state of the program."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper, save
from onnx_cases import run_ort

from ltc_compiler import NNIR, Config, GraphError, Program, StateError
from ltc_compiler.ir.graph import Graph, Precision, Role, StateKind, Type
from ltc_compiler.ir.ops import add
from ltc_compiler.onnx import __main__ as command

CONFIG = Config.tiny_c1b8()
SHAPE = (2, 4)


def ports() -> Graph:
    """y = x + h and h' = y; k is h of the run before, s is x of the run before, c stays; z = k + s."""
    graph = Graph("ports")
    x, h, k, s, c = (graph.add_input(Type(SHAPE), name) for name in "xhksc")
    y = add(graph, "add", x, h)
    for value, name in ((y, "y"), (y, "h_out"), (h, "k_out"), (x, "s_out"), (c, "c_out")):
        graph.add_output(value, name)
    graph.add_output(add(graph, "add", k, s), "z")
    return graph


TIES = {"h_out": "h", "k_out": "k", "s_out": "s", "c_out": "c"}


def test_chains_constants_and_inputs_are_carried() -> None:
    initial = {"k": np.full(SHAPE, 3.0), "c": np.ones(SHAPE)}
    nnir = NNIR(ports()).tie(TIES, initial)
    assert str(NNIR.parse(str(nnir))) == str(nnir)
    assert {s.name: s.kind for s in nnir.graph.states} == dict.fromkeys("hksc", StateKind.TIED)
    program = Program.load_bytes(nnir.to_program(CONFIG).save_bytes())
    assert program.state_kinds() == program.metrics()["models"][0]["states"] == dict.fromkeys("hksc", "tied")
    assert ";   tied state h (2, 4)" in program.disassemble()
    vm, oracle, states = program.to_vm(), program.to_oracle(), nnir.initial_states()
    h, k, s = np.zeros(SHAPE, np.float32), np.full(SHAPE, 3, np.float32), np.zeros(SHAPE, np.float32)
    rng = np.random.default_rng(0)
    for _ in range(4):
        x = rng.standard_normal(SHAPE).astype(np.float32)
        wanted = (x + h, k + s)
        for found in (vm.run(x), oracle.run(x), nnir.run(x, states=states)):
            assert len(found) == 2
            np.testing.assert_allclose(found, wanted, 1e-6)
        h, k, s = x + h, h, x
    assert (vm.state["c"] == 1).all()
    vm.reset()
    assert (vm.state["k"] == 3).all()
    assert not vm.state["h"].any()
    vm.set_state({"c": np.zeros(SHAPE, np.float32), "h": np.ones(SHAPE, np.float32)})
    np.testing.assert_array_equal(vm.run(np.ones(SHAPE, np.float32))[0], np.full(SHAPE, 2))
    assert not vm.state["c"].any()


def test_a_program_may_be_all_state() -> None:
    graph = Graph("decay")
    h = graph.add_input(Type((4,)), "h")
    graph.add_output(add(graph, "mul", h, graph.constant(np.full(4, 0.5))), "next")
    program = NNIR(graph).tie({"next": "h"}, {"h": np.ones(4)}).to_program(CONFIG)
    vm = program.to_vm()
    assert vm.run() == ()
    np.testing.assert_array_equal(vm.state["h"], np.full(4, 0.5))
    with pytest.raises(StateError, match="no state reset"):
        program.without_reset().to_vm().reset()


def test_a_bf16_pair_is_carried_as_bf16() -> None:
    graph = Graph("rounded")
    x, h = graph.add_input(Type((4,)), "x"), graph.add_input(Type((4,), Precision.BF16), "h")
    total = add(graph, "add", x, h)
    graph.add_output(total, "y")
    graph.add_output(add(graph, "mul", total, graph.constant(1.0)), "h_out")
    graph.nodes[-1].precision = Precision.BF16
    graph.outputs[-1].type = Type((4,), Precision.BF16)
    whole = NNIR(graph)
    given, tied = whole.to_program(CONFIG).to_vm(), whole.tie({"h_out": "h"}).to_program(CONFIG).to_vm()
    h_now = np.zeros(4, np.float32)
    for x_now in np.random.default_rng(1).standard_normal((5, 4)).astype(np.float32):
        y, h_now = given.run(x_now, h_now)
        assert tied.run(x_now).tobytes() == y.tobytes()


@pytest.mark.parametrize(
    ("ties", "initial", "what", "remedy"),
    [
        ({}, {}, "no output is named", "give {output: input}"),
        ({"out": "h"}, {}, "there is no output 'out'", "the outputs are y, h_out, k_out"),
        ({"h_out": "g"}, {}, "there is no input 'g'", "the inputs are x, h, k, s, c"),
        ({"h_out": "h", "y": "h"}, {}, "more than one output is tied to h", "one output to each input"),
        ({"h_out": "h"}, {"k": 1}, "initial names k, which are no tied inputs", "leave them out"),
        ({"h_out": "h"}, {"h": np.ones(4)}, r"initial value of 'h' is float64 of shape \(4,\)", r"\(2, 4\)"),
        ({"h_out": "h"}, {"h": np.full(SHAPE, "a")}, "initial value of 'h' is <U1", "give numbers"),
    ],
)
def test_wrong_ties_are_refused(
    ties: dict[str, str], initial: dict[str, Any], what: str, remedy: str
) -> None:
    with pytest.raises(GraphError, match=what) as caught:
        NNIR(ports()).tie(ties, initial)
    assert caught.match(f"where: tie\n  remedy: .*{remedy}")


def test_unlike_ports_are_refused() -> None:
    graph = Graph("unlike")
    h = graph.add_input(Type((4,)), "h")
    half = graph.add_input(Type((4,), Precision.BF16), "half")
    elapsed = graph.add_input(Type((4,)), "dt", Role.ELAPSED_TIME)
    graph.add_output(add(graph, "reshape", h, shape=(2, 2)), "wide")
    graph.add_output(add(graph, "add", h, elapsed), "y")
    graph.add_output(half, "twice")
    graph.add_output(h, "twice")
    for ties, what in (
        ({"wide": "h"}, r"'wide' is f32\[2,2\] and the input 'h' is f32\[4\]"),
        ({"y": "half"}, r"'y' is f32\[4\] and the input 'half' is bf16\[4\]"),
        ({"y": "dt"}, "'dt' is an elapsed time"),
        ({"twice": "half"}, "2 outputs are called 'twice'"),
    ):
        with pytest.raises(GraphError, match=what):
            NNIR(graph).tie(ties)
    tied = NNIR(ports()).tie({"h_out": "h"})
    renamed = tied.graph
    renamed.inputs[0].name = "h"
    with pytest.raises(GraphError, match="has a state 'h' already"):
        NNIR(renamed).tie({"k_out": "h"})


# ---------------------------------------------------------------- a streaming ONNX file


def cell(path: Path) -> NDArray[np.float32]:
    """A file with h' = tanh(x W + h U) and y = h' V; returns a sequence of inputs for it."""
    rng = np.random.default_rng(2)
    sizes = {"W": (3, 4), "U": (4, 4), "V": (4, 2)}
    weights = {k: (rng.standard_normal(s) / 2).astype(np.float32) for k, s in sizes.items()}
    nodes = [
        helper.make_node("MatMul", ["x", "W"], ["a"]),
        helper.make_node("MatMul", ["h", "U"], ["b"]),
        helper.make_node("Add", ["a", "b"], ["c"]),
        helper.make_node("Tanh", ["c"], ["h_out"]),
        helper.make_node("MatMul", ["h_out", "V"], ["y"]),
    ]
    ports = {"x": (1, 3), "h": (1, 4), "y": (1, 2), "h_out": (1, 4)}
    infos = {k: helper.make_tensor_value_info(k, TensorProto.FLOAT, s) for k, s in ports.items()}
    graph = helper.make_graph(
        nodes, "cell", [infos["x"], infos["h"]], [infos["y"], infos["h_out"]],
        [numpy_helper.from_array(w, k) for k, w in weights.items()],
    )  # fmt: skip
    save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10), path)
    return rng.standard_normal((8, 1, 3)).astype(np.float32)


def fed_back(path: Path, xs: NDArray[np.float32]) -> list[NDArray[np.float32]]:
    """What onnxruntime computes when the caller feeds the state back."""
    h, found = np.zeros((1, 4), np.float32), []
    for x in xs:
        y, h = run_ort(path, {"x": x, "h": h})
        found.append(y)
    return found


def test_a_streaming_onnx_file_is_tied(tmp_path: Path) -> None:
    xs = cell(tmp_path / "cell.onnx")
    wanted = fed_back(tmp_path / "cell.onnx", xs)
    nnir = NNIR.from_onnx(tmp_path / "cell.onnx").tie({"h_out": "h"})
    states = nnir.initial_states()
    vm = nnir.to_program(CONFIG).to_vm()
    for x, y in zip(xs, wanted, strict=True):
        np.testing.assert_allclose(nnir.run(x, states=states), y, 1e-5, 1e-6)
        np.testing.assert_allclose(vm.run(x), y, 0.02, 0.02)
    # Streams of a batch have a state each, and the file that goes out keeps the kind.
    streams = np.stack([xs, xs[::-1]])
    rows = nnir.to_program(CONFIG).to_vm().run_batch(streams)
    np.testing.assert_allclose(rows[0], wanted, 0.02, 0.02)
    np.testing.assert_allclose(rows[1], fed_back(tmp_path / "cell.onnx", xs[::-1]), 0.02, 0.02)
    nnir.to_onnx(tmp_path / "tied.onnx")
    back = NNIR.from_onnx(tmp_path / "tied.onnx").graph
    assert [(s.name, s.kind) for s in back.states] == [("h", StateKind.TIED)]


def test_the_command_line_ties(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    xs = cell(tmp_path / "cell.onnx")
    path, output = str(tmp_path / "cell.onnx"), str(tmp_path / "cell.ltcp")
    arguments = [path, "--config", "tiny_c1b8", "--output", output]
    assert command.main([*arguments, "--tie", "h_out=h"]) == 0
    program = Program.load(output)
    assert program.state_kinds() == {"h": "tied"}
    found = program.to_vm().run_timesteps(xs)
    np.testing.assert_allclose(found, fed_back(tmp_path / "cell.onnx", xs), 0.02, 0.02)
    capsys.readouterr()
    assert command.main([*arguments, "--tie", "h_out"]) == 1
    assert "--tie is 'h_out'" in capsys.readouterr().err
    assert command.main([*arguments, "--tie", "y=x", "--tie", "y=h"]) == 1
    assert "--tie is 'y=h'" in capsys.readouterr().err
    assert command.main([*arguments, "--tie", "h_out=g"]) == 1
    assert "there is no input 'g'" in capsys.readouterr().err
