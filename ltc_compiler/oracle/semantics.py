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
from ltc_compiler.oracle.execution import Execution, OpenLoop

Semantics = Callable[[Execution], None]


def _elementwise(operation: Callable[..., F32]) -> Semantics:
    """dst = operation(op, a, ...) over n_outer x n_inner rows, one after the other."""

    def execute(op: Execution) -> None:
        sources = [name for name in ("a", "b", "c") if name in op.instr.operands]
        for outer, inner in product(range(op.number("n_outer")), range(op.number("n_inner"))):
            row = {
                name: op.address(name)
                + outer * op.number(f"{name}_outer")
                + inner * op.number(f"{name}_inner")
                for name in ("dst", *sources)
            }
            op.write(row["dst"], operation(op, *(op.read(row[name]) for name in sources)))

    return execute


def _plain(operation: Callable[..., F32]) -> Semantics:
    """An elementwise operation that its precision changes only in the write."""
    return _elementwise(lambda _, *sources: operation(*sources))


def _activation(name: str) -> Semantics:
    def apply(op: Execution, a: F32) -> F32:
        return numerics.activation_bf16(name, a) if op.bf16 else numerics.ACTIVATIONS_FP32[name](a)

    return _elementwise(apply)


def _splat(op: Execution, a: F32) -> F32:
    lane = op.number("lane")
    op.require(lane < len(a), f"names lane {lane} of {len(a)}")
    return np.full_like(a, a[lane])


def _row_reduce(reduce: Callable[[F32], F32]) -> Semantics:
    def execute(op: Execution) -> None:
        for group in range(op.number("groups")):
            elements = op.read_vector(op.address("src") + group * op.number("src_step"), op.number("k"))
            result = np.full(op.machine.width, reduce(elements), np.float32)
            op.write(op.address("dst") + group * op.number("dst_step"), result)

    return execute


def _column_reduce(reduce: Callable[[F32], F32]) -> Semantics:
    def execute(op: Execution) -> None:
        for i in range(op.number("n_inner")):
            first = op.address("src") + i
            rows = [op.read(first + k * op.number("k_step")) for k in range(op.number("k"))]
            op.write(op.address("dst") + i, reduce(np.stack(rows, axis=1)))

    return execute


def _factor(op: Execution, x: F32) -> F32:
    """What a product takes of a computed value: rounded to bf16 where the instruction says so."""
    return numerics.to_bf16(x) if op.number("narrow") and op.machine.bit_accurate else x


def _sum_of_products(terms: F32) -> F32:
    """Rule 7 over the last axis, of products that are each a write, and so is the sum."""
    return numerics.write_fp32(numerics.tree_sum(numerics.write_fp32(terms)))


def _product(op: Execution) -> None:
    width = op.machine.width
    for i, r in product(range(op.number("n_i")), range(op.number("n_inner"))):
        terms = []
        for j in range(op.number("n_j")):
            lane = i * op.number("lane_i") + j * op.number("lane_j")
            op.require(lane < op.number("a_lanes"), f"names lane {lane} of {op.number('a_lanes')}")
            row = op.address("a") + i * op.number("a_i") + j * op.number("a_j") + lane // width
            a = _factor(op, op.read(row)[lane % width])
            terms.append(numerics.mul(a, _factor(op, op.read(op.address("b") + j * op.number("b_j") + r))))
        addend = op.read(op.address("addend") + i * op.number("addend_i") + r)
        result = numerics.add(_sum_of_products(np.stack(terms, axis=1)), addend)
        op.write(op.address("dst") + i * op.number("dst_i") + r, result)


def _dot(op: Execution) -> None:
    n, k, width = op.number("n_j"), op.number("k"), op.machine.width
    for i in range(op.number("n_i")):
        a = _factor(op, op.read_vector(op.address("a") + i * op.number("a_i"), k))
        for first in range(0, n, width):
            sums = np.zeros(width, np.float32)
            for j in range(first, min(n, first + width)):
                b = _factor(op, op.read_vector(op.address("b") + j * op.number("b_j"), k))
                sums[j - first] = _sum_of_products(numerics.mul(a, b))
            row = first // width
            addend = op.read(op.address("addend") + i * op.number("addend_i") + row)
            op.write(op.address("dst") + i * op.number("dst_i") + row, numerics.add(sums, addend))


def _weights(op: Execution, size: int) -> F32:
    """The weights of a matmul as (m_rows * B, taps * rows(k) * B): blocks of 16-bit words, pairs of them, or the
    originals; +0 where a tap has no element."""
    m_rows, width = op.number("m_rows"), op.machine.width
    across = op.number("taps") * op.machine.rows(op.number("k"))
    core = op.machine.image.cores[op.instr.core]
    first = op.number("weights") + size * np.arange(m_rows * across)
    last = op.number("weights") + size * m_rows * across
    op.require(last <= len(core.weights), f"reads weight block {last - 1} of {len(core.weights)}")
    if not op.machine.bit_accurate:
        assert core.shadow_weights is not None, "the constructor saw to it"
        blocks = core.shadow_weights[first]
    elif size == 1:
        blocks = numerics.from_bf16_bits(core.weights[first])
    else:
        high, low = core.weights[first].astype(np.uint32), core.weights[first + 1].astype(np.uint32)
        blocks = numerics.from_bits((high << np.uint32(16)) | low)
    grid = blocks.reshape(m_rows, across, width, width)
    matrix = grid.transpose(0, 2, 1, 3).reshape(m_rows * width, across * width)
    return np.where(_present(op), matrix, np.float32(0))


def _present(op: Execution) -> NDArray[np.bool_]:
    """Which of the lanes of a matmul's input rows hold an element of a tap."""
    lanes = np.arange(op.machine.rows(op.number("k")) * op.machine.width)
    return np.tile(lanes < op.number("k"), op.number("taps"))


def _taps(op: Execution, vector: int) -> F32:
    """A vector as the matrix unit reads it: whole rows, +0 where a tap has no element."""
    first, k = op.address("x") + vector * op.number("x_step"), op.number("k")
    whole = op.machine.rows(k) * op.machine.width
    taps = range(op.number("taps"))
    rows = [op.read_vector(first + t * op.number("tap_step"), whole) for t in taps]
    return np.where(_present(op), np.concatenate(rows), np.float32(0))


def _matmul(op: Execution, fp32: bool) -> None:
    width, m_rows = op.machine.width, op.number("m_rows")
    weights = _weights(op, size=2 if fp32 else 1)
    addend, relu = op.number("addend"), op.number("relu")
    for vector in range(op.number("batch")):
        x = _taps(op, vector)
        if op.machine.bit_accurate and not fp32:
            x = numerics.to_bf16(x)
        bias = op.read_vector(op.address("bias") + vector * op.number("bias_step"), m_rows * width)
        if addend:
            product = numerics.dot(weights, x, np.zeros_like(bias), fp32=True)  # operands are as read
            result = numerics.add(numerics.write_fp32(product), bias)
        else:
            result = numerics.dot(weights, x, bias, fp32=True)
        if relu:
            result = numerics.relu(numerics.write_fp32(result))
        result = result.reshape(m_rows, width)
        for row in range(m_rows):
            op.write(op.address("dst") + vector * op.number("dst_step") + row, result[row])


def _slot(op: Execution, index: int) -> tuple[F32, F32, F32, F32]:
    """mu, sigma, w and we of a slot."""
    core = op.machine.image.cores[op.instr.core]
    if op.machine.bit_accurate:
        slots = core.slots
        return slots.mu[index], slots.sigma[index], slots.w[index], slots.we[index]
    assert core.shadow_slots is not None, "the constructor saw to it"
    mu, sigma, w, we = core.shadow_slots[index]
    return mu, sigma, w, we


def _synapse(op: Execution) -> None:
    slots, write = op.machine.image.cores[op.instr.core].slots, numerics.write_fp32
    width = op.machine.width
    v = op.read_vector(op.address("v"), op.number("v_rows") * width)
    bf16, op.bf16 = op.bf16, False  # the two sums are written as fp32
    v = numerics.to_bf16(v) if bf16 else v
    index = op.number("slots")
    for target in range(op.number("targets")):
        num = den = np.zeros(width, np.float32)
        last = False
        while not last:
            op.require(index < len(slots), f"reads synapse slot {index} of {len(slots)}")
            there = slots.src[index] != isa.ABSENT
            source = np.where(there, slots.src[index], 0)
            op.require(int(source.max()) < len(v), f"reads source {source.max()} of {len(v)}")
            mu, sigma, w, we = _slot(op, index)
            x = write(numerics.mul(sigma, write(numerics.sub(v[source], mu))))
            s = numerics.activation_bf16("sigmoid", x) if bf16 else numerics.ACTIVATIONS_FP32["sigmoid"](x)
            num = np.where(there, write(numerics.add(num, write(numerics.mul(s, we)))), num)
            den = np.where(there, write(numerics.add(den, write(numerics.mul(s, w)))), den)
            last = bool(slots.last[index])
            index += 1
        op.write(op.address("num") + target, numerics.add(num, 0))
        op.write(op.address("den") + target, numerics.add(den, 0))


def _ltc_update(op: Execution) -> None:
    sources = ("v", "num", "den", "leak", "conductance", "cm", "h")
    for i in range(op.number("n")):
        row = {name: op.address(name) + i * op.number(f"{name}_step") for name in ("dst", *sources)}
        x = {name: op.read(row[name]) for name in sources}
        op.write(row["dst"], numerics.ltc_update(**x))


def _gather(op: Execution) -> None:
    entries = op.machine.image.cores[op.instr.core].entries
    first, count = op.number("entries"), op.number("count")
    op.require(first + count <= len(entries), f"reads entry {first + count - 1} of {len(entries)}")
    for entry in range(first, first + count):
        from_row, to_row = int(entries.src[entry]), int(entries.dst[entry])
        op.require(0 <= from_row < op.number("src_rows"), f"entry {entry} reads outside its rows")
        op.require(0 <= to_row < op.number("dst_rows"), f"entry {entry} writes outside its rows")
        source, target = op.address("src") + from_row, op.address("dst") + to_row
        lane = entries.lane[entry]
        there = lane != isa.ABSENT
        op.require(bool((lane[there] < len(lane)).all()), f"entry {entry} names a lane that is not there")
        taken = op.read(source)[np.where(there, lane, 0)]
        kept = np.zeros_like(taken) if entries.clear[entry] else op.read(target)
        op.write(target, np.where(there, taken, kept))


def _transpose(op: Execution) -> None:
    across, down = op.number("src_rows"), op.number("dst_rows")
    op.require(max(across, down) <= op.machine.width, "transposes more rows than a row has lanes")
    tile = np.zeros((op.machine.width, op.machine.width), np.float32)
    for i in range(across):
        tile[:, i] = op.read(op.address("src") + i * op.number("src_step"))
    for j in range(down):
        op.write(op.address("dst") + j * op.number("dst_step"), tile[j])


def _send(op: Execution) -> None:
    capacity = op.machine.image.config.link_fifo_rows
    for i in range(op.number("rows")):
        row = op.read(op.address("src") + i)
        for target in range(op.machine.image.config.cores):
            if op.number("targets") >> target & 1:
                fifo = op.machine.fifos.setdefault((op.instr.core, target), deque())
                op.require(len(fifo) < capacity, f"overflows the link to core {target}: {capacity} rows")
                fifo.append(row)


def _receive(op: Execution) -> None:
    source = op.number("source")
    fifo = op.machine.fifos.setdefault((source, op.instr.core), deque())
    for i in range(op.number("rows")):
        op.require(len(fifo) > 0, f"pops an empty link from core {source}")
        op.write(op.address("dst") + i, fifo.popleft())


def _port(op: Execution, ports: Sequence[Port]) -> Port:
    index = op.number("port")
    op.require(index < len(ports), f"names port {index} of {len(ports)}")
    rows, last = ports[index].rows(op.machine.width), op.number("first") + op.number("rows")
    op.require(last <= rows, f"moves row {last - 1} of a port that has {rows}")
    return ports[index]


def _input(op: Execution) -> None:
    """The host-load rule (4): an architectural write, rounded to bf16 where the port says so."""
    port = _port(op, op.model.inputs)
    op.bf16 = op.machine.bit_accurate and port.precision == "bf16"
    rows = to_rows(op.machine.inputs[op.number("port")], op.machine.width)
    first = op.number("first")
    for i, row in enumerate(rows[first : first + op.number("rows")]):
        op.write(op.address("dst") + i, row)


def _output(op: Execution) -> None:
    _port(op, op.model.outputs)
    rows = op.machine.outputs.setdefault(op.number("port"), {})
    for i in range(op.number("rows")):
        rows[op.number("first") + i] = op.read(op.address("src") + i).copy()


def _loop(op: Execution) -> None:
    op.require(op.number("count") > 0, "has no iteration")
    op.require(len(op.machine.loops) < isa.MAX_LOOP_DEPTH, f"nests deeper than {isa.MAX_LOOP_DEPTH}")
    op.machine.loops.append(OpenLoop(op.machine.counter, op.number("count")))


def _end(op: Execution) -> None:
    op.require(bool(op.machine.loops), "ends no loop")
    loop = op.machine.loops[-1]
    loop.iteration += 1
    if loop.iteration < loop.count:
        op.machine.counter = loop.start
    else:
        op.machine.loops.pop()


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
    "product": _product,
    "dot": _dot,
    "matmul": lambda op: _matmul(op, fp32=False),
    "matmul_fp32": lambda op: _matmul(op, fp32=True),
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
