"""Values that `forward` reads: checks that only stop a run are left out, every other read is refused, all at once.

A guard is an `assert`, or an `if` one of whose sides only raises, warns or prints. On inputs that pass it a program
without it gives the same; so the example's side is taken, and one warning lists the guards. Whether a read belongs to
one is seen in the source of the line that reads. Anything else that needs a value is noted, and the recording goes on
with the example's, so that one error names all such lines.
"""

from __future__ import annotations

import ast
import linecache
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from types import CodeType, FrameType
from typing import TYPE_CHECKING, Any

from torch import Tensor
from torch.utils import _pytree as pytree

from ltc_compiler.errors import Unsupported, UnsupportedError
from ltc_torch.fx.record.calls import ASSERTS, SHAPED, VALUE_READS
from ltc_torch.fx.record.sources import BOUNDARY, is_plumbing, user_source

if TYPE_CHECKING:
    from ltc_torch.fx.record.record import Session

_TELLS = ("print", "warn", "warning", "exit", "quit", "breakpoint", "set_trace")  # calls that change no value
_LOGS = (
    "debug",
    "info",
    "error",
    "critical",
    "exception",
    "log",
)  # the same, of something called log or logger

_Statements = tuple[ast.stmt, ...]  # a statement and those around it, the innermost first


class Reads:
    """What the recordings of one model have read of values that depend on an input."""

    def __init__(self) -> None:
        self._guards: dict[str, None] = {}
        self._stops: dict[Unsupported, None] = {}

    def read(
        self, session: Session, func: Callable[..., Any], name: str, args: Any, kwargs: dict[str, Any]
    ) -> Any:
        """Do what the call does, without a record of it, and note where."""
        where = str(user_source(session.module))
        if name in ASSERTS or _in_guard(sys._getframe(1)):
            self._guards[where] = None
        else:
            self._stops[Unsupported(name, where, *_reason(name, session.has_states))] = None
            if name in VALUE_READS:  # what shares memory with a recorded tensor would be refused once more
                args = pytree.tree_map(lambda a: a.clone() if isinstance(a, Tensor) else a, args)
        return func(*args, **kwargs)

    def mark(self) -> int:
        """A place among what was noted, for `forget`."""
        return len(self._stops)

    def forget(self, mark: int) -> bool:
        """Forget the stops that were noted since a mark; whether there were any."""
        new = list(self._stops)[mark:]
        for stop in new:
            del self._stops[stop]
        return bool(new)

    @contextmanager
    def refused(self) -> Iterator[None]:
        """Raise one error, when a recording ends, for all that was noted in it and for what ended it."""
        try:
            yield
        except UnsupportedError as error:
            raise UnsupportedError(dict.fromkeys([*self._stops, *error.entries])) from error
        except Exception as error:
            if not self._stops:
                raise
            raise UnsupportedError(self._stops) from error
        if self._stops:
            raise UnsupportedError(self._stops)

    def warn(self, stacklevel: int) -> None:
        if self._guards:
            text = "checks of values are no part of the program, which goes on where they would stop:"
            warnings.warn("\n  ".join([text, *self._guards]), stacklevel=stacklevel + 1)


def _reason(name: str, has_states: bool) -> tuple[str, str]:
    """Why a read is refused, and what to write instead."""
    on = "the input or on module state" if has_states else "the input"
    if name in ("__getitem__", "__setitem__"):
        return f"indexing by a tensor that depends on {on}", "torch.where(mask, a, b) keeps the shape"
    if name in ("tensor", "as_tensor"):
        return "torch.tensor copies the value of its argument", "torch.stack or torch.cat"
    if name in SHAPED:
        return (
            f"gives a shape that follows from values of {on}",
            "torch.where(condition, a, b) keeps the shape",
        )
    if name not in VALUE_READS:
        return "writes its result into another tensor (out=)", "assign the returned tensor"
    reason = f"needs the value of a tensor that depends on {on} (data-dependent control flow or shape)"
    return reason, "torch.where(condition, a, b), or a branch on a shape or a setting"


# ---------------------------------------------------------------- the statement that reads


def _in_guard(frame: FrameType | None) -> bool:
    """Whether the value that is being read serves a guard alone, and no caller catches what the guard raises."""
    while frame is not None and is_plumbing(frame.f_code.co_filename):
        frame = frame.f_back
    decided = False
    while frame is not None and frame.f_code.co_name != BOUNDARY:
        if not is_plumbing(frame.f_code.co_filename):
            around = _statements(frame)
            if not decided:
                if not around:
                    return False
                if not isinstance(around[0], ast.Return):
                    if not _is_guard(around):
                        return False
                    decided = True
            if any(isinstance(s, ast.Try) and s.handlers for s in around):
                return False
        frame = frame.f_back
    return decided


def _statements(frame: FrameType) -> _Statements:
    """The statement that a frame is at, and those around it up to the function; () where there is no source."""
    positions = list(_positions(frame.f_code))[frame.f_lasti // 2]
    if None in positions:
        return ()
    line, _, column, _ = positions
    body, found = _parsed(frame.f_code.co_filename), []
    while True:
        inner = next((s for s in body if _holds(s, line, column)), None)
        if inner is None:
            break
        found.append(inner)
        if isinstance(inner, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            found = [inner]
        body = list(_children(inner))
    return tuple(reversed(found))


@lru_cache(maxsize=256)
def _positions(code: CodeType) -> Sequence[Any]:
    return list(code.co_positions())


@lru_cache(maxsize=64)
def _parsed(file: str) -> list[ast.stmt]:
    try:
        return ast.parse("".join(linecache.getlines(file))).body
    except (SyntaxError, ValueError):
        return []


def _children(statement: ast.stmt) -> Iterator[ast.stmt]:
    for child in ast.walk(statement):
        if child is not statement and isinstance(child, ast.stmt):
            yield child


def _holds(statement: ast.stmt, line: int, column: int) -> bool:
    end = statement.end_lineno, statement.end_col_offset
    return (statement.lineno, statement.col_offset) <= (line, column) < (end[0] or 0, end[1] or 0)


# ---------------------------------------------------------------- what a guard is


def _is_guard(around: _Statements) -> bool:
    statement = around[0]
    if isinstance(statement, ast.Assert):
        return not _names_values(statement.test)
    if isinstance(statement, ast.If):
        sides = (statement.body, statement.orelse)
        stops = any(map(_ends_in_raise, sides)) or all(map(_changes_nothing, sides))
        return not _names_values(statement.test) and stops
    if isinstance(statement, ast.Expr):
        return _only_tells(statement)
    if isinstance(statement, ast.Assign) and isinstance(around[-1], (ast.FunctionDef, ast.AsyncFunctionDef)):
        names = [t.id for t in statement.targets if isinstance(t, ast.Name)]
        return len(names) == len(statement.targets) and all(_serves_guards(n, around[-1]) for n in names)
    return False


def _names_values(test: ast.expr) -> bool:
    """Whether an expression gives names to values that may be used later (walrus)."""
    return any(isinstance(node, ast.NamedExpr) for node in ast.walk(test))


def _ends_in_raise(body: Sequence[ast.stmt]) -> bool:
    """Whether statements go nowhere but to a `raise`."""
    leaves = any(
        isinstance(node, (ast.Return, ast.Break, ast.Continue, ast.Yield))
        for s in body
        for node in ast.walk(s)
    )
    return bool(body) and isinstance(body[-1], ast.Raise) and not leaves


def _changes_nothing(body: Sequence[ast.stmt]) -> bool:
    """Whether statements do nothing but warn, print, and call a debugger, which they may import."""
    return all(_only_tells(s) or isinstance(s, (ast.Pass, ast.Import, ast.ImportFrom)) for s in body)


def _only_tells(statement: ast.stmt) -> bool:
    call = statement.value if isinstance(statement, ast.Expr) else None
    if not isinstance(call, ast.Call):
        return False
    if isinstance(call.func, ast.Name):
        return call.func.id in _TELLS
    if not isinstance(call.func, ast.Attribute):
        return False
    owner = ast.unparse(call.func.value).lower()
    return call.func.attr in _TELLS or (call.func.attr in _LOGS and "log" in owner)


def _serves_guards(name: str, function: ast.stmt) -> bool:
    """Whether a local name is read by guards alone."""
    inside: set[ast.AST] = set()
    for node in ast.walk(function):
        if isinstance(node, ast.Assert) or (isinstance(node, ast.Expr) and _only_tells(node)):
            inside.update(ast.walk(node))
        elif isinstance(node, ast.If) and _is_guard((node,)):
            sides = (node.body, node.orelse)
            stopping = [s for side in sides if _ends_in_raise(side) or _changes_nothing(side) for s in side]
            inside.update(n for part in (node.test, *stopping) for n in ast.walk(part))
    uses = [n for n in ast.walk(function) if isinstance(n, ast.Name) and n.id == name]
    return all(n in inside for n in uses if isinstance(n.ctx, ast.Load))
