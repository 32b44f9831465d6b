"""Converters of reductions that are composed: positions of extremes, quantifiers, counts, products."""

from __future__ import annotations

from ltc_compiler.frontend.elementary import first_largest
from ltc_compiler.ir.graph import Value
from ltc_torch.fx.convert.decompose import Axes, running
from ltc_torch.fx.convert.emit import Emitter
from ltc_torch.fx.registry import converts


@converts("argmax", "argmin")
def position(c: Emitter, input: Value, dim: int | None = None, keepdim: bool = False) -> Value:
    """The position as a number: of the first extreme, or of the first NaN."""
    smallest = c.target == "argmin"
    if dim is not None:
        return first_largest(c, input, dim, keepdim, smallest)
    y = first_largest(c, c.reshape(input, (input.type.size,)), 0, False, smallest)
    return c.reshape(y, (1,) * len(input.shape)) if keepdim else y


@converts("any", "all")
def quantifier(c: Emitter, input: Value, dim: Axes = None, keepdim: bool = False) -> Value:
    if c.target == "any":
        return c.reduce("amax", c.truth(input), dim, keepdim)
    return c.add("eq", c.reduce("amax", c.add("eq", input, 0.0), dim, keepdim), 0.0)


@converts("count_nonzero")
def count_nonzero(c: Emitter, input: Value, dim: Axes = None) -> Value:
    return c.reduce("sum", c.truth(input), dim, False)


@converts("aminmax")
def aminmax(
    c: Emitter, input: Value, *, dim: int | None = None, keepdim: bool = False
) -> tuple[Value, Value]:
    least = c.add("neg", c.reduce("amax", c.add("neg", input), dim, keepdim))
    return least, c.reduce("amax", input, dim, keepdim)


@converts("prod")
def prod(c: Emitter, input: Value, dim: int | None = None, keepdim: bool = False) -> Value:
    """The last of the running products: a loop that carries one, so that it streams as other states do."""
    x = c.reshape(input, (input.type.size,)) if dim is None else input
    axis = 0 if dim is None else dim % len(x.shape)
    c.target = "cumprod"
    last = c.select(running(c, x, axis), axis, x.shape[axis] - 1)
    return c.unsqueeze(last, axis) if keepdim and dim is not None else last


@converts("nansum", "nanmean")
def without_nan(c: Emitter, input: Value, dim: Axes = None, keepdim: bool = False) -> Value:
    missing = c.add("ne", input, input)
    total = c.reduce("sum", c.add("select", missing, 0.0, input), dim, keepdim)
    if c.target == "nansum":
        return total
    present = c.add("eq", input, input)
    return c.add("div", total, c.reduce("sum", present, dim, keepdim))
