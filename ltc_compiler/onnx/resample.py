"""Converters of Resize and Upsample: along each axis, elements are repeated or combined with constant weights.

Positions are computed in fp32, as runtimes do: which of two elements is nearer may depend on it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from ltc_compiler.frontend.compose import Composer, Refused
from ltc_compiler.ir.graph import Array, Value
from ltc_compiler.onnx.call import Call, Results
from ltc_compiler.onnx.registry import converts

LIMIT = 1 << 22  # weights of one axis


def _centred(i: Array, n: int, m: int, scale: np.float32) -> Array:
    return (i + np.float32(0.5)) / scale - np.float32(0.5)


def _symmetric(i: Array, n: int, m: int, scale: np.float32) -> Array:
    adjusted = np.float32(m) / (scale * np.float32(n))
    return np.float32(n / 2) * (1 - adjusted) + _centred(i, n, m, scale)


# Where element i of m lies among n, by coordinate_transformation_mode.
PLACES: dict[str, Callable[[Array, int, int, np.float32], Array]] = {
    "half_pixel": _centred,
    "half_pixel_symmetric": _symmetric,
    "pytorch_half_pixel": lambda i, n, m, scale: _centred(i, n, m, scale) if m > 1 else i * np.float32(0),
    "align_corners": lambda i, n, m, scale: i * np.float32(n - 1) / np.float32(max(m - 1, 1)),
    "asymmetric": lambda i, n, m, scale: i / scale,
}
NEAREST: dict[str, Callable[[Array], Array]] = {
    "round_prefer_floor": lambda x: np.ceil(x - np.float32(0.5)),
    "round_prefer_ceil": lambda x: np.floor(
        x * np.float32(1 + 2**-21) + np.float32(0.5)
    ),  # halves that were rounded down
    "floor": np.floor,
    "ceil": np.ceil,
}


@converts("Resize", "Upsample", limits="cropping, antialiasing, an aspect ratio that is kept; computed sizes")
def resize(call: Call) -> Results:
    c, x = call.c, call.x
    old = call.op == "Upsample" or call.opset < 11  # which had one way to place elements
    if call.attr("antialias", 0) or call.attr("keep_aspect_ratio_policy", "stretch") != "stretch":
        raise Refused("antialiasing, or an aspect ratio that is kept", "plain resizing to sizes")
    place = "asymmetric" if old else str(call.attr("coordinate_transformation_mode", "half_pixel"))
    if place not in PLACES:
        raise Refused(f"coordinate_transformation_mode {place!r}", ", ".join(PLACES))
    mode = str(call.attr("mode", "nearest"))
    nearest = NEAREST["floor" if old else str(call.attr("nearest_mode", "round_prefer_floor"))]
    for axis, (size, scale) in zip(*_sizes(call, x, old), strict=True):
        n = x.shape[axis]
        at = PLACES[place](np.arange(size, dtype=np.float32), n, size, np.float32(scale))
        if n == size and (at == np.arange(n)).all():
            continue
        if mode == "nearest":
            x = _repeated(c, x, axis, np.clip(nearest(at), 0, n - 1).astype(np.int64))
        else:
            x = c.move(c.linear(c.move(x, axis, -1), _weights(call, mode, at, n)), -1, axis)
    return x


def _sizes(call: Call, x: Value, old: bool) -> tuple[Sequence[int], list[tuple[int, float]]]:
    """The axes that are resized, and the new size and the scale of each."""
    scales = call.setting("scales", 1 if old else 2)
    sizes = None if old else call.ints("sizes", 3)
    if sizes is None and not scales:
        raise Refused("neither scales nor sizes", "give one of them")
    given: Sequence[float] = sizes if sizes is not None else scales
    axes = [a % len(x.shape) for a in call.ints("axes", default=range(len(given))) or ()]
    lengths = [x.shape[a] for a in axes]
    if len(given) != len(axes) or min(given) <= 0:
        raise Refused(f"{list(given)} for {len(axes)} axes", "one positive number for each axis")
    if sizes is not None:
        found = [(m, m / n) for m, n in zip(sizes, lengths, strict=True)]
    else:
        found = [
            (int(np.floor(np.float32(n) * np.float32(s))), float(s))
            for s, n in zip(scales, lengths, strict=True)
        ]
    if any(m < 1 or m * n > LIMIT for (m, _), n in zip(found, lengths, strict=True)):
        raise Refused(f"sizes of {[m for m, _ in found]}", f"1 to {LIMIT} weights an axis")
    return axes, found


def _repeated(c: Composer, x: Value, axis: int, index: Array) -> Value:
    n, m = x.shape[axis], len(index)
    if m % n or not (index == np.repeat(np.arange(n), m // n)).all():
        return c.gather(x, axis, index)
    wide = c.broadcast(c.unsqueeze(x, axis + 1), (*x.shape[: axis + 1], m // n, *x.shape[axis + 1 :]))
    return c.reshape(wide, (*x.shape[:axis], m, *x.shape[axis + 1 :]))


# The weight of the element at each distance from the one below a place, by how far the place is above that.
Taps = dict[int, Callable[[Array], Array]]
_LINEAR: Taps = {0: lambda r: 1 - r, 1: lambda r: r}


def _cubic(a: float) -> Taps:
    def near(r: Array) -> Array:
        return ((a + 2) * r - (a + 3)) * r * r + 1

    def far(r: Array) -> Array:
        return ((a * r - 5 * a) * r + 8 * a) * r - 4 * a

    return {-1: lambda r: far(r + 1), 0: near, 1: lambda r: near(1 - r), 2: lambda r: far(2 - r)}


def _weights(call: Call, mode: str, at: Array, n: int) -> Array:
    """(new, old): the weight of each element in each new one."""
    if mode == "linear":
        at, taps = np.clip(at, 0, n - 1), _LINEAR
    elif mode == "cubic":
        taps = _cubic(float(call.attr("cubic_coeff_a", -0.75)))
    else:
        raise Refused(f"mode {mode!r}", "nearest, linear or cubic")
    base = np.floor(at).astype(np.int64)
    rest = (at - base).astype(np.float64)
    weights = np.zeros((len(at), n))
    for offset, weight in taps.items():
        place = base + offset
        inside = (place >= 0) & (place < n)
        kept = inside if mode == "cubic" and call.attr("exclude_outside", 0) else np.ones_like(inside)
        np.add.at(weights, (np.arange(len(at)), np.clip(place, 0, n - 1)), weight(rest) * kept)
    return weights / weights.sum(1, keepdims=True)
