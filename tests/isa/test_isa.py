"""The tables of isa/: what the hash depends on, what a row must have, and what is printed from them."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from folders import ROOT

from ltc_compiler import Config
from ltc_compiler.isa import machine, schema, table
from ltc_compiler.isa.formats import ENCODINGS, FORMATS
from ltc_compiler.isa.machine import PARAMETERS, Parameter
from ltc_compiler.isa.patterns import PATTERNS, Pattern, Phase

# Of the first files of format 2: the hash, and how many instructions, latency classes, counts and features there were.
FIRST_HASH = "32746bc1d9c04c727bbe4b13f02a72407363eef97f89f38779d5dee4ee2bfe1c"
FIRST_SIZES = (54, 21, 12, 3)


# --- the hash ---------------------------------------------------------------------------------------------------


def test_programs_of_the_first_table_load_as_long_as_it_has_not_grown() -> None:
    sizes = tuple(map(len, (table.INSTRUCTIONS, machine.LATENCIES, machine.COUNTS, machine.FEATURES)))
    assert (table.isa_hash().hex() == FIRST_HASH) == (sizes == FIRST_SIZES)


def test_no_word_of_explanation_is_hashed(monkeypatch: pytest.MonkeyPatch) -> None:
    before = table.isa_hash()
    rows = [replace(row, meaning=f"other words for {row.meaning}") for row in table.INSTRUCTIONS]
    formats = [replace(f, fields=tuple(replace(x, doc="other words") for x in f.fields)) for f in FORMATS]
    monkeypatch.setattr(table, "INSTRUCTIONS", tuple(rows))
    monkeypatch.setattr(table, "FORMATS", tuple(formats))
    assert table.isa_hash() == before


def test_what_fixes_a_program_is_hashed(monkeypatch: pytest.MonkeyPatch) -> None:
    first, *rest = table.INSTRUCTIONS
    send = next(f for f in FORMATS if f.name == "Send")
    others = tuple(f for f in FORMATS if f is not send)
    changes: list[tuple[str, object]] = [
        ("INSTRUCTIONS", tuple(rest)),
        ("INSTRUCTIONS", (replace(first, name="other"), *rest)),
        ("INSTRUCTIONS", (replace(first, opcode=200), *rest)),
        ("INSTRUCTIONS", (replace(first, latency="add"), *rest)),
        ("FORMATS", (replace(send, pattern="receive"), *others)),
        ("FORMATS", (replace(send, fields=send.fields[::-1]), *others)),
        ("FORMATS", (send, *others)),
        ("LATENCIES", machine.LATENCIES[::-1]),
        ("COUNTS", machine.COUNTS[::-1]),
        ("FEATURES", machine.FEATURES[:-1]),
        ("UNITS", table.UNITS[::-1]),
        ("ENCODINGS", {**ENCODINGS, "u8": "<H"}),
    ]
    seen = {table.isa_hash()}
    for name, value in changes:
        with monkeypatch.context() as patch:
            patch.setattr(table, name, value)
            seen.add(table.isa_hash())
    assert len(seen) == len(changes) + 1


# --- what a row must have -----------------------------------------------------------------------------------------


def test_an_instruction_of_an_unknown_latency_class_is_refused() -> None:
    with pytest.raises(
        ValueError, match=r"instruction add: latency class 'adding' is not in machine\.Latencies"
    ):
        replace(table.BY_NAME["add"], latency="adding")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"kind": "complex"}, "type 'complex' is not int, float, bool or str"),
        ({"meaning": ""}, "has no meaning"),
        ({"unit": ""}, "needs a unit and a range"),
        ({"low": 17}, "needs a unit and a range"),
        ({"default": 17}, "default 17 is outside its range"),
        ({"kind": "float"}, "section MACH holds no float"),
    ],
)
def test_a_parameter_without_what_it_needs_is_refused(changes: dict[str, Any], message: str) -> None:
    cores = next(p for p in PARAMETERS if p.name == "cores")
    with pytest.raises(ValueError, match=f"parameter cores.* {message}"):
        replace(cores, **changes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"pattern": "spiral"}, "no beats for the pattern 'spiral'"),
        ({"pattern": "update"}, "count 'n' is no u32 field"),
        ({"pattern": "transpose"}, "count 'src_rows' is no u32 field"),
        ({"accesses": ()}, "row field 'src' has no access"),
    ],
)
def test_a_format_whose_beats_are_unknown_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=f"format Send: {message}"):
        replace(table.BY_NAME["send"].format, **changes)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Phase(("n",), store="weights"), "the store 'weights'"),
        (lambda: Pattern((Phase(("n",)),), interleaved="m"), "'m' is interleaved"),
        (lambda: Pattern((Phase(("n",)),) * 2, repeats=("m",), interleaved="m"), "a pattern of one phase"),
        (lambda: PATTERNS["transpose"].touch("x"), "no phase touches 'x'"),
    ],
)
def test_a_pattern_without_sense_is_refused(make: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize("place", [0, 99])
def test_a_place_that_is_taken_or_leaves_a_gap_is_refused(
    monkeypatch: pytest.MonkeyPatch, place: int
) -> None:
    changed = tuple(replace(p, mach=place) if p.name == "read_ports" else p for p in PARAMETERS)
    monkeypatch.setattr(machine, "PARAMETERS", changed)
    with pytest.raises(ValueError, match=f"the places of int parameters in section MACH are .*{place}"):
        machine._section("int")


# --- what is printed ------------------------------------------------------------------------------------------------


def test_the_build_prints_without_the_package_and_its_dependencies(tmp_path: Path) -> None:
    """With neither numpy nor the core, and nothing of the environment: -I and -S."""
    command = [
        sys.executable,
        "-I",
        "-S",
        str(ROOT / "ltc_compiler" / "isa"),
        "--header",
        "isa.gen.h",
        "--machine-header",
        "m.h",
    ]
    subprocess.run(command, cwd=tmp_path, check=True)
    assert "enum class Opcode" in (tmp_path / "isa.gen.h").read_text(encoding="utf-8")
    assert "struct Machine" in (tmp_path / "m.h").read_text(encoding="utf-8")
    done = subprocess.run(command[:-4], cwd=tmp_path, check=False, capture_output=True, text=True)
    assert done.returncode == 2
    assert "nothing to print: give --header OUT or --machine-header OUT or" in done.stderr


def conforms(value: object, rule: dict[str, Any]) -> bool:
    """Whether a value is what a JSON schema says, for the keywords that ours has; KeyError for any other."""
    kinds = {"object": dict, "integer": int, "number": int | float, "boolean": bool, "string": str}
    checks: dict[str, Any] = {
        "type": lambda x, kind: isinstance(x, kinds[kind]) and (kind == "boolean" or not isinstance(x, bool)),
        "minimum": lambda x, low: x >= low,
        "maximum": lambda x, high: x <= high,
        "enum": lambda x, allowed: x in allowed,
        "pattern": lambda x, pattern: re.search(pattern, x) is not None,
        "properties": lambda x, inner: all(conforms(v, inner[k]) for k, v in x.items() if k in inner),
        "additionalProperties": lambda x, _: set(x) <= set(rule["properties"]),
        "required": lambda x, names: set(names) <= set(x),
        "anyOf": lambda x, rules: any(conforms(x, r) for r in rules),
    }
    words = ("$schema", "title", "description", "default")
    return all(checks[key](value, given) for key, given in rule.items() if key not in words)


def test_the_schema_holds_for_the_presets_and_for_what_is_saved() -> None:
    rule = json.loads(schema.schema())
    assert set(rule["properties"]) == {
        "base",
        "latency",
        "host",
        *(p.name for p in PARAMETERS if "." not in p.name),
    }
    for name in Config.presets():
        assert conforms(tomllib.loads((ROOT / "configs" / f"{name}.toml").read_text(encoding="utf-8")), rule)
        assert conforms(tomllib.loads(Config.preset(name).to_bytes().decode()), rule)


@pytest.mark.parametrize(
    "bad",
    [
        {},
        {"cores": 0},
        {"cores": "2"},
        {"cores": True},
        {"block_size": 12},
        {"lanes": 3},
        {"name": "a b"},
        {"latency": {"add": 0}},
        {"latency": {"adding": 1}},
        {"host": 3},
    ],
)
def test_the_schema_refuses_what_config_refuses(bad: dict[str, Any]) -> None:
    given = ({"name": "mine", "base": "tiny_c1b8"} | bad) if bad else {"name": "mine"}
    assert not conforms(given, json.loads(schema.schema()))
    tables = {key: value for key, value in given.items() if isinstance(value, dict)}
    lines = [f"{key} = {json.dumps(value)}" for key, value in given.items() if key not in tables]
    lines += [f"[{key}]\n{name} = {n}" for key, inner in tables.items() for name, n in inner.items()]
    with pytest.raises(ValueError, match=r"missing|unknown|is"):
        Config.from_bytes("\n".join(lines).encode())


USE_THE_PARAMETER = """
import sys
sys.path.insert(0, sys.argv[1])
from ltc_compiler.config import Config
from ltc_compiler.isa.machine import COUNTS
quad = Config.preset("quad")
assert (quad.cores, quad.write_ports, Config.tiny_c1b8().write_ports) == (4, 3, 2)
assert "rows that a unit writes at most" in quad.describe()
assert COUNTS[-1].name == "write_ports"
try:
    quad.replace(name="bad", write_ports=17)
except ValueError as error:
    print(error)
"""


def test_a_parameter_is_one_row_and_a_machine_a_short_file(tmp_path: Path) -> None:
    """In a copy of what Config stands on, without the core."""
    package = tmp_path / "ltc_compiler"
    shutil.copytree(ROOT / "ltc_compiler" / "isa", package / "isa")
    shutil.copytree(ROOT / "configs", package / "configs")
    for name in ("config.py", "config_file.py", "errors.py", "files.py"):
        shutil.copy(ROOT / "ltc_compiler" / name, package)
    (package / "__init__.py").touch()
    place = len(machine.COUNTS)
    row = f'    write_ports: int = _row(1, 16, "rows", "rows that a unit writes at most", default=2, mach={place})\n'
    rows = (package / "isa" / "machine.py").read_text(encoding="utf-8")
    assert rows.count("    fp32_matmul: bool") == 1
    rows = rows.replace("    fp32_matmul: bool", f"{row}    fp32_matmul: bool")
    (package / "isa" / "machine.py").write_text(rows, encoding="utf-8")
    (package / "configs" / "quad.toml").write_text(
        'name = "quad"\nbase = "v80_c6b32"\ncores = 4\nwrite_ports = 3\n'
    )
    forms = {
        "machine-header": '{"write_ports", &Machine::write_ports, 1, 16, false}',
        "configuration": "| `write_ports` | integer | 1 to 16 | rows | 2 | rows that a unit writes at most |",
        "schema": '"write_ports": {',
    }
    for form, expected in forms.items():
        command = [sys.executable, "-I", "-S", str(package / "isa"), f"--{form}", form]
        subprocess.run(command, cwd=tmp_path, check=True)
        assert expected in (tmp_path / form).read_text(encoding="utf-8")
    command = [sys.executable, "-I", "-S", "-c", USE_THE_PARAMETER, str(tmp_path)]
    done = subprocess.run(command, cwd=tmp_path, check=True, capture_output=True, text=True)
    assert done.stdout.startswith("write_ports is 17, not an integer from 1 to 16\n")


def test_every_parameter_is_a_row_of_each_form() -> None:
    """A row of machine.py is a field of Config, a key of the TOML text, and a line of the document and the schema."""
    document = (ROOT / "docs" / "configuration.md").read_text(encoding="utf-8")
    text = Config.tiny_c1b8().to_bytes().decode()
    for p in PARAMETERS:
        key = p.name.rpartition(".")[2]
        assert p.name in Config.tiny_c1b8().to_dict()
        assert re.search(rf"^{key} = ", text, re.M)
        assert f"| `{key}` |" in document
        assert isinstance(p, Parameter)
