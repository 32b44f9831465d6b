"""What a comparison is given: inputs and PyTorch's outputs, as one array for all steps, the steps outermost.

Numbers of any kind are taken and rounded to fp32 first, so that all machines start from the same values.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ltc_compiler.bytecode.ports import as_float32
from ltc_compiler.errors import InputError
from ltc_compiler.ir.graph import Array, Graph

Dims = tuple[int | None, ...] | None


def sequences(graph: Graph, inputs: Sequence[Any]) -> tuple[int, list[Array]]:
    """The number of steps, and every input as (steps, *shape) float32.

    An input of its own shape is the same at every step; one with a time axis more, or a list of steps, differs. The
    time axis is the one that the streaming transform removed, or the first. Raises InputError.
    """
    if len(inputs) != len(graph.inputs):
        names = ", ".join(f"%{v.name} {v.shape}" for v in graph.inputs) or "none"
        raise InputError(f"{len(inputs)} inputs are given, expected {len(graph.inputs)}", where="compare",
                         remedy=f"give, in this order: {names}")  # fmt: skip
    arrays, lengths = [], {}
    for i, (value, given) in enumerate(zip(graph.inputs, inputs, strict=True)):
        array = as_array(value.name, given)
        if array.shape != value.shape:
            array = time_first(value.name, array, value.shape, _axis(graph.input_streaming_dims, i))
            lengths[value.name] = len(array)
        arrays.append(array)
    if len(set(lengths.values())) > 1:
        found = ", ".join(f"{name} {n}" for name, n in lengths.items())
        raise InputError(f"the inputs have different numbers of steps: {found}", where="compare",
                         remedy="give every input with a time axis the same number of steps")  # fmt: skip
    steps = next(iter(lengths.values()), 1)
    return steps, [
        array if value.name in lengths else np.broadcast_to(array, (steps, *value.shape))
        for value, array in zip(graph.inputs, arrays, strict=True)
    ]


def expectations(graph: Graph, expected: Any, steps: int) -> list[tuple[slice, Array]]:
    """For every output which of the machine's steps were expected, and the values: (these steps, *shape) float64.

    expected: what the model returns: an array, or a nest of tuples, lists and dicts with one for each output. An array
    of the output's own shape is that of the last step. An output that is late by some steps is compared from its first
    valid step on, as far as the steps go: what comes behind the end is not. Raises InputError.
    """
    given = _leaves(expected)
    if len(given) != len(graph.outputs):
        raise InputError(f"{len(given)} outputs are expected, the graph has {len(graph.outputs)}",
                         where="expected", remedy="give one array for each output")  # fmt: skip
    late = graph.output_latencies or (0,) * len(given)
    tails = graph.output_tails or (0,) * len(given)
    found = []
    for i, (value, name, item) in enumerate(zip(graph.outputs, graph.output_names, given, strict=True)):
        array = as_array(name, item)
        if array.shape == value.shape:
            found.append((slice(steps - 1, steps), array[None].astype(np.float64)))
            continue
        array = time_first(name, array, value.shape, _axis(graph.output_streaming_dims, i))
        if len(array) not in (steps, steps - late[i], steps - late[i] + tails[i]) or steps <= late[i]:
            raise InputError(f"{name} is expected for {len(array)} steps, {steps} are run, and it is {late[i]} late",
                             where="expected", remedy="give as many steps as the inputs have")  # fmt: skip
        count = min(len(array), steps - late[i])
        found.append((slice(late[i], late[i] + count), array[:count].astype(np.float64)))
    return found


def _leaves(nest: Any) -> list[Any]:
    """What a nest holds, in order."""
    if isinstance(nest, dict):
        nest = list(nest.values())
    return [leaf for part in nest for leaf in _leaves(part)] if isinstance(nest, tuple | list) else [nest]


def as_array(name: str, given: Any) -> Array:
    """Float32 of whatever holds numbers: an array, a tensor, a number, a list of them. Raises InputError."""
    if isinstance(given, list | tuple) and not all(isinstance(x, int | float) for x in given):
        parts = [as_array(name, x) for x in given]
        shapes = sorted({part.shape for part in parts})
        if len(shapes) != 1:
            raise InputError(f"the steps of {name} have the shapes {shapes}", where=name,
                             remedy="give steps of one shape, and at least one")  # fmt: skip
        return np.stack(parts)
    if isinstance(given, list | tuple | np.ndarray | np.generic):
        given = np.asarray(given)
        if given.dtype.kind in "fiub":
            with np.errstate(over="ignore"):
                given = given.astype(np.float32)
    return as_float32(name, given)


def time_first(name: str, array: Array, shape: tuple[int, ...], axis: int) -> Array:
    """A sequence with its time axis brought to the front. Raises InputError for one of another shape."""
    moved = np.moveaxis(array, axis, 0) if array.ndim == len(shape) + 1 else array[None]
    if moved.shape[1:] != shape or not len(moved):
        whole = (*shape[:axis], "steps", *shape[axis:])
        listed = ", ".join(map(str, whole))
        raise InputError(f"{name} has shape {array.shape}, expected {shape} or ({listed})", where=name,
                         remedy="reshape it; the time axis may be left out for a single step")  # fmt: skip
    return moved


def _axis(dims: Dims, index: int) -> int:
    return (dims[index] if dims is not None else None) or 0
