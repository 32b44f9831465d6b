"""Instructions and programs as data, instructions as bytes and text, and how each refuses nonsense."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from random_programs import op

from ltc_compiler import isa
from ltc_compiler.bytecode import (
    CoreImage,
    EntryArrays,
    Image,
    Instr,
    Model,
    Port,
    Row,
    SlotArrays,
    State,
    assemble,
    disassemble,
    shape_rows,
)  # fmt: skip
from ltc_compiler.bytecode.instr import decode, encode, operand_range
from ltc_compiler.bytecode.ports import from_rows, to_rows
from ltc_compiler.config import Config
from ltc_compiler.errors import ProgramError

LEVELS = st.integers(1, isa.MAX_LOOP_DEPTH)
BASES = st.integers(0, 2**32 - 1)
ROWS = st.one_of(st.builds(Row, BASES), st.builds(Row, BASES, st.integers(-(2**31), 2**31 - 1), LEVELS))


@st.composite
def instructions(draw_from: st.DrawFn) -> Instr:
    row = draw_from(st.sampled_from(isa.INSTRUCTIONS))
    operands: dict[str, int | Row] = {}
    for f in row.format.fields:
        number = st.integers(*operand_range(f.kind)) if f.kind != "row" else st.nothing()
        operands[f.name] = draw_from(ROWS) if f.kind == "row" else draw_from(number)
    core = isa.ALL_CORES if row.unit == "control" else draw_from(st.integers(0, 15))
    return Instr(row.name, core, operands)


# --- instructions -------------------------------------------------------------------------------------


@given(st.lists(instructions(), max_size=20))
def test_code_survives_bytes_and_text(code: list[Instr]) -> None:
    data = encode(code)
    assert len(data) == sum(instr.row_of_table.size for instr in code)
    assert decode(data, len(code)) == code
    assert assemble(disassemble(code)) == code


@pytest.mark.parametrize("row", isa.INSTRUCTIONS, ids=lambda row: row.name)
def test_every_instruction_has_bytes_and_text(row: isa.Instruction) -> None:
    instr = op(row.name)
    assert encode([instr])[0] == row.opcode
    assert decode(encode([instr]), 1) == [instr]
    assert assemble(disassemble([instr])) == [instr]


def test_bytes_are_little_endian_without_padding() -> None:
    instr = Instr("receive", 3, {"dst": Row(0x01020304, -2, 1), "rows": 5, "source": 7})
    opcode = isa.BY_NAME["receive"].opcode
    assert encode([instr]) == bytes([opcode, 3, 4, 3, 2, 1, 0xFE, 0xFF, 0xFF, 0xFF, 1, 5, 0, 0, 0, 7])


def test_text_shows_loops_rows_and_comments() -> None:
    code = [
        op("loop", count=6),
        op("row_sum", 1, dst=Row(40, -2, 1), src=12, k=9, precision=1),
        op("end"),
    ]
    assert disassemble(code, {1: "norm, net.py:7"}) == (
        "     0  all  loop         count=6\n"
        "     1  c1     row_sum      dst=40-2@1 dst_step=0 src=12 src_step=0 groups=1 k=9 precision=bf16"
        "  ; norm, net.py:7\n"
        "     2  all  end\n"
    )


@pytest.mark.parametrize(
    ("name", "core", "operands", "fault"),
    [
        ("frobnicate", 0, {}, "no instruction is called 'frobnicate'"),
        ("send", 0, {"src": 0, "rows": 1}, "missing or unknown operands targets"),
        ("send", 0, {"src": 0, "rows": 1, "targets": 2, "x": 0}, "missing or unknown operands x"),
        ("send", 0, {"src": 0, "rows": 1, "targets": 65536}, "targets of send is 65536, not from 0 to 65535"),
        ("send", 0, {"src": -1, "rows": 1, "targets": 2}, "row base is -1"),
        ("send", 0, {"src": 0, "rows": 1.5, "targets": 2}, "rows of send is 1.5, not an integer"),
        ("send", 16, {"src": 0, "rows": 1, "targets": 2}, "core is 16, not from 0 to 15"),
        ("loop", 0, {"count": 1}, "core is 0, not 255, all cores"),
        ("end", 0, {}, "core is 0"),
    ],
)
def test_the_table_refuses(name: str, core: int, operands: dict[str, Any], fault: str) -> None:
    with pytest.raises(ProgramError, match=fault):
        Instr(name, core, operands)


def test_a_precision_is_one_of_the_table() -> None:
    with pytest.raises(ProgramError, match="precision of row_sum is 2, not from 0 to 1"):
        op("row_sum", precision=2)


@pytest.mark.parametrize(
    ("arguments", "fault"),
    [
        ((0, 1, 0), "stride 1 outside every loop"),
        ((0, 0, isa.MAX_LOOP_DEPTH + 1), "row level is 5, not from 0 to 4"),
        ((2**32, 0, 0), "row base"),
        ((0, 2**31, 1), "row stride"),
    ],
)
def test_a_row_refuses(arguments: tuple[int, int, int], fault: str) -> None:
    with pytest.raises(ProgramError, match=fault):
        Row(*arguments)


def test_a_row_counts_with_the_loop_of_its_level() -> None:
    assert Row(10, -3, 2).at([7, 2]) == 4
    assert Row(10).at([]) == 10


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("all end\n  c0 input dst=x rows=1 port=0", r"dst=x: 'x' is not base or base\+stride@level"),
        ("all end\n c0 input dst=0 rows=1.5 port=0", "rows=1.5: '1.5' is not an integer"),
        ("all end\n c0 input dst=0 dst=1 rows=1 port=0", "dst is given twice"),
        ("all end\n c0 input dst=0 rows=1", "missing or unknown operands .*port"),
        ("all end\n c0 input dst=0 rows 1", "'rows' is not of the form field=value"),
        ("all end\n input dst=0 rows=1 port=0", "a core .* must stand first"),
        ("all end\n c99 input dst=0 rows=1 port=0", "core is 99"),
        ("all end\n 7 c0 input dst=0 rows=1 port=0", "this is instruction 1, and the line says 7"),
        ("all end\n c0 inptu dst=0", "no instruction is called 'inptu'"),
        ("all end\n c0 exp precision=f8", "precision=f8: 'f8' is not fp32 or bf16"),
    ],
)
def test_the_assembler_names_the_line(text: str, fault: str) -> None:
    with pytest.raises(ProgramError, match=fault) as caught:
        assemble(text)
    assert caught.value.where.startswith("line 2: ")
    assert caught.value.remedy


def test_the_assembler_skips_comments_and_indices() -> None:
    assert assemble("; nothing\n\n  0 all loop count=2 ; iterations\n all end") == [
        op("loop", count=2),
        op("end"),
    ]


@pytest.mark.parametrize("cut", [1, 3, 9])
def test_code_that_ends_early_is_refused(cut: int) -> None:
    data = encode([op("end"), op("output")])
    with pytest.raises(ProgramError, match="ends") as caught:
        decode(data[:-cut], 2)
    assert caught.value.where == "instruction 1, byte 2 of the code"


def test_foreign_code_is_refused() -> None:
    with pytest.raises(ProgramError, match="no instruction has opcode 0"):
        decode(bytes(8), 1)
    with pytest.raises(ProgramError, match="2 bytes follow the last of 1 instructions"):
        decode(encode([op("end"), op("end")]), 1)


# --- programs as data -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("shape", "rows"), [((), 1), ((8,), 1), ((9,), 2), ((3, 9), 6), ((2, 3, 1), 6), ((1, 16), 2)]
)
def test_vectors_start_on_rows_of_their_own(shape: tuple[int, ...], rows: int) -> None:
    assert shape_rows(shape, 8) == rows
    array = np.arange(1, 1 + np.prod(shape, dtype=int), dtype=np.float32).reshape(shape)
    stored = to_rows(array, 8)
    assert stored.shape == (rows, 8)
    assert np.count_nonzero(stored) == array.size
    np.testing.assert_array_equal(from_rows(stored, shape), array)


@pytest.mark.parametrize(
    ("build", "fault"),
    [
        (lambda: CoreImage(4, [(3, zeros(2, 8))], *stores()), "pass the last row, 3"),
        (lambda: CoreImage(9, [(0, zeros(2, 8)), (1, zeros(1, 8))], *stores()), "overlap others"),
        (lambda: CoreImage(9, [(0, zeros(2, 4))], *stores()), r"shape \(2, 4\), not \(rows, 8\)"),
        (lambda: CoreImage(9, [(0, nan(1))], *stores()), "subnormals or NaNs"),
        (lambda: CoreImage(9, [(0, nan(0x7F800001))], *stores()), "subnormals or NaNs"),
        (lambda: CoreImage(9, [], np.zeros((1, 8, 4), np.uint16), *stores()[1:]), "weights has shape"),
        (lambda: CoreImage(9, [], stores()[0], SlotArrays.empty(4), stores()[2]), "differ in block size"),
        (lambda: CoreImage(9, [], np.full((1, 8, 8), 65536), *stores()[1:]), "weights holds values that uint16 cannot"),
        (lambda: Port("x", (0,)), "shape of 'x' is"),
        (lambda: Port("x", (1,) * 9), "up to 8 dimensions"),
        (lambda: Port("x", (1,), "time"), "role of port 'x' is 'time', not one of plain, elapsed_time"),
        (lambda: Port("x", (1,), precision="fp8"), "not one of fp32, bf16"),
        (lambda: Model("m", 3, 2, (), ()), "instructions 3 to 2"),
        (lambda: image(models=[Model("m", 0, 3, (), ())]), "ends at instruction 3 of 2"),
        (lambda: image(models=[Model("m", 0, 2, (), (), (State("s", (9,), 0, 3),))]), "which has 4 rows"),
        (lambda: image(models=[Model("m", 0, 2, (), (), (State("s", (9,), 5, 0),))]), "core 5"),
        (lambda: image(cores=[]), "0 core images for a machine of 1 cores"),
        (lambda: image(cores=[CoreImage.empty(16)]), "core 0 has block size 16, the machine 8"),
        (lambda: image(cores=[CoreImage.empty(8, 65535)]), "core 0 uses 65535 tensor_rows, the machine has"),
        (lambda: image(code=[op("end"), op("exp", 1)]), "instruction 1 is for core 1 of 1"),
    ],
)  # fmt: skip
def test_data_checks_itself(build: Any, fault: str) -> None:
    with pytest.raises(ProgramError, match=fault):
        build()


def zeros(*shape: int) -> Any:
    return np.zeros(shape, np.float32)


def nan(bits: int) -> Any:
    return np.full((1, 8), bits, np.uint32).view(np.float32)


def stores() -> tuple[Any, SlotArrays, EntryArrays]:
    return np.zeros((0, 8, 8), np.uint16), SlotArrays.empty(8), EntryArrays.empty(8)


def image(**changes: Any) -> Image:
    """The smallest program: a loop of nothing."""
    parts: dict[str, Any] = {
        "config": Config.tiny_c1b8(),
        "code": [op("loop"), op("end")],
        "cores": [CoreImage.empty(8, 4)],
        "models": [Model("m", 0, 2, (), ())],
    }
    return Image(**parts | changes)
