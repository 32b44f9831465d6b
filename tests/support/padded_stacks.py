"""Random stacks of windows: padded once in front of all layers, before each layer, on both sides, or in several ways.

The stream is on axis 0, channels on the last. A layer is a product over its taps, or a sum of scaled taps; between the
layers stand activations, gates, residual sums with what is cropped to fit, solvers within each step, and recurrences.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ltc_compiler.ir.graph import Graph, Type, Value
from ltc_compiler.ir.ops import add, add_many

WIDTHS = (1, 3, 5, 8, 12, 17)
FILLS = (0.0, 0.0, -0.0, 0.75, -np.inf)


@dataclass
class Stack:
    """A graph that grows layer by layer; `once`: everything is padded in front of the first layer, and nowhere else."""

    rng: np.random.Generator
    once: bool
    graph: Graph

    def padding(self, count: int, width: int, finite: bool = True) -> Value:
        """Constants for some steps: the same in each, or not."""
        fills = FILLS[:-1] if finite else FILLS
        array = np.full((count, width), float(self.rng.choice(fills)))
        if self.rng.random() < 0.3:
            array = self.rng.uniform(-1, 1, (count, width))
        return self.graph.constant(array)

    def padded(self, x: Value, before: int, after: int, finite: bool = True) -> Value:
        width = x.shape[-1]
        parts = [self.padding(n, width, finite) if n else None for n in (before, after)]
        joined = [v for v in (parts[0], x, parts[1]) if v is not None]
        return add(self.graph, "concat", *joined, axis=0) if len(joined) > 1 else x

    def taps(self, x: Value, count: int, dilation: int) -> list[Value]:
        length = x.shape[0] - (count - 1) * dilation
        starts = [k * dilation for k in range(count)]
        return [add(self.graph, "slice", x, axis=0, start=s, stop=s + length, step=1) for s in starts]

    def weights(self, *shape: int) -> Value:
        return self.graph.constant(self.rng.uniform(-1, 1, shape) / max(1, shape[-1]) ** 0.5)

    def convolution(self, x: Value, count: int, dilation: int) -> Value:
        taps = self.taps(x, count, dilation)
        if self.rng.random() < 0.3:
            terms = [add(self.graph, "mul", tap, self.weights(x.shape[-1])) for tap in taps]
            for term in terms[1:]:
                terms[0] = add(self.graph, "add", terms[0], term)
            return terms[0]
        wide, out = add(self.graph, "concat", *taps, axis=1), int(self.rng.choice(WIDTHS))
        return add(self.graph, "linear", wide, self.weights(out, wide.shape[-1]), self.weights(out))

    def activated(self, x: Value) -> Value:
        kind = str(self.rng.choice(["tanh", "relu", "softplus", "gate", "norm"]))
        if kind == "gate":
            left, right = add(self.graph, "tanh", x), add(self.graph, "sigmoid", x)
            return add(self.graph, "mul", left, right)
        if kind == "norm":
            most = add(self.graph, "amax", x, axis=1, keepdims=True)
            return add(self.graph, "tanh", add(self.graph, "sub", x, most))
        return add(self.graph, kind, x)

    def residual(self, old: Value, new: Value) -> Value:
        """`new`, and what is left of `old` beside it."""
        if old.shape[1] != new.shape[1] or old.shape[0] < new.shape[0] or self.rng.random() < 0.3:
            return new
        cut = add(
            self.graph, "slice", old, axis=0, start=old.shape[0] - new.shape[0], stop=old.shape[0], step=1
        )
        return add(self.graph, "add", cut, new)

    def pooled(self, x: Value) -> Value:
        """The largest of three neighbours, with minus infinity at both ends."""
        infinite = self.graph.constant(np.full((1, x.shape[1]), -np.inf))
        taps = self.taps(add(self.graph, "concat", infinite, x, infinite, axis=0), 3, 1)
        return add(self.graph, "max", add(self.graph, "max", taps[0], taps[1]), taps[2])

    def scanned(self, x: Value, along: bool) -> Value:
        """A leaky recurrence along the stream, or a solver of three iterations within each step."""
        shape = x.shape[1:] if along else x.shape
        body = Graph("body")
        h, at = body.add_input(Type(shape), "h"), body.add_input(Type(shape), "at")
        change = add(body, "mul", add(body, "sub", at, h), body.constant(0.25))
        body.add_output(add(body, "tanh", add(body, "add", h, change)))
        if along:
            body.add_output(body.outputs[0])
        attrs = {"body": body, "carries": 1, "scanned": int(along), "trip_count": x.shape[0] if along else 3,
                 "in_axes": (0,) * along, "out_axes": (0,) * along}  # fmt: skip
        return add_many(self.graph, "scan", [self.graph.constant(np.full(shape, 0.5)), x], attrs)[-1]


def random_stack(rng: np.random.Generator, steps: int, once: bool) -> Graph:
    """once: padded in front of the first layer by what all layers take away, so that no output is late."""
    s = Stack(rng, once, Graph("stack"))
    x = s.graph.add_input(Type((steps, int(rng.choice(WIDTHS)))), "x")
    layers = [
        (int(rng.integers(1, 4)), int(rng.choice([1, 1, 2, 3]))) for _ in range(int(rng.integers(1, 5)))
    ]
    y: Value = x
    if rng.random() < 0.4:
        y = s.convolution(y, 1, 1)
    if once:
        y = s.padded(y, sum((count - 1) * dilation for count, dilation in layers), 0)
    for count, dilation in layers:
        span = (count - 1) * dilation
        before, after = (0, 0) if once else _sides(rng, span)
        wide = s.padded(y, before, after)
        if wide.shape[0] - span < 2:
            continue
        y = s.residual(wide, s.activated(s.convolution(wide, count, dilation)))
        if rng.random() < 0.2:
            y = s.scanned(y, along=False)
        if not once and rng.random() < 0.2:
            y = s.pooled(y)
        if not once and rng.random() < 0.2:
            y = s.scanned(y, along=True)
        if rng.random() < 0.2:
            s.graph.add_output(y)
    s.graph.add_output(s.convolution(y, 1, 1))
    return s.graph


def _sides(rng: np.random.Generator, span: int) -> tuple[int, int]:
    """How much a layer is padded before and behind."""
    kinds = [
        (span, 0),
        (span // 2, span - span // 2),
        (0, 0),
        (0, span),
        (span + 2, 1),
        (int(rng.integers(0, 5)), 0),
    ]
    return kinds[int(rng.integers(len(kinds)))]
