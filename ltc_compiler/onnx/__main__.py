"""The command line: compile an ONNX file and print how long an inference takes and what it uses.

python -m ltc_compiler.onnx model.onnx --config v80_c6b32 --shape x=60,1,8 --stream 0 --output model.ltcp
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ltc_compiler.config import Config
from ltc_compiler.errors import InputError, LtcError
from ltc_compiler.onnx import import_onnx
from ltc_compiler.onnx.registry import operators_markdown
from ltc_compiler.program import Program
from ltc_compiler.settle import compile_model
from ltc_compiler.transforms.streaming.transform import streaming_transform
from ltc_compiler.transforms.tie import tie

EPILOG = """examples:
  python -m ltc_compiler.onnx model.onnx
  python -m ltc_compiler.onnx gru.onnx --shape x=60,1,8 --stream 0 --output gru.ltcp
  python -m ltc_compiler.onnx wavenet.onnx --shape x=1,1,4096 --stream 2 --block 64
  python -m ltc_compiler.onnx step.onnx --tie h_out=h --tie c_out=c
  python -m ltc_compiler.onnx vad.onnx --shape input=1,512 --constant sr=16000

exit status: 0 compiled; 1 the model, a file or a configuration is refused, with the reason on stderr; 2 wrong usage"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; 0, or 1 with the error on stderr. Leaves with 2 for wrong arguments."""
    parser = _parser()
    given = parser.parse_args(arguments)
    if given.operators:
        print(operators_markdown(), end="")
        return 0
    if given.model is None:
        parser.error("the path of an ONNX file is missing")
    try:
        program = _compile(given)
        if given.output is not None:
            program.save(given.output)
    except (LtcError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(report(program))
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m ltc_compiler.onnx", description=__doc__.split("\n\n")[0], epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument("model", nargs="?", help="the ONNX file")
    parser.add_argument(
        "--config", default="v80_c6b32", metavar="NAME|FILE.toml",
        help=f"a preset ({', '.join(Config.presets())}), or a TOML file (default: v80_c6b32)",
    )  # fmt: skip
    parser.add_argument("--shape", action="append", default=[], metavar="NAME=N,N,...",
                        help="the shape of an input with symbolic axes; may be repeated")  # fmt: skip
    parser.add_argument("--tie", action="append", default=[], metavar="OUT=IN",
                        help="keep this output as a state, the next run's input; may be repeated")  # fmt: skip
    parser.add_argument("--constant", action="append", default=[], metavar="NAME=V,V,...",
                        help="fix an input to a value: sr=16000, flag=true; may be repeated")  # fmt: skip
    parser.add_argument(
        "--stream", type=int, metavar="AXIS", help="compile one step, streamed along this axis"
    )
    parser.add_argument(
        "--block", type=int, metavar="N", help="with --stream: take N steps in one inference (default: 1)"
    )
    parser.add_argument(
        "--quick", action="store_true", help="take the first schedule: compiles faster, runs slower"
    )
    parser.add_argument("--output", metavar="FILE", help="where to save the program")
    parser.add_argument(
        "--operators", action="store_true", help="print the table of supported operators and stop"
    )
    return parser


def _compile(given: argparse.Namespace) -> Program:
    constants = dict(map(_constant, given.constant))
    graph = import_onnx(given.model, dict(map(_shape, given.shape)) or None, constants)
    if given.tie:
        graph = tie(graph, _ties(given.tie))
    if given.stream is not None:
        graph = streaming_transform(graph, given.stream, block=1 if given.block is None else given.block)
    elif given.block is not None:
        raise InputError("--block is given without --stream", where="command line",
                         remedy="name the axis of the steps as well: --stream 1")  # fmt: skip
    return compile_model(graph, _config(given.config), Path(given.model).stem, quick=given.quick)


def _shape(text: str) -> tuple[str, tuple[int, ...]]:
    name, _, sizes = text.rpartition("=")
    if not name or not all(s.strip().isdecimal() for s in sizes.split(",")):
        raise InputError(
            f"--shape is {text!r}", where="command line", remedy="write it as --shape name=60,1,8"
        )
    return name, tuple(int(s) for s in sizes.split(","))


def _ties(texts: Sequence[str]) -> dict[str, str]:
    ties: dict[str, str] = {}
    for text in texts:
        output, _, target = text.partition("=")
        if not output or not target or output in ties:
            remedy = "write each as --tie h_out=h, every output once"
            raise InputError(f"--tie is {text!r}", where="command line", remedy=remedy)
        ties[output] = target
    return ties


def _constant(text: str) -> tuple[str, Any]:
    """A number, or a list of them where there are commas."""
    name, _, values = text.rpartition("=")
    try:
        numbers = [json.loads(v) for v in values.split(",")]
    except json.JSONDecodeError:
        numbers = []
    if not name or not numbers or not all(isinstance(n, (bool, int, float)) for n in numbers):
        raise InputError(
            f"--constant is {text!r}", where="command line", remedy="write it as --constant sr=16000"
        )
    return name, numbers if "," in values else numbers[0]


def _config(name: str) -> Config:
    return Config.load(name) if name.endswith(".toml") else Config.preset(name)


def report(program: Program) -> str:
    """Time and size of a program, for people."""
    metrics = program.metrics()
    spaced, contiguous = (program.cycle_count_per_inference(spaced=s) for s in (True, False))
    micros = program.compute_duration_per_inference_us()
    lines = [
        f"configuration   {program.hw_config.name}",
        f"latency         {spaced} cycles spaced, {contiguous} contiguous ({micros:.3f} µs at"
        f" {program.hw_config.clock_mhz:g} MHz)",
        f"instructions    {metrics['instructions']}",
        f"program file    {metrics['file_bytes']} bytes",
    ]
    block = program.block_steps()
    if block > 1:
        per_step = metrics["models"][0]["cycles_per_step"]
        lines.append(
            f"block           {block} steps an inference, {per_step:.1f} cycles a step one after the other"
        )
    for i in range(program.num_inputs()):
        lines.append(f"input {i}         {program.input_shape(0, i)} {program.input_format(0, i)}")
    for i in range(program.num_outputs()):
        late = program.output_latency(0, i)
        told = f", {late} step{'s' * (late > 1)} late" if late else ""
        lines.append(f"output {i}        {program.output_shape(0, i)} {program.output_format(0, i)}{told}")
    for k, core in enumerate(metrics["cores"]):
        uses = ", ".join(f"{name} {use['used']}/{use['depth']}" for name, use in core.items())
        lines.append(f"core {k}          {uses}")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
