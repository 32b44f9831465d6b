"""Sequences of steps for run_timesteps: where the time axis stands in each array, and checks before the first
step.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ltc_compiler.bytecode.alignment import Axes
from ltc_compiler.bytecode.ports import F32, Model, Port, as_float32, check_count
from ltc_compiler.errors import InputError

MAX_THREADS = 1024

AxisArgument = int | None | Sequence[int | None]


def resolve_axes(argument: AxisArgument, streamed: Axes, side: str) -> Axes:
    """The time axis of each port: the one given for all, one given for each, or by default the axes that the streaming
    transform removed.

    A model that was not streamed gets axis 0 by default. None for one of several ports means that it has no
    time axis: the same array at every step. Raises InputError for a wrong number of them.
    """
    if argument is None:
        return streamed if any(axis is not None for axis in streamed) else (0,) * len(streamed)
    axes = (argument,) * len(streamed) if isinstance(argument, int) else tuple(argument)
    if len(axes) != len(streamed):
        raise InputError(
            f"{len(axes)} time axes for {len(streamed)} {side}s", where=f"{side}_timestep_dim",
            remedy=f"give one integer, or one axis for each {side}",
        )  # fmt: skip
    return axes


def to_sequences(model: Model, inputs: Sequence[object], axes: Axes) -> tuple[int, list[F32]]:
    """Number of steps, and every input as contiguous (steps, *port shape) float32. Raises InputError."""
    check_count(model, inputs)
    arrays = []
    for port, value, axis in zip(model.inputs, inputs, axes, strict=True):
        array = as_float32(port.name, value)
        arrays.append(array if axis is None else _time_first(port, array, axis))
    lengths = {
        p.name: len(a) for p, a, axis in zip(model.inputs, arrays, axes, strict=True) if axis is not None
    }
    if len(set(lengths.values())) != 1:
        listed = ", ".join(f"{name} {n}" for name, n in lengths.items())
        raise InputError(
            f"the inputs have different numbers of steps: {listed}"
            if lengths
            else "no input has a time axis",
            where=f"inputs of {model.name}",
            remedy="give every input with a time axis the same number of steps",
        )
    steps = next(iter(lengths.values()))
    sequences = []
    for port, array, axis in zip(model.inputs, arrays, axes, strict=True):
        expected = port.shape if axis is None else (steps, *port.shape)
        if array.shape != expected:
            raise InputError(
                f"{port.name} has shape {array.shape} with time first, expected {expected}",
                where=port.name,
                remedy=f"each step takes {port.shape}; name the time axis by input_timestep_dim",
            )
        whole = array if axis is not None else np.broadcast_to(array, (steps, *port.shape))
        sequences.append(np.ascontiguousarray(whole))
    return steps, sequences


def to_batch(model: Model, inputs: Sequence[object]) -> tuple[int, int | None, list[F32]]:
    """Number of streams, of steps or None where the arrays have no axis of time, and every input as contiguous
    (streams, steps, *port shape) float32. Raises InputError.
    """
    check_count(model, inputs)
    arrays = [as_float32(port.name, value) for port, value in zip(model.inputs, inputs, strict=True)]
    leading = {
        array.shape[: max(0, array.ndim - len(p.shape))]
        for p, array in zip(model.inputs, arrays, strict=True)
    }
    one = next(iter(leading), ())
    if len(leading) != 1 or len(one) not in (1, 2):
        found = ", ".join(f"{p.name} {array.shape}" for p, array in zip(model.inputs, arrays, strict=True))
        wanted = ", ".join(f"{p.name} (streams, [time,] {str(p.shape)[1:]}" for p in model.inputs)
        raise InputError(
            f"the inputs of a batch need one or two leading axes, the same for all: {found} given" if found
            else "a model without inputs takes no batch", where=f"inputs of {model.name}",
            remedy=f"give {wanted}" if wanted else "call run, on a VM for each stream",
        )  # fmt: skip
    steps = 1 if len(one) == 1 else one[1]
    batch = []
    for port, array in zip(model.inputs, arrays, strict=True):
        if array.shape[len(one) :] != port.shape:
            raise InputError(
                f"{port.name} has shape {array.shape}, expected {(*one, *port.shape)}",
                where=port.name, remedy=f"each step of a stream takes {port.shape}",
            )  # fmt: skip
        batch.append(np.ascontiguousarray(array).reshape(one[0], steps, *port.shape))
    return one[0], None if len(one) == 1 else steps, batch


def check_threads(threads: object) -> int:
    """A number of threads. Raises InputError."""
    if not isinstance(threads, int) or isinstance(threads, bool) or not 1 <= threads <= MAX_THREADS:
        raise InputError(
            f"{threads!r} threads",
            where="threads",
            remedy=f"give an integer from 1 to {MAX_THREADS}, or None",
        )
    return threads


def from_sequences(model: Model, arrays: Sequence[F32], axes: Axes) -> F32 | tuple[F32, ...]:
    """Outputs of shape (steps, *port shape) with the time axis moved to where it is wanted; one array, or a
    tuple.
    """
    moved = []
    for port, array, axis in zip(model.outputs, arrays, axes, strict=True):
        place = 0 if axis is None else axis
        _check_axis(port, place, "output_timestep_dim")
        moved.append(array if place == 0 else np.ascontiguousarray(_moved(array, 0, place)))
    return one_or_all(moved)


def check_output_axes(model: Model, axes: Axes) -> None:
    """Raises InputError for an axis that an output does not have; called before the first step."""
    for port, axis in zip(model.outputs, axes, strict=True):
        _check_axis(port, axis or 0, "output_timestep_dim")


def one_or_all(arrays: Sequence[F32]) -> F32 | tuple[F32, ...]:
    """The array of a model with one output, else the tuple of all."""
    return arrays[0] if len(arrays) == 1 else tuple(arrays)


def _time_first(port: Port, array: F32, axis: int) -> F32:
    _check_axis(port, axis, "input_timestep_dim")
    if array.ndim != len(port.shape) + 1:
        raise InputError(
            f"{port.name} has shape {array.shape}, expected {len(port.shape) + 1} dimensions: a time axis and"
            f" {port.shape}",
            where=port.name, remedy="for a single step call run",
        )  # fmt: skip
    return _moved(array, axis, 0) if axis else array


def _moved(array: F32, axis: int, to: int) -> F32:
    """numpy.moveaxis for axes that were checked: a fifth of its time, which is that of several steps."""
    order = list(range(array.ndim))
    order.insert(to % array.ndim, order.pop(axis))
    return array.transpose(order)


def _check_axis(port: Port, axis: int, where: str) -> None:
    rank = len(port.shape) + 1
    if not -rank <= axis < rank:
        raise InputError(
            f"time axis {axis} for {port.name}, which has {rank} dimensions with it", where=where,
            remedy=f"give an axis from {-rank} to {rank - 1}",
        )  # fmt: skip
