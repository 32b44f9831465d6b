"""Functions of other libraries that a recording treats in its own way, whatever name the user imported them under.

While a recording runs, such a function object is given other code, which calls ours; elsewhere, and in other threads,
it does what it always did. A library that is not imported is not touched.
"""

from __future__ import annotations

import inspect
import operator
import sys
import threading
import types
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

Function = Callable[..., Any]

_CAUGHT: dict[tuple[str, str], Callable[[Function], Function]] = {}  # (module, qualified name) -> maker
_lock = threading.Lock()
_users = 0
_originals: list[tuple[Any, types.CodeType]] = []
_methods: list[tuple[Any, str, Function]] = []  # of classes in C, which have no code to exchange


def caught(
    module: str, name: str
) -> Callable[[Callable[[Function], Function]], Callable[[Function], Function]]:
    """Register, for the function `name` of `module`, what makes its replacement from the original."""

    def register(make: Callable[[Function], Function]) -> Callable[[Function], Function]:
        _CAUGHT[module, name] = make
        return make

    return register


def _hooked(*args: Any, **kwargs: Any) -> Any:
    return __ltc_hook__(*args, **kwargs)  # type: ignore[name-defined]  # noqa: F821 - renamed in _catch


@contextmanager
def intercepted() -> Iterator[None]:
    """Catch the registered functions while a recording runs; nested and concurrent uses share one change."""
    global _users
    with _lock:
        _users += 1
        if _users == 1:
            _catch()
    try:
        yield
    finally:
        with _lock:
            _users -= 1
            if _users == 0:
                _release()


def _catch() -> None:
    for i, ((module, name), make) in enumerate(_CAUGHT.items()):
        if module not in sys.modules:
            continue
        function = operator.attrgetter(name)(sys.modules[module])
        if not hasattr(function, "__code__"):
            holder, _, method = name.rpartition(".")
            cls = operator.attrgetter(holder)(sys.modules[module])
            _methods.append((cls, method, function))
            setattr(cls, method, make(function))
            continue
        code = function.__code__
        original = types.FunctionType(
            code, function.__globals__, name, function.__defaults__, function.__closure__
        )
        original.__kwdefaults__ = function.__kwdefaults__
        _originals.append((function, code))
        function.__dict__.setdefault("__signature__", inspect.signature(function))  # of its own code
        hook = f"__ltc_hook_{i}__"  # a global of the caught function
        function.__globals__[hook] = make(original)
        function.__code__ = _hooked.__code__.replace(co_names=(hook,), co_freevars=code.co_freevars)


def _release() -> None:
    for function, code in reversed(_originals):  # a function may be caught twice
        del function.__globals__[function.__code__.co_names[0]]
        function.__code__ = code
        function.__dict__.pop("__signature__", None)
    _originals.clear()
    for cls, method, original in _methods:
        setattr(cls, method, original)
    _methods.clear()
