"""NNIR as its users see it: a graph to print, draw, run in NumPy, stream, and compile.

The facade of ltc_compiler.ir, the transforms and the scheduler. An NNIR is not changed by any of its methods.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ltc_compiler.bytecode.alignment import Runner, Streaming, check_aligned, run_aligned
from ltc_compiler.config import Config
from ltc_compiler.errors import AllocationError, ConfigError, GraphError, InputError, StreamingError
from ltc_compiler.files import write_file
from ltc_compiler.ir.draw import draw
from ltc_compiler.ir.graph import Array, Graph
from ltc_compiler.ir.parse import parse_graph
from ltc_compiler.ir.run import evaluate, initial_states
from ltc_compiler.ir.text import print_graph
from ltc_compiler.ir.verify import verify
from ltc_compiler.transforms.streaming.transform import Axes, Tables, streaming_transform
from ltc_compiler.transforms.tie import tie

if TYPE_CHECKING:
    from ltc_compiler.compare import Comparison, Observed
    from ltc_compiler.onnx import Constants, InputShapes
    from ltc_compiler.program import Program


class NNIR:
    """A verified graph. `graph` is the ltc_compiler.ir.graph.Graph itself; do not edit it."""

    def __init__(self, graph: Graph) -> None:
        """Raises GraphError if `graph` breaks a rule of ir/verify.py."""
        verify(graph)
        self.graph = graph

    def __reduce__(self) -> tuple[Any, ...]:
        return NNIR.parse, (str(self),)  # copies and pickles hold the text, which has no depth of objects

    # ---- text

    @staticmethod
    def parse(text: str) -> NNIR:
        """The NNIR that `str` printed. Raises GraphError with the line that is wrong."""
        return NNIR(parse_graph(text))

    @staticmethod
    def load(path: str | PathLike[str]) -> NNIR:
        """The NNIR that `save` wrote. Raises GraphError for a file that cannot be read, and as `parse`."""
        try:
            text = Path(path).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise GraphError(f"cannot be read: {error}", where=str(path),
                             remedy="give a file that NNIR.save wrote") from error  # fmt: skip
        return NNIR.parse(text)

    def save(self, path: str | PathLike[str]) -> None:
        """Write the text form, constants included, to a file. Raises FileError, with the old file as it was."""
        write_file(path, str(self))

    @staticmethod
    def from_onnx(
        path: str | PathLike[str], input_shapes: InputShapes | None = None, constants: Constants | None = None
    ) -> NNIR:
        """The NNIR of an ONNX file (opset 7 or later; docs/onnx.md lists the operators). Needs the extra `onnx`.

        input_shapes: sizes of inputs with symbolic axes, {name: shape} or one shape for each input in order.
        constants: values that inputs are fixed to, {"sr": 16000}, whole numbers too.
        Raises ModelFileError for a file that is no valid model, InputError for missing or wrong shapes and constants,
        and UnsupportedError with every node that cannot be lowered.
        """
        from ltc_compiler.onnx import import_onnx

        return NNIR(import_onnx(path, input_shapes, constants))

    def to_onnx(self, path: str | PathLike[str]) -> None:
        """Write an ONNX file (opset 20, fp32) that other runtimes compute and viewers open. Needs the extra `onnx`.

        States become inputs with their initial values as defaults, and outputs. Raises ModelFileError for a model of
        2 GB, and FileError.
        """
        from ltc_compiler.onnx import export_onnx

        export_onnx(self.graph, path)

    def __str__(self) -> str:
        return print_graph(self.graph)

    def text(self, elide: bool = False) -> str:
        """The text form; `elide` leaves large constants out, for people: such text does not parse back."""
        return print_graph(self.graph, elide)

    def __repr__(self) -> str:
        graph = self.graph
        inputs = ", ".join(f"{v.name}: {v.type}" for v in graph.inputs)
        named = zip(graph.output_names, graph.outputs, strict=True)
        outputs = ", ".join(f"{name}: {v.type}" for name, v in named)
        return f"NNIR({graph.name!r}: ({inputs}) -> ({outputs}), {len(graph.nodes)} nodes)"

    def _repr_html_(self) -> str:
        return draw(self.graph)

    # ---- meaning

    @property
    def input_shapes(self) -> list[tuple[int, ...]]:
        """The shape of every input."""
        return [v.shape for v in self.graph.inputs]

    def initial_states(self) -> dict[str, Array]:
        """The states' initial values by name, for `run`; empty for a graph without states."""
        return initial_states(self.graph)

    def run(self, *inputs: Any, states: dict[str, Array] | None = None, dtype: Any = np.float64) -> Any:
        """Evaluate in NumPy, in fp64 or fp32: an array, or a tuple of arrays where there are several outputs.

        states: needed where the graph has states (start from `initial_states()`); updated in place.
        Raises InputError for a wrong number, shape or element type of inputs, for missing states, and for a step behind
        the last one that the graph has tables for.
        """
        stream = self._stream()
        if states is not None and stream.counter in states:
            stream.check([states[stream.counter]], 1)
        results = self._evaluated(inputs, states, dtype)
        return results[0] if len(results) == 1 else tuple(results)

    def _evaluated(
        self, inputs: Sequence[Any], states: dict[str, Array] | None, dtype: Any
    ) -> Sequence[Array]:
        """One step, one behind the end of a stream too."""
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
        """`run` for every step of a sequence, with outputs in the places of their inputs, as VM.run_timesteps has them.

        Arrays with the axes that the streaming transform removed, in and out; an input that lost none is the same in
        every step, and an output that has none gets axis 0. states: of the stream so far, `initial_states()` at first,
        updated in place; None for a stream of this call alone. align, end: as for VM.run_timesteps. Raises InputError
        as `run`, and for a graph that is not of one step.
        """
        check_aligned(align, end)
        arrays, stream = self._sequences(inputs, dtype), self._stream()
        runner = self._runner(stream, self.initial_states() if states is None else states, dtype)
        stream.check([runner.counted(0)] if stream.limit else (), arrays[0].shape[1])
        found = run_aligned(runner, stream, arrays, end) if align else runner.run(arrays)
        moved = [np.moveaxis(a[0], 0, axis or 0) for a, axis in zip(found, stream.outputs, strict=True)]
        return moved[0] if len(moved) == 1 else tuple(moved)

    def _runner(self, stream: Streaming, states: dict[str, Array], dtype: Any) -> Runner:
        def run(given: Sequence[Array]) -> list[Array]:
            found: list[list[Array]] = [[] for _ in self.graph.outputs]
            for t in range(given[0].shape[1]):
                made = self._evaluated([array[0, t] for array in given], states, dtype)
                for column, row in zip(found, made, strict=True):
                    column.append(row)
            shapes = [v.shape for v in self.graph.outputs]
            return [np.array(c, dtype).reshape(1, -1, *shape) for c, shape in zip(found, shapes, strict=True)]

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
            graph.step_limit,
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
            whole = value.shape if dim is None else (*value.shape[:dim], steps, *value.shape[dim:])
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

    # ---- compilation

    def streaming_transform(
        self, axis: Axes, tables: Tables = "refuse"
    ) -> tuple[NNIR, int | tuple[int | None, ...] | None]:
        """The graph of one step, streamed along `axis` (or one axis, or None, for each input), and the output axis.

        The output axis is where the steps stood in the whole output, None for an output without them (the final carry
        of a scan: the carry as of this step); a tuple where there are several outputs. An output may come late, by
        the number of steps in `graph.output_latencies`.

        tables: what becomes of constants that vary along `axis`, positions for one. Each step takes its own row; a
        stream of more steps than the example has is refused when it runs ("refuse"), or begins the rows anew ("wrap").
        Raises StreamingError for what has no step-by-step form.
        """
        try:
            graph = streaming_transform(self.graph, axis, tables)
        except StreamingError as error:
            of_loop = _of_its_loop(error, self.graph)
            if of_loop is None:
                raise
            raise of_loop from error
        dims = graph.output_streaming_dims
        assert dims is not None
        return NNIR(graph), dims[0] if len(dims) == 1 else dims

    def tie(self, ties: Mapping[str, str], initial: Mapping[str, Any] | None = None) -> NNIR:
        """The graph in which outputs are the next values of inputs: `{"h_out": "h"}` makes both one state "h".

        initial: {input name: array} for the first run and after a reset, zeros where none is given. Tied ports are no
        ports any more; the others stay, an output of the same value too. `run`, `reset` and `set_state` know the state
        by the input's name. Raises GraphError for unknown names, different shapes or precisions, an input that is tied
        twice, and an elapsed time.
        """
        return NNIR(tie(self.graph, ties, initial))

    def to_program(
        self,
        config: Config,
        name: str | None = None,
        *,
        optimize: bool = True,
        quick_compile: bool = False,
        generate_state_reset: bool = True,
    ) -> Program:
        """The scheduled bytecode for one accelerator configuration.

        name: the model's name in the program, the graph's if not given.
        optimize: order the instructions by what they wait for; False leaves them in the order of the graph, to read.
        quick_compile: take the first schedule; else several are made, and the one with the fewest cycles is kept.
        generate_state_reset: False makes a program that refuses `reset`, for a stream that must not lose its state.
        None of them changes a result.
        Raises AllocationError for what does not fit (it names the step that does, if a step of the sequence does),
        GraphError or UnsupportedError for what cannot be lowered, and ConfigError for a `config` that is none.
        """
        from ltc_compiler.settle import compile_model

        _check_config(config)
        try:
            program = compile_model(self.graph, config, name, optimize=optimize, quick=quick_compile)
        except AllocationError as error:
            from ltc_compiler.advice import with_advice

            raise with_advice(error, self.graph, config) from None
        return program if generate_state_reset else program.without_reset()

    def compare(
        self,
        config: Config,
        *inputs: Any,
        expected: Any = None,
        observed: Sequence[Observed] = (),
        iterations: int = 64,
        what_if: int = 5,
        factor: float = 16.0,
        optimize: bool = True,
    ) -> Comparison:
        """Where precision is lost: fp64, plain fp32 and the bit-accurate machine side by side, operation by operation.

        inputs: one array for each input, with a time axis more (or a list of steps) to run several steps, the states
        carried along. expected: PyTorch's outputs, as one array or one for each output, to compare with too. observed:
        what PyTorch computed on the way (ltc_torch.compare gives it), for a column of its own errors. iterations: scans
        of up to so many iterations are looked into. what_if: so many of the worst operations are tried in FP32 alone,
        each by compiling again. factor: an operation loses precision where the error grows by this. Print the result.
        Raises InputError for wrong arguments, AllocationError where not all values find room, and as `to_program`.
        """
        from ltc_compiler.compare import compare

        _check_config(config)
        return compare(self.graph, config, inputs, expected=expected, observed=observed, iterations=iterations,
                       what_if=what_if, factor=factor, optimize=optimize)  # fmt: skip


def _numbers(name: str, array: Array, shape: tuple[int, ...]) -> Array:
    """Raises InputError for what is no array of numbers of that shape."""
    if array.dtype.kind not in "fiub" or array.shape != shape:
        raise InputError(f"expected numbers of shape {shape}, found {array.dtype} of {array.shape}",
                         where=f"input %{name}", remedy="reshape or convert the array")  # fmt: skip
    return array


def _check_config(config: object) -> None:
    """Raises ConfigError for what is no Config."""
    if not isinstance(config, Config):
        raise ConfigError(f"config is {config!r}, not a Config", where="config",
                          remedy="give Config.v80_c6b32(), Config.preset(name) or Config.load(path)")  # fmt: skip


def _of_its_loop(error: StreamingError, graph: Graph) -> StreamingError | None:
    """The reason behind an error where the iterations of a loop stand one by one; None where it is not of that kind."""
    if graph.written_out is None:
        return None
    what, where, remedy = graph.written_out
    read = "selects the fixed step" in error.what and error.where == where
    if not read and "is computed from the last step" not in error.what:
        return None
    return StreamingError(what, where=where, remedy=remedy)
