"""The line of a user's class that changes what a module holds, found in the class's source."""

from __future__ import annotations

import ast
import inspect
import linecache
import textwrap
from collections.abc import Iterator
from typing import Any

from torch import nn

from ltc_compiler.ir.graph import Source
from ltc_torch.fx.record.calls import words
from ltc_torch.fx.state.held import Path, child

_CHANGING = words("append appendleft extend insert pop popleft clear update setdefault rotate")


def assigned_at(model: nn.Module, path: Path) -> Source:
    """Where what stands at `path` is changed: the last such line of the methods, `__init__` only if there is no other.

    Where the source cannot be read, or no line is found, only the module is known.
    """
    module, owners = _owners(model, path)
    for initial in (False, True):
        for owner, name in reversed(owners):
            for functions in _methods(type(owner)):
                lines = [
                    (function.__code__.co_filename, line)
                    for function in functions
                    if (function.__name__ == "__init__") == initial
                    for line in _changes(function, name)
                ]
                if lines:
                    file, line = max(lines)
                    return Source(module, file, line, linecache.getline(file, line).strip())
    return Source(module)


def whole_numbers(model: nn.Module, path: Path) -> set[int]:
    """The whole numbers that stand in the methods of the class that holds what stands at `path`."""
    owners = _owners(model, path)[1]
    trees = [
        _parsed(f)[0] for owner, _ in owners[-1:] for functions in _methods(type(owner)) for f in functions
    ]
    nodes = [node for tree in trees for node in ast.walk(tree) if isinstance(node, ast.Constant)]
    return {node.value for node in nodes if type(node.value) is int}


def _owners(model: nn.Module, path: Path) -> tuple[str, list[tuple[Any, str]]]:
    """The path of the innermost module, and the objects on the way with the attribute that is read of each."""
    item: Any = model
    module: Path = ()
    owners: list[tuple[Any, str]] = []
    for i, key in enumerate(path):
        if isinstance(key, str) and not isinstance(item, (dict, tuple)):
            owners.append((item, key))
        try:
            item = child(item, key)
        except (KeyError, IndexError, AttributeError):
            break  # it is not there before the first call
        if isinstance(item, nn.Module):
            module = path[: i + 1]
    return ".".join(map(str, module)), owners


def _methods(cls: type) -> Iterator[list[Any]]:
    """The methods that each class on the way to torch's own defines, the class itself first."""
    for base in cls.__mro__:
        if base.__module__.partition(".")[0] not in ("torch", "builtins"):
            yield [f for f in vars(base).values() if inspect.isfunction(f)]


def _parsed(function: Any) -> tuple[ast.AST, int]:
    """A function's syntax and the number of its first line; nothing where the source cannot be read."""
    try:
        lines, first = inspect.getsourcelines(function)
        return ast.parse(textwrap.dedent("".join(lines))), first
    except (OSError, TypeError, SyntaxError):
        return ast.Module([], []), 1


def _changes(function: Any, name: str) -> list[int]:
    tree, first = _parsed(function)
    nodes = (node for node in ast.walk(tree) if isinstance(node, (ast.stmt, ast.expr)))
    return [first + node.lineno - 1 for node in nodes if _is_change(node, name)]


def _is_change(node: ast.AST, name: str) -> bool:
    if isinstance(node, ast.Assign):
        return any(_reaches(target, name) for target in node.targets)
    if isinstance(node, (ast.AugAssign, ast.AnnAssign)):
        return _reaches(node.target, name)
    if not isinstance(node, ast.Call):
        return False
    if isinstance(node.func, ast.Attribute):
        called = node.func.attr
        writes = called in _CHANGING or (called.endswith("_") and not called.endswith("__"))
        return writes and _reaches(node.func.value, name)
    if isinstance(node.func, ast.Name) and node.func.id == "next":
        return any(_reaches(a, name) for a in node.args[:1])
    constant = [a.value for a in node.args[1:2] if isinstance(a, ast.Constant)]
    return isinstance(node.func, ast.Name) and node.func.id == "setattr" and constant == [name]


def _reaches(target: ast.AST, name: str) -> bool:
    """Whether an assignment to `target` changes the attribute: itself, a part of it, or one of several targets."""
    if isinstance(target, (ast.Tuple, ast.List)):
        return any(_reaches(item, name) for item in target.elts)
    if isinstance(target, ast.Attribute):
        return target.attr == name or _reaches(target.value, name)
    return isinstance(target, (ast.Subscript, ast.Starred)) and _reaches(target.value, name)
