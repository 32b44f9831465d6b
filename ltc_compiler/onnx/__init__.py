"""NNIR from ONNX files and to them; needs the package onnx (the extra `onnx`), which is imported when it is used.

call.py and registry.py say what a converter is; pointwise, movement, positions, products and recurrent hold them;
control has the structured operators; importer walks a model; export writes one.
"""

from __future__ import annotations

from os import PathLike
from pathlib import Path

import numpy as np

from ltc_compiler.ir.graph import Graph
from ltc_compiler.onnx import (  # noqa: F401 - they fill the converter table
    choices,
    elementary,
    export,
    movement,
    pointwise,
    positions,
    products,
    recurrent,
    resample,
    sequences,
)
from ltc_compiler.onnx.load import load_model
from ltc_compiler.onnx.signature import Constants, InputShapes, add_inputs, add_states, read_constants
from ltc_compiler.onnx.streams import read_stream

__all__ = ["Constants", "InputShapes", "export_onnx", "import_onnx"]


def import_onnx(
    path: str | PathLike[str], input_shapes: InputShapes | None = None, constants: Constants | None = None
) -> Graph:
    """The NNIR graph of an ONNX file, opset 7 or later.

    Args:
        path: the ONNX file.
        input_shapes: the shapes of inputs with symbolic axes: {name: shape}, or one shape for each input in order. An
            axis of the same name in another input follows.
        constants: values to which inputs are fixed, by name; these are inputs no more.

    Raises:
        ModelFileError: the file is no valid ONNX model.
        InputError: shapes or constants are missing or wrong.
        UnsupportedError: some nodes cannot be lowered; the error lists them all.
        GraphError: an input has a shape that NNIR does not hold.
    """
    model = load_model(path)
    from ltc_compiler.onnx.importer import Importer

    graph, file = Graph(model.graph.name or Path(path).stem), Path(path).name
    fixed = read_constants(model, constants, file)
    inputs = add_inputs(model, graph, input_shapes, fixed, file)
    current, following = add_states(model, graph, fixed, file)
    with np.errstate(all="ignore"):  # constants may hold anything, infinities and NaN too
        Importer(model, file).run(graph, {**inputs, **current, **fixed}, following)
    values = {state.value: state for state in following.values()}
    read_stream(model, graph, {name: values[value] for name, value in current.items()}, file)
    return graph


def export_onnx(graph: Graph, path: str | PathLike[str]) -> None:
    """Write a graph as an ONNX file, opset 20; export.py says what stands for what.

    Args:
        graph: the graph to write.
        path: the file to write.

    Raises:
        UnsupportedError: ONNX cannot express an operation.
        ModelFileError: the model takes 2 GB or more, which an ONNX file cannot hold.
        FileError: the file cannot be written; an old one is as it was.
    """
    export.write(graph, path)
