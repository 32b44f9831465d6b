"""A compiled program: what the compiler hands back, and what a file holds.

A Program is verified when it is made, so that whatever one holds can run. It answers how large it is and how
long an inference takes, and makes the machines that execute it: the simulator and the reference machine.
"""

from __future__ import annotations

import json
import math
import re
from dataclasses import replace
from pathlib import Path
from typing import Any, Self

from ltc_compiler import isa
from ltc_compiler._core import Program as CoreProgram
from ltc_compiler.bytecode import Image, Model, Port, disassemble, store_use
from ltc_compiler.bytecode.alignment import Streaming, streaming_of
from ltc_compiler.bytecode.ports import host_bytes, model_at
from ltc_compiler.clock import Clock
from ltc_compiler.config import Config
from ltc_compiler.errors import InputError, ProgramError, shown
from ltc_compiler.files import write_file
from ltc_compiler.oracle import Oracle
from ltc_compiler.report import Report, Walk, chrome_trace, draw_timeline
from ltc_compiler.vm import VM

TRACED = 100_000  # executed instructions, over all cores, that a report takes in
MAX_WORK = 1 << 33  # instructions or beats of an inference of a file: minutes


class Program:
    """A program for one accelerator configuration.

    Raises ProgramError if the image breaks a rule of the machine; nothing of it is executed.
    """

    def __init__(self, image: Image, data: bytes | None = None) -> None:
        """data: the image's file, where it was read from one. The image and the core then share its bytes."""
        self._image = image
        self._streaming = [streaming_of(image.meta, model, i) for i, model in enumerate(image.models)]
        self._core = CoreProgram.parse(image.to_bytes() if data is None else data)
        self._clock = Clock(image, self._core)

    def to_vm(self, bit_accurate: bool = True, max_work: int | None = None, kernels: str | None = None) -> VM:
        """A simulator with a fresh state; bit_accurate=False computes in plain fp32, without rounding.

        max_work: as for load(), if given. kernels: the CPU's instruction set that the simulator uses: "sse2", "avx2",
        "avx512" or "avx512_bf16" ("generic" on other CPUs than x86-64); all give the same bits. By default the one
        that the environment variable LTC_SIMD names, or else the widest that the CPU has.

        Raises ProgramError for more work than max_work or where the fp32 originals are missing, ConfigError where
        the CPU cannot run those kernels, and ArithmeticMismatchError where they fail their self-test.
        """
        if max_work is not None:
            self._core.check_work(_checked_work(max_work))
        return VM(self._image, self._core, bit_accurate, kernels)

    def work_per_inference(self, model_index: int = 0) -> dict[str, int]:
        """What an inference of a model executes: "instructions", and "beats", the rows, blocks, slots and entries that
        they go through. Counted from its loops, without running it.
        """
        self._model(model_index)
        return dict(self._core.work(model_index))

    def without_reset(self) -> Self:
        """The same program, whose machines refuse `reset`."""
        program = object.__new__(type(self))
        program.__dict__.update(self.__dict__)
        program._image = replace(self._image, meta={**self._image.meta, "state_reset": False})
        return program

    def to_oracle(self, bit_accurate: bool = True) -> Oracle:
        """The reference machine in NumPy: the same bits, slowly."""
        return Oracle(self._image, bit_accurate)

    # --- files ----------------------------------------------------------------------------------------

    def save(self, path: str | Path, shadow: bool = True) -> None:
        """Write a program file; shadow=False leaves out the fp32 originals that bit_accurate=False needs.

        Raises FileError, with the old file as it was.
        """
        write_file(path, self.save_bytes(shadow))

    @classmethod
    def load(cls, path: str | Path, max_work: int = MAX_WORK) -> Self:
        """Read and verify a program file. Raises ProgramError or IsaMismatchError naming the file.

        max_work: the most instructions, and the most beats, that one inference may take: a file may ask for hours.
        """
        try:
            data = Path(path).read_bytes()
        except OSError as error:
            raise ProgramError(
                f"cannot be read: {error.strerror}",
                where=str(path),
                remedy="give a file that Program.save wrote",
            ) from error
        try:
            return cls.load_bytes(data, max_work)
        except ProgramError as error:
            raise type(error)(error.what, where=f"{path}: {error.where}", remedy=error.remedy) from error

    def save_bytes(self, shadow: bool = True) -> bytes:
        """The program file as bytes."""
        return self._image.to_bytes(shadow)

    @classmethod
    def load_bytes(cls, data: bytes | bytearray | memoryview, max_work: int = MAX_WORK) -> Self:
        """The inverse of save_bytes; verifies everything, and max_work as load() does. Raises ProgramError or
        IsaMismatchError.
        """
        if not isinstance(data, bytes | bytearray | memoryview):
            raise ProgramError(
                f"a {type(data).__name__} is given, not bytes",
                where="data",
                remedy="give what save_bytes returned; Program.load takes the path of a file",
            )
        program = cls._of_bytes(bytes(data))
        program._core.check_work(_checked_work(max_work))
        return program

    @classmethod
    def _of_bytes(cls, data: bytes) -> Self:
        return cls(Image.from_bytes(data), data)

    def __reduce__(self) -> tuple[Any, ...]:
        return self._of_bytes, (self.save_bytes(),)  # copies and pickles hold the file

    # --- models and ports -----------------------------------------------------------------------------

    @property
    def image(self) -> Image:
        """The program as data: code, stores, models."""
        return self._image

    @property
    def hw_config(self) -> Config:
        """The configuration that it was compiled for."""
        return self._image.config

    @property
    def num_models(self) -> int:
        return len(self._image.models)

    def model_name(self, model_index: int = 0) -> str:
        return self._model(model_index).name

    def num_inputs(self, model_index: int = 0) -> int:
        return len(self._model(model_index).inputs)

    def num_outputs(self, model_index: int = 0) -> int:
        return len(self._model(model_index).outputs)

    def input_shape(self, model_index: int = 0, input_index: int = 0) -> tuple[int, ...]:
        return self._input(model_index, input_index).shape

    def output_shape(self, model_index: int = 0, output_index: int = 0) -> tuple[int, ...]:
        return self._output(model_index, output_index).shape

    def input_format(self, model_index: int = 0, input_index: int = 0) -> str:
        """ "fp32" or "bf16": what the accelerator makes of the float32 array."""
        return self._input(model_index, input_index).precision

    def output_format(self, model_index: int = 0, output_index: int = 0) -> str:
        """ "fp32" or "bf16": what the values of the float32 array are rounded to."""
        return self._output(model_index, output_index).precision

    def input_streaming_dim(self, model_index: int = 0, input_index: int = 0) -> int | None:
        """The axis of the original input that the streaming transform removed; None if it removed none."""
        self._input(model_index, input_index)
        return self._streaming[model_index].inputs[input_index]

    def output_streaming_dim(self, model_index: int = 0, output_index: int = 0) -> int | None:
        """The axis of the original output that the streaming transform removed; None if it removed none."""
        self._output(model_index, output_index)
        return self._streaming[model_index].outputs[output_index]

    @property
    def output_latencies(self) -> tuple[int, ...]:
        """Of every output of model 0, by how many steps it is late: `output_latency` of each."""
        return self._streaming[0].latencies if self._streaming else ()

    def output_latency(self, model_index: int = 0, output_index: int = 0) -> int:
        """By how many steps an output is late: step t of a stream gives the output's index t - latency.

        0 for what looks at no later step. VM.run_timesteps puts outputs in the places of their inputs; VM.run and
        VM.run_into give what comes out.
        """
        self._output(model_index, output_index)
        return self._streaming[model_index].latencies[output_index]

    def output_tail(self, model_index: int = 0, output_index: int = 0) -> int:
        """How many elements of an output follow the last step of a stream, when its end is said.

        Negative where the output ends before its input: so many of the last elements are none of the whole sequence's.
        """
        self._output(model_index, output_index)
        return self._streaming[model_index].tails[output_index]

    def state_kinds(self, model_index: int = 0) -> dict[str, str]:
        """Whose each state of a model is, by name: "stream" (the streaming transform made it), "module" (a module of
        the model keeps it from call to call) or "tied" (an output that is the next run's input).
        """
        self._model(model_index)
        return self._image.state_kinds(model_index)

    # --- size and time --------------------------------------------------------------------------------

    def metrics(self) -> dict[str, Any]:
        """Sizes, as plain values.

        "cores": for each core and store its "used" and "depth", in rows, blocks, slots, entries or instructions;
        "models": for each its name, instructions, bytes of inputs and outputs as they pass to and from the host (2 a
        value where the port is bf16, else 4), of the state as float32, "states": the kind of each, "output_latencies"
        and "output_tails" in steps (output_latency, output_tail), and "utilisation": for each core and unit the part
        of a contiguous inference in which it is busy; "instructions": in all; "file_bytes": of the program with and
        without ("file_bytes_bit_accurate") originals.
        """
        image = self._image
        uses = [store_use(image, core) for core in range(image.config.cores)]
        return {
            "cores": [{name: {"used": u, "depth": d} for name, (u, d) in use.items()} for use in uses],
            "models": [
                _model_metrics(model, stream)
                | {"states": self.state_kinds(index), "utilisation": self._utilisation(index)}
                for index, (model, stream) in enumerate(zip(image.models, self._streaming, strict=True))
            ],
            "instructions": len(image.code),
            "file_bytes": len(self.save_bytes()),
            "file_bytes_bit_accurate": len(self.save_bytes(shadow=False)),
        }

    def cycle_count_per_inference(self, model_index: int = 0, spaced: bool = True) -> int:
        """Cycles from the last input row in to the last output row out, by walking the program.

        spaced=True: the accelerator was idle before, and what depends on state alone was done ahead;
        spaced=False: the input arrives the moment the previous inference ends. A latency: how often an inference can
        be made is cycle_interval_per_inference.
        """
        self._model(model_index)
        return self._clock.latency(model_index, spaced)

    def cycle_interval_per_inference(self, model_index: int = 0) -> float:
        """Cycles from one inference to the next when they follow each other without a pause: the throughput.

        The next inference issues as soon as the one before it has issued, and its input is there: what overlaps are the
        ends and beginnings of neighbours. The mean over some inferences, after as many before them.
        """
        self._model(model_index)
        return self._clock.interval(model_index)

    def compute_duration_per_inference_us(
        self, clock_mhz: float | None = None, model_index: int = 0, spaced: bool = True
    ) -> float:
        """cycle_count_per_inference in µs, at the configuration's clock or at `clock_mhz`.

        Raises InputError for a clock that is not a positive number.
        """
        clock = self.hw_config.clock_mhz if clock_mhz is None else clock_mhz
        if not (math.isfinite(clock) and clock > 0):
            raise InputError(
                f"clock_mhz is {clock}", where="clock_mhz", remedy="give a positive number of MHz"
            )
        return self.cycle_count_per_inference(model_index, spaced) / clock

    def io_duration_per_inference_us(self, model_index: int = 0) -> float:
        """An estimate of the µs that inputs and outputs take between the host's memory and the accelerator.

        A transfer each way with the latency and the rate of the configuration's host table, of 4 bytes a value, or 2
        where the port is bf16; docs/machine.md says where its figures come from. It is no part of
        compute_duration_per_inference_us.
        """
        model, host = self._model(model_index), self.hw_config.host
        return sum(host.transfer_us(host_bytes(ports)) for ports in (model.inputs, model.outputs))

    def end_to_end_duration_per_inference_us(self, model_index: int = 0, spaced: bool = True) -> float:
        """Compute and IO, one after the other: the sum of the two other durations."""
        compute = self.compute_duration_per_inference_us(model_index=model_index, spaced=spaced)
        return compute + self.io_duration_per_inference_us(model_index)

    def _utilisation(self, model_index: int) -> list[dict[str, float]]:
        """For each core, the part of a contiguous inference in which each unit that is used is busy."""
        walk = self.cycle_summary_per_inference(model_index, spaced=False)
        return [
            {unit: busy / walk["total"] for unit, busy in zip(isa.UNITS, units, strict=True) if busy}
            for units in walk["busy"]
        ]

    def cycle_summary_per_inference(self, model_index: int = 0, spaced: bool = True) -> dict[str, Any]:
        """The walk behind cycle_count_per_inference, in cycles.

        "latency": from "offered", the cycle at which the host has its last input row ready (rows come one a cycle
        from "arrival" on), to "last_out"; "total": everything done; "last_in": the last input row is taken;
        "busy": for each core the cycles that each unit was at work; "instructions": executed, over all cores.
        """
        self._model(model_index)
        return self._clock.summary(model_index, spaced)

    def report(self, model_index: int = 0, spaced: bool = True, limit: int = TRACED) -> Report:
        """Where the cycles of one inference go, by op and by line of the user's source.

        limit: executed instructions that are looked at; a longer inference is reported up to there, and the report
        says so. Raises InputError for a model that is not there, or a limit below 1.
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

        limit, errors: as for report().
        """
        content = chrome_trace(self.report(model_index, spaced, limit))
        write_file(path, json.dumps(content, separators=(",", ":")))

    def timeline(self, ax: Any = None, model_index: int = 0, spaced: bool = True, limit: int = TRACED) -> Any:
        """Draw the units of every core over one inference with matplotlib; returns the Axes.

        ax: the Axes to draw into, a new figure's by default. limit, errors: as for report(), and LtcError where
        matplotlib is missing.
        """
        return draw_timeline(self.report(model_index, spaced, limit), ax)

    def disassemble(self) -> str:
        """The code as text, one line an instruction, with what each does for the user where that is known."""
        meta = self._image.meta.get("instructions")
        comments = meta if isinstance(meta, dict) else {}
        known = {int(index): str(text) for index, text in comments.items() if re.fullmatch(r"\d{1,9}", index)}
        models = enumerate(self._image.models)
        head = [_describe(m, self._streaming[i], self.state_kinds(i)) for i, m in models]
        return f"; {self.hw_config.name}\n" + "".join(head) + disassemble(self._image.code, known)

    def __repr__(self) -> str:
        names = ", ".join(model.name for model in self._image.models)
        return f"Program({names} for {self.hw_config.name}, {len(self._image.code)} instructions)"

    def _model(self, index: int) -> Model:
        return model_at(self._image.models, index)

    def _input(self, model_index: int, index: int) -> Port:
        return _port(self._model(model_index).inputs, index, "input")

    def _output(self, model_index: int, index: int) -> Port:
        return _port(self._model(model_index).outputs, index, "output")


def _checked_work(max_work: object) -> int:
    if not isinstance(max_work, int) or isinstance(max_work, bool) or not 1 <= max_work < 1 << 63:
        raise InputError(f"max_work is {shown(max_work)}", where="max_work",
                         remedy=f"give a number of beats from 1 on; {MAX_WORK} is the default")  # fmt: skip
    return max_work


def _port(ports: tuple[Port, ...], index: int, side: str) -> Port:
    if not 0 <= index < len(ports):
        listed = ", ".join(f"{i} {port.name!r}" for i, port in enumerate(ports)) or "none"
        raise InputError(f"no {side} {index}", where=f"{side}_index", remedy=f"the {side}s are {listed}")
    return ports[index]


def _model_metrics(model: Model, stream: Streaming) -> dict[str, Any]:
    return {
        "name": model.name,
        "instructions": model.end - model.begin,
        "input_bytes": host_bytes(model.inputs),
        "output_bytes": host_bytes(model.outputs),
        "state_bytes": sum(4 * math.prod(state.shape) for state in model.states),
        "output_latencies": list(stream.latencies),
        "output_tails": list(stream.tails),
    }


def _describe(model: Model, stream: Streaming, kinds: dict[str, str]) -> str:
    """The model's interface as comment lines."""
    lines = [f"; model {model.name!r}: instructions {model.begin} to {model.end - 1}"]
    lines += [f";   input {p.name} {p.shape} {p.precision} {p.role}" for p in model.inputs]
    for p, late in zip(model.outputs, stream.latencies, strict=True):
        told = f", {late} step{'s' * (late > 1)} late" if late else ""
        lines.append(f";   output {p.name} {p.shape} {p.precision} {p.role}{told}")
    for s in model.states:
        places = ", ".join(f"core {core} from row {row} on" for core, row in s.places)
        lines.append(f";   {kinds[s.name]} state {s.name} {s.shape} in {places}")
    return "".join(f"{line}\n" for line in lines)
