"""Other inputs to try a recording on: what was taken from the example's values, its signs or its order shows there.

Scaling keeps signs, zeros and order, so that times and masks remain valid; negation and shuffling change signs and
order; drawn values replace what is the same in all of these, such as an example of zeros. Inputs that are nowhere
negative stay so in the drawn ones. A model may reject a probe, or give no finite numbers for it: it proves nothing
then.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree


def scaled(tree: Any) -> Any:
    """Inputs a little smaller than the example's."""
    return _each(lambda t: t * 0.9375, tree)


def others(tree: Any) -> Iterator[Any]:
    """Inputs unlike the example's in signs and order. They are the same at every call, and draw no random state."""
    yield _each(torch.neg, tree)
    generator = torch.Generator().manual_seed(0)
    yield _each(lambda t: t.flatten()[torch.randperm(t.numel(), generator=generator)].view(t.shape), tree)
    yield _each(lambda t: _drawn(t, generator), tree)


def _each(change: Callable[[Tensor], Tensor], tree: Any) -> Any:
    return pytree.tree_map(lambda t: change(t.detach()) if isinstance(t, Tensor) else t, tree)


def _drawn(t: Tensor, generator: torch.Generator) -> Tensor:
    """Numbers of the example's mean and spread, or of its size where it has no spread."""
    wide = t.double()
    spread = float(wide.std()) if t.numel() > 1 else 0.0
    mean = float(wide.mean()) if t.numel() else 0.0
    values = mean + (spread or abs(mean) or 1.0) * torch.randn(t.shape, generator=generator, dtype=wide.dtype)
    positive = t.numel() > 0 and bool((t >= 0).all()) and bool((t > 0).any())
    return (values.abs() if positive else values).to(t.dtype)
