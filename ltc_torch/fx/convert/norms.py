"""Converters of norms: of vectors, over any axes, and those of matrices that need no singular values."""

from __future__ import annotations

import math
from typing import Any

from ltc_compiler.frontend.powers import number_power
from ltc_compiler.ir.graph import Value
from ltc_torch.fx.convert.decompose import Axes
from ltc_torch.fx.convert.emit import Emitter
from ltc_torch.fx.registry import Refused, converts


@converts("linalg_vector_norm")
def vector_norm(c: Emitter, x: Value, ord: float = 2, dim: Axes = None, keepdim: bool = False) -> Value:
    """The p-norm of all elements of the axes, laid end to end; the count of what is not 0 for p = 0."""
    size = c.add("abs", x)
    if ord == 0:
        return c.reduce("sum", c.add("ne", x, 0.0), dim, keepdim)
    if ord == 1:
        return c.reduce("sum", size, dim, keepdim)
    if ord == 2:
        return c.add("sqrt", c.reduce("sum", c.add("mul", x, x), dim, keepdim))
    if math.isinf(ord):
        return _extreme(c, size, dim, keepdim, ord)
    return number_power(c, c.reduce("sum", number_power(c, size, float(ord)), dim, keepdim), 1 / ord)


def _extreme(c: Emitter, x: Value, dim: Axes, keepdim: bool, ord: float) -> Value:
    if ord > 0:
        return c.reduce("amax", x, dim, keepdim)
    return c.add("neg", c.reduce("amax", c.add("neg", x), dim, keepdim))


@converts("linalg_matrix_norm")
def matrix_norm(c: Emitter, A: Value, ord: Any = "fro", dim: Any = (-2, -1), keepdim: bool = False) -> Value:
    """Frobenius, or the largest (or smallest) sum over columns (1) or rows (infinity)."""
    if ord == "fro":
        return vector_norm(c, A, 2, tuple(dim), keepdim)
    if ord not in (1, -1, math.inf, -math.inf):
        raise Refused(f"the matrix norm {ord!r} needs singular values", "'fro', 1 or infinity")
    rank = len(A.shape)
    rows, columns = (a % rank for a in dim)
    along, over = (rows, columns) if abs(ord) == 1 else (columns, rows)
    y = _extreme(c, c.reduce("sum", c.add("abs", A), along, True), over, True, ord)
    gone = (rows, columns)
    return y if keepdim else c.reshape(y, [s for a, s in enumerate(A.shape) if a not in gone])


@converts("linalg_norm")
def norm_of_either(c: Emitter, A: Value, ord: Any = None, dim: Axes = None, keepdim: bool = False) -> Value:
    """Of vectors where `ord` is not given or there is one axis, of matrices where there are two."""
    axes = range(len(A.shape)) if dim is None else [dim] if isinstance(dim, int) else dim
    if ord is None or len(axes) == 1:
        return vector_norm(c, A, 2 if ord is None else ord, dim, keepdim)
    return matrix_norm(c, A, ord, tuple(axes), keepdim)


@converts("norm")
def norm(c: Emitter, input: Value, p: Any = "fro", dim: Axes = None, keepdim: bool = False) -> Value:
    """torch.norm, whose orders are those of vectors, over however many axes."""
    if p == "nuc":
        raise Refused("the nuclear norm needs singular values", "p='fro', or a number")
    return vector_norm(c, input, 2 if p in (None, "fro") else p, dim, keepdim)


@converts("normalize")
def normalize(c: Emitter, input: Value, p: float = 2.0, dim: int = 1, eps: float = 1e-12) -> Value:
    return c.add("div", input, c.add("max", vector_norm(c, input, p, dim, True), eps))
