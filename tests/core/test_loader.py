"""The loader of the C++ core: what it refuses and where it says so, and that no bytes can hurt it.

Hostile programs are made through the assembler's own classes where these allow it, and else by patching bytes of a
good file and setting its checksum right again.
"""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from random_programs import draw, op

from ltc_compiler import _core, isa
from ltc_compiler.bytecode import CoreImage, EntryArrays, Image, Instr, Model, Port, Row, SlotArrays, State
from ltc_compiler.bytecode.container import section_table
from ltc_compiler.config import Config
from ltc_compiler.errors import IsaMismatchError, ProgramError
from ltc_compiler.isa.machine import COUNTS

B = 8
ROWS = 40  # 0..31 free, 32..35 constant, 36..39 state
HEADER = 56


def test_the_core_is_the_build_that_was_asked_for() -> None:
    info = _core.build_info()
    assert info["cplusplus"] == 202002
    assert info["sanitized"] is ("san" in os.environ.get("LTC_CORE", ""))


def core_image() -> CoreImage:
    ones = np.ones((6, B), np.float32)
    src = np.full((6, B), 15, np.uint16)
    src[:, 0] = isa.ABSENT
    slots = SlotArrays(src, ones, ones, ones, ones, np.array([0, 1, 1, 0, 1, 0], np.bool_))
    offsets = np.array([0, 1, 2, 3], np.int32)
    entries = EntryArrays(offsets, offsets, np.zeros(4, np.bool_), np.zeros((4, B), np.uint16))
    constants = [(32, np.ones((8, B), np.float32))]
    return CoreImage(ROWS, constants, np.zeros((4, B, B), np.uint16), slots, entries)


def image(*code: Instr, config: Config | None = None) -> Image:
    """Two cores; `code` stands between the input (rows 0, 1) and the output (row 0) on core 0."""
    whole = [
        op("input", dst=Row(0), rows=2, port=0),
        *code,
        op("output", src=Row(0), rows=1, port=0),
    ]
    model = Model(
        "m", 0, len(whole), (Port("x", (2, B)),), (Port("y", (B,)),),
        (State("s", (2, B), 0, 36), State("t", (2 * B,), 0, 38)),
    )  # fmt: skip
    return Image(config or Config.tiny_c2b8(), whole, [core_image(), core_image()], [model])


LOOP = op("loop", count=3)
END = op("end")
MATMUL: dict[str, Any] = {"dst": Row(0), "x": Row(4), "bias": Row(8), "k": 9, "m_rows": 2}
PRODUCT: dict[str, Any] = {
    "dst": Row(0),
    "a": Row(4),
    "b": Row(8),
    "addend": Row(0),
    "n_j": 9,
    "lane_j": 1,
    "a_lanes": 9,
    "b_j": 2,
    "n_inner": 2,
}
DOT: dict[str, Any] = {"dst": Row(0), "a": Row(4), "b": Row(8), "addend": Row(0), "n_j": 9, "k": 9, "b_j": 2}
SYNAPSE: dict[str, Any] = {"num": Row(2), "den": Row(4), "v": Row(0), "v_rows": 2}
TRANSPOSE: dict[str, Any] = {
    "dst": Row(0),
    "dst_step": 1,
    "dst_rows": 8,
    "src": Row(8),
    "src_step": 1,
    "src_rows": 8,
}
GATHER: dict[str, Any] = {"dst": Row(8), "dst_rows": 4, "src": Row(0), "src_rows": 4, "count": 4}


def test_a_good_program_loads() -> None:
    _core.Program.parse(
        image(
            LOOP,
            op("state_write", dst=Row(36, 1, 1), a=Row(8, -4, 1)),
            op("matmul", **MATMUL),
            op("product", **PRODUCT),
            op("dot", **DOT),
            op("synapse", slots=0, targets=2, **SYNAPSE),
            op("gather", **GATHER),
            op("transpose", **TRANSPOSE),
            op("send", src=Row(0), rows=2, targets=2),
            op("receive", 1, dst=Row(0), rows=2, source=0),
            END,
        ).to_bytes()
    )


REFUSED: list[tuple[str, list[Instr]]] = [
    ("an end without its loop", [END]),
    ("a loop has no end", [LOOP]),
    ("nested too deeply", [LOOP] * 5 + [END] * 5),
    ("a loop of no iterations", [op("loop", count=0), END]),
    ("more than 2\\^40 iterations", [op("loop", count=2**20), op("loop", count=2**20 + 1), END, END]),
    (
        "touches more than 2\\^40 rows",
        [op("loop", count=2**16 + 1), op("move", n_outer=2**12, n_inner=2**12, dst_inner=0, a_inner=0), END],
    ),
    ("a count is above 65536", [op("move", n_outer=2**16 + 1, dst_inner=0, a_inner=0)]),
    ("a count is above 65536", [op("column_sum", k=2**32 - 1)]),
    ("a count is above 65536", [op("column_max", k=2**16 + 1)]),
    ("a count is above 65536", [op("matmul", **{**MATMUL, "batch": 2**32 - 1})]),
    ("a count is above 65536", [op("row_sum", groups=2**32 - 1)]),
    ("a count is above 65536", [op("row_sum", k=2**32 - 1)]),
    ("a count is above 65536", [op("ltc_update", n=2**31)]),
    ("a count is zero", [op("add", n_inner=0)]),
    ("a count is zero", [op("row_sum", k=0)]),
    ("a count is zero", [op("column_max", k=0)]),
    ("a count is zero", [op("matmul", **{**MATMUL, "k": 0})]),
    ("a count is zero", [op("matmul", **{**MATMUL, "batch": 0})]),
    ("a count is zero", [op("synapse", targets=0, **SYNAPSE)]),
    ("a count is zero", [op("gather", **{**GATHER, "count": 0})]),
    ("a count is zero", [op("send", src=Row(0), rows=0, targets=2)]),
    ("names a loop that is not around it", [op("move", dst=Row(0, 1, 1))]),
    ("names a loop that is not around it", [LOOP, END, op("move", a=Row(0, 0, 1))]),
    ("dst reaches row 40, core 0 uses 40", [op("move", dst=Row(40))]),
    ("a reaches row 41", [LOOP, op("move", a=Row(37, 2, 1)), END]),
    ("reach outside the rows", [LOOP, op("move", a=Row(3, -2, 1)), END]),
    ("reach outside the rows", [op("move", a=Row(3), a_inner=-2, n_inner=3, dst_inner=0)]),
    ("reach outside the rows", [op("move", a=Row(0), a_inner=2**31 - 1, n_inner=2**16, dst_inner=0)]),
    ("reach outside the rows", [op("move", a=Row(2**32 - 1), a_inner=-(2**31), n_inner=2**16, dst_inner=0)]),
    ("src reaches row 40", [op("row_sum", src=Row(38), k=2 * B + 1)]),
    ("src reaches row 40", [op("column_sum", src=Row(38), k=2, k_step=1, n_inner=2)]),
    ("bias reaches row 40", [op("matmul", **{**MATMUL, "bias": Row(39)})]),
    ("v reaches row 40", [op("synapse", targets=1, **{**SYNAPSE, "v": Row(39)})]),
    ("it writes rows that are no state", [op("state_write", dst=Row(35))]),
    ("it writes rows that are no state", [LOOP, op("state_write", dst=Row(34, 1, 1)), END]),
    ("only state_write may", [op("move", dst=Row(37))]),
    ("only state_write may", [op("add", dst=Row(0), dst_inner=36, n_inner=2)]),
    ("it writes constant rows", [op("move", dst=Row(33))]),
    ("it writes constant rows", [LOOP, op("move", dst=Row(28, 2, 1)), END]),
    ("only state_write may", [op("input", dst=Row(36), rows=2)]),
    ("its lane does not exist", [op("splat", dst=Row(0), a=Row(0), lane=B)]),
    ("its weight blocks do not exist", [op("matmul", weights=1, **MATMUL)]),
    ("its weight blocks do not exist", [op("matmul_fp32", **MATMUL)]),
    ("its weight blocks do not exist", [op("matmul", taps=2, **MATMUL)]),
    ("its weight blocks do not exist", [op("matmul", taps=2**16, **MATMUL)]),
    ("x reaches row 40", [op("matmul", taps=2, tap_step=35, **MATMUL)]),
    ("dst overlaps x", [op("matmul", **{**MATMUL, "x": Row(1)})]),
    ("dst overlaps x", [LOOP, op("matmul", **{**MATMUL, "dst": Row(0, 2, 1)}), END]),
    ("dst overlaps bias", [op("matmul", **{**MATMUL, "bias": Row(1)})]),
    ("dst overlaps a", [op("product", **{**PRODUCT, "dst": Row(4)})]),
    ("dst overlaps b", [op("product", **{**PRODUCT, "dst": Row(25)})]),
    ("a reaches row 40", [op("product", **{**PRODUCT, "a": Row(39)})]),
    ("b reaches row 40", [op("product", **{**PRODUCT, "b": Row(23)})]),
    ("a lane of A is not below a_lanes", [op("product", **{**PRODUCT, "a_lanes": 8})]),
    ("a lane of A is not below a_lanes", [op("product", **{**PRODUCT, "n_i": 2, "lane_i": 2**32 - 1})]),
    ("a count is zero", [op("product", **{**PRODUCT, "n_j": 0})]),
    ("dst overlaps a", [op("dot", **{**DOT, "dst": Row(5)})]),
    ("dst overlaps b", [op("dot", **{**DOT, "dst": Row(25)})]),
    ("b reaches row 40", [op("dot", **{**DOT, "b": Row(23)})]),
    ("addend reaches row 40", [op("dot", **{**DOT, "addend": Row(39)})]),
    ("a count is zero", [op("dot", **{**DOT, "k": 0})]),
    ("num overlaps den", [op("synapse", targets=3, **SYNAPSE)]),
    ("its slots do not exist", [op("synapse", slots=6, targets=1, **SYNAPSE)]),
    ("its slots do not exist", [op("synapse", slots=4, targets=2, **SYNAPSE)]),
    ("none is marked last", [op("synapse", slots=5, targets=1, **SYNAPSE)]),
    ("a slot reads a source outside v", [op("synapse", targets=1, **{**SYNAPSE, "v_rows": 1})]),
    ("its entries do not exist", [op("gather", entries=1, **GATHER)]),
    ("an entry reads outside src_rows", [op("gather", **{**GATHER, "src_rows": 3})]),
    ("an entry writes outside dst_rows", [op("gather", **{**GATHER, "dst_rows": 3})]),
    ("dst overlaps src", [op("gather", **{**GATHER, "dst": Row(3)})]),
    ("dst overlaps src", [op("transpose", **{**TRANSPOSE, "src": Row(7)})]),
    ("it transposes more rows than a row has lanes", [op("transpose", **{**TRANSPOSE, "src_rows": 9})]),
    (
        "it transposes more rows than a row has lanes",
        [op("transpose", **{**TRANSPOSE, "dst_rows": 9, "src": Row(20)})],
    ),
    ("its targets do not exist", [op("send", src=Row(0), targets=0)]),
    ("its targets do not exist", [op("send", src=Row(0), targets=4)]),
    ("it sends to its own core", [op("send", src=Row(0), targets=1)]),
    ("its source does not exist", [op("receive", dst=Row(0), source=2)]),
    ("its source does not exist", [op("receive", dst=Row(0), source=0)]),
    ("it pops rows that were not sent", [op("receive", dst=Row(0), source=1)]),
    ("a link FIFO runs over", [op("send", src=Row(0), rows=20, targets=2)] * 4),
    ("rows are left in a link FIFO", [op("send", src=Row(0), targets=2)]),
    (
        "leave every link FIFO as it found it",
        [LOOP, op("send", src=Row(0), targets=2), END, op("receive", 1, dst=Row(0), rows=3)],
    ),
    ("its port does not exist", [op("input", dst=Row(0), port=1)]),
    ("its port does not exist", [op("output", src=Row(0), port=1)]),
    ("its rows do not fit", [op("input", dst=Row(0), rows=3)]),
    ("its rows do not fit", [op("output", src=Row(0), rows=2)]),
    ("its rows do not fit", [op("input", dst=Row(0), rows=2, first=1)]),
]


@pytest.mark.parametrize(
    ("fault", "code"), REFUSED, ids=[f"{i} {fault}" for i, (fault, _) in enumerate(REFUSED)]
)
def test_a_broken_rule_is_refused_at_its_instruction(fault: str, code: list[Instr]) -> None:
    with pytest.raises(ProgramError, match=fault) as caught:
        _core.Program.parse(image(*code).to_bytes())
    assert caught.value.remedy
    if "left in a link" not in fault:
        index = int(caught.value.where.split()[1])
        assert caught.value.where == f"instruction {index} ({image(*code).code[index].name})"
        assert 1 <= index <= len(code)


def test_a_stride_needs_a_loop() -> None:
    data = image(LOOP, op("move", dst=Row(0, 1, 1)), END).to_bytes()
    at = find(data, "CODE")[0] + 4 + isa.BY_NAME["input"].size + isa.BY_NAME["loop"].size
    with pytest.raises(ProgramError, match="a stride but no loop"):
        _core.Program.parse(patched(data, at + 2 + 8, b"\0"))


def test_overlaps_that_strides_keep_apart_are_accepted() -> None:
    _core.Program.parse(
        image(
            LOOP, op("matmul", **{**MATMUL, "dst": Row(0, 4, 1), "x": Row(4, 4, 1), "bias": Row(20)}), END
        ).to_bytes()
    )


def test_the_features_of_the_machine_bind() -> None:
    config = replace(Config.tiny_c2b8(), synapse_unit=False, fp32_matmul=False)
    for name, code in {
        "synapse_unit": op("synapse", targets=1, **SYNAPSE),
        "fp32_matmul": op("matmul_fp32", **{**MATMUL, "m_rows": 1}),
    }.items():
        with pytest.raises(ProgramError, match=f"the machine has no {name}"):
            _core.Program.parse(image(code, config=config).to_bytes())


def test_an_output_must_be_written() -> None:
    good = image()
    lacking = replace(good, code=[*good.code[:-1], op("move")])
    with pytest.raises(ProgramError, match="row 0 of output y is never written"):
        _core.Program.parse(lacking.to_bytes())


def test_an_output_row_has_one_core() -> None:
    """Refused for two cores, whatever stands between their rows: those of one core may come again."""
    output = Port("y", (5, 8))

    def written(*runs: tuple[int, int, int]) -> bytes:
        code = [op("output", core, src=Row(0), rows=rows, first=first) for core, first, rows in runs]
        model = Model("m", 0, len(code), (), (output,))
        cores = [CoreImage.empty(8, 16)] * 2
        return Image(replace(Config.tiny_c2b8(), name="two"), code, cores, [model]).to_bytes()

    for good in ([(0, 0, 5)], [(0, 0, 3), (1, 3, 2)], [(0, 0, 4), (0, 2, 2), (1, 4, 1), (0, 0, 1)]):
        _core.Program.parse(written(*good))
    for two_cores in ([(0, 0, 5), (1, 4, 1)], [(1, 1, 1), (0, 0, 5)], [(0, 0, 4), (0, 1, 1), (1, 3, 2)]):
        with pytest.raises(ProgramError, match="of output y is written by two cores"):
            _core.Program.parse(written(*two_cores))


@pytest.mark.parametrize("begin_end", [(2, 1), (0, 3), (1, 1)])
def test_models_must_stand_in_order_inside_the_code(begin_end: tuple[int, int]) -> None:
    good = image()
    data = bytearray(good.to_bytes())
    at, _ = find(data, "MODL")
    struct.pack_into("<2I", data, at + 4 + 2 + 1, *begin_end)
    with pytest.raises(ProgramError):
        _core.Program.parse(signed(data))


# ---- bytes -----------------------------------------------------------------------------------------------------


def find(data: bytes | bytearray, tag: str) -> tuple[int, int]:
    """Offset and size of a section."""
    return next((offset, size) for name, offset, size in section_table(bytes(data)) if name == tag)


def signed(data: bytearray) -> bytes:
    """The bytes with their size and checksum set right."""
    struct.pack_into("<Q", data, 40, len(data))
    struct.pack_into("<I", data, 52, zlib.crc32(memoryview(data)[HEADER:]))
    return bytes(data)


def patched(data: bytes, offset: int, value: bytes) -> bytes:
    out = bytearray(data)
    out[offset : offset + len(value)] = value
    return signed(out)


GOOD = image().to_bytes()


def test_every_truncation_is_refused() -> None:
    for n in range(len(GOOD)):
        with pytest.raises(ProgramError):
            _core.Program.parse(GOOD[:n])
        if n >= HEADER:
            with pytest.raises(ProgramError):
                _core.Program.parse(signed(bytearray(GOOD[:n])))


def test_every_bit_flip_is_refused() -> None:
    for byte in range(len(GOOD)):
        for bit in range(8) if byte < HEADER else (byte % 8,):
            data = bytearray(GOOD)
            data[byte] ^= 1 << bit
            error = IsaMismatchError if 8 <= byte < 40 else ProgramError
            with pytest.raises(error):
                _core.Program.parse(bytes(data))


def test_a_foreign_file_is_refused() -> None:
    for data in (b"", b"LTCP", b"\x7fELF" + bytes(500), b"LTCQ" + GOOD[4:], GOOD + GOOD, bytes(10_000)):
        with pytest.raises(ProgramError) as caught:
            _core.Program.parse(data)
        assert caught.value.where.startswith("byte")


def test_another_version_is_refused() -> None:
    with pytest.raises(ProgramError, match="program format 1, this build reads format 3"):
        _core.Program.parse(patched(GOOD, 4, struct.pack("<I", 1)))


def sections_patched(change: Callable[[list[list[int | bytes]]], None]) -> bytes:
    (n,) = struct.unpack_from("<I", GOOD, 48)
    rows = [list(struct.unpack_from("<4sQQ", GOOD, HEADER + 20 * i)) for i in range(n)]
    change(rows)
    return patched(GOOD, HEADER, b"".join(struct.pack("<4sQQ", *row) for row in rows))


@pytest.mark.parametrize(
    ("fault", "change"),
    [
        ("unknown section", lambda rows: rows[0].__setitem__(0, b"XXXX")),
        ("stands twice", lambda rows: rows[0].__setitem__(0, b"CODE")),
        ("is missing", lambda rows: rows[2].__setitem__(0, b"SHAD")),
        ("outside the file", lambda rows: rows[3].__setitem__(1, 2**64 - 64)),
        ("outside the file", lambda rows: rows[3].__setitem__(2, 2**64 - 64)),
        ("alignment", lambda rows: rows[3].__setitem__(1, rows[3][1] + 1)),
        ("alignment", lambda rows: rows[3].__setitem__(1, 0)),
        ("overlap", lambda rows: rows[3].__setitem__(1, rows[2][1])),
        ("bytes too many", lambda rows: rows[2].__setitem__(2, rows[2][2] + 1)),
        ("the bytes end inside", lambda rows: rows[2].__setitem__(2, rows[2][2] - 1)),
    ],
)
def test_a_bad_section_table_is_refused(fault: str, change: Callable[..., None]) -> None:
    with pytest.raises(ProgramError, match=fault):
        _core.Program.parse(sections_patched(change))


def word(tag: str, index: int, value: int) -> bytes:
    """GOOD with the index-th u32 of a section replaced."""
    return patched(GOOD, find(GOOD, tag)[0] + 4 * index, struct.pack("<I", value))


@pytest.mark.parametrize(
    ("fault", "data"),
    [
        ("cores is 17", word("MACH", 0, 17)),
        ("block_size is no power of two", word("MACH", 1, 24)),
        ("block_size is 256", word("MACH", 1, 256)),
        ("tensor_rows is 4294967295", word("MACH", 3, 2**32 - 1)),
        ("accumulators is 0", word("MACH", 4, 0)),
        ("link_fifo_rows is 4097", word("MACH", 8, 4097)),
        ("issue_queue is 0", word("MACH", 10, 0)),
        ("read_ports is 2", word("MACH", 11, 2)),
        ("latency.issue is 0", word("MACH", len(COUNTS) + 1, 0)),
        ("synapse_unit is 2", word("MACH", len(COUNTS), 0x00020101)),
        ("number of instructions is 4294967295", word("CODE", 0, 2**32 - 1)),
        ("opcode 255 does not exist", patched(GOOD, find(GOOD, "CODE")[0] + 4, b"\xff")),
        ("opcode 0 does not exist", patched(GOOD, find(GOOD, "CODE")[0] + 4, b"\x00")),
        ("its core does not exist", patched(GOOD, find(GOOD, "CODE")[0] + 5, b"\x02")),
        ("its core does not exist", patched(GOOD, find(GOOD, "CODE")[0] + 5, b"\xff")),
        ("number of cores is 3", word("CORE", 0, 3)),
        ("tensor_rows_used is 4097", word("CORE", 1, 4097)),
        ("weight_blocks_used is 4294967295", word("CORE", 2, 2**32 - 1)),
        ("the bytes end inside weight blocks", word("CORE", 2, 4096)),
        ("the bytes end inside synapse", word("CORE", 3, 64)),
        ("number of constant ranges is 41", word("CORE", 5, 41)),
        ("pass the rows in use", word("CORE", 6, 33)),
        ("are empty", word("CORE", 7, 0)),
        ("pass the rows in use", word("CORE", 7, 2**32 - 1)),
        ("subnormals or NaNs", word("CORE", 8, 1)),
        ("subnormals or NaNs", word("CORE", 8, 0x7F800001)),
        ("last is 2", patched(GOOD, find(GOOD, "SYNP")[0] + 18 * B, b"\x02")),
        ("clear is 2", patched(GOOD, find(GOOD, "GATH")[0] + 8, b"\x02")),
        ("lane 8 of a gather entry", patched(GOOD, find(GOOD, "GATH")[0] + 12, b"\x08\x00")),
        ("bytes too many", word("MODL", 0, 0)),
        ("section MODL", word("MODL", 0, 2**32 - 1)),
        ("not UTF-8", patched(GOOD, find(GOOD, "MODL")[0] + 6, b"\xff")),
    ],
)
def test_a_bad_number_is_refused(fault: str, data: bytes) -> None:
    with pytest.raises(ProgramError, match=fault):
        _core.Program.parse(data)


def test_a_program_without_a_model_is_refused() -> None:
    data = bytearray(sections_patched(lambda rows: rows[7].__setitem__(2, 4)))
    struct.pack_into("<I", data, find(data, "MODL")[0], 0)
    with pytest.raises(ProgramError, match="the program has no model"):
        _core.Program.parse(signed(data))


def test_states_must_stand_apart_in_their_rows() -> None:
    good = image()
    model = good.models[0]
    for row, core, fault in (
        (37, 0, "shares row 37"),
        (38, 5, "core 5 does not exist"),
        (39, 1, "not among the rows"),
    ):
        data = bytearray(good.to_bytes())
        offset, size = find(data, "MODL")
        struct.pack_into("<2I", data, offset + size - 12, core, row)
        with pytest.raises(ProgramError, match=fault):
            _core.Program.parse(signed(data))
    assert model.states[1].row == 38
    with_copy = replace(model, states=(model.states[0], replace(model.states[1], copies=((1, 30),))))
    assert _core.Program.parse(replace(good, models=[with_copy]).to_bytes())
    for place, fault in (
        ((0, 36), "shares row 36"),
        ((5, 0), "core 5 does not exist"),
        ((1, 39), "not among the rows"),
    ):
        broken = replace(model.states[1], copies=((1, 30),))
        data = bytearray(replace(good, models=[replace(model, states=(model.states[0], broken))]).to_bytes())
        offset, size = find(data, "MODL")
        struct.pack_into("<2I", data, offset + size - 8, *place)
        with pytest.raises(ProgramError, match=fault):
            _core.Program.parse(signed(data))


def runs_in_no_time(program: Image) -> bool:
    numbers = [v for i in program.code for v in i.operands.values() if isinstance(v, int)]
    return all(-1000 < n < 1000 for n in numbers)


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_no_bytes_can_hurt_the_core(data: st.DataObject) -> None:
    """Random damage with a right checksum: refused, or a program that loads and runs."""
    original = draw(data.draw(st.integers(0, 20)), 20)
    raw = bytearray(original.to_bytes())
    sections = {name: (offset, size) for name, offset, size in section_table(bytes(raw)) if size}
    names = ["CODE", "CORE", "MODL", "MACH", "SYNP", "GATH", "WGHT"]
    for _ in range(data.draw(st.integers(1, 6))):
        offset, size = sections[data.draw(st.sampled_from(names))]
        at = offset + data.draw(st.integers(0, min(size, 4000) - 1))
        raw[at] = data.draw(st.one_of(st.integers(0, 255), st.sampled_from([0, 1, 0x7F, 0x80, 0xFF])))
    damaged = signed(raw)
    try:
        program = _core.Program.parse(damaged)
        read = Image.from_bytes(damaged)
    except ProgramError:
        return
    vm = _core.VM(program, data.draw(st.booleans()))
    if runs_in_no_time(read):
        inputs = [np.ones(p.shape, np.float32) for p in read.models[0].inputs]
        vm.run(0, inputs)
