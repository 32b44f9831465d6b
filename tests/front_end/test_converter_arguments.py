"""Every argument of every torch operation that has a converter is used or refused, never passed over in silence.

The operations and their arguments come from torch's own schemas: each argument that has a default is given another
value, one at a time, and what compiles must equal torch.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from ltc_compiler import UnsupportedError
from ltc_torch.fx import prepare_shape, registry
from ltc_torch.fx.nnir import to_nnir

X = torch.rand(4, 4, 6, generator=torch.Generator().manual_seed(3), dtype=torch.float64) * 3 - 1
INSTEAD: dict[str, tuple[Any, ...]] = {  # values to try in place of a default, by its type
    "bool": (True, False),
    "int": (0, 1, 2, -1),
    "float": (0.5, 2.0, -0.3),
    "number": (0.5, 2, -1),
    "Scalar": (0.5, 2, -1),
    "str": ("tanh", "mean", "sum", "none"),
    "List[int]": ([1], [0, 2], [2, 1]),
    "ScalarType": (torch.float64, torch.float32, torch.int64, torch.bool),
    "Tensor": (X.flip(0) * 0.7,),
}
NEEDED = {**INSTEAD, "int": (1, 2), "bool": (True,), "number": (0.4,), "Scalar": (0.4,), "float": (0.4,)}
CALLS_LIMIT = 40  # of one operation


def _kind(argument: Any) -> str:
    text = str(argument.real_type if hasattr(argument, "real_type") else argument.type)
    return text.removeprefix("Optional[").removesuffix("]") if text.startswith("Optional") else text


def calls(name: str) -> Iterator[tuple[Any, list[Any], dict[str, Any]]]:
    """Calls of an operation's overloads: what is needed, and one argument with another value than its default."""
    packet = None if name.startswith("__") else getattr(torch.ops.aten, name, None)
    for overload in packet.overloads() if packet is not None else ():
        function = getattr(packet, overload)
        arguments = function._schema.arguments
        needed = [a for a in arguments if not a.has_default_value()]
        if overload.endswith("out") or overload.startswith("prim_"):
            continue  # into another tensor; of TorchScript alone, where a number that is no type crashes torch
        if any(a.kwarg_only or _kind(a) not in NEEDED for a in needed):
            continue
        for at in range(max(len(NEEDED[_kind(a)]) for a in needed)):
            given = [NEEDED[_kind(a)][at % len(NEEDED[_kind(a)])] for a in needed]
            for optional in (a for a in arguments if a.has_default_value()):
                for value in INSTEAD.get(_kind(optional), ()):
                    if value is not optional.default_value:
                        yield function, given, {optional.name: value}


class Call(nn.Module):
    def __init__(self, function: Any, given: list[Any], settings: dict[str, Any]) -> None:
        super().__init__()
        self.function, self.given, self.settings = function, given, settings

    def forward(self, x: Tensor) -> Any:
        return self.function(x, *self.given[1:], **self.settings)


def compared(model: Call) -> bool:
    """Whether the call compiles; it equals torch then."""
    try:
        wanted = pytree.tree_leaves(model(X.clone()))
    except (RuntimeError, TypeError, ValueError, IndexError):
        return False  # torch itself takes no such value
    try:
        nnir = to_nnir(prepare_shape(model.eval(), X.clone())[0])
    except UnsupportedError:
        return False
    results = pytree.tree_leaves(nnir.run(X.numpy()))
    assert len(results) == len(wanted)
    for result, want in zip(results, wanted, strict=True):
        np.testing.assert_allclose(result, want.double().numpy(), rtol=1e-6, atol=1e-6)
    return True


@pytest.mark.parametrize("name", sorted(n for n in registry.FUNCTIONS if next(calls(n), None) is not None))
def test_no_argument_is_passed_over(name: str) -> None:
    for i, (function, given, settings) in enumerate(calls(name)):
        if i < CALLS_LIMIT:
            compared(Call(function, given, settings))
