"""Program files: what they hold, how they are laid out, and every way in which a bad one is refused."""

from __future__ import annotations

import json
import random
import re
import struct
import zlib
from contextlib import suppress
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from random_programs import draw, op

from ltc_compiler import isa
from ltc_compiler.bytecode import CoreImage, Image, Model
from ltc_compiler.bytecode.container import section_table
from ltc_compiler.bytecode.instr import encode
from ltc_compiler.config import Config
from ltc_compiler.errors import IsaMismatchError, ProgramError
from ltc_compiler.isa.machine import COUNTS


def image() -> Image:
    """The smallest program: a loop of nothing."""
    code = [op("loop"), op("end")]
    return Image(Config.tiny_c1b8(), code, [CoreImage.empty(8, 4)], [Model("m", 0, 2, (), ())])


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32))
def test_a_program_survives_the_file(seed: int) -> None:
    program = replace(draw(seed), meta={"compiler": "0.1", "instructions": {"3": "fc µ"}})
    data = program.to_bytes()
    again = Image.from_bytes(data)
    assert again.to_bytes() == data
    assert (again.config, again.code, again.models, again.meta) == (
        program.config, program.code, program.models, program.meta,
    )  # fmt: skip
    for mine, yours in zip(program.cores, again.cores, strict=True):
        for name in ("weights", "shadow_weights", "shadow_slots"):
            assert getattr(mine, name).tobytes() == getattr(yours, name).tobytes()
        originals = (core.shadow_constants or () for core in (mine, yours))
        assert all(a.tobytes() == b.tobytes() for a, b in zip(*originals, strict=True))
        for name in ("src", "mu", "sigma", "w", "we", "last"):
            assert getattr(mine.slots, name).tobytes() == getattr(yours.slots, name).tobytes()
        for name in ("src", "dst", "clear", "lane"):
            assert getattr(mine.entries, name).tobytes() == getattr(yours.entries, name).tobytes()
        assert [(row, rows.tobytes()) for row, rows in mine.constants] == [
            (row, rows.tobytes()) for row, rows in yours.constants
        ]


def test_originals_may_be_left_out() -> None:
    with_them, without = (draw(5).to_bytes(shadow=shadow) for shadow in (True, False))
    assert {tag for tag, _, _ in section_table(with_them)} - {
        tag for tag, _, _ in section_table(without)
    } == {"SHAD"}
    again = Image.from_bytes(without)
    for core in again.cores:
        assert (core.shadow_weights, core.shadow_slots, core.shadow_constants) == (None, None, None)


def test_layout_of_the_file() -> None:
    data = image().to_bytes()
    magic, version, isa_hash, size, sections, checksum = struct.unpack_from("<4sI32sQII", data)
    assert (magic, version, isa_hash, size, sections) == (b"LTCP", 3, isa.isa_hash(), len(data), 10)
    assert checksum == zlib.crc32(data[56:])
    found = {tag: data[offset : offset + n] for tag, offset, n in section_table(data)}
    assert all(offset % 64 == 0 for _, offset, _ in section_table(data))
    assert json.loads(found["CONF"]) == Config.tiny_c1b8().to_dict()
    config = Config.tiny_c1b8()
    assert struct.unpack_from("<15I", found["MACH"]) == (
        1, 8, config.weight_blocks, config.tensor_rows, config.accumulators, config.synapse_slots,
        config.gather_entries, config.instruction_slots, config.link_fifo_rows, config.fp32_beats,
        config.issue_queue, config.read_ports, config.input_rows, config.rings, config.output_rows,
    )  # fmt: skip
    assert len(found["MACH"]) == 4 * len(COUNTS) + 4 + 4 * len(isa.LATENCIES)
    assert found["CODE"] == struct.pack("<I", 2) + encode(image().code)
    assert found["CORE"] == struct.pack("<I5I", 1, 4, 0, 0, 0, 0)
    assert found["MODL"] == struct.pack("<IH1s6I", 1, 1, b"m", 0, 2, 0, 0, 0, 0)


# --- refused files ------------------------------------------------------------------------------------------


def forge(data: bytes, at: int, new: bytes) -> bytes:
    """The file with bytes replaced, and a right checksum."""
    changed = data[:at] + new + data[at + len(new) :]
    return changed[:52] + struct.pack("<I", zlib.crc32(changed[56:])) + changed[56:]


def section(data: bytes, tag: str) -> tuple[int, int]:
    """Offset and size of a section."""
    return next((offset, size) for name, offset, size in section_table(data) if name == tag)


def refusal(data: bytes) -> ProgramError:
    with pytest.raises(ProgramError) as caught:
        Image.from_bytes(data)
    assert caught.value.where
    assert caught.value.remedy
    return caught.value


def test_every_truncation_is_refused() -> None:
    data = image().to_bytes()
    for size in range(len(data)):
        refusal(data[:size])
    refusal(data + b"\0")


def test_flipped_bits_are_refused() -> None:
    """All of the header and the section table, and every ninth bit behind them."""
    data = image().to_bytes()
    tables = 8 * (56 + 20 * 10)
    for bit in [*range(tables), *range(tables, 8 * len(data), 9)]:
        changed = bytearray(data)
        changed[bit // 8] ^= 1 << bit % 8
        refusal(bytes(changed))


def test_forged_bytes_are_refused_or_read_never_worse() -> None:
    """With a right checksum only the checks of every field stand between bad bytes and a crash."""
    data = draw(11, size=8).to_bytes()
    rng = random.Random(1)
    refused = 0
    for _ in range(1500):
        new = bytes(
            rng.choice((0, 1, 0x7F, 0xFF, rng.randrange(256))) for _ in range(rng.choice((1, 2, 4, 8)))
        )
        with suppress(ProgramError):
            Image.from_bytes(forge(data, rng.randrange(40, len(data) - 8), new))
            refused -= 1
        refused += 1
    assert refused > 100


@pytest.mark.parametrize(
    ("at", "new", "fault", "where"),
    [
        (0, b"\x7fELF", "not a program", "header, byte 0"),
        (4, b"\1", "version 1, this build reads version 3", "header, byte 4"),
        (40, b"\1", "its header says", "header, byte 40"),
        (48, b"\xff\xff", "65535 sections do not fit", "header, byte 48"),
        (56, b"XXXX", "section 'XXXX' is unknown", "section table"),
        (56, b"MACH", "section 'MACH' occurs twice", "section table"),
        (60, b"\1", "unaligned, over another, or outside", "section table"),
        (60, b"\xff" * 8, "unaligned, over another, or outside", "section table"),
        (68, b"\xff" * 8, "unaligned, over another, or outside", "section table"),
        (48, b"\x09", "missing section META", "section table"),
    ],
)
def test_a_bad_header_or_table_is_refused(at: int, new: bytes, fault: str, where: str) -> None:
    error = refusal(forge(image().to_bytes(), at, new))
    assert fault in error.what
    assert error.where == where


def test_another_instruction_set_is_refused_as_such() -> None:
    data = image().to_bytes()
    with pytest.raises(IsaMismatchError, match="made for instruction set 0000") as caught:
        Image.from_bytes(data[:8] + bytes(32) + data[40:])
    assert "recompile" in caught.value.remedy


@pytest.mark.parametrize(
    ("tag", "at", "new", "fault"),
    [
        ("CONF", 0, b"[", "not JSON"),
        ("MACH", 4, b"\x10", "sections CONF and MACH describe different machines"),
        ("CODE", 0, b"\3", "the code ends early"),
        ("CODE", 0, b"\1", "2 bytes follow the last of 1 instructions"),
        ("CODE", 4, b"\xee", "no instruction has opcode 238"),
        ("CODE", 5, b"\0", "loop: core is 0, not 255"),
        ("CORE", 0, b"\2", "2 cores, the machine has 1"),
        ("CORE", 4, b"\xff\xff\xff", "core 0 uses 16777215 tensor_rows"),
        ("CORE", 8, b"\1", "128 bytes expected, the section has 0 left"),
        ("CORE", 12, b"\xff\xff\xff\xff", "bytes expected, the section has 0 left"),
        ("CORE", 16, b"\1", "28 bytes expected"),
        ("CORE", 20, b"\xff\xff\xff\xff", "8 bytes expected, the section has 0 left"),
        ("MODL", 0, b"\2", "2 bytes expected, the section has 0 left"),
        ("MODL", 0, b"\0", "bytes too many"),
        ("MODL", 4, b"\xff\xff", "65535 bytes expected"),
        ("MODL", 6, b"\xff", "a name is not UTF-8"),
        ("MODL", 7, b"\3", "instructions 3 to 2"),
        ("MODL", 11, b"\3", "ends at instruction 3 of 2"),
        ("META", 0, b"[]", "not a JSON object"),
    ],
)
def test_a_bad_section_is_refused_with_its_place(tag: str, at: int, new: bytes, fault: str) -> None:
    data = image().to_bytes(shadow=False)
    offset, _ = section(data, tag)
    error = refusal(forge(data, offset + at, new))
    assert fault in error.what


def test_an_error_in_a_section_names_section_and_byte() -> None:
    data = image().to_bytes()
    offset, size = section(data, "CORE")
    error = refusal(forge(data, offset + 20, b"\1"))
    assert re.fullmatch(r"section CORE, byte \d+ of the file", error.where)
    assert str(offset + size) in error.where


def test_a_config_out_of_range_is_refused_by_its_field() -> None:
    data = image().to_bytes()
    offset, size = section(data, "CONF")
    text = data[offset : offset + size].replace(b'"clock_mhz":', b'"clock_mhz":-')
    shorter = text.replace(b'"name":"tiny_c1b8"', b'"name":"tiny_c1b"')
    error = refusal(forge(data, offset, shorter))
    assert "clock_mhz is -" in error.what
    assert "section CONF" in error.where
