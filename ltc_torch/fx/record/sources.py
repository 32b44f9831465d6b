"""Where a recorded operation stands in the user's code: module path, file, line and the line's text.

Frames of torch, torchdiffeq, ncps and this package are passed over, so that an error names a line that the user wrote.
"""

from __future__ import annotations

import linecache
import os
import sys
from importlib.util import find_spec
from types import FrameType, TracebackType

from ltc_compiler.errors import Unsupported, UnsupportedError
from ltc_compiler.ir.graph import Source

_LIBRARIES = ("torch", "torchdiffeq", "ncps", "ltc_torch")
BOUNDARY = "prepare_shape"  # frames outside of it are not part of the model


def _folder(library: str) -> str | None:
    spec = find_spec(library)
    return None if spec is None or spec.origin is None else os.path.dirname(spec.origin) + os.sep


_LIBRARY_FOLDERS = tuple(folder for folder in map(_folder, _LIBRARIES) if folder is not None)
_PLUMBING = (
    str(_folder("ltc_torch")),
    *(f"{_folder('torch')}{file}" for file in ("_tensor.py", "overrides.py", "functional.py")),
)


def is_plumbing(file: str) -> bool:
    """Whether a file only passes calls on between a model's code and the recorder."""
    return file.startswith(_PLUMBING)


def user_source(module: str) -> Source:
    """The innermost line of user code now running.

    Where a library's module is the model itself there is none: then the line that asked for the recording.
    """
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and frame.f_code.co_name != BOUNDARY:
        file = frame.f_code.co_filename
        if not file.startswith(_LIBRARY_FOLDERS) and not file.startswith("<"):
            text = linecache.getline(file, frame.f_lineno).strip()
            return Source(module, file, frame.f_lineno, text)
        frame = frame.f_back
    if frame is None or frame.f_back is None:
        return Source(module)
    asked = frame.f_back
    while asked.f_back is not None and asked.f_code.co_filename.startswith(_LIBRARY_FOLDERS):
        asked = asked.f_back  # ltc_torch.compare asks on behalf of its caller
    text = linecache.getline(asked.f_code.co_filename, asked.f_lineno).strip()
    return Source(module, asked.f_code.co_filename, asked.f_lineno, text)


def failing_line(traceback: TracebackType | None) -> str:
    """The innermost line of user code that an exception passed through; "" if there is none."""
    found, inside = "", False
    while traceback is not None:
        code, line = traceback.tb_frame.f_code, traceback.tb_lineno
        inside |= code.co_name == BOUNDARY
        if inside and not code.co_filename.startswith((*_LIBRARY_FOLDERS, "<")):
            text = linecache.getline(code.co_filename, line).strip()
            found = str(Source("", code.co_filename, line, text))
        traceback = traceback.tb_next
    return found


def refuse(node: str, module: str, reason: str, rewrite: str) -> UnsupportedError:
    """The error for something that cannot be recorded at all, at the line now running."""
    return UnsupportedError([Unsupported(node, str(user_source(module)), reason, rewrite)])
