"""Small models that keep state from call to call, in every form in which people write it.

Each class takes x of shape (2, 4), or (2, 6, 4) where it is in SEQUENCES; NAMES says what its state is called.
"""

from __future__ import annotations

import weakref
from collections import OrderedDict, deque
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, NamedTuple

import ncps.torch
import ncps.wirings
import torch
from torch import Tensor, nn

B, T, D = 2, 6, 4


class Base(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(D, D)
        self.make()

    def make(self) -> None:
        pass


# ---------------------------------------------------------------- buffers


class BufferReplaced(Base):
    h: Tensor

    def make(self) -> None:
        self.register_buffer("h", torch.zeros(B, D))

    def forward(self, x: Tensor) -> Tensor:
        self.h = torch.tanh(self.linear(x) + 0.5 * self.h)
        return self.h


class BufferCopied(BufferReplaced):
    def forward(self, x: Tensor) -> Tensor:
        y = torch.tanh(self.linear(x) + 0.5 * self.h)
        self.h.copy_(y)
        return y * 2


class BufferSliced(BufferReplaced):
    def forward(self, x: Tensor) -> Tensor:
        self.h[:] = torch.tanh(self.linear(x) + 0.5 * self.h)
        return self.h + 1


class BufferInSteps(BufferReplaced):
    def forward(self, x: Tensor) -> Tensor:
        self.h.mul_(0.9).add_(x, alpha=0.1)
        self.h += 0.01
        return self.linear(self.h)


class BufferByData(BufferReplaced):
    def forward(self, x: Tensor) -> Tensor:
        y = x - self.h
        self.h.data.copy_(x)
        return y


class StateIsReturned(BufferReplaced):
    """A delay of one call: what is returned is what the call before left."""

    def forward(self, x: Tensor) -> Tensor:
        before = self.h
        self.h = x
        return before


class NotAtZero(BufferReplaced):
    def make(self) -> None:
        self.register_buffer("h", torch.linspace(-1, 1, B * D).reshape(B, D), persistent=False)


class WiderThanItStarts(BufferReplaced):
    """One row at first, a row for each of the batch after a call."""

    def make(self) -> None:
        self.register_buffer("h", torch.full((1, D), 0.3))


class HalfOfIt(BufferReplaced):
    def forward(self, x: Tensor) -> Tensor:
        self.h[:, :2] = x[:, 2:] + self.h[:, 2:]
        self.h[:, 2:] = torch.tanh(x[:, :2])
        return self.h * 1.0


# ---------------------------------------------------------------- attributes


class NoneFirst(Base):
    def make(self) -> None:
        self.h: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        h = torch.zeros(B, D) if self.h is None else self.h
        self.h = torch.tanh(self.linear(x) + 0.5 * h)
        return self.h


class NoneAndTheCell(Base):
    """torch's cells take None for zeros."""

    def make(self) -> None:
        self.cell = nn.GRUCell(D, D)
        self.h: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        self.h = self.cell(x, self.h)
        return self.linear(self.h)


class MissingFirst(Base):
    h: Tensor

    def forward(self, x: Tensor) -> Tensor:
        if not hasattr(self, "h"):
            self.h = torch.zeros_like(x)
        self.h = 0.5 * self.h + x
        return self.h


class NumberFirst(Base):
    def make(self) -> None:
        self.mem: Any = 0.25

    def forward(self, x: Tensor) -> Tensor:
        self.mem = 0.9 * self.mem + self.linear(x)
        return self.mem


class Leaky(Base):
    """A spiking cell: the membrane is reset where it crosses the threshold."""

    def make(self) -> None:
        self.mem = torch.zeros(B, D)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        self.mem = 0.8 * self.mem + x
        spikes = (self.mem > 0.7).float()
        self.mem = self.mem - 0.7 * spikes
        return spikes, self.mem


class Tuple(Base):
    def make(self) -> None:
        self.cell = nn.LSTMCell(D, 5)
        self.hx = (torch.zeros(B, 5), torch.zeros(B, 5))

    def forward(self, x: Tensor) -> Tensor:
        self.hx = self.cell(x, self.hx)
        return self.hx[0]


class TupleFromNone(Tuple):
    def make(self) -> None:
        self.cell = nn.LSTMCell(D, 5)
        self.hx: Any = None


class Pair(NamedTuple):
    h: Tensor
    c: Tensor


class Named(Tuple):
    def make(self) -> None:
        self.cell = nn.LSTMCell(D, 5)
        self.hx: Any = Pair(torch.zeros(B, 5), torch.ones(B, 5))

    def forward(self, x: Tensor) -> Tensor:
        self.hx = Pair(*self.cell(x, self.hx))
        return self.hx.h


class Parameter(Base):
    """Fast weights: a call changes a parameter."""

    def make(self) -> None:
        self.w = nn.Parameter(torch.eye(D) * 0.3)

    def forward(self, x: Tensor) -> Tensor:
        y = torch.tanh(self.linear(x)) * self.w.sum(0)
        with torch.no_grad():
            self.w.mul_(0.9)
            self.w.add_(y.mean(0))
        return y


class Detached(Base):
    def make(self) -> None:
        self.h = torch.zeros(B, D)

    def forward(self, x: Tensor) -> Tensor:
        y = self.linear(x) + self.h
        self.h = torch.tanh(y).detach().clone()
        return y


# ---------------------------------------------------------------- containers and objects


class InDict(Base):
    def make(self) -> None:
        self.cache = {"k": torch.zeros(B, D), "v": torch.zeros(B, D)}

    def forward(self, x: Tensor) -> Tensor:
        self.cache["k"] = 0.5 * self.cache["k"] + x
        self.cache["v"].add_(self.cache["k"])
        return self.cache["v"] * 0.1


class EmptyDict(Base):
    def make(self) -> None:
        self.memory: dict[int, Tensor] = OrderedDict()

    def forward(self, x: Tensor) -> Tensor:
        self.memory[0] = self.memory.get(0, torch.zeros(B, D)) * 0.5 + x
        return self.linear(self.memory[0])


class InList(Base):
    def make(self) -> None:
        self.h = [torch.zeros(B, D) for _ in range(3)]

    def forward(self, x: Tensor) -> Tensor:
        for i in range(3):
            self.h[i] = torch.tanh(self.h[i] + self.linear(x) * (i + 1) / 3)
            x = self.h[i]
        return x


class Deque(Base):
    """A history of full length: the oldest goes, the newest comes."""

    def make(self) -> None:
        self.last = deque([torch.zeros(B, D)] * 3, maxlen=3)

    def forward(self, x: Tensor) -> Tensor:
        self.last.append(x)
        return torch.stack(list(self.last)).sum(0) / 3 - self.last[0]


@dataclass(frozen=True)
class Track:
    place: Tensor
    speed: Tensor


class InFrozen(Base):
    """An alpha-beta filter."""

    def make(self) -> None:
        self.track = Track(torch.zeros(B, D), torch.zeros(B, D))

    def forward(self, x: Tensor) -> Tensor:
        place = self.track.place + self.track.speed
        self.track = Track(place + 0.5 * (x - place), self.track.speed + 0.1 * (x - place))
        return self.track.place


@dataclass
class Memory:
    mean: Tensor = field(default_factory=lambda: torch.zeros(B, D))
    count: int = 0


class InDataclass(Base):
    def make(self) -> None:
        self.memory = Memory()

    def forward(self, x: Tensor) -> Tensor:
        self.memory.count += 1  # enters nothing
        self.memory.mean = 0.9 * self.memory.mean + 0.1 * x
        return x - self.memory.mean


class Normaliser:
    """A plain object that keeps tensors."""

    def __init__(self) -> None:
        self.parts = SimpleNamespace(mean=torch.zeros(D), var=torch.ones(D))

    def __call__(self, x: Tensor) -> Tensor:
        self.parts.mean = 0.9 * self.parts.mean + 0.1 * x.mean(0)
        self.parts.var = 0.9 * self.parts.var + 0.1 * (x - self.parts.mean).square().mean(0)
        return (x - self.parts.mean) / (self.parts.var + 1e-2).sqrt()


class InObject(Base):
    def make(self) -> None:
        self.normalise = Normaliser()

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(self.normalise(x))


class InSubmodules(Base):
    def make(self) -> None:
        self.encoder = nn.Sequential(NoneFirst(), BufferCopied())
        self.heads = nn.ModuleDict({"a": NumberFirst()})

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.heads["a"](self.encoder(x))
        return y


class UnregisteredModules(Base):
    def make(self) -> None:
        self.cells = [BufferReplaced().eval(), BufferReplaced().eval()]

    def forward(self, x: Tensor) -> Tensor:
        for cell in self.cells:
            x = cell(x)
        return x


# ---------------------------------------------------------------- histories and statistics


class Rolled(Base):
    """An FIR filter over the last calls, its history by torch.roll."""

    def make(self) -> None:
        self.history = torch.zeros(5, B, D)
        self.taps = torch.tensor([0.5, 0.25, 0.125, 0.0625, 0.0625])[:, None, None]

    def forward(self, x: Tensor) -> Tensor:
        self.history = torch.roll(self.history, 1, 0)
        self.history[0] = x
        return (self.history * self.taps).sum(0)


class Concatenated(Rolled):
    def forward(self, x: Tensor) -> Tensor:
        self.history = torch.cat([x[None], self.history[:-1]])
        return (self.history * self.taps).sum(0)


class Shifted(Rolled):
    def forward(self, x: Tensor) -> Tensor:
        self.history[1:] = self.history[:-1].clone()
        self.history[0] = x
        return (self.history * self.taps).sum(0)


class Cache(Base):
    """Attention over the keys and values of the last four calls."""

    def make(self) -> None:
        self.k, self.v = torch.zeros(B, 4, D), torch.zeros(B, 4, D)

    def forward(self, x: Tensor) -> Tensor:
        self.k = torch.cat([self.k[:, 1:], self.linear(x)[:, None]], 1)
        self.v = torch.cat([self.v[:, 1:], x[:, None]], 1)
        scores = (self.k * x[:, None]).sum(-1).softmax(-1)
        return (scores[..., None] * self.v).sum(1)


class RunningMean(Base):
    """Mean and count in tensors; the count is a whole number."""

    num_batches_tracked: Tensor
    mean: Tensor

    def make(self) -> None:
        self.register_buffer("num_batches_tracked", torch.tensor(0))
        self.register_buffer("mean", torch.zeros(D))

    def forward(self, x: Tensor) -> Tensor:
        self.num_batches_tracked.add_(1)
        self.mean += (x.mean(0) - self.mean) / self.num_batches_tracked
        return x - self.mean


class Welford(Base):
    def make(self) -> None:
        self.n, self.mean, self.m2 = torch.zeros(()), torch.zeros(B, D), torch.zeros(B, D)

    def forward(self, x: Tensor) -> Tensor:
        self.n = self.n + 1
        delta = x - self.mean
        self.mean = self.mean + delta / self.n
        self.m2 = self.m2 + delta * (x - self.mean)
        return (x - self.mean) / (self.m2 / self.n + 0.1).sqrt()


class Peak(Base):
    """Changes only where the input is larger than all before."""

    def make(self) -> None:
        self.peak = torch.full((B, D), 0.5)

    def forward(self, x: Tensor) -> Tensor:
        self.peak = torch.maximum(self.peak, x)
        return x / self.peak


class Held(Base):
    """Sample and hold: the gate decides whether the state is replaced."""

    def make(self) -> None:
        self.value, self.gate = torch.zeros(B, D), torch.zeros(B, D, dtype=torch.bool)

    def forward(self, x: Tensor) -> Tensor:
        self.value = torch.where(self.gate, self.value, x)
        self.gate = self.value > 0
        return self.value


class Kept(Base):
    """ncps with its hidden state kept."""

    def make(self) -> None:
        torch.manual_seed(0)
        self.cfc = ncps.torch.CfC(D, ncps.wirings.AutoNCP(8, 2), batch_first=True)
        self.hx: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        y, self.hx = self.cfc(x, self.hx)
        return y


class KeptLtc(Kept):
    def make(self) -> None:
        torch.manual_seed(0)
        self.cfc = ncps.torch.LTC(D, ncps.wirings.AutoNCP(8, 2), batch_first=True)
        self.hx = torch.zeros(B, 8)


class KeptLstm(Base):
    """The commonest of all."""

    def make(self) -> None:
        self.lstm = nn.LSTM(D, 5, 2, batch_first=True)
        self.h: Any = None

    def forward(self, x: Tensor) -> Tensor:
        y, self.h = self.lstm(x, self.h)
        return y


class KeptGru(Base):
    h: Tensor

    def make(self) -> None:
        self.gru = nn.GRU(D, 5, batch_first=True)
        self.register_buffer("h", torch.zeros(1, B, 5))

    def forward(self, x: Tensor) -> Tensor:
        y, h = self.gru(x, self.h)
        self.h.copy_(h)
        return y


class LoopOverTime(BufferReplaced):
    def forward(self, x: Tensor) -> Tensor:
        rows = []
        for t in range(x.shape[1]):
            self.h = torch.tanh(self.linear(x[:, t]) + 0.5 * self.h)
            rows.append(self.h)
        return torch.stack(rows, 1)


class Smoothed(Base):
    """An exponential moving average along the sequence, which goes on with the next one."""

    def make(self) -> None:
        self.mean = torch.zeros(B, D)

    def forward(self, x: Tensor) -> Tensor:
        rows = []
        for t in range(x.shape[1]):
            self.mean = 0.9 * self.mean + 0.1 * x[:, t]
            rows.append(x[:, t] - self.mean)
        return self.linear(torch.stack(rows, 1))


class FromTheLastOutput(KeptGru):
    """The state in another layout, and read off the outputs."""

    def make(self) -> None:
        self.gru = nn.GRU(D, 5, batch_first=True)
        self.register_buffer("h", torch.zeros(B, 5))

    def forward(self, x: Tensor) -> Tensor:
        y, _ = self.gru(x, self.h[None])
        self.h = y[:, -1]
        return y


class LayersInOneTensor(Base):
    def make(self) -> None:
        self.cells = nn.ModuleList([nn.GRUCell(D, D) for _ in range(2)])
        self.h = torch.zeros(2, B, D)

    def forward(self, x: Tensor) -> Tensor:
        rows = []
        for t in range(x.shape[1]):
            u = x[:, t]
            for i, cell in enumerate(self.cells):
                self.h[i] = cell(u, self.h[i])
                u = self.h[i]
            rows.append(u.clone())
        return torch.stack(rows, 1)


class Bookkeeping(Base):
    """What is kept and never read is no state: a log of the last result, a cached mask, a count of calls."""

    def make(self) -> None:
        self.calls, self.h = 0, torch.zeros(B, D)
        self.scale, self.is_scaled = torch.full((D,), 4.0), False
        self.mask: Tensor | None = None
        self.last = self.h

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        if self.mask is None:
            self.mask = (torch.arange(D) % 2).float()
        self.h = 0.5 * self.h + self.mask * x
        if not self.is_scaled:  # once, by the first call
            self.scale, self.is_scaled = self.scale / self.scale.norm(), True
        self.last = self.linear(self.h) * self.scale
        return self.last


class NoElementsFirst(Base):
    """A spiking cell whose membrane takes its shape from the first input."""

    def make(self) -> None:
        self.mem = torch.zeros(0)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        if self.mem.shape != x.shape:
            self.mem = torch.zeros_like(x)
        self.mem = 0.9 * self.mem + 2 * self.linear(x) - (self.mem > 1).float()
        return (self.mem > 1).float(), self.mem


class OwnAttributes(Base):
    """States in a dict of the module's own, behind its attributes."""

    v: Any

    def make(self) -> None:
        self._memories: dict[str, Any] = {"v": 0.0}

    def __getattr__(self, name: str) -> Any:
        memories = self.__dict__.get("_memories", {})
        return memories[name] if name in memories else super().__getattr__(name)

    def __setattr__(self, name: str, value: Any) -> None:
        memories = self.__dict__.get("_memories", {})
        if name in memories:
            memories[name] = value
        else:
            super().__setattr__(name, value)

    def forward(self, x: Tensor) -> Tensor:
        self.v = 0.5 * self.v + self.linear(x)
        return torch.tanh(self.v)


class NoneBuffer(Base):
    h: Tensor | None

    def make(self) -> None:
        self.register_buffer("h", None)

    def forward(self, x: Tensor) -> Tensor:
        self.h = x if self.h is None else x + 0.5 * self.h
        return self.h * 2


class TwoNames(Base):
    """One tensor under two names, written through one and read through the other."""

    def make(self) -> None:
        self.h = torch.zeros(B, D)
        self.states = [self.h]

    def forward(self, x: Tensor) -> Tensor:
        self.states[0].mul_(0.5).add_(x)
        return self.linear(self.h)


class Slots:
    __slots__ = ("h",)

    def __init__(self) -> None:
        self.h = torch.zeros(B, D)


class InSlots(Base):
    def make(self) -> None:
        self.kept = Slots()

    def forward(self, x: Tensor) -> Tensor:
        self.kept.h = 0.5 * self.kept.h + x
        return self.kept.h


class ByHook(Base):
    """A hook keeps what a layer gave, for the next call."""

    def make(self) -> None:
        self.kept = {"before": torch.zeros(B, D)}
        self.linear.register_forward_hook(self.keep)

    def keep(self, module: nn.Module, inputs: Any, output: Tensor) -> None:
        self.kept["before"] = output

    def forward(self, x: Tensor) -> Tensor:
        before = self.kept["before"]
        y: Tensor = self.linear(x) + before
        return y


class ReadByClosure(Base):
    """A function that the model holds reads it by a closure, through another function and a default."""

    def make(self) -> None:
        self.h = torch.zeros(B, D)

        def before() -> Tensor:
            return self.h

        self.mixed: list[Any] = [lambda x, model=self: torch.tanh(model.linear(x) + 0.5 * before())]

    def forward(self, x: Tensor) -> Tensor:
        self.h = self.mixed[0](x)
        return self.h


class ChangedByClosure(Base):
    def make(self) -> None:
        self.h = torch.zeros(B, D)
        self.linear.register_forward_hook(lambda module, inputs, output: self.keep(output))

    def keep(self, output: Tensor) -> Tensor:
        self.h = 0.5 * self.h + output
        return self.h

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.linear(x)
        return y


class WeakParent(Base):
    def make(self) -> None:
        self.h, self.part = torch.zeros(B, D), nn.Identity()
        vars(self.part)["parent"] = weakref.ref(self)

    def forward(self, x: Tensor) -> Tensor:
        parent: Any = self.part.parent
        self.h = 0.5 * parent().h + x
        return self.h


class Biquad(Base):
    def make(self) -> None:
        self.z1: Any = 0.0
        self.z2: Any = 0.0

    def forward(self, x: Tensor) -> Tensor:
        y = 0.2 * x + self.z1
        self.z1 = 0.3 * x - 0.5 * y + self.z2
        self.z2 = 0.2 * x - 0.1 * y
        return y


class Inference(NoneFirst):
    @torch.inference_mode()
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x).clone()


class DataAssigned(BufferReplaced):
    def forward(self, x: Tensor) -> Tensor:
        y = 0.5 * self.h + x
        self.h.data = y
        return self.linear(y)


class Logged(Base):
    """A list of all results grows, and no call reads it."""

    def make(self) -> None:
        self.h, self.log = torch.zeros(B, D), [torch.zeros(B, D)]

    def forward(self, x: Tensor) -> Tensor:
        self.h = 0.5 * self.h + x
        self.log.append(self.h)
        return self.h


SEQUENCES = (
    Kept, KeptLtc, KeptLstm, KeptGru, LoopOverTime, Smoothed, FromTheLastOutput, LayersInOneTensor,
)  # fmt: skip
NAMES: dict[type[Base], str] = {
    BufferReplaced: "h",
    BufferCopied: "h",
    BufferSliced: "h",
    BufferInSteps: "h",
    BufferByData: "h",
    StateIsReturned: "h",
    NotAtZero: "h",
    WiderThanItStarts: "h",
    HalfOfIt: "h",
    NoneFirst: "h",
    NoneAndTheCell: "h",
    MissingFirst: "h",
    NumberFirst: "mem",
    Leaky: "mem",
    Tuple: "hx[0] hx[1]",
    TupleFromNone: "hx[0] hx[1]",
    Named: "hx.c hx.h",
    Parameter: "w",
    Detached: "h",
    InDict: "cache.k cache.v",
    EmptyDict: "memory[0]",
    InList: "h[0] h[1] h[2]",
    Deque: "last[1] last[2]",
    InDataclass: "memory.mean",
    InFrozen: "track.place track.speed",
    InObject: "normalise.parts.mean normalise.parts.var",
    InSubmodules: "encoder.0.h encoder.1.h heads.a.mem",
    UnregisteredModules: "cells[0].h cells[1].h",
    Rolled: "history",
    Concatenated: "history",
    Shifted: "history",
    Cache: "k v",
    RunningMean: "mean num_batches_tracked",
    Welford: "m2 mean n",
    Peak: "peak",
    Held: "gate value",
    Kept: "hx",
    KeptLtc: "hx",
    KeptLstm: "h[0] h[1]",
    KeptGru: "h",
    LoopOverTime: "h",
    Smoothed: "mean",
    FromTheLastOutput: "h",
    LayersInOneTensor: "h",
    Bookkeeping: "h",
    NoElementsFirst: "mem",
    OwnAttributes: "_memories.v",
    TwoNames: "h",
    InSlots: "kept.h",
    ByHook: "kept.before",
    ReadByClosure: "h",
    ChangedByClosure: "h",
    WeakParent: "h",
    Biquad: "z1 z2",
    Inference: "h",
    DataAssigned: "h",
    Logged: "h",
    NoneBuffer: "h",
}
