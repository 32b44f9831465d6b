"""The key of an array's elements: weights are large, and passes and the scheduler ask again and again which are equal.

An array that nobody writes into, as all constants of a graph are, is looked at once while it lives.
"""

from __future__ import annotations

import weakref
from hashlib import sha256

import numpy as np

from ltc_compiler.ir.graph import Array

_known: dict[int, tuple[weakref.ref[Array], bytes]] = {}  # by the array's id


def contents_key(array: Array) -> bytes:
    """Equal for arrays of equal shape and elements, be they stored in fp64 or in fp32; zeros differ by their sign."""
    if array.flags.writeable:
        return _key(array)
    found = _known.get(id(array))
    if found is None or found[0]() is not array:
        number = id(array)
        found = weakref.ref(array, lambda _: _known.pop(number, None)), _key(array)
        _known[number] = found
    return found[1]


def _key(array: Array) -> bytes:
    data = np.ascontiguousarray(array)
    if data.dtype == np.float64:
        with np.errstate(all="ignore"):
            narrow = data.astype(np.float32)
            exact = np.array_equal(narrow.astype(np.float64).view(np.uint64), data.view(np.uint64))
        data = narrow if exact else data
    found = sha256(f"{data.dtype.str}{array.shape}".encode())
    found.update(data.data)
    return found.digest()
