"""Writes a file so that there is always a whole one: the old until the new is on the disk, then the new.

What the project writes goes through here. The new file is made beside the old one, synced, and renamed over it.
"""

from __future__ import annotations

import os
import secrets
import stat
from contextlib import suppress
from os import PathLike
from pathlib import Path

from ltc_compiler.errors import FileError


def write_file(path: str | PathLike[str], content: str | bytes) -> None:
    """Replace a file, or make it: `content` as it is, or a text in UTF-8.

    A link stays, and what it points to is replaced; permissions stay, and those of a new file follow the umask; a
    device or a pipe is written to. A process that is killed may leave its unfinished file beside, as
    .NAME.<random>.tmp.
    Raises FileError, with the old file as it was and nothing left beside it.
    """
    data = content.encode(errors="replace") if isinstance(content, str) else content
    try:
        target = Path(os.path.realpath(path))
        if target.exists() and not target.is_file():
            _write_through(target, data)
        else:
            _replace(target, data)
    except (OSError, ValueError) as error:  # ValueError: a path that holds a zero byte
        reason = getattr(error, "strerror", None) or str(error)
        raise FileError(
            f"the file cannot be written: {reason}", where=os.fspath(path),
            remedy="make room on the disk, or give a path in a folder that can be written; what was there is as it was",
        ) from error  # fmt: skip


def _write_through(target: Path, data: bytes) -> None:
    with target.open("wb") as file:
        file.write(data)


def _replace(target: Path, data: bytes) -> None:
    old = target.stat() if target.exists() else None
    if old is not None and not os.access(target, os.W_OK):
        raise PermissionError(None, "it is read-only")
    beside = target.with_name(f".{target.name[:200]}.{secrets.token_hex(6)}.tmp")
    file = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), 0o666)
    try:
        with os.fdopen(file, "wb") as made:
            made.write(data)
            made.flush()
            os.fsync(made.fileno())
        if old is not None:
            beside.chmod(stat.S_IMODE(old.st_mode))
        beside.replace(target)
    except BaseException:
        with suppress(OSError):
            beside.unlink()
        raise
    _sync_folder(target.parent)


def _sync_folder(folder: Path) -> None:
    """The new name on the disk too, where the system can be asked for it."""
    with suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
