"""In-place writes through every kind of view, and tensors without elements: as PyTorch does it, or refused by name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from ltc_compiler import UnsupportedError
from ltc_torch.fx import prepare_shape
from ltc_torch.fx.nnir import to_nnir
from zoo.basic import Apply

X = torch.randn(2, 3, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(3))

VIEWS: dict[str, Callable[[Tensor], Tensor]] = {
    "itself": lambda y: y,
    "flat": lambda y: y.view(-1),
    "axes joined": lambda y: y.flatten(1),
    "axes split": lambda y: y.view(2, 3, 2, 2)[..., 1],
    "axis added": lambda y: y.unsqueeze(1),
    "transposed": lambda y: y.transpose(0, 2),
    "permuted": lambda y: y.permute(1, 2, 0),
    "part of a transposed one": lambda y: y.transpose(0, 1)[1:, :, 1:3],
    "transposed part": lambda y: y[0].T,
    "row": lambda y: y[:, 1],
    "strided part": lambda y: y[1:, :2, ::2],
    "element": lambda y: y[0, 0, 0],
    "part of unbind": lambda y: y.unbind(1)[2],
    "part of split": lambda y: torch.split(y, [1, 2], 1)[1],
    "rows across an edge": lambda y: y.view(-1)[5:17],
    "every fifth": lambda y: y.view(-1)[1::5],
    "windows": lambda y: y.unfold(2, 2, 2),
    "repeated once": lambda y: y[:1].expand(1, 3, 4),
    "data": lambda y: y.data,
    "a copy": lambda y: y.transpose(0, 1).reshape(3, 8),
    "nothing": lambda y: y[:, :0],
}

WRITES: dict[str, Callable[[Tensor], Any]] = {
    "add_": lambda v: v.add_(1.0),
    "copy_": lambda v: v.copy_(torch.linspace(0, 1, v.shape[-1]) if v.dim() else torch.tensor(2.0)),
    "masked_fill_": lambda v: v.masked_fill_(v > 0, 2.0),
    "fill by index": lambda v: v.__setitem__(..., v.flip(0) if v.dim() else v),
    "relu": lambda v: F.relu(v, inplace=True),
}

MORE_WRITES: dict[str, Callable[[Tensor], Any]] = {
    "-=": lambda v: v.__isub__(v * 0.5),
    "**=": lambda v: v.__ipow__(2),
    "flag by position": lambda v: F.hardtanh(v, -0.5, 0.5, True),
    "dropout": lambda v: F.dropout(v, 0.5, False, True),
    "functional": lambda v: F.relu_(v),
    "test": lambda v: v.gt_(0.1),
    "not": lambda v: v.logical_not_(),
    "other dtype": lambda v: v.add_(torch.ones(1)),
    "rows": lambda v: v.__setitem__(slice(1, None), v[:-1] * 2),
    "mask of the first axis": lambda v: v.__setitem__(v[:, 0] > 0, 0.25),
    "mask": lambda v: v.__setitem__((v > 0,), torch.tensor(0.25)),
    "constant mask": lambda v: v.__setitem__(torch.arange(v.shape[0]) > 0, 4.0),
    "list": lambda v: v.__setitem__([1, 0], v[:2] * 3),
    "two lists": lambda v: v.__setitem__(([0, 1], [2, 0]), torch.ones(2).double()),
    "index_fill_": lambda v: v.index_fill_(-1, torch.tensor([0, 2]), 3.0),
    "index_copy_": lambda v: v.index_copy_(0, torch.tensor([1]), v[:1] * 2),
    "index_put_": lambda v: v.index_put_((torch.tensor([0]),), v[1]),
    "data =": lambda v: setattr(v, "data", v * 2),
    "detach_": lambda v: v.detach().mul_(2.0),
}


def check(function: Callable[[Tensor], Any]) -> None:
    """The graph equals the function, on inputs that it was not recorded on."""
    nnir = to_nnir(prepare_shape(Apply(function).eval(), X.clone())[0])
    other = X * 0.75 + 0.125 * X.abs()
    found, wanted = nnir.run(other.numpy()), function(other.clone())
    pairs = zip(found, wanted, strict=True) if isinstance(wanted, tuple) else [(found, wanted)]
    for a, b in pairs:
        assert a.shape == tuple(b.shape)
        np.testing.assert_allclose(a, b.double().numpy(), rtol=1e-9, atol=1e-9)


def written(view: Callable[[Tensor], Tensor], write: Callable[[Tensor], Any]) -> Callable[[Tensor], Any]:
    """Write through a view; read the tensor, another view that was made before, and the view itself."""

    def function(x: Tensor) -> Any:
        y = x * 1.5
        v, before = view(y), y[:, 0]
        write(v)
        return (y + 0, before + 1, v * 1) if v.numel() else (y + 0, before + 1)

    return function


@pytest.mark.parametrize("write", WRITES)
@pytest.mark.parametrize("view", VIEWS)
def test_a_write_through_a_view_is_torchs(view: str, write: str) -> None:
    check(written(VIEWS[view], WRITES[write]))


@pytest.mark.parametrize("write", MORE_WRITES)
@pytest.mark.parametrize("view", ["row", "transposed part"])
def test_a_write_of_any_kind_is_torchs(view: str, write: str) -> None:
    check(written(VIEWS[view], MORE_WRITES[write]))


def _shift(x: Tensor) -> Tensor:
    y = torch.zeros_like(x)
    y[:, 1:] = x[:, :-1]
    return y


def _axis_added(x: Tensor) -> Tensor:
    e = x.new_empty(1, 2, 3, 4)
    e[0, :, :] = x
    return 2 * e


def _blocks(x: Tensor) -> Tensor:
    e = x.new_empty(5, 2, 3, 4)
    e[0], e[1:3], e[3:] = x, x * 2, 0
    e[4, 0].T[1] += 1
    return e


def _swapped(x: Tensor) -> Tensor:
    y = x * 1
    y[..., 0], y[..., 1] = y[..., 1].clone(), y[..., 0].clone()
    return y


def _wider_value(x: Tensor) -> Tensor:
    y = x.new_zeros(3, 4)
    y[:] = x[:1]
    return y


def _scalar(x: Tensor) -> Tensor:
    y = x.sum()
    y += 1
    y.view(1, 1)[0].mul_(2)
    return y


def _detached(x: Tensor) -> Tensor:
    y = x.new_zeros(2, 3, 4)
    y[1].detach().copy_(x[0])
    return y


def _bool(x: Tensor) -> Tensor:
    y = torch.zeros(2, 3, 4).bool()
    y[:] = x > 0
    y |= x < -1
    return y.double()


@pytest.mark.parametrize(
    "function",
    [_scalar, _detached, _shift, _axis_added, _blocks, _swapped, _wider_value, _bool],
    ids=lambda f: f.__name__,
)
def test_assignments_are_torchs(function: Callable[[Tensor], Any]) -> None:
    check(function)


@pytest.mark.parametrize(
    "function",
    [
        lambda x: torch.cat([torch.empty(0), x, x[:, :0]], 1),
        lambda x: torch.hstack((torch.zeros(2, 0, 4), x)),
        lambda x: x[:, :0].sum() + x,
        lambda x: torch.stack([x[:0], x[:0]]).sum() + x,
        lambda x: torch.split(x, [3, 0], 1)[0] + torch.split(x, [0, 3], 1)[1],
        lambda x: x[:, :, :2] + torch.matmul(x[:, :, :0], torch.ones(0, 2).double()),
    ],
)
def test_tensors_without_elements_are_passed_over(function: Callable[[Tensor], Any]) -> None:
    check(function)


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (lambda y: y.unsqueeze_(0), "changes a tensor's shape in place"),
        (lambda y: y[0].fill_diagonal_(0.0), "has no form that does not"),
        (lambda y: y.__setitem__([0, 0], y[:2] * 2), "names twice"),
        (
            lambda y: y.__setitem__(y > 0, torch.ones(int((X * 1.5 > 0).sum())).double()),
            "as many elements as a mask",
        ),
        (lambda y: y.index_put_(((y[:, 0, 0] > 0).long(),), torch.zeros(())), "depend on the input"),
        (lambda y: y.__setitem__((y[:, 0, 0] > 0).long(), 0.0), "indexing by a tensor that depends"),
    ],
)
def test_other_writes_are_refused(write: Callable[[Tensor], Any], message: str) -> None:
    with pytest.raises(UnsupportedError, match=message):
        check(written(lambda y: y, write))
