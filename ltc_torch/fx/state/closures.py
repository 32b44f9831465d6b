"""Functions that a model holds and that reach back into it: in a copy of the model they must reach the copy.

`self.act = lambda v: torch.tanh(self.gain * v)`, a hook made in __init__, a weak reference to a parent. copy.deepcopy
takes functions and weak references as they are, so that a copy would read and change the model it was made of.
"""

from __future__ import annotations

import functools
import types
import weakref
from typing import Any

from torch import nn

from ltc_torch.fx.state.held import held


class Closures:
    """The functions of one model that reach back. memo: what copy.deepcopy takes, which gets their copies."""

    def __init__(self, model: nn.Module, memo: dict[int, Any]) -> None:
        modules = list(model.modules())
        attributes = [v for m in modules for v in vars(m).values() if isinstance(v, (list, dict, set))]
        inside = {id(x) for x in (*modules, *attributes, *held(model).tensors.values())}
        functions = _functions(modules)
        reaching: dict[int, types.FunctionType] = {}
        while True:
            more = {
                id(f): f
                for f in functions
                if id(f) not in reaching and any(id(x) in inside for x in _reached(f))
            }
            if not more:
                break
            reaching |= more
            inside |= more.keys()
        self._pairs = [(f, _twin(f)) for f in reaching.values()]
        memo.update({id(f): twin for f, twin in self._pairs})

    def bind(self, made: nn.Module, memo: dict[int, Any]) -> None:
        """Let the copies of functions, and the weak references, of `made` reach what deepcopy has made."""
        for function, twin in self._pairs:
            for old, new in zip(function.__closure__ or (), twin.__closure__ or (), strict=True):
                content = _contents(old)
                if content:
                    new.cell_contents = memo.get(id(content[0]), content[0])
            if function.__defaults__:
                twin.__defaults__ = tuple(memo.get(id(x), x) for x in function.__defaults__)
            if function.__kwdefaults__:
                twin.__kwdefaults__ = {k: memo.get(id(x), x) for k, x in function.__kwdefaults__.items()}
        for module in made.modules():
            for name, value in vars(module).items():
                if isinstance(value, weakref.ref) and isinstance(memo.get(id(value())), nn.Module):
                    vars(module)[name] = weakref.ref(memo[id(value())])


def _functions(modules: list[nn.Module]) -> list[types.FunctionType]:
    """The functions in attributes and hooks, in containers and partials of them, and in the closures of functions."""
    found: dict[int, types.FunctionType] = {}
    ahead: list[Any] = [v for m in modules for v in vars(m).values()]
    seen = {id(m) for m in modules}
    while ahead:
        item = ahead.pop()
        if id(item) in seen:
            continue
        seen.add(id(item))
        if isinstance(item, types.FunctionType):
            found[id(item)] = item
            ahead += _reached(item)
        elif isinstance(item, functools.partial):
            ahead += [item.func, *item.args, *item.keywords.values()]
        elif isinstance(item, dict):
            ahead += item.values()
        elif isinstance(item, (list, tuple)):
            ahead += item
    return list(found.values())


def _reached(function: types.FunctionType) -> list[Any]:
    """What a function holds: the contents of its closure, and its defaults."""
    cells = [x for cell in function.__closure__ or () for x in _contents(cell)]
    return [*cells, *(function.__defaults__ or ()), *(function.__kwdefaults__ or {}).values()]


def _contents(cell: types.CellType) -> list[Any]:
    try:
        return [cell.cell_contents]
    except ValueError:  # nothing stands in it yet
        return []


def _twin(function: types.FunctionType) -> types.FunctionType:
    """The same code with a closure of its own, still empty."""
    cells = tuple(types.CellType() for _ in function.__closure__ or ())
    made = types.FunctionType(
        function.__code__, function.__globals__, function.__name__, function.__defaults__, cells
    )
    made.__qualname__, made.__module__ = function.__qualname__, function.__module__
    made.__dict__.update(function.__dict__)
    return made
