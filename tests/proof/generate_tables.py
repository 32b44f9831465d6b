"""Makes, or with --check proves, the bf16 activation tables: rule 9 of docs/numerics.md.

Each of the 65,536 bf16 inputs of each function is evaluated by mpmath with growing precision until an
interval around the value rounds to one bf16 number (A. Ziv, Fast evaluation of elementary mathematical
functions with correctly rounded last bit, 1991). The file is little-endian uint16 [function][input], in
the order of ltc_compiler.numerics.ACTIVATIONS. It takes some ten seconds.

    python tests/proof/generate_tables.py            writes ltc_compiler/activation_tables.bin
    python tests/proof/generate_tables.py --check    compares every entry and the SHA-256; writes nothing
"""

from __future__ import annotations

import argparse
import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mpmath as mp
import numpy as np
from tqdm import tqdm

from ltc_compiler import numerics

NAN, INFINITY, SIGN = 0x7FC0, 0x7F80, 0x8000
LOWEST = -133  # exponent of the smallest bf16 subnormal
TABLE = Path(numerics.__file__).parent.parent / "activation_tables.bin"

FUNCTIONS: dict[str, Callable[[Any], Any]] = {
    "sigmoid": lambda x: 1 / (1 + mp.exp(-x)),
    "tanh": mp.tanh,
    "exp": mp.exp,
    "exp2": lambda x: mp.power(2, x),
    "log": mp.log,
    "softplus": lambda x: mp.log1p(mp.exp(x)) if x < 0 else x + mp.log1p(mp.exp(-x)),
    "silu": lambda x: x / (1 + mp.exp(-x)),
    "gelu": lambda x: x * mp.erfc(-x / mp.sqrt(2)) / 2,
    "gelu_tanh": lambda x: x / (1 + mp.exp(-mp.sqrt(8 / mp.pi) * (x + mp.mpf(44715) / 1000000 * x**3))),
    "reciprocal": lambda x: 1 / x,
    "rsqrt": lambda x: 1 / mp.sqrt(x),
    "sin": mp.sin,
    "cos": mp.cos,
    "erf": mp.erf,
    "atan": mp.atan,
}

# The limits: at -0, +0, -infinity, +infinity, as bf16 patterns.
LIMITS: dict[str, tuple[int, int, int, int]] = {
    "sigmoid": (0x3F00, 0x3F00, 0x0000, 0x3F80),
    "tanh": (0x8000, 0x0000, 0xBF80, 0x3F80),
    "exp": (0x3F80, 0x3F80, 0x0000, INFINITY),
    "exp2": (0x3F80, 0x3F80, 0x0000, INFINITY),
    "log": (SIGN | INFINITY, SIGN | INFINITY, NAN, INFINITY),
    "softplus": (0x3F31, 0x3F31, 0x0000, INFINITY),
    "silu": (0x8000, 0x0000, 0x8000, INFINITY),
    "gelu": (0x8000, 0x0000, 0x8000, INFINITY),
    "gelu_tanh": (0x8000, 0x0000, 0x8000, INFINITY),
    "reciprocal": (SIGN | INFINITY, INFINITY, 0x8000, 0x0000),
    "rsqrt": (SIGN | INFINITY, INFINITY, NAN, 0x0000),
    "sin": (0x8000, 0x0000, NAN, NAN),
    "cos": (0x3F80, 0x3F80, NAN, NAN),
    "erf": (0x8000, 0x0000, 0xBF80, 0x3F80),
    "atan": (0x8000, 0x0000, 0xBFC9, 0x3FC9),
}


def nearest_even(man: int, exponent: int) -> int:
    """The flushed bf16 pattern, without sign, of man * 2^exponent > 0."""
    if man.bit_length() + exponent < LOWEST:
        return 0
    unit = max(man.bit_length() - 8 + exponent, LOWEST)
    shift = unit - exponent
    if shift <= 0:
        quotient = man << -shift
    else:
        quotient, rest = man >> shift, man & ((1 << shift) - 1)
        half = 1 << (shift - 1)
        quotient += rest > half or (rest == half and quotient & 1)
    # quotient <= 256 steps of 2^unit; its own bit 7 is the first exponent step of the pattern.
    pattern = ((unit - LOWEST) << 7) + quotient
    return 0 if pattern < 0x80 else min(pattern, INFINITY)


def correctly_rounded(function: Callable[[Any], Any], x: float) -> int:
    """The bf16 pattern of function(x), for finite x other than zero."""
    precision = 80
    while precision < 4096:
        with mp.workprec(precision):
            sign, man, exponent, _ = function(mp.mpf(x))._mpf_
        if not man:  # log(1): no other finite result is zero
            return 0
        # No result lies exactly halfway between two bf16 numbers, so that an interval of relative width
        # 2^(21 - precision), more than the error of the evaluation, decides at some precision.
        middle, slack = man << precision, man << 20
        answers = {nearest_even(end, exponent - precision) for end in (middle - slack, middle + slack)}
        if len(answers) == 1:
            return answers.pop() | (SIGN if sign else 0)
        precision *= 2
    raise AssertionError(f"no decision at {x!r}")


def entry(name: str, pattern: int) -> int:
    """The result of function `name` for one bf16 bit pattern."""
    negative, magnitude = pattern >> 15, pattern & 0x7FFF
    if magnitude > INFINITY:
        return NAN
    if magnitude < 0x80:  # zero, and the subnormals that read as zero
        return LIMITS[name][1 - negative]
    if magnitude == INFINITY:
        return LIMITS[name][3 - negative]
    if negative and name in ("log", "rsqrt"):
        return NAN
    x = float(np.array(pattern << 16, np.uint32).view(np.float32))
    result = correctly_rounded(FUNCTIONS[name], x)
    return SIGN | result if name in ("silu", "gelu", "gelu_tanh") and negative else result


def make(names: tuple[str, ...]) -> np.ndarray[Any, np.dtype[np.uint16]]:
    work = tqdm(names, unit="table")
    return np.array([[entry(name, pattern) for pattern in range(1 << 16)] for name in work], "<u2")


def main() -> None:
    parser = argparse.ArgumentParser(description="Make or prove the bf16 activation tables.")
    parser.add_argument("--check", action="store_true", help="compare with the file and write nothing")
    check = parser.parse_args().check
    tables = make(numerics.ACTIVATIONS)
    digest = hashlib.sha256(tables.tobytes()).hexdigest()
    if not check:
        TABLE.write_bytes(tables.tobytes())
        print(f"{TABLE.name}: SHA-256 {digest}, to be named by numerics.TABLE_SHA256")
        return
    stored = np.frombuffer(TABLE.read_bytes(), "<u2").reshape(tables.shape)
    wrong = np.argwhere(stored != tables)
    for function, pattern in wrong[:16]:
        print(f"{numerics.ACTIVATIONS[function]}({pattern:#06x}): stored {stored[function, pattern]:#06x}, "
              f"correct {tables[function, pattern]:#06x}")  # fmt: skip
    if len(wrong) or digest != numerics.TABLE_SHA256:
        raise SystemExit(f"{len(wrong)} wrong entries; SHA-256 {digest}, pinned {numerics.TABLE_SHA256}")
    print(f"{tables.size} entries are correctly rounded; SHA-256 {digest}")


if __name__ == "__main__":
    main()
