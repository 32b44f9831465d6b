"""Small programs for the tests of reports: by hand, and compiled with sources as the front end leaves them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from programs_for_timing import image, machine, op

from ltc_compiler.bytecode import Instr
from ltc_compiler.config import Config
from ltc_compiler.ir.graph import Graph, Source, Type
from ltc_compiler.ir.ops import add
from ltc_compiler.nnir import NNIR
from ltc_compiler.program import Program
from ltc_compiler.report import Report

ONE, TWO = machine(), machine(cores=2)
CHAIN = [
    op("input", dst=100),
    op("div", dst=101, a=100, b=0),
    op("loop", count=3),
    op("add", dst=101, a=101, b=1),
    op("end"),
    op("output", src=101),
]


def program(code: list[Instr], config: Config = ONE, **stores: Any) -> Program:
    return Program(image(config, code, **stores))


def chain(config: Config = ONE) -> Program:
    return program(CHAIN, config, inputs=[1], outputs=[1])


def spent(report: Report) -> dict[str, int]:
    """Critical cycles by the name of the instruction."""
    return {row["instruction"]: row["critical"] for row in report.instructions}


def compiled(text: str = "return self.a(x)  # <b>&</b></script>") -> Program:
    """tanh(W x + c) of 20 elements, as the front end leaves it: with module paths, files and lines."""
    graph = Graph("net")
    x = graph.add_input(Type((1, 20)), "x")
    here = Source("net.a", "/home/someone/model.py", 7, text)
    weight, bias = graph.constant(np.ones((20, 20))), graph.constant(np.ones(20))
    hidden = add(graph, "linear", x, weight, bias, source=here)
    graph.add_output(add(graph, "tanh", hidden, source=replace(here, line=8, text="torch.tanh(y)")), "y")
    return NNIR(graph).to_program(Config.tiny_c2b8())
