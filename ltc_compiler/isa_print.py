"""What is printed from the instruction table: the C++ header and the reference in Markdown.

    python -I ltc_compiler/isa_print.py --header OUT     writes the header that CMake compiles
    python -I ltc_compiler/isa_print.py --markdown OUT   writes docs/isa.md

The build runs this file by its path, before the package around it can be imported, which needs the core that is being
built. So it, like the table, imports the standard library alone.
"""

from __future__ import annotations

import argparse
import struct
import sys
from pathlib import Path

if __name__ == "__main__":
    sys.path.append(str(Path(__file__).parent))
    import isa  # type: ignore[import-not-found]
else:
    from ltc_compiler import isa


def _words(f: isa.Field) -> int:
    """32-bit words of a field in a C++ operand struct: a row address takes three, everything else one."""
    return 3 if f.kind == "row" else 1


def _offsets(fmt: isa.Format) -> dict[str, int]:
    """Field name -> its first word in the C++ operand struct."""
    offsets: dict[str, int] = {}
    at = 0
    for f in fmt.fields:
        offsets[f.name] = at
        at += _words(f)
    return offsets


def _cpp_struct(fmt: isa.Format) -> str:
    types = {"row": "Row", "i32": "std::int32_t"}
    members = [f"    {types.get(f.kind, 'std::uint32_t')} {f.name};" for f in fmt.fields]
    head = f"struct {fmt.name} {{"
    return "\n".join([head, f"    static constexpr Format format = Format::{fmt.name};", *members, "};"])


def _cpp_access(fmt: isa.Format, a: isa.Access) -> str:
    at = _offsets(fmt)
    extents = []
    for count, step in a.extents:
        rows = count.startswith("rows(")
        name = count[5:-1] if rows else count
        word, literal = (-1, step) if step.isdigit() else (at[step], "0")
        extents.append(f"{{{at[name]}, {str(rows).lower()}, {word}, {literal}}}")
    write = str(a.write).lower()
    return f'    {{"{a.field}", {at[a.field]}, {write}, {len(extents)}, {{{", ".join(extents)}}}}},'


def _cpp_format_tables(fmt: isa.Format) -> list[str]:
    at = _offsets(fmt)
    out = []
    if fmt.fields:
        out.append(f"inline constexpr FieldInfo fields_{fmt.name}[] = {{")
        out += [f'    {{"{f.name}", FieldKind::{f.kind}, {at[f.name]}}},' for f in fmt.fields]
        out.append("};")
    if fmt.accesses:
        out.append(f"inline constexpr AccessInfo accesses_{fmt.name}[] = {{")
        out += [_cpp_access(fmt, a) for a in fmt.accesses]
        out.append("};")
    return out


def _cpp_format_row(fmt: isa.Format) -> str:
    words = sum(_words(f) for f in fmt.fields)
    fields = f"fields_{fmt.name}" if fmt.fields else "nullptr"
    accesses = f"accesses_{fmt.name}" if fmt.accesses else "nullptr"
    size = 2 + sum(struct.calcsize(isa.ENCODINGS[f.kind]) for f in fmt.fields)
    return (
        f'    {{"{fmt.name}", Pattern::{fmt.pattern}, {size}, {words}, {fields}, {len(fmt.fields)}, '
        f"{accesses}, {len(fmt.accesses)}}},"
    )


def _cpp_enum(name: str, values: list[str]) -> str:
    return f"enum class {name} : std::uint8_t {{ {', '.join(values)} }};"


_CPP_TYPES = """\
// The row is base + counter[level] * stride, with counter[0] = 0 outside every loop.
struct Row {
    std::uint32_t base;
    std::int32_t stride;
    std::uint32_t level;
};

// Offsets are in 32-bit words from the start of the operand struct: a Row takes three words, every other field one.
struct FieldInfo {
    const char* name;
    FieldKind kind;
    std::uint8_t word;
};

// One dimension of an access: `count` is a field (or the rows that it fills), the step a field or, below 0, a number.
struct ExtentInfo {
    std::uint8_t count_word;
    bool count_is_elements;
    std::int8_t step_word;
    std::int32_t step;
};

// Rows `field + sum(i_d * step_d)` for every i_d below count_d, outermost dimension first.
struct AccessInfo {
    const char* field;
    std::uint8_t word;
    bool write;
    std::uint8_t n_extents;
    ExtentInfo extents[3];
};

struct FormatInfo {
    const char* name;
    Pattern pattern;
    std::uint8_t encoded_size;  // bytes in a program: opcode, core, fields
    std::uint8_t words;         // 32-bit words of the operand struct
    const FieldInfo* fields;
    std::uint8_t n_fields;
    const AccessInfo* accesses;
    std::uint8_t n_accesses;
};

struct InstructionInfo {
    const char* name;
    Format format;
    Unit unit;
    Latency latency;
    Latency latency_fp32;  // of results in fp32: another one in the activation unit
};
"""


def header() -> str:
    """The C++ header: enums, operand structs, descriptor tables, and LTC_INSTRUCTIONS to expand over the table."""
    patterns = list(dict.fromkeys(f.pattern for f in isa.FORMATS))
    opcodes = [f"{i.name} = {i.opcode}" for i in isa.INSTRUCTIONS]
    digest = ", ".join(f"0x{byte:02x}" for byte in isa.isa_hash())
    encoded = ", ".join(str(struct.calcsize(e)) for e in isa.ENCODINGS.values())
    out = [
        "// Printed by ltc_compiler/isa_print.py from the instruction table. Do not edit.",
        "#pragma once",
        "#include <cstdint>",
        "",
        "namespace ltc::isa {",
        "",
        f"inline constexpr unsigned max_loop_depth = {isa.MAX_LOOP_DEPTH};",
        f"inline constexpr unsigned all_cores = {isa.ALL_CORES};  // the core of control instructions",
        f"inline constexpr unsigned absent = 0x{isa.ABSENT:X};  // a lane that is not there",
        f"inline constexpr unsigned n_units = {len(isa.UNITS)};",
        f"inline constexpr unsigned n_latencies = {len(isa.LATENCIES)};",
        f"inline constexpr unsigned n_formats = {len(isa.FORMATS)};",
        f"inline constexpr unsigned max_opcode = {max(isa.BY_OPCODE)};",
        f"inline constexpr std::uint8_t hash[32] = {{{digest}}};",
        "",
        _cpp_enum("Opcode", opcodes),
        _cpp_enum("Unit", list(isa.UNITS)),
        _cpp_enum("Latency", list(isa.LATENCIES)),
        _cpp_enum("Pattern", patterns),
        _cpp_enum("Format", [f.name for f in isa.FORMATS]),
        _cpp_enum("FieldKind", list(isa.ENCODINGS)),
        _cpp_enum("Precision", list(isa.PRECISIONS)),
        "",
        f"inline constexpr std::uint8_t encoded_bytes[] = {{{encoded}}};  // by FieldKind",
        "",
        _CPP_TYPES,
        *(_cpp_struct(f) for f in isa.FORMATS),
        "",
        *(line for f in isa.FORMATS for line in _cpp_format_tables(f)),
        "inline constexpr FormatInfo formats[] = {",
        *(_cpp_format_row(f) for f in isa.FORMATS),
        "};",
        "",
        "// By opcode; a hole in the opcodes has a null name.",
        "inline constexpr InstructionInfo instructions[] = {",
        *(_cpp_instruction_row(isa.BY_OPCODE.get(code)) for code in range(max(isa.BY_OPCODE) + 1)),
        "};",
        "",
        "}  // namespace ltc::isa",
        "",
        "// X(name, format, unit, latency) for every row of the table.",
        "#define LTC_INSTRUCTIONS(X) \\",
        " \\\n".join(f"    X({i.name}, {i.format.name}, {i.unit}, {i.latency})" for i in isa.INSTRUCTIONS),
        "// X(format) for every operand format.",
        "#define LTC_FORMATS(X) \\",
        " \\\n".join(f"    X({f.name})" for f in isa.FORMATS),
        "",
    ]
    return "\n".join(out)


def _cpp_instruction_row(i: isa.Instruction | None) -> str:
    if i is None:
        return "    {nullptr, Format{}, Unit{}, Latency{}, Latency{}},"
    classes = f"Latency::{i.latency}, Latency::{i.latency_fp32}"
    return f'    {{"{i.name}", Format::{i.format.name}, Unit::{i.unit}, {classes}}},'


_MARKDOWN_HEAD = """\
# The instruction set

Printed from the table in `ltc_compiler/isa.py` by `python ltc_compiler/isa_print.py --markdown docs/isa.md`.

An encoded instruction is its opcode (u8), its core (u8; 255 for `loop` and `end`, which every core executes), then its
fields in order, little endian. A row address is `base` (u32), `stride` (i32) and `level` (u8): the row is
`base + counter[level] * stride`, where level 1 is the outermost loop around the instruction and level 0 stands for no
loop. `B` is the block size; `rows(n)` is ceil(n / B). Every row that an instruction writes is flushed and has canonical
NaNs (docs/numerics.md, rule 4).
"""


def _markdown_format(fmt: isa.Format) -> list[str]:
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


def markdown() -> str:
    """The reference: every instruction, then every operand format."""
    out = [_MARKDOWN_HEAD, "## Field encodings", "", "| kind | bytes |", "|---|---|"]
    out += [f"| {kind} | {struct.calcsize(encoding)} |" for kind, encoding in isa.ENCODINGS.items()]
    out += ["", "## Instructions", "", "| opcode | name | format | unit | latency class | bytes | meaning |"]
    out.append("|---|---|---|---|---|---|---|")
    for i in isa.INSTRUCTIONS:
        meaning = i.meaning.replace("|", "\\|")
        latency = i.latency if i.latency_fp32 == i.latency else f"{i.latency}; fp32: {i.latency_fp32}"
        out.append(
            f"| {i.opcode} | `{i.name}` | {i.format.name} | {i.unit} | {latency} | {i.size} | {meaning} |"
        )
    out += ["", "## Operand formats", ""]
    out += [line for fmt in isa.FORMATS for line in _markdown_format(fmt)]
    return "\n".join(out).rstrip("\n") + "\n"


def main() -> None:
    """Write the C++ header or the reference."""
    parser = argparse.ArgumentParser(description="Print the instruction table.")
    parser.add_argument("--header", type=Path, metavar="OUT", help="the C++ header")
    parser.add_argument("--markdown", type=Path, metavar="OUT", help="the reference in Markdown")
    arguments = parser.parse_args()
    if arguments.header is None and arguments.markdown is None:
        parser.error("nothing to print: give --header OUT or --markdown OUT")
    for path, text in ((arguments.header, header), (arguments.markdown, markdown)):
        if path is not None:
            path.write_text(text(), encoding="utf-8")


if __name__ == "__main__":
    main()
