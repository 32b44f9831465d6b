"""The edits that a document asks for: its ```diff blocks, read, checked, and applied to a folder.

A block names its file (`--- a/path`), and `@@` starts a hunk. Hunks have no line numbers: the lines that stay and the
lines that go must stand in the file, together and once.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

BLOCK = re.compile(r"^```diff\n(.*?)^```$", re.MULTILINE | re.DOTALL)


class Hunk(NamedTuple):
    """`old` becomes `new` in `file`; both are whole lines."""

    file: str
    old: str
    new: str


def hunks(document: Path) -> list[Hunk]:
    """All hunks of a document in order."""
    found = []
    for block in BLOCK.findall(document.read_text(encoding="utf-8")):
        head, *bodies = re.split(r"^@@\n", block, flags=re.MULTILINE)
        names = re.fullmatch(r"--- a/(\S+)\n\+\+\+ b/(\S+)\n", head)
        assert names, f"{document.name}: a diff does not name its file: {head!r}"
        assert names[1] == names[2]
        assert bodies
        found += [_hunk(names[1], body) for body in bodies]
    return found


def _hunk(file: str, body: str) -> Hunk:
    lines = body.splitlines()
    assert all(line[:1] in ("+", "-", " ", "") for line in lines), f"not a hunk: {body}"
    old = "".join(f"{line[1:]}\n" for line in lines if line[:1] != "+")
    new = "".join(f"{line[1:]}\n" for line in lines if line[:1] != "-")
    assert old.strip()
    assert old != new
    return Hunk(file, old, new)


def apply(hunk: Hunk, root: Path) -> None:
    """Edit one file below `root`; AssertionError if its lines are not there, or twice."""
    path = root / hunk.file
    text = path.read_text(encoding="utf-8")
    assert ("\n" + text).count("\n" + hunk.old) == 1, f"{hunk.file} does not have, once:\n{hunk.old}"
    path.write_text(("\n" + text).replace("\n" + hunk.old, "\n" + hunk.new)[1:], encoding="utf-8")
