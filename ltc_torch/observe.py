"""What PyTorch computes on the way: the value of every recorded call, with the place in the user's code."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx
from torch.fx.node import Target
from torch.utils import _pytree as pytree

from ltc_compiler.compare import Observed
from ltc_compiler.ir.graph import Source
from ltc_torch.fx.record.structured import run_scan

Seen = dict[tuple[fx.Node, int], list[np.ndarray[Any, Any]]]


def observe(traced: fx.GraphModule, inputs: list[Tensor]) -> list[Observed]:
    """Run a recorded graph and keep the floating-point results of its calls, per iteration for calls in loops."""
    seen: Seen = {}
    with torch.no_grad():
        _Observer(traced, seen).run(
            *(x.clone() for x in inputs)
        )  # a recorded call may write into its operand
    return [
        Observed(node.meta.get("source", Source()), np.stack(results)) for (node, _), results in seen.items()
    ]


class _Observer(fx.Interpreter):
    """`seen`: every result of every call, in the order of its executions."""

    def __init__(self, module: fx.GraphModule, seen: Seen) -> None:
        super().__init__(module)
        self.seen = seen

    def run_node(self, n: fx.Node) -> Any:
        result = super().run_node(n)
        if n.op.startswith("call_"):
            for i, leaf in enumerate(pytree.tree_leaves(result)):
                if isinstance(leaf, Tensor) and leaf.is_floating_point():
                    self.seen.setdefault((n, i), []).append(leaf.double().numpy().copy())
        return result

    def call_function(self, target: Target, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if target is run_scan:
            body: Callable[..., Any] = _Observer(args[0], self.seen).run
            args = (body, *args[1:])
        return super().call_function(target, args, kwargs)
