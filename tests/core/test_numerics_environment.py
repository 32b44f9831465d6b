"""Rule 3: whatever the process did to the floating-point unit, every entry into the core gives the same bits, and finds
and leaves the caller's settings as they were.

The settings are made as other code makes them: by torch's switch, and through libm's fesetenv with the words of the
control registers that fast-math libraries write.
"""

from __future__ import annotations

import contextlib
import ctypes
import platform
import threading
from collections.abc import Callable, Iterator
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from children import run_python
from random_programs import draw, inputs_of, values
from samples_for_numerics import sample

from ltc_compiler import _core, numerics

X86 = platform.machine() in ("x86_64", "AMD64")
pytestmark = pytest.mark.skipif(
    not X86, reason="the words of MXCSR; tests/proof/replay.py does it on aarch64"
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


def test_the_setting_spoils_arithmetic() -> None:
    """Without this the tests below would show nothing."""
    tiny, one, bit = np.float32(2.0**-126), np.float32(1), np.float32(2.0**-30)
    for name, word in SETTINGS.items():
        with setting(word):
            halved, added, less = tiny * np.float32(0.5), one + bit, -one - bit
            subnormal = np.array([1], np.uint32).view(np.float32) > 0
        plain = float(halved) > 0 and float(added) == 1 and float(less) == -1 and bool(subnormal[0])
        assert not plain, name


def plainly(entry: Callable[[], Any]) -> Any:
    return entry()


def under(word: int) -> Callable[[Callable[[], Any]], Any]:
    """A way to call that has the setting for the call alone: NumPy, which makes the inputs, would heed it too."""

    def call(entry: Callable[[], Any]) -> Any:
        with setting(word):
            return entry()

    return call


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


@pytest.mark.parametrize("name", SETTINGS)
@pytest.mark.parametrize("bit_accurate", [True, False])
def test_every_entry_point_gives_the_same_bits(name: str, bit_accurate: bool) -> None:
    for seed in SEEDS:
        plain = runs_of_a_program(seed, bit_accurate, plainly)
        assert runs_of_a_program(seed, bit_accurate, under(SETTINGS[name])) == plain, seed


def test_threads_that_flush_give_the_same_bits() -> None:
    """The control register is a thread's own: each thread spoils its own, and none spoils another's."""
    plain = [runs_of_a_program(seed, True, plainly) for seed in SEEDS]
    found: dict[str, list[list[bytes]]] = {}

    def work(name: str) -> None:
        found[name] = [runs_of_a_program(seed, True, under(SETTINGS[name])) for seed in SEEDS]

    threads = [threading.Thread(target=work, args=(name,)) for name in ("flush", "up")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == {"flush": plain, "up": plain}


def numerics_calls() -> dict[str, Callable[[], Any]]:
    core = _core.numerics
    x, y, z = (sample(2000, seed) for seed in (1, 2, 3))
    w = np.random.default_rng(4).integers(0, 2**32, (7, 300), np.uint32).view(np.float32)
    tiny = (w.view(np.uint32) & 0x9FFFFFFF).view(np.float32)  # products and sums that are subnormal
    ones = np.ones((3, 5), np.float32)
    calls: dict[str, Callable[[], Any]] = {}
    for name in ("write_fp32", "to_bf16", "neg", "absolute", "relu", "sqrt", "floor", "round_even"):
        calls[name] = partial(getattr(core, name), x)
    for name in (
        "add",
        "sub",
        "mul",
        "div",
        "maximum",
        "minimum",
        "lt",
        "le",
        "gt",
        "ge",
        "eq",
        "ne",
        "fmod",
    ):
        calls[name] = partial(getattr(core, name), x, y)
    for name in numerics.ACTIVATIONS:
        calls[f"{name} fp32"] = partial(core.activation_fp32, name, x)
        calls[f"{name} bf16"] = partial(core.activation_bf16, name, x)
    calls["select"] = lambda: core.select(x, y, z)
    calls["dot"] = lambda: core.dot(tiny, np.ascontiguousarray(tiny[0]))
    calls["tree_sum"] = lambda: core.tree_sum(tiny)
    calls["reduce_max"] = lambda: core.reduce_max(tiny)
    calls["encode"] = lambda: core.encode_fp8_e4m3(x, 120)
    calls["decode"] = lambda: core.decode_fp8_e4m3(np.arange(256, dtype=np.uint8), -120)
    calls["ltc_update"] = lambda: core.ltc_update(np.ascontiguousarray(tiny))
    calls["synapse"] = lambda: core.synapse(
        np.ascontiguousarray(tiny[0, :8]), np.arange(15, dtype=np.int32).reshape(3, 5) % 8,
        ones * np.float32(2.0**-126), ones, ones * np.float32(2.0**-100), ones, True,
    )  # fmt: skip
    return calls


@pytest.mark.parametrize("name", SETTINGS)
def test_the_numerics_give_the_same_bits(name: str) -> None:
    for call, entry in numerics_calls().items():
        plain = [np.asarray(r).tobytes() for r in np.atleast_1d(entry())]
        with setting(SETTINGS[name]):
            found = entry()
        assert [np.asarray(r).tobytes() for r in np.atleast_1d(found)] == plain, call


def test_the_numerics_cover_the_binding() -> None:
    """A new function of the binding must appear above."""
    calls = {name.split(" ")[0].removesuffix("_e4m3") for name in numerics_calls()}
    bound = {name for name in vars(_core.numerics) if not name.startswith("_")}
    bound -= {"flush_guard_holds", "self_test", "activation_fp32", "activation_bf16"}
    assert {name.removesuffix("_fp8_e4m3") for name in bound} <= calls


def test_torch_can_flush_without_changing_a_bit() -> None:
    torch = pytest.importorskip("torch")
    if not torch.set_flush_denormal(True):
        pytest.skip("this CPU has no flush mode that torch knows")

    def call(entry: Callable[[], Any]) -> Any:
        torch.set_flush_denormal(True)
        try:
            result, left = entry(), mxcsr()
        finally:
            torch.set_flush_denormal(False)
        assert left & (FTZ | DAZ) == FTZ | DAZ
        return result

    for seed in SEEDS:
        assert runs_of_a_program(seed, True, call) == runs_of_a_program(seed, True, plainly)


def test_the_self_test_passes_in_a_thread_that_flushes() -> None:
    """In a new process, whose first VM it is."""
    script = (
        "from test_numerics_environment import SETTINGS, _core, images, set_mxcsr\n"
        "set_mxcsr(SETTINGS['flush, to zero'])\n"
        "assert all(found == pinned for _, found, pinned in _core.numerics.self_test())\n"
        "_core.VM(_core.Program.parse(images()[0].to_bytes()))\n"
    )
    done = run_python(script, folders=(str(Path(__file__).parent),))
    assert done.returncode == 0, done.stderr
