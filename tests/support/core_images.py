"""Programs of one core from bytecode, the VM that runs them, and the sets of kernels of this CPU."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from ltc_compiler import _core
from ltc_compiler.bytecode import CoreImage, EntryArrays, Image, Instr, Model, Port, SlotArrays, State
from ltc_compiler.config import Config
from ltc_compiler.errors import ConfigError

F32 = np.ndarray[Any, np.dtype[np.float32]]


def kernel_names() -> list[str]:
    """Those that this CPU runs, by the refusal of one that does not exist."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LTC_SIMD", "none")
        with pytest.raises(ConfigError, match="no kernels none for this CPU") as caught:
            vm(image([], [], []))
    assert caught.value.where == "environment variable LTC_SIMD"
    return caught.value.remedy.rsplit(" of ", 1)[1].split(", ")


def image(
    code: list[Instr],
    inputs: list[Port],
    outputs: list[Port],
    width: int = 8,
    rows: int = 64,
    states: tuple[State, ...] = (),
    weights: Any = None,
    constants: list[tuple[int, F32]] | None = None,
    slots: SlotArrays | None = None,
    entries: EntryArrays | None = None,
) -> Image:
    config = replace(Config.tiny_c1b8(), name="wide", block_size=width, fp32_matmul=True)
    blocks = np.zeros((0, width, width), np.uint16) if weights is None else weights
    core = CoreImage(
        rows,
        constants or [],
        blocks,
        slots or SlotArrays.empty(width),
        entries or EntryArrays.empty(width),
    )
    return Image(config, code, [core], [Model("m", 0, len(code), tuple(inputs), tuple(outputs), states)])


def vm(program: Image, bit_accurate: bool = True) -> _core.VM:
    return _core.VM(_core.Program.parse(program.to_bytes()), bit_accurate)


def assert_bits(found: F32, expected: F32) -> None:
    assert found.shape == expected.shape
    assert np.array_equal(found.view(np.uint32), np.asarray(expected, np.float32).view(np.uint32))
