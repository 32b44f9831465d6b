"""`compare` and its result: what every operation does to the precision of a model, from first to last."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ltc_compiler.compare.inputs import expectations, sequences
from ltc_compiler.compare.measure import ULP_BINS, errors, relative
from ltc_compiler.compare.observed import Observed, match
from ltc_compiler.compare.probe import probe, read_values
from ltc_compiler.compare.results import Computed, Row, can_widen, locally_exact, subjects, table
from ltc_compiler.compare.runs import (
    run_disturbed,
    run_exact,
    run_machine,
    schedule,
    schedule_probes,
    widened,
)
from ltc_compiler.compare.show import plot, table_html, table_text
from ltc_compiler.config import Config
from ltc_compiler.errors import InputError, LtcError
from ltc_compiler.files import write_file
from ltc_compiler.ir.graph import Array, Graph, Node, Value
from ltc_compiler.transforms.pipeline import run_pipeline

Runs = Sequence[Array]


class Comparison:
    """One model on the same inputs in fp64, plain fp32 and the bit-accurate machine; NNIR.compare makes it.

    Attributes:
        name: the graph's name.
        config: the accelerator.
        steps: the number of steps that were run.
        factor: an operation loses precision where it multiplies the error by this.
        rows: a dict for each value that is computed, in the order of execution, with the keys of compare.COLUMNS.
        outputs: a dict for each output: its "name", the steps by which it is "late", the "max_error" and the
            "relative" error of the bit-accurate machine, the "fp32_max_error" of plain fp32, and, where PyTorch's
            outputs are given (else None), the "expected_max_error" of the machine and the "reference_max_error" of
            fp64 against them.
        max_error: the largest absolute error of the bit-accurate machine over all outputs.
        relative: the root mean square of its errors over that of the exact values, over all outputs.
        cycles: of one inference, spaced.
        unopened: the source lines of scans whose bodies have too many iterations to look into.
        ulp_bins: the upper ends of the bins of the histograms of ulps.
    """

    ulp_bins = ULP_BINS

    def __init__(self, name: str, config: Config, steps: int, factor: float) -> None:
        self.name, self.config, self.steps, self.factor = name, config, steps, factor
        self.rows: list[Row] = []
        self.outputs: list[Row] = []
        self.unopened: list[str] = []
        self.max_error = self.relative = 0.0
        self.cycles = 0

    @property
    def first_loss(self) -> Row | None:
        """The first row that loses precision; None where no operation does."""
        return next((row for row in self.rows if row["loses"]), None)

    def to_csv(self, path: str | Path) -> None:
        """Write the rows as CSV; a histogram is one cell, its counts separated by spaces.

        Args:
            path: the file to write.

        Raises:
            FileError: the file cannot be written; an old one is as it was.
        """
        text = io.StringIO(newline="")
        writer = csv.DictWriter(text, list(self.rows[0]) if self.rows else [])
        writer.writeheader()
        for row in self.rows:
            writer.writerow({k: " ".join(map(str, v)) if isinstance(v, tuple) else v for k, v in row.items()})
        write_file(path, text.getvalue())

    def to_dataframe(self) -> Any:
        """The rows as a pandas.DataFrame.

        Raises:
            LtcError: pandas is not installed.
        """
        try:
            import pandas
        except ImportError as error:
            what = "a data frame needs pandas, which is not installed"
            raise LtcError(
                what, where="to_dataframe", remedy="install pandas, or use .rows or .to_csv"
            ) from error
        return pandas.DataFrame(self.rows)

    def plot(self, ax: Any = None) -> Any:
        """Draw the errors over the operations with matplotlib.

        Args:
            ax: the matplotlib Axes to draw into; those of a new figure if None.

        Returns:
            The Axes.

        Raises:
            LtcError: matplotlib is not installed.
        """
        return plot(self, ax)

    def __str__(self) -> str:
        return table_text(self)

    def _repr_html_(self) -> str:
        return table_html(self)


def compare(
    graph: Graph,
    config: Config,
    inputs: Sequence[Any],
    *,
    expected: Any = None,
    observed: Sequence[Observed] = (),
    iterations: int = 64,
    what_if: int = 5,
    factor: float = 16.0,
    optimize: bool = True,
) -> Comparison:
    """Run `graph` on three machines and compare every value that an operation computes.

    Args:
        graph: the model.
        config: the accelerator.
        inputs: one array for each input; arrays with an axis of time, or lists of steps, for several steps.
        expected: PyTorch's outputs, to compare with too: one array, or one for each output.
        observed: what PyTorch computed on the way; see observed.py.
        iterations: look into the bodies of scans with up to this many iterations.
        what_if: try this many operations in FP32, those whose own errors reach the outputs most, each by compiling
            again.
        factor: an operation loses precision where it multiplies the error by this.
        optimize: as for NNIR.to_program.

    Raises:
        InputError: an argument is wrong.
        AllocationError: the program does not fit, or not all values find room at once.
        GraphError: the graph cannot be lowered.
        UnsupportedError: an operation cannot be lowered.
        LtcError: the machine computes something else where every value is handed out: a mistake of the compiler.
    """
    for name, number in (("iterations", iterations), ("what_if", what_if)):
        if not isinstance(number, int) or number < 0:
            raise InputError(f"{name} is {number!r}", where=name, remedy="give a whole number of 0 or more")
    if graph.block > 1:
        raise InputError(f"the graph takes {graph.block} steps in one run", where="compare",
                         remedy="compare the graph of single steps, whose bits are the same: streaming_transform"
                         " without a block")  # fmt: skip
    if not factor > 1:
        raise InputError(f"factor is {factor!r}", where="factor", remedy="give a number above 1")
    steps, arrays = sequences(graph, inputs)
    wanted = expectations(graph, expected, steps) if expected is not None else None
    passed = run_pipeline(graph)
    program = schedule(passed, config, optimize)
    result = Comparison(graph.name, config, steps, factor)
    result.cycles = program.cycle_count_per_inference()
    outputs = run_machine(program, arrays, steps, True)

    probed = probe(passed, iterations)
    probing = schedule_probes(probed.graph, config)
    exact = run_exact(probed.graph, arrays, steps)
    plain, machine = (run_machine(probing, arrays, steps, accurate) for accurate in (False, True))
    _check_bits(outputs, machine)
    values = Computed(*(read_values(passed, probed, run, steps) for run in (exact, plain, machine)))
    found = subjects(passed, probed)
    local = locally_exact(found, values.machine)
    theirs = match([(subject.node, subject.value) for subject in found], values.exact, observed)
    result.rows = table(found, probed, values, local, theirs, factor)
    result.unopened = [str(n.source) for n in passed.walk() if n.op == "scan" and n not in probed.inside]
    exact = exact[: len(outputs)]
    result.outputs = _outputs(graph, exact, plain, outputs, wanted)
    result.max_error, result.relative = _overall(outputs, exact)
    suspects = _Suspects(result, passed, arrays, exact, [subject.node for subject in found])
    suspects.disturb(values.machine, local)
    suspects.widen(what_if, optimize)
    return result


def _check_bits(outputs: Runs, probed: Runs) -> None:
    """The machine with probes must give the bits of the machine without them."""
    for i, (a, b) in enumerate(zip(outputs, probed, strict=False)):
        if a.tobytes() != b.tobytes():
            raise LtcError(f"output {i} changes when every value becomes an output", where="compare",
                           remedy="report this as a bug of the compiler, with the model")  # fmt: skip


def _overall(outputs: Runs, exact: Runs) -> tuple[float, float]:
    """Largest and relative error over all outputs."""
    if not outputs:
        return 0.0, 0.0
    flat, reference = (
        np.concatenate([a.ravel().astype(np.float64) for a in side]) for side in (outputs, exact)
    )
    return float(errors(flat, reference).max(initial=0.0)), relative(flat, reference)


def _outputs(
    graph: Graph, exact: Runs, plain: Runs, machine: Runs, wanted: list[tuple[slice, Array]] | None
) -> list[Row]:
    rows = []
    late = graph.output_latencies or (0,) * len(graph.outputs)
    for i, name in enumerate(graph.output_names):
        double = machine[i].astype(np.float64)
        row: Row = {
            "name": name,
            "late": late[i],
            "max_error": float(errors(double, exact[i]).max(initial=0.0)),
            "relative": relative(double, exact[i]),
            "fp32_max_error": float(errors(plain[i].astype(np.float64), exact[i]).max(initial=0.0)),
            "expected_max_error": None,
            "reference_max_error": None,
        }
        if wanted is not None:
            valid, given = wanted[i]
            row["expected_max_error"] = float(errors(double[valid], given).max(initial=0.0))
            row["reference_max_error"] = float(errors(exact[i][valid], given).max(initial=0.0))
        rows.append(row)
    return rows


@dataclass
class _Suspects:
    """The operations that FP32 would change; `nodes` are those of the rows, `exact` the outputs in fp64."""

    result: Comparison
    graph: Graph
    arrays: Runs
    exact: Runs
    nodes: list[Node | None]

    def _fill(self, target: Node, columns: Row) -> None:
        for row, node in zip(self.result.rows, self.nodes, strict=True):
            if node is target:
                row.update(columns)

    def disturb(self, machine: Mapping[Value, Array], local: Mapping[Value, Array]) -> None:
        """What of their own errors, the differences of `machine` and `local`, reaches the outputs."""
        for target in dict.fromkeys(n for n in self.nodes if n is not None and can_widen(n)):
            with np.errstate(all="ignore"):
                own = [machine[v] - local[v] for v in target.results]
            errors = [np.where(np.isfinite(e), e, 0.0) for e in own]  # the same infinity or NaN is no error
            disturbed = run_disturbed(self.graph, self.arrays, self.result.steps, target, errors)
            self._fill(target, {"reaches_outputs": _overall(disturbed, self.exact)[1]})

    def widen(self, most: int, optimize: bool) -> None:
        """What the outputs gain with one of them in FP32, and what it costs: those that reach the outputs most."""
        reach = {
            node: row["reaches_outputs"]
            for row, node in zip(self.result.rows, self.nodes, strict=True)
            if node is not None and row["reaches_outputs"]
        }
        for target in sorted(reach, key=lambda n: -reach[n])[:most]:
            try:
                program = schedule(widened(self.graph, target), self.result.config, optimize)
                outputs = run_machine(program, self.arrays, self.result.steps, True)
                error, share = _overall(outputs, self.exact)
                cycles = program.cycle_count_per_inference() - self.result.cycles
            except LtcError as refusal:
                self._fill(target, {"what_if_refused": " ".join(str(refusal).split())})
            else:
                self._fill(
                    target, {"what_if_max_error": error, "what_if_relative": share, "what_if_cycles": cycles}
                )
