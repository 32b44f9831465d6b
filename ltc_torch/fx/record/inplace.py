"""In-place operations, recorded as functional ones.

Tensors that share a storage are views of one another: a write through one of them changes all. The first write to a
storage fixes a base, the tensor that the others were cut from; from then on the base's node is the value of the
storage. A write to a part makes a new base node, and a tensor that was bound before that write is cut anew from the
base when it is next read. views.py says where in the base a part lies.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, fx
from torch.nn import functional as F
from torch.utils import _pytree as pytree

from ltc_torch.fx.record.calls import target_of, words
from ltc_torch.fx.record.sources import refuse
from ltc_torch.fx.record.views import Place, place, place_of, read_region, write_region

if TYPE_CHECKING:
    from ltc_torch.fx.record.record import Recorder

# Writes that change a tensor's shape or storage, for which no functional form is recorded.
_RESHAPING = words(
    "unsqueeze_ squeeze_ transpose_ t_ resize_ resize_as_ set_ swapaxes_ swapdims_ as_strided_"
)

# Functions whose result is boolean; in place they give numbers of the written tensor's dtype.
_TESTS = words(
    """
    gt_ ge_ lt_ le_ eq_ ne_ greater_ greater_equal_ less_ less_equal_ not_equal_
    logical_and_ logical_or_ logical_xor_ logical_not_
    """
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


def _covers_storage(tensor: Tensor) -> bool:
    return tensor.numel() * tensor.element_size() == tensor.untyped_storage().nbytes()


def is_write(name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    """Whether a call changes its first argument."""
    if name == "__setitem__" or kwargs.get("inplace") is True:
        return True
    at = _inplace_flags().get(name)
    if at is not None and len(args) > at:
        return args[at] is True
    if name.startswith("__"):
        return name in _DUNDERS
    return name.endswith("_") and name not in ("detach_", "requires_grad_", "share_memory_")


@cache
def _inplace_flags() -> dict[str, int]:
    """The functions of torch.nn.functional with a flag for writing in place, and the flag's position."""
    functions = {name: getattr(f, "__code__", None) for name, f in vars(F).items()}
    arguments = {name: code.co_varnames[: code.co_argcount] for name, code in functions.items() if code}
    return {name: given.index("inplace") for name, given in arguments.items() if "inplace" in given}


_DUNDERS: dict[str, Callable[..., Tensor]] = {
    "__iadd__": torch.add,
    "__isub__": torch.sub,
    "__imul__": torch.mul,
    "__itruediv__": torch.div,
    "__idiv__": torch.div,
    "__ipow__": torch.pow,
    "__iand__": torch.bitwise_and,
    "__ior__": torch.bitwise_or,
    "__ixor__": torch.bitwise_xor,
    "__ifloordiv__": torch.floor_divide,
    "__imod__": torch.remainder,
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


def _assignment(name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, ...] | None:
    """The arguments of `target[index] = value` for a method that does the same; None for any other."""
    if name in ("index_fill_", "index_copy_") and len(args) == 4:
        target, axis, index, value = args
        return target, (*[slice(None)] * (axis % target.dim()), index), value
    if name == "index_put_" and len(args) == 3 and not kwargs.get("accumulate", False):
        return args[0], tuple(args[1]), args[2]
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
        node = self._read(self._place(tensor, written.base), written.node, tensor)
        self._recorder.annotate(node, tensor)
        self._recorder.bind(tensor, node)
        return node

    def call(self, func: Callable[..., Any], name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Run a function that changes its first argument, and record what it changes."""
        if (same := _assignment(name, args, kwargs)) is not None:
            self.call(Tensor.__setitem__, "__setitem__", same, {})
            return args[0]
        target: Tensor = args[0]
        recorder = self._recorder
        self._check_owner(name, target)
        if target.numel() == 0:
            return func(*args, **kwargs)
        written = self.of(target)
        if written is None:
            base = self._base_of(target)
            written = self._written[storage_key(target)] = Written(base, recorder.node(base))
        if name == "__setitem__":
            part, where, node = self._set_item(target, args[1], args[2], written.base)
        else:
            part, where = target, self._place(target, written.base)
            node = self._functional_node(func, name, args, kwargs)
        if node is None:  # nothing is written
            return func(*args, **kwargs)
        recorder.annotate(node, part)
        out = func(*args, **kwargs)
        written.node = self._written_node(where, written, node)
        written.version += 1
        if storage_key(part) == storage_key(target):
            recorder.bind(part, node)
        return out

    def _read(self, where: Place, base: fx.Node, part: Tensor) -> fx.Node:
        if where.region is None:
            flat = self._new(torch.reshape, (base, (-1,)), part.new_empty(where.base).reshape(-1))
            numbers = self._recorder.constant(torch.from_numpy(where.numbers))
            return self._recorder.graph.call_function(operator.getitem, (flat, numbers))
        like = part.new_empty(where.ordered)
        node = self._new(read_region, (base, where.region, where.ordered), like)
        if not where.plain:
            back = [where.axes.index(a) for a in range(len(where.axes))]
            node = self._new(torch.permute, (node, tuple(back)), like.permute(back))
        return self._new(torch.broadcast_to, (node, tuple(part.shape)), part) if where.repeated else node

    def _written_node(self, where: Place, written: Written, value: fx.Node) -> fx.Node:
        """The base with a part replaced, the value being in the part's shape."""
        base, shape = written.base, where.numbers.shape
        if where.region is None:
            source = np.zeros(base.numel(), np.int64)
            source[where.numbers.reshape(-1)] = np.arange(where.numbers.size)
            new = np.zeros(base.numel(), bool)
            new[where.numbers.reshape(-1)] = True
            flat = self._new(torch.reshape, (value, (-1,)), base.new_empty(shape).reshape(-1))
            constant = self._recorder.constant
            spread = self._new(operator.getitem, (flat, constant(torch.from_numpy(source))), base.reshape(-1))
            spread = self._new(torch.reshape, (spread, where.base), base)
            mask = constant(torch.from_numpy(new.reshape(where.base)))
            return self._new(torch.where, (mask, spread, written.node), base)
        if not where.plain:
            value = self._new(torch.permute, (value, where.axes), base.new_empty(shape).permute(where.axes))
        if not where.whole:
            return self._new(write_region, (written.node, where.region, value), base)
        same = where.ordered == where.base
        return value if same else self._new(torch.reshape, (value, where.base), base)

    def _new(self, target: Callable[..., Any] | str, args: tuple[Any, ...], like: Tensor) -> fx.Node:
        op = "call_method" if isinstance(target, str) else "call_function"
        node = self._recorder.graph.create_node(op, target, args)
        self._recorder.annotate(node, like)
        return node

    def _base_of(self, target: Tensor) -> Tensor:
        """The tensor that all others of the storage are cut from: torch's, the largest that was recorded where torch
        has lost it (by detach, or in a product that it reshaped itself), or the storage as one row."""
        base = base_of(target)
        covers = _covers_storage(base)
        if covers and self._recorder.depends(base):
            return base
        recorded = self._recorder.sharing(target)
        if covers or recorded:
            return max(recorded, key=Tensor.numel, default=base)
        count = base.untyped_storage().nbytes() // base.element_size()
        return torch.as_strided(base.detach(), (count,), (1,), 0)

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

    def _place(self, tensor: Tensor, base: Tensor) -> Place:
        if tensor.is_complex() != base.is_complex():
            reason = "an in-place write into the real or imaginary part of a complex tensor"
            remedy = "build the parts by themselves, and torch.complex(re, im) from them"
            raise refuse("in-place write", self._recorder.session.module, reason, remedy)
        where = place_of(tensor, base)
        if where is None:
            reason = "an in-place write through a part that torch no longer knows as one (detach)"
            remedy = "build the result with torch.cat or torch.where"
            raise refuse("in-place write", self._recorder.session.module, reason, remedy)
        return where

    def _functional_node(
        self, func: Callable[..., Any], name: str, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> fx.Node:
        target, recorder = args[0], self._recorder
        if name in ("copy_", "fill_", "zero_"):
            return self._broadcast(args[1] if name != "zero_" else 0.0, target)
        pure = functional(func, name)
        if pure is None:
            reason, remedy = "changes a tensor's shape in place", f"use {name[:-1]}"
            if name not in _RESHAPING:
                reason, remedy = "writes in place, and has no form that does not", "torch.where with a mask"
            raise refuse(name, recorder.session.module, reason, remedy)
        dtypes = {a.dtype for a in args[1:] if isinstance(a, Tensor)} - {torch.bool, target.dtype}
        args = tuple(a for a in args if a is not True) if pure is func else args
        kwargs = {k: v for k, v in kwargs.items() if k not in ("inplace", "generator")}
        op, shown = target_of(pure)
        node = recorder.graph.create_node(op, shown, recorder.argument(args), recorder.argument(kwargs))
        if name not in _TESTS and not dtypes:
            return node
        recorder.annotate(node, target)
        node.meta["dtype"] = torch.bool if name in _TESTS else node.meta["dtype"]
        return recorder.graph.call_method("to", (node, target.dtype))

    def _set_item(
        self, target: Tensor, index: Any, value: Any, base: Tensor
    ) -> tuple[Tensor, Place, fx.Node | None]:
        """The written part of `target`, where it lies, and the node of its new value; no node for no elements."""
        mask = index[0] if isinstance(index, tuple) and len(index) == 1 else index
        if isinstance(mask, Tensor) and mask.dtype == torch.bool and self._recorder.depends(mask):
            return target, self._place(target, base), self._masked(target, mask, value)
        if any(self._recorder.depends(t) for t in pytree.tree_leaves(index) if isinstance(t, Tensor)):
            reason = "assignment to positions that depend on the input"
            raise refuse("__setitem__", self._recorder.session.module, reason, "torch.where with a mask")
        part = target[index]
        if storage_key(part) == storage_key(target):
            where = self._place(part, base)
        else:  # positions of a list, a tensor or a constant mask
            own = self._place(target, base).numbers.reshape(-1)
            chosen = torch.arange(target.numel()).reshape(target.shape)[index]
            where = place(own[chosen.numpy()], tuple(base.shape))
            if len(np.unique(where.numbers)) < where.numbers.size:
                reason, remedy = "assignment to a position that the index names twice", "name each once"
                raise refuse("__setitem__", self._recorder.session.module, reason, remedy)
        return part, where, self._broadcast(value, part) if part.numel() else None

    def _masked(self, target: Tensor, mask: Tensor, value: Any) -> fx.Node:
        """`target` where a mask that depends on the input is false; the mask has its first axes."""
        recorder = self._recorder
        deeper = target.dim() - mask.dim()
        if isinstance(value, Tensor) and value.numel() > 1 and value.dim() > deeper:
            reason = "assignment of as many elements as a mask that depends on the input has"
            raise refuse("__setitem__", recorder.session.module, reason, "torch.where(mask, a, b)")
        condition = recorder.node(mask)
        if deeper:
            shape = (*mask.shape, *[1] * deeper)
            condition = self._new(torch.reshape, (condition, shape), mask.reshape(shape))
        if not isinstance(value, Tensor):
            return recorder.graph.call_function(torch.where, (condition, float(value), recorder.node(target)))
        filler = self._broadcast(value, target)
        recorder.annotate(filler, target)
        return recorder.graph.call_function(torch.where, (condition, filler, recorder.node(target)))

    def _broadcast(self, value: Any, like: Tensor) -> fx.Node:
        """A written value in the shape and the dtype of what it is written to."""
        recorder, shape = self._recorder, tuple(like.shape)
        if not isinstance(value, Tensor):
            return recorder.constant(torch.full(shape, value, dtype=like.dtype))
        node, given = recorder.node(value), tuple(value.shape)
        if len(given) > len(shape):  # an assignment drops leading axes of one element
            given = given[len(given) - len(shape) :]
            node = self._new(torch.reshape, (node, given), value.reshape(given))
        if value.dtype != like.dtype:
            node = self._new("to", (node, like.dtype), value.to(like.dtype))
        return node if given == shape else recorder.graph.call_function(torch.broadcast_to, (node, shape))
