"""What a graph computes, in NumPy: one step, or every step of a sequence."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ltc_compiler.bytecode.alignment import Runner, Streaming, check_aligned, run_aligned
from ltc_compiler.bytecode.blocks import check_blocks, from_blocks, to_blocks
from ltc_compiler.errors import InputError
from ltc_compiler.ir.graph import Array, Graph
from ltc_compiler.ir.run import evaluate, initial_states
from ltc_compiler.ir.verify import verify


class EvaluatedGraph:
    """The part of NNIR that evaluates the graph."""

    def __init__(self, graph: Graph) -> None:
        verify(graph)
        self.graph = graph

    @property
    def input_shapes(self) -> list[tuple[int, ...]]:
        """The shape of every input, in order."""
        return [v.shape for v in self.graph.inputs]

    def initial_states(self) -> dict[str, Array]:
        """The initial values of the states by name, to pass to `run`; empty for a graph without states."""
        return initial_states(self.graph)

    def run(self, *inputs: Any, states: dict[str, Array] | None = None, dtype: Any = np.float64) -> Any:
        """Evaluate the graph once in NumPy.

        Args:
            inputs: one array for each input, of the shapes in `input_shapes`.
            states: the states by name, updated in place; needed where the graph has any. Start from
                `initial_states()`.
            dtype: np.float64 or np.float32, in which everything is computed.

        Returns:
            One array, or a tuple of arrays where there are several outputs.

        Raises:
            InputError: a wrong number, shape or element type of inputs, a missing state, another dtype, or a step
                behind the last one that the tables of the graph have values for.
            StateError: the state that counts the steps is no count.
        """
        stream = self._stream()
        if states is not None and stream.counter in states:
            stream.check([states[stream.counter]], stream.block)
        results = self._evaluated(inputs, states, dtype)
        return results[0] if len(results) == 1 else tuple(results)

    def _evaluated(
        self, inputs: Sequence[Any], states: dict[str, Array] | None, dtype: Any
    ) -> Sequence[Array]:
        """One step; it may be one after the end of the stream."""
        if np.dtype(dtype) not in (np.dtype(np.float64), np.dtype(np.float32)):
            raise InputError(
                f"dtype is {np.dtype(dtype)}", where="run", remedy="use np.float64 or np.float32"
            )
        arrays = self._arrays(inputs, dtype)
        if self.graph.states and states is None:
            names = ", ".join(s.name for s in self.graph.states)
            raise InputError(f"the graph has states ({names}) and run was given none", where="run",
                             remedy="keep states = nnir.initial_states() and pass states=states")  # fmt: skip
        for state in self.graph.states:
            given = (states or {}).get(state.name)
            if given is None or np.shape(given) != state.initial.shape:
                found = "nothing" if given is None else f"shape {np.shape(given)}"
                raise InputError(f"expected shape {state.initial.shape} and found {found}",
                                 where=f"state {state.name!r}", remedy="start from nnir.initial_states()")  # fmt: skip
        return evaluate(self.graph, arrays, states)

    def run_timesteps(
        self,
        *inputs: Any,
        states: dict[str, Array] | None = None,
        align: bool = True,
        end: bool = False,
        dtype: Any = np.float64,
    ) -> Any:
        """`run` for every step of a sequence, with outputs in the places of their inputs, as in VM.run_timesteps.

        Args:
            inputs: one array for each input, with the axis that the streaming transform removed; an input that lost
                no axis is the same in every step.
            states: the states of the stream so far, `initial_states()` at first, updated in place; None for a stream
                that begins and ends with this call.
            align: as for VM.run_timesteps.
            end: as for VM.run_timesteps.
            dtype: as for run.

        Returns:
            One array, or a tuple of arrays where there are several outputs, each with the axis that the streaming
            transform removed; an output that lost none has its steps on axis 0.

        Raises:
            InputError: as `run`, and where the graph is not a step or a block of a stream, or the steps are no multiple
                of the block.
            StateError: the state that counts the steps is no count.
        """
        check_aligned(align, end)
        arrays, stream = self._sequences(inputs, dtype), self._stream()
        check_blocks(stream, arrays[0].shape[1])
        runner = self._runner(stream, self.initial_states() if states is None else states, dtype)
        stream.check([runner.counted(0)] if stream.limit else (), arrays[0].shape[1])
        found = run_aligned(runner, stream, arrays, end) if align else runner.run(arrays)
        moved = [np.moveaxis(a[0], 0, axis or 0) for a, axis in zip(found, stream.outputs, strict=True)]
        return moved[0] if len(moved) == 1 else tuple(moved)

    def _runner(self, stream: Streaming, states: dict[str, Array], dtype: Any) -> Runner:
        def run(steps: Sequence[Array]) -> list[Array]:
            given = to_blocks(stream, steps, 1)
            found: list[list[Array]] = [[] for _ in self.graph.outputs]
            for t in range(given[0].shape[1]):
                made = self._evaluated([array[0, t] for array in given], states, dtype)
                for column, row in zip(found, made, strict=True):
                    column.append(row)
            shapes = [v.shape for v in self.graph.outputs]
            made = [np.array(c, dtype).reshape(1, -1, *shape) for c, shape in zip(found, shapes, strict=True)]
            return from_blocks(stream, made, 1)

        return Runner(
            run,
            counted=lambda n: states[stream.counter],
            mark=lambda number: states.update({stream.marker: np.array(number)}),
            fork=lambda: self._runner(stream, dict(states), dtype),
        )

    def _stream(self) -> Streaming:
        graph, none = self.graph, (0,) * len(self.graph.outputs)
        return Streaming(
            graph.input_streaming_dims or (), graph.output_streaming_dims or (None,) * len(none),
            graph.output_latencies or none, graph.output_tails or none, graph.step_counter, graph.end_marker,
            graph.step_limit, graph.block,
        )  # fmt: skip

    def _sequences(self, inputs: Sequence[Any], dtype: Any) -> list[Array]:
        """Every input as (1, steps, *shape)."""
        dims = self.graph.input_streaming_dims or ()
        if all(dim is None for dim in dims):
            raise InputError("the graph has no steps", where="run_timesteps",
                             remedy="call streaming_transform first, or run")  # fmt: skip
        self._check_count(inputs)
        given = [np.asarray(array) for array in inputs]
        lengths = {
            a.shape[dim] for a, dim in zip(given, dims, strict=True) if dim is not None and dim < a.ndim
        }
        if len(lengths) != 1:
            raise InputError(f"the inputs have {sorted(lengths)} steps", where="run_timesteps",
                             remedy="give every input that streams the same number of steps")  # fmt: skip
        steps = lengths.pop()
        made = []
        for value, dim, array in zip(self.graph.inputs, dims, given, strict=True):
            behind = 0 if dim is None else dim + (self.graph.block > 1)
            whole = value.shape if dim is None else (*value.shape[:dim], steps, *value.shape[behind:])
            checked = _numbers(value.name, array, whole).astype(dtype)
            first = np.broadcast_to(checked, (steps, *whole)) if dim is None else np.moveaxis(checked, dim, 0)
            made.append(first[None])
        return made

    def _check_count(self, inputs: Sequence[Any]) -> None:
        expected = self.graph.inputs
        if len(inputs) != len(expected):
            names = ", ".join(f"%{v.name}" for v in expected)
            raise InputError(f"{len(inputs)} inputs are given, expected {len(expected)} ({names})", where="run",
                             remedy="give one array for each input, in this order")  # fmt: skip

    def _arrays(self, inputs: Sequence[Any], dtype: Any) -> list[Array]:
        self._check_count(inputs)
        pairs = zip(self.graph.inputs, inputs, strict=True)
        return [_numbers(value.name, np.asarray(given), value.shape).astype(dtype) for value, given in pairs]


def _numbers(name: str, array: Array, shape: tuple[int, ...]) -> Array:
    """Raises InputError for what is no array of numbers of that shape."""
    if array.dtype.kind not in "fiub" or array.shape != shape:
        raise InputError(f"expected numbers of shape {shape}, found {array.dtype} of {array.shape}",
                         where=f"input %{name}", remedy="reshape or convert the array")  # fmt: skip
    return array
