"""Let a carry's new value be computed in the carry's own rows, so that no iteration of a loop ends with copies.

A temporary and a carry become one buffer if no instruction reads the old value once the new one is being written. The
first writer itself may, if it works row by row and each row in its place.
"""

from __future__ import annotations

from dataclasses import replace

from ltc_compiler.schedule.rows.layout import View
from ltc_compiler.schedule.rows.virtual import ROW_BY_ROW, Buffer, Kind, Op, Ref, Schedule


def coalesce(schedule: Schedule, new: View, carry: View, begin: int) -> bool:
    """Give `new` the rows of `carry`, whose loop body starts at position `begin`. Returns False, and changes nothing,
    where that could change a result."""
    old, target = new.ref.buffer, carry.ref.buffer
    if (
        not _alike(new, carry)
        or old.kind is not Kind.TEMPORARY
        or old.core != target.core
        or old in schedule.held
    ):
        return False
    first = next((i for i in range(begin, len(schedule.ops)) if _touches(schedule.ops[i], old)), None)
    if (
        first is None
        or _depth(schedule.ops[begin:first])
        or any(_touches(op, old) for op in schedule.ops[:begin])
    ):
        return False
    if not _in_place(schedule.ops[first], old, target):
        return False
    if any(_touches(op, target) for op in schedule.ops[first + 1 :]):
        return False
    for op in schedule.ops[first:]:
        for name, value in op.operands.items():
            if isinstance(value, Ref) and value.buffer is old:
                op.operands[name] = replace(value, buffer=target)
    if _is_copy_onto_itself(schedule.ops[first]):
        del schedule.ops[first]
    return True


def _alike(new: View, carry: View) -> bool:
    """Both fill their whole buffers in the same layout."""
    same = (new.shape, new.uniform, new.contiguous) == (carry.shape, carry.uniform, carry.contiguous)
    return (
        same and new.ref.offset == 0 and new.ref.level == 0 and new.ref.buffer.rows == carry.ref.buffer.rows
    )


def _touches(op: Op, buffer: Buffer) -> bool:
    return any(isinstance(v, Ref) and v.buffer is buffer for v in op.operands.values())


def _depth(ops: list[Op]) -> int:
    """Loops that are open at the end of a list."""
    return sum(op.name == "loop" for op in ops) - sum(op.name == "end" for op in ops)


def _in_place(op: Op, old: Buffer, target: Buffer) -> bool:
    """Whether an instruction writes the new value, and reads the carry, if it does, row by row in the same places."""
    writes = op.refs(write=True)
    reads = op.refs(write=False)
    if [w.buffer for w in writes] != [old] or any(r.buffer is old for r in reads):
        return False
    if not any(r.buffer is target for r in reads):
        return True
    if op.row_of_table.format.pattern not in ROW_BY_ROW or op.name == "splat":
        return False
    own = {n: v for n, v in op.operands.items() if isinstance(v, Ref) and v.buffer is target}
    dst = (writes[0].offset, *_steps(op, "dst"))
    return all(not v.level and (v.offset, *_steps(op, n)) == dst for n, v in own.items())


def _steps(op: Op, operand: str) -> tuple[int | Ref, ...]:
    """The row steps of an operand of a row-by-row instruction."""
    return tuple(
        op.operands[f.name]
        for f in op.row_of_table.format.fields
        if f.kind == "i32" and f.name.startswith(f"{operand}_")
    )


def _is_copy_onto_itself(op: Op) -> bool:
    o = op.operands
    return op.name == "move" and (o["dst"], o["dst_outer"], o["dst_inner"]) == (
        o["a"],
        o["a_outer"],
        o["a_inner"],
    )
