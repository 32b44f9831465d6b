"""The public API in help(): every name says what it takes, and which errors of the family it raises."""

from __future__ import annotations

import ast
import dataclasses
import importlib
import inspect
import re
import textwrap
from collections.abc import Iterator
from functools import cache
from types import FunctionType
from typing import Any

import pytest

from ltc_compiler import errors
from ltc_compiler.bytecode.ports import model_at

MODULES = (
    "ltc_compiler", "ltc_compiler.compare", "ltc_compiler.onnx", "ltc_compiler.oracle", "ltc_compiler.report",
    "ltc_torch", "ltc_torch.fx", "ltc_torch.fx.nnir", "ltc_torch.nn",
)  # fmt: skip
PACKAGES = ("ltc_compiler", "ltc_torch")
FAMILY = {
    n: kind
    for n, kind in vars(errors).items()
    if isinstance(kind, type) and issubclass(kind, errors.LtcError)
}
DEPTH = (
    2  # calls that are followed in search of a `raise`: a method, its helper, and the check that this calls
)


def ours(obj: object) -> bool:
    return str(getattr(obj, "__module__", "")).split(".")[0] in PACKAGES


def code_of(member: object) -> FunctionType | None:
    """The function of ours behind a function, a method, a class method or a property."""
    if isinstance(member, property):
        member = member.fget
    elif isinstance(member, classmethod | staticmethod):
        member = member.__func__
    return member if isinstance(member, FunctionType) and ours(member) else None


def constructor(cls: type) -> FunctionType | None:
    """The code of ours that a class runs when it is made: of a dataclass, __post_init__."""
    return code_of(vars(cls).get("__post_init__" if dataclasses.is_dataclass(cls) else "__init__"))


def public() -> Iterator[tuple[str, Any, type | None]]:
    """The functions and classes in `__all__`, and the methods and properties of the classes, with their class."""
    seen: set[int] = set()
    for module_name in MODULES:
        module = importlib.import_module(module_name)
        for name in module.__all__:
            obj: Any = getattr(module, name)
            if id(obj) in seen or not ours(obj) or not (inspect.isclass(obj) or inspect.isfunction(obj)):
                continue
            seen.add(id(obj))
            yield f"{module_name}.{name}", obj, None
            if inspect.isclass(obj):
                yield from ((f"{module_name}.{name}.{key}", member, obj) for key, member in members(obj))


def members(cls: type) -> Iterator[tuple[str, Any]]:
    """Public methods and properties, inherited ones of ours included."""
    for base in cls.__mro__:
        for key, member in vars(base).items():
            shown = not key.startswith("_") and inspect.getattr_static(cls, key) is member
            if shown and code_of(member) is not None:
                yield key, member


API = list(public())


# --- what a docstring says ----------------------------------------------------------------------------------------


def explained(text: str, *titles: str) -> set[str]:
    """The names that the sections of these titles explain: `name:` or `*name:` at the begin of a line."""
    names: set[str] = set()
    for title in titles:
        found = re.search(rf"^{title}:\n((?:[ ]+.*\n|\n)*)", f"{text}\n", re.MULTILINE)
        names |= (
            set(re.findall(r"^\*{0,2}(\w+):", textwrap.dedent(found[1]), re.MULTILINE)) if found else set()
        )
    return names


def parameters(obj: Any, owner: type | None) -> list[str]:
    """What a caller passes. The fields of dataclasses and named tuples are no parameters here."""
    code = code_of(vars(obj).get("__init__") if inspect.isclass(obj) else obj)
    if code is None or code.__code__.co_filename == "<string>":
        return []
    bound = inspect.isclass(obj) or (owner is not None and not isinstance(obj, staticmethod))
    return list(inspect.signature(code).parameters)[bound:]


# --- what is raised -----------------------------------------------------------------------------------------------


def raised(code: FunctionType, owner: type | None, depth: int) -> set[str]:
    """Classes of the family that a function raises, or that what it calls raises, `depth` calls down.

    Calls are followed where their meaning is plain: functions and classes of the module, methods of `self` and `cls`.
    """
    found: set[str] = set()
    for node in walk(tree(code)):
        if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call):
            kind = node.exc.func.value if isinstance(node.exc.func, ast.Attribute) else node.exc.func
            if isinstance(kind, ast.Name) and kind.id in FAMILY:
                found.add(kind.id)
        elif isinstance(node, ast.Call) and depth:
            target, its_owner = called(node.func, code, owner)
            if target is not None and target is not code:
                found |= raised(target, its_owner, depth - 1)
    return found


@cache
def tree(code: FunctionType) -> ast.AST:
    return ast.parse(textwrap.dedent(inspect.getsource(code))).body[0]


def walk(node: ast.AST) -> Iterator[ast.AST]:
    """All nodes, but for functions inside, and for a `try` that handles the family: its errors become others."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.FunctionDef | ast.Lambda):
            continue
        yield child
        if isinstance(child, ast.Try) and any(handles_family(h) for h in child.handlers):
            for part in (*child.handlers, *child.orelse, *child.finalbody):
                yield from walk(part)
        else:
            yield from walk(child)


def handles_family(handler: ast.ExceptHandler) -> bool:
    names = (n.id for n in ast.walk(handler.type or handler) if isinstance(n, ast.Name))
    return any(name in FAMILY or name == "Exception" for name in names)


def called(func: ast.expr, code: FunctionType, owner: type | None) -> tuple[FunctionType | None, type | None]:
    """The function that a call names, with the class whose method it is."""
    match func:
        case ast.Name(id=name):
            target = code.__globals__.get(name)
            return (constructor(target), target) if inspect.isclass(target) else (code_of(target), None)
        case ast.Attribute(value=ast.Name(id="self" | "cls"), attr=name) if owner is not None:
            return code_of(inspect.getattr_static(owner, name, None)), owner
    return None, None


# --- the tests ----------------------------------------------------------------------------------------------------


def shortcomings(obj: Any, owner: type | None = None) -> list[str]:
    """What a docstring lacks. A name that takes nothing answers only for what it raises itself."""
    is_class = inspect.isclass(obj)
    text = inspect.cleandoc((vars(obj).get("__doc__") if is_class else obj.__doc__) or "")
    if not text:
        return ["no docstring"]
    taken = parameters(obj, owner)
    lacking = [f"no word on {name}" for name in taken if name not in explained(text, "Args", "Attributes")]
    if not is_class:
        lacking += [f"{name} is no parameter" for name in explained(text, "Args") - set(taken)]
    code = constructor(obj) if is_class else code_of(obj)
    if code is not None:
        said = [FAMILY[name] for name in explained(text, "Raises") if name in FAMILY]
        for name in sorted(raised(code, obj if is_class else owner, DEPTH if taken or is_class else 0)):
            kinds = [kind for kind in said if issubclass(FAMILY[name], kind)]
            if not kinds or (kinds == [errors.LtcError] and name != "LtcError"):
                lacking.append(f"raises {name}, unsaid")
    return lacking


@pytest.mark.parametrize(("name", "obj", "owner"), API, ids=[name for name, _, _ in API])
def test_help_says_what_a_name_takes_and_raises(name: str, obj: Any, owner: type | None) -> None:
    lacking = shortcomings(obj, owner)
    assert not lacking, f"{name}: {'; '.join(lacking)}"


def test_the_whole_interface_is_looked_at() -> None:
    names = {name for name, _, _ in API}
    assert names >= {"ltc_compiler.Program.input_shape", "ltc_compiler.VM.run_batch", "ltc_torch.nn.Scan.forward",
                     "ltc_compiler.Config.load", "ltc_torch.stream", "ltc_torch.fx.nnir.to_nnir"}  # fmt: skip


def test_what_a_docstring_lacks_is_found() -> None:
    def silent(x: int) -> int:
        return x

    def terse(x: int) -> int:
        """x as it is."""
        return x

    def wrong(x: int) -> int:
        """x as it is.

        Args:
            y: not there.
        """
        return x

    def raising(x: int) -> None:
        """Refuse.

        Args:
            x: whatever.

        Raises:
            LtcError: too general a word.
        """
        if x:
            raise errors.InputError("no")
        model_at((), x)

    for function in (silent, terse, wrong, raising):
        function.__module__ = "ltc_torch"  # looked at as if it were of the packages
    assert shortcomings(silent) == ["no docstring"]
    assert shortcomings(terse) == ["no word on x"]
    assert shortcomings(wrong) == ["no word on x", "y is no parameter"]
    assert shortcomings(raising) == ["raises InputError, unsaid"]
