"""The accelerator configuration: what a machine has of each resource, and how long each unit takes.

A Config is frozen and refuses nonsense when it is built. Each field declares its range and its meaning once,
and the constructor, the TOML reader and the writer are loops over the fields. The machines that ship with the
project are the files of configs/, one each; a new machine is a new file.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from importlib.resources import files
from importlib.resources.abc import Traversable
from numbers import Integral, Real
from pathlib import Path
from typing import Any, Self

from ltc_compiler.errors import ConfigError, shown
from ltc_compiler.files import write_file

Scalar = bool | int | float | str

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")


def _ranged(low: float, high: float, meaning: str, default: float | None = None) -> Any:
    metadata = {"low": low, "high": high, "meaning": meaning}
    if default is None:
        return field(metadata=metadata)
    return field(default=default, metadata=metadata)


def _cycles(default: int, meaning: str) -> Any:
    return _ranged(1, 1000, meaning, default)


@dataclass(frozen=True, kw_only=True)
class Latencies:
    """Cycles from the issue of a row to its result being readable, operand read and write included.

    Every field lies in 1..1000 cycles. The defaults are plausible for fp32 operators of an FPGA at 300 MHz.
    Raises ConfigError for a value out of range.
    """

    issue: int = _cycles(1, "between two instructions of one core")
    add: int = _cycles(4, "fp32 add and subtract")
    mul: int = _cycles(4, "fp32 multiply")
    div: int = _cycles(17, "fp32 divide")
    sqrt: int = _cycles(17, "fp32 square root")
    compare: int = _cycles(2, "compare, minimum, maximum and select")
    move: int = _cycles(2, "copy and broadcast of a row")
    gather: int = _cycles(3, "gather of lanes into a row")
    activation: int = _cycles(5, "bf16 activation, a table look-up")
    activation_fp32: int = _cycles(65, "fp32 activation, a sequence of operations")
    rsqrt: int = _cycles(32, "fp32 reciprocal square root: a square root, then a division")
    accumulate: int = _cycles(4, "one addition to an accumulator of the matrix unit")
    accumulate_reduce: int = _cycles(1, "one addition to an accumulator of the reduction unit")
    matrix: int = _cycles(27, "matrix unit from the last beat on: multiplier, adder tree, write")
    reduce: int = _cycles(25, "reduction of a row: adder tree and write")
    synapse: int = _cycles(15, "synapse unit from the last row of synapses on")
    update: int = _cycles(27, "update of an LTC state, from its last operands on")
    link: int = _cycles(12, "a row from one core to another")
    io_in: int = _cycles(7, "a row from the host's side into a tensor row")
    io_out: int = _cycles(8, "a tensor row out to the host's side")
    crossing: int = _cycles(
        6, "more than these for a core other than the first, which is beside the host's side"
    )

    def __post_init__(self) -> None:
        _check_fields(self, prefix="latency.")


@dataclass(frozen=True, kw_only=True)
class HostLink:
    """The way between the host's memory and the accelerator, for an estimate of the time of IO: no cycle depends on it.

    The defaults are those of a PCIe 3.0 x16 card with a driver in user space (docs/machine.md). Raises ConfigError for
    a value out of range.
    """

    latency_us: float = _ranged(0, 1e6, "µs that a transfer takes one way besides its bytes", 0.7)
    bytes_per_us: float = _ranged(1e-3, 1e9, "bytes that pass in a µs, in each direction", 12000.0)

    def __post_init__(self) -> None:
        _check_fields(self, prefix="host.")

    def transfer_us(self, size: int) -> float:
        """µs that `size` bytes take one way; 0 for none, which need no transfer."""
        return self.latency_us + size / self.bytes_per_us if size else 0.0


# The fields of Config that are tables of fields.
TABLES: dict[str, type[Latencies | HostLink]] = {"latency": Latencies, "host": HostLink}


@dataclass(frozen=True, kw_only=True)
class Config:
    """One accelerator configuration.

    name: 1 to 64 letters, digits, "_" or "-", the first a letter or a digit. Every other field has the unit
    and the range that its declaration gives; counts of stores are per core. Raises ConfigError for a value
    out of range. The presets (class methods, and files of configs/) are models of this project's own machine
    in the public geometry of the boards that they are named after.
    """

    name: str
    cores: int = _ranged(1, 16, "cores")
    block_size: int = _ranged(4, 128, "lanes of a row, and sides of a weight block; a power of two")
    clock_mhz: float = _ranged(1, 2000, "clock in MHz")
    weight_blocks: int = _ranged(1, 65536, "blocks of the weight store, bf16")
    tensor_rows: int = _ranged(1, 65536, "rows of the tensor store")
    read_ports: int = _ranged(3, 16, "rows that the tensor store of a core gives in a cycle")
    accumulators: int = _ranged(1, 64, "row blocks that the matrix unit can have in flight")
    synapse_slots: int = _ranged(1, 65536, "rows of the synapse store, one synapse a lane")
    gather_entries: int = _ranged(1, 65536, "rows of the gather pattern store")
    instruction_slots: int = _ranged(16, 65536, "instructions")
    link_fifo_rows: int = _ranged(1, 4096, "rows that wait at the end of a link")
    issue_queue: int = _ranged(1, 64, "instructions that a unit holds, the one at work included")
    fp32_beats: int = _ranged(1, 64, "cycles that a beat of fp32 operands holds its unit")
    fp32_matmul: bool
    fp8_weights: bool
    synapse_unit: bool
    latency: Latencies = field(default_factory=Latencies)
    host: HostLink = field(default_factory=HostLink)

    def __post_init__(self) -> None:
        _check_fields(self)
        if self.block_size & (self.block_size - 1):
            what = f"block_size is {self.block_size}, not a power of two"
            remedy = "use 4, 8, 16, 32, 64 or 128"
            raise ConfigError(what, where=f"block_size of {self.name!r}", remedy=remedy)
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
        """Rows (or blocks along one side) that n elements take: ceil(n / block_size)."""
        return -(-n // self.block_size)

    def to_dict(self) -> dict[str, Scalar]:
        """All fields as plain values, as declared; those of a table are called like "latency.add"."""
        plain = {f.name: getattr(self, f.name) for f in fields(self) if f.name not in TABLES}
        for table in TABLES:
            inner = getattr(self, table)
            plain |= {f"{table}.{f.name}": getattr(inner, f.name) for f in fields(inner)}
        return plain

    @classmethod
    def from_dict(cls, values: Mapping[str, object], *, where: str = "a dict") -> Self:
        """The inverse of to_dict: every field and no other, or ConfigError names `where` and the field."""
        wanted = [f.name for f in fields(cls) if f.name not in TABLES]
        wanted += [f"{table}.{f.name}" for table, kind in TABLES.items() for f in fields(kind)]
        missing = [name for name in wanted if name not in values]
        unknown = [name for name in values if name not in wanted]
        if unknown:
            remedy = f"the fields are {', '.join(wanted)}"
            raise ConfigError(f"unknown {_listed(unknown)}", where=where, remedy=remedy)
        if missing:
            remedy = "give every field; the presets are complete examples"
            raise ConfigError(f"missing {_listed(missing)}", where=where, remedy=remedy)
        rest = {name: values[name] for name in wanted if "." not in name}
        try:
            for table, kind in TABLES.items():
                rest[table] = kind(**{f.name: values[f"{table}.{f.name}"] for f in fields(kind)})  # type: ignore[arg-type]
            return cls(**rest)  # type: ignore[arg-type]
        except ConfigError as error:
            raise ConfigError(error.what, where=f"{error.where} in {where}", remedy=error.remedy) from None

    def to_bytes(self) -> bytes:
        """The TOML text in UTF-8, equal for equal configurations: what save() writes."""
        lines, open_table = [], ""
        for name, value in self.to_dict().items():
            table, _, key = name.rpartition(".")
            if table != open_table:
                open_table = table
                lines += ["", f"[{table}]"]
            lines.append(f"{key} = {_toml(value)}")
        return ("\n".join(lines) + "\n").encode()

    @classmethod
    def from_bytes(cls, data: bytes, *, where: str = "bytes") -> Self:
        """The inverse of to_bytes; reads any TOML with the same fields. Raises ConfigError."""
        try:
            document = tomllib.loads(data.decode())
        except (ValueError, RecursionError) as error:  # of any kind: bytes, grammar, digits, depth
            remedy = "give a TOML file like those of configs/, or one that Config.save wrote"
            raise ConfigError(f"not a TOML text: {error}", where=where, remedy=remedy) from error
        for table in TABLES:
            inner = document.pop(table, {})
            if not isinstance(inner, dict):
                raise ConfigError(
                    f"{table} is {shown(inner)}, not a table", where=where, remedy=f"write [{table}]"
                )
            document |= {f"{table}.{name}": value for name, value in inner.items()}
        return cls.from_dict(document, where=where)

    def save(self, path: str | Path) -> None:
        """Write a TOML file that load() reads back to an equal Config. Raises FileError."""
        write_file(path, self.to_bytes())

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read a TOML file. Raises ConfigError naming the file and the field."""
        try:
            data = Path(path).read_bytes()
        except OSError as error:
            remedy = "give the path of a TOML file; Config.preset(name) reads the shipped ones"
            raise ConfigError(f"cannot be read: {error.strerror}", where=str(path), remedy=remedy) from error
        return cls.from_bytes(data, where=str(path))

    @staticmethod
    def presets() -> list[str]:
        """Names of the configurations that ship with the project, in alphabetical order."""
        return sorted(f.name.removesuffix(".toml") for f in _shipped().iterdir() if f.name.endswith(".toml"))

    @classmethod
    def preset(cls, name: str) -> Self:
        """The shipped configuration of that name. Raises ConfigError with the names there are."""
        if name not in cls.presets():
            remedy = f"use one of {', '.join(cls.presets())}"
            raise ConfigError(f"no preset is called {name!r}", where="name", remedy=remedy)
        return cls.from_bytes((_shipped() / f"{name}.toml").read_bytes(), where=f"preset {name}")

    @classmethod
    def ip_core(cls, num_cores: int, block_size: int) -> Self:
        """The machine for a design of one's own: 1..16 cores, block size 4..128, 320 MHz, 1024 blocks a core.

        The tensor and synapse stores hold as many elements whatever the block size. Raises ConfigError.
        """
        rows_of = max(1, block_size)  # a nonsense size is refused below, with its name
        return cls(
            name=f"ip_core_c{num_cores}b{block_size}",
            cores=num_cores,
            block_size=block_size,
            clock_mhz=320.0,
            weight_blocks=1024,
            tensor_rows=8192 * 32 // rows_of,
            read_ports=6,
            accumulators=8,
            synapse_slots=4096 * 32 // rows_of,
            gather_entries=4096,
            instruction_slots=8192,
            link_fifo_rows=64,
            issue_queue=8,
            fp32_beats=9,
            fp32_matmul=True,
            fp8_weights=True,
            synapse_unit=True,
        )

    @classmethod
    def ia_420f_c6b32(cls) -> Self:
        """6 cores, block size 32, 320 MHz, 512 weight blocks a core."""
        return cls.preset("ia_420f_c6b32")

    @classmethod
    def ia_840f_c3b64(cls) -> Self:
        """3 cores, block size 64, 320 MHz, 512 weight blocks a core."""
        return cls.preset("ia_840f_c3b64")

    @classmethod
    def ia_840f_c2b64d(cls) -> Self:
        """2 cores, block size 64, 320 MHz, 1024 weight blocks a core."""
        return cls.preset("ia_840f_c2b64d")

    @classmethod
    def nt400d11_c6b32(cls) -> Self:
        """6 cores, block size 32, 320 MHz, 512 weight blocks a core."""
        return cls.preset("nt400d11_c6b32")

    @classmethod
    def v80_c6b32(cls) -> Self:
        """6 cores, block size 32, 300 MHz, 4096 weight blocks a core."""
        return cls.preset("v80_c6b32")

    @classmethod
    def v80ll_c6b32(cls) -> Self:
        """6 cores, block size 32, 330 MHz, 4096 weight blocks a core."""
        return cls.preset("v80ll_c6b32")

    @classmethod
    def artena_c8b32(cls) -> Self:
        """8 cores, block size 32, 320 MHz, 1024 weight blocks a core."""
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


def _shipped() -> Traversable:
    """Folder of the shipped TOML files: package data of a wheel, configs/ of a source tree."""
    package = files("ltc_compiler")
    installed = package / "configs"
    return installed if installed.is_dir() else Path(__file__).parents[1] / "configs"


def _check_fields(instance: Config | Latencies | HostLink, prefix: str = "") -> None:
    """Check every declared field of a frozen instance, and make its value a plain int, float, bool or str."""
    owner = getattr(instance, "name", "")
    for f in fields(instance):
        if f.name not in TABLES:
            where = f"{prefix}{f.name}" + (f" of {owner!r}" if owner else "")
            plain = _plain(f"{prefix}{f.name}", str(f.type), getattr(instance, f.name), f.metadata, where)
            object.__setattr__(instance, f.name, plain)


def _plain(name: str, kind: str, value: object, metadata: Mapping[str, Any], where: str) -> Scalar:
    if kind == "str":
        if isinstance(value, str) and _NAME.fullmatch(value):
            return value
        remedy = 'use 1 to 64 letters, digits, "_" or "-", the first a letter or a digit'
        raise ConfigError(f"{name} is {shown(value)}", where=where, remedy=remedy)
    if kind == "bool":
        if isinstance(value, bool):
            return value
        raise ConfigError(f"{name} is {shown(value)}", where=where, remedy="use true or false")
    low, high = metadata["low"], metadata["high"]
    if not isinstance(value, bool):
        if kind == "int" and isinstance(value, Integral) and low <= value <= high:
            return int(value)
        if kind == "float" and isinstance(value, Real) and low <= value <= high:
            return float(value)
    noun = "an integer" if kind == "int" else "a number"
    remedy = f"use {noun} from {low} to {high}: {metadata['meaning']}"
    raise ConfigError(
        f"{name} is {shown(value)}, not {noun} from {low} to {high}", where=where, remedy=remedy
    )


def _toml(value: Scalar) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return f'"{value}"' if isinstance(value, str) else repr(value)  # names need no escapes: see _NAME


def _listed(names: list[str]) -> str:
    some = ", ".join(name if len(name) <= 64 else f"{name[:61]}..." for name in names[:8])
    return ("field " if len(names) == 1 else "fields ") + some + (", ..." if len(names) > 8 else "")
