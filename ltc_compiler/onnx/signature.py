"""The inputs of an ONNX model: which are constants, which are states, and the shape of each of the rest.

Wrong or missing shapes and constants raise InputError.
"""

from __future__ import annotations

import re
from collections.abc import Container, Mapping, Sequence
from enum import Enum
from math import prod
from typing import Any, TypeVar

import numpy as np

from ltc_compiler.errors import InputError, ModelFileError
from ltc_compiler.frontend.compose import FOLD_LIMIT
from ltc_compiler.ir.graph import Array, Graph, Role, State, StateKind, Type, Value
from ltc_compiler.onnx.load import LIMIT, ROLE, STATE, STATE_KIND, note, read_tensor

InputShapes = Mapping[str, Sequence[int]] | Sequence[Sequence[int]]
Constants = Mapping[str, Any]
_Member = TypeVar("_Member", bound=Enum)


def read_constants(model: Any, constants: Constants | None, where: str) -> dict[str, Array]:
    """The values that inputs are fixed to, by name, in the types of the model.

    Raises InputError for a name that is no input, and for a value of another shape or type.
    """
    protos = {i.name: i for i in model.graph.input}
    unknown = sorted(set(constants or {}) - set(protos))
    if unknown:
        raise InputError(f"constants names {', '.join(unknown)}, which are no inputs", where=where,
                         remedy=f"the inputs are {', '.join(protos)}")  # fmt: skip
    return {name: _constant(protos[name], value, where) for name, value in (constants or {}).items()}


def _constant(proto: Any, value: Any, where: str) -> Array:
    """A value in the type of an input; one number stands for an input of one element."""
    from onnx import helper

    place = f"input {proto.name!r} of {where}"
    try:
        kind = np.dtype(helper.tensor_dtype_to_np_dtype(proto.type.tensor_type.elem_type))
        given = np.asarray(value)
        with np.errstate(all="ignore"):
            array = given.astype(kind)
            kept = given.dtype.kind in "biuf" and (
                kind.kind not in "biu" or np.array_equal(array.astype(given.dtype), given)
            )
    except (KeyError, OverflowError, TypeError, ValueError):
        kept = False
    if not kept:
        number = proto.type.tensor_type.elem_type
        raise InputError(f"constants gives {value!r}, expected values of the type {_type_name(number)}", where=place,
                         remedy="give a number, or an array, of that type")  # fmt: skip
    dims = _dims(proto)
    if dims is not None and array.ndim == 0 and all(isinstance(d, str) or d == 1 for d in dims):
        array = array.reshape([1] * len(dims))
    if not _fits(dims, array.shape):
        raise InputError(f"constants gives the shape {array.shape} and the model has {dims}", where=place,
                         remedy="give a value of the input's shape")  # fmt: skip
    return array


def add_inputs(
    model: Any, graph: Graph, shapes: InputShapes | None, constants: Mapping[str, Array], where: str
) -> dict[str, Value]:
    """Add the model's inputs to a graph, and return them by name. Inputs with a default value are constants.

    Raises InputError for shapes that are missing or do not fit.
    """
    fixed = {t.name for t in model.graph.initializer} | set(constants)
    protos = [i for i in model.graph.input if i.name not in fixed]
    wanted = _by_name(protos, shapes, where)
    known = wanted | {name: array.shape for name, array in constants.items()}
    sizes = _named_sizes(model.graph.input, known, where)
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


def add_states(
    model: Any, graph: Graph, constants: Container[str], where: str
) -> tuple[dict[str, Value], dict[str, State]]:
    """Add the states of an exported graph: inputs with a default value and a note. By input and by output name.

    Raises ModelFileError for a limit of steps that is none.
    """
    initial = {t.name: t for t in model.graph.initializer if t.name not in constants}
    outputs = {o.name for o in model.graph.output}
    values: dict[str, Value] = {}
    following: dict[str, State] = {}
    for proto in model.graph.input:
        after = note(proto, STATE)
        if after is not None and after in outputs - set(following) and proto.name in initial:
            kind = _noted(proto, STATE_KIND, StateKind, StateKind.STREAM)
            state = graph.add_state(read_tensor(initial[proto.name], where), proto.name, kind)
            values[proto.name], following[after] = state.value, state
            limit = note(proto, LIMIT)
            if limit is not None:
                graph.step_counter, graph.step_limit = state.name, _steps(limit, state, where)
    return values, following


def _steps(limit: str, state: State, where: str) -> int:
    if state.value.shape or not re.fullmatch("[1-9][0-9]{0,8}", limit):
        raise ModelFileError(f"its {LIMIT} is {limit!r}, expected a number of steps at a state of shape ()",
                             where=f"input {state.name!r} of {where}", remedy="export the model again")  # fmt: skip
    return int(limit)


def _noted(proto: Any, key: str, kind: type[_Member], default: _Member) -> _Member:
    found = note(proto, key)
    return kind(found) if found in {member.value for member in kind} else default


def _check_type(proto: Any, where: str) -> None:
    from onnx import TensorProto as T

    kind = proto.type.WhichOneof("value")
    good = (T.FLOAT, T.DOUBLE, T.FLOAT16, T.BFLOAT16, T.BOOL)
    if kind != "tensor_type" or proto.type.tensor_type.elem_type not in good:
        name = _type_name(proto.type.tensor_type.elem_type) if kind == "tensor_type" else kind
        remedy = f"fix it with constants={{{proto.name!r}: value}}, or convert it outside of the model"
        raise InputError(f"has the type {name}, expected a tensor of floats or booleans",
                         where=f"input {proto.name!r} of {where}", remedy=remedy)  # fmt: skip


def _type_name(number: int) -> str:
    from onnx import TensorProto as T

    return T.DataType.Name(number) if number in T.DataType.values() else str(number)


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
    if not _fits(dims, given) or min(given, default=1) < 1:
        what = f"input_shapes gives {given} and the model has {dims}"
        raise InputError(
            what, where=f"input {proto.name!r} of {where}", remedy="keep its rank and its fixed axes"
        )
    return given, []


def _fits(dims: Sequence[int | str] | None, shape: Sequence[int]) -> bool:
    """Whether an input of these axes may have a shape."""
    if dims is None:
        return True
    return len(dims) == len(shape) and all(
        isinstance(d, str) or d == size for d, size in zip(dims, shape, strict=True)
    )
