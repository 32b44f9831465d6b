"""Calls of libltc that are wrong: a code and words each time, and everything as it was."""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Callable
from ctypes import byref, c_uint32, c_void_p
from dataclasses import replace
from functools import partial

import c_library as c
import numpy as np
from c_library import bits, program_of, refused
from ltcasm import file_image

from ltc_compiler.bytecode import Image, Instr
from ltc_compiler.program import Program

NULL = c_void_p()


def elapsed() -> tuple[c.VM, list[c.F32]]:
    return c.VM(c.load(program_of("elapsed").save_bytes())), [
        np.ones(2, np.float32),
        np.array(0.5, np.float32),
    ]


def test_a_refused_run_changes_nothing() -> None:
    vm, x = elapsed()
    vm.run(x)
    before, y = bits(vm.states()), np.full(2, 7, np.float32)

    def run(*inputs: c.F32, into: tuple[c.F32, ...] = (y,), model: int = 0) -> None:
        c.call("ltc_vm_run", vm, model, *c.arrays(inputs), *c.arrays(into))

    wide, tied = np.ones(3, np.float32), np.zeros(8, np.float32)
    cases: list[tuple[Callable[[], object], str, str, str]] = [
        (partial(run, x[0]), "INPUT", "inputs", "the model has 2, 1 given"),
        (partial(run, *x, *x, *x), "INPUT", "inputs", "the model has 2, 6 given"),
        (partial(run, *x, into=()), "INPUT", "outputs", "the model has 1, 0 given"),
        (partial(run, wide, x[1]), "INPUT", "x", "2 numbers expected, of shape (2), 3 given"),
        (partial(run, *x, into=(wide,)), "INPUT", "y", "2 numbers expected, of shape (2), 3 given"),
        (partial(run, *x, model=1), "ARGUMENT", "model", "no model 1: there are 1"),
        (partial(run, *x, model=c.ALL_MODELS), "ARGUMENT", "model", "there are 1"),
        (partial(run, tied[:2], x[1], into=(tied[1:3],)), "INPUT", "y", "shares memory with an input"),
        (partial(run, x[0], np.array(np.nan, np.float32)), "INPUT", "dt", "NaN, infinite or negative"),
        (partial(run, x[0], np.array(-1, np.float32)), "INPUT", "dt", "NaN, infinite or negative"),
        (partial(vm.run, x, steps=2), "INPUT", "x", "4 numbers expected, of shape (2, 2), 2 given"),
        (partial(c.call, "ltc_vm_run_steps", vm, 0, 1 << 63, *c.arrays(x), *c.arrays([y])), "INPUT", "x",
         "numbers expected"),
        (partial(c.call, "ltc_vm_run", vm, 0, NULL, 2, *c.arrays([y])), "ARGUMENT", "inputs", "NULL"),
        (partial(c.call, "ltc_vm_run", vm, 0, *c.arrays(x), NULL, 1), "ARGUMENT", "outputs", "NULL"),
        (partial(c.call, "ltc_vm_run", NULL, 0, *c.arrays(x), *c.arrays([y])), "ARGUMENT", "vm", "NULL"),
        (partial(c.call, "ltc_vm_get_state", vm, 0, 1, NULL, 0), "ARGUMENT", "state", "no state 1"),
        (partial(c.call, "ltc_vm_get_state", vm, 1, 0, NULL, 0), "ARGUMENT", "model", "no model 1"),
        (partial(c.call, "ltc_vm_get_state", vm, 0, 0, NULL, 2), "ARGUMENT", "total", "NULL"),
        (partial(c.call, "ltc_vm_set_state", vm, 0, 0, y, 1), "INPUT",
         "total", "2 numbers expected, of shape (2), 1 given"),
        (partial(c.call, "ltc_vm_reset", vm, 3), "ARGUMENT", "model", "no model 3"),
    ]  # fmt: skip
    for call, status, where, what in cases:
        got = refused(call)
        assert (got.status, got.where) == (status, where)
        assert what in got.what
    assert bits(vm.states()) == before
    assert y.tolist() == [7, 7]
    unaligned = (c.Array * 1)(c.Array(y.ctypes.data + 1, 2))
    got = refused(c.call, "ltc_vm_run", vm, 0, *c.arrays(x), unaligned, 1)
    assert "address" in got.what
    nothing = (c.Array * 1)(c.Array(None, 2))
    got = refused(c.call, "ltc_vm_run", vm, 0, *c.arrays(x), nothing, 1)
    assert (got.status, got.where) == ("ARGUMENT", "y")


def test_structs_of_another_size_are_refused() -> None:
    vm, x = elapsed()
    program = vm.program
    y = [np.empty(2, np.float32)]
    for wrong in (c.Error(size=0), c.Error(size=8)):
        for name, given in (
            ("ltc_vm_run", (vm, 0, *c.arrays(x), *c.arrays(y))),
            ("ltc_program_load_memory", (c_uint32(1), b"", 0, NULL, byref(c_void_p()))),
            ("ltc_program_machine", (program, byref(c.MachineInfo()))),
        ):
            assert c.STATUS[getattr(c.library(), name)(*given, byref(wrong))] == "VERSION"
        assert wrong.what == b""
    for kind, name, arguments in (
        (c.MachineInfo, "ltc_program_machine", ()),
        (c.ModelInfo, "ltc_program_model", (0,)),
        (c.PortInfo, "ltc_program_input", (0, 0)),
        (c.PortInfo, "ltc_program_state", (0, 0)),
        (c.Cycles, "ltc_program_cycles", (0,)),
    ):
        info = kind(size=4)
        assert refused(c.call, name, program, *arguments, byref(info)).status == "VERSION"
        assert refused(c.call, name, program, *arguments, NULL).status == "ARGUMENT"
        assert refused(c.call, name, NULL, *arguments, byref(kind())).status == "ARGUMENT"
    for kind, make in ((c.VMOptions, "ltc_vm_create"), (c.BatchOptions, "ltc_batch_create")):
        assert refused(c.Handle, "vm", make, program, byref(kind(size=4))).status == "VERSION"
        assert refused(c.Handle, "vm", make, NULL, byref(kind())).status == "ARGUMENT"
        assert refused(c.call, make, program, byref(kind()), NULL).status == "ARGUMENT"


def test_numbers_of_streams_and_threads_have_bounds() -> None:
    program = elapsed()[0].program
    for streams, threads in ((0, 1), (65537, 1), (1, 0), (1, 1025)):
        options = c.BatchOptions(streams=streams, threads=threads)
        assert refused(c.Handle, "batch", "ltc_batch_create", program, byref(options)).status == "ARGUMENT"
    wrong = c.VMOptions(kernels=b"mmx")
    assert refused(c.Handle, "vm", "ltc_vm_create", program, byref(wrong)).status == "CONFIG"


def test_a_program_without_reset_refuses_it() -> None:
    vm = c.VM(c.load(program_of("state").without_reset().save_bytes()))
    assert not c.filled(c.ModelInfo, "ltc_program_model", vm.program, 0).can_reset
    vm.run([np.ones(2, np.float32)])
    before = bits(vm.states())
    assert refused(c.call, "ltc_vm_reset", vm, 0).status == "STATE"
    assert bits(vm.states()) == before


def test_a_stream_that_has_an_end_stops_there() -> None:
    image = counting(file_image("state"), limit=3)
    vm = c.VM(c.load(Program(image).save_bytes()))
    x = [np.zeros((), np.float32)]
    long = [np.zeros((3,), np.float32)]
    vm.run(x)
    got = refused(vm.run, long, steps=3)
    assert (got.status, got.where) == ("INPUT", "total")
    assert got.what == "a stream has 3 steps; 1 of them have run, and 3 more of 1 are given"
    vm.run([long[0][:2]], steps=2)
    assert "3 of them have run" in refused(vm.run, x).what
    bad = np.array(-1, np.float32)
    c.call("ltc_vm_set_state", vm, 0, 0, bad, 1)
    assert "no number of steps" in refused(vm.run, x).what
    c.call("ltc_vm_reset", vm, c.ALL_MODELS)
    vm.run(long, steps=3)


def counting(image: Image, limit: int) -> Image:
    """state.ltcasm with a scalar for a state that each run makes larger by 1."""
    model = image.models[0]
    core = image.cores[0]
    one = np.zeros((1, core.block_size), np.float32)
    one[0, 0] = 1

    def with_one(instr: Instr) -> Instr:
        b = replace(instr.operands["b"], base=2) if instr.name == "add" else None  # type: ignore[type-var]
        return replace(instr, operands={**instr.operands, "b": b}) if b else instr

    return replace(
        image,
        code=[with_one(instr) for instr in image.code],
        cores=[replace(core, constants=[(2, one)], shadow_constants=())],
        models=[replace(
            model,
            inputs=(replace(model.inputs[0], shape=()),),
            outputs=(replace(model.outputs[0], shape=()),),
            states=(replace(model.states[0], shape=()),),
        )],
        meta={"streaming": [{"inputs": [0], "outputs": [0], "counter": "total", "limit": limit}]},
    )  # fmt: skip


def test_a_second_thread_on_a_vm_is_refused_and_not_made_to_wait() -> None:
    vm = c.VM(c.load(program_of("state").save_bytes()))
    steps = 2_000_000
    long = [np.zeros((steps, 2), np.float32)]
    long[0][:, 0] = 1
    out: list[c.F32] = []
    runner = threading.Thread(target=lambda: out.extend(vm.run(long, steps=steps)))
    runner.start()
    seen = set()
    while runner.is_alive():
        try:
            vm.run([np.zeros(2, np.float32)])
            seen.add("ran")
        except c.RefusedError as error:
            seen.add(error.status)
    runner.join()
    assert "BUSY" in seen
    assert out[0][-1, 0] == 100 + steps


def test_freeing_nothing_and_a_program_before_its_vm() -> None:
    for kind in ("program", "vm", "batch"):
        getattr(c.library(), f"ltc_{kind}_free")(NULL)
    loaded = c.load(program_of("state").save_bytes())
    vm = c.VM(loaded)
    y = np.empty(2, np.float32)
    vm.program = None  # type: ignore[assignment]
    del loaded
    c.call("ltc_vm_run", vm, 0, *c.arrays([np.ones(2, np.float32)]), *c.arrays([y]))
    assert y.tolist() == [101, 0]
    assert ctypes.sizeof(c.Error) == 4 + 4 + 512 + 256 + 256
