"""The C++ header machine.gen.h: the struct of a machine, section MACH, limits, and how many beats a format has."""

from __future__ import annotations

from ltc_compiler.isa import machine
from ltc_compiler.isa.cpp import word_offsets
from ltc_compiler.isa.formats import FORMATS, Format
from ltc_compiler.isa.machine import Parameter
from ltc_compiler.isa.patterns import PATTERNS, WALKED

_HEAD = """\
// Printed from the tables of ltc_compiler/isa. Do not edit.
#pragma once
#include <array>
#include <cstddef>
#include <cstdint>

#include "isa.gen.h"

namespace ltc::isa {

// Section MACH of a program. Sizes of stores are those of one core.
struct Machine {"""

_TAIL = """\

    std::uint32_t latency(Latency which) const { return latencies[static_cast<std::size_t>(which)]; }

    // Rows that n elements fill.
    std::uint64_t rows(std::uint64_t n) const { return (n + block_size - 1) / block_size; }
};

struct CountInfo {
    const char* name;
    std::uint32_t Machine::*value;
    std::uint32_t low, high;
    bool power_of_two;
};

struct FeatureInfo {
    const char* name;
    bool Machine::*value;
};

struct LatencyInfo {
    const char* name;
    std::uint32_t low, high;
};
"""


def header() -> str:
    """The header: the struct of a machine, the order of its parameters in section MACH, and their limits."""
    latencies = [p for p in machine.PARAMETERS if p.name.startswith("latency.")]
    defaults = ", ".join(str(p.default) for p in latencies)
    out = [
        _HEAD,
        *(_member("std::uint32_t", p) for p in machine.COUNTS),
        *(_member("bool", p) for p in machine.FEATURES),
        f"    std::array<std::uint32_t, n_latencies> latencies = {{{defaults}}};  // cycles, by Latency",
        _TAIL,
        "// In the order of section MACH: counts, features, padding to a multiple of four bytes, latencies.",
        "inline constexpr CountInfo machine_counts[] = {",
        *(_count_row(p) for p in machine.COUNTS),
        "};",
        "inline constexpr FeatureInfo machine_features[] = {",
        *(f'    {{"{p.name}", &Machine::{p.name}}},' for p in machine.FEATURES),
        "};",
        f"inline constexpr std::size_t feature_padding = {-len(machine.FEATURES) % 4};",
        "inline constexpr LatencyInfo latency_ranges[n_latencies] = {",
        *(f'    {{"{p.name}", {p.low}, {p.high}}},' for p in latencies),
        "};",
        "",
        "// What no machine passes.",
        "namespace limits {",
        f"inline constexpr std::uint32_t store = {machine.STORE};  // of whatever a store of one core holds",
        *(
            _limit(f"{end}_{p.name}", value)
            for p in machine.COUNTS
            for end, value in (("min", p.low), ("max", p.high))
        ),
        "}  // namespace limits",
        "",
        *_beats(),
        "}  // namespace ltc::isa",
        "",
    ]
    return "\n".join(out)


_BEATS = """\
enum class CountKind : std::uint8_t { number, field, rows, walked };

// A number; or the value of a field or the rows that so many elements fill, with its word in `value`; or the slots
// that a synapse walks.
struct Count {
    CountKind kind;
    std::uint32_t value;
};

struct Product {
    std::uint8_t n_factors;
    Count factors[4];
};

// The beats of an instruction: the sum of the products.
struct BeatsInfo {
    std::uint8_t n_phases;
    Product phases[2];
};
"""


def _beats() -> list[str]:
    """The beats of each format, by Format."""
    return [_BEATS, "inline constexpr BeatsInfo beats[] = {", *(_beats_row(f) for f in FORMATS), "};", ""]


def _beats_row(fmt: Format) -> str:
    pattern = PATTERNS[fmt.pattern]
    phases = []
    for phase in pattern.phases:
        factors = [_count(fmt, count) for count in (*pattern.repeats, *phase.beats)]
        phases.append(f"{{{len(factors)}, {{{', '.join(factors)}}}}}")
    return f"    {{{len(phases)}, {{{', '.join(phases)}}}}},  // {fmt.name}"


def _count(fmt: Format, count: str) -> str:
    if count == WALKED:
        return "{CountKind::walked, 0}"
    if count.isdigit():
        return f"{{CountKind::number, {count}}}"
    kind = "rows" if count.startswith("rows(") else "field"
    return f"{{CountKind::{kind}, {word_offsets(fmt)[count.removeprefix('rows(').removesuffix(')')]}}}"


def _member(kind: str, p: Parameter) -> str:
    default = "" if p.default is None else f" = {str(p.default).lower()}"
    return f"    {kind} {p.name}{default};  // {p.meaning}" + (f" ({p.unit})" if p.unit else "")


def _count_row(p: Parameter) -> str:
    return f'    {{"{p.name}", &Machine::{p.name}, {p.low}, {p.high}, {str(p.power_of_two).lower()}}},'


def _limit(name: str, value: float) -> str:
    return f"inline constexpr std::uint32_t {name} = {value};"
