"""Models as people publish them: forecasters, state-space and attention blocks, cells with loops of their own.

Written the way that their public repositories write them, at a small size: loops in Python, attention out of products
and masks, weight norm by hooks.
"""

from __future__ import annotations

import math
import warnings
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations

from zoo.basic import B, D, H, T, x


class Chomped(nn.Module):
    """A block of Bai, Kolter and Koltun's TCN (2018): padding on both sides, the end cut off; weight norm by hook."""

    def __init__(self) -> None:
        super().__init__()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            self.a = nn.utils.weight_norm(nn.Conv1d(D, 6, 3, padding=2))
            self.b = nn.utils.weight_norm(nn.Conv1d(6, 6, 3, padding=4, dilation=2))
        self.skip, self.readout = nn.Conv1d(D, 6, 1), nn.Linear(6, 3)

    def forward(self, u: Tensor) -> Tensor:
        y = F.dropout(F.relu(self.a(u)[:, :, :-2].contiguous()), 0.2, self.training)
        y = F.relu(F.relu(self.b(y)[:, :, :-4]) + self.skip(u))
        result: Tensor = self.readout(y.transpose(1, 2))
        return result


class Mamba(nn.Module):
    """A selective state space with einsum and a loop, as in the reference code of Gu and Dao (2023)."""

    def __init__(self, e: int = 6, n: int = 3) -> None:
        super().__init__()
        self.e, self.n = e, n
        self.inner, self.conv = nn.Linear(D, 2 * e, bias=False), nn.Conv1d(e, e, 3, groups=e, padding=2)
        self.parameters_of_x, self.dt = nn.Linear(e, 1 + 2 * n, bias=False), nn.Linear(1, e)
        self.log_a = nn.Parameter(torch.log(torch.arange(1.0, n + 1).repeat(e, 1)))
        self.skip, self.out = nn.Parameter(torch.ones(e)), nn.Linear(e, D, bias=False)

    def forward(self, u: Tensor) -> Tensor:
        length = u.shape[1]
        v, z = self.inner(u).chunk(2, dim=-1)
        v = F.silu(self.conv(v.transpose(1, 2))[:, :, :length].transpose(1, 2))
        dt, b, c = self.parameters_of_x(v).split([1, self.n, self.n], -1)
        dt = F.softplus(self.dt(dt))
        da = torch.exp(torch.einsum("bld,dn->bldn", dt, -torch.exp(self.log_a)))
        db = torch.einsum("bld,bln,bld->bldn", dt, b, v)
        h, ys = torch.zeros(len(u), self.e, self.n), []
        for i in range(length):
            h = da[:, i] * h + db[:, i]
            ys.append(torch.einsum("bdn,bn->bd", h, c[:, i, :]))
        result: Tensor = self.out((torch.stack(ys, 1) + v * self.skip) * F.silu(z))
        return result


class Rwkv(nn.Module):
    """The time mixing of RWKV-4 (Peng et al., 2023): a running maximum keeps the exponentials in range."""

    def __init__(self) -> None:
        super().__init__()
        self.decay, self.first, self.mix = (nn.Parameter(torch.rand(D)) for _ in range(3))
        self.k, self.v, self.r = (nn.Linear(D, D, bias=False) for _ in range(3))
        self.shift = nn.ZeroPad2d((0, 0, 1, -1))

    def forward(self, u: Tensor) -> Tensor:
        mixed = u * self.mix + self.shift(u) * (1 - self.mix)
        k, v, r = self.k(mixed), self.v(mixed), torch.sigmoid(self.r(mixed))
        top, bottom = torch.zeros_like(k[:, 0]), torch.zeros_like(k[:, 0])
        p, ys = torch.full_like(top, -1e30), []
        for t in range(u.size(1)):
            w = self.first + k[:, t]
            q = torch.maximum(p, w)
            e, f = torch.exp(p - q), torch.exp(w - q)
            ys.append((e * top + f * v[:, t]) / (e * bottom + f))
            w = p - torch.exp(self.decay)
            q = torch.maximum(w, k[:, t])
            e, f = torch.exp(w - q), torch.exp(k[:, t] - q)
            top, bottom, p = e * top + f * v[:, t], e * bottom + f, q
        return r * torch.stack(ys, 1)


class ScalarLstm(nn.Module):
    """The sLSTM cell of xLSTM (Beck et al., 2024): exponential gates with a stabiliser."""

    def __init__(self) -> None:
        super().__init__()
        self.w, self.r = nn.Linear(D, 4 * H), nn.Linear(H, 4 * H, bias=False)

    def forward(self, u: Tensor) -> tuple[Tensor, Tensor]:
        h = c = n = m = u.new_zeros(len(u), H)
        ys: list[Tensor] = []
        for ut in u.unbind(1):
            z, i, f, o = (self.w(ut) + self.r(h)).chunk(4, dim=-1)
            f = F.logsigmoid(f)
            new = torch.max(f + m, i)
            i, f = torch.exp(i - new), torch.exp(f + m - new)
            c, n, m = f * c + i * torch.tanh(z), f * n + i, new
            h = torch.sigmoid(o) * c / n.clamp(min=1e-6)
            ys.append(h)
        return torch.stack(ys, 1), h


class Heads(nn.Module):
    """Attention out of products, a mask and softmax; what is added to the scores is the subclass's."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.qkv, self.out = nn.LayerNorm(D), nn.Linear(D, 24), nn.Linear(8, D)

    def forward(self, u: Tensor) -> Tensor:
        b, t, _ = u.shape
        q, k, v = (y.view(b, t, 2, 4).transpose(1, 2) for y in self.qkv(self.norm(u)).chunk(3, dim=-1))
        y = self.attend(q, k, v).transpose(1, 2).contiguous().view(b, t, 8)
        return u + self.out(y)

    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        past = torch.tril(torch.ones(16, 16)).view(1, 1, 16, 16)[:, :, : q.shape[2], : q.shape[2]]
        scores = (q @ k.transpose(-2, -1)) * (1.0 / math.sqrt(k.size(-1)))
        scores = scores.masked_fill(past == 0, float("-inf"))
        return F.dropout(F.softmax(scores, dim=-1), 0.1, self.training) @ v


class Alibi(Heads):
    """A slope a head (Press, Smith and Lewis, 2022), through scaled_dot_product_attention."""

    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        at = torch.arange(q.shape[2])
        bias = (at[None, :] - at[:, None]) * torch.tensor([0.5, 0.25]).to(q).view(2, 1, 1)
        bias = bias.masked_fill(at[None, :] > at[:, None], -math.inf)
        return F.scaled_dot_product_attention(q, k, v, attn_mask=bias)


class Relative(Heads):
    """A window of three positions with a learned bias for each distance."""

    def __init__(self) -> None:
        super().__init__()
        self.distance = nn.Parameter(torch.randn(2, 3))

    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        at = torch.arange(q.shape[2])
        far = at[:, None] - at[None]
        scores = torch.matmul(q, k.transpose(-1, -2)) / math.sqrt(4) + self.distance[:, far.clamp(0, 2)]
        scores = torch.where((far >= 0) & (far < 3), scores, torch.tensor(float("-inf")).to(scores))
        return torch.matmul(torch.softmax(scores, dim=-1), v)


class DiagonalConvolution(nn.Module):
    """S4D (Gu et al., 2022) as its kernel, which complex parameters give: a causal convolution as long as the input."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Parameter(torch.rand(D, 2)), nn.Parameter(torch.rand(D, 2))
        self.c = nn.Parameter(torch.randn(D, 2, 2))

    def forward(self, u: Tensor) -> Tensor:
        length = u.size(1)
        a, c = -torch.exp(self.a) + 1j * self.b, torch.view_as_complex(self.c)
        kernel = 2 * torch.einsum("hn,hnl->hl", c, torch.exp(a.unsqueeze(-1) * torch.arange(length))).real
        y = F.conv1d(F.pad(u.mT, (length - 1, 0)), kernel.flip(-1).unsqueeze(1), groups=D)
        return y.mT


class WrittenLtc(nn.Module):
    """The LTC cell (Hasani et al., 2021) as its first code has it: parameters, a loop over time, unfolds."""

    def __init__(self, n: int = 6) -> None:
        super().__init__()
        self.w, self.mu, self.sigma, self.erev = (nn.Parameter(torch.rand(D + n, n)) for _ in range(4))
        self.leak, self.rest, self.cm = (nn.Parameter(torch.rand(n) + 0.2) for _ in range(3))

    def currents(self, v: Tensor, rows: slice) -> tuple[Tensor, Tensor]:
        gate = torch.sigmoid((3 + self.sigma[rows]) * (v.unsqueeze(-1) - self.mu[rows]))
        active = self.w[rows] * gate
        return torch.sum(active * (2 * self.erev[rows] - 1), dim=1), torch.sum(active, dim=1)

    def forward(self, u: Tensor) -> Tensor:
        v, ys = torch.zeros(len(u), len(self.leak)), []
        for t in range(u.size(1)):
            num, den = self.currents(u[:, t], slice(0, D))
            cm = self.cm / (1.0 / 6)
            for _ in range(6):
                above, below = self.currents(v, slice(D, None))
                v = (cm * v + self.leak * self.rest + above + num) / (cm + self.leak + below + den + 1e-8)
            ys.append(v)
        return torch.stack(ys, dim=1)


class NeuralCde(nn.Module):
    """A neural controlled differential equation (Kidger et al., 2020), by Euler over the increments of its input."""

    def __init__(self) -> None:
        super().__init__()
        self.f = nn.Sequential(nn.Linear(H, 12), nn.ReLU(), nn.Linear(12, H * D), nn.Tanh())
        self.start, self.readout = nn.Parameter(torch.zeros(H)), nn.Linear(H, 1)

    def forward(self, u: Tensor) -> Tensor:
        z, ys = self.start.expand(u.size(0), H), []
        for du in torch.diff(u, dim=1, prepend=torch.zeros_like(u[:, :1])).unbind(1):
            z = z + (self.f(z).view(-1, H, D) @ du.unsqueeze(-1)).squeeze(-1)
            ys.append(self.readout(z))
        return torch.stack(ys, 1)


class MinGru(nn.Module):
    """minGRU (Feng et al., 2024) in its parallel form: a running log-sum-exp."""

    def __init__(self) -> None:
        super().__init__()
        self.z, self.h = nn.Linear(D, H), nn.Linear(D, H)

    def forward(self, u: Tensor) -> Tensor:
        k, v = self.z(u), self.h(u)
        kept, value = (
            torch.cumsum(-F.softplus(k), 1),
            torch.where(v >= 0, (F.relu(v) + 0.5).log(), -F.softplus(-v)),
        )
        return torch.exp(kept + torch.logcumsumexp(value - F.softplus(-k) - kept, dim=1))


class DecayGru(nn.Module):
    """GRU-D (Che et al., 2018): what is missing is NaN, the last value decays to the mean."""

    def __init__(self) -> None:
        super().__init__()
        self.decay, self.cell, self.mean = nn.Linear(D, H), nn.GRUCell(2 * D, H), nn.Parameter(torch.rand(D))

    def forward(self, u: Tensor) -> Tensor:
        h, last, ys = torch.zeros(len(u), H), torch.zeros(len(u), D), []
        for t in range(u.size(1)):
            seen = (~torch.isnan(u[:, t])).to(u.dtype)
            value = torch.nan_to_num(u[:, t])
            last = seen * value + (1 - seen) * last
            value = seen * value + (1 - seen) * 0.5 * (last + self.mean)
            h = self.cell(torch.cat([value, seen], 1), torch.exp(-F.relu(self.decay(seen))) * h)
            ys.append(h)
        return torch.stack(ys, 1)


class DLinear(nn.Module):
    """Trend and remainder (Zeng et al., 2023): a moving average over a padded series, a linear map of each."""

    def __init__(self) -> None:
        super().__init__()
        self.average, self.trend, self.rest = nn.AvgPool1d(5, stride=1), nn.Linear(12, 4), nn.Linear(12, 4)

    def forward(self, u: Tensor) -> Tensor:
        ends = u[:, 0:1, :].repeat(1, 2, 1), u[:, -1:, :].repeat(1, 2, 1)
        trend = self.average(torch.cat([ends[0], u, ends[1]], dim=1).permute(0, 2, 1))
        y = self.trend(trend) + self.rest(u.permute(0, 2, 1) - trend)
        result: Tensor = y.permute(0, 2, 1)
        return result


class PatchTst(nn.Module):
    """Patches of each channel through a transformer (Nie et al., 2023), normalised by the instance."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.place = nn.Linear(4, 8), nn.Parameter(torch.randn(1, 5, 8) * 0.02)
        self.encoder = nn.TransformerEncoderLayer(8, 2, 12, batch_first=True, activation="gelu")
        self.head = nn.Linear(40, 4)

    def forward(self, u: Tensor) -> Tensor:
        mean = u.mean(1, keepdim=True).detach()
        spread = torch.sqrt(torch.var(u, dim=1, keepdim=True, unbiased=False) + 1e-5).detach()
        p = ((u - mean) / spread).permute(0, 2, 1).unfold(-1, 4, 2)
        b, c, n, size = p.shape
        z = self.encoder(self.embed(p.reshape(b * c, n, size)) + self.place)
        y: Tensor = self.head(z.reshape(b, c, -1)).permute(0, 2, 1)
        return y * spread + mean


class Squeezed(nn.Module):
    """Inception's parallel kernels, squeeze and excitation, weights under parametrisations."""

    def __init__(self) -> None:
        super().__init__()
        self.kernels = nn.ModuleList(nn.Conv1d(D, 3, k, padding=k // 2, bias=False) for k in (5, 3, 1))
        self.pool, self.norm = nn.MaxPool1d(3, stride=1, padding=1), nn.BatchNorm1d(9 + D)
        self.average, self.most = nn.AdaptiveAvgPool1d(1), nn.AdaptiveMaxPool1d(2)
        self.down = parametrizations.weight_norm(nn.Linear(9 + D, 4, bias=False))
        self.up = parametrizations.spectral_norm(nn.Linear(4, 9 + D, bias=False))

    def forward(self, u: Tensor) -> Tensor:
        y = F.relu(self.norm(torch.cat([k(u) for k in self.kernels] + [self.pool(u)], 1)))
        w = torch.sigmoid(self.up(F.relu(self.down(self.average(y).squeeze(-1))))).unsqueeze(-1)
        return self.most(y * w.expand_as(y)).flatten(1)


def with_gaps() -> tuple[Tensor]:
    u = torch.randn(B, T, D)
    u[0, 2] = u[1, 4, 1:] = float("nan")
    return (u,)


MODELS: dict[str, tuple[Any, ...]] = {
    "tcn_weight_norm": (Chomped, x(B, D, T), (2,)),
    "mamba": (Mamba, x(B, T, D), (1,)),
    "rwkv": (Rwkv, x(B, T, D), (1,)),
    "slstm": (ScalarLstm, x(B, T, D), (1,)),
    "written_attention": (Heads, x(B, T, D), (1,)),
    "alibi": (Alibi, x(B, T, D), (1,)),
    "relative_attention": (Relative, x(B, T, D), (1,)),
    "s4d_kernel": (DiagonalConvolution, x(B, T, D), (1,)),
    "written_ltc": (WrittenLtc, x(B, T, D), (1,)),
    "neural_cde": (NeuralCde, x(B, T, D), (1,)),
    "min_gru": (MinGru, x(B, T, D), (1,)),
    "gru_d": (DecayGru, with_gaps, (1,)),
    "dlinear": (DLinear, x(B, 12, 3)),
    "patch_tst": (PatchTst, x(B, 12, 3)),
    "squeeze_excite": (Squeezed, x(B, D, 8)),
}
