"""The decorator with which users teach the compiler a module or a function of their own."""

from __future__ import annotations

import types
from collections.abc import Callable
from typing import Any

from torch import nn

from ltc_compiler.errors import InputError
from ltc_torch.fx.record.active import current
from ltc_torch.fx.record.catch import Function, caught
from ltc_torch.fx.registry import rewrite


def lowering(target: type[nn.Module] | Function | str) -> Callable[[Function], Function]:
    """Register torch code that is recorded in the place of `target`; outside of a recording nothing changes.

    The code may use every operation that compiles, ltc_torch.nn.Scan for loops above all. `prepare_shape` compares the
    recording with what the model itself computes, so a wrong replacement is found there. For a torch operation in terms
    of NNIR ops there is `converts`.

    Args:
        target: a module class, or its dotted name where its library should not be imported: the code is called as
            `code(module, *args, **kwargs)` and serves subclasses too (one with a forward of its own where that calls
            `super().forward`). Or a Python function that is defined in a module or class that can be imported: the
            code is called as `code(*args, **kwargs)`, whatever name the function goes by.

    Returns:
        The decorator of the code.

    Raises:
        InputError: the target is neither.
    """
    if isinstance(target, str) or (isinstance(target, type) and issubclass(target, nn.Module)):
        return rewrite(target)
    if not isinstance(target, types.FunctionType) or "<" in target.__qualname__:
        what = f"{target!r} is neither a module class nor a function that can be found by its name"
        remedy = "give a class derived from nn.Module, or a function defined at the top of a Python module"
        raise InputError(what, where="lowering", remedy=remedy)

    def register(code: Function) -> Function:
        def make(original: Function) -> Function:
            def dispatch(*args: Any, **kwargs: Any) -> Any:
                return (original if current() is None else code)(*args, **kwargs)

            return dispatch

        caught(target.__module__, target.__qualname__)(make)
        return code

    return register
