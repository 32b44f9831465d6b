"""Reads an ONNX file and checks it; nothing of the package onnx leaks out of here.

Whatever is wrong with a file raises ModelFileError.
"""

from __future__ import annotations

from os import PathLike, fspath
from typing import Any

import numpy as np

from ltc_compiler.errors import ModelFileError
from ltc_compiler.ir.graph import Array

OLDEST_OPSET = 7  # the first one with NumPy's broadcasting
# What an exported port says of itself: its role; the output that follows it; whose state it is; how many steps an
# output is late; how many steps the stream may have that a state counts.
ROLE, STATE, STATE_KIND, LATE, LIMIT = "ltc.role", "ltc.state", "ltc.state_kind", "ltc.late", "ltc.step_limit"


def require_onnx() -> Any:
    """The package onnx. Raises ModelFileError where it is not installed."""
    try:
        import onnx
    except ImportError:
        raise ModelFileError("the package onnx is not installed", where="import onnx",
                             remedy="pip install ltc-compiler[onnx]") from None  # fmt: skip
    return onnx


def load_model(path: str | PathLike[str]) -> Any:
    """The checked ModelProto of a file, external data included. Raises ModelFileError."""
    onnx = require_onnx()
    where = fspath(path)
    try:
        model = onnx.load(where)
        if not model.graph.node and not model.graph.output:
            raise ValueError("it holds no graph")
        _check_text(model)
        onnx.checker.check_model(model if model.ByteSize() < 1 << 31 else where)
    except OSError as error:
        raise ModelFileError(f"cannot be read: {error.strerror or error}", where=where,
                             remedy="give the path of an ONNX file") from None  # fmt: skip
    except (
        Exception
    ) as error:  # protobuf, the checker and the loader of external data each have errors of their own
        raise ModelFileError(
            f"is no valid ONNX model: {error}", where=where, remedy="export the model again"
        ) from None
    version = next((o.version for o in model.opset_import if o.domain in ("", "ai.onnx")), None)
    newest = onnx.defs.onnx_opset_version()
    if version is not None and not OLDEST_OPSET <= version <= newest:
        raise ModelFileError(f"uses opset {version}, expected {OLDEST_OPSET} to {newest}", where=where,
                             remedy="convert it with onnx.version_converter")  # fmt: skip
    return model


def _check_text(message: Any) -> None:
    """Raises ValueError for a name that is not UTF-8: protobuf hands such a name out as bytes."""
    for field, value in message.ListFields():
        repeated = hasattr(value, "append") or hasattr(value, "add")
        if field.message_type is not None:
            for inner in value if repeated else [value]:
                _check_text(inner)
        elif field.type == field.TYPE_STRING and any(
            isinstance(v, bytes) for v in (value if repeated else [value])
        ):
            raise ValueError(f"field {field.name} is not UTF-8")


def read_tensor(proto: Any, where: str) -> Array:
    """The array of a TensorProto. Raises ModelFileError where its parts do not agree."""
    from onnx import numpy_helper

    try:
        return np.asarray(numpy_helper.to_array(proto))
    except Exception as error:  # it trusts the file, so anything may go wrong
        raise ModelFileError(f"initializer {proto.name!r} cannot be read: {error}", where=where,
                             remedy="export the model again") from None  # fmt: skip


def note(proto: Any, key: str) -> str | None:
    """What an exported input says of itself under a key."""
    return next((str(p.value) for p in proto.metadata_props if p.key == key), None)
