"""libltc through ltc.h: the bits, states, cycles and words of the VM in Python, and codes for whatever is wrong."""

from __future__ import annotations

import json
import struct
import zlib
from ctypes import byref, c_size_t, c_uint32, c_void_p
from dataclasses import replace
from functools import partial
from pathlib import Path

import c_library as c
import numpy as np
import pytest
from c_library import bits, program_of, refused
from core_images import kernel_names
from ltcasm import file_image
from random_programs import draw, inputs_of

from ltc_compiler.bytecode.container import section_table
from ltc_compiler.program import Program

STEPS = 4
NULL = c_void_p()


# ---- the same as in Python ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(6))
def test_runs_steps_states_and_reset_have_the_bits_of_the_vm(seed: int) -> None:
    rng = np.random.default_rng(seed)
    program = Program(draw(seed, 40))
    steps = [inputs_of(rng, program.image.models[0]) for _ in range(STEPS)]
    loaded = c.load(program.save_bytes())
    for kernels in kernel_names():
        for plain in (False, True):
            ours, theirs = c.VM(loaded, kernels, plain), program.to_vm(not plain, kernels=kernels)
            assert c.library().ltc_vm_kernels(ours).decode() == kernels
            first = bits(ours.run(steps[0]))
            assert first == bits(theirs.run(*steps[0]))
            sequences = [np.stack(arrays) for arrays in zip(*steps, strict=True)]
            assert bits(ours.run(sequences, steps=STEPS)) == bits(theirs.run_timesteps(*sequences))
            assert bits(ours.states()) == bits(list(theirs.get_state().values()))
            c.call("ltc_vm_reset", ours, 0)
            assert bits(ours.run(steps[0])) == first


def test_a_state_is_set_and_a_copy_goes_its_own_way() -> None:
    vm = c.VM(c.load(program_of("state").save_bytes()))
    x = [np.array([1, 2], np.float32)]
    value = np.array([5, 1e-40], np.float32)  # a subnormal, which the machine holds as 0
    c.call("ltc_vm_set_state", vm, 0, 0, value, 2)
    copy = c.Handle("vm", "ltc_vm_copy", vm)
    copy.program = vm.program  # type: ignore[attr-defined]
    assert bits(vm.run(x)) == bits(np.array([6, 2], np.float32))
    assert bits(c.VM.states(copy)) == bits(np.array([5, 0], np.float32))  # type: ignore[arg-type]


@pytest.mark.parametrize(("streams", "threads"), [(1, 1), (3, 2), (20, 3)])
def test_a_batch_has_the_bits_of_a_vm_for_each_stream(streams: int, threads: int) -> None:
    rng = np.random.default_rng(streams)
    program = Program(draw(11, 30))
    model = program.image.models[0]
    given = [[inputs_of(rng, model) for _ in range(STEPS)] for _ in range(streams)]
    inputs = [
        np.stack([np.stack([step[n] for step in stream]) for stream in given])
        for n in range(len(model.inputs))
    ]
    loaded = c.load(program.save_bytes())
    options = c.BatchOptions(streams=streams, threads=threads)
    batch = c.Handle("batch", "ltc_batch_create", loaded, byref(options))
    outputs = [np.empty((streams, STEPS, *p.shape), np.float32) for p in model.outputs]
    run = partial(c.call, "ltc_batch_run", batch, 0, STEPS, *c.arrays(inputs), *c.arrays(outputs))
    run()
    expected = [program.to_vm() for _ in range(streams)]
    for n, vm in enumerate(expected):
        sequences = [array[n] for array in inputs]
        assert bits([array[n] for array in outputs]) == bits(vm.run_timesteps(*sequences))
        for index, state in enumerate(vm.get_state().values()):
            found = np.empty_like(state)
            c.call("ltc_batch_get_state", batch, 0, n, index, found,
                   found.size)  # fmt: skip
            assert found.tobytes() == state.tobytes()
    first = bits(outputs)
    c.call("ltc_batch_reset", batch, c.ALL_MODELS)
    run()
    assert bits(outputs) == first
    got = refused(c.call, "ltc_batch_get_state", batch, 0, streams, 0, NULL, 0)
    assert got.status == "ARGUMENT"


def test_what_a_program_says_of_itself() -> None:
    counted = {
        "inputs": [1, None],
        "outputs": [1],
        "latencies": [3],
        "tails": [-2],
        "counter": "steps",
        "limit": 9,
    }
    image = file_image("elapsed")
    model = image.models[0]
    steps = replace(model.states[0], name="steps", shape=(), row=5)
    image = replace(
        image,
        models=[
            replace(
                model, states=(*model.states, steps), outputs=(replace(model.outputs[0], precision="bf16"),)
            )
        ],
        meta={
            "streaming": [counted],
            "states": [["tied", "stream"]],
            "instructions": {"0": 'a "µ" \U0001f300'},
        },
    )
    program = Program(image)
    loaded = c.load(program.save_bytes())
    machine = c.filled(c.MachineInfo, "ltc_program_machine", loaded)
    config = program.hw_config
    assert (machine.cores, machine.block_size, machine.clock_mhz) == (
        config.cores,
        config.block_size,
        config.clock_mhz,
    )
    assert machine.name.decode() == config.name
    assert json.loads(machine.configuration) == config.to_dict()
    info = c.filled(c.ModelInfo, "ltc_program_model", loaded, 0)
    assert (info.inputs, info.outputs, info.states) == (2, 1, 2)
    assert (info.name.decode(), info.block_steps, info.max_steps, info.can_reset) == (model.name, 1, 9, 1)
    found = [
        (
            p.name.decode(),
            c.shape(p),
            p.count,
            p.precision.decode(),
            p.role.decode(),
            p.streaming_axis,
            p.latency,
            p.tail,
        )
        for side in ("input", "output", "state")
        for p in c.ports(loaded, side)
    ]
    assert found == [
        ("x", (2,), 2, "fp32", "plain", 1, 0, 0),
        ("dt", (), 1, "fp32", "elapsed_time", -1, 0, 0),
        ("y", (2,), 2, "bf16", "plain", 1, 3, -2),
        ("total", (2,), 2, "fp32", "tied", -1, 0, 0),
        ("steps", (), 1, "fp32", "stream", -1, 0, 0),
    ]
    index = c_size_t()
    c.call("ltc_program_find_model", loaded, model.name.encode(), byref(index))
    assert index.value == 0
    assert (
        "is called 'other'" in refused(c.call, "ltc_program_find_model", loaded, b"other", byref(index)).what
    )


@pytest.mark.parametrize("seed", range(4))
def test_cycles_and_trace_are_those_of_python(seed: int) -> None:
    program = Program(draw(seed, 30))
    loaded = c.load(program.save_bytes())
    cycles = c.filled(c.Cycles, "ltc_program_cycles", loaded, 0)
    assert cycles.spaced == program.cycle_count_per_inference()
    assert cycles.contiguous == program.cycle_count_per_inference(spaced=False)
    assert cycles.interval == program.cycle_interval_per_inference()
    assert cycles.spaced_us == pytest.approx(program.compute_duration_per_inference_us())
    assert cycles.host_us == pytest.approx(program.io_duration_per_inference_us())
    for spaced in (False, True):
        arrival = program.cycle_summary_per_inference(spaced=spaced)["arrival"]
        expected = program._clock.trace(0, arrival, 50)
        records, count = (c.TraceRecord * 50)(), c_size_t()
        c.call("ltc_program_trace", loaded, 0, int(spaced), records, 50, byref(count))
        assert count.value == len(expected)
        for ours, theirs in zip(records, expected, strict=False):
            assert ours.instruction.decode() == program.image.code[theirs.index].name
            assert tuple(ours.iterations[: ours.depth]) == theirs.iterations
            for name in ("index", "core", "issue", "begin", "start", "end", "finish", "busy", "lost"):
                assert getattr(ours, name) == getattr(theirs, name)
            assert ours.stall.decode() == theirs.stall


def test_kernels_and_self_test(monkeypatch: pytest.MonkeyPatch) -> None:
    names: list[str] = []
    while name := c.library().ltc_kernels(len(names)):
        names.append(name.decode())
    assert names == kernel_names()
    for name in names:
        c.call("ltc_self_test", name.encode())
    got = refused(c.call, "ltc_self_test", b"none")
    assert (got.status, got.where) == ("CONFIG", "kernels")


# ---- files -------------------------------------------------------------------------------------------------------


def test_a_file_is_loaded_by_its_path(tmp_path: Path) -> None:
    program, path = program_of("state"), tmp_path / "a program µ.ltcp"
    program.save(path)

    def load(at: object, version: int = c.VERSION) -> c.Handle:
        return c.Handle("program", "ltc_program_load", c_uint32(version), str(at).encode(), NULL)

    assert c.library().ltc_program_models(load(path)) == 1
    for place in (tmp_path, tmp_path / "none"):
        got = refused(load, place)
        assert (got.status, got.where) == ("FILE", str(place))
    path.write_bytes(program.save_bytes()[:-1])
    got = refused(load, path)
    assert got.status == "PROGRAM"
    assert got.where.startswith(f"{path}: ")
    path.write_bytes(program.save_bytes() + b"x")
    assert refused(load, path).status == "PROGRAM"
    assert refused(load, "/dev/zero").what.startswith("not a program")
    assert refused(load, path, 2).status == "VERSION"


def test_truncated_and_foreign_bytes_are_refused() -> None:
    data = program_of("loops").save_bytes()
    for size in [*range(64), *range(64, len(data), 97)]:
        got = refused(c.load, data[:size])
        assert got.status == "PROGRAM", size
    assert refused(c.load, b"\x7fELF" + data[4:]).status == "PROGRAM"
    assert refused(c.load, data[:8] + bytes(32) + data[40:]).status == "ISA"
    assert refused(c.load, data, max_work=1).status == "PROGRAM"


def with_section(program: Program, section: str, content: bytes) -> bytes:
    """The file with other bytes for a section, of the same length or shorter, and a right checksum."""
    data = bytearray(program.save_bytes())
    rows = list(section_table(bytes(data)))
    at = next(n for n, row in enumerate(rows) if row[0] == section)
    _, offset, size = rows[at]
    assert len(content) <= size
    data[offset : offset + len(content)] = content
    struct.pack_into("<Q", data, 56 + 20 * at + 12, len(content))
    struct.pack_into("<I", data, 52, zlib.crc32(bytes(data[56:])))
    return bytes(data)


@pytest.mark.parametrize(
    ("meta", "what"),
    [
        ("[]", "{ expected"),
        ('{"a":1', "ends too early"),
        ('{"a":1}x', "behind the end"),
        ('{"a":01}', ", expected"),
        ('{"a":-}', "a number expected"),
        ('{"a":1e}', "a number expected"),
        ('{"a":nul}', "null expected"),
        ('{"a":"\\x"}', "escape"),
        ('{"a":"\\u12g4"}', "four digits"),
        ('{"a":"b', "without an end"),
        ('{"a":"\n"}', "without an end"),
        ("[" * 70, "{ expected"),
        ('{"a":' + "[" * 70 + "]" * 70 + "}", "deeper"),
        ('{"streaming":[{"latencies":[1,2]}]}', "more than 1"),
        ('{"streaming":[{"latencies":[]}]}', "0 entries"),
        ('{"streaming":[{"latencies":[1]}]}', "no counter"),
        ('{"streaming":[{"latencies":[99999999999]}]}', "allowed are"),
        ('{"streaming":[{"latencies":[1.0]}]}', "no integer"),
        ('{"streaming":[{"block":0}]}', "a block is 0"),
        ('{"streaming":[{"counter":"total"}]}', "no scalar state"),
        ('{"streaming":[{"limit":3}]}', "no counter"),
        ('{"streaming":[{"inputs":[9]}]}', "an axis is 9"),
        ('{"states":[["stream","stream"]]}', "more kinds"),
        ('{"states":[[]]}', "0 kinds"),
    ],
)  # fmt: skip
def test_what_is_said_for_people_is_read_with_bounds(meta: str, what: str) -> None:
    program = program_of("state", padding="x" * 200)
    got = refused(c.load, with_section(program, "META", meta.encode()))
    assert got.status == "PROGRAM"
    assert got.where.startswith("section META, byte ")
    assert what in got.what


def test_text_that_is_not_utf_8_is_refused_and_every_escape_is_read() -> None:
    program = program_of("state", padding="x" * 200)
    for text in (b"\xff", b"\xc0\x80", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"\xe2\x82"):
        assert refused(c.load, with_section(program, "META", b'{"a":"' + text + b'"}')).what == "not UTF-8"  # fmt: skip
    kinds = '{"states":[["\\ud83c\\udf00 \\u00b5\\n\\/\\ud800x"]], "x":[1.5e-3,-0,true,false,null,{}]}'
    loaded = c.load(with_section(program, "META", kinds.encode()))
    assert c.ports(loaded, "state")[0].role.decode() == "\U0001f300 µ\n/\ufffdx"


@pytest.mark.parametrize(
    "content", ["{}", '{"clock_mhz":0,"host.latency_us":1,"host.bytes_per_us":1}', '{"clock_mhz":1e999}']
)
def test_a_configuration_without_a_clock_is_refused(content: str) -> None:
    got = refused(c.load, with_section(program_of("state"), "CONF", content.encode()))
    assert got.where.startswith("section CONF")
