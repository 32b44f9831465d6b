"""Damaged program files for libltc: a code and words, or a program that runs with the bits of Python's VM.

Half of the cases damage the sections that Python alone reads otherwise, the JSON of CONF and META.
"""

from __future__ import annotations

import random
import struct
import zlib
from typing import Any

import c_library as c
import fuzz_programs
import numpy as np
from random_programs import draw, inputs_of

from ltc_compiler.bytecode.container import section_table
from ltc_compiler.errors import LtcError
from ltc_compiler.program import Program

STEPS = 2
WORDS = (
    *b'{ } [ ] , : " \\ \\u \\ud83c null true - 1e9 1e999 0.5 99999999999999999999'.split(),
    *(b"\xff", b"\xc3", b"\x00", b"streaming", b"latencies", b'"limit":1', b"[" * 80),
)


def case(seed: int) -> str:
    """One damaged file. Returns "refused", "large" (not run), "ran", or "agreed" where Python loads it too."""
    rng = random.Random(seed)
    original = fuzz_programs.good_file(rng.randrange(64)) if rng.random() < 0.5 else _told(rng.randrange(16))
    data = _with_other_words(rng, original) if rng.random() < 0.5 else fuzz_programs.damaged(rng, original)
    try:
        loaded = c.load(data, max_work=fuzz_programs.LONG)
    except c.RefusedError as refusal:
        return _as_it_should(refusal, "PROGRAM", "ISA")
    models = range(c.library().ltc_program_models(loaded))
    sides = [
        port
        for model in models
        for side in ("input", "output", "state")
        for port in c.ports(loaded, side, model)
    ]
    if sum(port.count for port in sides) > fuzz_programs.ELEMENTS:
        return "large"
    try:
        twin = Program.load_bytes(data)
    except LtcError:
        twin = None
    for model in models:
        _compare(loaded, twin, model, seed)
    return "ran" if twin is None else "agreed"


def _as_it_should(refusal: c.RefusedError, *statuses: str) -> str:
    assert refusal.status in statuses
    assert refusal.what
    return "refused"


def _compare(loaded: c.Handle, twin: Program | None, model: int, seed: int) -> None:
    c.filled(c.Cycles, "ltc_program_cycles", loaded, model)
    vm = c.VM(loaded)
    inputs = _inputs(loaded, twin, model, seed)
    found = []
    for _ in range(STEPS):
        try:
            found += [y.tobytes() for y in vm.run(inputs, model)]
        except c.RefusedError as refusal:  # a stream at its end, or a counter that holds no number
            _as_it_should(refusal, "INPUT")
            return
    found += [state.tobytes() for state in vm.states(model)]
    if twin is not None:
        machine, expected = twin.to_vm(), []
        for _ in range(STEPS):
            given = machine.run(*inputs, model_index=model)
            expected += [np.asarray(y).tobytes() for y in (given if isinstance(given, tuple) else (given,))]
        expected += [state.tobytes() for state in machine.get_state(model).values()]
        assert found == expected, "libltc and the VM differ"


def _inputs(loaded: c.Handle, twin: Program | None, model: int, seed: int) -> list[Any]:
    if twin is not None:
        return inputs_of(np.random.default_rng(seed), twin.image.models[model])
    return [np.full(c.shape(port), 0.5, np.float32) for port in c.ports(loaded, "input", model)]


def _told(number: int) -> bytes:
    """A file that says much of itself."""
    image = draw(number, size=8)
    model = image.models[0]
    entry = {"inputs": [0] + [None] * (len(model.inputs) - 1), "outputs": [None] * len(model.outputs),
             "latencies": [0] * len(model.outputs), "tails": [0] * len(model.outputs)}  # fmt: skip
    told = {"0": 'µ "x" \\ \U0001f300'}
    image.meta.update(
        streaming=[entry], states=[["tied"] * len(model.states)], instructions=told, state_reset=True
    )
    return image.to_bytes()


def _with_other_words(rng: random.Random, original: bytes) -> bytes:
    """The JSON of META or CONF with words that are lost, doubled or put in."""
    rows = list(section_table(original))
    wanted = rng.choice(("META", "META", "CONF"))
    which = next(n for n, (tag, _, _) in enumerate(rows) if tag == wanted)
    _, offset, size = rows[which]
    text = original[offset : offset + size]
    for _ in range(rng.choice((1, 1, 2, 4))):
        at = rng.randrange(len(text) + 1)
        new = rng.choice((b"", rng.choice(WORDS), text[at : at + 9] * 2))
        text = text[:at] + new + text[at + rng.choice((0, 0, 1, 7)) :]
    data = bytearray(original)
    if which == len(rows) - 1:
        data[offset:] = text
    else:
        text = text[:size]
        data[offset : offset + len(text)] = text
    struct.pack_into("<Q", data, 56 + 20 * which + 12, len(text))
    struct.pack_into("<Q", data, 40, len(data))
    struct.pack_into("<I", data, 52, zlib.crc32(memoryview(data)[56:]))
    return bytes(data)
