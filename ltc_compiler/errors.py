"""The error family: every refusal says what is wrong, where, and what to do about it.

All of them derive from LtcError, so that a caller can catch the family, and keep their parts as
attributes, so that a tool can show them without parsing the message. `where` names what the user
wrote (a module path, a source line, a field, a file), never our internals.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple


class LtcError(Exception):
    """Base of the family.

    Attributes:
        what: the fact that is wrong, with the value and the allowed range.
        where: the user's module, source line, field or file; "" if there is none.
        remedy: what to change; "" if nothing is known to help.
    """

    def __init__(self, what: str, *, where: str = "", remedy: str = "") -> None:
        lines = [what]
        if where:
            lines.append(f"  where: {where}")
        if remedy:
            lines.append(f"  remedy: {remedy}")
        super().__init__("\n".join(lines))
        self.what = what
        self.where = where
        self.remedy = remedy

    def __reduce__(self) -> tuple[Any, ...]:
        # Constructors of the family take other arguments than `args`: rebuild from the attributes instead.
        return _rebuild, (type(self), self.args, self.__dict__)


def _rebuild(kind: type[LtcError], args: tuple[object, ...], attributes: dict[str, Any]) -> LtcError:
    error = kind.__new__(kind, *args)
    error.__dict__.update(attributes)
    return error


def shown(value: object, limit: int = 80) -> str:
    """A value as an error prints it: its repr, cut to `limit` characters. Never raises, whatever a file held."""
    try:
        text = repr(value)
    except (ValueError, RecursionError):  # an integer of thousands of digits, a list that is nested as deeply
        text = f"<{type(value).__name__}>"
    return text if len(text) <= limit else f"{text[: limit - 3]}..."


class ConfigError(LtcError, ValueError):
    """A configuration field, or a configuration file, is refused."""


class GraphError(LtcError):
    """A graph breaks a rule of NNIR; raised by the verifier."""


class StreamingError(LtcError):
    """A graph has no step-by-step form along the asked axis."""


class ProgramError(LtcError):
    """A program file or its bytecode is refused; nothing of it was executed."""


class IsaMismatchError(ProgramError):
    """A program was made for another instruction set than this build's."""


class InputError(LtcError, ValueError):
    """An input of a run has a wrong shape, type or value; the state is as it was."""


class StateError(LtcError):
    """A state cannot be read or written as asked; the state is as it was."""


class ArithmeticMismatchError(LtcError):
    """The simulator's arithmetic on this CPU, or in this build, is not that of the contract; nothing was run."""


class AllocationError(LtcError):
    """A program does not fit the machine.

    Attributes:
        store: the store that is too small, with its core.
        needed: what the program needs of it, in the store's own unit (rows, blocks, slots, entries, instructions).
        available: what it has, in the same unit.
        where: as for LtcError.
        remedy: as for LtcError.
    """

    def __init__(self, store: str, *, needed: int, available: int, where: str = "", remedy: str = "") -> None:
        what = f"{store}: {needed} needed, {available} available"
        super().__init__(what, where=where, remedy=remedy)
        self.store = store
        self.needed = needed
        self.available = available


class ModelFileError(LtcError, ValueError):
    """A model file of another tool cannot be read or written, or is no valid model."""


class FaultError(LtcError):
    """The compiler itself failed at something that it should have compiled or refused; the cause is chained."""


class FileError(LtcError):
    """A file cannot be written; what was there is as it was."""


class Unsupported(NamedTuple):
    """One operation that a front end cannot lower.

    Attributes:
        node: the name of the operation.
        where: the user's module and source line.
        reason: why it cannot be lowered.
        rewrite: a form that can be lowered; "" if none is known.
    """

    node: str
    where: str
    reason: str
    rewrite: str


class UnsupportedError(LtcError):
    """Everything in a model that cannot be lowered, reported at once.

    Attributes:
        entries: one Unsupported for each operation, in the order of the model; at least one.
    """

    def __init__(self, entries: Iterable[Unsupported]) -> None:
        self.entries = tuple(entries)
        if not self.entries:
            raise ValueError("UnsupportedError needs at least one entry")
        count = len(self.entries)
        lines = [f"{count} {'operation' if count == 1 else 'operations'} cannot be lowered"]
        for entry in self.entries:
            lines.append(f"  {entry.node}: {entry.reason}")
            lines.append(f"    where: {entry.where}")
            if entry.rewrite:
                lines.append(f"    remedy: {entry.rewrite}")
        super().__init__("\n".join(lines))

    @classmethod
    def single(cls, reason: str, *, where: str, rewrite: str = "", node: str = "model") -> UnsupportedError:
        """The error for one operation.

        Args:
            reason: why it cannot be lowered.
            where: the user's module and source line.
            rewrite: a form that can be lowered; "" if none is known.
            node: the name of the operation.
        """
        return cls([Unsupported(node, where, reason, rewrite)])
