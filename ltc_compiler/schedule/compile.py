"""NNIR in, Program out: the stages of the compiler, in order.

    transforms -> selection (virtual instructions) -> order -> memory -> encoding

Every stage is deterministic; the same graph and configuration give the same bytes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import product
from typing import Any

import numpy as np

from .. import numerics
from ..bytecode import CoreImage, EntryArrays, Image, Instr, Model, Port, Row, SlotArrays, State
from ..config import Config
from ..errors import AllocationError, GraphError
from ..ir.graph import Graph, Node, Precision, Value
from ..ir.graph import State as GraphState
from ..program import Program
from ..transforms.pipeline import run_pipeline
from ..transforms.unroll import has_short_solves, unroll_solves
from .layout import View, fresh, row_count
from .lowering import Lowering
from .memory import allocate
from .order import Order, reorder
from .partition import check_places, state_places
from .select import lower_graph
from .virtual import Buffer, Kind, Op, Ref, Schedule

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
    states: list[tuple[str, tuple[int, ...], Buffer]]
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

    Loops and written out solves, several numbers of cores and two orders of the instructions are tried, and the exact
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
    """The models as they are, and with their short solves written out."""
    if not optimize or not any(has_short_solves(m.graph) for m in sources):
        return [sources]
    return [sources, [replace(m, graph=unroll_solves(m.graph)) for m in sources]]


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
    places = state_places(graph)
    states = [(s.name, s.value.shape, _state_buffer(low, s, places[s])) for s in graph.states]
    lower_graph(low, graph)
    _emit_outputs(low, graph)
    _emit_state_writes(low, graph, places, {buffer for _, _, buffer in states})
    streaming = {
        "inputs": list(graph.input_streaming_dims or [None] * len(graph.inputs)),
        "outputs": list(graph.output_streaming_dims or [None] * len(graph.outputs)),
    }
    inputs = [Port(v.name, v.shape, v.role.value, _port_precision(v)) for v in graph.inputs]
    outputs = [
        Port(n, v.shape, "plain", _port_precision(v))
        for n, v in zip(graph.output_names, graph.outputs, strict=True)
    ]
    return Lowered(name, low.schedule, inputs, outputs, states, streaming)


def _port_precision(value: Value) -> str:
    return "bf16" if value.type.precision is Precision.BF16 else "fp32"


def _emit_inputs(low: Lowering, inputs: list[Value]) -> None:
    for port, value in enumerate(inputs):
        view = low.new(value.shape)
        low.schedule.source, low.schedule.operation = f"input {value.name}", "input"
        low.schedule.emit("input", low.home, dst=view.ref, rows=view.total_rows, port=port)
        low.env[value] = view


def _state_buffer(low: Lowering, state: GraphState, cores: tuple[int, ...]) -> Buffer:
    """Persistent rows in the host's layout: padding lanes are +0."""
    value, initial = state.value, state.initial
    width = value.shape[-1] if value.shape else 1
    rows = row_count(width, low.block)
    data = np.zeros((int(np.prod(value.shape[:-1], dtype=np.int64)), rows * low.block), np.float32)
    data[:, :width] = initial.reshape(-1, width)
    data = numerics.write_fp32(data).reshape(-1, low.block)
    buffer = Buffer(len(data), (cores or low.cores)[0], Kind.STATE, data)
    low.env[value] = fresh(Ref(buffer), value.shape, low.block)
    return buffer


def _emit_outputs(low: Lowering, graph: Graph) -> None:
    for port, (value, name) in enumerate(zip(graph.outputs, graph.output_names, strict=True)):
        low.schedule.source, low.schedule.operation = f"output {name}", "output"
        view = low.dense(low.view(value))
        low.schedule.emit("output", low.home, src=view.ref, rows=view.total_rows, port=port)


def _emit_state_writes(
    low: Lowering, graph: Graph, places: dict[GraphState, tuple[int, ...]], buffers: set[Buffer]
) -> None:
    """The new values replace the old ones last; a value that lies in a state's rows is saved first."""
    writes: list[tuple[View, View]] = []
    for state in graph.states:
        if state.next is None:
            raise GraphError(
                f"state {state.name} has no next value", where=graph.name, remedy="set State.next"
            )
        low.schedule.source, low.schedule.operation = f"state {state.name}", "state"
        with low.placed(places[state]):
            old, new = low.view(state.value), low.view(state.next)
            if new == old:
                continue
            if new.ref.buffer in buffers:
                saved = low.new(new.shape, uniform=new.uniform)
                low.copy(new, saved)
                new = saved
            writes.append((old, new))
    for old, new in writes:
        low.grid("state_write", [old, new], old.shape, precision=0)


def encode(models: Sequence[Lowered], low: Lowering, config: Config, used: list[int]) -> Image:
    """The image of scheduled models whose buffers have rows."""
    ops = [op for m in models for op in m.schedule.ops]
    _check_instruction_slots(ops, config)
    placed: list[Model] = []
    begin = 0
    for m in models:
        end = begin + len(m.schedule.ops)
        states = tuple(State(name, shape, b.core, b.row) for name, shape, b in m.states)
        placed.append(Model(m.name, begin, end, tuple(m.inputs), tuple(m.outputs), states))
        begin = end
    persistent = _persistent(low, [b for m in models for _, _, b in m.states])
    cores = [_core_image(low, config, core, used[core], persistent) for core in range(config.cores)]
    places = {str(i): op.source for i, op in enumerate(ops) if op.source}
    operations = {str(i): op.operation for i, op in enumerate(ops) if op.operation}
    meta = {"instructions": places, "operations": operations, "streaming": [m.streaming for m in models]}
    return Image(config, [_instr(op) for op in ops], cores, placed, meta)


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
