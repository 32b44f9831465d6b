"""Every torch function that has a converter, one by one, in fp64 against PyTorch; a converter without a case fails."""

# ruff: noqa: E501 - a table with a case on each line

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils import _pytree as pytree

from ltc_compiler import UnsupportedError
from ltc_compiler.frontend.names import NAMES
from ltc_compiler.ir.ops import BY_ARITY
from ltc_torch.fx import prepare_shape, registry
from ltc_torch.fx.nnir import to_nnir

Case = Callable[..., Any]


class Apply(nn.Module):
    def __init__(self, function: Case) -> None:
        super().__init__()
        self.function = function

    def forward(self, *inputs: Tensor) -> Any:
        return self.function(*inputs)


def check(function: Case, *inputs: Tensor) -> None:
    """The function's NNIR equals the function, on inputs that it was not recorded on."""
    graph_module, _ = prepare_shape(Apply(function).eval(), *(x.clone() for x in inputs))
    nnir = to_nnir(graph_module)
    others = [x * 0.75 + 0.125 * x.abs() for x in inputs]
    given_ = pytree.tree_leaves(nnir.run(*(x.numpy() for x in others)))
    wanted = [t for t in pytree.tree_leaves(function(*(x.clone() for x in others))) if isinstance(t, Tensor)]
    assert len(given_) == len(wanted)
    for g, w in zip(given_, wanted, strict=True):
        assert g.shape == tuple(w.shape)
        np.testing.assert_allclose(g, w.double().numpy(), rtol=1e-9, atol=1e-9)


def data(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(5), dtype=torch.float64)


X, Y = data(3, 4, 6), data(3, 4, 6) * 0.7 + 0.1
W = data(6, 6)

PLAIN = """neg negative abs absolute relu sigmoid tanh exp exp2 square sign sgn expm1 positive sinh cosh asinh arcsinh
    deg2rad rad2deg sin cos tan erf erfc atan arctan floor ceil trunc fix frac round sinc"""
POSITIVE = "sqrt log reciprocal rsqrt log1p log2 log10"
ACTIVATIONS = """silu mish elu celu selu leaky_relu hardtanh relu6 hardsigmoid hardswish softsign tanhshrink softplus
    gelu logsigmoid"""
ALONG_AN_AXIS = "softmax log_softmax softmin normalize glu"


def _named() -> dict[str, Case]:
    plain: dict[str, Case] = {name: getattr(torch, name) for name in PLAIN.split()}
    positive: dict[str, Case] = {n: lambda x, n=n: getattr(torch, n)(x.abs() + 0.5) for n in POSITIVE.split()}
    activations: dict[str, Case] = {name: getattr(F, name) for name in ACTIVATIONS.split()}
    along: dict[str, Case] = {n: lambda x, n=n: getattr(F, n)(x, dim=1) for n in ALONG_AN_AXIS.split()}
    return {**plain, **positive, **activations, **along}


V, C4 = W[0], W[:, :4]
KERNEL, GROUPED, POINT, PAIR = data(5, 4, 3), data(4, 2, 2), data(2, 4, 1), data(4, 4, 2)
IMAGE, PATCH, GROUPS, EACH = data(5, 1, 2, 3), data(2, 3, 3, 2), data(6, 1, 2, 2), data(2, 1, 2, 3)
PICK, TIMES = torch.arange(36).reshape(3, 3, 4) * 7 % 4, torch.tensor([2, 0, 2])
BACK, FLAT = data(4, 5, 3), data(1, 3, 2, 3)
CUBE = data(3, 1, 2, 2, 3)
BILINEAR, EYE = data(2, 6, 6), torch.eye(4).double()
SLOPES = torch.tensor([0.1, 0.2, 0.3, 0.4]).double()
broadcast_tensors: Any = torch.broadcast_tensors
sdpa, special, linalg = F.scaled_dot_product_attention, torch.special, torch.linalg

ONE: dict[str, Case] = {
    **_named(),
    # pointwise
    "methods": lambda x: -x.abs().add(1).exp().log().add(1).sub(x, alpha=2).mul(2).div(3).neg().square(),
    "operators": lambda x: (2 - x) * 3 / 2 + 1 / (x * x + 1) - x**3 + 2**x - (x.abs() + 1) ** 1.5,
    "roots": lambda x: (x.abs() + 1) ** -0.5 + (x.abs() + 1) ** 0.5 + torch.pow(x.abs(), 0.5),
    "powers": lambda x: x**0 + x**1 + x**7 + (x + 3) ** -2 + torch.float_power(x, 2) + torch.pow(3.0, x),
    "special": lambda x: special.expit(x) + special.exp2(x) + special.expm1(x) + special.log1p(x.abs()),
    "logit": lambda x: torch.logit(x.sigmoid()) + torch.logit(x, eps=1e-3),
    "prelu": lambda x: F.prelu(x, SLOPES) + F.prelu(x, SLOPES[:1]),
    "threshold": lambda x: F.threshold(x, 0.1, -7.0) + torch.threshold(x, 0.3, 2.0),
    "clamp": lambda x: x.clamp(-1, 1) + x.clamp_min(0) + torch.clamp_max(x, 0.5) + x.clip(max=0.2) + x.clamp(min=-0.3),
    "comparisons": lambda x: [c.double() for c in (x > 0, x >= 0, x < 0.1, x <= 0, x == 0, x != 0, torch.less(x, 0))],
    "logic": lambda x: ((x > 0) & (x < 1) | ~(x > 2) ^ (x > 1)).double() + (x > 0).logical_not().double() * (x > 0).bool(),
    "logical and": lambda x: torch.logical_and(x > 0, x < 1).double() + torch.logical_or(x > 1, x < 0),
    "logical xor": lambda x: torch.logical_xor(x > 1, x < 2).double(),
    "where": lambda x: torch.where(x > 0, x, 0.0) + x.where(x < 1, -x) + x.masked_fill(x > 1, 0.5),
    "nan": lambda x: torch.nan_to_num((x - x) / (x - x)) + torch.isnan(x).double() + torch.log(x).nan_to_num(0.5),
    "lerp": lambda x: torch.lerp(x, x * 2, 0.3) + torch.addcmul(x, x, x, value=0.1),
    "addcdiv": lambda x: torch.addcdiv(x, x, x.abs() + 1, value=2) + torch.addcdiv(x, x, x.abs() + 2),
    "types": lambda x: x.double().to(torch.float64).type_as(x).type(torch.float64) + x.clone().contiguous().cpu(),
    "aliases": lambda x: x.data + x.detach() + torch.as_tensor(x) + torch.asarray(x),
    "dropout": lambda x: F.dropout(x, 0.5, False) + F.alpha_dropout(x) + F.dropout1d(x, 0.1, False),
    "dropouts": lambda x: F.dropout2d(x[None], 0.5, False)[0] + F.dropout3d(x[None, None], 0.5, False)[0, 0],
    "feature dropout": lambda x: torch.feature_dropout(x, 0.1, False) + F.feature_alpha_dropout(x, 0.2, False),
    # reductions, norms
    "sums": lambda x: (x.sum(), x.sum(1), x.sum((0, -1), keepdim=True), x.mean(), x.mean(2), (x > 0).sum(1).double()),
    "extremes": lambda x: (x.amax((0, 1)), x.amin(2), x.max(), x.min(), x.max(1)[0], x.min(-1, keepdim=True).values),
    "spread": lambda x: (x.var(), x.std(1), torch.var_mean(x, 2), torch.std_mean(x, (0, 1), correction=0), x.var(1, False)),
    "norms": lambda x: (x.norm(), linalg.vector_norm(x, 1, 2), x.norm(float("inf"), 1), linalg.norm(x, dim=1), x.norm(p=2, dim=0)),
    "vector norms": lambda x: [linalg.vector_norm(x, p, (0, 2)) for p in (0, 0.5, 1, 3, -1, float("inf"), -float("inf"))],
    "matrix norms": lambda x: [linalg.norm(x, p, (0, 2), keepdim=k) for p in (1, -1, float("inf"), -float("inf"), "fro") for k in (True, False)],
    "norms of all": lambda x: (linalg.norm(x), linalg.norm(x[0]), linalg.norm(x[0], 1), linalg.norm(x[0, 0], 1), linalg.norm(x, float("inf"), (2, 1)), torch.norm(x[0], 1), linalg.matrix_norm(x), linalg.matrix_norm(x, 1)),
    "powers of each": lambda x: (x[..., None] ** torch.arange(-2.0, 4), x**SLOPES[:, None], torch.tensor([2.0, 3.0])[:, None, None, None] ** x, x**65),
    "logsumexp": lambda x: (x.logsumexp(1), torch.logsumexp(x, (0, 2), keepdim=True)),
    "cumsum": lambda x: (x.cumsum(1), torch.cumsum(x, -1), x.cumprod(1), torch.cumprod(x, 0)),
    "running": lambda x: (x.cummax(1)[0], torch.cummin(x, 0).values, torch.logcumsumexp(9 * x, 1), x.logcumsumexp(-1)),
    "layer_norm": lambda x: F.layer_norm(x, (4, 6)) + F.layer_norm(x, (6,), W[0], W[1]),
    "rms_norm": lambda x: F.rms_norm(x, (6,), W[0]) + F.rms_norm(x, (6,), eps=1e-3),
    "batch_norm": lambda x: F.batch_norm(x, C4[0], C4[1].abs(), C4[2], C4[3]) + F.batch_norm(x, C4[0], C4[1].abs()),
    "instance_norm": lambda x: F.instance_norm(x) + F.instance_norm(x, C4[0], C4[1].abs(), use_input_stats=False),
    "group_norm": lambda x: F.group_norm(x, 2, C4[0], C4[1]) + F.group_norm(x, 4),
    "positions": lambda x: [p.double() for p in (x.argmax(), x.argmin(1), x.argmax(-1, keepdim=True), x.max(0).indices, x.min(1)[1], torch.argmin(x, keepdim=True))],
    "ties": lambda x: [p.double() for p in (x.sign().argmax(1), (x > 0).double().argmin(2), (x * 0).argmax(0))],
    "quantifiers": lambda x: [q.double() for q in ((x > 1).any(), (x > -2).all(1), torch.any(x > 2, 2, keepdim=True), torch.all(x), (x > 0).any((0, 2)))],
    "counts": lambda x: (x.relu().count_nonzero().double(), torch.count_nonzero(x > 0, 1).double(), x.relu().all(1).double(), x.relu().any(1).double()),
    "extremes together": lambda x: (*x.aminmax(), *torch.aminmax(x, dim=1, keepdim=True)),
    "prod": lambda x: (x.prod(), x.prod(1), x.prod(-1, keepdim=True)),
    "missing": lambda x: (torch.log(x).nansum(1), torch.nanmean(torch.log(x), 1, keepdim=True), torch.log(x).nansum()),
    "inverse hyperbolic": lambda x: (torch.acosh(1 + x.abs()), torch.arccosh(1 + x * x), torch.atanh(x / 4), torch.arctanh(x.tanh())),
    "arcs": lambda x: (torch.asin(x / 4), torch.arcsin(x.tanh()), torch.acos(x / 4), torch.arccos(-x.tanh())),
    "decimals": lambda x: (x.round(decimals=1), torch.round(9 * x, decimals=2), torch.round(90 * x, decimals=-1)),
    "operators of whole numbers": lambda x: (x % 0.7, 3.1 % x, x // 0.7, 3.1 // x, (9 * x).remainder(-2), x.fmod(0.3)),
    "special functions": lambda x: special.erf(x) + special.erfc(x) + special.sinc(x),
    "finite": lambda x: [f(1 / x.relu()).double() for f in (torch.isinf, torch.isfinite, torch.isposinf, torch.isneginf)],
    "sign bit": lambda x: torch.signbit(x).double(),
    "diagonals": lambda x: (x.diagonal(), torch.diagonal(x, -1, 1, 2), x[0].diag(), x[0].diag(2), x[0, 0].diag(-1), x[0].trace(), x.diagonal(offset=1, dim1=-1, dim2=0)),
    "diagonal matrices": lambda x: (torch.diag_embed(x), x.diag_embed(1), torch.diag_embed(x, -2, 0, 2), torch.diagflat(x[0, :2])),
    # products
    "linear": lambda x: (F.linear(x, W, V), x @ W, W @ x.mT, x.matmul(V), V @ x.mT),
    "vectors": lambda x: (torch.mv(W, x[0, 0]), V.dot(x[0, 0]), torch.inner(x[0, 0], x[0, 1]), x[0, 0].vdot(x[0, 1])),
    "contract": lambda x: (x @ x.mT, torch.bmm(x, x.mT), x[0] @ x[0, 0], torch.mm(x[0], x[1].T)),
    "computed weight": lambda x: F.linear(x, x[0], x[0, :, 0]),
    "addmm": lambda x: torch.addmm(x[0, 0], x[0], W, beta=0.5, alpha=2) + torch.addmv(x[0, :, 0], x[0], V).sum(),
    "baddbmm": lambda x: torch.baddbmm(x.sum(2, True), x, x.mT),
    "bilinear": lambda x: F.bilinear(x, x, BILINEAR, V[:2]),
    "einsum": lambda x: (torch.einsum("bij,bkj->bik", x, x), torch.einsum("bij,jk->bki", x, W), torch.einsum("bij->jb", x)),
    "einsum pairs": lambda x: (torch.einsum("bi,cj->bicj", x[0], x[1]), torch.einsum("ij,ij", x[0], x[1]), torch.einsum("ij", x[0])),
    "einsum ellipsis": lambda x: (torch.einsum("...td,ud->...tu", x, W), torch.einsum("...ij->...ji", x), torch.einsum("b...,b...->b", x, x)),
    "einsum diagonal": lambda x: (torch.einsum("bii->bi", x @ x.mT), torch.einsum("...ii", x @ x.mT), torch.einsum("bii,bi->bi", x @ x.mT, x[:, :, 0])),
    "einsum of three": lambda x: (torch.einsum("bij,jk,kl->bil", x, W, W), torch.einsum("bi,bj,bk->bijk", [x[0], x[1], x[2]])),
    "einsum broadcast": lambda x: (torch.einsum("bij,bij->bij", x, x[:, :1]), torch.einsum("...ij,...jk->...ik", x[None], x.mT), torch.einsum(",ij->ij", x[0, 0, 0], x[0])),
    "conv1d": lambda x: (F.conv1d(x, KERNEL, V[:5]), F.conv1d(x, GROUPED, None, 2, 1, 2, 2), F.conv1d(x[0], POINT)),
    "conv1d same": lambda x: F.conv1d(x, KERNEL, padding="same"),
    "conv1d valid": lambda x: F.conv1d(x, PAIR, padding="valid"),
    "conv2d": lambda x: (F.conv2d(x[:, None], IMAGE, V[:5]), F.conv2d(x, PATCH, None, (2, 1), (1, 2), (1, 2)), F.conv2d(x[None], PATCH, padding="same")),
    "conv2d groups": lambda x: (F.conv2d(x.unflatten(1, (2, 2)), GROUPS, V[:6], 1, 1, 1, 2), F.conv2d(x.unflatten(1, (2, 2)), EACH, V[:2], 1, (0, 1), 1, 2)),
    "conv_transpose1d": lambda x: (F.conv_transpose1d(x, BACK), F.conv_transpose1d(x, BACK, V[:5], 2, 1, 1), F.conv_transpose1d(x[0], BACK, None, 3, dilation=2)),
    "conv_transpose of groups": lambda x: (F.conv_transpose1d(x, BACK[:, :2], None, 2, 3, 1, 2), F.conv_transpose1d(x, BACK[:, :1], V[:4], 1, 1, groups=4, dilation=3), F.conv_transpose1d(x, BACK[:, :1], V[:4], 3, 1, 2, groups=4, dilation=2)),
    "conv_transpose2d": lambda x: (F.conv_transpose2d(x[:, None], FLAT, V[:3], (1, 2), (1, 0), (0, 1)), F.conv_transpose2d(x[:, None], FLAT, None, 2, 1, 0, 1, (1, 2)), F.conv_transpose2d(x.unflatten(1, (2, 2)), FLAT.expand(2, 3, 2, 3), None, (3, 1), groups=2)),
    "conv_transpose3d": lambda x: F.conv_transpose3d(x[None, None], CUBE[:1], V[:1], (1, 2, 2), (1, 0, 1), (0, 1, 0)),
    "conv3d": lambda x: F.conv3d(x[None, None], CUBE, V[:3], (1, 2, 1), (1, 0, 1)),
    "pooling of images": lambda x: (F.max_pool2d(x, 2), F.avg_pool2d(x[None], (2, 3), 1), F.max_pool2d(x, 3, (1, 2), 1), F.avg_pool2d(x, 2, 2, 1), F.avg_pool3d(x[None], 2), F.max_pool3d(x[None], 2, 1)),
    "adaptive pooling of images": lambda x: (F.adaptive_avg_pool2d(x, (1, 1)), F.adaptive_avg_pool2d(x, (None, 4)), F.adaptive_max_pool2d(x, 3), F.adaptive_avg_pool3d(x[None], 1), F.adaptive_max_pool3d(x[None], 2)),
    "pooling of all": lambda x: (F.avg_pool1d(x, x.shape[-1]), F.max_pool1d(x, x.shape[-1])),
    "pooling": lambda x: (F.max_pool1d(x, 2), F.avg_pool1d(x, 3, 1), F.max_pool1d(x, 3, 2, 1), F.avg_pool1d(x, 2, 2, 1)),
    "adaptive pooling": lambda x: (F.adaptive_avg_pool1d(x, 1), F.adaptive_avg_pool1d(x, 4), F.adaptive_max_pool1d(x, 4)),
    "resampling": lambda x: (F.interpolate(x, scale_factor=2), F.interpolate(x, size=18), F.interpolate(x, 12, mode="nearest")),
    "attention": lambda x: (sdpa(x, x, x), sdpa(x, x, x, is_causal=True, scale=0.3), sdpa(x, x, x, attn_mask=EYE)),
    "masked attention": lambda x: sdpa(x, x, x, attn_mask=EYE > 0),
    # layout
    "shapes": lambda x: (x.reshape(3, -1), x.view(12, 6), x.flatten(), x.flatten(1), x.ravel(), x.view_as(x), x.view(-1)),
    "unflatten": lambda x: (x.unflatten(2, (2, -1)), x.unflatten(1, (2, 2)), x.reshape_as(x)),
    "squeezes": lambda x: (x.unsqueeze(1), x[:1].squeeze(), x[:1].squeeze(0), x.squeeze(-1)),
    "axes": lambda x: (x.permute(2, 0, 1), torch.permute(x, (1, 0, 2)), x.transpose(0, 2), x.swapaxes(1, 2), x.swapdims(0, 1)),
    "moves": lambda x: (x.movedim(0, -1), x.moveaxis((0, 1), (2, 0)), x.mT, x[0].T, x[0].t(), x.adjoint(), x.mH, x.real),
    "expansion": lambda x: (x[:, :1].expand(-1, 5, -1), x[0].expand(2, 4, 6), x.broadcast_to(2, 3, 4, 6), x[0].expand_as(x)),
    "grids": lambda x: (broadcast_tensors(x[:, :1], x), torch.meshgrid(x[0, 0], x[0, 1], indexing="ij")),
    "joins": lambda x: (torch.cat([x, x], 1), torch.concat([x, x]), torch.concatenate([x, x], 2), torch.stack([x, x], -1)),
    "stacks": lambda x: (torch.hstack([x, x]), torch.vstack([x[0, 0], x[0, 1]]), torch.row_stack([x, x]), torch.dstack([x[0]] * 2)),
    "columns": lambda x: (torch.column_stack([x[0, 0], x[0, 1]]), torch.cat([x, torch.ones(3, 4, 1)], -1)),
    "repeats": lambda x: (x.repeat(2, 1, 1), x.tile(2), x.repeat_interleave(2, 1), x.repeat_interleave(3), x[0].repeat(2, 1, 2)),
    "turns": lambda x: (x.flip(0, 2), torch.flipud(x), torch.fliplr(x), x.roll(1, 2), x.roll(2), torch.roll(x, (1, -1), (0, 1))),
    "pad": lambda x: (F.pad(x, (1, 2)), F.pad(x, (1, 0, 2, 1), value=3.0), F.pad(x, (-1, 1))),
    "pad modes": lambda x: [F.pad(x, (2, 1), mode=mode) for mode in ("reflect", "replicate", "circular")],
    "cuts": lambda x: (x.select(1, -1), x.narrow(2, 1, 3), x.unbind(1), x.split(2, 2), x.split([1, 3], 1), x.chunk(4, 2)),
    "splits": lambda x: (x.tensor_split(4, 2), x.tensor_split((1, 3), 1), torch.split_with_sizes(x, [2, 4], 2)),
    "unsafe splits": lambda x: (torch.unsafe_chunk(x, 2, 1), torch.unsafe_split(x, 2, 1)),
    "gathers": lambda x: (x.index_select(2, torch.tensor([5, 0, 0])), x[:, [0, 2]], x[..., torch.tensor([[0, 1], [4, 5]])]),
    "gather": lambda x: (x.gather(1, PICK), torch.gather(x, -1, PICK), x.gather(2, PICK[:1, :1].expand(3, 4, 4)), x.take(PICK), torch.take(x, -PICK)),
    "take_along_dim": lambda x: (torch.take_along_dim(x, PICK[:, :, :1], 1), x.take_along_dim(PICK[:1, :1], 2), torch.take_along_dim(x, PICK)),
    "scatter": lambda x: (x.scatter(1, PICK, 2.0), x.scatter(2, PICK, x * 2), torch.scatter(x, 0, PICK[:2] % 3, x + 1), x.scatter(1, PICK, x, reduce="add")),
    "scatter_add": lambda x: (x.scatter_add(1, PICK, x), torch.scatter_add(x, 2, PICK, -x), x.scatter_reduce(1, PICK, x, "amax"), x.scatter_reduce(2, PICK, x, reduce="prod")),
    "index_add": lambda x: (x.index_add(1, TIMES, x[:, :3]), x.index_add(2, TIMES, x[:, :, :3], alpha=2), x.index_copy(1, TIMES[:2], x[:, 2:]), x.index_fill(2, TIMES, 5.0), x.index_reduce(1, TIMES, x[:, :3], "amin")),
    "index_put": lambda x: (x.index_put((TIMES, TIMES), x[0, :3]), torch.index_put(x, (TIMES % 2,), x[0, 0, 0], accumulate=True)),
    "several positions": lambda x: (x[TIMES, TIMES], x[:, TIMES, TIMES], x[0, :, TIMES], x[TIMES[:, None], TIMES], x[[0, 2], ..., [1, 5]], x[1:, TIMES, 2]),
    "masks": lambda x: x[:, torch.tensor([True, False, True, False])],
    "blocks": lambda x: (F.pixel_shuffle(x.reshape(4, 1, -1), 2), F.pixel_shuffle(x.reshape(1, 4, -1, 1), 2),
                         F.pixel_unshuffle(x.reshape(2, 2, -1), 2), F.channel_shuffle(x.reshape(1, 4, -1, 1), 2),
                         torch.native_channel_shuffle(x.reshape(1, 4, -1, 1), 2)),
    "patches": lambda x: (F.unfold(x, 2, stride=2), F.fold(x, (3, 3), (2, 1)), F.fold(x[:1], (5, 8), 2, padding=(0, 1), stride=(2, 3))),
    "windows": lambda x: (x.unfold(2, 3, 2), x.diff(), torch.diff(x, 2, 1, prepend=x[:, :1]), x.tril(), torch.triu(x, 1)),
    "indices": lambda x: (x[0], x[-1, 1:3], x[..., 0], x[:, None, ::2, 1], x[1][2][3], x[:, torch.tensor(2)], x[0:2, :, -3:-1]),
}  # fmt: skip

TWO: dict[str, Case] = {
    "arithmetic": lambda x, y: x + y - x * y / (y * y + 1) + torch.true_divide(x, y.abs() + 1) + torch.subtract(x, y),
    "alpha": lambda x, y: torch.add(x, y, alpha=3) + torch.sub(x, y, alpha=0.5) + torch.rsub(x, y, alpha=2),
    "multiply": lambda x, y: torch.divide(x, y.abs() + 1) + torch.multiply(x, y),
    "extremes": lambda x, y: torch.maximum(x, y) - torch.minimum(x, y) + torch.max(x, y) * torch.min(x, y),
    "fmax": lambda x, y: torch.fmax(x, y) - torch.fmin(x, y),
    "compare": lambda x, y: [f(x, y).double() for f in (torch.gt, torch.ge, torch.lt, torch.le, torch.eq, torch.ne)],
    "greater": lambda x, y: torch.greater(x, y).double() + torch.greater_equal(x, y) + torch.less_equal(x, y),
    "not equal": lambda x, y: torch.not_equal(x, y).double() + (x > y).double(),
    "lengths": lambda x, y: (torch.hypot(x, y), torch.dist(x, y), torch.dist(x, y, 1), torch.dist(x, y, float("inf"))),
    "sums of exponentials": lambda x, y: (torch.logaddexp(9 * x, y), torch.logaddexp2(x, 9 * y)),
    "signs": lambda x, y: torch.copysign(x, y) + torch.heaviside(x.relu(), y),
    "logarithms": lambda x, y: special.xlogy(x.relu(), y.abs()) + special.xlog1py(x, y.abs()) + torch.xlogy(x, y.abs()),
    "close": lambda x, y: (torch.isclose(x, y, 0.5).double(), torch.isclose(x, y, atol=0.3, equal_nan=True).double()),
    "angles": lambda x, y: torch.atan2(x, y) + torch.arctan2(y, x),
    "whole parts": lambda x, y: (x % y, torch.remainder(9 * x, y), torch.fmod(9 * x, y), 9 * x // y, torch.floor_divide(x, y), torch.div(x, y, rounding_mode="trunc"), torch.div(9 * x, y, rounding_mode="floor")),
    "losses": lambda x, y: [getattr(F, n + "_loss")(x, y, reduction=r) for n in ("mse", "l1", "smooth_l1", "huber") for r in ("mean", "sum", "none")],
    "corners": lambda x, y: (F.huber_loss(x, y, delta=0.3), F.smooth_l1_loss(x, y, beta=0.2), F.smooth_l1_loss(x, y, beta=0)),
    "cross entropies": lambda x, y: F.binary_cross_entropy(x.sigmoid(), y.sigmoid(), W[:4]) + F.binary_cross_entropy_with_logits(x, y, pos_weight=W[:4].abs()),
    "divergences": lambda x, y: (F.kl_div(x, y.relu(), reduction="batchmean"), F.kl_div(x, y, log_target=True, reduction="sum")),
    "outer": lambda x, y: (torch.outer(x[0, 0], y[0, 1]), torch.ger(x[0, 0], y[0, 0]), torch.kron(x[0], y[0, :2]), torch.kron(x, y[0])),
    "tensordot": lambda x, y: (torch.tensordot(x, y.permute(1, 2, 0)), torch.tensordot(x, y, ([0, 2], [0, 2])), torch.tensordot(x, W, 1), torch.tensordot(x, y, ([1], [1]))),
    "cross": lambda x, y: (torch.cross(x[:, 0, :3], y[:, 0, :3], dim=1), linalg.cross(x[..., :3], y[..., 3:]), torch.cross(x, y, 0)),
    "addbmm": lambda x, y: torch.addbmm(x[0, :, :4], x, y.mT, beta=0.5, alpha=2) + torch.addr(x[0, :, :4], x[0, 0, :4], y[0, 0, :4], alpha=3, beta=2),
    "cosines": lambda x, y: (F.cosine_similarity(x, y), F.cosine_similarity(x, y, -1, 0.5), torch.cosine_similarity(x, y[:1], dim=2)),
    "distances": lambda x, y: (F.pairwise_distance(x, y), F.pairwise_distance(x, y, 1, keepdim=True), torch.cdist(x, y), torch.cdist(x, y, 1)),
    "power": lambda x, y: (x.abs() + 0.1) ** y,
    "broadcast": lambda x, y: x[:, :1] * y[0] + x[0, 0] - y[:, :, :1],
}  # fmt: skip

# Names that torch passes on under another one, calls that return their argument itself, and what other tests cover.
UNREACHED = {
    "__abs__", "__add__", "__radd__", "__sub__", "__mul__", "__rmul__", "__div__", "__truediv__", "__neg__", "__rtruediv__",
    "__rand__", "__ror__", "__pow__", "__mod__", "__matmul__", "__rmatmul__", "__gt__", "__ge__", "__lt__", "__le__", "__ne__",
    "__getitem__", "bitwise_and", "bitwise_or", "bitwise_xor", "bitwise_not", "expit", "logsigmoid",
    "contiguous", "cpu", "dropout", "float", "to", "type", "type_as", "alias", "as_tensor", "requires_grad_",
    "elapsed_time", "half", "bfloat16", "int", "long", "read_region", "write_region", "read_state",
}  # fmt: skip


def _takes_numbers(name: str, arity: int) -> bool:
    try:
        getattr(torch, name)(*OPERANDS[:arity])
    except (AttributeError, RuntimeError, TypeError):  # a method, an alias, a function of booleans alone
        return False
    return True


# What the table of names says of torch's own functions; those that it does not reach have cases above.
OPERANDS = (X, Y, X - Y)
TABLE = [
    (name, arity)
    for arity, rows in BY_ARITY.items()
    for op in rows
    for name in NAMES[op].torch.split()
    if _takes_numbers(name, arity)
]


@pytest.mark.parametrize(("name", "arity"), TABLE)
def test_function_of_the_table(name: str, arity: int) -> None:
    check(getattr(torch, name), *OPERANDS[:arity])


@pytest.mark.parametrize("name", ONE)
def test_function_of_one_tensor(name: str) -> None:
    check(ONE[name], X)


@pytest.mark.parametrize("name", TWO)
def test_function_of_two_tensors(name: str) -> None:
    check(TWO[name], X, Y)


def test_every_converter_has_a_case(monkeypatch: pytest.MonkeyPatch) -> None:
    called: set[str] = set()

    class Spy(dict[str, Any]):
        def get(self, name: str, default: Any = None) -> Any:
            called.add(name)
            return super().get(name, default)

    monkeypatch.setattr("ltc_torch.fx.nnir.FUNCTIONS", Spy(registry.FUNCTIONS))
    for function in ONE.values():
        check(function, X)
    for function in TWO.values():
        check(function, X, Y)
    for name, arity in TABLE:
        check(getattr(torch, name), *OPERANDS[:arity])
    assert set(registry.FUNCTIONS) - called == UNREACHED


INDEX = st.one_of(
    st.integers(-3, 2),
    st.none(),
    st.just(Ellipsis),
    st.builds(
        slice, st.none() | st.integers(-4, 3), st.none() | st.integers(-3, 5), st.none() | st.integers(1, 3)
    ),
    st.lists(st.integers(-3, 2), min_size=1, max_size=4),
)


@given(st.lists(INDEX, max_size=4).map(tuple).filter(lambda key: sum(k is Ellipsis for k in key) < 2))
@settings(max_examples=150, deadline=None)
def test_indexing_is_torchs(key: Any) -> None:
    x = data(3, 4, 5)
    try:
        wanted = x[key]
    except (IndexError, TypeError):
        return
    if wanted.numel() == 0:
        with pytest.raises(UnsupportedError, match=r"no elements|without elements"):
            to_nnir(prepare_shape(Apply(lambda x: x[key] + 1).eval(), x)[0])
        return
    nnir = to_nnir(prepare_shape(Apply(lambda x: x[key] + 1).eval(), x)[0])
    np.testing.assert_array_equal(nnir.run(x.numpy()), (wanted + 1).numpy())


WRITE = st.tuples(
    st.sampled_from(["set", "add", "mul", "view", "copy", "relu"]),
    st.tuples(
        *[st.integers(-2, 1) | st.builds(slice, st.integers(0, 1), st.none() | st.integers(2, 4), st.just(1))]
        * 2
    ),
)


@given(st.lists(WRITE, min_size=1, max_size=6))
@settings(max_examples=60, deadline=None)
def test_in_place_writes_are_torchs(writes: list[Any]) -> None:
    """Random sequences of writes through views, and reads of the base and of old views after them."""

    def forward(x: Tensor, y: Tensor) -> Any:
        x = x.clone()
        views = []
        for kind, key in writes:
            part = x[key]
            views.append(part)
            if kind == "set":
                x[key] = y[0, 0] * 2
            elif kind == "add":
                part += y[0, 1]
            elif kind == "mul":
                x[key].mul_(1.5)
            elif kind == "view":
                views[0].add_(1)
            elif kind == "copy":
                part.copy_(y[1, 1])
            else:
                F.relu(part, inplace=True)
        return x, [v + 1 for v in views]

    check(forward, data(4, 3), data(2, 2))


def test_a_wide_image_gets_no_band_matrix() -> None:
    """Its zeros would be millions: the taps are laid side by side instead."""
    graph = to_nnir(prepare_shape(torch.nn.Conv2d(1, 1, 3).eval(), torch.randn(1, 1, 4, 1500))[0]).graph
    constants = [v for n in graph.walk() for v in n.operands if v.constant() is not None]
    assert sum(v.type.size for v in constants) < 100
