"""The text form of a schedule, against what was made apart from it: the clock's trace, and the rows of the code."""

from __future__ import annotations

import re
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import pytest

from ltc_compiler import Config
from ltc_compiler.clock import Clock, Record
from ltc_compiler.errors import AllocationError, ConfigError
from ltc_compiler.ir.graph import Graph, Type
from ltc_compiler.ir.ops import add, add_many
from ltc_compiler.nnir import NNIR
from ltc_compiler.program import Program

CONFIGS = {
    "one core": Config.tiny_c1b8(),
    "two cores": Config.tiny_c2b8(),
    "blocks of 16": Config.small_c2b16(),
}


def network(*widths: int) -> NNIR:
    """Products with a tanh behind each."""
    rng = np.random.default_rng(5)
    graph = Graph("network")
    value = graph.add_input(Type((1, widths[0])), "x")
    for n, m in pairwise(widths):
        weight, bias = rng.standard_normal((m, n)) / np.sqrt(n), rng.standard_normal(m)
        value = add(graph, "tanh", add(graph, "linear", value, graph.constant(weight), graph.constant(bias)))
    graph.add_output(value)
    return NNIR(graph)


class Line(NamedTuple):
    start: int
    core: int
    instruction: str
    writes: set[int]
    reads: set[int]
    waits: set[int]


LINE = re.compile(
    r" *(?P<index>\d+) +(?P<start>\d+) c(?P<core>\d+) +\w+ +(?P<name>\w+) +\w+ {1,10}(?P<writes>(\d+:\d+ ?)*) +"
    r"(?P<waits>(\d+\b(?!:) ?)*) +(?P<reads>(\d+:\d+ ?)*)( *;.*)?"
)


def rows(text: str) -> set[int]:
    ranges = (part.split(":") for part in text.split())
    return {row for first, end in ranges for row in range(int(first), int(end))}


def parse(text: str) -> list[Line]:
    """The lines of a schedule without loops, in order of their indices."""
    found: list[Line] = []
    for line in text.splitlines():
        if not line.startswith(";"):
            match = LINE.fullmatch(line)
            assert match is not None, line
            assert int(match["index"]) == len(found)
            waits = {int(index) for index in match["waits"].split()}
            numbers = int(match["start"]), int(match["core"])
            found.append(Line(*numbers, match["name"], rows(match["writes"]), rows(match["reads"]), waits))
    return found


def scheduled(nnir: NNIR, config: Config, optimize: bool) -> tuple[list[Line], list[Record], Program]:
    program = nnir.to_program(config, optimize=optimize)
    lines = parse(nnir.schedule_text(config, optimize=optimize))
    trace = Clock.of(program.image).trace(0, 0, 1000)
    assert len(lines) == len(trace) == len(program.image.code)
    return lines, trace, program


@pytest.mark.parametrize("optimize", [True, False])
@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_planned_starts_are_those_of_the_clock(config: Config, optimize: bool) -> None:
    """To the cycle on one core. With links the plan is careful: no instruction starts later than planned."""
    lines, trace, program = scheduled(network(24, 64, 40, 8), config, optimize)
    starts = [(line.start, record.start) for line, record in zip(lines, trace, strict=True)]
    if any(line.instruction == "send" for line in lines):
        assert all(planned >= start for planned, start in starts)
        assert starts[-1][0] <= 1.1 * starts[-1][1]
    else:
        assert all(planned == start for planned, start in starts)
    assert [line.core for line in lines] == [record.core for record in trace]
    assert [line.instruction for line in lines] == [instr.name for instr in program.image.code]
    assert len({line.core for line in lines}) == (
        config.cores if config.block_size == 8 or not optimize else 1
    )


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_rows_and_waits_are_those_of_the_code(config: Config) -> None:
    """An instruction waits for every one whose rows or link it reads, as executing the code's rows finds them."""
    nnir = network(24, 64, 40, 8)
    lines, _, program = scheduled(nnir, config, optimize=True)
    report = program.report(spaced=False)
    for number, (line, event) in enumerate(zip(lines, report.events, strict=True)):
        assert line.writes == set(report.code.rows(event.index, (), write=True))
        assert line.reads == set(report.code.rows(event.index, (), write=False))
        assert set(report.delivered[number]) <= line.waits
        assert all(waited < number for waited in line.waits)


def test_a_loop_stands_around_its_body() -> None:
    graph, body = Graph("counted"), Graph("body")
    x, carry = graph.add_input(Type((4,)), "x"), body.add_input(Type((4,)), "c")
    body.add_output(add(body, "tanh", carry))
    attrs = {"body": body, "carries": 1, "scanned": 0, "trip_count": 99, "in_axes": (), "out_axes": ()}
    graph.add_output(add_many(graph, "scan", [x], attrs)[0])
    lines = NNIR(graph).schedule_text(CONFIGS["one core"]).splitlines()
    assert lines[:3] == [
        "; tiny_c1b8: 1 of 1 cores",
        "; model 'counted'",
        ";index  start core unit       instruction    op         writes         waits for    reads",
    ]
    assert [" ".join(line.split(";")[0].split()) for line in lines[3:]] == [
        "0 0 c0 io_in input input 0:1",
        "1 7 c0 move move scan 1:2 0 0:1",  # an input takes 7 cycles
        "2 all control loop 99 times",
        "3 0 c0 activation tanh tanh 1:2 1:2",
        "4 all control end",
        "5 0 c0 io_out output output 1:2",
    ]
    assert lines[3].endswith("; input x")
    assert lines[-1].endswith("; output y0")


def test_what_does_not_fit_is_refused_as_it_is_by_to_program() -> None:
    with pytest.raises(AllocationError, match="weight blocks of core 0"):
        network(512, 512, 512).schedule_text(Config.tiny_c1b8())
    sequence = Graph("sequence")
    x = sequence.add_input(Type((40_000, 8)), "x")
    sequence.add_output(add(sequence, "tanh", x))
    with pytest.raises(AllocationError, match=r"streaming_transform\(0\)"):  # what fits instead
        NNIR(sequence).schedule_text(Config.tiny_c1b8())
    with pytest.raises(ConfigError, match="not a Config"):
        network(8, 8).schedule_text("tiny")  # type: ignore[arg-type]
