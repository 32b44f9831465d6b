"""In-place operations, recorded as functional ones.

Tensors that share a storage are views of one another: a write through one of them changes all. The first write to a
storage fixes a base, the tensor that the others were cut from; from then on the base's node is the value of the
storage. A write to a part makes a new base node, and a tensor that was bound before that write is cut anew from the
base when it is next read. Parts are rectangles (a strided slice on each axis of the base); others are refused.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, fx
from torch.nn import functional as F

from .calls import target_of, words
from .sources import refuse

if TYPE_CHECKING:
    from .record import Recorder

Region = tuple[slice, ...]

# Writes that change a tensor's shape or storage, for which no functional form is recorded.
_RESHAPING = words(
    "unsqueeze_ squeeze_ transpose_ t_ resize_ resize_as_ set_ swapaxes_ swapdims_ as_strided_ detach_"
)


@dataclass
class Written:
    """A storage that was written to: the base tensor, the node of its present value, and how often it was written."""

    base: Tensor
    node: fx.Node
    version: int = 0


def storage_key(tensor: Tensor) -> int:
    """Equal for tensors that share memory, for as long as one of them lives."""
    with torch._C.DisableTorchFunction():  # which a recording would take for the model's
        return tensor.untyped_storage()._cdata


def memory(tensor: Tensor) -> int:
    """Where a tensor's storage lies: equal also where two storages are one memory. 0 for none."""
    with torch._C.DisableTorchFunction():
        return tensor.untyped_storage().data_ptr()


def base_of(tensor: Tensor) -> Tensor:
    return tensor if tensor._base is None else tensor._base


def _positions(tensor: Tensor) -> np.ndarray[Any, np.dtype[np.int64]]:
    """The storage position of every element, in the tensor's shape."""
    found = np.full(tuple(tensor.shape), tensor.storage_offset(), dtype=np.int64)
    for axis, (size, stride) in enumerate(zip(tensor.shape, tensor.stride(), strict=True)):
        shape = [1] * tensor.dim()
        shape[axis] = size
        found += (np.arange(size) * stride).reshape(shape)
    return found


def locate(part: Tensor, base: Tensor) -> Region | None:
    """The rectangle of `base` whose elements, in order, are those of `part`; None if there is no such rectangle."""
    ours, theirs = _positions(part), _positions(base)
    inside = np.isin(theirs, ours)
    region = []
    for axis in range(inside.ndim):
        others = tuple(a for a in range(inside.ndim) if a != axis)
        (hits,) = np.nonzero(inside.any(others))
        if hits.size == 0:
            return None
        steps = np.diff(hits)
        step = int(steps[0]) if steps.size else 1
        if (steps != step).any():
            return None
        region.append(slice(int(hits[0]), int(hits[-1]) + 1, step))
    found = theirs[tuple(region)]
    if found.size != ours.size or not np.array_equal(found.reshape(ours.shape), ours):
        return None
    return tuple(region)


def read_region(base: Tensor, region: Region, shape: tuple[int, ...]) -> Tensor:
    """The part of `base` in `region`, in the given shape."""
    return base[region].reshape(shape)


def write_region(base: Tensor, region: Region, value: Tensor) -> Tensor:
    """`base` with `region` replaced by the elements of `value`, in order."""
    result = base.clone()
    result[region] = value.reshape(result[region].shape).to(result.dtype)
    return result


def is_write(name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    """Whether a call changes its first argument."""
    if name == "__setitem__" or kwargs.get("inplace") is True:
        return True
    if name in (
        "relu",
        "silu",
        "hardswish",
        "hardsigmoid",
        "relu6",
        "selu",
        "mish",
        "elu",
        "celu",
        "leaky_relu",
    ):
        return len(args) > 1 and args[-1] is True
    if name.startswith("__"):
        return name in _DUNDERS
    return name.endswith("_")


_DUNDERS: dict[str, Callable[..., Tensor]] = {
    "__iadd__": torch.add,
    "__isub__": torch.sub,
    "__imul__": torch.mul,
    "__itruediv__": torch.div,
    "__idiv__": torch.div,
    "__ipow__": torch.pow,
    "__iand__": torch.bitwise_and,
    "__ior__": torch.bitwise_or,
}


def functional(func: Callable[..., Any], name: str) -> Callable[..., Any] | None:
    """The function that returns what `func` writes; None if there is none."""
    if name in _DUNDERS:
        return _DUNDERS[name]
    if name in _RESHAPING:
        return None
    if not name.endswith("_") or name.startswith("__"):
        return func  # F.relu(x, inplace=True): the same function without the flag
    for space in (torch.Tensor, torch, F):
        if hasattr(space, name[:-1]):
            found: Callable[..., Any] = getattr(space, name[:-1])
            return found
    return None


class Writes:
    """The in-place operations of one recording."""

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder
        self._written: dict[int, Written] = {}  # by storage

    def of(self, tensor: Tensor) -> Written | None:
        """The storage of a tensor, if it was written to."""
        return self._written.get(storage_key(tensor))

    def all(self) -> Iterable[Written]:
        return self._written.values()

    def cut(self, tensor: Tensor, written: Written) -> fx.Node:
        """The present value of a tensor whose storage was written to."""
        region, shape = self._region(tensor, written.base), tuple(tensor.shape)
        node = self._recorder.graph.call_function(read_region, (written.node, region, shape))
        self._recorder.annotate(node, tensor)
        self._recorder.bind(tensor, node)
        return node

    def call(self, func: Callable[..., Any], name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Run a function that changes its first argument, and record what it changes."""
        target: Tensor = args[0]
        recorder = self._recorder
        self._check_owner(name, target)
        written = self.of(target)
        if written is None:
            base = self._base_of(target)
            written = self._written[storage_key(target)] = Written(base, recorder.node(base))
        if name == "__setitem__":
            part, node = self._set_item(target, args[1], args[2])
        else:
            part, node = target, self._functional_node(func, name, args, kwargs)
        recorder.annotate(node, part)
        out = func(*args, **kwargs)
        region = self._region(part, written.base)
        if all(r == slice(0, size, 1) for r, size in zip(region, written.base.shape, strict=True)):
            written.node = node
        else:
            written.node = recorder.graph.call_function(write_region, (written.node, region, node))
            recorder.annotate(written.node, written.base)
        written.version += 1
        recorder.bind(part, node)
        return out

    def _base_of(self, target: Tensor) -> Tensor:
        """The tensor that others are cut from: torch's, or where it was never seen (a product that torch itself
        reshaped) the largest one that was recorded."""
        base, recorder = base_of(target), self._recorder
        if recorder.depends(base):
            return base
        return max(recorder.sharing(target), key=Tensor.numel, default=base)

    def _check_owner(self, name: str, target: Tensor) -> None:
        """A body writes to its own tensors alone."""
        recorder, session = self._recorder, self._recorder.session
        named = id(target) in session.names
        if (
            recorder.parent is not None
            and not recorder.owns(target)
            and (named or recorder.parent.depends(target))
        ):
            reason = "a scan's step (or an ODE function) writes into a tensor from outside of it"
            raise refuse(name, session.module, reason, "return the value as an output or a state of the step")

    def _region(self, tensor: Tensor, base: Tensor) -> Region:
        region = locate(tensor, base)
        if region is None:
            reason = "an in-place write through a view that is no rectangle of the tensor it was cut from"
            remedy = "build the result with torch.cat or torch.where"
            raise refuse("in-place write", self._recorder.session.module, reason, remedy)
        return region

    def _functional_node(
        self, func: Callable[..., Any], name: str, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> fx.Node:
        target, recorder = args[0], self._recorder
        if name in ("copy_", "fill_", "zero_"):
            return self._broadcast(args[1] if name != "zero_" else 0.0, target)
        pure = functional(func, name)
        if pure is None:
            reason = "changes a tensor's shape in place"
            raise refuse(name, recorder.session.module, reason, f"use {name[:-1]}")
        args = tuple(a for a in args if a is not True) if pure is func else args
        kwargs = {k: v for k, v in kwargs.items() if k not in ("inplace", "generator")}
        op, shown = target_of(pure)
        return recorder.graph.create_node(op, shown, recorder.argument(args), recorder.argument(kwargs))

    def _set_item(self, target: Tensor, index: Any, value: Any) -> tuple[Tensor, fx.Node]:
        """The written part of `target` and the node of its new value."""
        recorder = self._recorder
        if isinstance(index, Tensor) and index.dtype == torch.bool and index.shape == target.shape:
            filler = value if isinstance(value, Tensor) else float(value)
            return target, recorder.graph.call_function(
                torch.where, recorder.argument((index, filler, target))
            )
        part = target[index]
        if storage_key(part) != storage_key(target):
            reason = "assignment to positions given by a list or a tensor"
            remedy = "assign slices, or use torch.where with a mask"
            raise refuse("__setitem__", recorder.session.module, reason, remedy)
        return part, self._broadcast(value, part)

    def _broadcast(self, value: Any, like: Tensor) -> fx.Node:
        recorder = self._recorder
        if not isinstance(value, Tensor):
            return recorder.constant(torch.full(tuple(like.shape), value, dtype=like.dtype))
        return recorder.graph.call_function(torch.broadcast_to, (recorder.node(value), tuple(like.shape)))
