"""The program file: a checked header, a table of sections, and one section per part of the program.

Little endian throughout; nothing is executed to read it. The header's checksum covers everything behind the
header. Sections start at multiples of 64 bytes. Sizes are compared with what the file has before anything is
allocated for them. sections.py has writer and reader of each binary section side by side.

    header   magic, version, hash of the instruction table, total size, number of sections, CRC-32
    CONF     configuration, JSON             MACH  the same machine as the simulator reads it, binary
    CODE     instructions                    CORE  sizes of every core's stores, and its constant rows
    WGHT     weight blocks, core by core     SYNP  synapse slots             GATH  gather entries
    MODL     models: ports, states, rings    SHAD  fp32 originals (optional) META  for people, JSON
"""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ltc_compiler import isa
from ltc_compiler.bytecode import sections
from ltc_compiler.bytecode.instr import Instr, decode, encode
from ltc_compiler.bytecode.ports import F32, Model
from ltc_compiler.bytecode.reader import RECOMPILE, Reader
from ltc_compiler.bytecode.stores import U16, CoreImage
from ltc_compiler.config import Config
from ltc_compiler.errors import ConfigError, IsaMismatchError, ProgramError

MAGIC = b"LTCP"
VERSION = 3
ALIGNMENT = 64

Piece = bytes | NDArray[Any] | int  # of a section; a number: room for so many bytes

_HEADER = struct.Struct("<4sI32sQII")
_SECTION = struct.Struct("<4sQQ")
_TAGS = (b"CONF", b"MACH", b"CODE", b"CORE", b"WGHT", b"SYNP", b"GATH", b"MODL", b"META")
_OPTIONAL_TAGS = (b"SHAD",)


class Parts(NamedTuple):
    """What a program file holds: the fields of an Image."""

    config: Config
    code: list[Instr]
    cores: list[CoreImage]
    models: list[Model]
    meta: dict[str, Any]


def write(parts: Parts, shadow: bool) -> bytes:
    """The file as bytes; with the SHAD section if asked for and every core has its originals."""
    table, pieces, end = _layout(_payloads(parts, shadow))
    whole: list[Any] = [table, *(piece for piece in pieces if not isinstance(piece, int))]
    checksum = 0
    for piece in whole:
        checksum = zlib.crc32(piece, checksum)
    return b"".join((_header(table, end, checksum), *whole))  # weights are large: each byte is copied once


def write_around(
    parts: Parts, fill: Callable[[int, U16, F32 | None], None]
) -> tuple[bytearray, list[CoreImage]]:
    """The file, and the cores whose weights lie in it: nothing holds them a second time.

    The weights of `parts` give their number alone, and whether there are originals; `fill` takes a core, its blocks and
    their originals, and writes them.
    """
    table, pieces, end = _layout(_payloads(parts, shadow=True, blank=True))
    data = bytearray(end)
    places: list[int] = []  # of the weights of every core, then of their originals
    at = _HEADER.size
    for piece in (table, *pieces):
        if isinstance(piece, int):
            places.append(at)
        else:
            data[at : at + _size(piece)] = bytes(piece)
        at += _size(piece)
    cores = []
    for number, core in enumerate(parts.cores):
        shape, size = core.weights.shape, core.weights.size
        blocks = np.frombuffer(data, np.uint16, size, places[number]).reshape(shape)
        originals = None
        if core.shadow_weights is not None:
            place = places[len(parts.cores) + number]
            originals = np.frombuffer(data, np.float32, size, place).reshape(shape)
        fill(number, blocks, originals)
        for array in (blocks, originals):
            if array is not None:
                array.flags.writeable = False
        cores.append(replace(core, weights=blocks, shadow_weights=originals))
    checksum = zlib.crc32(memoryview(data)[_HEADER.size :])
    data[: _HEADER.size] = _header(table, end, checksum)
    return data, cores


def _payloads(parts: Parts, shadow: bool, blank: bool = False) -> dict[bytes, list[Piece]]:
    """The sections, each in pieces; blank=True leaves room for the weights."""
    cores = parts.cores
    payloads: dict[bytes, list[Piece]] = {
        b"CONF": [_json(parts.config.to_dict())],
        b"MACH": [sections.machine(parts.config)],
        b"CODE": [struct.pack("<I", len(parts.code)), encode(parts.code)],
        b"CORE": [sections.write_cores(cores)],
        b"WGHT": [
            core.weights.nbytes if blank else np.ascontiguousarray(core.weights, "<u2") for core in cores
        ],
        b"SYNP": [sections.write_slots(core.slots) for core in cores],
        b"GATH": [sections.write_entries(core.entries) for core in cores],
        b"MODL": [sections.write_models(parts.models)],
    }
    if shadow and all(core.has_shadow for core in cores):
        payloads[b"SHAD"] = [array for core in cores for array in sections.shadow(core, blank)]
    payloads[b"META"] = [_json(parts.meta)]
    return payloads


def _header(table: bytes, size: int, checksum: int) -> bytes:
    return _HEADER.pack(MAGIC, VERSION, isa.isa_hash(), size, len(table) // _SECTION.size, checksum)


def _size(piece: Piece) -> int:
    if isinstance(piece, int):
        return piece
    return piece.nbytes if isinstance(piece, np.ndarray) else len(piece)


def _layout(payloads: dict[bytes, list[Piece]]) -> tuple[bytes, list[Piece], int]:
    """The section table, what follows it, and the size of the file."""
    table, body = b"", []
    end = _HEADER.size + len(payloads) * _SECTION.size
    for tag, pieces in payloads.items():
        start = end + -end % ALIGNMENT
        size = sum(map(_size, pieces))
        table += _SECTION.pack(tag, start, size)
        body += [bytes(start - end), *pieces]
        end = start + size
    return table, body, end


def read(data: bytes | bytearray) -> Parts:
    """The inverse of write. Raises ProgramError or IsaMismatchError with section and byte offset."""
    found = _sections(data)
    config = _config(found)
    code_reader = found[b"CODE"]
    (count,) = code_reader.take("<I")
    code = decode(code_reader.rest(), count)
    cores = sections.read_cores(config, found)
    models = sections.read_models(found[b"MODL"])
    meta = _load_json(found[b"META"])
    for reader in found.values():
        reader.expect_end()
    return Parts(config, code, cores, models, meta)


def _sections(data: bytes | bytearray) -> dict[bytes, Reader]:
    """Check header and section table, and return a reader per section."""
    count = _check_header(data)
    reader = Reader("section table", data[: _HEADER.size + count * _SECTION.size], 0, _HEADER.size)
    found: dict[bytes, Reader] = {}
    end = _HEADER.size + count * _SECTION.size
    rows = [reader.take(_SECTION.format) for _ in range(count)]
    for tag, offset, size in sorted(rows, key=lambda row: int(row[1])):
        name = tag.decode("ascii", "replace")
        if tag in found or tag not in _TAGS + _OPTIONAL_TAGS:
            fault = "occurs twice" if tag in found else "is unknown"
        elif offset % ALIGNMENT or offset < end or offset + size > len(data):
            fault = f"lies at bytes {offset} to {offset + size}: unaligned, over another, or outside the file"
        else:
            found[tag] = Reader(name, memoryview(data)[offset : offset + size], offset)
            end = offset + size
            continue
        raise ProgramError(f"section {name!r} {fault}", where="section table", remedy=RECOMPILE)
    missing = [tag.decode() for tag in _TAGS if tag not in found]
    if missing:
        raise ProgramError(f"missing section {', '.join(missing)}", where="section table", remedy=RECOMPILE)
    return found


def _check_header(data: bytes | bytearray) -> int:
    """Number of sections of a file whose header and checksum are right."""
    if data[:4] != MAGIC:
        raise ProgramError(
            f"not a program: it starts with {bytes(data[:4])!r}, not {MAGIC!r}", where="header, byte 0",
            remedy="give a file that Program.save wrote",
        )  # fmt: skip
    if len(data) < _HEADER.size:
        raise ProgramError(
            f"the file ends inside its header: {len(data)} of {_HEADER.size} bytes",
            where=f"header, byte {len(data)}", remedy=_DAMAGED,
        )  # fmt: skip
    _, version, isa_hash, size, count, checksum = _HEADER.unpack_from(data)
    if version != VERSION:
        raise ProgramError(
            f"program file of version {version}, this build reads version {VERSION}",
            where="header, byte 4", remedy=RECOMPILE,
        )  # fmt: skip
    if isa_hash != isa.isa_hash():
        raise IsaMismatchError(
            f"made for instruction set {isa_hash.hex()[:12]}, this build's is {isa.isa_hash().hex()[:12]}",
            where="header, byte 8", remedy=RECOMPILE,
        )  # fmt: skip
    if size != len(data):
        raise ProgramError(
            f"the file has {len(data)} bytes, its header says {size}",
            where="header, byte 40",
            remedy=_DAMAGED,
        )
    if count * _SECTION.size > len(data) - _HEADER.size:
        raise ProgramError(f"{count} sections do not fit the file", where="header, byte 48", remedy=_DAMAGED)
    if zlib.crc32(memoryview(data)[_HEADER.size :]) != checksum:
        raise ProgramError("the checksum is wrong", where="header, byte 52", remedy=_DAMAGED)
    return int(count)


_DAMAGED = "the file is damaged: copy it again, or recompile the model"


def _config(found: dict[bytes, Reader]) -> Config:
    try:
        config = Config.from_dict(_load_json(found[b"CONF"]), where="section CONF")
    except ConfigError as error:
        raise ProgramError(error.what, where=error.where, remedy=RECOMPILE) from error
    if found[b"MACH"].rest() != sections.machine(config):
        raise ProgramError(
            "sections CONF and MACH describe different machines", where="section MACH", remedy=RECOMPILE
        )
    return config


def _json(value: object) -> bytes:
    # errors: half of a surrogate pair, which a source line may hold, is no character of UTF-8
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode(errors="replace")


def _load_json(reader: Reader) -> dict[str, Any]:
    try:
        value = json.loads(reader.rest().decode())
    except (ValueError, RecursionError) as error:
        raise ProgramError(
            f"not JSON: {error}", where=f"section {reader.section}", remedy=RECOMPILE
        ) from error
    if not isinstance(value, dict):
        raise ProgramError("not a JSON object", where=f"section {reader.section}", remedy=RECOMPILE)
    return value


def section_table(data: bytes) -> Iterator[tuple[str, int, int]]:
    """Tag, offset and size of every section of a good file, in file order: for tools and tests."""
    for reader in _sections(data).values():
        yield reader.section, reader.base, reader.size
