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

    input_shapes: sizes of inputs with symbolic axes, by name or one for each input in order; an axis of the same name
    in another input follows. constants: values that inputs are fixed to, by name; they are no inputs then. Raises
    ModelFileError for a file that is no valid model, InputError for missing or wrong shapes and constants, and
    UnsupportedError with every node that cannot be lowered.
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
    """Write a graph as an ONNX file; see export.py for what stands for what. Raises ModelFileError."""
    from ltc_compiler.onnx.export import write

    write(graph, path)
