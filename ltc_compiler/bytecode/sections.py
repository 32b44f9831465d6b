"""The binary sections of a program file, each with its writer and its reader side by side."""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ltc_compiler import isa
from ltc_compiler.bytecode.ports import ROLES, Model, Port, State
from ltc_compiler.bytecode.reader import Reader
from ltc_compiler.bytecode.rings import Ring
from ltc_compiler.bytecode.stores import CoreImage, EntryArrays, SlotArrays
from ltc_compiler.config import Config
from ltc_compiler.errors import ProgramError, shown
from ltc_compiler.isa.machine import COUNTS, FEATURES

_CORE = "<5I"
_RANGE = "<2I"
_MODEL = "<6I"
_RING = "<5I"


def machine(config: Config) -> bytes:
    """MACH: what the simulator needs of the configuration; the clock stands in CONF alone."""
    counts = [getattr(config, p.name) for p in COUNTS]
    features = [getattr(config, p.name) for p in FEATURES]
    latencies = [getattr(config.latency, name) for name in isa.LATENCIES]
    padding = -len(features) % 4
    packed = struct.pack(f"<{len(counts)}I{len(features)}?{padding}x", *counts, *features)
    return packed + struct.pack(f"<{len(latencies)}I", *latencies)


def write_cores(cores: Sequence[CoreImage]) -> bytes:
    """CORE: number of cores; for each the use of its stores, its constant ranges, and their rows."""
    out = [struct.pack("<I", len(cores))]
    for core in cores:
        sizes = (core.tensor_rows, len(core.weights), len(core.slots), len(core.entries), len(core.constants))
        out.append(struct.pack(_CORE, *sizes))
        out += [struct.pack(_RANGE, row, len(rows)) for row, rows in core.constants]
        out += [rows.astype("<f4", copy=False).tobytes() for _, rows in core.constants]
    return b"".join(out)


def read_cores(config: Config, found: Mapping[bytes, Reader]) -> list[CoreImage]:
    """CORE, WGHT, SYNP, GATH and SHAD as core images."""
    width = config.block_size
    reader = found[b"CORE"]
    (count,) = reader.take("<I")
    if count != config.cores:
        raise reader.error(f"{count} cores, the machine has {config.cores}")
    headers = []
    for _ in range(count):
        header = reader.take(_CORE)
        ranges = [reader.take(_RANGE) for _ in range(header[-1])]
        constants = [(row, _f32(reader, (rows, width))) for row, rows in ranges]
        headers.append((header, constants))
    sizes = [(header[1], header[2], [len(rows) for _, rows in constants]) for header, constants in headers]
    unknown = (None, None, None)
    shadows = _read_shadow(found[b"SHAD"], sizes, width) if b"SHAD" in found else [unknown] * count
    cores = []
    for ((rows, blocks, slots, entries, _), constants), (tiles, synapses, exact) in zip(
        headers, shadows, strict=True
    ):
        weights = found[b"WGHT"].array("<u2", (blocks, width, width)).astype(np.uint16, copy=False)
        stores = (_read_slots(found[b"SYNP"], slots, width), _read_entries(found[b"GATH"], entries, width))
        try:
            cores.append(CoreImage(rows, constants, weights, *stores, tiles, synapses, exact))
        except ProgramError as error:
            raise reader.error(f"core {len(cores)}: {error.what}") from error
    return cores


def write_slots(slots: SlotArrays) -> bytes:
    """SYNP of one core."""
    packed = np.zeros(len(slots), _slot_type(slots.src.shape[1]))
    for name in ("src", "mu", "sigma", "w", "we", "last"):
        packed[name] = getattr(slots, name)
    return packed.tobytes()


def _read_slots(reader: Reader, count: int, width: int) -> SlotArrays:
    packed = reader.array(_slot_type(width), (count,))
    if (packed["last"] > 1).any():
        raise reader.error("a flag of a synapse slot is neither 0 nor 1")
    src, mu, sigma, w, we = (packed[name] for name in ("src", "mu", "sigma", "w", "we"))
    return SlotArrays(src, mu, sigma, w, we, packed["last"] == 1)


def write_entries(entries: EntryArrays) -> bytes:
    """GATH of one core."""
    packed = np.zeros(len(entries), _entry_type(entries.lane.shape[1]))
    for name in ("src", "dst", "clear", "lane"):
        packed[name] = getattr(entries, name)
    return packed.tobytes()


def _read_entries(reader: Reader, count: int, width: int) -> EntryArrays:
    packed = reader.array(_entry_type(width), (count,))
    if (packed["clear"] > 1).any():
        raise reader.error("a flag of a gather entry is neither 0 nor 1")
    return EntryArrays(packed["src"], packed["dst"], packed["clear"] == 1, packed["lane"])


def shadow(core: CoreImage, blank: bool = False) -> list[NDArray[np.float32] | int]:
    """SHAD of one core: its fp32 weights, then its fp32 synapse parameters, then its constant rows. blank: the bytes
    that the weights take, in their place."""
    arrays = [core.shadow_weights, core.shadow_slots, *(core.shadow_constants or ())]
    room: list[NDArray[np.float32] | int] = [4 * core.weights.size] if blank else []
    return room + [np.ascontiguousarray(a, "<f4") for a in arrays[blank:] if a is not None]


def _read_shadow(
    reader: Reader, sizes: Sequence[tuple[int, int, list[int]]], width: int
) -> list[tuple[NDArray[np.float32], NDArray[np.float32], list[NDArray[np.float32]]]]:
    return [
        (
            _f32(reader, (blocks, width, width)),
            _f32(reader, (slots, 4, width)),
            [_f32(reader, (rows, width)) for rows in constants],
        )
        for blocks, slots, constants in sizes
    ]


def write_models(models: Sequence[Model]) -> bytes:
    """MODL: for each model its name, code range, ports, states and rings."""
    out = [struct.pack("<I", len(models))]
    for model in models:
        counts = (len(model.inputs), len(model.outputs), len(model.states), len(model.rings))
        out += [_text(model.name), struct.pack(_MODEL, model.begin, model.end, *counts)]
        for port in (*model.inputs, *model.outputs):
            kinds = ROLES.index(port.role), isa.PRECISIONS.index(port.precision)
            out += [_text(port.name), bytes(kinds), _shape(port.shape)]
        for state in model.states:
            out += [
                _text(state.name),
                _shape(state.shape),
                struct.pack("<III", *state.places[0], len(state.copies)),
            ]
            out += [struct.pack("<II", *place) for place in state.copies]
        out += [struct.pack(_RING, r.core, r.row, r.places, r.rows, r.advance) for r in model.rings]
    return b"".join(out)


def read_models(reader: Reader) -> list[Model]:
    """The inverse of write_models."""
    (count,) = reader.take("<I")
    models = []
    for _ in range(count):
        name = reader.text()
        begin, end, n_inputs, n_outputs, n_states, n_rings = reader.take(_MODEL)
        inputs = [_read_port(reader) for _ in range(n_inputs)]
        outputs = [_read_port(reader) for _ in range(n_outputs)]
        states = [_read_state(reader) for _ in range(n_states)]
        rings = [_checked(reader, Ring, *reader.take(_RING)) for _ in range(n_rings)]
        models.append(_checked(reader, Model, name, begin, end, inputs, outputs, states, rings))
    return models


def _read_port(reader: Reader) -> Port:
    name = reader.text()
    role, precision = reader.take("<BB")
    if role >= len(ROLES) or precision >= len(isa.PRECISIONS):
        raise reader.error(f"port {name!r} has role {role} and precision {precision}")
    return _checked(reader, Port, name, _read_shape(reader), ROLES[role], isa.PRECISIONS[precision])


def _read_state(reader: Reader) -> State:
    name, shape = reader.text(), _read_shape(reader)
    core, row, count = reader.take("<III")
    copies = tuple(reader.take("<II") for _ in range(count))
    return _checked(reader, State, name, shape, core, row, copies)


def _checked(reader: Reader, kind: Any, *fields: object) -> Any:
    try:
        return kind(*fields)
    except ProgramError as error:
        raise reader.error(error.what) from error


def _text(text: str) -> bytes:
    try:
        data = text.encode()
    except UnicodeEncodeError as error:
        raise ProgramError(
            f"the name {shown(text)} has a character that UTF-8 has not", where=ascii(text[:40]),
            remedy="give it another name",
        ) from error  # fmt: skip
    if len(data) > 0xFFFF:
        raise ProgramError(
            f"a name has {len(data)} bytes, at most {0xFFFF} are possible", where=f"{text[:40]}..."
        )
    return struct.pack("<H", len(data)) + data


def _shape(shape: Sequence[int]) -> bytes:
    return struct.pack(f"<B{len(shape)}I", len(shape), *shape)


def _read_shape(reader: Reader) -> tuple[int, ...]:
    (rank,) = reader.take("<B")
    return reader.take(f"<{rank}I")


def _f32(reader: Reader, shape: tuple[int, ...]) -> NDArray[np.float32]:
    return reader.array("<f4", shape).astype(np.float32, copy=False)


def _slot_type(width: int) -> np.dtype[np.void]:
    lanes = [(name, "<f4", (width,)) for name in ("mu", "sigma", "w", "we")]
    return np.dtype([("src", "<u2", (width,)), *lanes, ("last", "u1"), ("pad", "u1", (3,))])


def _entry_type(width: int) -> np.dtype[np.void]:
    flags = [("clear", "u1"), ("pad", "u1", (3,))]
    return np.dtype([("src", "<i4"), ("dst", "<i4"), *flags, ("lane", "<u2", (width,))])
