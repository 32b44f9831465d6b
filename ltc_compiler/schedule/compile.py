"""NNIR in, Program out: the stages of the compiler, in order.

    transforms -> selection (virtual instructions) -> order -> memory -> encoding

Every stage is deterministic; the same graph and configuration give the same bytes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import product
from math import prod
from typing import Any

import numpy as np

from ..bytecode import CoreImage, EntryArrays, Image, Instr, Model, Port, Row, SlotArrays, State
from ..config import Config
from ..errors import AllocationError
from ..ir.graph import Graph, Node, Precision, Value
from ..program import Program
from ..transforms.pipeline import run_pipeline
from ..transforms.unroll import may_unroll, unroll
from .layout import View, innermost, row_count
from .lowering import UNROLL, Lowering
from .memory import allocate
from .order import Order, reorder
from .partition import check_places
from .resident import Resident
from .select import lower_graph
from .states import Placed, place_states, write_states
from .virtual import Buffer, Op, Ref, Schedule

BEST_ORDERS = (Order.EAGER, Order.STATE_FIRST)
SMALL = 4  # blocks of the largest product below which links cannot pay
WORTH = (
    0.99  # what needs more instructions or cores must take fewer cycles than this share of what needs less
)
LARGE = 2000  # blocks in all above which only the full machine is tried


@dataclass
class Lowered:
    """A model on virtual rows: its instructions, and what it exchanges with the host."""

    name: str
    schedule: Schedule
    inputs: list[Port]
    outputs: list[Port]
    states: list[Placed]
    resident: Resident
    streaming: dict[str, Any] = field(default_factory=dict)


def compile_graph(
    graph: Graph, config: Config, name: str | None = None, *, optimize: bool = True, quick: bool = False
) -> Program:
    """Compile one graph for one configuration; see `compile_graphs`."""
    source = Source(name or graph.name, graph, tuple(range(config.cores)))
    return compile_graphs([source], config, optimize=optimize, quick=quick)


@dataclass(frozen=True)
class Source:
    """A model to compile: its name, its graph, and the cores that it may use; the first of them is its home."""

    name: str
    graph: Graph
    cores: tuple[int, ...]


def compile_graphs(
    models: Sequence[Source], config: Config, *, optimize: bool = True, quick: bool = False
) -> Program:
    """Compile models into one program; equal weights are stored once, every model has a state of its own.

    Loops and written out turns, several numbers of cores and two orders of the instructions are tried, and the exact
    cycle count decides. quick: one form, one number of cores, one order. optimize=False: that, and the instructions
    stay in the order in which they are selected. Raises AllocationError, UnsupportedError or GraphError.
    """
    sources = [replace(m, graph=run_pipeline(m.graph)) for m in models]
    return schedule_graphs(sources, config, optimize=optimize, quick=quick)


def schedule_graphs(
    sources: list[Source], config: Config, *, optimize: bool = True, quick: bool = False
) -> Program:
    """`compile_graphs` from where the passes end: for graphs that run_pipeline made."""
    for m in sources:
        check_places(m.graph, m.cores, config)
    best: Program | None = None
    best_cycles = 0.0
    failure: AllocationError | None = None
    thorough = optimize and not quick
    orders = BEST_ORDERS if thorough else [Order.EAGER if optimize else Order.AS_WRITTEN]
    for form, cores in product(_forms(sources, thorough), core_counts(sources, config, thorough)):
        try:
            for program in _programs(form, config, cores, orders):
                cycles = _cycles(program)
                if best is None or cycles < WORTH * best_cycles:
                    best, best_cycles = program, cycles
        except AllocationError as error:
            failure = failure or error
    if best is None:
        assert failure is not None
        raise failure
    return best


def _forms(sources: list[Source], optimize: bool) -> list[list[Source]]:
    """The models as they are, and with turns of their loops written out."""
    if not optimize or not any(may_unroll(m.graph) for m in sources):
        return [sources]
    return [sources, [replace(m, graph=unroll(m.graph)) for m in sources]]


def _cycles(program: Program) -> int:
    """Cycles of all models, idle before and back to back."""
    models = range(program.num_models)
    return sum(program.cycle_count_per_inference(m, spaced) for m in models for spaced in (True, False))


def core_counts(models: Sequence[Source], config: Config, optimize: bool) -> list[int]:
    """The numbers of cores that are worth trying. Large models take all of them."""
    blocks = [_blocks(n, config.block_size) for m in models for n in m.graph.walk() if n.op == "linear"]
    targets = [n.results[0].shape[-1] for m in models for n in m.graph.walk() if n.op == "synapse"]
    most = max(len(m.cores) for m in models)
    if max(blocks, default=0) < SMALL:  # links cannot pay for products, but for more than one row of targets
        most = min(most, max((row_count(n, config.block_size) for n in targets), default=1))
    return [most] if sum(blocks) > LARGE or not optimize else list(range(1, most + 1))


def _blocks(node: Node, block: int) -> int:
    rows, columns = node.operands[1].shape
    return row_count(rows, block) * row_count(columns, block)


def _programs(
    sources: Sequence[Source], config: Config, cores: int, orders: Sequence[Order]
) -> Iterator[Program]:
    """The program for a number of cores, in each order of its instructions."""
    low = Lowering(config)
    models = [lower(low, m.graph, m.name, m.cores[:cores]) for m in sources]
    schedules = [m.schedule for m in models]
    written = [s.ops for s in schedules]
    for order in orders:
        for schedule, ops in zip(schedules, written, strict=True):
            schedule.ops = reorder(ops, config, order)
        used = allocate(schedules, config)
        yield Program(encode(models, low, config, used))


def lower(low: Lowering, graph: Graph, name: str, cores: Sequence[int]) -> Lowered:
    """Select instructions for a graph on some cores: inputs, nodes, outputs, then the states' new values."""
    low.begin_model(cores)
    _emit_inputs(low, graph.inputs)
    states = place_states(low, graph)
    lower_graph(low, graph)
    _emit_outputs(low, graph)
    write_states(low, graph)
    streaming = {
        "inputs": list(graph.input_streaming_dims or [None] * len(graph.inputs)),
        "outputs": list(graph.output_streaming_dims or [None] * len(graph.outputs)),
    }
    inputs = [Port(v.name, v.shape, v.role.value, _port_precision(v)) for v in graph.inputs]
    outputs = [
        Port(n, v.shape, "plain", _port_precision(v))
        for n, v in zip(graph.output_names, graph.outputs, strict=True)
    ]
    return Lowered(name, low.schedule, inputs, outputs, states, low.resident, streaming)


def _port_precision(value: Value) -> str:
    return "bf16" if value.type.precision is Precision.BF16 else "fp32"


def _emit_inputs(low: Lowering, inputs: list[Value]) -> None:
    for port, value in enumerate(inputs):
        view = low.new(value.shape)
        low.schedule.source, low.schedule.operation = f"input {value.name}", "input"
        low.resident.ports[view.ref.buffer] = port, low.schedule.source
        low.schedule.emit("input", low.home, dst=view.ref, rows=view.total_rows, port=port, first=0)
        low.env[value] = view


def _emit_outputs(low: Lowering, graph: Graph) -> None:
    for port, (value, name) in enumerate(zip(graph.outputs, graph.output_names, strict=True)):
        low.schedule.source, low.schedule.operation = f"output {name}", "output"
        for first, view in _output_parts(low, value):
            low.schedule.emit(
                "output", view.ref.buffer.core, src=view.ref, rows=view.total_rows, port=port, first=first
            )


def _output_parts(low: Lowering, value: Value) -> list[tuple[int, View]]:
    """What goes out as it lies: parts from the cores that hold them, else the whole; each with its first row."""
    spread = low.shards.get(value)
    vectors = prod(value.shape[:-1])
    if spread is None or vectors > UNROLL:
        return [(0, low.dense(low.view(value)))]
    parts = []
    across = low.rows(value.shape[-1])
    for part in spread.parts:
        for v, view in enumerate(innermost(low.vectors(part.view))):
            parts.append((v * across + part.start, view))
    return parts


def encode(models: Sequence[Lowered], low: Lowering, config: Config, used: list[int]) -> Image:
    """The image of scheduled models whose buffers have rows."""
    ops = [op for m in models for op in m.schedule.ops]
    _check_instruction_slots(ops, config)
    placed: list[Model] = []
    begin = 0
    for m in models:
        end = begin + len(m.schedule.ops)
        states = tuple(_state(s, m.resident) for s in m.states)
        placed.append(Model(m.name, begin, end, tuple(m.inputs), tuple(m.outputs), states))
        begin = end
    persistent = _persistent(low, [b for m in models for b in _state_buffers(m)])
    cores = [_core_image(low, config, core, used[core], persistent) for core in range(config.cores)]
    places = {str(i): op.source for i, op in enumerate(ops) if op.source}
    operations = {str(i): op.operation for i, op in enumerate(ops) if op.operation}
    meta = {"instructions": places, "operations": operations, "streaming": [m.streaming for m in models]}
    return Image(config, [_instr(op) for op in ops], cores, placed, meta)


def _state(placed: Placed, resident: Resident) -> State:
    buffer, offset = placed.ref.buffer, placed.ref.offset
    copies = tuple((core, resident.copies[buffer, core].row + offset) for core in resident.cores(buffer))
    return State(placed.name, placed.shape, buffer.core, buffer.row + offset, copies)


def _state_buffers(model: Lowered) -> list[Buffer]:
    own = dict.fromkeys(s.ref.buffer for s in model.states)
    return [*own, *(c for (b, _), c in model.resident.copies.items() if b in own)]


def _instr(op: Op) -> Instr:
    operands = {
        name: Row(value.buffer.row + value.offset, value.stride, value.level)
        if isinstance(value, Ref)
        else value
        for name, value in op.operands.items()
    }
    return Instr(op.name, op.core, operands)


def _persistent(low: Lowering, states: list[Buffer]) -> list[Buffer]:
    buffers = [v.ref.buffer for v in low.constants.values()] + states
    return [b for b in buffers if b.row >= 0]


def _core_image(low: Lowering, config: Config, core: int, rows: int, persistent: list[Buffer]) -> CoreImage:
    stores, block = low.stores[core], config.block_size
    for store, depth, what in (
        (stores.weights, config.weight_blocks, "weight blocks"),
        (stores.slots, config.synapse_slots, "synapse slots"),
        (stores.entries, config.gather_entries, "gather entries"),
    ):
        _check_depth(what, core, store.size, depth, config)
    tile = np.zeros((0, block, block), np.float32)
    lanes = np.zeros((0, 4, block), np.float32)
    values = stores.slots.column(1, lanes)
    slots = SlotArrays(
        src=stores.slots.column(0, np.zeros((0, block), np.uint16)),
        **{name: values[:, i] for i, name in enumerate(("mu", "sigma", "w", "we"))},
        last=stores.slots.column(3, np.zeros(0, np.uint8)).astype(np.bool_),
    )
    index = np.zeros(0, np.int32)
    entries = EntryArrays(
        stores.entries.column(0, index),
        stores.entries.column(1, index),
        stores.entries.column(2, index.astype(np.uint8)).astype(np.bool_),
        stores.entries.column(3, np.zeros((0, block), np.uint16)),
    )
    constants = [(b.row, b.data) for b in persistent if b.core == core and b.data is not None]
    return CoreImage(
        rows,
        constants,
        stores.weights.column(0, tile.astype(np.uint16)),
        slots,
        entries,
        stores.weights.column(1, tile),
        stores.slots.column(2, lanes),
    )


def _check_depth(what: str, core: int, needed: int, depth: int, config: Config) -> None:
    if needed > depth:
        raise AllocationError(
            f"{what} of core {core}",
            needed=needed,
            available=depth,
            where=f"configuration {config.name}",
            remedy=f"use a configuration with more {what.replace(' ', '_')} or more cores, or make the model smaller",
        )


def _check_instruction_slots(ops: list[Op], config: Config) -> None:
    common = sum(op.row.unit == "control" for op in ops)
    for core in range(config.cores):
        needed = common + sum(op.core == core for op in ops)
        _check_depth("instruction slots", core, needed, config.instruction_slots, config)
