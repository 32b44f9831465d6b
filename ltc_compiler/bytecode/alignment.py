"""Where the outputs of a stream stand in time, and which of a machine's steps hold them.

An output that looks L steps ahead is late by L: step t gives its element t - L. So the first L steps of a stream give
nothing of it, and its last L elements come only when the caller says that the stream ends. The program counts the steps
of a stream in a state of its own, which a host saves, restores and resets with the others, so that a stream stays
aligned when it is continued. A program that looks nowhere ahead has no such state.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ltc_compiler.bytecode.ports import F32, Model
from ltc_compiler.errors import InputError, ProgramError, StateError

MAX_STEPS = 1 << 24  # of a latency or a tail

Axes = tuple[int | None, ...]


@dataclass(frozen=True)
class Streaming:
    """What the streaming transform noted about a model's inputs and outputs; the fields are those of its graph
    (ir/graph.py).

    counter, marker: the names of the states that count the steps of a stream, and those since its end; "" for none.
    limit: how many steps a stream may have, 0 for any number. block: the steps of one run.
    """

    inputs: Axes
    outputs: Axes
    latencies: tuple[int, ...]
    tails: tuple[int, ...]
    counter: str = ""
    marker: str = ""
    limit: int = 0
    block: int = 1

    @property
    def in_place(self) -> bool:
        """Whether step t gives the index t of every output, and nothing follows the last step."""
        return not any(self.latencies) and not any(self.tails)

    def check(self, counted: Iterable[Any], steps: int) -> None:
        """Raises InputError where streams whose counters are `counted` have no room for so many further steps."""
        for value in counted if self.limit else ():
            begun = _steps(value)
            if begun + steps > self.limit:
                raise InputError(
                    f"a stream of this program has {self.limit} steps, for which its tables hold values; {begun} of"
                    f" them have run, and {steps} more are given", where="steps",
                    remedy="begin a new stream with reset(); or record the model with a longer example; or start the"
                    " tables again where they end: streaming_transform(axis, tables='wrap')",
                )  # fmt: skip

    @property
    def flush(self) -> int:
        """Steps to run after the last one until every output is out."""
        return max((0, *self.tails))

    def window(self, output: int, begun: int, steps: int, end: bool) -> slice:
        """Which of `steps` steps, and at an `end` of those that flush, hold elements of an output.

        begun: the value of the step counter before them. Raises InputError where the output ends some steps before
        its input and the call that ends the stream has fewer steps: earlier calls then returned elements that the whole
        sequence does not have.
        """
        first = max(0, self.latencies[output] - begun)
        stop = steps + (self.tails[output] if end else 0)
        if stop < 0:
            early = -self.tails[output]
            raise InputError(
                f"output {output} ends {early} steps before its input, and the call with the end has {steps} steps",
                where="end", remedy=f"give the last {early} steps in the call that ends the stream",
            )  # fmt: skip
        return slice(min(first, stop), stop)

    def windows(self, begun: Sequence[int], steps: int, end: bool) -> list[slice]:
        """`window` of every output of streams that have run `begun` steps. Raises InputError where they differ."""
        found = [
            [self.window(i, n, steps, end) for i in range(len(self.outputs))] for n in sorted(set(begun))
        ]
        if any(windows != found[0] for windows in found):
            raise InputError(
                f"the streams are at different steps ({sorted(set(begun))}), and outputs are late by"
                f" {', '.join(map(str, self.latencies))}: aligned, they would have different lengths", where="streams",
                remedy="run the new streams by themselves first, or give align=False",
            )  # fmt: skip
        return found[0]


@dataclass(frozen=True)
class Runner:
    """A machine that runs streams of a model, as far as alignment needs it.

    run: arrays of (streams, steps, *shape of a step) in and out. counted: the step counter of stream n. mark: set the
    end marker of every stream. fork: the same on a copy of the states.
    """

    run: Callable[[Sequence[F32]], Sequence[F32]]
    counted: Callable[[int], Any]
    mark: Callable[[float], None]
    fork: Callable[[], Runner]


def run_aligned(runner: Runner, stream: Streaming, arrays: Sequence[F32], end: bool) -> list[F32]:
    """Run sequences of (streams, steps, *shape of a step); the elements that they give, in the place of the steps.

    end: those that follow the last step as well, computed on a copy of the states. Raises InputError before the first
    step as Streaming.windows does, and StateError for a step counter that cannot be one.
    """
    streams, steps = arrays[0].shape[:2]
    begun = [_steps(runner.counted(n)) if stream.counter else 0 for n in range(streams)]
    windows = stream.windows(begun, steps, end)
    parts = [[array] for array in runner.run(arrays)]
    if end and stream.flush:
        for made in _after_the_end(runner.fork(), stream, arrays):
            for part, array in zip(parts, made, strict=True):
                part.append(array)
    # Runs behind the end may have more steps than belong to any output.
    return [np.concatenate(part, 1)[:, window] for part, window in zip(parts, windows, strict=True)]


def _after_the_end(runner: Runner, stream: Streaming, arrays: Sequence[F32]) -> Iterator[Sequence[F32]]:
    """The outputs of each run after the end. Inputs that stream are 0 there, for nothing that counts reads them."""
    block = stream.block
    last = [
        array[:, -block:] if axis is None else np.zeros((len(array), block, *array.shape[2:]), array.dtype)
        for array, axis in zip(arrays, stream.inputs, strict=True)
    ]
    for number in range(1, stream.flush + 1, block):
        if stream.marker:
            runner.mark(float(number))
        yield runner.run(last)


def check_aligned(align: bool, end: bool) -> None:
    """Raises InputError where `end` is given without `align`."""
    if end and not align:
        raise InputError("end=True is given for outputs that are not aligned", where="end",
                         remedy="give it with a sequence and align=True")  # fmt: skip


def _steps(counted: Any) -> int:
    value = float(counted)
    if not 0 <= value <= MAX_STEPS:
        raise StateError(f"the step counter is {value}", where="state",
                         remedy="reset the state, or set it to one that get_state returned")  # fmt: skip
    return int(value)


def streaming_of(meta: Mapping[str, Any], model: Model, model_index: int) -> Streaming:
    """What META says of a model's stream; axes of None and no latency where it says nothing.

    Raises ProgramError if it contradicts the model's ports and states.
    """
    every = meta.get("streaming", [])
    entry = every[model_index] if isinstance(every, list) and model_index < len(every) else {}
    if not isinstance(entry, dict):
        raise _refusal(model, f"is {entry!r}")
    axes = [
        _column(model, entry, side, [None] * len(ports), _is_axis)
        for side, ports in (("inputs", model.inputs), ("outputs", model.outputs))
    ]
    none = [0] * len(model.outputs)
    latencies = _column(model, entry, "latencies", none, lambda n: _is_count(n) and n >= 0)
    tails = _column(model, entry, "tails", none, _is_count)
    scalars = [state.name for state in model.states if not state.shape]
    limit = entry.get("limit", 0)
    if not _is_count(limit) or limit < 0:
        raise _refusal(model, f"has the limit {limit!r}")
    for key, needed in (("counter", any(latencies) or limit > 0), ("marker", False)):
        name = entry.get(key, "")
        if (needed or name != "") and name not in scalars:
            raise _refusal(model, f"has the {key} {name!r}, which is no scalar state")
    block = _block(model, entry, axes[0], axes[1])
    names = entry.get("counter", ""), entry.get("marker", "")
    return Streaming(axes[0], axes[1], latencies, tails, *names, limit, block)


def _block(model: Model, entry: Mapping[str, Any], inputs: Axes, outputs: Axes) -> int:
    """The steps of a run; what streams must have an axis of so many elements."""
    block = entry.get("block", 1)
    if not _is_count(block) or block < 1:
        raise _refusal(model, f"has the block {block!r}")
    ports = [(p, a) for p, a in zip(model.inputs, inputs, strict=True) if a is not None]
    ports += [(p, a or 0) for p, a in zip(model.outputs, outputs, strict=True)]
    for port, axis in ports if block > 1 else ():
        if not 0 <= axis < len(port.shape) or port.shape[axis] != block:
            raise _refusal(model, f"has a block of {block} steps, and {port.name!r} the shape {port.shape}")
    return int(block)


def _column(
    model: Model, entry: Mapping[str, Any], key: str, default: list[Any], good: Any
) -> tuple[Any, ...]:
    values = entry.get(key, default)
    if not isinstance(values, list) or len(values) != len(default) or not all(map(good, values)):
        raise _refusal(model, f"has the {key} {values!r}, and the model {len(default)} of them")
    return tuple(values)


def _refusal(model: Model, what: str) -> ProgramError:
    return ProgramError(f"the streaming entry of model {model.name!r} {what}", where="section META",
                        remedy="recompile the model")  # fmt: skip


def _is_axis(value: object) -> bool:
    return value is None or (isinstance(value, int) and not isinstance(value, bool))


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and abs(value) <= MAX_STEPS
