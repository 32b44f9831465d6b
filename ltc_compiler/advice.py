"""What fits in place of a model that does not: every proposal was tried."""

from __future__ import annotations

import warnings

from ltc_compiler.config import Config
from ltc_compiler.errors import AllocationError, LtcError
from ltc_compiler.ir.graph import Graph
from ltc_compiler.settle import compile_model
from ltc_compiler.transforms.streaming.transform import streaming_transform

OF_STEPS = (
    "tensor rows",
    "input rows",
    "instruction slots",
    "gather entries",
)  # stores that more steps need more of


def with_advice(error: AllocationError, graph: Graph, config: Config) -> AllocationError:
    """The refusal of a whole sequence with the step that fits, if one does; that of a block with what makes it smaller;
    else the refusal as it is."""
    if graph.block > 1 and error.store.startswith(OF_STEPS):
        shorter = f"take fewer steps in one run than {graph.block}: streaming_transform(..., block=)"
        return AllocationError(error.store, needed=error.needed, available=error.available, where=error.where,
                               remedy=f"{shorter}; or {error.remedy}")  # fmt: skip
    found = _step_that_fits(graph, config)
    if found is None:
        return error
    axis, cycles = found
    remedy = (
        f"stream the sequence: nnir.streaming_transform({axis})[0] fits and takes {cycles} cycles per step"
    )
    return AllocationError(error.store, needed=error.needed, available=error.available, where=error.where,
                           remedy=f"{remedy}; or {error.remedy}")  # fmt: skip


def _step_that_fits(graph: Graph, config: Config) -> tuple[int, int] | None:
    """The axis along which a step fits, the longest first, and the cycles of the step."""
    if graph.states or graph.input_streaming_dims is not None or not graph.inputs:
        return None
    lengths = [min(sizes) for sizes in zip(*(v.shape for v in graph.inputs), strict=False)]
    for axis in sorted(range(len(lengths)), key=lambda a: (lengths[a], a), reverse=True):
        if lengths[axis] == 1:
            break
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                program = compile_model(streaming_transform(graph, axis), config, quick=True)
            except LtcError:
                continue
        return axis, program.cycle_count_per_inference()
    return None
