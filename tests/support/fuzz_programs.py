"""Program files, damaged where it matters, with a right checksum: each is refused, or is a program like any other.

What loads runs on the simulator and, if it is short, on the reference machine, which must agree in every bit of the
outputs and of the states, in both arithmetics. `case(seed)` is one of them; tests/project/test_fuzz.py runs some,
tests/proof/fuzz.py as many as an hour takes.
"""

from __future__ import annotations

import math
import random
import struct
import zlib
from functools import cache
from typing import Any

import numpy as np
from random_programs import draw, inputs_of

from ltc_compiler import isa
from ltc_compiler.bytecode.container import section_table
from ltc_compiler.errors import ArithmeticMismatchError, LtcError
from ltc_compiler.program import Program

NUMBERS = (0, 1, 2, 3, 7, 8, 0x7F, 0x80, 0xFF, 0x100, 0x7FFF, 0x8000, 0xFFFF, 0x10000, 0x10001, 0x7FFFFFFF, 0x80000000,
           0x80000001, 0xFFFFFFFE, 0xFFFFFFFF)  # fmt: skip
LONG, SHORT = 1 << 20, 3000  # beats that the simulator, and the reference machine, are given
ELEMENTS = 1 << 20  # of the arrays of a run


def case(seed: int) -> str:
    """Damages one file and loads it. Returns how it went: "refused", "long" or "large" (not run), "ran" or "agreed"."""
    rng = random.Random(seed)
    data = damaged(rng, good_file(rng.randrange(64)))
    try:
        program = Program.load_bytes(data, max_work=LONG)
    except LtcError as error:
        refusal = error
    else:
        return _run(program, seed)
    assert refusal.what
    assert not isinstance(refusal, ArithmeticMismatchError)
    return "long" if "more than" in refusal.what and "beats" in refusal.what else "refused"


def _run(program: Program, seed: int) -> str:
    models = program.image.models
    shapes = [p.shape for m in models for p in (*m.inputs, *m.outputs)] + [
        s.shape for m in models for s in m.states
    ]
    if sum(math.prod(shape) for shape in shapes) > ELEMENTS:
        return "large"
    outcome = "ran"
    for index, model in enumerate(models):
        program.cycle_count_per_inference(index)
        inputs = [inputs_of(np.random.default_rng(seed + t), model) for t in range(2)]
        short = program.work_per_inference(index)["beats"] <= SHORT
        for bit_accurate in (True, False):
            if not bit_accurate and not all(core.has_shadow for core in program.image.cores):
                continue
            found = _trace(program.to_vm(bit_accurate), inputs, index)
            if short:
                assert found == _trace(program.to_oracle(bit_accurate), inputs, index), (
                    "VM and reference differ"
                )
                outcome = "agreed"
    return outcome


def _trace(machine: Any, inputs: list[list[Any]], index: int) -> list[bytes]:
    """The bits of the outputs of every step, and of the states behind the last."""
    bits = []
    for step in inputs:
        result = machine.run(*step, model_index=index)
        bits += [np.asarray(y).tobytes() for y in (result if isinstance(result, tuple) else (result,))]
    return bits + [state.tobytes() for state in machine.get_state(index).values()]


@cache
def good_file(number: int) -> bytes:
    """A program file, before it is damaged."""
    data = draw(number, size=(6, 20)[number % 2]).to_bytes(shadow=number % 3 > 0)
    Program.load_bytes(data)  # good as it is: with another core, or none that fits, all would be refused
    return data


def damaged(rng: random.Random, original: bytes) -> bytes:
    """A program file with some damage, and a right checksum."""
    data = bytearray(original)
    places = {tag: (offset, size) for tag, offset, size in section_table(original) if size}
    starts = _instructions(original, places["CODE"])
    for _ in range(rng.choice((1, 1, 1, 1, 2, 3))):
        rng.choice((_field, _field, _field, _word, _word, _byte, _swap, _row))(rng, data, places, starts)
    if rng.random() < 0.05:
        _table(rng, data)
    if rng.random() < 0.02:
        del data[rng.randrange(56, len(data)) :]
    struct.pack_into("<Q", data, 40, len(data))
    struct.pack_into("<I", data, 52, zlib.crc32(memoryview(data)[56:]))
    return bytes(data)


def _instructions(data: bytes, place: tuple[int, int]) -> list[int]:
    """Where each instruction begins."""
    at, end = place[0] + 4, place[0] + place[1]
    starts = []
    while at < end:
        starts.append(at)
        at += isa.BY_OPCODE[data[at]].size
    return starts


Places = dict[str, tuple[int, int]]


def _field(rng: random.Random, data: bytearray, places: Places, starts: list[int]) -> None:
    """An operand of an instruction becomes a number at a border, or goes up or down by one."""
    at = rng.choice(starts)
    row = isa.BY_OPCODE.get(data[at])
    layouts = [letter for f in row.format.fields for letter in isa.ENCODINGS[f.kind][1:]] if row else []
    if not layouts:
        return
    which = rng.randrange(len(layouts))
    at += 2 + struct.calcsize("<" + "".join(layouts[:which]))
    _put(rng, data, at, struct.calcsize("<" + layouts[which]))


def _put(rng: random.Random, data: bytearray, at: int, size: int) -> None:
    old = int.from_bytes(data[at : at + size], "little")
    new = rng.choice((rng.choice(NUMBERS), old + 1, old - 1, -old, 2 * old))
    data[at : at + size] = (new % (1 << 8 * size)).to_bytes(size, "little")


def _word(rng: random.Random, data: bytearray, places: Places, starts: list[int]) -> None:
    """A word of any other section."""
    offset, size = places[rng.choice([tag for tag in places if tag not in ("CODE", "META", "CONF")])]
    if size >= 4:
        _put(rng, data, offset + rng.randrange(min(size, 4096) - 3), rng.choice((1, 2, 4)))


def _byte(rng: random.Random, data: bytearray, places: Places, starts: list[int]) -> None:
    offset, size = places[rng.choice(list(places))]
    data[offset + rng.randrange(size)] = rng.choice((0, 1, 0x7F, 0x80, 0xFF, rng.randrange(256)))


def _swap(rng: random.Random, data: bytearray, places: Places, starts: list[int]) -> None:
    """An opcode of the same format, or an instruction of another of the same size."""
    at, other = rng.choice(starts), rng.choice(starts)
    row, source = isa.BY_OPCODE.get(data[at]), isa.BY_OPCODE.get(data[other])
    if row is None or source is None:
        return
    if rng.random() < 0.5:
        data[at] = rng.choice([i.opcode for i in isa.INSTRUCTIONS if i.format is row.format])
    elif row.size == source.size:
        data[at : at + row.size] = data[other : other + row.size]


def _row(rng: random.Random, data: bytearray, places: Places, starts: list[int]) -> None:
    """The core of an instruction."""
    data[rng.choice(starts) + 1] = rng.choice((0, 1, 2, 15, 16, 254, 255))


def _table(rng: random.Random, data: bytearray) -> None:
    """The section table."""
    _put(rng, data, rng.randrange(48, 56 + 20 * 9), rng.choice((1, 4, 8)))
