"""einsum: diagonals and sums of single operands, then products two by two.

An operand is kept with its term, one letter an axis. An ellipsis becomes letters of its own, counted from the right.
An axis of one element that meets a longer one is dropped, so that it broadcasts.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from ltc_compiler.ir.graph import Value
from ltc_torch.fx.convert.emit import Emitter
from ltc_torch.fx.convert.linear import product
from ltc_torch.fx.registry import Refused, converts

Operand = tuple[Value, str]


@converts("einsum")
def einsum(c: Emitter, equation: str, *operands: Any) -> Value:
    """torch.einsum in its form with an equation."""
    if not isinstance(equation, str):
        raise Refused(
            "einsum with lists of axes", "an equation of letters: torch.einsum('bij,bjk->bik', x, y)"
        )
    values = [c.value(o) for o in (operands[0] if isinstance(operands[0], (tuple, list)) else operands)]
    inputs, arrow, output = equation.replace(" ", "").partition("->")
    dots, terms = _terms(inputs.split(","), values)
    letters = "".join(terms)
    if not arrow:
        output = "..." + "".join(sorted(x for x in set(letters) if letters.count(x) == 1 and x not in dots))
    output = output.replace("...", dots)
    sizes: dict[str, int] = {}
    for value, term in zip(values, terms, strict=True):
        for letter, size in zip(term, value.shape, strict=True):
            sizes[letter] = max(size, sizes.get(letter, 1))
    pending = [_narrow(c, *_diagonal(c, v, t), sizes) for v, t in zip(values, terms, strict=True)]
    while len(pending) > 1:
        needed = output + "".join(term for _, term in pending[2:])
        pending = [_product(c, pending[0], pending[1], needed), *pending[2:]]
    value, term = _sum_out(c, *pending[0], output)
    value = c.permute(value, [term.index(x) for x in output if x in term])
    missing = [i for i, x in enumerate(output) if x not in term]
    for i in missing:
        value = c.unsqueeze(value, i)
    return c.broadcast(value, [sizes[x] for x in output])


def _terms(terms: Sequence[str], values: Sequence[Value]) -> tuple[str, list[str]]:
    """The letters that stand for '...' at its widest, and every term with letters alone."""
    ranks = [len(v.shape) - len(t.replace("...", "")) for t, v in zip(terms, values, strict=True)]
    dots = (
        "".join(chr(0x3B1 + i) for i in range(max(0, *ranks))) if ranks else ""
    )  # Greek: no letters of an equation
    made = [t.replace("...", dots[len(dots) - r :]) for t, r in zip(terms, ranks, strict=True)]
    return dots, made


def _diagonal(c: Emitter, value: Value, term: str) -> Operand:
    """Letters that repeat name one axis: an even step through the two axes laid end to end."""
    while len(set(term)) < len(term):
        letter = next(x for x in term if term.count(x) > 1)
        first = term.index(letter)
        second = term.index(letter, first + 1)
        value = c.move(c.move(value, second, -1), first, -1)
        size = value.shape[-1]
        value = c.reshape(value, (*value.shape[:-2], size * size))
        value = c.slice(value, -1, 0, size * size, size + 1)
        term = term[:first] + term[first + 1 : second] + term[second + 1 :] + letter
    return value, term


def _narrow(c: Emitter, value: Value, term: str, sizes: dict[str, int]) -> Operand:
    kept = [i for i, x in enumerate(term) if value.shape[i] == sizes[x]]
    return c.reshape(value, [value.shape[i] for i in kept]), "".join(term[i] for i in kept)


def _sum_out(c: Emitter, value: Value, term: str, needed: str) -> Operand:
    """Sum over the letters that nothing needs."""
    gone = [i for i, x in enumerate(term) if x not in needed]
    if gone:
        value = c.reduce("sum", value, gone, False)
    return value, "".join(x for x in term if x in needed)


def _product(c: Emitter, one: Operand, two: Operand, needed: str) -> Operand:
    """The product of two operands, summed over what nothing else needs.

    No axes are merged but those that a constant matrix sums over, so that one that streams stays an axis of its own.
    What is a product of matrices is made as one, so that attention is found in it (causal.py).
    """
    a, s = _sum_out(c, *one, two[1] + needed)
    b, t = _sum_out(c, *two, one[1] + needed)
    shared = [x for x in s if x in t]
    summed = [x for x in shared if x not in needed]
    if summed and summed == shared:
        if b.constant() is not None:
            return _linear(c, a, s, b, t, summed)
        if a.constant() is not None:
            return _linear(c, b, t, a, s, summed)
    alone, other = [x for x in s if x not in t], [x for x in t if x not in s]
    if len(summed) == len(alone) == len(other) == 1:
        batch = [x for x in shared if x not in summed]
        rows = c.permute(a, [s.index(x) for x in (*batch, *alone, *summed)])
        columns = c.permute(b, [t.index(x) for x in (*batch, *summed, *other)])
        return product(c, rows, columns), "".join([*batch, *alone, *other])
    names = [*(x for x in s if x not in summed), *(x for x in t if x not in s), *summed]
    y = c.add("mul", _aligned(c, a, s, names), _aligned(c, b, t, names))
    kept = names[: len(names) - len(summed)]
    if summed:
        y = c.reduce("sum", y, range(len(kept), len(names)), False)
    return y, "".join(kept)


def _aligned(c: Emitter, value: Value, term: str, names: Sequence[str]) -> Value:
    """The value with its axes in the order of `names`, of one element where it has none."""
    value = c.permute(value, [term.index(x) for x in names if x in term])
    sizes = iter(value.shape)
    return c.reshape(value, [next(sizes) if x in term else 1 for x in names])


def _linear(c: Emitter, x: Value, s: str, weight: Value, t: str, summed: list[str]) -> Operand:
    """x times a constant, summed over letters that both have and no others."""
    left, right = [n for n in s if n not in summed], [n for n in t if n not in summed]
    x = c.permute(x, [s.index(n) for n in (*left, *summed)])
    weight = c.permute(weight, [t.index(n) for n in (*right, *summed)])
    rows, size = weight.shape[: len(right)], math.prod(weight.shape[len(right) :])
    matrix = c.reshape(weight, (math.prod(rows), size)).constant()
    assert matrix is not None
    y = c.linear(c.reshape(x, (*x.shape[: len(left)], size)), matrix)
    return c.reshape(y, (*y.shape[:-1], *rows)), "".join([*left, *right])
