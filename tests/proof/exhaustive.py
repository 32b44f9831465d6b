"""Every input of the functions of the numeric contract, against references that share nothing with it.

    python tests/proof/exhaustive.py                 all checks: about a quarter of an hour on two cores
    python tests/proof/exhaustive.py gelu div        some of them
    python tests/proof/exhaustive.py --list          their names

exhaustive.cpp does the work; this builds it for this CPU with the flags of the core, draws its progress, evaluates
each unit's worst input anew with mpmath, and compares the errors with the bounds that docs/numerics.md states. At last
the NumPy half runs beside the C++ half on every 997th bit pattern of each unit (--stride 1: on all, another four
minutes a unit).
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from pathlib import Path

import mpmath
import numpy as np
from generate_tables import FUNCTIONS
from tqdm import tqdm

from ltc_compiler import _core, numerics

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "tests" / "support"))

import native_builds

FOLDER = ROOT / "build" / "proof"
PROGRAM = FOLDER / "exhaustive"
BOUNDS = {"sigmoid": 2.402, "tanh": 1.310, "exp": 0.991, "exp2": 1.080, "log": 0.860, "softplus": 2.797,
          "silu": 3.394, "gelu": 6.031, "gelu_tanh": 3.404, "reciprocal": 0.5, "rsqrt": 1.491, "sin": 1.066,
          "cos": 1.071, "erf": 1.311, "atan": 1.922}  # fmt: skip
BLOCK = 1 << 20


def run(name: str, threads: int) -> dict[str, str]:
    """One check of exhaustive.cpp with a progress bar: the fields of its result. SystemExit if an input is wrong."""
    fields: dict[str, str] = {}
    with subprocess.Popen([PROGRAM, name, str(threads)], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        with tqdm(desc=name, unit="input", unit_scale=True, mininterval=1) as bar:
            for line in process.stdout:
                kind, *words = line.split()
                if kind == "progress":
                    bar.total = int(words[1])
                    bar.update(int(words[0]) - bar.n)
                else:
                    fields = dict(word.split("=") for word in words)
    if process.returncode or not fields:
        sys.exit(
            f"{name}: wrong for {fields.get('wrong', '?')} inputs, the first {fields.get('first_wrong', '?')}"
        )
    return fields


def exact_error(name: str, pattern: int) -> float:
    """The error of the C++ half at one bit pattern, in ulps, by mpmath."""
    x = np.array([pattern], np.uint32).view(np.float32)
    found = float(_core.numerics.activation_fp32(name, x)[0])
    with mpmath.workprec(400):
        exact = FUNCTIONS[name](mpmath.mpf(float(x[0])))
        exponent = max(int(mpmath.frexp(exact)[1]), -125)
        return float(abs(mpmath.mpf(found) - exact) * mpmath.mpf(2) ** (24 - exponent))


def check(name: str, threads: int) -> None:
    begin = time.monotonic()
    fields = run(name, threads)
    took = f"{time.monotonic() - begin:.0f} s"
    inputs = int(fields["inputs"])
    if name not in BOUNDS:
        print(f"{name}: right for all {inputs:,} inputs ({took})", flush=True)
        return
    pattern = int(fields["at"], 16)
    error = exact_error(name, pattern)
    at = float(np.array(pattern, np.uint32).view(np.float32))
    print(
        f"{name}: at most {error:.4f} ulp, at {at:.9g} ({at.hex()}); of all {inputs:,} results"
        f" {100 * int(fields['nearest']) / inputs:.2f} % within half an ulp ({took})",
        flush=True,
    )
    if abs(error - float(fields["worst"])) > 1e-4:
        sys.exit(f"{name}: mpmath finds {error} ulp where the program found {fields['worst']}")
    if error > BOUNDS[name]:
        sys.exit(f"{name}: docs/numerics.md promises {BOUNDS[name]} ulp")


def halves(name: str, stride: int) -> None:
    """NumPy beside C++ on every stride-th bit pattern."""
    for start in tqdm(
        range(0, 1 << 32, BLOCK * stride), desc=f"{name} in NumPy", unit="block", mininterval=1
    ):
        patterns = np.arange(start, min(start + BLOCK * stride, 1 << 32), stride, np.uint64).astype(np.uint32)
        x = patterns.view(np.float32)
        mine = numerics.bits(numerics.ACTIVATIONS_FP32[name](x))
        differing = np.flatnonzero(mine != _core.numerics.activation_fp32(name, x).view(np.uint32))
        if len(differing):
            sys.exit(f"{name}: the halves differ at {patterns[differing[0]]:#010x}")
    print(f"{name}: NumPy and C++ agree on every {stride}th bit pattern", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description="Check the numeric contract on every input.")
    parser.add_argument("names", nargs="*", metavar="check", help="all of them without it")
    parser.add_argument("--list", action="store_true", help="print the names of the checks")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--stride", type=int, default=997, help="of the patterns that both halves compute")
    arguments = parser.parse_args()
    native_builds.build(Path(__file__).parent, FOLDER, "exhaustive")
    known = subprocess.run([PROGRAM], capture_output=True, text=True, check=True).stdout.split()
    unknown = set(arguments.names) - set(known)
    if unknown:
        sys.exit(f"no check {', '.join(sorted(unknown))}; there are: {', '.join(known)}")
    if arguments.list:
        print("\n".join(known))
        return
    np.seterr(all="ignore")
    for name in arguments.names or known:
        check(name, arguments.threads)
    for name in numerics.ACTIVATIONS:
        if name in (arguments.names or known):
            halves(name, arguments.stride)


if __name__ == "__main__":
    main()
