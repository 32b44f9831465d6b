"""Which recorder is at work in this thread: a file of its own, as what the recorder uses must know it too."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from ltc_torch.fx.record.record import Recorder


class _Stack(threading.local):
    def __init__(self) -> None:
        self.recorders: list[Recorder | None] = []


stack = _Stack()


def current() -> Recorder | None:
    """The recorder at work in this thread; None outside of a recording and while one is paused."""
    return stack.recorders[-1] if stack.recorders else None


@contextmanager
def paused() -> Iterator[None]:
    """Run model code eagerly, unrecorded."""
    stack.recorders.append(None)
    try:
        with torch._C.DisableTorchFunction(), torch._C._DisableTorchDispatch():
            yield
    finally:
        stack.recorders.pop()
