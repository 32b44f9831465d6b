"""What every instruction means: one table, by name, in a few lines of named numeric steps each.

Importing fails if the table and isa/table.py differ. The numbers in parentheses are rules of docs/numerics.md.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from itertools import product

import numpy as np
from numpy.typing import NDArray

from ltc_compiler import isa, numerics
from ltc_compiler.bytecode import Port
from ltc_compiler.bytecode.ports import F32, to_rows
from ltc_compiler.oracle.step import Loop, Step

Semantics = Callable[[Step], None]


def _elementwise(operation: Callable[..., F32]) -> Semantics:
    """dst = operation(step, a, ...) over n_outer x n_inner rows, one after the other."""

    def execute(step: Step) -> None:
        sources = [name for name in ("a", "b", "c") if name in step.instr.operands]
        for outer, inner in product(range(step.number("n_outer")), range(step.number("n_inner"))):
            row = {
                name: step.address(name)
                + outer * step.number(f"{name}_outer")
                + inner * step.number(f"{name}_inner")
                for name in ("dst", *sources)
            }
            step.write(row["dst"], operation(step, *(step.read(row[name]) for name in sources)))

    return execute


def _plain(operation: Callable[..., F32]) -> Semantics:
    """An elementwise operation that its precision changes only in the write."""
    return _elementwise(lambda _, *sources: operation(*sources))


def _activation(name: str) -> Semantics:
    def apply(step: Step, a: F32) -> F32:
        return numerics.activation_bf16(name, a) if step.bf16 else numerics.ACTIVATIONS_FP32[name](a)

    return _elementwise(apply)


def _splat(step: Step, a: F32) -> F32:
    lane = step.number("lane")
    step.require(lane < len(a), f"names lane {lane} of {len(a)}")
    return np.full_like(a, a[lane])


def _row_reduce(reduce: Callable[[F32], F32]) -> Semantics:
    def execute(step: Step) -> None:
        for group in range(step.number("groups")):
            elements = step.read_vector(
                step.address("src") + group * step.number("src_step"), step.number("k")
            )
            result = np.full(step.machine.width, reduce(elements), np.float32)
            step.write(step.address("dst") + group * step.number("dst_step"), result)

    return execute


def _column_reduce(reduce: Callable[[F32], F32]) -> Semantics:
    def execute(step: Step) -> None:
        for i in range(step.number("n_inner")):
            first = step.address("src") + i
            rows = [step.read(first + k * step.number("k_step")) for k in range(step.number("k"))]
            step.write(step.address("dst") + i, reduce(np.stack(rows, axis=1)))

    return execute


def _weights(step: Step, size: int) -> F32:
    """The weights of a matmul as (m_rows * B, taps * rows(k) * B): blocks of 16-bit words, pairs of them, or the
    originals; +0 where a tap has no element."""
    m_rows, width = step.number("m_rows"), step.machine.width
    across = step.number("taps") * step.machine.rows(step.number("k"))
    core = step.machine.image.cores[step.instr.core]
    first = step.number("weights") + size * np.arange(m_rows * across)
    last = step.number("weights") + size * m_rows * across
    step.require(last <= len(core.weights), f"reads weight block {last - 1} of {len(core.weights)}")
    if not step.machine.bit_accurate:
        assert core.shadow_weights is not None, "the constructor saw to it"
        blocks = core.shadow_weights[first]
    elif size == 1:
        blocks = numerics.from_bf16_bits(core.weights[first])
    else:
        high, low = core.weights[first].astype(np.uint32), core.weights[first + 1].astype(np.uint32)
        blocks = numerics.from_bits((high << np.uint32(16)) | low)
    grid = blocks.reshape(m_rows, across, width, width)
    matrix = grid.transpose(0, 2, 1, 3).reshape(m_rows * width, across * width)
    return np.where(_present(step), matrix, np.float32(0))


def _present(step: Step) -> NDArray[np.bool_]:
    """Which of the lanes of a matmul's input rows hold an element of a tap."""
    lanes = np.arange(step.machine.rows(step.number("k")) * step.machine.width)
    return np.tile(lanes < step.number("k"), step.number("taps"))


def _taps(step: Step, vector: int) -> F32:
    """A vector as the matrix unit reads it: whole rows, +0 where a tap has no element."""
    first, k = step.address("x") + vector * step.number("x_step"), step.number("k")
    whole = step.machine.rows(k) * step.machine.width
    taps = range(step.number("taps"))
    rows = [step.read_vector(first + t * step.number("tap_step"), whole) for t in taps]
    return np.where(_present(step), np.concatenate(rows), np.float32(0))


def _matmul(step: Step, fp32: bool) -> None:
    width, m_rows = step.machine.width, step.number("m_rows")
    weights = _weights(step, size=2 if fp32 else 1)
    addend, relu = step.number("addend"), step.number("relu")
    for vector in range(step.number("batch")):
        x = _taps(step, vector)
        if step.machine.bit_accurate and not fp32:
            x = numerics.to_bf16(x)
        bias = step.read_vector(step.address("bias") + vector * step.number("bias_step"), m_rows * width)
        if addend:
            product = numerics.dot(weights, x, np.zeros_like(bias), fp32=True)  # operands are as read
            result = numerics.add(numerics.write_fp32(product), bias)
        else:
            result = numerics.dot(weights, x, bias, fp32=True)
        if relu:
            result = numerics.relu(numerics.write_fp32(result))
        result = result.reshape(m_rows, width)
        for row in range(m_rows):
            step.write(step.address("dst") + vector * step.number("dst_step") + row, result[row])


def _slot(step: Step, index: int) -> tuple[F32, F32, F32, F32]:
    """mu, sigma, w and we of a slot."""
    core = step.machine.image.cores[step.instr.core]
    if step.machine.bit_accurate:
        slots = core.slots
        return slots.mu[index], slots.sigma[index], slots.w[index], slots.we[index]
    assert core.shadow_slots is not None, "the constructor saw to it"
    mu, sigma, w, we = core.shadow_slots[index]
    return mu, sigma, w, we


def _synapse(step: Step) -> None:
    slots, write = step.machine.image.cores[step.instr.core].slots, numerics.write_fp32
    width = step.machine.width
    v = step.read_vector(step.address("v"), step.number("v_rows") * width)
    bf16, step.bf16 = step.bf16, False  # the two sums are written as fp32
    v = numerics.to_bf16(v) if bf16 else v
    index = step.number("slots")
    for target in range(step.number("targets")):
        num = den = np.zeros(width, np.float32)
        last = False
        while not last:
            step.require(index < len(slots), f"reads synapse slot {index} of {len(slots)}")
            there = slots.src[index] != isa.ABSENT
            source = np.where(there, slots.src[index], 0)
            step.require(int(source.max()) < len(v), f"reads source {source.max()} of {len(v)}")
            mu, sigma, w, we = _slot(step, index)
            x = write(numerics.mul(sigma, write(numerics.sub(v[source], mu))))
            s = numerics.activation_bf16("sigmoid", x) if bf16 else numerics.ACTIVATIONS_FP32["sigmoid"](x)
            num = np.where(there, write(numerics.add(num, write(numerics.mul(s, we)))), num)
            den = np.where(there, write(numerics.add(den, write(numerics.mul(s, w)))), den)
            last = bool(slots.last[index])
            index += 1
        step.write(step.address("num") + target, numerics.add(num, 0))
        step.write(step.address("den") + target, numerics.add(den, 0))


def _ltc_update(step: Step) -> None:
    sources = ("v", "num", "den", "leak", "conductance", "cm", "h")
    for i in range(step.number("n")):
        row = {name: step.address(name) + i * step.number(f"{name}_step") for name in ("dst", *sources)}
        x = {name: step.read(row[name]) for name in sources}
        step.write(row["dst"], numerics.ltc_update(**x))


def _gather(step: Step) -> None:
    entries = step.machine.image.cores[step.instr.core].entries
    first, count = step.number("entries"), step.number("count")
    step.require(first + count <= len(entries), f"reads entry {first + count - 1} of {len(entries)}")
    for entry in range(first, first + count):
        from_row, to_row = int(entries.src[entry]), int(entries.dst[entry])
        step.require(0 <= from_row < step.number("src_rows"), f"entry {entry} reads outside its rows")
        step.require(0 <= to_row < step.number("dst_rows"), f"entry {entry} writes outside its rows")
        source, target = step.address("src") + from_row, step.address("dst") + to_row
        lane = entries.lane[entry]
        there = lane != isa.ABSENT
        step.require(bool((lane[there] < len(lane)).all()), f"entry {entry} names a lane that is not there")
        taken = step.read(source)[np.where(there, lane, 0)]
        kept = np.zeros_like(taken) if entries.clear[entry] else step.read(target)
        step.write(target, np.where(there, taken, kept))


def _transpose(step: Step) -> None:
    across, down = step.number("src_rows"), step.number("dst_rows")
    step.require(max(across, down) <= step.machine.width, "turns more rows than a row has lanes")
    tile = np.zeros((step.machine.width, step.machine.width), np.float32)
    for i in range(across):
        tile[:, i] = step.read(step.address("src") + i * step.number("src_step"))
    for j in range(down):
        step.write(step.address("dst") + j * step.number("dst_step"), tile[j])


def _send(step: Step) -> None:
    capacity = step.machine.image.config.link_fifo_rows
    for i in range(step.number("rows")):
        row = step.read(step.address("src") + i)
        for target in range(step.machine.image.config.cores):
            if step.number("targets") >> target & 1:
                fifo = step.machine.fifos.setdefault((step.instr.core, target), deque())
                step.require(len(fifo) < capacity, f"overflows the link to core {target}: {capacity} rows")
                fifo.append(row)


def _receive(step: Step) -> None:
    source = step.number("source")
    fifo = step.machine.fifos.setdefault((source, step.instr.core), deque())
    for i in range(step.number("rows")):
        step.require(len(fifo) > 0, f"pops an empty link from core {source}")
        step.write(step.address("dst") + i, fifo.popleft())


def _port(step: Step, ports: Sequence[Port]) -> Port:
    index = step.number("port")
    step.require(index < len(ports), f"names port {index} of {len(ports)}")
    rows, last = ports[index].rows(step.machine.width), step.number("first") + step.number("rows")
    step.require(last <= rows, f"moves row {last - 1} of a port that has {rows}")
    return ports[index]


def _input(step: Step) -> None:
    """The host-load rule (4): an architectural write, rounded to bf16 where the port says so."""
    port = _port(step, step.model.inputs)
    step.bf16 = step.machine.bit_accurate and port.precision == "bf16"
    rows = to_rows(step.machine.inputs[step.number("port")], step.machine.width)
    first = step.number("first")
    for i, row in enumerate(rows[first : first + step.number("rows")]):
        step.write(step.address("dst") + i, row)


def _output(step: Step) -> None:
    _port(step, step.model.outputs)
    rows = step.machine.outputs.setdefault(step.number("port"), {})
    for i in range(step.number("rows")):
        rows[step.number("first") + i] = step.read(step.address("src") + i).copy()


def _loop(step: Step) -> None:
    step.require(step.number("count") > 0, "has no iteration")
    step.require(len(step.machine.loops) < isa.MAX_LOOP_DEPTH, f"nests deeper than {isa.MAX_LOOP_DEPTH}")
    step.machine.loops.append(Loop(step.machine.counter, step.number("count")))


def _end(step: Step) -> None:
    step.require(bool(step.machine.loops), "ends no loop")
    loop = step.machine.loops[-1]
    loop.iteration += 1
    if loop.iteration < loop.count:
        step.machine.counter = loop.start
    else:
        step.machine.loops.pop()


SEMANTICS: Mapping[str, Semantics] = {
    "loop": _loop,
    "end": _end,
    "move": _plain(lambda a: a),
    "state_write": _plain(lambda a: a),
    "splat": _elementwise(_splat),
    "gather": _gather,
    "transpose": _transpose,
    "add": _plain(numerics.add),
    "sub": _plain(numerics.sub),
    "mul": _plain(numerics.mul),
    "div": _plain(numerics.div),
    "min": _plain(numerics.minimum),
    "max": _plain(numerics.maximum),
    "gt": _plain(numerics.gt),
    "ge": _plain(numerics.ge),
    "lt": _plain(numerics.lt),
    "le": _plain(numerics.le),
    "eq": _plain(numerics.eq),
    "ne": _plain(numerics.ne),
    "select": _plain(numerics.select),
    "neg": _plain(numerics.neg),
    "abs": _plain(numerics.absolute),
    "relu": _plain(numerics.relu),
    "sqrt": _plain(numerics.sqrt),
    "floor": _plain(numerics.floor),
    "round": _plain(numerics.round_even),
    "fmod": _plain(numerics.fmod),
    "row_sum": _row_reduce(numerics.tree_sum),
    "row_max": _row_reduce(numerics.reduce_max),
    "column_sum": _column_reduce(numerics.tree_sum),
    "column_max": _column_reduce(numerics.reduce_max),
    "matmul": lambda step: _matmul(step, fp32=False),
    "matmul_fp32": lambda step: _matmul(step, fp32=True),
    "synapse": _synapse,
    "ltc_update": _ltc_update,
    "send": _send,
    "receive": _receive,
    "input": _input,
    "output": _output,
    **{name: _activation(name) for name in numerics.ACTIVATIONS},
}

if set(SEMANTICS) != set(isa.BY_NAME):
    raise ImportError(f"the oracle and the instruction table differ in {set(SEMANTICS) ^ set(isa.BY_NAME)}")
