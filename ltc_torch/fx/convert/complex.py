"""Complex tensors: in the graph each is a pair of real values, its real and its imaginary part.

What only moves, cuts, joins or adds elements is done to both parts by the converter of real tensors; products are
written out in four, or two where one operand is real; the few other functions are below. All else is refused by name.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ltc_compiler.frontend import elementary
from ltc_compiler.ir.graph import Array, Value
from ltc_torch.fx.convert.emit import Emitter
from ltc_torch.fx.record.calls import words
from ltc_torch.fx.registry import FUNCTIONS, Refused

Function = Callable[..., Any]


@dataclass(frozen=True)
class Pair:
    """A complex tensor. Both parts have its shape."""

    re: Value
    im: Value

    @property
    def shape(self) -> tuple[int, ...]:
        return self.re.shape


def pair_of(c: Emitter, array: Array) -> Pair:
    """A complex constant."""
    return Pair(c.value(array.real.copy()), c.value(array.imag.copy()))


def flat(values: Sequence[Value | Pair]) -> list[Value]:
    """The parts of values, in order."""
    return [part for v in values for part in ((v.re, v.im) if isinstance(v, Pair) else (v,))]


def is_involved(tree: Any) -> bool:
    """Whether complex values or numbers are among a call's arguments."""
    if isinstance(tree, (list, tuple)):
        return any(map(is_involved, tree))
    if isinstance(tree, Mapping):
        return any(map(is_involved, tree.values()))
    return isinstance(tree, (Pair, complex))


def convert(c: Emitter, name: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
    """A call in which something is complex. Raises Refused for a function that has no form in real parts."""
    if name in _OWN:
        return _OWN[name](c, *args, **kwargs)
    if name in _EACH:
        return _each_part(c, name, args, kwargs)
    if name in _PRODUCTS:
        return _product(c, name, args, kwargs)
    raise Refused(f"{name} of complex numbers", "real and imaginary parts as two tensors: z.real and z.imag")


# ---------------------------------------------------------------- parts


def _part(c: Emitter, operand: Any, which: int) -> Any:
    """One part of an operand; of a real one the imaginary part is 0."""
    if isinstance(operand, Pair):
        return operand.im if which else operand.re
    if isinstance(operand, (list, tuple)):
        return [_part(c, item, which) for item in operand]
    if isinstance(operand, complex):
        return operand.imag if which else operand.real
    if which == 0 or operand is None:
        return operand
    return c.full(operand.shape, 0.0) if isinstance(operand, Value) else 0.0


def as_pair(c: Emitter, operand: Any) -> Pair:
    """Any operand as a complex value."""
    return Pair(c.value(_part(c, operand, 0)), c.value(_part(c, operand, 1)))


def _is_zero(x: Value) -> bool:
    constant = x.constant()
    return constant is not None and not constant.any()


# Functions that treat both parts alike, and which of their arguments are numbers: the first where nothing else is said.
_EACH: dict[str, tuple[int | str, ...]] = dict.fromkeys(
    words(
        """
        reshape view view_as reshape_as flatten ravel unflatten unsqueeze squeeze permute transpose swapaxes swapdims t
        movedim moveaxis expand broadcast_to expand_as repeat tile repeat_interleave flip flipud fliplr roll select
        narrow unbind split split_with_sizes chunk tensor_split index_select unfold tril triu getitem __getitem__
        read_region diagonal cat concat concatenate stack hstack vstack row_stack column_stack dstack broadcast_tensors
        read_state sum mean cumsum neg negative __neg__ clone contiguous detach alias positive cpu dropout getattr
        """
    ),
    (0,),
) | {
    "add": (0, 1), "__add__": (0, 1), "__radd__": (0, 1), "sub": (0, 1), "subtract": (0, 1), "__sub__": (0, 1),
    "rsub": (0, 1), "__rsub__": (0, 1), "where": (1, 2), "masked_fill": (0, 2), "write_region": (0, 2),
    "diff": (0, "prepend", "append"), "pad": (0, 3, "value"), "lerp": (0, 1), "broadcast_tensors": (0, 1, 2, 3),
}  # fmt: skip


def _each_part(c: Emitter, name: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
    numbers = _EACH[name]
    if name == "where" and c.is_method:
        numbers = (0, 2)
    parts = []
    for which in (0, 1):
        c.target = name
        given = [_part(c, a, which) if i in numbers else a for i, a in enumerate(args)]
        named = {k: _part(c, v, which) if k in numbers else v for k, v in kwargs.items()}
        parts.append(FUNCTIONS[name](c, *given, **named))
    re, im = parts
    return Pair(re, im) if isinstance(re, Value) else [Pair(a, b) for a, b in zip(re, im, strict=True)]


# ---------------------------------------------------------------- products

# Products, and their operands' places: linear in each of them.
_PRODUCTS: dict[str, tuple[int, int]] = {
    **dict.fromkeys(words("mul multiply __mul__ __rmul__ matmul mm bmm mv dot __matmul__ outer ger linear"), (0, 1)),
    "__rmatmul__": (1, 0), "inner": (0, 1), "einsum": (1, 2), "tensordot": (0, 1),
}  # fmt: skip


def _product(c: Emitter, name: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Pair:
    args, bias = list(args), None
    if name == "linear":
        bias = kwargs.get("bias", args[2] if len(args) > 2 else None)
        args, kwargs = args[:2], {k: v for k, v in kwargs.items() if k != "bias"}
    if name == "einsum" and len(args) == 2 and isinstance(args[1], (list, tuple)):
        args = [args[0], *args[1]]
    first, second = sorted(_PRODUCTS[name])
    if len(args) != second + 1:
        raise Refused(f"{name} of complex numbers with these operands", "two operands, given by position")
    target = c.target

    def real(a: Any, b: Any) -> Value:
        c.target = target
        return c.value(FUNCTIONS[name](c, *args[:first], a, b, **kwargs))

    y = bilinear(c, real, args[first], args[second])
    return y if bias is None else _added(c, y, bias)


def bilinear(c: Emitter, real: Function, a: Any, b: Any) -> Pair:
    """A product of complex operands from that of real ones; parts that are zeros are left out."""
    a, b = as_pair(c, a), as_pair(c, b)
    re, im = real(a.re, b.re), []
    if not (_is_zero(a.im) or _is_zero(b.im)):
        re = c.add("sub", re, real(a.im, b.im))
    if not _is_zero(b.im):
        im.append(real(a.re, b.im))
    if not _is_zero(a.im):
        im.append(real(a.im, b.re))
    if not im:
        return Pair(re, c.full(re.shape, 0.0))
    return Pair(re, im[0] if len(im) == 1 else c.add("add", im[0], im[1]))


def multiply(c: Emitter, a: Any, b: Any) -> Pair:
    return bilinear(c, lambda x, y: c.add("mul", x, y), a, b)


def _added(c: Emitter, a: Any, b: Any) -> Pair:
    a, b = as_pair(c, a), as_pair(c, b)
    return Pair(c.add("add", a.re, b.re), c.add("add", a.im, b.im))


def _inverse(c: Emitter, input: Pair) -> Pair:
    """1 / z; of a constant it is computed here."""
    z = input
    re, im = z.re.constant(), z.im.constant()
    if re is not None and im is not None:
        return pair_of(c, 1 / (re + 1j * im))
    size = c.add("add", c.add("mul", z.re, z.re), c.add("mul", z.im, z.im))
    return Pair(c.add("div", z.re, size), c.add("div", c.add("neg", z.im), size))


def _divide(c: Emitter, input: Any, other: Any, *, rounding_mode: None = None) -> Pair:
    if isinstance(other, (Pair, complex)):
        return multiply(c, input, _inverse(c, as_pair(c, other)))
    return Pair(c.add("div", input.re, other), c.add("div", input.im, other))


def _divided_by(c: Emitter, input: Any, other: Any) -> Pair:
    return _divide(c, other, input)


def _addmm(c: Emitter, input: Any, a: Any, b: Any, *, beta: float = 1, alpha: float = 1) -> Pair:
    y = (
        multiply(c, _product(c, "matmul", (a, b), {}), alpha)
        if alpha != 1
        else _product(c, "matmul", (a, b), {})
    )
    return _added(c, input if beta == 1 else multiply(c, input, beta), y)


# ---------------------------------------------------------------- functions


def _power(c: Emitter, input: Any, exponent: Any) -> Pair:
    """Whole powers by multiplication; powers of a constant by its logarithm."""
    if isinstance(input, Pair) and isinstance(exponent, (int, float)) and exponent == int(exponent):
        if not 0 < abs(exponent) <= 64:
            raise Refused(
                f"the power {exponent:g} of complex numbers", "a whole power from 1 to 64, or the inverse"
            )
        y = input
        for _ in range(abs(int(exponent)) - 1):
            y = multiply(c, y, input)
        return y if exponent > 0 else _inverse(c, y)
    base = as_pair(c, input)
    re, im = base.re.constant(), base.im.constant()
    if re is None or im is None or isinstance(exponent, (Pair, complex)):
        raise Refused("this power of complex numbers", "a whole number as the exponent, or a constant base")
    return _exp(c, multiply(c, pair_of(c, np.log(re + 1j * im)), exponent))


def _power_of(c: Emitter, input: Any, other: Any) -> Pair:
    return _power(c, other, input)


def _exp(c: Emitter, input: Any) -> Pair:
    z = as_pair(c, input)
    return _polar(c, c.add("exp", z.re), z.im)


def _polar(c: Emitter, abs: Any, angle: Value) -> Pair:
    return Pair(c.add("mul", abs, c.add("cos", angle)), c.add("mul", abs, c.add("sin", angle)))


def _abs(c: Emitter, input: Pair) -> Value:
    return c.add("sqrt", c.add("add", c.add("mul", input.re, input.re), c.add("mul", input.im, input.im)))


def _angle(c: Emitter, input: Pair) -> Value:
    return elementary.atan2(c, input.im, input.re)


def _conjugate(c: Emitter, input: Any) -> Pair:
    return Pair(input.re, c.add("neg", input.im))


def _attribute(c: Emitter, input: Any, name: str) -> Value | Pair:
    if name in ("real", "imag"):
        return input.im if name == "imag" else input.re
    y = _each_part(c, "getattr", (input, name), {})
    assert isinstance(y, Pair)
    return _conjugate(c, y) if name in ("H", "mH") else y


def _adjoint(c: Emitter, input: Pair) -> Pair:
    moved = (
        _each_part(c, "t", (input,), {})
        if len(input.shape) < 3
        else _each_part(c, "transpose", (input, -2, -1), {})
    )
    return _conjugate(c, moved)


def _real(c: Emitter, input: Any) -> Value:
    return c.value(_part(c, input, 0))


def _imag(c: Emitter, input: Any) -> Value:
    return c.value(_part(c, input, 1))


def _view_as_real(c: Emitter, input: Pair) -> Value:
    rank = len(input.shape)
    return c.concat([c.unsqueeze(input.re, rank), c.unsqueeze(input.im, rank)], rank)


def _view_as_complex(c: Emitter, input: Value) -> Pair:
    return Pair(c.select(input, -1, 0), c.select(input, -1, 1))


def _complex(c: Emitter, real: Value, imag: Value) -> Pair:
    shape = np.broadcast_shapes(real.shape, imag.shape)
    return Pair(c.broadcast(real, shape), c.broadcast(imag, shape))


def _to(c: Emitter, input: Any, *args: Any, **kwargs: Any) -> Value | Pair:
    """To a complex type, or to a real one, which keeps the real part, as torch does with a warning."""
    return as_pair(c, input) if c.dtype.is_complex else _real(c, input)


def _same(c: Emitter, input: Pair) -> Pair:
    return input


def _square(c: Emitter, input: Pair) -> Pair:
    return multiply(c, input, input)


_OWN: dict[str, Function] = {
    "abs": _abs, "absolute": _abs, "__abs__": _abs, "angle": _angle, "exp": _exp, "polar": _polar,
    "complex": _complex, "view_as_real": _view_as_real, "view_as_complex": _view_as_complex, "getattr": _attribute,
    "real": _real, "imag": _imag, "conj": _conjugate, "conj_physical": _conjugate, "resolve_conj": _same,
    "resolve_neg": _same, "adjoint": _adjoint, "square": _square, "reciprocal": _inverse,
    "div": _divide, "divide": _divide, "true_divide": _divide, "__truediv__": _divide, "__rtruediv__": _divided_by,
    "__rdiv__": _divided_by, "pow": _power, "__pow__": _power, "__rpow__": _power_of,
    "addmm": _addmm, "baddbmm": _addmm, "addmv": _addmm, "to": _to, "type": _to, "type_as": _to, "cfloat": _to,
    "cdouble": _to, "float": _to, "double": _to,
}  # fmt: skip

KNOWN = frozenset((*_OWN, *_EACH, *_PRODUCTS))
