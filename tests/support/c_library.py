"""libltc as C sees it, called through ctypes: the library that CMake built beside the core in use."""

from __future__ import annotations

import ctypes
import subprocess
from collections.abc import Callable, Sequence
from ctypes import (
    Structure,
    byref,
    c_char,
    c_char_p,
    c_double,
    c_int32,
    c_size_t,
    c_uint32,
    c_uint64,
    c_void_p,
)
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import native_builds
import numpy as np
import pytest
from folders import ROOT
from ltcasm import file_image

from ltc_compiler import _core
from ltc_compiler.program import Program

VERSION = 1
HEADER = ROOT / "sim_core" / "capi" / "ltc.h"
ALL_MODELS = ctypes.c_size_t(-1).value
STATUS = (
    "OK", "ARGUMENT", "VERSION", "FILE", "PROGRAM", "ISA", "INPUT", "STATE", "CONFIG", "ARITHMETIC", "BUSY", "MEMORY",
    "STRUCTURE", "FULL", "CANCELLED", "INTERNAL",
)  # fmt: skip

F32 = np.ndarray[Any, np.dtype[np.float32]]


_CODES = {"I": c_uint32, "i": c_int32, "Q": c_uint64, "d": c_double, "s": c_char_p, "p": c_void_p, "z": c_size_t,
          "what": c_char * 512, "where": c_char * 256, "shape": c_uint64 * 8, "iterations": c_uint64 * 4}  # fmt: skip


class _Sized(Structure):
    """A struct that begins with its own size."""

    def __init__(self, *arguments: Any, **fields: Any) -> None:
        super().__init__(*arguments, **{"size": ctypes.sizeof(self), **fields})


def _struct(layout: str) -> Any:
    """A struct of name:code fields; with its size set where the first is called so."""
    fields = [(name, _CODES[code]) for name, code in (field.split(":") for field in layout.split())]
    base = _Sized if fields[0][0] == "size" else Structure
    return type("Struct", (base,), {"_fields_": fields})


Error = _struct("size:I status:i what:what where:where remedy:where")
LoadOptions = _struct("size:I reserved:I max_work:Q")
MachineInfo = _struct("size:I cores:I block_size:I reserved:I clock_mhz:d name:s configuration:s")
ModelInfo = _struct(
    "size:I inputs:I outputs:I states:I name:s block_steps:Q max_steps:Q can_reset:I reserved:I"
)
PortInfo = _struct(
    "size:I rank:I shape:shape count:Q name:s precision:s role:s streaming_axis:i latency:i tail:i reserved:I"
)
Cycles = _struct("size:I reserved:I spaced:Q contiguous:Q interval:d spaced_us:d contiguous_us:d host_us:d")
TraceRecord = _struct(
    "index:I core:I depth:I reserved:I iterations:iterations issue:Q begin:Q start:Q end:Q finish:Q busy:Q lost:Q"
    " instruction:s stall:s"
)
VMOptions = _struct("size:I plain_fp32:I kernels:s")
BatchOptions = _struct("size:I plain_fp32:I kernels:s streams:z threads:z")
Array = _struct("data:p count:z")  # ltc_input and ltc_output


class RefusedError(Exception):
    """A call that did not return LTC_OK."""

    def __init__(self, status: int, error: Any) -> None:
        self.status = STATUS[status]
        self.what, self.where, self.remedy = (
            text.decode(errors="replace") for text in (error.what, error.where, error.remedy)
        )
        super().__init__(f"{self.status}: {self.where}: {self.what}; {self.remedy}")


def built() -> Path:
    """The folder in which CMake built the core that is in use."""
    assert _core.__file__ is not None
    return next(folder for folder in Path(_core.__file__).parents if (folder / "CMakeCache.txt").is_file())


def shared() -> Path:
    """libltc.so."""
    return built() / "sim_core" / "libltc.so"


@cache
def library() -> ctypes.CDLL:
    loaded = ctypes.CDLL(str(shared()))
    for name in ("ltc_version", "ltc_status_name", "ltc_kernels", "ltc_vm_kernels"):
        getattr(loaded, name).restype = c_char_p
    loaded.ltc_program_models.restype = c_size_t
    loaded.ltc_kernels.argtypes = [c_size_t]
    return loaded


def _argument(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return value.ctypes.data_as(c_void_p)
    return c_size_t(value) if type(value) is int else value


def call(name: str, *arguments: Any) -> None:
    """A function with an error as its last argument: an int is a size_t, an array its numbers' address.

    Raises RefusedError unless it returns LTC_OK.
    """
    error = Error()
    given = [
        a.ctypes.data_as(c_void_p) if isinstance(a, np.ndarray) else c_size_t(a) if type(a) is int else a
        for a in arguments
    ]
    status = getattr(library(), name)(*given, byref(error))
    if status:
        assert error.status == status
        raise RefusedError(status, error)


def arrays(values: Sequence[F32]) -> tuple[Any, int]:
    """Arrays and their number, as a call takes them."""
    made = (Array * len(values))(*(Array(value.ctypes.data, value.size) for value in values))
    return made, len(values)


def filled(kind: Any, name: str, *arguments: Any) -> Any:
    """The struct that a function fills."""
    info = kind()
    call(name, *arguments, byref(info))
    return info


class Handle:
    """A handle, freed when it goes."""

    def __init__(self, kind: str, make: str, *arguments: Any) -> None:
        self.kind, self.pointer = kind, c_void_p(1)
        try:
            call(make, *arguments, byref(self.pointer))
        except RefusedError:
            assert self.pointer.value is None
            raise

    @property
    def _as_parameter_(self) -> c_void_p:
        return self.pointer

    def __del__(self) -> None:
        getattr(library(), f"ltc_{self.kind}_free")(self.pointer)


def load(data: bytes, max_work: int = 1 << 33) -> Handle:
    options = LoadOptions(max_work=max_work)
    return Handle("program", "ltc_program_load_memory", c_uint32(VERSION), data, len(data), byref(options))


def ports(program: Handle, side: str, model: int = 0) -> list[Any]:
    count = getattr(filled(ModelInfo, "ltc_program_model", program, model), f"{side}s")
    return [filled(PortInfo, f"ltc_program_{side}", program, model, n) for n in range(count)]


def shape(port: Any) -> tuple[int, ...]:
    return tuple(port.shape[: port.rank])


class VM(Handle):
    """A VM, with arrays of NumPy in and out."""

    def __init__(self, program: Handle, kernels: str | None = None, plain_fp32: bool = False) -> None:
        options = VMOptions(plain_fp32=plain_fp32, kernels=kernels and kernels.encode())
        self.program = program
        super().__init__("vm", "ltc_vm_create", program, byref(options))

    def run(self, inputs: Sequence[F32], model: int = 0, steps: int | None = None) -> list[F32]:
        """One inference, or `steps` of them."""
        leading = () if steps is None else (steps,)
        outputs = [np.empty((*leading, *shape(p)), np.float32) for p in ports(self.program, "output", model)]
        times = [] if steps is None else [steps]
        name = "ltc_vm_run" if steps is None else "ltc_vm_run_steps"
        call(name, self, model, *times, *arrays(inputs), *arrays(outputs))
        return outputs

    def states(self, model: int = 0) -> list[F32]:
        found = [np.empty(shape(p), np.float32) for p in ports(self.program, "state", model)]
        for n, state in enumerate(found):
            call(
                "ltc_vm_get_state",
                self,
                model,
                n,
                state,
                state.size,
            )
        return found


def compiled(source: Path, program: Path, *flags: str, compiler: str = "gcc", static: bool = False) -> Path:
    """A program in C99 or C++ that links libltc. Raises RuntimeError with the words of the compiler."""
    folder, sanitized = shared().parent, bool(_core.build_info()["sanitized"])
    options = ["-std=c++20" if source.suffix == ".cpp" else "-std=c99", "-O1", f"-I{HEADER.parent}"]
    options += [
        "-pedantic",
        "-Wall",
        "-Wextra",
        "-Werror",
        *(["-fsanitize=address,undefined"] if sanitized else []),
    ]
    archive = [str(folder / "libltc.a"), "-lstdc++", "-lm", "-lpthread"]
    linked = archive if static else [f"-L{folder}", f"-Wl,-rpath,{folder}", "-lltc"]
    command = [compiler, *options, str(source), "-o", str(program), *flags, *linked]
    environment = native_builds.without_preload()
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}\n{done.stderr[-3000:]}")
    return program


def bits(values: Any) -> list[bytes]:
    """Those of an array, or of each of several."""
    return [np.asarray(a).tobytes() for a in (values if isinstance(values, list | tuple) else (values,))]


def program_of(stem: str, **meta: Any) -> Program:
    """The program of tests/filetests/stem.ltcasm, which says so much of itself."""
    image = file_image(stem)
    return Program(replace(image, meta={**image.meta, **meta}))


def refused(call: Callable[..., object], *arguments: Any, **named: Any) -> RefusedError:
    """The refusal of a call, in words."""
    with pytest.raises(RefusedError) as caught:
        call(*arguments, **named)
    assert caught.value.what
    assert caught.value.where
    assert caught.value.remedy
    return caught.value
