"""Report: where the cycles of one inference go, as data, text, CSV, JSON, data frame and web page."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ltc_compiler.bytecode import Image
from ltc_compiler.bytecode.alignment import streaming_of
from ltc_compiler.bytecode.ports import host_bytes
from ltc_compiler.clock import Record
from ltc_compiler.errors import InputError, LtcError
from ltc_compiler.files import write_file
from ltc_compiler.report.costs import Row, instruction_table, table, tallies, unit_table
from ltc_compiler.report.events import Code, Event, events_of
from ltc_compiler.report.flow import Flow
from ltc_compiler.report.origins import origins
from ltc_compiler.report.page import page, table_html
from ltc_compiler.report.terminal import report_text


class Walk(NamedTuple):
    """One walk of a model by the simulator's clock.

    Attributes:
        model_index: which model, counted from 0.
        spaced: as for Program.cycle_count_per_inference.
        summary: what Program.cycle_summary_per_inference returns.
        trace: a record per executed instruction; see clock.Record.
        complete: whether the trace holds all of them.
    """

    model_index: int
    spaced: bool
    summary: dict[str, Any]
    trace: Sequence[Record]
    complete: bool


class Report:
    """The cycles of one inference, explained; Program.report makes it.

    Cycle 0 is the arrival of the host's data, or the start of a model without inputs.

    Args:
        image: the program as data.
        walk: one walk of a model by the simulator's clock.

    Attributes:
        latency: cycles from the last input row in to the last output row out.
        rows: a dict per operation and place in the user's source, with the keys of costs.COLUMNS.
        lines: the same per source line.
        instructions: a dict per instruction of the program.
        units: a dict per core and unit at work.
        events: the executed instructions; see events.py.
        stalls: what each event waited for longest.
        lives: the rows that hold values, and how long they do; see flow.py.
        delivered: for each event, how many rows it read from which earlier event.
        path: the critical path, as segments whose cycles add up to the whole.
        origins: for each instruction of the program, the operation and the source line that it comes from.
        complete: whether the whole inference was traced; if not, everything but the latency covers its beginning
            alone, and every form of the report says so.
        late: the steps of the stream by which outputs are late, by name, for those that are; these are no cycles.
    """

    def __init__(self, image: Image, walk: Walk) -> None:
        self.code = Code(image)
        self.model = image.models[walk.model_index]
        self.config = image.config
        self.spaced = walk.spaced
        stream = streaming_of(image.meta, self.model, walk.model_index)
        self.late = {p.name: n for p, n in zip(self.model.outputs, stream.latencies, strict=True) if n}
        self.latency = int(walk.summary["latency"])
        self.arrival = int(walk.summary["arrival"]) if self.model.inputs else 0
        self.last_out = int(walk.summary["last_out"]) - self.arrival
        self.complete = walk.complete
        self.events: list[Event] = events_of(walk.trace, self.arrival)
        flow = Flow(self.code, self.model, self.events)
        self.lives, self.stalls, self.delivered = flow.lives, flow.stalls, flow.delivered
        self.path = flow.critical_path()
        self.origins = origins(image)
        found = tallies(self.events, self.stalls, self.path)
        self.rows: list[Row] = table(self.code, found, self.origins, lambda i: self.origins[i])
        self.lines: list[Row] = table(self.code, found, self.origins, lambda i: self.origins[i].place)
        self.instructions: list[Row] = instruction_table(self.code, found, self.origins)
        covered = self.last_out if self.complete else max((e.end for e in self.events), default=0)
        self.units: list[Row] = unit_table(self.code, self.events, covered)

    @property
    def latency_us(self) -> float:
        """The latency in µs at the configuration's clock."""
        return self.latency / self.config.clock_mhz

    @property
    def io_us(self) -> float:
        """The µs of Program.io_duration_per_inference_us, an estimate; they are no part of the latency."""
        sides = (self.model.inputs, self.model.outputs)
        return sum(self.config.host.transfer_us(host_bytes(ports)) for ports in sides)

    def to_dict(self) -> dict[str, Any]:
        """Everything but the events, as plain values: what to_json writes."""
        return {
            "model": self.model.name,
            "config": self.config.name,
            "clock_mhz": self.config.clock_mhz,
            "spaced": self.spaced,
            "latency_cycles": self.latency,
            "latency_us": self.latency_us,
            "io_us_estimate": self.io_us,
            "complete": self.complete,
            "late_steps": self.late,
            "ops": self.rows,
            "lines": self.lines,
            "instructions": self.instructions,
            "units": self.units,
        }

    def to_csv(self, path: str | Path, by: str = "op") -> None:
        """Write one of the tables as CSV.

        Args:
            path: the file to write.
            by: "op", "line", "instruction" or "unit".

        Raises:
            InputError: `by` is another name.
            FileError: the file cannot be written; an old one is as it was.
        """
        rows = self._by(by)
        text = io.StringIO(newline="")
        writer = csv.DictWriter(text, list(rows[0]) if rows else [])
        writer.writeheader()
        writer.writerows(rows)
        write_file(path, text.getvalue())

    def to_json(self, path: str | Path) -> None:
        """Write all tables as one JSON object.

        Args:
            path: the file to write.

        Raises:
            FileError: the file cannot be written; an old one is as it was.
        """
        write_file(path, json.dumps(self.to_dict(), indent=1) + "\n")

    def to_dataframe(self, by: str = "op") -> Any:
        """One of the tables as a pandas.DataFrame.

        Args:
            by: as for to_csv.

        Raises:
            InputError: `by` is another name.
            LtcError: pandas is not installed.
        """
        rows = self._by(by)
        try:
            import pandas
        except ImportError as error:
            remedy = "install pandas, or use .rows, .to_csv or .to_json"
            what = "a data frame needs pandas, which is not installed"
            raise LtcError(what, where="to_dataframe", remedy=remedy) from error
        return pandas.DataFrame(rows)

    def to_html(self, path: str | Path) -> None:
        """Write one self-contained page with the timeline, live ranges, dataflow and tables. It needs no network.

        Args:
            path: the file to write.

        Raises:
            FileError: the file cannot be written; an old one is as it was.
        """
        write_file(path, page(self))

    def _by(self, by: str) -> list[Row]:
        tables = {"op": self.rows, "line": self.lines, "instruction": self.instructions, "unit": self.units}
        if by not in tables:
            raise InputError(f"by is {by!r}", where="by", remedy=f"use one of {', '.join(tables)}")
        return tables[by]

    def __str__(self) -> str:
        return report_text(self)

    def _repr_html_(self) -> str:
        return table_html(self)
