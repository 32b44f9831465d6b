"""The reference machine: the file tests with numbers worked out by hand, its refusals, and plain fp32.

The file tests run on the simulator too (test_program.py), and random programs on both (test_differential.py).
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from ltcasm import FILES, FileTest
from random_programs import draw, op

from ltc_compiler import isa
from ltc_compiler.bytecode import CoreImage, Image, Model, Port, assemble
from ltc_compiler.config import Config
from ltc_compiler.errors import InputError, ProgramError, StateError
from ltc_compiler.oracle import Oracle
from ltc_compiler.oracle.semantics import SEMANTICS


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_file(path: Path) -> None:
    test = FileTest(path)
    test.check(Oracle(test.image))


def test_every_instruction_has_a_meaning() -> None:
    assert set(SEMANTICS) == set(isa.BY_NAME)


def small(*code: str, rows: int = 8, ports: int = 1, config: Config | None = None) -> Image:
    """A program with inputs and outputs of 8 lanes on a machine of two cores."""
    config = config or Config.tiny_c2b8()
    instructions = assemble("\n".join(code))
    x, y = (tuple(Port(f"{name}{i}", (8,)) for i in range(ports)) for name in "xy")
    cores = [CoreImage.empty(8, rows) for _ in range(config.cores)]
    return Image(config, instructions, cores, [Model("small", 0, len(instructions), x, y)])


IN, OUT = "c0 input dst=0 rows=1 port=0 first=0", "c0 output src=0 rows=1 port=0 first=0"


@pytest.mark.parametrize(
    ("line", "fault"),
    [
        ("c0 input dst=8 rows=1 port=0 first=0", "writes row 8 of 8"),
        ("c0 input dst=0 rows=2 port=0 first=0", "moves row 1 of a port that has 1"),
        ("c0 input dst=0 rows=1 port=1 first=0", "names port 1 of 1"),
        ("c0 output src=9 rows=1 port=0 first=0", "reads row 9 of 8"),
        ("c1 receive dst=0 rows=1 source=0", "pops an empty link from core 0"),
        ("c0 synapse num=0 den=1 v=2 v_rows=1 slots=0 targets=1 precision=bf16", "reads synapse slot 0 of 0"),
        ("c0 gather dst=0 dst_rows=1 src=1 src_rows=1 entries=0 count=1", "reads entry 0 of 0"),
        (
            "c0 matmul dst=0 dst_step=0 x=1 x_step=0 taps=1 tap_step=0 bias=2 bias_step=0 weights=0 k=8 m_rows=1 "
            "batch=1 precision=fp32 addend=0 relu=0",
            "reads weight block 0 of 0",
        ),
        ("all end", "ends no loop"),
        ("all loop count=0", "has no iteration"),
    ],
)
def test_bad_programs_are_refused_where_they_go_wrong(line: str, fault: str) -> None:
    with pytest.raises(ProgramError, match=fault) as caught:
        Oracle(small(IN, line, OUT)).run(np.zeros(8, np.float32))
    assert caught.value.where.startswith("instruction 1")


def test_a_link_that_is_not_emptied_is_refused() -> None:
    with pytest.raises(ProgramError, match="a link is not empty"):
        Oracle(small(IN, "c0 send src=0 rows=1 targets=2", OUT)).run(np.zeros(8, np.float32))


def test_a_full_link_is_refused() -> None:
    config = Config.tiny_c2b8()
    code = ["all loop count=1000", "c0 send src=0 rows=1 targets=2", "all end"]
    with pytest.raises(ProgramError, match=f"overflows the link to core 1: {config.link_fifo_rows} rows"):
        Oracle(small(IN, *code, OUT)).run(np.zeros(8, np.float32))


def test_plain_fp32_takes_the_originals_and_does_not_round() -> None:
    third = np.float32(1) / np.float32(3)
    config = Config.tiny_c1b8()
    weights = np.full((1, 8, 8), 0x3EAB, np.uint16)  # bf16 of 1/3
    stores = CoreImage.empty(8, 8)
    core = CoreImage(8, [], weights, stores.slots, stores.entries, np.full((1, 8, 8), third, np.float32))
    code = [
        op("input", dst=0, port=0),
        op("matmul", dst=1, x=0, bias=2, weights=0, k=1, precision=1),
        op("output", src=1, port=0),
    ]
    image = Image(config, code, [core], [Model("m", 0, 3, (Port("x", (1,)),), (Port("y", (1,)),))])
    x = np.array([1.00390625], np.float32)
    assert Oracle(image, bit_accurate=False).run(x) == np.float32(third * x[0])
    assert Oracle(image).run(x) == np.float32(0.333984375)


def test_plain_fp32_needs_the_originals() -> None:
    image = Image.from_bytes(draw(1).to_bytes(shadow=False))
    with pytest.raises(ProgramError, match="fp32 originals") as caught:
        Oracle(image, bit_accurate=False)
    assert "shadow=True" in caught.value.remedy


def test_refused_inputs_leave_the_state() -> None:
    oracle = Oracle(draw(3))
    arrays = [np.ones(port.shape, np.float32) for port in oracle.image.models[0].inputs]
    oracle.run(*arrays)
    before = oracle.state
    with pytest.raises(InputError):
        oracle.run(*(array[:-1] for array in arrays))
    for name, array in oracle.state.items():
        np.testing.assert_array_equal(array.view(np.uint32), before[name].view(np.uint32))


def test_state_is_set_as_a_host_load_and_by_name() -> None:
    path = next(path for path in FILES if path.stem == "state")
    oracle = Oracle(FileTest(path).image)
    oracle.set_state({"total": np.array([1e-40, -5], np.float32)})
    np.testing.assert_array_equal(oracle.state["total"], [0, -5])
    with pytest.raises(StateError, match="no state 'sum'"):
        oracle.set_state({"total": np.zeros(2, np.float32), "sum": np.zeros(2, np.float32)})
    with pytest.raises(StateError, match=r"shape \(3,\), expected \(2,\)"):
        oracle.set_state({"total": np.zeros(3, np.float32)})
    np.testing.assert_array_equal(oracle.state["total"], [0, -5])
