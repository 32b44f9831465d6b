"""Program and VM as a user meets them: ports, files, runs, state, cycles, and every refusal of an input."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from ltcasm import FILES, FileTest, file_image
from random_programs import draw, inputs_of, op

from ltc_compiler import isa
from ltc_compiler.bytecode import Model, Port
from ltc_compiler.config import HostLink
from ltc_compiler.errors import InputError, IsaMismatchError, ProgramError, StateError
from ltc_compiler.program import Program
from ltc_compiler.vm import VM

STREAMING = {"streaming": [{"inputs": [1, 0], "outputs": [1]}]}


@pytest.fixture(scope="module")
def program() -> Program:
    """total += x * dt, as if streamed over axis 1 of x (2, time), axis 0 of dt (time,) and axis 1 of y (2, time)."""
    return Program(
        replace(file_image("elapsed"), meta=STREAMING | {"instructions": {"3": "self.scale, net.py:9"}})
    )


@pytest.fixture
def vm(program: Program) -> VM:
    return program.to_vm()


X, DT = np.array([1, 2], np.float32), np.array(0.5, np.float32)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_file(path: Path) -> None:
    test = FileTest(path)
    test.check(Program(test.image).to_vm())
    test.check(Program.load_bytes(Program(test.image).save_bytes()).to_vm())


# --- Program ------------------------------------------------------------------------------------------------


def test_models_and_ports(program: Program) -> None:
    assert (program.num_models, program.model_name()) == (1, "elapsed")
    assert (program.num_inputs(), program.num_outputs()) == (2, 1)
    assert (program.input_shape(0, 0), program.input_shape(0, 1), program.output_shape()) == ((2,), (), (2,))
    assert (program.input_format(0, 1), program.output_format()) == ("fp32", "fp32")
    assert [program.input_streaming_dim(0, i) for i in (0, 1)] == [1, 0]
    assert program.output_streaming_dim() == 1
    assert Program(file_image("elapsed")).input_streaming_dim() is None
    assert Program(file_image("ports")).input_format() == "bf16"
    assert program.hw_config.name == "tiny_c1b8"
    assert repr(program) == "Program(elapsed for tiny_c1b8, 7 instructions)"


@pytest.mark.parametrize(
    ("ask", "fault"),
    [
        (lambda p: p.model_name(1), "no model 1"),
        (lambda p: p.input_shape(0, 2), "no input 2"),
        (lambda p: p.output_streaming_dim(0, -1), "no output -1"),
        (lambda p: p.cycle_count_per_inference(3), "no model 3"),
        (lambda p: p.compute_duration_per_inference_us(clock_mhz=0), "clock_mhz is 0"),
        (lambda p: p.to_vm().reset(4), "no model 4"),
        (lambda p: p.to_vm().run(X, DT, model_index=-1), "no model -1"),
    ],
)
def test_what_is_not_there_is_refused(program: Program, ask: Any, fault: str) -> None:
    with pytest.raises(InputError, match=fault) as caught:
        ask(program)
    assert caught.value.remedy


def test_contradictory_meta_is_refused() -> None:
    bad = replace(file_image("elapsed"), meta={"streaming": [{"inputs": [0]}]})
    with pytest.raises(ProgramError, match=r"streaming entry of model .elapsed. has the inputs"):
        Program(bad)


def test_cycles(program: Program) -> None:
    spaced = program.cycle_summary_per_inference()
    contiguous = program.cycle_summary_per_inference(spaced=False)
    assert contiguous["arrival"] == 0
    assert spaced["arrival"] == contiguous["total"]
    assert spaced["latency"] == spaced["last_out"] - spaced["offered"]
    assert program.cycle_count_per_inference() == spaced["latency"] > 0
    assert program.cycle_count_per_inference(spaced=False) == contiguous["latency"] >= spaced["latency"]
    clock = program.hw_config.clock_mhz
    assert program.compute_duration_per_inference_us() == spaced["latency"] / clock
    assert program.compute_duration_per_inference_us(clock_mhz=1) == spaced["latency"]


def test_the_interval_is_the_distance_of_inferences_that_follow_each_other(program: Program) -> None:
    """The state is read when the step before has written it: what comes before that overlaps."""
    whole = program.cycle_summary_per_inference(spaced=False)
    interval = program.cycle_interval_per_inference()
    busiest = max(max(units) for units in whole["busy"])
    assert busiest <= interval < whole["total"]
    with pytest.raises(InputError, match="no model 3"):
        program.cycle_interval_per_inference(3)


def test_compute_io_and_both_are_three_figures(program: Program) -> None:
    image = program.image
    slow = replace(image.config, host=HostLink(latency_us=2.0, bytes_per_us=4.0))
    assert Program(replace(image, config=slow)).io_duration_per_inference_us() == 2.0 + 12 / 4 + 2.0 + 8 / 4
    compute, io = program.compute_duration_per_inference_us(), program.io_duration_per_inference_us()
    assert program.end_to_end_duration_per_inference_us() == compute + io
    assert io == pytest.approx(2 * 0.7 + 20 / 12000)
    narrow = replace(
        image.models[0], inputs=tuple(replace(p, precision="bf16") for p in image.models[0].inputs)
    )
    halved = Program(replace(image, models=[narrow]))
    assert halved.io_duration_per_inference_us() == pytest.approx(2 * 0.7 + (6 + 8) / 12000)
    assert [m["input_bytes"] for p in (program, halved) for m in p.metrics()["models"]] == [12, 6]
    silent = replace(image.models[0], inputs=(), outputs=())
    code = [op("move", dst=3, a=0)]
    alone = replace(image, code=code, models=[replace(silent, begin=0, end=1)], meta={})
    assert Program(alone).io_duration_per_inference_us() == 0  # nothing passes: no transfer


def test_metrics(program: Program) -> None:
    metrics = program.metrics()
    assert metrics["instructions"] == 7
    assert metrics["cores"][0]["tensor_rows"]["used"] == 8
    assert metrics["cores"][0]["instruction_slots"]["used"] == 7
    model = metrics["models"][0]
    assert (model["input_bytes"], model["output_bytes"], model["state_bytes"]) == (12, 8, 8)
    assert metrics["file_bytes"] == len(program.save_bytes())
    walk = program.cycle_summary_per_inference(spaced=False)
    (utilisation,) = model["utilisation"]
    assert set(utilisation) == {"vector", "move", "io_in", "io_out"}
    assert utilisation["vector"] == walk["busy"][0][isa.UNITS.index("vector")] / walk["total"]


def test_disassembly_shows_model_and_source(program: Program) -> None:
    lines = program.disassemble().splitlines()
    assert lines[:2] == ["; tiny_c1b8", "; model 'elapsed': instructions 0 to 6"]
    assert ";   input dt () fp32 elapsed_time" in lines
    assert any(" mul " in line and line.endswith("; self.scale, net.py:9") for line in lines)


# --- files --------------------------------------------------------------------------------------------------


def test_saved_programs_run_alike(tmp_path: Path) -> None:
    image = draw(7)
    path = tmp_path / "random.ltcp"
    Program(image).save(path)
    inputs = inputs_of(np.random.default_rng(1), image.models[0])
    mine, yours = (p.to_vm().run(*inputs) for p in (Program(image), Program.load(path)))
    for a, b in zip(mine, yours, strict=True):
        assert a.tobytes() == b.tobytes()


def test_bad_files_are_refused_with_their_name(tmp_path: Path, program: Program) -> None:
    path = tmp_path / "p.ltcp"
    data = program.save_bytes()
    for bad in (data[:100], data[:-1] + bytes([data[-1] ^ 1]), b"", b"PK\3\4" + bytes(200)):
        path.write_bytes(bad)
        with pytest.raises(ProgramError) as caught:
            Program.load(path)
        assert caught.value.where.startswith(f"{path}: ")
    path.write_bytes(data[:8] + bytes(32) + data[40:])
    with pytest.raises(IsaMismatchError) as mismatch:
        Program.load(path)
    assert mismatch.value.where.startswith(f"{path}: ")
    with pytest.raises(ProgramError, match="cannot be read"):
        Program.load(tmp_path / "none.ltcp")


def test_a_program_that_breaks_a_rule_is_refused_when_made() -> None:
    image = file_image("state")
    wild = [
        replace(i, core=i.core, operands={**i.operands, "dst": 5000}) if i.name == "add" else i
        for i in image.code
    ]
    with pytest.raises(ProgramError, match="5000"):
        Program(replace(image, code=wild))


def test_plain_fp32_needs_the_originals() -> None:
    lean = Program.load_bytes(Program(draw(1)).save_bytes(shadow=False))
    assert lean.to_vm().bit_accurate
    with pytest.raises(ProgramError, match="fp32 originals") as caught:
        lean.to_vm(bit_accurate=False)
    assert "shadow=True" in caught.value.remedy


# --- inputs ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "x",
    [
        np.array([1, 0, 2, 0], np.float32)[::2],
        np.array([1, 2], ml_dtypes.bfloat16),
        np.array([1, 2], ">f4"),
        np.array([[1, 2]], np.float32)[0],
    ],
    ids=["strided", "bfloat16", "big-endian", "slice"],
)
def test_inputs_that_can_be_converted_are(vm: VM, x: Any) -> None:
    np.testing.assert_array_equal(vm.run(x, DT), [0.5, 1])


@pytest.mark.parametrize("dt", [0.5, np.float32(0.5), np.array(0.5, ml_dtypes.bfloat16)])
def test_a_number_will_do_for_an_elapsed_time(vm: VM, dt: Any) -> None:
    np.testing.assert_array_equal(vm.run(X, dt), [0.5, 1])


BAD_INPUTS: list[tuple[tuple[Any, ...], str, str]] = [
    ((X,), "takes 2 inputs, 1 given", "x (2,), dt ()"),
    ((X, DT, DT), "takes 2 inputs, 3 given", "in this order"),
    ((X.astype(np.float64), DT), "x has dtype float64", "x.astype(np.float32)"),
    ((X.astype(np.int32), DT), "x has dtype int32", "x.astype(np.float32)"),
    (([1, 2], DT), "x is a list", "np.asarray(x, dtype=np.float32)"),
    ((None, DT), "x is a NoneType", "np.asarray"),
    ((np.zeros(3, np.float32), DT), "x has shape (3,), expected (2,)", "(2,)"),
    ((np.zeros((2, 1), np.float32), DT), "x has shape (2, 1), expected (2,)", ".reshape((2,))"),
    ((np.zeros((5, 2), np.float32), DT), "x has shape (5, 2), expected (2,)", "run_timesteps"),
    ((X, np.zeros(1, np.float32)), "dt has shape (1,), expected ()", ".reshape(())"),
    ((X, np.array(np.nan, np.float32)), "dt is nan", "time since the previous step"),
    ((X, np.array(-1e-45, np.float32)), "dt is -1e-45", "time since the previous step"),
    ((X, -1), "dt is -1.0", "time since the previous step"),
]


@pytest.mark.parametrize(("inputs", "what", "remedy"), BAD_INPUTS, ids=lambda value: str(value)[:24])
@pytest.mark.parametrize("machine", ["vm", "oracle"])
def test_bad_inputs_are_refused_and_change_nothing(
    program: Program, machine: str, inputs: tuple[Any, ...], what: str, remedy: str
) -> None:
    runs = program.to_vm() if machine == "vm" else program.to_oracle()
    runs.run(X, DT)
    with pytest.raises(InputError) as caught:
        runs.run(*inputs)
    assert what in caught.value.what
    assert caught.value.where
    assert remedy in caught.value.remedy
    np.testing.assert_array_equal(runs.state["total"], [0.5, 1])
    np.testing.assert_array_equal(runs.run(X, DT), [1, 2])


# --- runs -------------------------------------------------------------------------------------------------------


def test_run_into_fills_the_given_arrays(vm: VM) -> None:
    y = np.full(2, 7, np.float32)
    vm.run_into((X, DT), y)
    np.testing.assert_array_equal(y, [0.5, 1])
    vm.run_into([X.astype(ml_dtypes.bfloat16), DT], [y])
    np.testing.assert_array_equal(y, [1, 2])


@pytest.mark.parametrize(
    ("outputs", "what"),
    [
        ([], "has 1 outputs, 0 arrays given"),
        (np.zeros(3, np.float32), r"float32 \(3,\), contiguous"),
        (np.zeros(2), r"float64 \(2,\)"),
        (np.zeros(4, np.float32)[::2], "strided"),
        (np.broadcast_to(np.float32(0), (2,)), "read-only"),
        ([[0.0, 0.0]], "is a list"),
    ],
)
def test_run_into_refuses_arrays_that_cannot_be_filled(vm: VM, outputs: Any, what: str) -> None:
    with pytest.raises(InputError, match=what):
        vm.run_into((X, DT), outputs)
    np.testing.assert_array_equal(vm.state["total"], [0, 0])


@pytest.mark.parametrize("machine", ["vm", "oracle"])
def test_run_timesteps_is_run_step_by_step(program: Program, machine: str) -> None:
    make = program.to_vm if machine == "vm" else program.to_oracle
    rng = np.random.default_rng(5)
    x, dt = rng.standard_normal((6, 2)).astype(np.float32), rng.random(6).astype(np.float32)
    single = make()
    expected = np.stack([single.run(x[t], dt[t]) for t in range(6)])
    whole = make()
    np.testing.assert_array_equal(whole.run_timesteps(x.T, dt), expected.T)  # the streamed axes by default
    np.testing.assert_array_equal(whole.state["total"], single.state["total"])
    by_name = make().run_timesteps(x, dt, input_timestep_dim=0, output_timestep_dim=-1)
    np.testing.assert_array_equal(by_name, expected.T)
    constant = make()
    same = constant.run_timesteps(x, dt[0], input_timestep_dim=(0, None), output_timestep_dim=0)
    again = make()
    np.testing.assert_array_equal(same, np.stack([again.run(x[t], dt[0]) for t in range(6)]))


@pytest.mark.parametrize("machine", ["vm", "oracle"])
@pytest.mark.parametrize(
    ("inputs", "axes", "what"),
    [
        (
            (np.zeros((3, 2), np.float32), np.array([1, -1, 1], np.float32)),
            (0, 0),
            "dt is -1.0 at index (1,)",
        ),
        (
            (np.zeros((3, 2), np.float32), np.zeros(4, np.float32)),
            (0, 0),
            "the inputs have different numbers of steps: x 3, dt 4",
        ),
        (
            (np.zeros((3, 4), np.float32), np.zeros(3, np.float32)),
            (0, 0),
            "x has shape (3, 4) with time first",
        ),
        ((X, np.zeros(3, np.float32)), (0, 0), "expected 2 dimensions"),
        ((np.zeros((3, 2), np.float32), np.zeros(3, np.float32)), (2, 0), "time axis 2 for x"),
        ((np.zeros((3, 2), np.float32), np.zeros(3, np.float32)), (0,), "1 time axes for 2 inputs"),
        ((X, DT), (None, None), "no input has a time axis"),
    ],
)
def test_bad_sequences_are_refused_before_the_first_step(
    program: Program, machine: str, inputs: tuple[Any, ...], axes: Any, what: str
) -> None:
    runs = program.to_vm() if machine == "vm" else program.to_oracle()
    with pytest.raises(InputError) as caught:
        runs.run_timesteps(*inputs, input_timestep_dim=axes)
    assert what in caught.value.what
    np.testing.assert_array_equal(runs.state["total"], [0, 0])


def test_state_is_read_written_and_reset(vm: VM) -> None:
    vm.set_state({"total": np.array([1e-40, 5], np.float32)})
    np.testing.assert_array_equal(vm.state["total"], [0, 5])
    for bad in ({"sum": X}, {"total": X[:1]}, {"total": X.astype(np.float64)}):
        with pytest.raises(StateError):
            vm.set_state(bad)
    np.testing.assert_array_equal(vm.state["total"], [0, 5])
    vm.reset()
    np.testing.assert_array_equal(vm.state["total"], [0, 0])


def test_models_of_a_program_are_run_and_reset_by_index() -> None:
    image = file_image("state")
    n = len(image.code)
    echo = [op("input", dst=6), op("output", src=6)]
    second = Model("echo", n, n + 2, (Port("x", (3,)),), (Port("y", (3,)),))
    vm = Program(replace(image, code=image.code + echo, models=[*image.models, second])).to_vm()
    np.testing.assert_array_equal(vm.run(X, model_index=0), [101, 1])
    np.testing.assert_array_equal(vm.run(np.arange(3, dtype=np.float32), model_index=1), [0, 1, 2])
    vm.reset(1)
    np.testing.assert_array_equal(vm.state["total"], [101, 1])
    assert vm.get_state(1) == {}
    vm.reset()
    np.testing.assert_array_equal(vm.state["total"], [100, -1])
    with pytest.raises(InputError, match=r"x has shape \(3,\), expected \(2,\)"):
        vm.run(np.zeros(3, np.float32), model_index=0)


def test_machines_of_a_program_have_states_of_their_own(program: Program) -> None:
    first, second = program.to_vm(), program.to_vm()
    first.run(X, DT)
    np.testing.assert_array_equal(second.state["total"], [0, 0])


def test_two_threads_run_two_machines_of_a_program() -> None:
    image = draw(13, size=60)
    program = Program(image)
    inputs = inputs_of(np.random.default_rng(2), image.models[0])

    def run(_: int) -> bytes:
        vm = program.to_vm()
        return b"".join(a.tobytes() for _ in range(200) for a in as_tuple(vm.run(*inputs)))

    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(run, range(2))
    assert first == second == run(0)


def as_tuple(result: Any) -> tuple[Any, ...]:
    return result if isinstance(result, tuple) else (result,)
