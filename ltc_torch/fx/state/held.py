"""What the modules of a model hold: tensors and plain values, by the path at which Python finds them.

Parameters, buffers and attributes, and what stands in dicts, lists, tuples, deques, dataclasses and simple objects that
an attribute holds: `encoder.h`, `cell.buffers[0]`, `cache.k`. A path is a tuple of keys, an attribute's name or an
index, from the model on.
"""

from __future__ import annotations

import enum
import pickle
import sys
import types
from collections import deque
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from torch import Tensor, nn

Path = tuple[Any, ...]
Plain = bool | int | float | str | np.generic | None

_INTERNAL = frozenset(vars(nn.Module()))  # torch's own attributes of every module
_CODE = (type, enum.Enum, types.FunctionType, types.MethodType, types.ModuleType)
_FOREIGN = (sys.stdlib_module_names | {"torch", "numpy"}) - {"__main__", "collections", "types"}


@dataclass
class Held:
    """The tensors, plain values and NumPy arrays of a model. iterators: where those of Python stand, pickled."""

    tensors: dict[Path, Tensor] = field(default_factory=dict)
    plain: dict[Path, Plain] = field(default_factory=dict)
    arrays: dict[Path, np.ndarray[Any, Any]] = field(default_factory=dict)
    iterators: dict[Path, bytes] = field(default_factory=dict)


def held(model: nn.Module) -> Held:
    """Everything that the modules hold now. A container that is held twice is found at its first place."""
    found = Held()
    seen = {id(m) for m in model.modules()}
    for prefix, module in model.named_modules():
        path: Path = tuple(prefix.split(".")) if prefix else ()
        for key, child in _children(module):
            _walk(child, (*path, key), seen, found)
    return found


def _walk(item: Any, path: Path, seen: set[int], found: Held) -> None:
    if isinstance(item, Tensor):
        found.tensors[path] = item
    elif item is None or isinstance(item, (bool, int, float, str, np.generic)):
        found.plain[path] = item
    elif isinstance(item, np.ndarray):
        found.arrays[path] = item
    elif id(item) not in seen and _is_container(item):
        seen.add(id(item))
        for key, child in _children(item):
            _walk(child, (*path, key), seen, found)
    elif isinstance(item, Iterator):
        with suppress(TypeError, AttributeError, pickle.PickleError):
            found.iterators[path] = pickle.dumps(item)


def _is_container(item: Any) -> bool:
    if isinstance(item, (nn.Module, dict, list, tuple, deque)):
        return True
    foreign = type(item).__module__.partition(".")[0] in _FOREIGN
    return not (foreign or isinstance(item, _CODE)) and (hasattr(item, "__dict__") or bool(_slots(item)))


def _slots(item: Any) -> list[str]:
    names = (getattr(cls, "__slots__", ()) for cls in type(item).__mro__)
    listed = [name for given in names for name in ((given,) if isinstance(given, str) else given)]
    return [name for name in listed if hasattr(item, name)]


def _children(item: Any) -> Iterator[tuple[Any, Any]]:
    if isinstance(item, nn.Module):
        own = {k: v for k, v in vars(item).items() if k not in _INTERNAL}
        yield from [*item._parameters.items(), *item._buffers.items(), *own.items()]
        yield from item._modules.items()
    elif isinstance(item, dict):
        yield from item.items()
    elif isinstance(item, tuple) and hasattr(item, "_fields"):
        yield from zip(item._fields, item, strict=True)
    elif isinstance(item, (list, tuple, deque)):
        yield from enumerate(item)
    else:
        yield from getattr(item, "__dict__", {}).items()
        yield from ((name, getattr(item, name)) for name in _slots(item) if not name.startswith("__"))


def child(item: Any, key: Any) -> Any:
    """What stands under a key; raises KeyError, IndexError or AttributeError where nothing does."""
    if isinstance(item, dict) or (isinstance(item, (list, tuple, deque)) and isinstance(key, int)):
        return item[key]
    return getattr(item, key)


def put(item: Any, path: Path, value: Any) -> Any:
    """`item` with `value` at `path`: changed in place, or made anew where it is a tuple."""
    if not path:
        return value
    key, *rest = path
    new = put(child(item, key), tuple(rest), value)
    if isinstance(item, tuple):
        if hasattr(item, "_fields"):
            return item._replace(**{key: new})  # type: ignore[attr-defined]
        return type(item)(new if i == key else x for i, x in enumerate(item))
    if isinstance(item, nn.Module):
        tables = (item._parameters, item._buffers, item._modules, vars(item))
        next(table for table in tables if key in table)[key] = new
    elif isinstance(item, (dict, list, deque)):
        item[key] = new
    else:
        object.__setattr__(item, key, new)  # a frozen dataclass, too
    return item


def spelled(path: Path) -> str:
    """A path as Python would write it, short where a dict's key is a word: `encoder.h`, `hx[0]`, `cache.k`."""
    text = ""
    for key in path:
        if isinstance(key, str) and (key.isidentifier() or key.isdecimal()):
            text += f".{key}"
        else:
            text += f"[{key!r}]"
    return text.removeprefix(".")
