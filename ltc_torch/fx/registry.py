"""Three tables that the recorder and the converter read: what is treated how, one row per function or module class.

FUNCTIONS: a torch function's name -> converter to NNIR.
LEAVES: a module class -> converter to NNIR; the recorder keeps a call of such a module as one node.
REWRITES: a module class -> Python code that computes the same in a form that compiles well, run instead of `forward`.
Classes are keyed by their dotted name, so that a library is known here without being imported.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import nn

from ltc_compiler.ir.compose import Refused as Refused  # what a converter raises: a reason and a rewrite

Function = Callable[..., Any]

FUNCTIONS: dict[str, Function] = {}
LEAVES: dict[str, Function] = {}
REWRITES: dict[str, Function] = {}


def converts(*names: str) -> Callable[[Function], Function]:
    """Register a converter `(emitter, *args, **kwargs) -> Value or tuple` for torch functions of these names.

    Arguments come as the user passed them, with NNIR values in the place of tensors. Torch's namespaces use one name
    for one meaning (torch.exp, Tensor.exp, Tensor.exp_), so the name is the key.
    """

    def register(function: Function) -> Function:
        for name in names:
            FUNCTIONS[name] = function
        return function

    return register


def leaf(cls: type[nn.Module] | str) -> Callable[[Function], Function]:
    """Register a converter `(emitter, module, *args, **kwargs)` for a module class: its call stays one node.

    The converter returns NNIR values in the structure that the module's `forward` returns.
    """

    def register(function: Function) -> Function:
        LEAVES[_key(cls)] = function
        return function

    return register


def rewrite(cls: type[nn.Module] | str) -> Callable[[Function], Function]:
    """Register `(module, *args, **kwargs)`, torch code that is recorded in the place of the module's `forward`."""

    def register(function: Function) -> Function:
        REWRITES[_key(cls)] = function
        return function

    return register


def find(table: dict[str, Function], module: nn.Module) -> Function | None:
    """The row for a module's class or the nearest of its base classes that has one."""
    for cls in type(module).__mro__:
        if _key(cls) in table:
            return table[_key(cls)]
    return None


def _key(cls: type | str) -> str:
    return cls if isinstance(cls, str) else f"{cls.__module__}.{cls.__qualname__}"
