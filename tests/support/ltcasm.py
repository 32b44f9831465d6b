"""Reads the file tests: a program in text, what goes in, and the numbers that must come out.

A file is directives, one a line, then `code` and the instructions as disassemble prints them, then runs:

    config tiny_c1b8                          a preset
    input x (3) elapsed_time bf16             name, shape, role and precision if not plain and fp32; output, too
    state s (3) core=0 row=4
    rows core=0 32                            rows in use
    constant core=0 row=8: 1 2 3 0x7fc00000   values of a row from lane 0 on, the rest +0; hex is a bit pattern
    block core=0: 1 0 0 ...                   a weight block, row-major from [0][0] on, the rest +0; hex is a word
    slot core=0 last: 2/mu/sigma/w/we -       lane by lane a source with its parameters, or absent
    entry core=0 src=0 dst=1 clear: 1 0 -     lane by lane a source lane, or absent
    run x = 1 2 3                             inputs, separated by commas; what stands below must hold afterwards
    expect y = 2 4 6                          an output
    holds s = 1 2 3                           a state
    reset
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from folders import FILETESTS
from numpy.typing import NDArray

from ltc_compiler import isa, numerics
from ltc_compiler.bytecode import (  # fmt: skip
    CoreImage,
    EntryArrays,
    Image,
    Model,
    Port,
    SlotArrays,
    State,
    assemble,
)
from ltc_compiler.config import Config

F32 = NDArray[np.float32]
FILES = sorted(FILETESTS.glob("*.ltcasm"))


class Machine(Protocol):
    """What a file test runs on: Oracle or VM."""

    def run(self, *inputs: Any) -> F32 | tuple[F32, ...]: ...
    def reset(self) -> None: ...
    @property
    def state(self) -> dict[str, F32]: ...


def number(text: str) -> np.float32:
    """A decimal number, inf, nan, or the hexadecimal bits of an fp32 value."""
    if text.startswith("0x"):
        return np.array([int(text, 16)], np.uint32).view(np.float32)[0]
    return np.float32(text)


@dataclass
class Check:
    """One line below the code: kind is run, expect, holds or reset."""

    line: int
    kind: str
    values: dict[str, F32]


@dataclass
class _Core:
    rows: int = 0
    constants: dict[int, F32] = field(default_factory=dict)
    blocks: list[NDArray[np.uint16]] = field(default_factory=list)
    slots: list[tuple[bool, list[list[str] | None]]] = field(default_factory=list)
    entries: list[tuple[int, int, bool, list[int]]] = field(default_factory=list)


class FileTest:
    """A file test: `image` and the `checks` to run on it in order."""

    def __init__(self, path: Path) -> None:
        self.ports: dict[str, list[Port]] = {"input": [], "output": []}
        self.states: list[State] = []
        self.checks: list[Check] = []
        code: list[str] = []
        in_code = False
        for line, raw in enumerate(path.read_text().splitlines(), start=1):
            text = raw.split(";", 1)[0].strip()
            kind = text.partition(" ")[0]
            if kind in ("run", "expect", "holds", "reset"):
                in_code = False
                self.checks.append(Check(line, kind, self._values(text)))
            elif in_code:
                code.append(text)
            elif kind == "code":
                in_code = True
            elif text:
                self._directive(kind, text)
        instructions = assemble("\n".join(code))
        ports = tuple(self.ports["input"]), tuple(self.ports["output"])
        model = Model(path.stem, 0, len(instructions), *ports, tuple(self.states))
        self.image = Image(self.config, instructions, [self._core(core) for core in self.cores], [model])

    def check(self, machine: Machine) -> None:
        """Run the checks on a machine that holds the image; AssertionError names the line."""
        outputs: dict[str, F32] = {}
        assert self.checks, "the file checks nothing"
        for check in self.checks:
            if check.kind == "reset":
                machine.reset()
            elif check.kind == "run":
                arrays = [check.values[port.name] for port in self.ports["input"]]
                result = machine.run(*arrays)
                results = result if isinstance(result, tuple) else (result,)
                outputs = {p.name: r for p, r in zip(self.ports["output"], results, strict=True)}
            else:
                found = outputs if check.kind == "expect" else machine.state
                for name, value in check.values.items():
                    same = found[name].view(np.uint32) == value.view(np.uint32)
                    assert same.all(), f"line {check.line}: {name} is {found[name]}, expected {value}"

    def _directive(self, kind: str, text: str) -> None:
        head, _, body = text.partition(":")
        words = body.split()
        named = {k: int(v) for k, v in re.findall(r"(\w+)=(-?\d+)", head)}
        if kind == "config":
            self.config = Config.preset(text.split()[1])
            self.cores = [_Core() for _ in range(self.config.cores)]
            return
        if kind in ("input", "output", "state"):
            self._port(kind, text, named)
            return
        core = self.cores[named["core"]]
        if kind == "rows":
            core.rows = int(head.split()[-1])
        elif kind == "constant":
            core.constants[named["row"]] = self._row([number(w) for w in words])
        elif kind == "block":
            core.blocks.append(self._block(words))
        elif kind == "slot":
            lanes = [None if w == "-" else w.split("/") for w in words]
            core.slots.append(("last" in head.split(), lanes))
        elif kind == "entry":
            lane = [isa.ABSENT if w == "-" else int(w) for w in words]
            core.entries.append((named["src"], named["dst"], "clear" in head.split(), lane))
        else:
            raise ValueError(f"no directive {kind!r}")

    def _port(self, kind: str, text: str, named: dict[str, int]) -> None:
        found = re.fullmatch(r"\w+ (\w+) \(([\d, ]*)\)(.*)", text)
        assert found, f"not a {kind}: {text}"
        shape = tuple(int(n) for n in re.findall(r"\d+", found[2]))
        if kind == "state":
            self.states.append(State(found[1], shape, named["core"], named["row"]))
            return
        words = found[3].split()
        role = "elapsed_time" if "elapsed_time" in words else "plain"
        self.ports[kind].append(Port(found[1], shape, role, "bf16" if "bf16" in words else "fp32"))

    def _values(self, text: str) -> dict[str, F32]:
        values: dict[str, F32] = {}
        shapes = {p.name: p.shape for ports in self.ports.values() for p in ports}
        shapes |= {state.name: state.shape for state in self.states}
        for part in text.partition(" ")[2].split(","):
            name, equals, words = part.partition("=")
            if equals:
                name = name.strip()
                flat = np.array([number(w) for w in words.split()], np.float32)
                values[name] = flat.reshape(shapes[name])
        return values

    def _row(self, values: list[np.float32]) -> F32:
        row = np.zeros(self.config.block_size, np.float32)
        row[: len(values)] = values
        return row

    def _block(self, words: list[str]) -> NDArray[np.uint16]:
        width = self.config.block_size
        flat = np.zeros(width * width, np.uint16)
        for i, word in enumerate(words):
            hexadecimal = word.startswith("0x")
            flat[i] = int(word, 16) if hexadecimal else numerics.bf16_bits(np.float32(word))
        return flat.reshape(width, width)

    def _core(self, core: _Core) -> CoreImage:
        width = self.config.block_size
        src = np.full((len(core.slots), width), isa.ABSENT, np.uint16)
        parameters = np.zeros((4, len(core.slots), width), np.float32)
        for i, (_, lanes) in enumerate(core.slots):
            for j, lane in enumerate(lanes):
                if lane is not None:
                    src[i, j] = int(lane[0])
                    parameters[:, i, j] = [number(p) for p in lane[1:]]
        last = np.array([flag for flag, _ in core.slots], np.bool_)
        lane_of = np.full((len(core.entries), width), isa.ABSENT, np.uint16)
        for i, entry in enumerate(core.entries):
            lane_of[i, : len(entry[3])] = entry[3]
        return CoreImage(
            core.rows,
            [(row, values[None]) for row, values in core.constants.items()],
            np.array(core.blocks, np.uint16).reshape(-1, width, width),
            SlotArrays(src, parameters[0], parameters[1], parameters[2], parameters[3], last),
            EntryArrays(
                np.array([e[0] for e in core.entries], np.int32),
                np.array([e[1] for e in core.entries], np.int32),
                np.array([e[2] for e in core.entries], np.bool_),
                lane_of,
            ),
        )


def file_image(stem: str) -> Image:
    """The program of tests/filetests/stem.ltcasm."""
    return FileTest(FILETESTS / f"{stem}.ltcasm").image
