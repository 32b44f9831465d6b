"""How long an inference of a program takes: cycles, microseconds, reports, traces and timelines."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from ltc_compiler._core import Program as CoreProgram
from ltc_compiler.bytecode import Image
from ltc_compiler.bytecode.ports import host_bytes
from ltc_compiler.clock import Clock
from ltc_compiler.errors import InputError
from ltc_compiler.files import write_file
from ltc_compiler.program_ports import ProgramPorts
from ltc_compiler.report import Report, Walk, chrome_trace, draw_timeline

TRACED = 100_000  # executed instructions, over all cores, that a report takes in


class ProgramTime(ProgramPorts):
    """The part of Program that counts cycles."""

    def __init__(self, image: Image, core: CoreProgram) -> None:
        super().__init__(image)
        self._clock = Clock(image, core)

    def cycle_count_per_inference(self, model_index: int = 0, spaced: bool = True) -> int:
        """The latency of one inference in cycles, from the last input row in to the last output row out.

        It is counted by walking the program, exactly. How often an inference can start is
        cycle_interval_per_inference.

        Args:
            model_index: which model, counted from 0.
            spaced: True: the accelerator was idle before the input came, and has done what depends on state alone;
                False: the input arrives at the moment at which the previous inference ends.

        Raises:
            InputError: there is no such model.
            ProgramError: the inference is too long to be walked.
        """
        self._model(model_index)
        return self._clock.latency(model_index, spaced)

    def cycle_interval_per_inference(self, model_index: int = 0) -> float:
        """The cycles from one inference to the next where they follow each other without a pause.

        The next inference issues as soon as the one before it has issued, and its input is there: the end of one
        overlaps with the beginning of the next. The figure is the mean over several inferences in steady state.

        Args:
            model_index: which model, counted from 0.

        Raises:
            InputError: there is no such model.
            ProgramError: the inferences are too long to be walked.
        """
        self._model(model_index)
        return self._clock.interval(model_index)

    def cycle_summary_per_inference(self, model_index: int = 0, spaced: bool = True) -> dict[str, Any]:
        """The walk behind cycle_count_per_inference.

        Args:
            model_index: which model, counted from 0.
            spaced: as for cycle_count_per_inference.

        Returns:
            Cycles, counted from the start of the walk: "arrival", at which the host has its first input row ready;
            "offered", at which it has the last one ready (one row per cycle); "last_in", at which the last input row
            is taken; "last_out", at which the last output row is out; "total", at which everything is done;
            "latency", from "offered" to "last_out"; "busy", for each core the cycles that each unit was at work.
            And "instructions": the number of executed instructions over all cores.

        Raises:
            InputError: there is no such model.
            ProgramError: the inference is too long to be walked.
        """
        self._model(model_index)
        return self._clock.summary(model_index, spaced)

    def compute_duration_per_inference_us(
        self, clock_mhz: float | None = None, model_index: int = 0, spaced: bool = True
    ) -> float:
        """The latency of one inference in µs: cycle_count_per_inference over the clock.

        Args:
            clock_mhz: the clock in MHz; the configuration's if None.
            model_index: which model, counted from 0.
            spaced: as for cycle_count_per_inference.

        Raises:
            InputError: the clock is not a positive number, or there is no such model.
            ProgramError: the inference is too long to be walked.
        """
        clock = self.hw_config.clock_mhz if clock_mhz is None else clock_mhz
        if not (math.isfinite(clock) and clock > 0):
            raise InputError(
                f"clock_mhz is {clock}", where="clock_mhz", remedy="give a positive number of MHz"
            )
        return self.cycle_count_per_inference(model_index, spaced) / clock

    def io_duration_per_inference_us(self, model_index: int = 0) -> float:
        """An estimate of the µs that inputs and outputs take between the host's memory and the accelerator.

        It assumes one transfer each way, with the latency and the rate of the configuration's host table, of 4 bytes
        per value, or 2 where the port is bf16; docs/machine.md says where these figures come from. It is no part of
        compute_duration_per_inference_us.

        Args:
            model_index: which model, counted from 0.

        Raises:
            InputError: there is no such model.
        """
        model, host = self._model(model_index), self.hw_config.host
        return sum(host.transfer_us(host_bytes(ports)) for ports in (model.inputs, model.outputs))

    def end_to_end_duration_per_inference_us(self, model_index: int = 0, spaced: bool = True) -> float:
        """Compute and IO one after the other, in µs: the sum of the two other durations.

        Args:
            model_index: which model, counted from 0.
            spaced: as for cycle_count_per_inference.

        Raises:
            InputError: there is no such model.
            ProgramError: the inference is too long to be walked.
        """
        compute = self.compute_duration_per_inference_us(model_index=model_index, spaced=spaced)
        return compute + self.io_duration_per_inference_us(model_index)

    def report(self, model_index: int = 0, spaced: bool = True, limit: int = TRACED) -> Report:
        """Where the cycles of one inference go, by operation and by line of the user's source.

        Args:
            model_index: which model, counted from 0.
            spaced: as for cycle_count_per_inference.
            limit: the number of executed instructions to look at. A longer inference is reported up to there, and the
                report says so.

        Raises:
            InputError: there is no such model, or the limit is below 1.
            ProgramError: the inference is too long to be walked.
        """
        if limit < 1:
            raise InputError(
                f"limit is {limit}", where="limit", remedy="give the number of instructions to look at"
            )
        summary = self.cycle_summary_per_inference(model_index, spaced)
        records = self._clock.trace(model_index, summary["arrival"], limit + 1)
        return Report(self._image, Walk(model_index, spaced, summary, records[:limit], len(records) <= limit))

    def save_trace(
        self, path: str | Path, model_index: int = 0, spaced: bool = True, limit: int = TRACED
    ) -> None:
        """Write a trace of one inference for Perfetto, or the tracing page of Chromium: JSON, one cycle is 1 ns.

        Args:
            path: the file to write.
            model_index: which model, counted from 0.
            spaced: as for cycle_count_per_inference.
            limit: as for report.

        Raises:
            InputError: there is no such model, or the limit is below 1.
            ProgramError: the inference is too long to be walked.
            FileError: the file cannot be written; an old one is as it was.
        """
        content = chrome_trace(self.report(model_index, spaced, limit))
        write_file(path, json.dumps(content, separators=(",", ":")))

    def timeline(self, ax: Any = None, model_index: int = 0, spaced: bool = True, limit: int = TRACED) -> Any:
        """Draw the units of every core over one inference with matplotlib.

        Args:
            ax: the matplotlib Axes to draw into; those of a new figure if None.
            model_index: which model, counted from 0.
            spaced: as for cycle_count_per_inference.
            limit: as for report.

        Returns:
            The Axes.

        Raises:
            InputError: there is no such model, or the limit is below 1.
            ProgramError: the inference is too long to be walked.
            LtcError: matplotlib is not installed.
        """
        return draw_timeline(self.report(model_index, spaced, limit), ax)
