"""Reads an ONNX file, checks it, and settles the shape of every input; nothing of the package onnx leaks out of here.

Whatever is wrong with a file raises ModelFileError; wrong or missing shapes raise InputError.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import Enum
from math import prod
from os import PathLike, fspath
from typing import Any, TypeVar

import numpy as np

from ..errors import InputError, ModelFileError
from ..ir.compose import FOLD_LIMIT
from ..ir.graph import Array, Graph, Role, State, StateKind, Type, Value

OLDEST_OPSET = 7  # the first one with NumPy's broadcasting
InputShapes = Mapping[str, Sequence[int]] | Sequence[Sequence[int]]
# What an exported input says of itself: its role; the output that follows it; whose state it is.
ROLE, STATE, STATE_KIND = "ltc.role", "ltc.state", "ltc.state_kind"

_Member = TypeVar("_Member", bound=Enum)


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


def add_inputs(model: Any, graph: Graph, shapes: InputShapes | None, where: str) -> dict[str, Value]:
    """Add the model's inputs to a graph, and return them by name. Inputs with a default value are constants.

    Raises InputError for shapes that are missing or do not fit.
    """
    constants = {t.name for t in model.graph.initializer}
    protos = [i for i in model.graph.input if i.name not in constants]
    wanted = _by_name(protos, shapes, where)
    sizes = _named_sizes(protos, wanted, where)
    missing: list[str] = []
    values: dict[str, Value] = {}
    for proto in protos:
        _check_type(proto, where)
        shape, unknown = _shape(proto, wanted.get(proto.name), sizes, where)
        if unknown:
            missing.append(f"{proto.name} ({', '.join(unknown)})")
            continue
        if min(shape, default=1) < 1 or prod(shape) > FOLD_LIMIT:
            raise InputError(f"has shape {shape}, expected 1 to {FOLD_LIMIT} elements",
                             where=f"input {proto.name!r} of {where}", remedy="give it another shape")  # fmt: skip
        values[proto.name] = graph.add_input(Type(shape), proto.name, _noted(proto, ROLE, Role, Role.PLAIN))
    if missing:
        raise InputError(f"the shapes of these inputs are not fixed: {'; '.join(missing)}", where=where,
                         remedy="pass input_shapes={name: shape}")  # fmt: skip
    return values


def read_tensor(proto: Any, where: str) -> Array:
    """The array of a TensorProto. Raises ModelFileError where its parts do not agree."""
    from onnx import numpy_helper

    try:
        return np.asarray(numpy_helper.to_array(proto))
    except Exception as error:  # it trusts the file, so anything may go wrong
        raise ModelFileError(f"initializer {proto.name!r} cannot be read: {error}", where=where,
                             remedy="export the model again") from None  # fmt: skip


def add_states(model: Any, graph: Graph, where: str) -> tuple[dict[str, Value], dict[str, State]]:
    """Add the states of an exported graph: inputs with a default value and a note. By input and by output name."""
    initial = {t.name: t for t in model.graph.initializer}
    outputs = {o.name for o in model.graph.output}
    values: dict[str, Value] = {}
    following: dict[str, State] = {}
    for proto in model.graph.input:
        after = note(proto, STATE)
        if after is not None and after in outputs - set(following) and proto.name in initial:
            kind = _noted(proto, STATE_KIND, StateKind, StateKind.STREAM)
            state = graph.add_state(read_tensor(initial[proto.name], where), proto.name, kind)
            values[proto.name], following[after] = state.value, state
    return values, following


def note(proto: Any, key: str) -> str | None:
    """What an exported input says of itself under a key."""
    return next((str(p.value) for p in proto.metadata_props if p.key == key), None)


def _noted(proto: Any, key: str, kind: type[_Member], default: _Member) -> _Member:
    found = note(proto, key)
    return next((member for member in kind if member.value == found), default)


def _check_type(proto: Any, where: str) -> None:
    from onnx import TensorProto as T

    kind = proto.type.WhichOneof("value")
    good = (T.FLOAT, T.DOUBLE, T.FLOAT16, T.BFLOAT16, T.BOOL)
    if kind != "tensor_type" or proto.type.tensor_type.elem_type not in good:
        number = proto.type.tensor_type.elem_type
        known = T.DataType.Name(number) if number in T.DataType.values() else str(number)
        name = known if kind == "tensor_type" else kind
        raise InputError(f"has the type {name}, expected a tensor of floats or booleans",
                         where=f"input {proto.name!r} of {where}",
                         remedy="convert it outside of the model, or make it a constant")  # fmt: skip


def _by_name(protos: Sequence[Any], shapes: InputShapes | None, where: str) -> dict[str, tuple[int, ...]]:
    if shapes is None:
        return {}
    names = [p.name for p in protos]
    if not isinstance(shapes, Mapping):
        if len(shapes) != len(names):
            raise InputError(f"{len(shapes)} input_shapes are given for {len(names)} inputs", where=where,
                             remedy=f"give one for each of {', '.join(names)}")  # fmt: skip
        shapes = dict(zip(names, shapes, strict=True))
    unknown = sorted(set(shapes) - set(names))
    if unknown:
        raise InputError(f"input_shapes names {', '.join(unknown)}, which are no inputs", where=where,
                         remedy=f"the inputs are {', '.join(names)}")  # fmt: skip
    return {name: tuple(int(d) for d in shape) for name, shape in shapes.items()}


def _dims(proto: Any) -> list[int | str] | None:
    """An input's axes: a size, or the name of a symbolic one ("?" without a name); None for an unknown rank."""
    tensor = proto.type.tensor_type
    if not tensor.HasField("shape"):
        return None
    return [int(d.dim_value) if d.HasField("dim_value") else d.dim_param or "?" for d in tensor.shape.dim]


def _named_sizes(protos: Sequence[Any], wanted: Mapping[str, tuple[int, ...]], where: str) -> dict[str, int]:
    """The sizes of symbolic axes that the given shapes settle. One name stands for one size."""
    sizes: dict[str, int] = {}
    for proto in protos:
        for dim, size in zip(_dims(proto) or [], wanted.get(proto.name, ()), strict=False):
            if isinstance(dim, str) and dim != "?" and sizes.setdefault(dim, size) != size:
                raise InputError(f"axis {dim!r} is {size} here and {sizes[dim]} in another input",
                                 where=f"input {proto.name!r} of {where}", remedy="give it one size")  # fmt: skip
    return sizes


def _shape(
    proto: Any, given: tuple[int, ...] | None, sizes: Mapping[str, int], where: str
) -> tuple[tuple[int, ...], list[str]]:
    """An input's shape, and a description of every axis that is not settled."""
    dims = _dims(proto)
    if given is None:
        if dims is None:
            return (), ["of unknown rank"]
        open_axes = [f"axis {i}: {d}" for i, d in enumerate(dims) if isinstance(d, str) and d not in sizes]
        return tuple(sizes.get(d, 0) if isinstance(d, str) else d for d in dims), open_axes
    fits = dims is None or (
        len(dims) == len(given)
        and all(isinstance(d, str) or d == g for d, g in zip(dims, given, strict=True))
    )
    if not fits or min(given, default=1) < 1:
        what = f"input_shapes gives {given} and the model has {dims}"
        raise InputError(
            what, where=f"input {proto.name!r} of {where}", remedy="keep its rank and its fixed axes"
        )
    return given, []
