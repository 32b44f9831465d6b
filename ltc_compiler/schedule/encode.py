"""A schedule whose buffers have rows becomes a program's image: code, stores, models."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ltc_compiler.bytecode import CoreImage, EntryArrays, Image, Instr, Model, Ring, Row, SlotArrays, State
from ltc_compiler.config import Config
from ltc_compiler.errors import AllocationError
from ltc_compiler.schedule.rows.contents import Contents
from ltc_compiler.schedule.rows.model import LoweredModel, StateRows
from ltc_compiler.schedule.rows.resident import Resident
from ltc_compiler.schedule.rows.virtual import Buffer, Op, Ref, RowUse


def encode(
    models: Sequence[LoweredModel], contents: Contents, uses: list[RowUse], weights: bool = True
) -> Image:
    """The image of scheduled models whose buffers have rows. weights=False: with zeros for weights, for the clock."""
    config = contents.config
    ops = [op for m in models for op in m.schedule.ops]
    _check_instruction_slots(ops, config)
    _check_host_rows(models, config)
    placed: list[Model] = []
    begin = 0
    for m in models:
        end = begin + len(m.schedule.ops)
        states = tuple(_state(s, m.resident) for s in m.states)
        rings = tuple(_ring(b) for b in _state_buffers(m) if b.place)
        placed.append(Model(m.name, begin, end, tuple(m.inputs), tuple(m.outputs), states, rings))
        begin = end
    persistent = _persistent(contents, [b for m in models for b in _state_buffers(m)])
    cores = [
        _core_image(contents, core, uses[core].used, persistent, weights) for core in range(config.cores)
    ]
    places = {str(i): op.source for i, op in enumerate(ops) if op.source}
    operations = {str(i): op.operation for i, op in enumerate(ops) if op.operation}
    meta = {
        "instructions": places,
        "operations": operations,
        "streaming": [m.streaming for m in models],
        "states": [[s.kind for s in m.states] for m in models],
        "live_rows": [use.live for use in uses],
    }

    def fill(core: int, *arrays: NDArray[Any] | None) -> None:
        if weights:
            contents.stores[core].weights.fill(*(a for a in arrays if a is not None))

    return Image(config, [_instr(op, weights) for op in ops], cores, placed, meta).filled(fill)


def _state(state: StateRows, resident: Resident) -> State:
    buffer, offset = state.ref.buffer, state.ref.offset
    copies = tuple((core, resident.copies[buffer, core].row + offset) for core in resident.cores(buffer))
    return State(state.name, state.shape, buffer.core, buffer.row + offset, copies)


def _ring(buffer: Buffer) -> Ring:
    return Ring(buffer.core, buffer.row, buffer.rows // buffer.place, buffer.place, buffer.advance)


def _state_buffers(model: LoweredModel) -> list[Buffer]:
    own = dict.fromkeys(s.ref.buffer for s in model.states)
    return [*own, *(c for (b, _), c in model.resident.copies.items() if b in own)]


def _instr(op: Op, weights: bool) -> Instr:
    operands = {
        name: Row(value.buffer.row + value.offset, value.stride, value.level)
        if isinstance(value, Ref)
        else value
        for name, value in op.operands.items()
    }
    if not weights and "weights" in operands:
        operands["weights"] = 0
    return Instr(op.name, op.core, operands)


def _persistent(contents: Contents, states: list[Buffer]) -> list[Buffer]:
    buffers = [v.ref.buffer for v in contents.constants.values()] + states
    return [b for b in buffers if b.row >= 0]


def _core_image(
    contents: Contents, core: int, rows: int, persistent: list[Buffer], weights: bool
) -> CoreImage:
    config = contents.config
    stores, block = contents.stores[core], config.block_size
    for store, depth, what in (
        (stores.weights, config.weight_blocks, "weight blocks"),
        (stores.slots, config.synapse_slots, "synapse slots"),
        (stores.entries, config.gather_entries, "gather entries"),
    ):
        _check_depth(what, core, store.size, depth, config)
    count = stores.weights.size if weights else stores.weights.largest
    shape = (count, block, block)
    blocks = np.broadcast_to(np.uint16(0), shape)  # `encode` fills those of the file
    originals = np.broadcast_to(np.float32(0), shape) if weights else None
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
    kept = [(b, b.data) for b in persistent if b.core == core and b.data is not None]
    return CoreImage(
        rows,
        [(b.row, data) for b, data in kept],
        blocks,
        slots,
        entries,
        originals,
        stores.slots.column(2, lanes) if weights else None,
        [data if b.original is None else b.original for b, data in kept],
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
    common = sum(op.row_of_table.unit == "control" for op in ops)
    for core in range(config.cores):
        needed = common + sum(op.core == core for op in ops)
        _check_depth("instruction slots", core, needed, config.instruction_slots, config)


def _check_host_rows(models: Sequence[LoweredModel], config: Config) -> None:
    """All inputs of an inference wait beside every core, from where it takes those that it needs, and all outputs of a
    core beside it."""
    for model in models:
        taken = sum(port.rows(config.block_size) for port in model.inputs)
        _check_ports(f"inputs of {model.name}", taken, "input_rows", config)
        for core in range(config.cores):
            sent = 0
            for op in model.schedule.ops:
                if op.name == "output" and op.core == core:
                    rows = op.operands["rows"]
                    assert isinstance(rows, int)
                    sent += rows
            _check_ports(f"outputs of {model.name} on core {core}", sent, "output_rows", config)


def _check_ports(what: str, needed: int, store: str, config: Config) -> None:
    available = getattr(config, store)
    if needed > available:
        raise AllocationError(
            f"{store.replace('_', ' ')} for the {what}",
            needed=needed,
            available=available,
            where=f"configuration {config.name}",
            remedy=f"use a configuration with more {store}, or stream the model, which takes a step at a time",
        )
