"""Fits the pieces of sim_core/numerics/pieces.h: the bf16 sigmoid and tanh as polynomials, with no division.

    python tests/proof/fit_pieces.py > sim_core/numerics/pieces.h

A piece is the solution of a linear program: the value of the polynomial at every bf16 input of the piece must round to
the table's entry, and the least distance of any from where another entry begins, in ulps of bf16, is made as large as
can be. What the kernels compute with them is then looked at for every bf16 input by tests/core/test_units.py. Needs
SciPy. Raises ValueError if a piece has no solution.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linprog

from ltc_compiler import numerics

F64 = NDArray[np.float64]
PIECES = 32
LEAST_MARGIN = 1e-4  # ulps of bf16: ten times the error of the kernels' fp32 operations
LOG2_E = np.float32(float.fromhex("0x1.715476p+0"))
MAGIC = np.float32(1.5 * 2.0**23)
SIGMOID_TOP, SIGMOID_MOST = 10, 7.0  # the highest power of two; above this x the sigmoid is 1
TANH_SCALE, TANH_MOST = np.float32(7.0), np.float32(4.4)


def piece(x: F64, y: F64, powers: tuple[int, ...]) -> tuple[F64, float]:
    """The coefficients of x**power for each of `powers`, and the margin: y are positive bf16 values."""
    ulp = 2.0 ** (np.floor(np.log2(y)) - 7)
    below = np.where(y == ulp * 128, 0.25, 0.5)
    terms = np.stack([x**p for p in powers], 1) / ulp[:, None]
    size = np.abs(terms).max(0)
    size[size == 0] = 1
    margin = np.ones((len(x), 1))
    result = linprog(
        np.r_[np.zeros(len(powers)), -1],
        A_ub=np.r_[np.c_[-terms / size, margin], np.c_[terms / size, margin]],
        b_ub=np.r_[below - y / ulp, y / ulp + 0.5],
        bounds=[(None, None)] * len(powers) + [(None, 0.4)],
        method="highs",
    )
    if result.x is None or result.x[-1] < LEAST_MARGIN:
        raise ValueError(f"no piece of degree {powers[-1]} for x from {x.min()} to {x.max()}")
    return result.x[:-1] / size, float(result.x[-1])


def inputs() -> tuple[NDArray[np.float32], F64]:
    """Every finite bf16 number that a row can hold, ascending; as it is and exactly."""
    x = (np.arange(65536, dtype=np.uint32) << 16).view(np.float32)
    x = np.unique(x[np.isfinite(x) & ((np.abs(x) >= 2.0**-126) | (x == 0))])
    return x, x.astype(np.float64)


def fma(a: NDArray[np.float32], b: np.float32, c: NDArray[np.float32] | np.float32) -> NDArray[np.float32]:
    return (a.astype(np.float64) * float(b) + np.asarray(c, np.float64)).astype(np.float32)


def sigmoid() -> tuple[F64, float]:
    """By k modulo 32, (32, 4): x log2(e) is k + f, and the sigmoid the piece's cubic in f times 2**min(k, 0)."""
    x, _ = inputs()
    x = x[x >= -87.25]
    y = numerics.activation_bf16("sigmoid", x).astype(np.float64)
    inside = np.minimum(x, np.float32(SIGMOID_MOST))
    k = fma(inside, LOG2_E, MAGIC) - MAGIC
    f = fma(inside, LOG2_E, -k).astype(np.float64)
    scaled = y * 2.0 ** -np.minimum(k, 0)
    number = np.maximum(k, SIGMOID_TOP - PIECES + 1).astype(int)
    table, margins = np.zeros((PIECES, 4)), []
    for n in range(SIGMOID_TOP - PIECES + 1, SIGMOID_TOP + 1):
        points = np.unique(np.c_[f, scaled][number == n], axis=0)
        table[n % PIECES], margin = piece(points[:, 0], points[:, 1], (0, 1, 2, 3))
        margins.append(margin)
    return table, min(margins)


def tanh() -> tuple[F64, float]:
    """By the nearest whole number to |x| * TANH_SCALE, (32, 3): quadratics in |x|."""
    x, _ = inputs()
    x = x[x > 0]
    y = numerics.activation_bf16("tanh", x).astype(np.float64)
    inside = np.minimum(x, TANH_MOST)
    number = (fma(inside, TANH_SCALE, MAGIC) - MAGIC).astype(int)
    table, margins = np.zeros((PIECES, 3)), []
    for n in range(number.max() + 1):
        points = np.unique(np.c_[inside, y][number == n], axis=0).astype(np.float64)
        powers = (1, 2) if n == 0 else (0, 1, 2)
        table[n, powers[0] :], margin = piece(points[:, 0], points[:, 1], powers)
        margins.append(margin)
    return table, min(margins)


def array(name: str, table: F64, margin: float) -> str:
    rows = []
    for column in table.T.astype(np.float32):
        words = [f"{float(value).hex()}f" for value in column]
        lines = [", ".join(words[n : n + 4]) for n in range(0, PIECES, 4)]
        rows.append("    {" + ",\n     ".join(lines) + "},\n")
    head = f"// No value is nearer than {margin:.4f} ulp to where another entry of the table begins.\n"
    return f"{head}alignas(64) inline constexpr float {name}[{table.shape[1]}][{PIECES}] = {{\n{''.join(rows)}}};\n"


def main() -> None:
    """Print the header."""
    print("// The bf16 sigmoid and tanh in pieces, which sequences.h picks from: the coefficients of")
    print("// each power, by piece. Printed by tests/proof/fit_pieces.py, which says how they are found.")
    print("#pragma once\n\nnamespace ltc {\n")
    print(f"inline constexpr float sigmoid_most = {SIGMOID_MOST}f;")
    print(array("sigmoid_pieces", *sigmoid()))
    print(f"inline constexpr float tanh_scale = {float(TANH_SCALE)}f, tanh_most = {float(TANH_MOST).hex()}f;")
    print(array("tanh_pieces", *tanh()))
    print("}  // namespace ltc")


if __name__ == "__main__":
    main()
