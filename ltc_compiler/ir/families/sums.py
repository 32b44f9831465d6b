"""Ops that sum or compare over an axis: matrix products, synapses, reductions."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ltc_compiler.ir.families.pointwise import sigmoid
from ltc_compiler.ir.families.row import Attrs, Op, ShapeError, axis_of
from ltc_compiler.ir.graph import Array, Type


def _linear(types: Sequence[Type], attrs: Attrs) -> tuple[Type, ...]:
    x, weight, bias = types
    if weight.rank != 2 or x.rank < 1:
        raise ShapeError(f"weight has rank {weight.rank} and x rank {x.rank}, expected 2 and at least 1")
    if x.shape[-1] != weight.shape[1]:
        raise ShapeError(f"x has {x.shape[-1]} features and the weight takes {weight.shape[1]}")
    result = (*x.shape[:-1], weight.shape[0])
    if bias.shape not in (weight.shape[:1], result):
        raise ShapeError(f"bias has shape {bias.shape}, expected {weight.shape[:1]} or {result}")
    return (Type(result),)


def _synapse(types: Sequence[Type], attrs: Attrs) -> tuple[Type, ...]:
    v, mu, *others = types
    if mu.rank != 2 or v.rank < 1 or v.shape[-1] != mu.shape[0]:
        raise ShapeError(
            f"v has shape {v.shape} and mu {mu.shape}, expected (..., sources) and (sources, targets)"
        )
    for name, t in zip(("sigma", "w", "we", "mask"), others, strict=True):
        if t.shape != mu.shape:
            raise ShapeError(f"{name} has shape {t.shape}, expected {mu.shape}")
    result = Type((*v.shape[:-1], mu.shape[1]))
    return (result, result)


def _reduce(types: Sequence[Type], attrs: Attrs) -> tuple[Type, ...]:
    shape = list(types[0].shape)
    axis = axis_of(len(shape), attrs["axis"])
    if attrs["keepdims"]:
        shape[axis] = 1
    else:
        del shape[axis]
    return (Type(tuple(shape)),)


def _linear_value(operands: Sequence[Array], attrs: Attrs) -> tuple[Array, ...]:
    """Equal vectors give equal results, as a value that is the same at every step must: a BLAS does not promise it."""
    x, weight, bias = operands
    shape = (*x.shape[:-1], len(weight))
    for axis in range(x.ndim - 1):
        first = x.take([0], axis) if x.shape[axis] > 1 else x
        x = first if (x == first).all() else x
    return (np.broadcast_to(x @ weight.T, shape) + bias,)


def _synapse_value(operands: Sequence[Array], attrs: Attrs) -> tuple[Array, ...]:
    v, mu, sigma, w, we, mask = operands
    s = sigmoid(sigma * (v[..., :, None] - mu)) * (mask != 0)
    return (s * we).sum(-2), (s * w).sum(-2)


ROWS = [
    Op(
        "linear",
        3,
        {},
        _linear,
        _linear_value,
        "linear",
        "x (..., K), constant weight (M, K), bias: constant (M), or a value (..., M) to add -> (..., M)",
    ),
    Op(
        "synapse",
        6,
        {},
        _synapse,
        _synapse_value,
        "linear",
        "v (..., S), constants mu, sigma, w, we = w * erev, mask (S, T) -> sums over the sources of s * we and "
        "s * w, (..., T) each, with s = sigmoid(sigma * (v - mu)) where mask is not 0",
    ),
    Op(
        "sum",
        1,
        {"axis": int, "keepdims": bool},
        _reduce,
        lambda x, a: (x[0].sum(a["axis"], keepdims=a["keepdims"]),),
        "reduce",
        "sum over one axis",
    ),
    Op(
        "amax",
        1,
        {"axis": int, "keepdims": bool},
        _reduce,
        lambda x, a: (x[0].max(a["axis"], keepdims=a["keepdims"]),),
        "reduce",
        "maximum over one axis",
    ),
]
