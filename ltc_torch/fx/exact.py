"""Constants in double precision.

What does not depend on an input runs eagerly, in the model's own precision. Constants that the user derives from
parameters (softplus of a time constant, the product of two weights) must be folded in fp64 and rounded once, so the
same call runs a second time on fp64 copies, and its result is kept beside the tensor that the model sees.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils import _pytree as pytree


class Exact:
    """The fp64 twins of tensors that were computed from other tensors."""

    def __init__(self) -> None:
        self._twins: dict[int, tuple[Tensor, int, Tensor]] = {}  # id -> (the tensor, its version, the twin)

    def twin(self, tensor: Tensor) -> Tensor:
        """The fp64 value of a tensor: its own, widened, where no better is known."""
        found = self._twins.get(id(tensor))
        if found is not None and found[1] == tensor._version:
            return found[2]
        return tensor.detach().double() if tensor.is_floating_point() else tensor.detach()

    def array(self, tensor: Tensor) -> NDArray[np.float64]:
        return self.twin(tensor).numpy().astype(np.float64)

    def keep(self, tensor: Tensor, wide: Tensor) -> None:
        """Take note of a tensor's fp64 value."""
        self._twins[id(tensor)] = (tensor, tensor._version, wide)

    def call(self, func: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        """Run a function on constants, and on their twins."""
        out = func(*args, **kwargs)
        leaves = pytree.tree_leaves((args, kwargs))
        floats = any(isinstance(a, Tensor) and a.is_floating_point() for a in leaves)
        results = [t for t in pytree.tree_leaves(out) if isinstance(t, Tensor)]
        if not floats or not any(t.is_floating_point() for t in results):
            return out
        if any(t is a for t in results for a in leaves if isinstance(a, Tensor)):
            return out  # an in-place function, or one that returned its argument
        try:
            wide = func(*self._widen(args), **self._widen(kwargs))
        except (RuntimeError, TypeError, ValueError):
            return out  # a function that mixes in a tensor of a fixed precision: the widened result stands
        for t, w in zip(results, (t for t in pytree.tree_leaves(wide) if isinstance(t, Tensor)), strict=True):
            if t.is_floating_point() and w.shape == t.shape:
                self.keep(t, w.detach().double())
        return out

    def _widen(self, tree: Any) -> Any:
        def one(leaf: Any) -> Any:
            if isinstance(leaf, Tensor):
                return self.twin(leaf)
            return torch.float64 if isinstance(leaf, torch.dtype) and leaf.is_floating_point else leaf

        return pytree.tree_map(one, tree)
