"""The accelerator configuration: what a machine has of each resource, and how long each unit takes.

A Config is frozen and refuses nonsense when it is built. Its fields, with range, unit, meaning and default, are the
rows of isa/machine.py; the constructor, the TOML form (config_file.py) and the description are loops over them. The
machines that ship with the project are the files of configs/, one each; a new machine is a new file.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from numbers import Integral, Real
from pathlib import Path
from typing import Any, Self

from ltc_compiler import config_file
from ltc_compiler.config_file import Given
from ltc_compiler.errors import ConfigError, shown
from ltc_compiler.files import write_file
from ltc_compiler.isa import machine
from ltc_compiler.isa.machine import PARAMETERS, Parameter, Scalar

_NAME = re.compile(machine.NAME)
_ROWS = {p.name: p for p in PARAMETERS}


@dataclass(frozen=True, kw_only=True)
class Latencies(machine.Latencies):
    """Cycles from the issue of a row to its result being readable, operand read and write included.

    Every field lies in 1..1000 cycles. The defaults are plausible for fp32 operators of an FPGA at 300 MHz.

    Raises:
        ConfigError: a value out of range.
    """

    def __post_init__(self) -> None:
        _check_fields(self, prefix="latency.")


@dataclass(frozen=True, kw_only=True)
class HostLink(machine.HostLink):
    """The way between the host's memory and the accelerator, for an estimate of the time of IO: no cycle depends on it.

    The defaults are those of a PCIe 3.0 x16 card with a driver in user space (docs/machine.md).

    Raises:
        ConfigError: a value out of range.
    """

    def __post_init__(self) -> None:
        _check_fields(self, prefix="host.")

    def transfer_us(self, size: int) -> float:
        """The µs that a transfer takes one way; 0 for no bytes, which need no transfer.

        Args:
            size: the number of bytes.
        """
        return self.latency_us + size / self.bytes_per_us if size else 0.0


# The fields of Config that are tables of fields.
TABLES: dict[str, type[Latencies | HostLink]] = {"latency": Latencies, "host": HostLink}


@dataclass(frozen=True, kw_only=True)
class Config(machine.Machine):
    """One accelerator configuration.

    Its fields, each with range, unit and meaning, stand in docs/configuration.md and are printed by describe(); counts
    of stores are per core. The presets (Config.preset, class methods, and files of configs/) are models of this
    project's own machine in the public geometry of the boards that they are named after.

    Raises:
        ConfigError: a value out of range.
    """

    latency: Latencies = field(default_factory=Latencies)
    host: HostLink = field(default_factory=HostLink)

    def __post_init__(self) -> None:
        _check_fields(self)
        for table, kind in TABLES.items():
            if not isinstance(getattr(self, table), kind):
                what = f"{table} is {shown(getattr(self, table))}, not a {kind.__name__}"
                remedy = f"use {kind.__name__}(...)"
                raise ConfigError(what, where=f"{table} of {self.name!r}", remedy=remedy)

    @property
    def weight_elements(self) -> int:
        """bf16 weights that all cores hold together."""
        return self.cores * self.weight_blocks * self.block_size**2

    def block_rows(self, n: int) -> int:
        """Rows (or blocks along one side) that elements take: ceil(n / block_size).

        Args:
            n: the number of elements.
        """
        return -(-n // self.block_size)

    def replace(self, *, name: str, **changes: object) -> Self:
        """A machine with other values in some fields: config.replace(name="slow_adder", cores=2, latency={"add": 6}).

        Args:
            name: the new machine's name.
            changes: fields by name; `latency` and `host` take a whole table, or a dict of what differs in it.

        Raises:
            ConfigError: an unknown field, or a value out of range.
        """
        where = f"replace of {self.name!r}"
        values: dict[str, object] = dict(self.to_dict())
        for key, value in changes.items():
            if key not in TABLES:
                new = {key: value}
            elif isinstance(value, TABLES[key]):
                new = {f"{key}.{f.name}": getattr(value, f.name) for f in fields(value)}
            elif isinstance(value, Mapping):
                new = {f"{key}.{inner}": given for inner, given in value.items()}
            else:
                remedy = f"give a {TABLES[key].__name__}, or a dict of what differs"
                raise ConfigError(f"{key} is {shown(value)}, not a table", where=where, remedy=remedy)
            values |= new
        return self.from_dict(values | {"name": name}, where=where)

    def to_dict(self) -> dict[str, Scalar]:
        """All fields as plain values, as declared; those of a table are called like "latency.add"."""
        return {p.name: _value(self, p.name) for p in PARAMETERS}

    @classmethod
    def from_dict(cls, values: Mapping[str, object], *, where: str = "a dict") -> Self:
        """The inverse of to_dict.

        Args:
            values: every field by name, and no other.
            where: what errors call the dict.

        Raises:
            ConfigError: a missing or unknown field, or a value out of range; the error names `where` and the field.
        """
        config_file.check_names(values, where)
        missing = [p.name for p in PARAMETERS if p.name not in values]
        if missing:
            remedy = "give every field, as to_dict does"
            raise ConfigError(f"missing {config_file.listed(missing)}", where=where, remedy=remedy)
        return cls._built({name: Given(value, where) for name, value in values.items()}, where)

    @classmethod
    def _built(cls, given: Mapping[str, Given], where: str) -> Self:
        """From the fields that are given; the others have their defaults."""
        missing = [p.name for p in PARAMETERS if p.default is None and p.name not in given]
        if missing:
            remedy = 'give it, or a base = "..." that has all but the name; a preset is a complete example'
            raise ConfigError(f"missing {config_file.listed(missing)}", where=where, remedy=remedy)
        name = given["name"].value
        owner = f" of {name!r}" if isinstance(name, str) and _NAME.fullmatch(name) else ""
        values = {
            key: _checked(_ROWS[key], value, f"{key}{'' if '.' in key else owner} in {origin}")
            for key, (value, origin) in given.items()
        }
        rest: dict[str, Any] = {key: value for key, value in values.items() if "." not in key}
        for table, kind in TABLES.items():
            inner = {
                key.partition(".")[2]: value for key, value in values.items() if key.startswith(f"{table}.")
            }
            rest[table] = kind(**inner)  # type: ignore[arg-type]
        return cls(**rest)

    def to_bytes(self) -> bytes:
        """The TOML text in UTF-8, equal for equal configurations: what save() writes."""
        return config_file.text(self.to_dict()).encode()

    @classmethod
    def from_bytes(cls, data: bytes, *, where: str = "bytes") -> Self:
        """The inverse of to_bytes; reads any TOML text that load() reads from a file.

        Args:
            data: the text in UTF-8.
            where: what errors call it.

        Raises:
            ConfigError: the text is no TOML, or as from_dict.
        """
        return cls._built(config_file.parse(data, where=where), where)

    def save(self, path: str | Path) -> None:
        """Write a TOML file that load() reads back to an equal Config.

        Args:
            path: the file to write.

        Raises:
            FileError: the file cannot be written; an old one is as it was.
        """
        write_file(path, self.to_bytes())

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read a TOML file, which may give only what differs from its base (docs/configuration.md).

        Args:
            path: the file to read.

        Raises:
            ConfigError: the file cannot be read or is no TOML, a missing or unknown field, or a value out of range;
                the error names the file and the field.
        """
        return cls._built(config_file.read_file(Path(path)), str(path))

    @staticmethod
    def presets() -> list[str]:
        """Names of the configurations that ship with the project, in alphabetical order."""
        return config_file.presets()

    @classmethod
    def preset(cls, name: str) -> Self:
        """The shipped configuration of a name.

        Args:
            name: one of presets().

        Raises:
            ConfigError: there is no such preset; the error lists those there are.
        """
        return cls._built(config_file.read_preset(name), f"preset {name}")

    def equal_presets(self) -> list[str]:
        """The presets of another name that are equal to this machine in every field but the name."""
        others = (self.preset(name) for name in self.presets() if name != self.name)
        return [other.name for other in others if other.to_dict() | {"name": self.name} == self.to_dict()]

    def describe(self) -> str:
        """A text with a line for every field: its value, its unit, its meaning."""
        rows = [(p.name, str(_value(self, p.name)), p.unit, p.meaning) for p in PARAMETERS]
        widths = [max(len(row[column]) for row in rows) for column in range(3)]
        lines = [
            f"{name:<{widths[0]}}  {value:>{widths[1]}}  {unit:<{widths[2]}}  {meaning}"
            for name, value, unit, meaning in rows
        ]
        equal = self.equal_presets()
        if equal:
            lines.append(f"equal, but for the name, to {' and '.join(equal)}")
        return "\n".join(lines)

    @classmethod
    def ip_core(cls, num_cores: int, block_size: int) -> Self:
        """The machine for a design of one's own, at 320 MHz with 1024 weight blocks per core.

        The tensor and synapse stores hold as many elements whatever the block size.

        Args:
            num_cores: 1 to 16.
            block_size: a power of two from 4 to 128.

        Raises:
            ConfigError: a value out of range.
        """
        rows_of = max(1, block_size)  # a nonsense size is refused below, with its name
        return cls(
            name=f"ip_core_c{num_cores}b{block_size}",
            cores=num_cores,
            block_size=block_size,
            clock_mhz=320.0,
            weight_blocks=1024,
            tensor_rows=8192 * 32 // rows_of,
            synapse_slots=4096 * 32 // rows_of,
        )

    @classmethod
    def ia_420f_c6b32(cls) -> Self:
        """6 cores, block size 32, 320 MHz, 512 weight blocks per core."""
        return cls.preset("ia_420f_c6b32")

    @classmethod
    def ia_840f_c3b64(cls) -> Self:
        """3 cores, block size 64, 320 MHz, 512 weight blocks per core."""
        return cls.preset("ia_840f_c3b64")

    @classmethod
    def ia_840f_c2b64d(cls) -> Self:
        """2 cores, block size 64, 320 MHz, 1024 weight blocks per core."""
        return cls.preset("ia_840f_c2b64d")

    @classmethod
    def nt400d11_c6b32(cls) -> Self:
        """6 cores, block size 32, 320 MHz, 512 weight blocks per core."""
        return cls.preset("nt400d11_c6b32")

    @classmethod
    def v80_c6b32(cls) -> Self:
        """6 cores, block size 32, 300 MHz, 4096 weight blocks per core."""
        return cls.preset("v80_c6b32")

    @classmethod
    def v80ll_c6b32(cls) -> Self:
        """6 cores, block size 32, 330 MHz, 4096 weight blocks per core."""
        return cls.preset("v80ll_c6b32")

    @classmethod
    def artena_c8b32(cls) -> Self:
        """8 cores, block size 32, 320 MHz, 1024 weight blocks per core."""
        return cls.preset("artena_c8b32")

    @classmethod
    def tiny_c1b8(cls) -> Self:
        """1 core, block size 8: for tests and for reading traces."""
        return cls.preset("tiny_c1b8")

    @classmethod
    def tiny_c2b8(cls) -> Self:
        """2 cores, block size 8: the smallest machine with a link."""
        return cls.preset("tiny_c2b8")

    @classmethod
    def small_c2b16(cls) -> Self:
        """2 cores, block size 16: for tests."""
        return cls.preset("small_c2b16")


def _value(config: machine.Machine, name: str) -> Scalar:
    table, _, key = name.rpartition(".")
    value: Scalar = getattr(getattr(config, table) if table else config, key)
    return value


def _check_fields(instance: Config | Latencies | HostLink, prefix: str = "") -> None:
    """Check every declared field of a frozen instance, and make its value a plain int, float, bool or str."""
    owner = getattr(instance, "name", "")
    for f in fields(instance):
        if f.name not in TABLES:
            where = f"{prefix}{f.name}" + (f" of {shown(owner)}" if owner else "")
            plain = _checked(_ROWS[f"{prefix}{f.name}"], getattr(instance, f.name), where)
            object.__setattr__(instance, f.name, plain)


def _checked(row: Parameter, value: object, where: str) -> Scalar:
    """The value as a plain int, float, bool or str; ConfigError if it is of another type or outside the row's range."""
    if row.kind == "str":
        if isinstance(value, str) and _NAME.fullmatch(value):
            return value
        raise ConfigError(f"{row.name} is {shown(value)}", where=where, remedy=f"use a {row.meaning}")
    if row.kind == "bool":
        if isinstance(value, bool):
            return value
        raise ConfigError(f"{row.name} is {shown(value)}", where=where, remedy="use true or false")
    number = _number(row, value)
    if number is None:
        noun = f"{'an integer' if row.kind == 'int' else 'a number'} from {row.low} to {row.high}"
        what = f"{row.name} is {shown(value)}, not {noun}"
        raise ConfigError(what, where=where, remedy=f"use {noun} {row.unit}: {row.meaning}")
    if row.power_of_two and int(number) & (int(number) - 1):
        allowed = ", ".join(str(n) for n in machine.powers_of_two(row))
        what = f"{row.name} is {number}, not a power of two"
        raise ConfigError(what, where=where, remedy=f"use one of {allowed}")
    return number


def _number(row: Parameter, value: Any) -> int | float | None:
    """A number in the row's range as a plain one; None for everything else."""
    if isinstance(value, bool):
        return None
    if row.kind == "int" and isinstance(value, Integral) and row.low <= int(value) <= row.high:
        return int(value)
    if row.kind == "float" and isinstance(value, Real) and row.low <= float(value) <= row.high:
        return float(value)
    return None


if (
    __name__ == "__main__"
):  # python -m ltc_compiler.config --cflags --libs, as other packages' modules of this name do
    from ltc_compiler.libltc import main

    raise SystemExit(main())
