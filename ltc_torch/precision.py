"""Precision requests by region, and requests for cores: context managers around a part of `forward`.

They act while a model is recorded: every operation recorded inside carries the request, and the compiler follows it.
Outside of a recording they do nothing. Defaults without a context: weights and what a matmul reads are bf16, state and
pointwise mathematics fp32; the compiler chooses the cores. Regions nest; the innermost one counts.
"""

from __future__ import annotations

import linecache
import sys
import threading
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import TracebackType
from typing import Any, ClassVar

from ltc_compiler.errors import ConfigError
from ltc_compiler.ir.graph import Precision


@dataclass(eq=False)
class Entered:
    """A region that a recording went through: its name, the line of its `with`, whether it changed anything."""

    name: str
    where: str
    used: bool = False


class _Requests(threading.local):
    activations: Precision | None = None
    weights: Precision | None = None
    cores: tuple[int, ...] = ()

    def __init__(self) -> None:
        self.noted: list[Entered] | None = None  # what the recording at work went through
        self.inside: list[Entered] = []  # and what it is in


@contextmanager
def noting() -> Iterator[list[Entered]]:
    """The regions that are entered while a model is recorded."""
    outer, _requests.noted = _requests.noted, []
    try:
        yield _requests.noted
    finally:
        _requests.noted = outer


def regions() -> tuple[Entered, ...]:
    """The regions in which operations are recorded now, the innermost last."""
    return tuple(_requests.inside)


def warn_of_unused(entered: Iterable[Entered]) -> None:
    """A warning for each line whose region changed nothing, however often it was entered."""
    used = {(e.name, e.where): False for e in entered}
    used |= {(e.name, e.where): True for e in entered if e.used}
    for (name, where), changed in used.items():
        if not changed:
            lacking = "matrix product with constant weights" if name == "Fp8Weights" else "operation"
            warnings.warn(f"{name} changes nothing: no {lacking} is inside ({where})", stacklevel=3)


_requests = _Requests()


def activations() -> Precision | None:
    """The precision request for operations recorded now."""
    return _requests.activations


def weights() -> Precision | None:
    """The precision request for the weights of matmuls recorded now."""
    return _requests.weights


def cores() -> tuple[int, ...]:
    """The cores for operations recorded now; none where the compiler may choose."""
    return _requests.cores


class _Region:
    field: ClassVar[str]
    request: Any

    def __init__(self) -> None:
        self._outer: list[Any] = []

    def __enter__(self) -> None:
        self._outer.append(getattr(_requests, self.field))
        setattr(_requests, self.field, self.request)
        if _requests.noted is not None:
            frame = sys._getframe(1)
            file, line = frame.f_code.co_filename, frame.f_lineno
            where = f"{file}:{line}  {linecache.getline(file, line).strip()}"
            _requests.inside.append(Entered(type(self).__name__, where))
            _requests.noted.append(_requests.inside[-1])

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        setattr(_requests, self.field, self._outer.pop())
        if _requests.noted is not None and _requests.inside:
            _requests.inside.pop()


class Fp32Activations(_Region):
    """Operations inside compute in fp32: matmuls read fp32 operands, activation units return fp32."""

    field = "activations"
    request = Precision.FP32


class Fp8Weights(_Region):
    """Weights of matmuls inside are stored as FP8 E4M3, with one power-of-two scale per tensor.

    Where both regions hold, whichever is the inner one, a matmul reads weights of FP8's values and fp32 activations.
    Such weights are rounded when the model is converted, so plain fp32 (`bit_accurate=False`) keeps that rounding too,
    and they take the room of fp32 weights.
    """

    field = "weights"
    request = Precision.FP8_E4M3


class CorePartition(_Region):
    """Operations inside run on these cores: matmuls share their rows among them, all else is done on the first one.

    No bit changes, wherever an operation runs. A configuration that lacks one of the cores refuses the model when it is
    compiled.

    Args:
        cores: one core, or a sequence of different ones, counted from 0.

    Raises:
        ConfigError: `cores` names no cores.
    """

    field = "cores"

    def __init__(self, cores: Sequence[int] | int) -> None:
        super().__init__()
        listed = [cores] if isinstance(cores, int) else list(cores)
        good = all(isinstance(c, int) and not isinstance(c, bool) and c >= 0 for c in listed)
        if not good or not listed or len(set(listed)) != len(listed):
            raise ConfigError(f"cores is {cores!r}", where="CorePartition",
                              remedy="give different whole numbers from 0, at least one")  # fmt: skip
        self.request = tuple(listed)
