"""The references in Markdown: docs/isa.md of the instructions, docs/configuration.md of the machine's parameters."""

from __future__ import annotations

import struct

from ltc_compiler.isa import formats, machine, table
from ltc_compiler.isa.machine import Parameter
from ltc_compiler.isa.patterns import PATTERNS

_MARKDOWN_HEAD = """\
# The instruction set

Printed from the table in `ltc_compiler/isa/table.py` by `make docs-isa`.

An encoded instruction is its opcode (u8), its core (u8; 255 for `loop` and `end`, which every core executes), then its
fields in order, little endian. A row address is `base` (u32), `stride` (i32) and `level` (u8): the row is
`base + counter[level] * stride`, where level 1 is the outermost loop around the instruction and level 0 stands for no
loop. `B` is the block size; `rows(n)` is ceil(n / B). Every row that an instruction writes is flushed and has canonical
NaNs (docs/numerics.md, rule 4).
"""


def _markdown_format(fmt: formats.Format) -> list[str]:
    out = [f"### {fmt.name}", "", f"Iteration pattern: `{fmt.pattern}`{_beats(fmt)}.", ""]
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


def _beats(fmt: formats.Format) -> str:
    pattern = PATTERNS[fmt.pattern]
    phases = [" · ".join((*pattern.repeats, *phase.beats)) for phase in pattern.phases]
    return f", of {' + '.join(phases)} beats" if phases else ""


def instructions() -> str:
    """The reference: every instruction, then every operand format."""
    out = [_MARKDOWN_HEAD, "## Field encodings", "", "| kind | bytes |", "|---|---|"]
    out += [f"| {kind} | {struct.calcsize(encoding)} |" for kind, encoding in formats.ENCODINGS.items()]
    out += ["", "## Instructions", "", "| opcode | name | format | unit | latency class | bytes | meaning |"]
    out.append("|---|---|---|---|---|---|---|")
    for i in table.INSTRUCTIONS:
        meaning = i.meaning.replace("|", "\\|")
        latency = i.latency if i.latency_fp32 == i.latency else f"{i.latency}; fp32: {i.latency_fp32}"
        out.append(
            f"| {i.opcode} | `{i.name}` | {i.format.name} | {i.unit} | {latency} | {i.size} | {meaning} |"
        )
    out += ["", "## Operand formats", ""]
    out += [line for fmt in formats.FORMATS for line in _markdown_format(fmt)]
    return "\n".join(out).rstrip("\n") + "\n"


_CONFIGURATION_HEAD = """\
# Configurations

The tables below are printed from `ltc_compiler/isa/machine.py` by `make docs-isa`.

A machine is a TOML file. It gives a name, and the fields in which it differs from a base; the base is a preset, or a
file in the same folder (`base = "mine.toml"`), which may have a base itself.

```toml
name = "two_cores"
base = "v80_c6b32"
cores = 2

[latency]
add = 6
```

Without a base, a file gives every field that has no default. `Config.load("two_cores.toml")` reads it, and refuses a
field that does not exist, a value of another type or out of its range, and a base that is not there, each with the file
and the key. In Python the same machine is

```python
config = Config.preset("v80_c6b32").replace(name="two_cores", cores=2, latency={"add": 6})
print(config.describe())
```

`describe` gives every field with its value, unit and meaning. `python -m ltc_compiler.isa --schema machine.json` writes
a JSON schema of such files, for editors and for other tools.

`Config.presets()` lists the machines that ship, the files of `configs/`. `nt400d11_c6b32` equals `ia_420f_c6b32` in
every field but the name: two boards with one geometry.

`wide_c8b32` is no board: eight cores with the stores of v80_c6b32 hold 33.5 million weights, where that one holds 25.2
million. An LSTM of four layers of 1000 units, of 30 million, takes 5,088 weight blocks on each of six cores, which have
4,096, and 3,816 on each of eight.
"""


_MADE_OF = """\
The defaults, cycle by cycle. [machine.md](machine.md#latencies-and-why) says from where to where a latency runs, and
has the sources that numbers in brackets stand for.
"""


def configuration() -> str:
    """The page of the machine's parameters: a table for each part of the file."""
    out = [_CONFIGURATION_HEAD]
    for title, prefix in (("Fields", ""), *((f"Table `[{name}]`", f"{name}.") for name in machine.TABLES)):
        out += [
            f"## {title}",
            "",
            "| field | type | range | unit | default | meaning |",
            "|---|---|---|---|---|---|",
        ]
        out += [
            _parameter(p, p.name.removeprefix(prefix))
            for p in machine.PARAMETERS
            if p.name.rpartition(".")[0] == prefix.rstrip(".")
        ]
        out.append("")
    out += [
        "## What the latencies are made of",
        "",
        _MADE_OF,
        "| latency | cycles | made of |",
        "|---|---:|---|",
    ]
    latencies = [p for p in machine.PARAMETERS if p.made_of]
    out += [f"| `{p.name.removeprefix('latency.')}` | {p.default} | {p.made_of} |" for p in latencies]
    return "\n".join(out) + "\n"


def _parameter(p: Parameter, key: str) -> str:
    kind = {"int": "integer", "float": "number", "bool": "true or false", "str": "string"}[p.kind]
    bounds = f"{p.low} to {p.high}" if p.unit else ""
    bounds += ", a power of two" if p.power_of_two else ""
    default = "" if p.default is None else str(p.default).lower()
    return f"| `{key}` | {kind} | {bounds} | {p.unit} | {default} | {p.meaning} |"
