"""NNIR from ONNX files and to them; needs the package onnx (the extra `onnx`), which is imported when it is used.

call.py and registry.py say what a converter is; pointwise, layout, positions, products and recurrent hold them; control
has the structured operators; importer walks a model; export writes one.
"""

from __future__ import annotations

from os import PathLike
from pathlib import Path

import numpy as np

from ..ir.graph import Graph
from . import layout, pointwise, positions, products, recurrent  # noqa: F401 - they fill the converter table
from .load import InputShapes, add_inputs, add_states, load_model

__all__ = ["InputShapes", "export_onnx", "import_onnx"]


def import_onnx(path: str | PathLike[str], input_shapes: InputShapes | None = None) -> Graph:
    """The NNIR graph of an ONNX file, opset 7 or later.

    input_shapes: sizes of inputs with symbolic axes, by name or one for each input in order; an axis of the same name
    in another input follows. Raises ModelFileError for a file that is no valid model, InputError for missing or wrong
    shapes, and UnsupportedError with every node that cannot be lowered.
    """
    model = load_model(path)
    from .importer import Importer

    graph = Graph(model.graph.name or Path(path).stem)
    inputs = add_inputs(model, graph, input_shapes, Path(path).name)
    current, following = add_states(model, graph, Path(path).name)
    with np.errstate(all="ignore"):  # constants may hold anything, infinities and NaN too
        return Importer(model, Path(path).name).run(graph, inputs | current, following)


def export_onnx(graph: Graph, path: str | PathLike[str]) -> None:
    """Write a graph as an ONNX file; see export.py for what stands for what. Raises ModelFileError."""
    from .export import write

    write(graph, path)
