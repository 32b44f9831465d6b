"""NNIR as its users see it: a graph to print, draw, run in NumPy, stream, and compile.

The facade of ltc_compiler.ir, the transforms and the scheduler; nnir_evaluation.py runs the graph.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from ltc_compiler.config import Config
from ltc_compiler.errors import AllocationError, ConfigError, GraphError, StreamingError
from ltc_compiler.files import write_file
from ltc_compiler.ir.draw import draw
from ltc_compiler.ir.graph import Graph
from ltc_compiler.ir.parse import parse_graph
from ltc_compiler.ir.text import print_graph
from ltc_compiler.nnir_evaluation import EvaluatedGraph
from ltc_compiler.onnx import Constants, InputShapes, export_onnx, import_onnx
from ltc_compiler.stages import stage
from ltc_compiler.transforms.streaming.transform import Axes, Tables, streaming_transform
from ltc_compiler.transforms.tie import tie

if TYPE_CHECKING:
    from ltc_compiler.compare import Comparison, Observed
    from ltc_compiler.program import Program

Made = TypeVar("Made")


class NNIR(EvaluatedGraph):
    """A verified graph: to print, run, stream and compile. No method changes it.

    Args:
        graph: the ltc_compiler.ir.graph.Graph itself, as `NNIR.graph` returns it; do not edit it.

    Raises:
        GraphError: the graph breaks a rule of ir/verify.py.
    """

    def __init__(self, graph: Graph) -> None:
        super().__init__(graph)

    def __reduce__(self) -> tuple[Any, ...]:
        return NNIR.parse, (str(self),)  # copies and pickles hold the text, which has no depth of objects

    # ---- text

    @staticmethod
    def parse(text: str) -> NNIR:
        """The inverse of `str`.

        Args:
            text: a graph in its text form.

        Raises:
            GraphError: the text is not a valid graph; the error names the line.
        """
        return NNIR(parse_graph(text))

    @staticmethod
    def load(path: str | PathLike[str]) -> NNIR:
        """Read a file that `save` wrote.

        Args:
            path: the file to read.

        Raises:
            GraphError: the file cannot be read, or is not a valid graph.
        """
        try:
            text = Path(path).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise GraphError(f"cannot be read: {error}", where=str(path),
                             remedy="give a file that NNIR.save wrote") from error  # fmt: skip
        return NNIR.parse(text)

    def save(self, path: str | PathLike[str]) -> None:
        """Write the text form, constants included, to a file.

        Args:
            path: the file to write.

        Raises:
            FileError: the file cannot be written; an old one is as it was.
        """
        write_file(path, str(self))

    @staticmethod
    def from_onnx(
        path: str | PathLike[str], input_shapes: InputShapes | None = None, constants: Constants | None = None
    ) -> NNIR:
        """The NNIR of an ONNX file of opset 7 or later; docs/onnx.md lists the operators. Needs the extra `onnx`.

        Args:
            path: the ONNX file.
            input_shapes: the shapes of inputs with symbolic axes: {name: shape}, or one shape for each input in order.
            constants: values to which inputs are fixed, by name, such as {"sr": 16000}; these are inputs no more.

        Raises:
            ModelFileError: the file is no valid ONNX model.
            InputError: shapes or constants are missing or wrong.
            UnsupportedError: some nodes cannot be lowered; the error lists them all.
            GraphError: an input has a shape that NNIR does not hold.
        """
        return NNIR(import_onnx(path, input_shapes, constants))

    def to_onnx(self, path: str | PathLike[str]) -> None:
        """Write an ONNX file (opset 20, fp32), for other runtimes and viewers. Needs the extra `onnx`.

        A state becomes an input, with its initial value as default, and an output.

        Args:
            path: the file to write.

        Raises:
            UnsupportedError: ONNX cannot express an operation.
            ModelFileError: the model takes 2 GB or more, which an ONNX file cannot hold.
            FileError: the file cannot be written; an old one is as it was.
        """
        export_onnx(self.graph, path)

    def __str__(self) -> str:
        return print_graph(self.graph)

    def text(self, elide: bool = False) -> str:
        """The text form.

        Args:
            elide: leave out large constants, to read; such a text does not parse back.
        """
        return print_graph(self.graph, elide)

    def __repr__(self) -> str:
        graph = self.graph
        inputs = ", ".join(f"{v.name}: {v.type}" for v in graph.inputs)
        named = zip(graph.output_names, graph.outputs, strict=True)
        outputs = ", ".join(f"{name}: {v.type}" for name, v in named)
        return f"NNIR({graph.name!r}: ({inputs}) -> ({outputs}), {len(graph.nodes)} nodes)"

    def _repr_html_(self) -> str:
        return draw(self.graph)

    # ---- compilation

    def streaming_transform(
        self, axis: Axes, tables: Tables = "refuse", block: int = 1
    ) -> tuple[NNIR, int | tuple[int | None, ...] | None]:
        """Make a graph of a whole sequence a graph of one step, which keeps the rest as state.

        Args:
            axis: the axis of the steps, for all inputs; or a tuple with one for each input, None for an input that is
                the same in every step.
            tables: what to do with constants that vary along `axis`, such as positions. Each step takes its own row;
                a stream of more steps than the example is refused when it runs ("refuse"), or starts again from the
                first row ("wrap").
            block: how many steps one run takes, with the results and the states of as many single ones. With more than
                one, inputs and outputs have their axis of steps, of that length.

        Returns:
            The graph of one step, or of one block of them, and the axis of the steps in the whole output: None for an
            output without steps (such as the final carry of a scan, which each step gives as of that step; a block has
            them in front), a tuple where there are several outputs. An output may come late, by the number of steps in
            `graph.output_latencies`.

        Raises:
            StreamingError: the graph has no step-by-step form; the error names the user's line and the reason. Or
                block is no number of steps from 1 to 65536, or does not divide the steps of the tables.
        """
        try:
            with stage("stream", self.graph.name):
                graph = streaming_transform(self.graph, axis, tables, block)
        except StreamingError as error:
            of_loop = _of_its_loop(error, self.graph)
            if of_loop is None:
                raise
            raise of_loop from error
        dims = graph.output_streaming_dims
        assert dims is not None
        return NNIR(graph), dims[0] if len(dims) == 1 else dims

    def tie(self, ties: Mapping[str, str], initial: Mapping[str, Any] | None = None) -> NNIR:
        """Make an output the next value of an input: `{"h_out": "h"}` turns both into one state "h".

        Tied inputs and outputs are ports no more; all others stay, also an output that has the same value.

        Args:
            ties: {name of an output: name of an input}. The state has the name of the input.
            initial: {name of an input: array}, the states' values in the first run and after a reset; zeros if not
                given.

        Raises:
            GraphError: an unknown name, different shapes or precisions, an input that is tied twice, or an input that
                is an elapsed time.
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
        """Compile for one accelerator configuration. No argument changes a bit of what the program computes.

        Args:
            config: the accelerator.
            name: the model's name in the program; the graph's if None.
            optimize: order the instructions by what they wait for; False leaves them in the order of the graph, to
                read.
            quick_compile: take the first schedule; else several are made, and the one with the fewest cycles is kept.
            generate_state_reset: False makes a program that refuses `reset`, for a stream that must not lose its
                state.

        Raises:
            AllocationError: the program does not fit; if one step of the sequence does, the error says so.
            GraphError: the graph cannot be lowered.
            UnsupportedError: an operation cannot be lowered.
            ConfigError: `config` is no Config, or lacks what the model asks for.
        """
        from ltc_compiler.settle import compile_model

        _check_config(config)
        program = self._advised(
            config, lambda: compile_model(self.graph, config, name, optimize=optimize, quick=quick_compile)
        )
        return program if generate_state_reset else program.without_reset()

    def schedule_text(self, config: Config, *, optimize: bool = True, quick_compile: bool = False) -> str:
        """The schedule that `to_program` takes, as text, one line per instruction.

        A line gives the index in the program's code, the planned start in cycles, core, unit, instruction, operation,
        the rows that are written, the instructions that it waits for, the rows that are read, and the user's line.

        Args:
            config: the accelerator.
            optimize: as for to_program.
            quick_compile: as for to_program.

        Raises:
            AllocationError: as to_program.
            GraphError: as to_program.
            UnsupportedError: as to_program.
            ConfigError: as to_program.
        """
        from ltc_compiler.settle import schedule_text

        _check_config(config)
        return self._advised(
            config, lambda: schedule_text(self.graph, config, optimize=optimize, quick=quick_compile)
        )

    def _advised(self, config: Config, make: Callable[[], Made]) -> Made:
        """What `make` returns. An AllocationError also says what fits instead, if something does."""
        try:
            return make()
        except AllocationError as error:
            from ltc_compiler.advice import with_advice

            raise with_advice(error, self.graph, config) from None

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

        Print the result, or read its rows.

        Args:
            config: the accelerator.
            inputs: one array for each input; to run several steps, with the states carried along, arrays with an axis
                of time, or lists of steps.
            expected: PyTorch's outputs, to compare with too: one array, or one for each output.
            observed: what PyTorch computed on the way, for a column of its own errors; ltc_torch.compare passes it.
            iterations: look into the bodies of scans with up to this many iterations.
            what_if: try this many of the worst operations in FP32, each by compiling again.
            factor: an operation loses precision where it multiplies the error by this.
            optimize: as for to_program.

        Raises:
            InputError: an argument is wrong.
            AllocationError: the program does not fit, or not all values find room at once.
            ConfigError: `config` is no Config.
            GraphError: the graph cannot be lowered.
            UnsupportedError: an operation cannot be lowered.
        """
        from ltc_compiler.compare import compare

        _check_config(config)
        return compare(self.graph, config, inputs, expected=expected, observed=observed, iterations=iterations,
                       what_if=what_if, factor=factor, optimize=optimize)  # fmt: skip


def _check_config(config: object) -> None:
    """Raises ConfigError for what is no Config."""
    if not isinstance(config, Config):
        raise ConfigError(f"config is {config!r}, not a Config", where="config",
                          remedy="give Config.v80_c6b32(), Config.preset(name) or Config.load(path)")  # fmt: skip


def _of_its_loop(error: StreamingError, graph: Graph) -> StreamingError | None:
    """The loop over time that stayed unrolled, where that is why a graph does not stream; else None."""
    if graph.written_out is None:
        return None
    what, where, remedy = graph.written_out
    read = "selects the fixed step" in error.what and error.where == where
    if not read and "is computed from the last step" not in error.what:
        return None
    return StreamingError(what, where=where, remedy=remedy)
