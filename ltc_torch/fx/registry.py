"""Three tables that the recorder and the converter read: what is treated how, one row per function or module class.

FUNCTIONS: a torch function's name -> converter to NNIR.
LEAVES: a module class -> converter to NNIR; the recorder keeps a call of such a module as one node.
REWRITES: a module class -> Python code that computes the same in a form that compiles well, run instead of `forward`.
Classes are keyed by their dotted name, so that a library is known here without being imported.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from torch import nn

from ltc_compiler.frontend.compose import (
    Refused as Refused,  # what a converter raises: a reason and a rewrite
)
from ltc_torch.fx.record.active import current
from ltc_torch.fx.record.catch import caught

Function = Callable[..., Any]

FUNCTIONS: dict[str, Function] = {}
LEAVES: dict[str, Function] = {}
REWRITES: dict[str, Function] = {}


def converts(*names: str) -> Callable[[Function], Function]:
    """Register a converter `(emitter, *args, **kwargs) -> Value or tuple` for torch functions of these names.

    Arguments come as the user passed them, with NNIR values in the place of tensors. Torch's namespaces use one name
    for one meaning (torch.exp, Tensor.exp, Tensor.exp_), so the name is the key.

    Args:
        names: names of torch functions, without their namespace.

    Returns:
        The decorator of the converter.
    """

    def register(function: Function) -> Function:
        for name in names:
            FUNCTIONS[name] = function
        return function

    return register


def leaf(cls: type[nn.Module] | str) -> Callable[[Function], Function]:
    """Register a converter `(emitter, module, *args, **kwargs)` for a module class: its call stays one node.

    The converter returns NNIR values in the structure that the module's `forward` returns.

    Args:
        cls: the class, or its dotted name where its library should not be imported.

    Returns:
        The decorator of the converter.
    """

    def register(function: Function) -> Function:
        LEAVES[_key(cls)] = function
        return function

    return register


def rewrite(cls: type[nn.Module] | str) -> Callable[[Function], Function]:
    """Register `(module, *args, **kwargs)`, torch code that is recorded in the place of the class's own `forward`.

    A subclass with a forward of its own is recorded as it is written; the code serves where it calls `super().forward`.

    Args:
        cls: the class, or its dotted name where its library should not be imported.

    Returns:
        The decorator of the code.
    """

    def register(function: Function) -> Function:
        key = _key(cls)
        REWRITES[key] = function
        if "<" not in key:
            library, name = (
                (cls.__module__, cls.__qualname__) if isinstance(cls, type) else key.rsplit(".", 1)
            )
            caught(library, f"{name}.forward")(partial(_from_subclass, key))
        return function

    return register


def _from_subclass(key: str, original: Function) -> Function:
    """The forward of a class of REWRITES as its subclasses call it."""

    def forward(module: Any, *args: Any, **kwargs: Any) -> Any:
        recorder, rewritten = current(), REWRITES.get(key)
        inherits = any(_key(cls) == key for cls in type(module).__mro__)
        if recorder is None or rewritten is None or not inherits or module in recorder.session.rewriting:
            return original(module, *args, **kwargs)
        with recorder.session.in_rewrite(module):
            return rewritten(module, *args, **kwargs)

    return forward


def find(table: dict[str, Function], module: nn.Module) -> Function | None:
    """The row for a module's class, or for the nearest of its base classes that has one.

    None where the module has code of its own in between: a forward, or another body for what the class's forward calls.
    """
    if "forward" in module.__dict__:
        return None
    for i, cls in enumerate(type(module).__mro__):
        if _key(cls) in table:
            called = {"forward", "__call__", *(n for n in vars(cls) if n.startswith("_") and n[1:2] != "_")}
            own = any(name in vars(below) for below in type(module).__mro__[:i] for name in called)
            return None if own else table[_key(cls)]
    return None


def _key(cls: type | str) -> str:
    return cls if isinstance(cls, str) else f"{cls.__module__}.{cls.__qualname__}"
