"""Checks of values in `forward`: left out with a warning where they only stop a run, refused where they choose."""

# mypy: disable-error-code="no-untyped-call"

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch import distributions as dist

from ltc_compiler.errors import UnsupportedError
from ltc_torch.fx import prepare_shape
from ltc_torch.fx.nnir import to_nnir
from zoo.basic import Apply

X = torch.randn(2, 3, generator=torch.Generator().manual_seed(6))
log = logging.getLogger(__name__)
GUARDED: dict[str, tuple[Callable[[Tensor], Any], int]] = {}  # with the number of lines that are listed
CHOOSING: dict[str, Callable[[Tensor], Any]] = {}


def guarded(lines: int) -> Callable[[Callable[[Tensor], Any]], Callable[[Tensor], Any]]:
    def register(function: Callable[[Tensor], Any]) -> Callable[[Tensor], Any]:
        GUARDED[function.__name__] = function, lines
        return function

    return register


def choosing(function: Callable[[Tensor], Any]) -> Callable[[Tensor], Any]:
    CHOOSING[function.__name__] = function
    return function


@guarded(3)
def asserted(x: Tensor) -> Tensor:
    v = torch.tanh(x)
    assert not torch.isnan(v).any(), "nan in the state"
    assert x.min() >= -100
    assert torch.allclose(v, v + 0)
    return v


@guarded(2)
def raised(x: Tensor) -> Tensor:
    if torch.any(torch.isnan(x)):
        raise ValueError("nan")
    if torch.isfinite(x).all():
        v = x * 2
    else:
        message = f"infinite: {x.max().item()}"
        log.error(message)
        raise ValueError(message)
    return v


def finite(x: Tensor) -> bool:
    return bool(torch.isfinite(x).all())


@guarded(2)
def asked_of_a_helper(x: Tensor) -> Tensor:
    if not finite(x):
        raise ValueError
    low = x.min().item()
    if low < -100:
        raise ValueError(f"{low}")
    return x * 2


@guarded(3)
def told(x: Tensor) -> Tensor:
    if x.abs().max() > 1e6:
        print("large")
    log.debug("mean %f", x.mean().item())
    if x.abs().max() > 1e6:
        warnings.warn("large", stacklevel=1)
    return x * 2


@guarded(3)
def debugged(x: Tensor) -> Tensor:
    loss = x.sum()
    if loss != loss:
        import pdb

        pdb.set_trace()
    if torch.isnan(loss):
        breakpoint()
    if (loss == loss).logical_not():
        from pdb import set_trace

        set_trace()
    return x * 2


@guarded(3)
def asserted_by_torch(x: Tensor) -> Tensor:
    torch._assert(torch.isfinite(x).all(), "infinite")
    torch._assert_async(torch.isfinite(x).all())
    assert np.isfinite(x.numpy()).all()
    return x * 2


@guarded(1)
def asserted_in_a_loop(x: Tensor) -> Tensor:
    h, out = torch.zeros(2), []
    for t in range(x.shape[1]):
        h = torch.tanh(h + x[:, t])
        assert not h.isnan().any()
        out.append(h)
    return torch.stack(out, 1)


@guarded(2)
def normal(x: Tensor) -> Any:
    d = dist.Independent(dist.Normal(x * 2, torch.exp(x), validate_args=True), 1)
    return torch.tanh(d.mean), d.log_prob(x), d.entropy()


@guarded(1)
def categorical(x: Tensor) -> Any:
    d = dist.Categorical(logits=x, validate_args=True)
    return d.probs, d.entropy()


@choosing
def a_branch(x: Tensor) -> Tensor:
    return x if x.sum() > 0 else -x


@choosing
def another_result(x: Tensor) -> Tensor:
    if torch.isnan(x).any():
        return torch.zeros_like(x)
    return x * 2


@choosing
def a_repair(x: Tensor) -> Tensor:
    if torch.isnan(x).any():
        warnings.warn("repaired", stacklevel=1)
        x = torch.zeros_like(x)
    return x * 2


@choosing
def a_repair_on_the_other_side(x: Tensor) -> Tensor:
    if torch.isfinite(x).all():
        print("fine")
    else:
        x = torch.zeros_like(x)
    return x * 2


@choosing
def a_guard_that_is_caught(x: Tensor) -> Tensor:
    try:
        asserted(x)
    except AssertionError:
        return x
    return x * 2


@choosing
def a_value_with_a_name(x: Tensor) -> Tensor:
    if (top := x.max().item()) > 1e6:
        raise ValueError
    return x * top


@choosing
def a_value_that_is_used(x: Tensor) -> Tensor:
    top = x.max().item()
    assert top < 1e6
    return x * top


@choosing
def a_loop_until(x: Tensor) -> Tensor:
    while x.abs().max() > 0.1:
        x = x * 0.5
    return x


@pytest.mark.parametrize("name", GUARDED)
def test_a_check_is_left_out_with_a_warning(name: str) -> None:
    function, lines = GUARDED[name]
    with pytest.warns(UserWarning, match="checks of values") as caught:
        graph_module, _ = prepare_shape(Apply(function).eval(), X.clone())
    listed = [str(w.message) for w in caught if "checks of values" in str(w.message)]
    assert len(listed) == 1
    assert listed[0].count("test_guards.py:") == lines
    found, wanted = to_nnir(graph_module).run(X.numpy() * 0.5), function(X * 0.5)
    pairs = zip(found, wanted, strict=True) if isinstance(wanted, tuple) else [(found, wanted)]
    for a, b in pairs:
        np.testing.assert_allclose(a, b.numpy(), atol=1e-5)


@pytest.mark.parametrize("name", CHOOSING)
def test_a_value_that_chooses_is_refused(name: str) -> None:
    with pytest.raises(UnsupportedError, match="needs the value of a tensor"):
        prepare_shape(Apply(CHOOSING[name]).eval(), X.clone())


def test_a_check_that_fails_on_the_example_is_the_users() -> None:
    with pytest.raises(AssertionError, match="nan in the state"):
        prepare_shape(Apply(asserted).eval(), X * float("nan"))


def test_a_check_without_source_is_refused() -> None:
    names: dict[str, Any] = {}
    exec("def f(x):\n    assert not x.isnan().any()\n    return x * 2", names)
    with pytest.raises(UnsupportedError, match="needs the value"):
        prepare_shape(Apply(names["f"]).eval(), X.clone())


def test_all_reads_are_refused_at_once() -> None:
    def forward(x: Tensor) -> Tensor:
        a = x * x.max().item()
        if x.sum() > 0:
            a = a + 1
        count = int(x[0, 0])
        kept = x[x > 0].sum()
        return a * count + kept + torch.tensor([x[0, 0]]) + torch.add(x, 1, out=torch.empty(2, 3))

    with pytest.raises(UnsupportedError) as caught:
        prepare_shape(Apply(forward).eval(), X.clone())
    assert [e.node for e in caught.value.entries] == [
        "item",
        "__bool__",
        "__int__",
        "__getitem__",
        "tensor",
        "add",
    ]
