"""The reference in Markdown, docs/isa.md: every instruction, then every operand format."""

from __future__ import annotations

import struct

from ltc_compiler.isa import table

_MARKDOWN_HEAD = """\
# The instruction set

Printed from the table in `ltc_compiler/isa/table.py` by `make docs-isa`.

An encoded instruction is its opcode (u8), its core (u8; 255 for `loop` and `end`, which every core executes), then its
fields in order, little endian. A row address is `base` (u32), `stride` (i32) and `level` (u8): the row is
`base + counter[level] * stride`, where level 1 is the outermost loop around the instruction and level 0 stands for no
loop. `B` is the block size; `rows(n)` is ceil(n / B). Every row that an instruction writes is flushed and has canonical
NaNs (docs/numerics.md, rule 4).
"""


def _markdown_format(fmt: table.Format) -> list[str]:
    out = [f"### {fmt.name}", "", f"Iteration pattern: `{fmt.pattern}`.", ""]
    if not fmt.fields:
        return [*out, "No fields.", ""]
    out += ["| field | encoding | |", "|---|---|---|"]
    out += [f"| `{f.name}` | {f.kind} | {f.doc} |" for f in fmt.fields]
    out.append("")
    for a in fmt.accesses:
        terms = "".join(f" + i{d} · {step}" for d, (_, step) in enumerate(a.extents))
        bounds = ", ".join(f"i{d} < {count}" for d, (count, _) in enumerate(a.extents))
        out.append(f"- {'writes' if a.write else 'reads'} rows `{a.field}{terms}` for {bounds}")
    return [*out, ""] if fmt.accesses else out


def reference() -> str:
    """The reference: every instruction, then every operand format."""
    out = [_MARKDOWN_HEAD, "## Field encodings", "", "| kind | bytes |", "|---|---|"]
    out += [f"| {kind} | {struct.calcsize(encoding)} |" for kind, encoding in table.ENCODINGS.items()]
    out += ["", "## Instructions", "", "| opcode | name | format | unit | latency class | bytes | meaning |"]
    out.append("|---|---|---|---|---|---|---|")
    for i in table.INSTRUCTIONS:
        meaning = i.meaning.replace("|", "\\|")
        latency = i.latency if i.latency_fp32 == i.latency else f"{i.latency}; fp32: {i.latency_fp32}"
        out.append(
            f"| {i.opcode} | `{i.name}` | {i.format.name} | {i.unit} | {latency} | {i.size} | {meaning} |"
        )
    out += ["", "## Operand formats", ""]
    out += [line for fmt in table.FORMATS for line in _markdown_format(fmt)]
    return "\n".join(out).rstrip("\n") + "\n"
