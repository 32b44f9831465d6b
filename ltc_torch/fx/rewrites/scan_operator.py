"""torch's own scan operator (torch._higher_order_ops.scan, a prototype there) as a scan of ours."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor
from torch.utils import _pytree as pytree

from ltc_torch.fx.record.active import current
from ltc_torch.fx.record.catch import Function, caught
from ltc_torch.fx.record.eager import compiling
from ltc_torch.fx.record.structured import scan


@caught("torch._higher_order_ops.scan", "scan")
def _dispatch(original: Function) -> Function:
    def dispatch(combine_fn: Function, init: Any, xs: Any, *, dim: int = 0, reverse: bool = False) -> Any:
        if current() is None:
            with compiling():  # it knows no other way
                return original(combine_fn, init, xs, dim=dim, reverse=reverse)
        return _scan(combine_fn, init, xs, dim, reverse)

    return dispatch


def _scan(combine: Callable[[Any, Any], tuple[Any, Any]], init: Any, xs: Any, dim: int, reverse: bool) -> Any:
    """`combine(carry, slice)` returns (carry, output); the carries come first in the result, too."""
    carries, init_spec = pytree.tree_flatten(init)
    leaves, xs_spec = pytree.tree_flatten(xs)
    if not leaves:
        return init, []
    out_spec = None

    def step(states: list[Tensor], slices: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        nonlocal out_spec
        new, y = combine(pytree.tree_unflatten(states, init_spec), pytree.tree_unflatten(slices, xs_spec))
        outputs, out_spec = pytree.tree_flatten(y)
        return pytree.tree_leaves(new), outputs

    if reverse:
        leaves = [x.flip(dim) for x in leaves]
    axes = [dim] * len(leaves)
    final, stacked = scan(step, carries, leaves, length=leaves[0].shape[dim], in_axes=axes, out_axes=dim)
    if reverse:
        stacked = [y.flip(dim) for y in stacked]
    assert out_spec is not None
    return pytree.tree_unflatten(final, init_spec), pytree.tree_unflatten(stacked, out_spec)
