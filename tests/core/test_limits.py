"""What a program or a text may ask for: counts that end, steps of any size, and memory that its size pays for."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
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
)
from ltc_compiler.config import Config
from ltc_compiler.errors import ConfigError, GraphError, LtcError, ProgramError
from ltc_compiler.nnir import NNIR
from ltc_compiler.program import Program

B = 8
COMPUTING = [name for name, row in isa.BY_NAME.items() if any(f.kind == "i32" for f in row.format.fields)]


def program(code: list[Instr], core: CoreImage, states: tuple[State, ...] = ()) -> Program:
    """One core; `code` between an input to row 4 and an output of row 0."""
    whole = [op("input", dst=Row(4)), *code, op("output", src=Row(0))]
    config = replace(Config.ip_core(1, B), name="limits")
    model = Model("m", 0, len(whole), (Port("x", (B,)),), (Port("y", (B,)),), states)
    return Program(Image(config, whole, [core], [model]))


def core() -> CoreImage:
    """40 rows; one of everything in its other stores."""
    ones = np.ones((1, B), np.float32)
    slots = SlotArrays(np.zeros((1, B), np.uint16), ones, ones, ones, ones, np.ones(1, bool))
    entries = EntryArrays(
        np.zeros(1, np.int32), np.zeros(1, np.int32), np.zeros(1, bool), np.zeros((1, B), np.uint16)
    )
    return CoreImage(40, [], np.full((4, B, B), 0x3F80, np.uint16), slots, entries)


@pytest.mark.parametrize("name", COMPUTING)
@pytest.mark.parametrize("step", [-(2**31), 2**31 - 1])
def test_a_step_that_is_never_taken_may_be_any(name: str, step: int) -> None:
    """With every count 1: the machines agree, and nothing overflows (make sanitize looks for that)."""
    rows = iter(range(0, 40, 4))
    given: dict[str, Any] = {}
    for f in isa.BY_NAME[name].format.fields:
        if f.kind == "row":
            given[f.name] = Row(next(rows))
        elif f.kind == "i32":
            given[f.name] = step
    states = (State("s", (B,), 0, 0),) if name == "state_write" else ()
    made = program([op(name, **given)], core(), states)
    x = np.arange(B, dtype=np.float32)
    assert made.to_vm().run(x).tobytes() == made.to_oracle().run(x).tobytes()


def test_the_largest_count_of_one_row_ends() -> None:
    """65,536 times the same row: the sum of so many ones is exact."""
    made = program([op("column_sum", dst=Row(0), src=Row(4), k_step=0, k=65536)], core())
    assert (made.to_vm().run(np.ones(B, np.float32)) == 65536).all()
    with pytest.raises(ProgramError, match="a count is above 65536"):
        program([op("column_sum", dst=Row(0), src=Row(4), k_step=0, k=65537)], core())


def test_a_state_starts_where_its_constants_stand() -> None:
    """Its rows are zeros but where constants lie among them; a copy has the same, whatever constants lie there."""
    rng = np.random.default_rng(0)
    constants = [(8, rng.random((2, B), np.float32)), (11, rng.random((3, B), np.float32)),
                 (20, rng.random((6, B), np.float32))]  # fmt: skip
    states = (State("s", (4, B), 0, 9, ((0, 20),)),)
    expected = np.zeros((4, B), np.float32)
    expected[0], expected[2:] = constants[0][1][1], constants[1][1][:2]
    for row in range(4):
        made = program([op("add", dst=Row(0), a=Row(9 + row), b=Row(20 + row))],
                       replace(core(), constants=constants), states)  # fmt: skip
        check_restarts(made, expected, 2 * expected[row])


def check_restarts(made: Program, state: NDArray[np.float32], output: NDArray[np.float32]) -> None:
    """A program that adds a row of its state to that of the copy, from the first run on and after a reset."""
    for machine in (made.to_vm(), made.to_oracle()):
        for _ in range(2):
            assert machine.state["s"].tobytes() == state.tobytes()
            assert (machine.run(np.ones(B, np.float32)) == output).all()
            machine.set_state({"s": np.ones((4, B), np.float32)})
            assert (machine.run(np.ones(B, np.float32)) == 2).all()
            machine.reset()


# What a small file makes of memory is measured in a process of its own.
MEASURE = """
import json, resource, sys
from dataclasses import replace
from ltc_compiler import Config
from ltc_compiler.bytecode import CoreImage, Image, Model, Port, State
from ltc_compiler.errors import LtcError
from ltc_compiler.program import Program
large = replace(Config.ip_core(16, 128), name="large", tensor_rows=65536)
states = tuple(State(f"s{c}", (65536, 128), c, 0) for c in range(16))
image = {
    "outputs": lambda: Image(Config.tiny_c1b8(), [], [CoreImage.empty(8, 1)],
                             [Model("m", 0, 0, (), tuple(Port(f"{i}", (1 << 30, 1)) for i in range(8)))]),
    "rows": lambda: Image(large, [], [CoreImage.empty(128, 65536)] * 16, [Model("m", 0, 0, (), ())]),
    "states": lambda: Image(large, [], [CoreImage.empty(128, 65536)] * 16, [Model("m", 0, 0, (), (), states)]),
}[sys.argv[1]]()
data = image.to_bytes()
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
before = peak()
try:
    program = Program.load_bytes(data)
    machines = program.to_vm(), program.to_oracle()
    result = "made"
except LtcError as error:
    result = error.what
print(json.dumps([len(data), result, (peak() - before) >> 10]))
"""


@pytest.mark.skipif("LTC_CORE" in os.environ, reason="a sanitized core takes memory of its own")
@pytest.mark.parametrize(
    ("kind", "result"), [("outputs", "is never written"), ("rows", "made"), ("states", "made")]
)
def test_a_small_file_takes_little_memory(kind: str, result: str) -> None:
    done = subprocess.run([sys.executable, "-c", MEASURE, kind], capture_output=True, text=True, check=True)
    size, found, mebibytes = json.loads(done.stdout)
    assert size < 4096
    assert result in found
    assert mebibytes < 32


# ---- texts ---------------------------------------------------------------------------------------------------

GRAPH = 'graph "g" (%x: f32[2,7]) {\n  %y = tanh(%x) : f32[2,7] loc("m", "m.py", 1, "x")\n  return %y\n}\n'
TOML = Config.tiny_c1b8().to_bytes()
SCAN = "%y = scan(%x) {} : f32[] "
NESTED = 'graph "g" (%x: f32[]) {\n' + SCAN + f'body "b" (%x: f32[]) {{\n{SCAN}' * 1000


def toml(cores: str) -> bytes:
    return TOML.replace(b"cores = 1", b"cores = " + cores.encode())


TEXTS: dict[str, tuple[type[LtcError], Any]] = {
    "an axis of 2^63": (GraphError, lambda: NNIR.parse(GRAPH.replace("[2,7]", f"[2,{2**63}]"))),
    "a product of 2^64": (GraphError, lambda: NNIR.parse(GRAPH.replace("[2,7]", f"[{2**32},{2**32}]"))),
    "forty axes": (GraphError, lambda: NNIR.parse(GRAPH.replace("[2,7]", "[" + "1," * 40 + "1]"))),
    "5000 digits": (GraphError, lambda: NNIR.parse(GRAPH.replace('m.py", 1', 'm.py", ' + "9" * 5000))),
    "a control character": (GraphError, lambda: NNIR.parse(GRAPH.replace("m.py", "m.\0"))),
    "an escape that is none": (GraphError, lambda: NNIR.parse(GRAPH.replace("m.py", "m\\x"))),
    "1000 bodies": (GraphError, lambda: NNIR.parse(NESTED)),
    "TOML of 5000 digits": (ConfigError, lambda: Config.from_bytes(toml("9" * 5000))),
    "TOML of 5000 hex digits": (ConfigError, lambda: Config.from_bytes(toml("0x" + "f" * 5000))),
    "TOML of 3000 brackets": (ConfigError, lambda: Config.from_bytes(toml("[" * 3000))),
    "assembly of 5000 digits": (ProgramError, lambda: assemble("c0 end x=" + "9" * 5000)),
    "a core of 5000 digits": (ProgramError, lambda: assemble("c" + "9" * 5000 + " end")),
    "an index of 5000 digits": (ProgramError, lambda: assemble("9" * 5000 + " all end")),
}  # fmt: skip


@pytest.mark.parametrize("name", TEXTS)
def test_a_text_is_refused_by_the_family(name: str) -> None:
    kind, read = TEXTS[name]
    with pytest.raises(kind) as caught:
        read()
    assert caught.value.where
    assert caught.value.remedy
    assert len(str(caught.value)) < 2000


def test_a_short_text_of_a_large_constant_takes_no_memory_for_it() -> None:
    text = 'graph "g" (%x: f32[]) {\n  %c = constant() {value=splat(0.5)} : f32[1073741824]\n  return %c\n}\n'
    value = NNIR.parse(text).graph.outputs[0].constant()
    assert value is not None
    assert value.strides == (0,)
    assert value[-1] == 0.5


def test_half_a_surrogate_pair_is_no_name_of_a_file() -> None:
    made = program([op("move", dst=Row(0), a=Row(4))], core()).image
    model = replace(made.models[0], name="\ud800")
    with pytest.raises(ProgramError, match="a character that UTF-8 has not"):
        replace(made, models=[model]).to_bytes()
    told = replace(made, meta={"instructions": {"0": "y = '\ud800'"}})
    assert Image.from_bytes(told.to_bytes()).meta == {"instructions": {"0": "y = '?'"}}
