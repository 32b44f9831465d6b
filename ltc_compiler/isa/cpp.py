"""The C++ header, isa.gen.h: enums, operand structs and descriptor tables of the instruction table."""

from __future__ import annotations

import struct

from ltc_compiler.isa import formats, machine, table


def _words(f: formats.Field) -> int:
    """32-bit words of a field in a C++ operand struct: a row address takes three, everything else one."""
    return 3 if f.kind == "row" else 1


def word_offsets(fmt: formats.Format) -> dict[str, int]:
    """Field name -> its first word in the C++ operand struct."""
    offsets: dict[str, int] = {}
    at = 0
    for f in fmt.fields:
        offsets[f.name] = at
        at += _words(f)
    return offsets


def _cpp_struct(fmt: formats.Format) -> str:
    types = {"row": "Row", "i32": "std::int32_t"}
    members = [f"    {types.get(f.kind, 'std::uint32_t')} {f.name};" for f in fmt.fields]
    head = f"struct {fmt.name} {{"
    return "\n".join([head, f"    static constexpr Format format = Format::{fmt.name};", *members, "};"])


def _cpp_access(fmt: formats.Format, a: formats.Access) -> str:
    at = word_offsets(fmt)
    extents = []
    for count, step in a.extents:
        rows = count.startswith("rows(")
        name = count[5:-1] if rows else count
        word, literal = (-1, step) if step.isdigit() else (at[step], "0")
        extents.append(f"{{{at[name]}, {str(rows).lower()}, {word}, {literal}}}")
    write = str(a.write).lower()
    return f'    {{"{a.field}", {at[a.field]}, {write}, {len(extents)}, {{{", ".join(extents)}}}}},'


def _cpp_format_tables(fmt: formats.Format) -> list[str]:
    at = word_offsets(fmt)
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


def _cpp_format_row(fmt: formats.Format) -> str:
    words = sum(_words(f) for f in fmt.fields)
    fields = f"fields_{fmt.name}" if fmt.fields else "nullptr"
    accesses = f"accesses_{fmt.name}" if fmt.accesses else "nullptr"
    size = 2 + sum(struct.calcsize(formats.ENCODINGS[f.kind]) for f in fmt.fields)
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
    Latency latency_fp32;  // where the precision is fp32
    std::uint32_t passes;  // of fp32_beats cycles that a beat of fp32 operands holds the unit; 0: one cycle
};
"""


def header() -> str:
    """The C++ header: enums, operand structs, descriptor tables, and LTC_INSTRUCTIONS to expand over the table."""
    patterns = list(dict.fromkeys(f.pattern for f in formats.FORMATS))
    opcodes = [f"{i.name} = {i.opcode}" for i in table.INSTRUCTIONS]
    digest = ", ".join(f"0x{byte:02x}" for byte in table.isa_hash())
    encoded = ", ".join(str(struct.calcsize(e)) for e in formats.ENCODINGS.values())
    out = [
        "// Printed from the tables of ltc_compiler/isa. Do not edit.",
        "#pragma once",
        "#include <cstdint>",
        "",
        "namespace ltc::isa {",
        "",
        f"inline constexpr unsigned max_loop_depth = {table.MAX_LOOP_DEPTH};",
        f"inline constexpr unsigned all_cores = {table.ALL_CORES};  // the core of control instructions",
        f"inline constexpr unsigned absent = 0x{table.ABSENT:X};  // a lane that is not there",
        f"inline constexpr unsigned n_units = {len(table.UNITS)};",
        f"inline constexpr unsigned n_latencies = {len(machine.LATENCIES)};",
        f"inline constexpr unsigned n_formats = {len(formats.FORMATS)};",
        f"inline constexpr unsigned max_passes = {max(i.passes for i in table.INSTRUCTIONS)};  // of InstructionInfo",
        f"inline constexpr unsigned max_opcode = {max(table.BY_OPCODE)};",
        f"inline constexpr std::uint8_t hash[32] = {{{digest}}};",
        "",
        _cpp_enum("Opcode", opcodes),
        _cpp_enum("Unit", list(table.UNITS)),
        _cpp_enum("Latency", list(machine.LATENCIES)),
        _cpp_enum("Pattern", patterns),
        _cpp_enum("Format", [f.name for f in formats.FORMATS]),
        _cpp_enum("FieldKind", list(formats.ENCODINGS)),
        _cpp_enum("Precision", list(formats.PRECISIONS)),
        "",
        f"inline constexpr std::uint8_t encoded_bytes[] = {{{encoded}}};  // by FieldKind",
        "",
        _CPP_TYPES,
        *(_cpp_struct(f) for f in formats.FORMATS),
        "",
        *(line for f in formats.FORMATS for line in _cpp_format_tables(f)),
        "inline constexpr FormatInfo formats[] = {",
        *(_cpp_format_row(f) for f in formats.FORMATS),
        "};",
        "",
        "// By opcode; a hole in the opcodes has a null name.",
        "inline constexpr InstructionInfo instructions[] = {",
        *(_cpp_instruction_row(table.BY_OPCODE.get(code)) for code in range(max(table.BY_OPCODE) + 1)),
        "};",
        "",
        "}  // namespace ltc::isa",
        "",
        "// X(name, format, unit, latency) for every row of the table.",
        "#define LTC_INSTRUCTIONS(X) \\",
        " \\\n".join(f"    X({i.name}, {i.format.name}, {i.unit}, {i.latency})" for i in table.INSTRUCTIONS),
        "// X(format) for every operand format.",
        "#define LTC_FORMATS(X) \\",
        " \\\n".join(f"    X({f.name})" for f in formats.FORMATS),
        "",
    ]
    return "\n".join(out)


def _cpp_instruction_row(i: table.Instruction | None) -> str:
    if i is None:
        return "    {nullptr, Format{}, Unit{}, Latency{}, Latency{}, 0},"
    classes = f"Latency::{i.latency}, Latency::{i.latency_fp32}, {i.passes}"
    return f'    {{"{i.name}", Format::{i.format.name}, Unit::{i.unit}, {classes}}},'
