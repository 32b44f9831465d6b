"""What a torch function is to the recorder, told by its name: metadata, a read of values, random numbers.

Torch's own namespaces use one name for one meaning, so that a name covers the function, the method and nn.functional's.
What is not torch's, a custom operator or a user's function, goes by its qualified name, which is no name of torch's.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch._ops import OpOverload, OpOverloadPacket


def words(text: str) -> frozenset[str]:
    """A set of names, written as text."""
    return frozenset(text.split())


# The result depends on shapes and types alone: run, not recorded.
METADATA = words(
    """
    size dim numel nelement ndimension is_floating_point is_contiguous stride get_device
    element_size is_complex __len__ __repr__ __format__ __hash__ is_tensor is_pinned _is_view
    storage_offset is_inference is_signed is_same_size is_set_to has_names
    broadcast_shapes result_type can_cast promote_types zeros_like ones_like full_like empty_like
    new_zeros new_ones new_full new_empty new_tensor requires_grad_ retain_grad is_shared
    register_hook backward get_default_dtype is_grad_enabled __dir__ __dlpack_device__
    """
)
EMPTY = frozenset(("empty_like", "new_empty"))  # uninitialised memory: zeros in a recording

# Properties that are values; all others (shape, dtype, device, ...) are metadata.
PROPERTIES = frozenset(("T", "mT", "H", "mH", "real", "imag", "data"))

# The result is, or its shape depends on, the elements' values.
VALUE_READS = words(
    """
    __bool__ item __int__ __float__ __complex__ tolist numpy __index__ __contains__ __array__
    is_nonzero equal allclose nonzero argwhere masked_select unique unique_consecutive bincount
    histc tensor cpu_numpy __cuda_array_interface__ __reduce_ex__ __deepcopy__ nonzero_static
    isclose_all __dlpack__ data_ptr untyped_storage storage _typed_storage
    """
)

# In some forms, the shape of the result depends on values: has_shape_by_value.
SHAPED = words("where one_hot arange repeat_interleave")

# They check a value on the device, and return nothing.
ASSERTS = words("_assert_async _assert_scalar")

# May return their argument itself: nothing to record then.
IDENTITY = words(
    """
    contiguous to float double type type_as detach detach_ dropout reshape expand_as cpu as_tensor
    """
)

# Of their second tensor these take the shape or the type alone.
LIKE = words(
    """
    to type_as expand_as view_as reshape_as
    """
)

# They join a list of tensors, and pass over those without elements.
JOINS = words("cat concat concatenate hstack vstack dstack column_stack row_stack")

_RANDOM = words(
    """
    rand randn randint randperm normal bernoulli multinomial poisson rand_like randn_like
    randint_like normal_ uniform_ bernoulli_ exponential_ cauchy_ log_normal_ geometric_ random_
    rrelu gumbel_softmax
    """
)


# Where torch's own functions live; this package's stand in recorded graphs beside them. Methods in C have no module.
_OWN = ("torch", "ltc_torch", "_operator", "builtins")


def call_name(func: Callable[..., Any]) -> str:
    """A function's name; "" for the getter of a property, and "library.name" for what is not torch's own."""
    if isinstance(func, (OpOverload, OpOverloadPacket)):
        packet = func.overloadpacket if isinstance(func, OpOverload) else func
        space, _, name = packet._qualified_op_name.partition("::")
        return name if space == "aten" else f"{space}.{name}"
    name = getattr(func, "__name__", "")
    module = getattr(func, "__module__", None)
    if isinstance(module, str) and module.partition(".")[0] not in _OWN:
        return f"{module}.{name}"
    return "" if name == "__get__" else name


def target_of(func: Callable[..., Any]) -> tuple[str, Any]:
    """How an fx graph names a function: tensor methods by their name, so that the graph's code reads well."""
    name = call_name(func)
    if name == "__getitem__":
        return "call_function", operator.getitem
    wrapped = (
        getattr(func, "__module__", "") == "torch._tensor"
    )  # some of Tensor's operators are Python functions
    if name and (getattr(Tensor, name, None) is func or (wrapped and hasattr(Tensor, name))):
        return "call_method", name
    return "call_function", func


def without_empty(args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The arguments of one of JOINS without tensors that have no elements."""

    def kept(value: Any) -> Any:
        if not isinstance(value, (list, tuple)):
            return value
        return [t for t in value if not isinstance(t, Tensor) or t.numel()]

    return (kept(args[0]), *args[1:]) if args else args, {k: kept(v) for k, v in kwargs.items()}


def is_random(name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    """Whether a call draws random numbers."""
    if "dropout" in name:
        training = kwargs.get(
            "training", kwargs.get("train", args[2] if len(args) > 2 else name.startswith("dropout"))
        )
        return bool(training)
    if name == "scaled_dot_product_attention":
        return float(kwargs.get("dropout_p", args[4] if len(args) > 4 else 0)) > 0
    return name in _RANDOM


def has_value_index(name: str, args: tuple[Any, ...], depends: Callable[[Tensor], bool]) -> bool:
    """Whether an index or a slice's bound is a tensor that depends on an input."""
    if name not in ("__getitem__", "__setitem__"):
        return False
    parts = args[1] if isinstance(args[1], (tuple, list)) else (args[1],)
    found = []
    for part in parts:
        found += [part.start, part.stop, part.step] if isinstance(part, slice) else [part]
    hits = [p for p in found if isinstance(p, Tensor) and depends(p)]
    if name == "__setitem__" and len(found) == 1 and hits:
        mask = hits[0]  # x[x < 0] = c is torch.where
        return mask.dtype != torch.bool or mask.shape != args[0].shape[: mask.dim()]
    return bool(hits)


def has_shape_by_value(
    name: str, args: tuple[Any, ...], kwargs: dict[str, Any], depends: Callable[[Tensor], bool]
) -> bool:
    """Whether the shape of the result follows from elements that depend on an input, in this form of the call."""
    if name not in SHAPED or not any(isinstance(x, Tensor) and depends(x) for x in (*args, *kwargs.values())):
        return False
    given = [*args, *kwargs.values()]
    if name == "where":
        return len(given) == 1
    if name == "one_hot":
        return (args[1] if len(args) > 1 else kwargs.get("num_classes", -1)) == -1
    counts = given if name == "arange" or len(given) == 1 else given[1:2]
    return any(isinstance(x, Tensor) and depends(x) for x in counts)
