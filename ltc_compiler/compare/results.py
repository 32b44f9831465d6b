"""The rows of a comparison: one for every input, state and value that an operation computes, in the order of execution.

COLUMNS declares what a row holds; text, CSV, data frame and HTML are loops over it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ltc_compiler.compare.measure import measure, relative
from ltc_compiler.compare.probe import DERIVED, Probed, evaluated
from ltc_compiler.ir.graph import Array, Graph, Node, Precision, Source, Value
from ltc_compiler.ir.ops import LAYOUT
from ltc_compiler.transforms.precisions import WEIGHTS

Row = dict[str, Any]

COLUMNS = {
    "op": "operation of the graph; input or state for what is read",
    "value": "name of the value; empty where it has none",
    "module": "path of the module in the model",
    "file": "of the user's source",
    "line": "in that file; 0 where it is not known",
    "text": "of that line",
    "precision": "fp32, bf16 or fp8_e4m3: of the weights that it reads, or of the result",
    "iterations": "of the scans around it; 1 outside",
    "elements": "that are compared, over all steps and iterations",
    "max_error": "largest error of the bit-accurate machine against fp64",
    "rms_error": "root mean square of these errors",
    "relative": "rms_error over the root mean square of the exact values",
    "own": "as relative, but against the operation done in fp64 on the operands that the machine had",
    "growth": "relative over the largest relative error of the operands, taken as 2^-24 at the least",
    "loses": "whether precision is lost: growth, or own over 2^-24, is at least the factor asked for",
    "fp32_max_error": "largest error of plain fp32 against fp64",
    "fp32_rms_error": "root mean square of these errors",
    "torch_max_error": "largest error of PyTorch's own value against fp64; None where no call computes the value",
    "torch_rms_error": "root mean square of these errors",
    "bf16_ulps": "how many errors fall into each bin of ULP_BINS, and above, in bf16 ulps",
    "fp32_ulps": "the same in fp32 ulps",
    "saturated": "infinities of the machine where the exact value is finite",
    "flushed": "zeros of the machine where the exact value is not zero and below 2^-126",
    "nans": "NaNs of the machine where the exact value is a number",
    "reaches_outputs": "relative error of the outputs that own alone would cause; None for what computes in FP32",
    "what_if_max_error": "largest error of the outputs if this operation alone goes to FP32; None if not tried",
    "what_if_relative": "relative error of the outputs then",
    "what_if_cycles": "cycles that an inference takes more then",
    "what_if_refused": "why the operation cannot go to FP32; empty if it can, or was not tried",
}
FLOOR = 2.0**-24  # an exact value is known to half an fp32 ulp


@dataclass(frozen=True)
class Computed:
    """Every value of the graph as three machines computed it, (steps * iterations, *shape) fp64 each."""

    exact: Mapping[Value, Array]
    fp32: Mapping[Value, Array]
    machine: Mapping[Value, Array]


@dataclass(frozen=True)
class Subject:
    """A value with the node that makes it (None for inputs and states), and the iterations that it is made in."""

    op: str
    value: Value
    node: Node | None
    iterations: int


def subjects(graph: Graph, probed: Probed) -> list[Subject]:
    """What the rows are about, in the order of execution; the body of a scan stands before the scan."""
    read = [Subject("input", v, None, 1) for v in graph.inputs]
    read += [Subject("state", s.value, None, 1) for s in graph.states]
    return read + list(_computed(graph, probed, 1))


def _computed(graph: Graph, probed: Probed, iterations: int) -> Iterator[Subject]:
    for node in graph.nodes:
        if node in probed.inside:
            yield from _computed(node.body, probed, iterations * node.attrs["trip_count"])
        if node.op not in DERIVED:
            yield from (Subject(node.op, value, node, iterations) for value in node.results)


def precision(node: Node) -> Precision:
    """The format that decides how precisely an operation computes."""
    decisive = node.operands[WEIGHTS[node.op][0]] if node.op in WEIGHTS else node.results[0]
    return decisive.type.precision


def can_widen(node: Node | None) -> bool:
    """Whether FP32 would change the operation."""
    return node is not None and node.op not in LAYOUT | {"scan"} and precision(node) is not Precision.FP32


def locally_exact(found: Iterable[Subject], machine: Mapping[Value, Array]) -> dict[Value, Array]:
    """What each operation gives in fp64 for the operands that the machine had."""
    local: dict[Value, Array] = {}
    for subject in found:
        if subject.node is not None and subject.value not in local:
            results = evaluated(subject.node, machine, len(machine[subject.value]))
            local.update(zip(subject.node.results, results, strict=True))
    return local


def table(
    found: Sequence[Subject],
    probed: Probed,
    values: Computed,
    local: Mapping[Value, Array],
    theirs: Mapping[Value, Array],
    factor: float,
) -> list[Row]:
    """A row per subject, its last columns still None: those that comparison.py finds by more runs."""
    errors = {v: relative(array, values.exact[v]) for v, array in values.machine.items()}
    rows = [_row(p, values, local.get(p.value, values.exact[p.value]), errors, factor, probed) for p in found]
    for row, subject in zip(rows, found, strict=True):
        if subject.value in theirs:
            figures = measure(theirs[subject.value], values.exact[subject.value])
            row["torch_max_error"], row["torch_rms_error"] = figures.max, figures.rms
    return rows


def _row(
    subject: Subject,
    values: Computed,
    local: Array,
    errors: dict[Value, float],
    factor: float,
    probed: Probed,
) -> Row:
    value, node = subject.value, subject.node
    machine, exact = values.machine[value], values.exact[value]
    figures, plain = measure(machine, exact), measure(values.fp32[value], exact)
    growth = _growth(figures.relative, [errors[v] for v in node.operands] if node is not None else [])
    added = relative(machine, local)
    if subject.op == "state":
        growth, added = 1.0, 0.0  # whoever computed it has lost what it lost
    source = node.source if node is not None else Source()
    kind = precision(node) if node is not None else value.type.precision
    return dict.fromkeys(COLUMNS) | {
        "op": subject.op,
        "value": value.name,
        "module": source.module,
        "file": source.file,
        "line": source.line,
        "text": source.text,
        "precision": kind.name.lower(),
        "iterations": subject.iterations,
        "elements": machine.size,
        "max_error": figures.max,
        "rms_error": figures.rms,
        "relative": figures.relative,
        "own": added,
        "growth": growth,
        "loses": max(growth, added / FLOOR) >= factor and node not in probed.inside,
        "fp32_max_error": plain.max,
        "fp32_rms_error": plain.rms,
        "bf16_ulps": figures.bf16_ulps,
        "fp32_ulps": figures.fp32_ulps,
        "saturated": figures.saturated,
        "flushed": figures.flushed,
        "nans": figures.nans,
        "what_if_refused": "",
    }


def _growth(error: float, before: list[float]) -> float:
    """How much larger the error is than that of the operands; 1 where both are infinite."""
    most = max([FLOOR, *before])
    return 1.0 if np.isinf(most) else error / most
