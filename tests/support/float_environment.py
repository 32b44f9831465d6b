"""The settings of a thread's floating-point unit, as other code makes them, and runs of the core inside of them."""

from __future__ import annotations

import contextlib
import ctypes
import platform
from collections.abc import Callable, Iterator
from functools import cache, partial
from typing import Any

import numpy as np
import pytest
from random_programs import draw, inputs_of, values

from ltc_compiler import _core

X86_ONLY = pytest.mark.skipif(
    platform.machine() not in ("x86_64", "AMD64"),
    reason="the words of MXCSR; tests/proof/replay.py does it on aarch64",
)

PLAIN, FTZ, DAZ, ROUND_DOWN, ROUND_UP, TO_ZERO = 0x1F80, 0x8000, 0x0040, 0x2000, 0x4000, 0x6000
SETTINGS = {
    "flush": PLAIN | FTZ | DAZ,
    "subnormal operands are zero": PLAIN | DAZ,
    "up": PLAIN | ROUND_UP,
    "down": PLAIN | ROUND_DOWN,
    "flush, to zero": PLAIN | FTZ | DAZ | TO_ZERO,
}
CONTROL = 0xFFC0  # the low six bits are flags that any operation may raise
LIBM = ctypes.CDLL("libm.so.6")


class Environment(ctypes.Structure):
    """glibc's fenv_t on x86-64: the x87 state, then MXCSR."""

    _fields_ = (("x87", ctypes.c_uint32 * 7), ("mxcsr", ctypes.c_uint32))


def mxcsr() -> int:
    now = Environment()
    LIBM.fegetenv(ctypes.byref(now))
    return now.mxcsr & CONTROL


def set_mxcsr(word: int) -> None:
    now = Environment()
    LIBM.fegetenv(ctypes.byref(now))
    now.mxcsr = word
    LIBM.fesetenv(ctypes.byref(now))


@contextlib.contextmanager
def setting(word: int) -> Iterator[None]:
    """While it lasts, this thread computes as `word` says; at its end the word must still stand."""
    set_mxcsr(word)
    try:
        yield
        left = mxcsr()
    finally:
        set_mxcsr(PLAIN)
    assert left == word & CONTROL, f"MXCSR {word:#06x} came back as {left:#06x}"


def plainly(entry: Callable[[], Any]) -> Any:
    return entry()


SEEDS = range(12)


@cache
def images() -> list[Any]:
    return [draw(seed, 30) for seed in SEEDS]


def runs_of_a_program(seed: int, bit_accurate: bool, call: Callable[[Callable[[], Any]], Any]) -> list[bytes]:
    """Results of every entry point, each entered through `call`, with inputs made outside of it."""
    image = images()[seed]
    model, data = image.models[0], image.to_bytes()
    rng = np.random.default_rng(seed)
    steps = 3
    x = [np.stack(arrays) for arrays in zip(*(inputs_of(rng, model) for _ in range(steps)), strict=True)]
    states = [values(rng, s.shape) for s in model.states]
    parsed = call(lambda: _core.Program.parse(data))
    vm = call(lambda: _core.VM(parsed, bit_accurate))
    results: list[Any] = []

    def state() -> None:
        results.extend(call(partial(vm.get_state, 0, i)) for i in range(len(states)))

    state()
    results += call(lambda: vm.run(0, [a[0] for a in x]))
    state()
    out = [np.full(port.shape, np.nan, np.float32) for port in model.outputs]
    call(lambda: vm.run_into(0, [a[1] for a in x], out))
    results += out
    for i, value in enumerate(states):
        call(partial(vm.set_state, 0, i, value))
    state()
    out = [np.full((steps, *port.shape), np.nan, np.float32) for port in model.outputs]
    call(lambda: vm.run_timesteps(0, steps, x, out))
    results += out
    state()
    call(lambda: vm.reset())
    state()
    return [np.ascontiguousarray(r).tobytes() for r in results]
