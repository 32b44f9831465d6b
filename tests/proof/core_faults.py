"""The faults of core_faults.toml: mutate_core.py plants them in the C++ core, each with the tests that must notice it.

tests/project/test_mutations.py sees to it that their texts are still there.
"""

from __future__ import annotations

import sys
import tomllib
from pathlib import Path
from typing import NamedTuple

Edit = tuple[str, str, str]  # a file, text that stands in it once, what it becomes


class Fault(NamedTuple):
    name: str
    tests: tuple[str, ...]  # arguments of pytest
    edits: tuple[Edit, ...]


def _read() -> tuple[Fault, ...]:
    faults = []
    for row in tomllib.loads(Path(__file__).with_suffix(".toml").read_text(encoding="utf-8"))["fault"]:
        file, _, chosen = row["tests"].partition(" ")
        tests = (f"tests/{file}", *(("-k", chosen) if chosen else ()))
        edits = tuple((f"sim_core/{file}", old, new) for file, old, new in row["edits"])
        faults.append(Fault(row["name"], tests, edits))
    return tuple(faults)


FAULTS = _read()


def edited(edits: tuple[Edit, ...], root: Path) -> dict[str, str]:
    """What the edits make of the files below root; SystemExit if a text is not there any more, or twice."""
    texts: dict[str, str] = {}
    for file, old, new in edits:
        text = texts.get(file) or (root / file).read_text(encoding="utf-8")
        if text.count(old) != 1:
            sys.exit(f"{file} has {old!r} {text.count(old)} times, expected once: mend core_faults.toml")
        texts[file] = text.replace(old, new)
    return texts
