"""A compiled program: what the compiler returns, and what a program file holds.

A Program is verified when it is made, so that every Program can run. It makes the machines that execute it, the
simulator and the reference machine, and says how large it is. What it exchanges with the host stands in
program_ports.py, how long an inference takes in program_time.py.
"""

from __future__ import annotations

import math
import re
from dataclasses import replace
from pathlib import Path
from typing import Any, Self

from ltc_compiler import isa
from ltc_compiler._core import Program as CoreProgram
from ltc_compiler.bytecode import Image, Model, disassemble, store_use
from ltc_compiler.bytecode.alignment import Streaming
from ltc_compiler.bytecode.ports import host_bytes
from ltc_compiler.errors import InputError, ProgramError, shown
from ltc_compiler.files import write_file
from ltc_compiler.oracle import Oracle
from ltc_compiler.program_time import ProgramTime
from ltc_compiler.vm import VM

MAX_WORK = 1 << 33  # instructions or beats of an inference of a file: minutes


class Program(ProgramTime):
    """A program for one accelerator configuration: what it exchanges, how long it takes, and machines to run it.

    Args:
        image: the program as data.
        data: the file that the image was read from, if it was; the image and the C++ core then share its bytes.

    Raises:
        ProgramError: the image breaks a rule of the machine; nothing of it is executed.
    """

    def __init__(self, image: Image, data: bytes | None = None) -> None:
        given = image.file if data is None else data
        self._core = CoreProgram.parse(image.to_bytes() if given is None else given)
        super().__init__(image, self._core)

    def to_vm(self, bit_accurate: bool = True, max_work: int | None = None, kernels: str | None = None) -> VM:
        """A simulator of the program, in C++, with a fresh state.

        Args:
            bit_accurate: True computes what the accelerator computes; False computes in plain fp32, without rounding
                to bf16 or FP8.
            max_work: as for load; no bound if None.
            kernels: the CPU's instruction set that the simulator uses: "sse2", "avx2", "avx512" or "avx512_bf16"
                ("generic" on other CPUs than x86-64); all give the same bits. None: the one that the environment
                variable LTC_SIMD names, or else the widest that the CPU has.

        Raises:
            InputError: `max_work` is not a positive integer.
            ProgramError: an inference takes more than `max_work`, or plain fp32 is asked for and the fp32 originals
                are missing.
            ConfigError: the CPU cannot run those kernels.
            ArithmeticMismatchError: the kernels fail their self-test.
        """
        if max_work is not None:
            self._core.check_work(_checked_work(max_work))
        return VM(self._image, self._core, bit_accurate, kernels)

    def work_per_inference(self, model_index: int = 0) -> dict[str, int]:
        """What one inference executes, counted from the trip counts of its loops without running it.

        Args:
            model_index: which model, counted from 0.

        Returns:
            "instructions", and "beats": the rows, blocks, slots and entries that they go through.

        Raises:
            InputError: there is no such model.
        """
        self._model(model_index)
        return dict(self._core.work(model_index))

    def without_reset(self) -> Self:
        """The same program, whose simulators raise StateError at `reset`."""
        program = object.__new__(type(self))
        program.__dict__.update(self.__dict__)
        program._image = replace(self._image, meta={**self._image.meta, "state_reset": False})
        return program

    def to_oracle(self, bit_accurate: bool = True) -> Oracle:
        """The reference machine, in NumPy: the same bits as the simulator, slowly.

        Args:
            bit_accurate: as for to_vm.

        Raises:
            ProgramError: plain fp32 is asked for and the fp32 originals are missing.
        """
        return Oracle(self._image, bit_accurate)

    # --- files ----------------------------------------------------------------------------------------

    def save(self, path: str | Path, shadow: bool = True) -> None:
        """Write a program file.

        Args:
            path: the file to write.
            shadow: whether to write the fp32 originals of weights and synapses, which bit_accurate=False needs.

        Raises:
            FileError: the file cannot be written; an old one is as it was.
        """
        write_file(path, self.save_bytes(shadow))

    @classmethod
    def load(cls, path: str | Path, max_work: int = MAX_WORK) -> Self:
        """Read and verify a program file.

        Args:
            path: a file that `save` wrote.
            max_work: the most instructions, and the most beats, that one inference may take: a file may ask for hours.

        Raises:
            ProgramError: the file cannot be read, is damaged, breaks a rule of the machine, or asks for more than
                `max_work`.
            IsaMismatchError: the file was made for another instruction set.
            InputError: `max_work` is not a positive integer.
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
        """The program file as bytes.

        Args:
            shadow: as for save.
        """
        return self._image.to_bytes(shadow)

    @classmethod
    def load_bytes(cls, data: bytes | bytearray | memoryview, max_work: int = MAX_WORK) -> Self:
        """The inverse of save_bytes; verifies everything, as `load` does.

        Args:
            data: the bytes of a program file.
            max_work: as for load.

        Raises:
            ProgramError: no bytes are given, or they are damaged, break a rule of the machine, or ask for more than
                `max_work`.
            IsaMismatchError: they were made for another instruction set.
            InputError: `max_work` is not a positive integer.
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

    # --- size and text --------------------------------------------------------------------------------

    def metrics(self) -> dict[str, Any]:
        """Sizes and utilisation, as plain values.

        Returns:
            "cores": for each core and store, how much is "used" of which "depth", in rows, blocks, slots, entries or
            instructions; of "tensor_rows" also how many are "live" at once (rows rest before they are used again).
            "models": for each model its "name", its number of "instructions", the "input_bytes" and
            "output_bytes" that pass between host and accelerator (2 per value where the port is bf16, else 4), the
            "state_bytes" as float32, "states" (the kind of each), "output_latencies" and "output_tails" in steps (see
            output_latency and output_tail), "block_steps" of an inference and "cycles_per_step" (those from one
            inference to the next over its steps), and "utilisation": for each core and unit the share of a contiguous
            inference in which it is busy. "instructions": of the whole program. "file_bytes": the size of the program
            file with the fp32 originals, and "file_bytes_bit_accurate" without them.

        Raises:
            ProgramError: an inference is too long to be walked.
        """
        image = self._image
        cores = [_store_metrics(image, core) for core in range(image.config.cores)]
        return {
            "cores": cores,
            "models": [
                _model_metrics(model, stream)
                | {"states": self.state_kinds(index), "utilisation": self._utilisation(index)}
                | {"cycles_per_step": self.cycle_interval_per_inference(index) / stream.block}
                for index, (model, stream) in enumerate(zip(image.models, self._streaming, strict=True))
            ],
            "instructions": len(image.code),
            "file_bytes": len(self.save_bytes()),
            "file_bytes_bit_accurate": len(self.save_bytes(shadow=False)),
        }

    def _utilisation(self, model_index: int) -> list[dict[str, float]]:
        """For each core, the part of a contiguous inference in which each unit that is used is busy."""
        walk = self.cycle_summary_per_inference(model_index, spaced=False)
        return [
            {unit: busy / walk["total"] for unit, busy in zip(isa.UNITS, units, strict=True) if busy}
            for units in walk["busy"]
        ]

    def disassemble(self) -> str:
        """The code as text, one line per instruction, each with the source line that it comes from where known."""
        meta = self._image.meta.get("instructions")
        comments = meta if isinstance(meta, dict) else {}
        known = {int(index): str(text) for index, text in comments.items() if re.fullmatch(r"\d{1,9}", index)}
        models = enumerate(self._image.models)
        head = [_describe(m, self._streaming[i], self.state_kinds(i)) for i, m in models]
        return f"; {self.hw_config.name}\n" + "".join(head) + disassemble(self._image.code, known)

    def __repr__(self) -> str:
        names = ", ".join(model.name for model in self._image.models)
        return f"Program({names} for {self.hw_config.name}, {len(self._image.code)} instructions)"


def _checked_work(max_work: object) -> int:
    if not isinstance(max_work, int) or isinstance(max_work, bool) or not 1 <= max_work < 1 << 63:
        raise InputError(f"max_work is {shown(max_work)}", where="max_work",
                         remedy=f"give a number of beats from 1 on; {MAX_WORK} is the default")  # fmt: skip
    return max_work


def _store_metrics(image: Image, core: int) -> dict[str, dict[str, int]]:
    stores = {name: {"used": used, "depth": depth} for name, (used, depth) in store_use(image, core).items()}
    live = image.meta.get("live_rows")
    if isinstance(live, list) and len(live) == len(image.cores) and isinstance(live[core], int):
        stores["tensor_rows"]["live"] = live[core]
    return stores


def _model_metrics(model: Model, stream: Streaming) -> dict[str, Any]:
    return {
        "name": model.name,
        "instructions": model.end - model.begin,
        "input_bytes": host_bytes(model.inputs),
        "output_bytes": host_bytes(model.outputs),
        "state_bytes": sum(4 * math.prod(state.shape) for state in model.states),
        "block_steps": stream.block,
        "output_latencies": list(stream.latencies),
        "output_tails": list(stream.tails),
    }


def _describe(model: Model, stream: Streaming, kinds: dict[str, str]) -> str:
    """The model's interface as comment lines."""
    told = f", {stream.block} steps an inference" if stream.block > 1 else ""
    lines = [f"; model {model.name!r}: instructions {model.begin} to {model.end - 1}{told}"]
    lines += [f";   input {p.name} {p.shape} {p.precision} {p.role}" for p in model.inputs]
    for p, late in zip(model.outputs, stream.latencies, strict=True):
        told = f", {late} step{'s' * (late > 1)} late" if late else ""
        lines.append(f";   output {p.name} {p.shape} {p.precision} {p.role}{told}")
    for s in model.states:
        places = ", ".join(f"core {core} from row {row} on" for core, row in s.places)
        lines.append(f";   {kinds[s.name]} state {s.name} {s.shape} in {places}")
    return "".join(f"{line}\n" for line in lines)
