"""Rule 3: whatever the process did to the floating-point unit, every entry into the core gives the same bits, and finds
and leaves the caller's settings as they were.

The settings are made through libm's fesetenv, with the words of the control registers that fast-math libraries write;
tests/front_end/test_torch_beside_the_core.py makes them by torch's switch.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest
from children import run_python
from float_environment import SEEDS, SETTINGS, X86_ONLY, plainly, runs_of_a_program, setting
from samples_for_numerics import sample

from ltc_compiler import _core, numerics

pytestmark = X86_ONLY


def test_the_setting_spoils_arithmetic() -> None:
    """Without this the tests below would show nothing."""
    tiny, one, bit = np.float32(2.0**-126), np.float32(1), np.float32(2.0**-30)
    for name, word in SETTINGS.items():
        with setting(word):
            halved, added, less = tiny * np.float32(0.5), one + bit, -one - bit
            subnormal = np.array([1], np.uint32).view(np.float32) > 0
        plain = float(halved) > 0 and float(added) == 1 and float(less) == -1 and bool(subnormal[0])
        assert not plain, name


def under(word: int) -> Callable[[Callable[[], Any]], Any]:
    """A way to call that has the setting for the call alone: NumPy, which makes the inputs, would heed it too."""

    def call(entry: Callable[[], Any]) -> Any:
        with setting(word):
            return entry()

    return call


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


def test_the_self_test_passes_in_a_thread_that_flushes() -> None:
    """In a new process, whose first VM it is."""
    script = (
        "from float_environment import SETTINGS, _core, images, set_mxcsr\n"
        "set_mxcsr(SETTINGS['flush, to zero'])\n"
        "assert all(found == pinned for _, found, pinned in _core.numerics.self_test())\n"
        "_core.VM(_core.Program.parse(images()[0].to_bytes()))\n"
    )
    done = run_python(script)
    assert done.returncode == 0, done.stderr
