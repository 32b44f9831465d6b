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
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from ltc_compiler import isa
from ltc_compiler.bytecode import sections
from ltc_compiler.bytecode.instr import Instr, decode, encode
from ltc_compiler.bytecode.ports import Model
from ltc_compiler.bytecode.reader import RECOMPILE, Reader
from ltc_compiler.bytecode.stores import CoreImage
from ltc_compiler.config import Config
from ltc_compiler.errors import ConfigError, IsaMismatchError, ProgramError

MAGIC = b"LTCP"
VERSION = 3
ALIGNMENT = 64

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
    cores = parts.cores
    payloads = {
        b"CONF": _json(parts.config.to_dict()),
        b"MACH": sections.machine(parts.config),
        b"CODE": struct.pack("<I", len(parts.code)) + encode(parts.code),
        b"CORE": sections.write_cores(cores),
        b"WGHT": b"".join(np.ascontiguousarray(core.weights, "<u2").data for core in cores),
        b"SYNP": b"".join(sections.write_slots(core.slots) for core in cores),
        b"GATH": b"".join(sections.write_entries(core.entries) for core in cores),
        b"MODL": sections.write_models(parts.models),
    }
    if shadow and all(core.has_shadow for core in cores):
        payloads[b"SHAD"] = sections.write_shadow(cores)
    payloads[b"META"] = _json(parts.meta)
    table, body = b"", []
    end = _HEADER.size + len(payloads) * _SECTION.size
    for tag, payload in payloads.items():
        start = end + -end % ALIGNMENT
        table += _SECTION.pack(tag, start, len(payload))
        body += [bytes(start - end), payload]
        end = start + len(payload)
    checksum = 0
    for piece in (table, *body):
        checksum = zlib.crc32(piece, checksum)
    header = _HEADER.pack(MAGIC, VERSION, isa.isa_hash(), end, len(payloads), checksum)
    return b"".join((header, table, *body))  # weights are large: each byte is copied once


def read(data: bytes) -> Parts:
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


def _sections(data: bytes) -> dict[bytes, Reader]:
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


def _check_header(data: bytes) -> int:
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
