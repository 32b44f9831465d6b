"""einsum: diagonals and sums of single operands, then products two by two through matmul.

An operand is kept with its term, one letter an axis. An ellipsis becomes letters of its own, counted from the right.
An axis of one element that meets a longer one is dropped, so that it broadcasts.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from ltc_compiler.ir.compounds import matmul
from ltc_compiler.ir.graph import Value

from .emit import Emitter
from .registry import Refused, converts

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
    """The product of two operands, summed over what nothing else needs: (batch, left, K) times (batch, K, right)."""
    a, s = _sum_out(c, *one, two[1] + needed)
    b, t = _sum_out(c, *two, one[1] + needed)
    sizes = dict(zip(s + t, (*a.shape, *b.shape), strict=True))
    batch = [x for x in s if x in t and x in needed]
    k = [x for x in s if x in t and x not in needed]
    left, right = [x for x in s if x not in t], [x for x in t if x not in s]

    def grouped(value: Value, term: str, *groups: list[str]) -> Value:
        value = c.permute(value, [term.index(x) for group in groups for x in group])
        heads = [sizes[x] for x in groups[0]]
        return c.reshape(value, [*heads, *(math.prod(sizes[x] for x in group) for group in groups[1:])])

    names = [*batch, *left, *right]
    if not k and not (left and right):  # a product element by element
        y = c.add("mul", grouped(a, s, batch, left), grouped(b, t, batch, right))
    else:
        y = matmul(c, grouped(a, s, batch, left, k), grouped(b, t, batch, k, right))
    return c.reshape(y, [sizes[x] for x in names]), "".join(names)
