"""The TOML form of a configuration: its fields, those of a table under [latency] or [host], and `base`.

A file with a base gives only what differs from it, which may have a base itself. A base is the name of a preset, or a
file beside this one ("mine.toml"). A name is never taken from a base.
"""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Iterable, Mapping
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import NamedTuple

from ltc_compiler.errors import ConfigError, shown
from ltc_compiler.isa.machine import PARAMETERS, TABLES, Scalar

NAMES = tuple(p.name for p in PARAMETERS)


class Given(NamedTuple):
    """A value as a file gives it, and the file."""

    value: object
    where: str


def shipped() -> Traversable:
    """Folder of the presets: package data of a wheel, configs/ of a source tree."""
    package = files("ltc_compiler")
    installed = package / "configs"
    return installed if installed.is_dir() else Path(__file__).parents[1] / "configs"


def presets() -> list[str]:
    """Names of the configurations that ship with the project, in alphabetical order."""
    return sorted(f.name.removesuffix(".toml") for f in shipped().iterdir() if f.name.endswith(".toml"))


def read_preset(name: str, *, where: str = "name", inside: tuple[str, ...] = ()) -> dict[str, Given]:
    """The fields of a preset. `where` and `inside`: who asks for it, and what is being read already."""
    if name not in presets():
        near = nearest(name, presets())
        remedy = f"use one of {', '.join(presets())}" + (f"; did you mean {near}?" if near else "")
        raise ConfigError(f"no preset is called {shown(name)}", where=where, remedy=remedy)
    return parse((shipped() / f"{name}.toml").read_bytes(), where=f"preset {name}", inside=inside)


def read_file(path: Path, *, inside: tuple[str, ...] = ()) -> dict[str, Given]:
    """The fields of a TOML file."""
    try:
        data = path.read_bytes()
    except OSError as error:
        remedy = "give the path of a TOML file; Config.preset(name) reads the shipped ones"
        raise ConfigError(f"cannot be read: {error.strerror}", where=str(path), remedy=remedy) from error
    return parse(data, where=str(path), folder=path.parent, inside=inside)


def parse(
    data: bytes, *, where: str, folder: Path | None = None, inside: tuple[str, ...] = ()
) -> dict[str, Given]:
    """The fields that a TOML text gives, those of its base included; those of a table are called like "latency.add".

    folder: where its base may lie. Raises ConfigError naming the file and the key.
    """
    if where in inside:
        circle = " -> ".join((*inside[inside.index(where) :], where))
        remedy = "give one of them all of its fields, and no base"
        raise ConfigError(f"base goes in a circle: {circle}", where=f"base in {inside[-1]}", remedy=remedy)
    values = _flat(_document(data, where), where)
    base = values.pop("base", None)
    check_names(values, where)
    given = {name: Given(value, where) for name, value in values.items()}
    return given if base is None else _base(base, where, folder, (*inside, where)) | given


def _document(data: bytes, where: str) -> dict[str, object]:
    try:
        return tomllib.loads(data.decode())
    except (ValueError, RecursionError) as error:  # of any kind: bytes, grammar, digits, depth
        remedy = "give a TOML file like those of configs/, or one that Config.save wrote"
        raise ConfigError(f"not a TOML text: {error}", where=where, remedy=remedy) from error


def _flat(document: dict[str, object], where: str) -> dict[str, object]:
    for table in TABLES:
        inner = document.pop(table, {})
        if not isinstance(inner, dict):
            raise ConfigError(
                f"{table} is {shown(inner)}, not a table", where=where, remedy=f"write [{table}]"
            )
        document |= {f"{table}.{name}": value for name, value in inner.items()}
    return document


def _base(base: object, where: str, folder: Path | None, inside: tuple[str, ...]) -> dict[str, Given]:
    key = f"base in {where}"
    if not isinstance(base, str):
        remedy = f'write base = "{presets()[-1]}", or another preset or a file'
        raise ConfigError(f"base is {shown(base)}, not a string", where=key, remedy=remedy)
    if not base.endswith(".toml"):
        given = read_preset(base, where=key, inside=inside)
    elif folder is None:
        remedy = "give the name of a preset, or load the text from a file that lies beside its base"
        raise ConfigError(f"base is {shown(base)}, and this text is in no folder", where=key, remedy=remedy)
    elif Path(base).name != base:
        remedy = 'put it beside this file, and give its name alone, as in base = "mine.toml"'
        raise ConfigError(f"base is {shown(base)}, not a file beside this one", where=key, remedy=remedy)
    elif not (folder / base).is_file():
        remedy = "give the name of a preset, or of a TOML file that lies beside this one"
        raise ConfigError(f"there is no {shown(base)} beside this file", where=key, remedy=remedy)
    else:
        given = read_file(folder / base, inside=inside)
    del given["name"]
    return given


def check_names(values: Iterable[str], where: str) -> None:
    """Refuse names that no field has, with the nearest one that there is."""
    unknown = [name for name in values if name not in NAMES]
    if not unknown:
        return
    pairs = [(name, nearest(name, NAMES)) for name in unknown]
    near = ", ".join(f"{found} for {_cut(name)}" for name, found in pairs[:8] if found)
    remedy = f"write {near}" if near else f"the fields are {', '.join(NAMES)}"
    raise ConfigError(f"unknown {listed(unknown)}", where=where, remedy=remedy)


def nearest(name: str, names: Iterable[str]) -> str:
    """The one of `names` that is most like `name`; "" if none is."""
    return next(iter(difflib.get_close_matches(name[:64], names, n=1)), "")


def listed(names: list[str]) -> str:
    """The fields of these names, as an error prints them."""
    some = ", ".join(_cut(name) for name in names[:8])
    return ("field " if len(names) == 1 else "fields ") + some + (", ..." if len(names) > 8 else "")


def _cut(name: str) -> str:
    return name if len(name) <= 64 else f"{name[:61]}..."


def text(values: Mapping[str, Scalar]) -> str:
    """The TOML text of all fields."""
    lines, open_table = [], ""
    for name, value in values.items():
        table, _, key = name.rpartition(".")
        if table != open_table:
            open_table = table
            lines += ["", f"[{table}]"]
        lines.append(f"{key} = {_toml(value)}")
    return "\n".join(lines) + "\n"


def _toml(value: Scalar) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return f'"{value}"' if isinstance(value, str) else repr(value)  # names need no escapes
