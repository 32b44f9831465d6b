"""What a program says of its models: their names, what they exchange with the host, how late their outputs are."""

from __future__ import annotations

from ltc_compiler.bytecode import Image, Model, Port
from ltc_compiler.bytecode.alignment import streaming_of
from ltc_compiler.bytecode.ports import model_at
from ltc_compiler.config import Config
from ltc_compiler.errors import InputError


class ProgramPorts:
    """The part of Program that reads its models, ports and states."""

    def __init__(self, image: Image) -> None:
        self._image = image
        self._streaming = [streaming_of(image.meta, model, i) for i, model in enumerate(image.models)]

    @property
    def image(self) -> Image:
        """The program as data: code, stores, models. Do not change it."""
        return self._image

    @property
    def hw_config(self) -> Config:
        """The configuration that the program was compiled for."""
        return self._image.config

    @property
    def num_models(self) -> int:
        """The number of models in the program."""
        return len(self._image.models)

    def model_name(self, model_index: int = 0) -> str:
        """The name of a model.

        Args:
            model_index: which model, counted from 0.

        Raises:
            InputError: there is no such model.
        """
        return self._model(model_index).name

    def num_inputs(self, model_index: int = 0) -> int:
        """The number of arrays that a model takes.

        Args:
            model_index: which model, counted from 0.

        Raises:
            InputError: there is no such model.
        """
        return len(self._model(model_index).inputs)

    def num_outputs(self, model_index: int = 0) -> int:
        """The number of arrays that a model returns.

        Args:
            model_index: which model, counted from 0.

        Raises:
            InputError: there is no such model.
        """
        return len(self._model(model_index).outputs)

    def input_shape(self, model_index: int = 0, input_index: int = 0) -> tuple[int, ...]:
        """The shape of an input of one inference; () for a scalar.

        A stream's input has no axis of time here; where an inference takes a block of steps, it has one of that length.

        Args:
            model_index: which model, counted from 0.
            input_index: which of its inputs, counted from 0.

        Raises:
            InputError: there is no such model or input.
        """
        return self._input(model_index, input_index).shape

    def output_shape(self, model_index: int = 0, output_index: int = 0) -> tuple[int, ...]:
        """The shape of an output of one inference; () for a scalar.

        A stream's output has no axis of time here; where an inference takes a block of steps, it has one of that
        length: where the whole output has it, or in front.

        Args:
            model_index: which model, counted from 0.
            output_index: which of its outputs, counted from 0.

        Raises:
            InputError: there is no such model or output.
        """
        return self._output(model_index, output_index).shape

    def input_format(self, model_index: int = 0, input_index: int = 0) -> str:
        """The format in which the accelerator holds an input: "fp32" or "bf16". The host always gives float32.

        Args:
            model_index: which model, counted from 0.
            input_index: which of its inputs, counted from 0.

        Raises:
            InputError: there is no such model or input.
        """
        return self._input(model_index, input_index).precision

    def output_format(self, model_index: int = 0, output_index: int = 0) -> str:
        """The format that an output's values are rounded to: "fp32" or "bf16". The host always gets float32.

        Args:
            model_index: which model, counted from 0.
            output_index: which of its outputs, counted from 0.

        Raises:
            InputError: there is no such model or output.
        """
        return self._output(model_index, output_index).precision

    def input_streaming_dim(self, model_index: int = 0, input_index: int = 0) -> int | None:
        """The axis of the original input that the streaming transform removed; None if it removed none.

        Args:
            model_index: which model, counted from 0.
            input_index: which of its inputs, counted from 0.

        Raises:
            InputError: there is no such model or input.
        """
        self._input(model_index, input_index)
        return self._streaming[model_index].inputs[input_index]

    def output_streaming_dim(self, model_index: int = 0, output_index: int = 0) -> int | None:
        """The axis of the original output that the streaming transform removed; None if it removed none.

        Args:
            model_index: which model, counted from 0.
            output_index: which of its outputs, counted from 0.

        Raises:
            InputError: there is no such model or output.
        """
        self._output(model_index, output_index)
        return self._streaming[model_index].outputs[output_index]

    def block_steps(self, model_index: int = 0) -> int:
        """The steps of a stream that one inference takes: the block of streaming_transform; 1 without one.

        Cycles, durations and utilisation are those of an inference, of all its steps together.

        Args:
            model_index: which model, counted from 0.

        Raises:
            InputError: there is no such model.
        """
        self._model(model_index)
        return self._streaming[model_index].block

    @property
    def output_latencies(self) -> tuple[int, ...]:
        """The steps by which each output of model 0 is late; see output_latency."""
        return self._streaming[0].latencies if self._streaming else ()

    def output_latency(self, model_index: int = 0, output_index: int = 0) -> int:
        """The steps by which an output is late: step t of a stream gives the output's element t - latency.

        It is 0 for an output that depends on no later step. VM.run_timesteps puts outputs in the places of their
        inputs; VM.run and VM.run_into return what comes out.

        Args:
            model_index: which model, counted from 0.
            output_index: which of its outputs, counted from 0.

        Raises:
            InputError: there is no such model or output.
        """
        self._output(model_index, output_index)
        return self._streaming[model_index].latencies[output_index]

    def output_tail(self, model_index: int = 0, output_index: int = 0) -> int:
        """The elements of an output that follow the last step of a stream, where the caller says that it ends.

        It is negative where an output ends before its input: the whole sequence does not have that many of the last
        elements.

        Args:
            model_index: which model, counted from 0.
            output_index: which of its outputs, counted from 0.

        Raises:
            InputError: there is no such model or output.
        """
        self._output(model_index, output_index)
        return self._streaming[model_index].tails[output_index]

    def state_kinds(self, model_index: int = 0) -> dict[str, str]:
        """The kind of each state of a model, by the state's name.

        "stream": the streaming transform made it; "module": a module of the model keeps it from call to call; "tied":
        it joins an output to the same input of the next run.

        Args:
            model_index: which model, counted from 0.

        Raises:
            InputError: there is no such model.
        """
        self._model(model_index)
        return self._image.state_kinds(model_index)

    def _model(self, index: int) -> Model:
        return model_at(self._image.models, index)

    def _input(self, model_index: int, index: int) -> Port:
        return _port(self._model(model_index).inputs, index, "input")

    def _output(self, model_index: int, index: int) -> Port:
        return _port(self._model(model_index).outputs, index, "output")


def _port(ports: tuple[Port, ...], index: int, side: str) -> Port:
    if not 0 <= index < len(ports):
        listed = ", ".join(f"{i} {port.name!r}" for i, port in enumerate(ports)) or "none"
        raise InputError(f"no {side} {index}", where=f"{side}_index", remedy=f"the {side}s are {listed}")
    return ports[index]
