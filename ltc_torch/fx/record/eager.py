"""While a model is recorded, what torch.compile made runs as it is written, and torch.compile makes nothing.

torch's own switch for that is a part of its compiler, whose import takes a second and tens of megabytes. It is set only
where that is imported already: elsewhere nothing has been compiled yet.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch

from ltc_torch.fx.record.catch import Function, caught

_here = threading.local()  # is_eager: in this thread torch.compile makes nothing


@contextmanager
def eager() -> Iterator[None]:
    """Nothing is compiled inside, and what is compiled already runs as it is written."""
    with ExitStack() as stack:
        if "torch._dynamo" in sys.modules:
            stack.enter_context(torch.compiler.set_stance("force_eager"))
        stack.enter_context(_set(True))
        yield


@contextmanager
def compiling() -> Iterator[None]:
    """Inside, torch.compile does what it always does: for what has no other way to run."""
    with torch.compiler.set_stance("default"), _set(False):
        yield


@contextmanager
def _set(is_eager: bool) -> Iterator[None]:
    before = getattr(_here, "is_eager", False)
    _here.is_eager = is_eager
    try:
        yield
    finally:
        _here.is_eager = before


@caught("torch", "compile")
def _compile(original: Function) -> Function:
    def as_it_is(model: Callable[..., Any] | None = None, **options: Any) -> Any:
        if not getattr(_here, "is_eager", False):
            return original(model, **options)
        return model if model is not None else lambda function: function

    return as_it_is
