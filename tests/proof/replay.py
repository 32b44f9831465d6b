"""Replays recorded programs on other builds of the core: every set of kernels, other compilers, an emulated aarch64,
and under ThreadSanitizer.

    python tests/proof/replay.py             all builds that this machine can make: about ten minutes on two cores
    python tests/proof/replay.py aarch64     those whose names contain one of the words

The recording holds random programs over the whole instruction table, compiled random graphs (whole, or one step with
its states) and models of the zoo, with inputs and with the results and states that the reference machine (NumPy) gave.
replay.cpp runs it, without Python, under plain settings of the floating-point unit and under flushing ones, and as a
batch of streams on two threads. A build whose compiler or emulator is not installed is skipped and named: Debian has
them as g++-aarch64-linux-gnu, qemu-user and clang.
"""

from __future__ import annotations

import argparse
import os
import platform
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
from tqdm import tqdm

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "support")]

import native_builds
from generators import random_graph
from random_programs import draw, inputs_of
from recorded_models import record

from ltc_compiler import NNIR, Config, Program
from zoo import SMALL

FOLDER = ROOT / "build" / "replay"
RECORDING = FOLDER / "recording"
RANDOM, GRAPHS, CALLS = 300, 60, 3
MODELS = ("ltc", "cfc_wired", "lstm_two_layers", "gated_ltc_rk4", "causal_attention", "tcn")
MACHINES = (Config.tiny_c1b8(), Config.v80_c6b32())
X86_KERNELS = ("sse2", "avx2", "avx512", "avx512_bf16")


class Build(NamedTuple):
    """A compiler, its options, the kernels of its target, what runs the program, and how often at once.

    Where it runs more than once, what counts is what the threads share: one set of kernels will do.
    """

    name: str
    compiler: str
    options: tuple[str, ...]
    kernels: tuple[str, ...]
    emulator: tuple[str, ...] = ()
    threads: int = 1


ARM = ("qemu-aarch64", "-L", "/usr/aarch64-linux-gnu")
BUILDS = (
    Build("x86-64, g++ -O3", "g++", ("-O3",), X86_KERNELS),
    Build("x86-64, g++ -O1", "g++", ("-O1",), X86_KERNELS),
    Build("x86-64, g++ -O3 -march=native", "g++", ("-O3", "-march=native"), X86_KERNELS),
    Build("x86-64, clang++ -O3", "clang++", ("-O3",), X86_KERNELS),
    Build(
        "x86-64, g++ -O1 -fsanitize=thread",
        "g++",
        ("-O1", "-g1", "-fsanitize=thread"),
        X86_KERNELS,
        threads=2,
    ),
    Build("aarch64, g++ -O3", "aarch64-linux-gnu-g++", ("-O3",), ("generic",), ARM),
    Build(
        "aarch64, g++ -O3 armv8.6-a",
        "aarch64-linux-gnu-g++",
        ("-O3", "-march=armv8.6-a"),
        ("generic",),
        ARM,
    ),
)


def recording() -> bytes:
    """Programs, calls and what the reference machine answered, as replay.cpp reads them."""
    parts: list[bytes] = []

    def number(n: int) -> None:
        parts.append(np.uint32(n).tobytes())

    def add(program: Program, bit_accurate: bool, rng: np.random.Generator) -> None:
        data, oracle = program.save_bytes(), program.to_oracle(bit_accurate)
        number(len(data))
        parts.append(data)
        number(bit_accurate)
        number(CALLS * len(program.image.models))
        for _ in range(CALLS):
            for index, model in enumerate(program.image.models):
                number(index)
                inputs = inputs_of(rng, model)
                outputs = oracle.run(*inputs, model_index=index)
                states = oracle.get_state(index).values()
                for array in (*inputs, *(outputs if isinstance(outputs, tuple) else (outputs,)), *states):
                    parts.append(np.ascontiguousarray(array, np.float32).tobytes())

    programs = [(Program(draw(seed, 40)), seed % 4 != 0) for seed in range(RANDOM)]
    for seed in range(GRAPHS):
        graph = random_graph(np.random.default_rng(seed), streamable=seed % 2 == 0, wishes=True)
        nnir = NNIR(graph).streaming_transform(0)[0] if seed % 2 == 0 else NNIR(graph)
        programs.append((nnir.to_program(replace(MACHINES[seed % 2], tensor_rows=1 << 14)), seed % 3 != 0))
    for name in MODELS:
        programs += [(record(SMALL[name], "default").nnir.to_program(machine), True) for machine in MACHINES]
    number(len(programs))
    work = tqdm(programs, desc="recording", unit="program", mininterval=1)
    for seed, (program, bit_accurate) in enumerate(work):
        add(program, bit_accurate, np.random.default_rng(seed))
    return b"".join(parts)


def obstacle(build: Build) -> str:
    """Why this machine cannot make or run the build; empty if it can."""
    if not build.emulator and platform.machine() not in ("x86_64", "AMD64"):
        return f"this is {platform.machine()}"
    missing = [tool for tool in (build.compiler, *build.emulator[:1]) if shutil.which(tool) is None]
    if "-fsanitize=thread" in build.options and not missing:
        found = subprocess.run(
            [build.compiler, "-print-file-name=libtsan.so"], capture_output=True, text=True, check=True
        )
        missing += [] if "/" in found.stdout else ["libtsan"]
    return f"{' and '.join(missing)} not installed" if missing else ""


def make(build: Build) -> Path:
    """libltc and replay.cpp by this compiler with these options and no others that choose how to optimise."""
    target = {"CMAKE_SYSTEM_NAME": "Linux", "CMAKE_SYSTEM_PROCESSOR": "aarch64"} if build.emulator else {}
    folder = FOLDER / build.name.replace(" ", "_").replace(",", "")
    flags = " ".join(build.options)
    return native_builds.build(
        Path(__file__).parent,
        folder,
        "replay",
        CMAKE_CXX_COMPILER=build.compiler,
        CMAKE_CXX_FLAGS=flags,
        **target,
    )


def main() -> None:
    """Prints a line for each build and set of kernels; exit status 1 if one gives other bits."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("words", nargs="*", help="only the builds whose names contain one of these")
    words = parser.parse_args().words
    builds = [b for b in BUILDS if not words or any(word in b.name for word in words)]
    FOLDER.mkdir(parents=True, exist_ok=True)
    RECORDING.write_bytes(recording())
    print(
        f"recorded {RANDOM} random programs, {GRAPHS} of random graphs, {len(MODELS) * len(MACHINES)} of models",
        flush=True,
    )
    answers: dict[str, str] = {}
    for build in builds:
        if reason := obstacle(build):
            print(f"SKIPPED {build.name}: {reason}", flush=True)
            continue
        program = make(build)
        for kernels in (
            build.kernels if build.threads == 1 else ("",)
        ):  # "": those that the core itself chooses
            command = [*build.emulator, program, RECORDING, str(build.threads)]
            done = subprocess.run(command, env=os.environ | {"LTC_SIMD": kernels},
                                  capture_output=True, text=True, check=False)  # fmt: skip
            if "no kernels" in done.stdout:
                print(f"SKIPPED {build.name}, {kernels}: not for this CPU", flush=True)
                continue
            print(f"{build.name}: {done.stdout.strip()}{done.stderr.strip()}", flush=True)
            if done.returncode:
                sys.exit(f"{build.name}, {kernels}: exit status {done.returncode}")
            answers[f"{build.name}, {kernels}"] = done.stdout.split(" ", 1)[1]
    if len(set(answers.values())) > 1 or not answers:
        sys.exit("the builds do not agree, or none was run")
    print(f"{len(answers)} builds gave the bits of the reference machine")


if __name__ == "__main__":
    main()
