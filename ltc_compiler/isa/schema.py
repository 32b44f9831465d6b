"""The JSON schema of a machine's TOML file, for editors and for tools that make such files."""

from __future__ import annotations

import json
from typing import Any

from ltc_compiler.isa import machine
from ltc_compiler.isa.machine import Parameter

_TYPES = {"int": "integer", "float": "number", "bool": "boolean", "str": "string"}


def schema() -> str:
    """The schema as JSON text, draft 2020-12."""
    required = [p.name for p in machine.PARAMETERS if p.default is None and p.name != "name"]
    properties: dict[str, Any] = {
        "base": {
            "type": "string",
            "description": "what this file differs from: a preset, or a file beside this one that ends in .toml",
        }
    }
    for p in machine.PARAMETERS:
        table, _, key = p.name.rpartition(".")
        inner = properties.setdefault(table, _object({}))["properties"] if table else properties
        inner[key] = _property(p)
    whole = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "A machine of ltc-compiler",
        **_object(properties),
        "required": ["name"],
        "anyOf": [{"required": ["base"]}, {"required": required}],
    }
    return json.dumps(whole, indent=2, ensure_ascii=False) + "\n"


def _object(properties: dict[str, Any]) -> dict[str, Any]:
    return {"type": "object", "additionalProperties": False, "properties": properties}


def _property(p: Parameter) -> dict[str, Any]:
    found: dict[str, Any] = {"type": _TYPES[p.kind]}
    if p.kind == "str":
        found["pattern"] = machine.NAME
    elif p.power_of_two:
        found["enum"] = list(machine.powers_of_two(p))
    elif p.kind != "bool":
        found |= {"minimum": p.low, "maximum": p.high}
    if p.default is not None:
        found["default"] = p.default
    return found | {"description": f"{p.meaning} ({p.unit})" if p.unit else p.meaning}
