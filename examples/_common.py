"""What the examples and the benchmark share: text tables, fair timing, and a friendly word about missing packages.

Timing is interleaved: in every round each contestant gets its turn, so that whatever else the machine does disturbs
all of them alike. Everything timed runs on one core and one thread, and each call is timed on its own.
"""

from __future__ import annotations

import argparse
import importlib
import os
import platform
import statistics
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    import torch

    from ltc_compiler import Config
    from ltc_compiler.program import Program

MISSING = """\
This needs PyTorch and a few small packages, and {name} is not installed. In a checkout, `make demo` installs
them. Otherwise:
  pip install -c constraints.txt "ltc-compiler[torch,demo]\""""


WARM_UP = 5  # untimed calls at the start of each turn: the one before has filled the caches


def require(*packages: str) -> None:
    """Leave with one sentence, and no traceback, if a package is missing."""
    for name in packages:
        try:
            importlib.import_module(name)
        except ModuleNotFoundError as error:
            if error.name != name:
                raise
            sys.exit(MISSING.format(name=name))


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options that the examples share: which accelerators, and where pictures go."""
    configs = [preset("v80_c6b32"), preset("ia_840f_c3b64")]
    words = "accelerator configurations; the first one is simulated"
    parser.add_argument("--config", nargs="+", type=preset, default=configs, metavar="NAME", help=words)
    parser.add_argument("--output", type=Path, default=Path("demo_output"), help="folder for the picture")


def positive(text: str) -> int:
    """A positive integer for argparse."""
    if not text.isdecimal() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"{text!r} is not a positive integer")
    return int(text)


def preset(name: str) -> Config:
    """A configuration for argparse, which prints the refusal without a traceback."""
    from ltc_compiler import Config, ConfigError

    try:
        return Config.preset(name)
    except ConfigError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


# ---------------------------------------------------------------- tables


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table in Markdown with aligned columns: the first to the left, the others to the right."""
    widths = [max(len(line[i]) for line in (header, *rows)) for i in range(len(header))]

    def line(cells: Sequence[str]) -> str:
        texts = [
            c.ljust(w) if i == 0 else c.rjust(w) for i, (c, w) in enumerate(zip(cells, widths, strict=True))
        ]
        return "| " + " | ".join(texts) + " |"

    rule = "|" + "|".join("-" * (w + 1) + ("-" if i == 0 else ":") for i, w in enumerate(widths)) + "|"
    return "\n".join([line(header), rule, *map(line, rows)])


def accelerator_table(programs: Mapping[str, Program]) -> str:
    """Latency of one inference on each configuration, in cycles and µs.

    Spaced: the accelerator was idle before. Contiguous: the input arrives the moment the previous inference ends.
    """
    rows = []
    for name, program in programs.items():
        cells = [name, f"{program.hw_config.clock_mhz:.0f}"]
        for spaced in (True, False):
            cells.append(f"{program.cycle_count_per_inference(spaced=spaced)}")
            cells.append(f"{program.compute_duration_per_inference_us(spaced=spaced):.2f}")
        rows.append(cells)
    return table(["configuration", "MHz", "cycles, spaced", "µs", "cycles, contiguous", "µs"], rows)


# ---------------------------------------------------------------- timing


class Timing(NamedTuple):
    """Times of single calls in µs."""

    median: float
    p99: float
    calls: int


def interleaved(
    contestants: Mapping[str, Callable[[], object]], rounds: int = 20, calls: int = 25
) -> dict[str, Timing]:
    """Median and 99th percentile of one call of each contestant over interleaved rounds, its caches warm."""
    samples: dict[str, list[float]] = {name: [] for name in contestants}
    clock = time.perf_counter_ns
    with one_core():
        for _ in range(rounds):
            for name, call in contestants.items():
                for _ in range(WARM_UP):
                    call()
                for _ in range(calls):
                    begin = clock()
                    call()
                    samples[name].append((clock() - begin) / 1000)
    timings = {}
    for name, times in samples.items():
        timings[name] = Timing(statistics.median(times), statistics.quantiles(times, n=100)[98], len(times))
    return timings


@contextmanager
def one_core() -> Iterator[None]:
    """One core and one PyTorch thread; everything as before afterwards."""
    import torch

    threads = torch.get_num_threads()
    cores = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set()
    try:
        if cores:
            os.sched_setaffinity(0, {max(cores)})
        torch.set_num_threads(1)
        yield
    finally:
        torch.set_num_threads(threads)
        if cores:
            os.sched_setaffinity(0, cores)


def timing_table(timings: Mapping[str, Timing]) -> str:
    """Median and p99 of each contestant, and how many times the first one's median it saves."""
    first = next(iter(timings.values())).median
    rows = [
        [name, f"{t.median:.1f}", f"{t.p99:.1f}", f"{first / t.median:.1f}"] for name, t in timings.items()
    ]
    return table(["one call on this CPU", "median µs", "p99 µs", "times faster"], rows)


def machine() -> str:
    """The CPU and the versions that a timing was taken with."""
    import torch

    import ltc_compiler

    versions = f"Python {platform.python_version()}, torch {torch.__version__}, ltc-compiler {ltc_compiler.__version__}"
    return f"{cpu_name()}, one core, one thread; {versions}"


def cpu_name() -> str:
    """As Linux names it; elsewhere what Python knows."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def torchscript(module: torch.nn.Module, *example: Any) -> torch.jit.ScriptModule:
    """The module traced, frozen and warmed up, without gradients: the contestant that users try first."""
    import torch

    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter(
            "ignore"
        )  # tracing warns about constants, and newer releases about TorchScript itself
        script = torch.jit.freeze(torch.jit.trace(module.eval(), example, check_trace=False))  # type: ignore[no-untyped-call]
        for _ in range(3):
            script(*example)
    return script
