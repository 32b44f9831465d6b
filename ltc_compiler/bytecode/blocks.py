"""Blocks of steps: sequences as a program of several steps a run takes and gives them.

The ports of such a program have the axis of the steps, of one block's length, where the whole sequence has it. Callers
of sequences count steps: here steps become runs, and runs steps.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from ltc_compiler.bytecode.alignment import Streaming
from ltc_compiler.bytecode.ports import F32, Model, Port
from ltc_compiler.errors import InputError


def of_one_step(model: Model, stream: Streaming) -> Model:
    """The model with ports of the shapes that one step has."""
    if stream.block == 1:
        return model
    inputs = [p if a is None else _without(p, a) for p, a in zip(model.inputs, stream.inputs, strict=True)]
    outputs = [_without(p, a or 0) for p, a in zip(model.outputs, stream.outputs, strict=True)]
    return replace(model, inputs=tuple(inputs), outputs=tuple(outputs))


def _without(port: Port, axis: int) -> Port:
    return replace(port, shape=port.shape[:axis] + port.shape[axis + 1 :])


def check_blocks(stream: Streaming, steps: int) -> None:
    """Raises InputError where so many steps are no whole number of runs."""
    rest = steps % stream.block
    if rest:
        raise InputError(
            f"{steps} steps are given, and a run of this program takes {stream.block}", where="steps",
            remedy=f"give {steps - rest} of them, and the other {rest} to a program of single steps: it is made by"
            " streaming_transform without a block, and its set_state takes what get_state returns here",
        )  # fmt: skip


def to_blocks(stream: Streaming, arrays: Sequence[F32], lead: int = 0) -> list[F32]:
    """Inputs of every step, (..., steps, *shape of a step), as those of runs: (..., runs, *port shape).

    lead: the axes before that of the steps. Raises InputError for an input that does not stream and varies in a block.
    """
    if stream.block == 1:
        return list(arrays)
    return [_to_blocks(stream.block, a, axis, lead) for a, axis in zip(arrays, stream.inputs, strict=True)]


def _to_blocks(block: int, array: F32, axis: int | None, lead: int) -> F32:
    before, steps, shape = array.shape[:lead], array.shape[lead], array.shape[lead + 1 :]
    apart = array.reshape(*before, steps // block, block, *shape)
    if axis is not None:
        return np.ascontiguousarray(np.moveaxis(apart, lead + 1, lead + 1 + axis))
    first = apart.take([0], lead + 1)
    if not apart.tobytes() == np.broadcast_to(first, apart.shape).tobytes():
        raise InputError(
            f"an input that does not stream varies within a block of {block} steps", where="inputs",
            remedy="give it the same values for all steps of a block, or run single steps: streaming_transform without"
            " a block",
        )  # fmt: skip
    return np.ascontiguousarray(first.squeeze(lead + 1))


def from_blocks(stream: Streaming, arrays: Sequence[F32], lead: int = 0) -> list[F32]:
    """Outputs of runs, (..., runs, *port shape), as those of every step: (..., steps, *shape of a step)."""
    if stream.block == 1:
        return list(arrays)
    made = []
    for array, axis in zip(arrays, stream.outputs, strict=True):
        apart = np.moveaxis(array, lead + 1 + (axis or 0), lead + 1)
        steps = array.shape[lead] * stream.block
        made.append(np.ascontiguousarray(apart).reshape(*array.shape[:lead], steps, *apart.shape[lead + 2 :]))
    return made
