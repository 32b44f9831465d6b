"""Measures the fp32 activation units against fp64 references: rule 10 of docs/numerics.md.

    python tests/proof/fp32_ulp.py                   every 997th bit pattern of every unit, in NumPy
    python tests/proof/fp32_ulp.py --dense           every pattern from 2^-30 up to 2^7, both signs: 20 s a unit
    python tests/proof/fp32_ulp.py --all sigmoid     all 2^32 patterns of one unit: 3 minutes

Both halves of the contract are run and must agree in every bit. The error is in ulps of the exact result,
those of 2^-126 at the least; a result that the contract flushes counts as exact if the exact result is
below 2^-126, and one that overflows if it rounds to infinity.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from tqdm import tqdm

import ltc_compiler._core as _core
from ltc_compiler import numerics

Array = np.ndarray[Any, np.dtype[Any]]
BLOCK = 1 << 16  # stays in a core's cache
LEAST, MOST = 2.0**-126, 2.0**128 * (1 - 2.0**-25)


def _erfc(x: Array) -> Array:
    return np.fromiter(map(math.erfc, x), np.float64, len(x))


REFERENCES: dict[str, Callable[[Array], Array]] = {
    "sigmoid": lambda x: 1 / (1 + np.exp(-x)),
    "tanh": np.tanh,
    "exp": np.exp,
    "exp2": np.exp2,
    "log": np.log,
    "softplus": lambda x: np.maximum(x, 0) + np.log1p(np.exp(-np.abs(x))),
    "silu": lambda x: x / (1 + np.exp(-x)),
    "gelu": lambda x: x * _erfc(-x / np.sqrt(2)) / 2,
    "gelu_tanh": lambda x: x / (1 + np.exp(-np.sqrt(8 / np.pi) * (x + 0.044715 * x**3))),
    "reciprocal": lambda x: 1 / x,
    "rsqrt": lambda x: 1 / np.sqrt(x),
}


def ulps(result: Array, exact: Array) -> Array:
    exponent = np.maximum(np.frexp(exact)[1], -125)
    error = np.abs(result.astype(np.float64) - exact) * np.ldexp(1.0, 24 - exponent)
    flushed = (
        (np.abs(exact) < LEAST) & (np.abs(result) <= LEAST) & ((result == 0) | (np.abs(result) == LEAST))
    )
    right = flushed | (result == exact) | (np.isnan(result) & np.isnan(exact))
    right |= np.isinf(result) & (np.abs(exact) >= MOST) & (np.sign(result) == np.sign(exact))
    return np.where(right, 0, np.nan_to_num(error, nan=np.inf))


SPARSE, ALL = range(0, 1 << 32, 997), range(1 << 32)
DENSE = range((127 - 30) << 23, (127 + 7) << 23)  # and, a sign bit further on, the negative ones


def blocks(*spans: range) -> Iterator[range]:
    for span in spans:
        yield from (span[start : start + BLOCK] for start in range(0, len(span), BLOCK))


def measure(name: str, *spans: range) -> None:
    worst, where, differing = 0.0, 0.0, 0
    for block in tqdm(list(blocks(*spans)), desc=name, unit="block"):
        patterns = np.arange(block.start, block.stop, block.step, np.uint64).astype(np.uint32)
        x = patterns.view(np.float32)
        result = numerics.ACTIVATIONS_FP32[name](x)
        differing += int(
            (_core.numerics.activation_fp32(name, x).view(np.uint32) != numerics.bits(result)).sum()
        )
        read = numerics.write_fp32(x)
        error = ulps(result, REFERENCES[name](read.astype(np.float64)))
        place = int(error.argmax())
        if error[place] > worst:
            worst, where = float(error[place]), float(x[place])
    print(f"{name}: {worst:.3f} ulp at {where.hex()}; {differing} differ between the halves", flush=True)
    if differing or not np.isfinite(worst):
        raise SystemExit(1)


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure the error of the fp32 activation units.")
    parser.add_argument("names", nargs="*", metavar="unit", help="all units without it")
    parser.add_argument("--dense", action="store_true", help="every bit pattern from 2^-30 up to 2^7")
    parser.add_argument("--all", action="store_true", help="every bit pattern, not every 997th")
    arguments = parser.parse_args()
    np.seterr(all="ignore")
    negative = range(DENSE.start + (1 << 31), DENSE.stop + (1 << 31))
    spans = (ALL,) if arguments.all else (DENSE, negative) if arguments.dense else (SPARSE,)
    for name in arguments.names or numerics.ACTIVATIONS:
        measure(name, *spans)


if __name__ == "__main__":
    main()
