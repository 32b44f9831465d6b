"""NNIR in, Image out: the stages of the compiler, in order.

    transforms -> selection -> order -> memory -> encoding
                  lower.py     order/   memory.py  encode.py

search.py goes through the last four for every schedule that it tries. Every stage is deterministic: the same graph and
configuration give the same bytes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from ltc_compiler.bytecode import Image
from ltc_compiler.config import Config
from ltc_compiler.errors import AllocationError, GraphError
from ltc_compiler.schedule.search import Draft, Job, best_schedule, nearer
from ltc_compiler.stages import stage
from ltc_compiler.transforms.pipeline import run_pipeline
from ltc_compiler.transforms.roll import roll_products


def compile_graphs(
    jobs: Sequence[Job], config: Config, *, optimize: bool = True, quick: bool = False
) -> Image:
    """The image of a program of several models. Equal weights are stored once; every model has states of its own.

    quick=True takes the first schedule that fits instead of searching for the best one; optimize=False does too, and
    leaves the instructions in the order of the graph. Raises AllocationError for what does not fit, UnsupportedError
    for what the machine cannot do, ConfigError for cores that a model may not use, and GraphError for a prologue.
    """
    draft = schedule_graphs(jobs, config, optimize=optimize, quick=quick)
    with stage("encode", _names(jobs)):
        return draft.image


def schedule_graphs(
    jobs: Sequence[Job], config: Config, *, optimize: bool = True, quick: bool = False
) -> Draft:
    """The schedule behind `compile_graphs`. Where there are too few rows, attention and other products of computed
    tensors are made one row at a time."""
    for job in jobs:
        if job.graph.prologue is not None:
            raise GraphError("its states begin with what a prologue computes", where=f"model {job.name!r}",
                             remedy="compile it with NNIR.to_program or ProgramBuilder")  # fmt: skip
    with stage("transform", _names(jobs)):
        whole = [replace(job, graph=run_pipeline(job.graph)) for job in jobs]
    with stage("schedule", f"{_names(jobs)} on {config.name}"):
        return _scheduled(jobs, whole, config, optimize, quick)


def _names(jobs: Sequence[Job]) -> str:
    return ", ".join(job.name for job in jobs)


def _scheduled(jobs: Sequence[Job], whole: list[Job], config: Config, optimize: bool, quick: bool) -> Draft:
    """The schedule of graphs that the passes have been over."""
    try:
        return best_schedule(whole, config, optimize=optimize, quick=quick)
    except AllocationError as error:
        rolled = [roll_products(job.graph) for job in jobs]
        if "rows" not in error.store or all(graph is None for graph in rolled):
            raise
        smaller = [
            job if graph is None else replace(job, graph=run_pipeline(graph))
            for job, graph in zip(whole, rolled, strict=True)
        ]
        try:
            return best_schedule(smaller, config, optimize=optimize, quick=quick)
        except AllocationError as other:
            raise nearer(error, other) from None
