"""What changes from call to call and cannot be state is refused, by its name and the line that changes it."""

from __future__ import annotations

from collections import deque
from itertools import cycle
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from stateful_models import B, Base, BufferReplaced, D, Smoothed, T
from torch import Tensor, nn

from ltc_compiler.errors import InputError, StreamingError, UnsupportedError
from ltc_torch.fx import prepare_shape
from ltc_torch.fx.nnir import to_nnir
from ltc_torch.fx.state.held import held
from ltc_torch.nn import Scan

pytestmark = pytest.mark.filterwarnings("ignore:module state is carried")


class ListGrows(Base):
    def make(self) -> None:
        self.seen: list[Tensor] = []

    def forward(self, x: Tensor) -> Tensor:
        self.seen.append(x)  # here: seen
        return torch.stack(self.seen).mean(0)


class DequeIsNotFull(Base):
    def make(self) -> None:
        self.seen: deque[Tensor] = deque(maxlen=3)

    def forward(self, x: Tensor) -> Tensor:
        self.seen.append(x)  # here: seen
        return torch.stack(list(self.seen)).mean(0)


class CacheGrows(Base):
    def make(self) -> None:
        self.k: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        self.k = x[None] if self.k is None else torch.cat([self.k, x[None]])  # here: k
        return self.k.mean(0)


class Counter(Base):
    def make(self) -> None:
        self.n = 0

    def forward(self, x: Tensor) -> Tensor:
        self.n += 1  # here: n
        return x / self.n


class CounterAndState(Counter):
    def make(self) -> None:
        self.n, self.calls, self.h = 0, 0, torch.zeros(B, D)

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1  # enters nothing
        self.n += 1  # here: n
        self.h = self.h + x
        return self.h / self.n


class LateCounter(Counter):
    """What the count does shows at the hundredth call."""

    def make(self) -> None:
        self.n, self.h = 0, torch.zeros(B, D)

    def forward(self, x: Tensor) -> Tensor:
        self.n += 1  # here: n
        self.h = torch.zeros(B, D) if self.n % 100 == 0 else self.h + x
        return self.h


class SlowCounter(Counter):
    """Every eighth call, and no number in the code says so."""

    def forward(self, x: Tensor) -> Tensor:
        self.n += 1  # here: n
        return x * float(1 + (self.n >> 3))


class Flag(Counter):
    def make(self) -> None:
        self.started = False

    def forward(self, x: Tensor) -> Tensor:
        y = self.linear(x) if self.started else x
        self.started = True  # here: started
        return y


class Toggle(Counter):
    def make(self) -> None:
        self.odd = False

    def forward(self, x: Tensor) -> Tensor:
        self.odd = not self.odd  # here: odd
        return x if self.odd else -x


class FirstInput(Base):
    """Kept from the first call on, and no constant."""

    def make(self) -> None:
        self.first: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        if self.first is None:
            self.first = x.clone()  # here: first
        return x - self.first


class StartsWithOnes(Base):
    def make(self) -> None:
        self.h: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        h = torch.ones(B, D) if self.h is None else self.h
        self.h = torch.tanh(self.linear(x) + h)  # here: h
        return self.h


class StartsWithTheInput(Base):
    def make(self) -> None:
        self.h: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        self.h = x if self.h is None else 0.9 * self.h + 0.1 * x  # here: h
        return self.h


class ReadsItsState(BufferReplaced):
    def forward(self, x: Tensor) -> Tensor:
        if self.h.sum() > 1:  # here: __bool__
            self.h = self.h * 0
        self.h = self.h + x
        return self.h


class CountsInATensor(BufferReplaced):
    n: Tensor

    def make(self) -> None:
        self.register_buffer("n", torch.tensor(0))

    def forward(self, x: Tensor) -> Tensor:
        self.n += 1
        return x / int(self.n)  # here: __int__


class IndexedByState(BufferReplaced):
    """A cache with the place to write in a tensor."""

    def make(self) -> None:
        self.cache, self.at = torch.zeros(4, B, D), torch.tensor(0)

    def forward(self, x: Tensor) -> Tensor:
        self.cache[self.at] = x  # here: __setitem__
        self.at = (self.at + 1) % 4
        return self.cache.sum(0)


class IndexedByNumber(IndexedByState):
    def make(self) -> None:
        self.cache, self.at = torch.zeros(4, B, D), 0  # type: ignore[assignment]

    def forward(self, x: Tensor) -> Tensor:
        self.cache[self.at] = x
        self.at = (self.at + 1) % 4  # here: at
        return self.cache.sum(0)


class Views(Base):
    def make(self) -> None:
        self.h = torch.zeros(4, B, D)
        self.first = self.h[0]

    def forward(self, x: Tensor) -> Tensor:
        self.h.copy_(torch.roll(self.h, 1, 0))
        self.first.copy_(x)  # here: first
        return self.h.sum(0)


class InAnArray(Base):
    def make(self) -> None:
        self.n = np.zeros(1)

    def forward(self, x: Tensor) -> Tensor:
        self.n += 1  # here: n
        return x * float(self.n[0])


class ThroughAnArray(BufferReplaced):
    def make(self) -> None:
        self.h = torch.zeros(B, D)
        self.view = self.h.numpy()

    def forward(self, x: Tensor) -> Tensor:
        self.view[:] += 1  # here: view
        return x + self.h


class LeavesTheStep(Base):
    """A tensor of a scan's step is kept, and read by the next call."""

    def make(self) -> None:
        self.h = torch.zeros(D)
        self.scan = Scan(self.step)

    def step(self, u: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
        self.h = h + u  # here: h
        return self.h, self.h

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.scan(x, self.h)[0]
        return y


SETTINGS = SimpleNamespace(warmup=507, period=97, coldest=0.2503)  # in no code of a class


class WarmsUp(Counter):
    def make(self) -> None:
        self.n, self.settings = 0, SETTINGS

    def forward(self, x: Tensor) -> Tensor:
        self.n += 1  # here: n
        return x if self.n < self.settings.warmup else 2 * x


class StartsAnewNowAndThen(WarmsUp):
    def make(self) -> None:
        super().make()
        self.h = torch.zeros(B, D)

    def forward(self, x: Tensor) -> Tensor:
        self.n += 1  # here: n
        self.h = 0.5 * self.h + x
        if self.n > 1 and self.n % SETTINGS.period == 0:
            self.h = torch.zeros_like(x)
        return self.h


class CoolsDown(Counter):
    def make(self) -> None:
        self.t = 1.0

    def forward(self, x: Tensor) -> Tensor:
        self.t -= 0.001  # here: t
        return x if 1 - self.t < 1 - SETTINGS.coldest else torch.zeros_like(x)


class Cycles(Counter):
    def make(self) -> None:
        self.gains = cycle([1.0] * 20 + [2.0])

    def forward(self, x: Tensor) -> Tensor:
        return x * next(self.gains)  # here: gains


class InSubmodule(Base):
    def make(self) -> None:
        self.parts = nn.ModuleList([Base(), Counter()])

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.parts[1](x)
        return y


RECORDING: dict[type[Base], tuple[str, str]] = {
    ListGrows: ("seen", "holds 1 tensor after the first call, and 2 after the next"),
    DequeIsNotFull: ("seen", "holds 1 tensor after the first call, and 2 after the next"),
    CacheGrows: (
        "k",
        r"is float32 of shape \(1, 2, 4\) after the first call and float32 of shape \(2, 2, 4\)",
    ),
    Counter: ("n", "is changed by a call, is no tensor, and the result depends on it"),
    CounterAndState: ("n", "is changed by a call, is no tensor, and the result depends on it"),
    LateCounter: ("n", "is changed by a call, is no tensor, and the result depends on it"),
    SlowCounter: ("n", "is changed by a call, is no tensor, and the result depends on it"),
    WarmsUp: ("n", "is changed by a call, is no tensor, and the result depends on it"),
    StartsAnewNowAndThen: ("n", "is changed by a call, is no tensor, and the result depends on it"),
    CoolsDown: ("t", "is changed by a call, is no tensor, and the result depends on it"),
    Cycles: ("gains", "is an iterator, and a call takes an element of it"),
    Flag: ("started", "is changed by a call, is no tensor, and the result depends on it"),
    Toggle: ("odd", "is changed by a call, is no tensor, and the result depends on it"),
    FirstInput: ("first", "is computed from the input of the first call and kept from then on"),
    StartsWithOnes: ("h", "is not there before the first call, and zeros in its place give another result"),
    StartsWithTheInput: (
        "h",
        "is not there before the first call, and zeros in its place give another result",
    ),
    ReadsItsState: ("__bool__", "needs the value of a tensor that depends on the input or on module state"),
    CountsInATensor: ("__int__", "needs the value of a tensor that depends on the input or on module state"),
    IndexedByState: ("__setitem__", "indexing by a tensor that depends on the input or on module state"),
    IndexedByNumber: ("at", "is changed by a call, is no tensor, and the result depends on it"),
    Views: ("first", "is a view of the memory of another state"),
    InAnArray: ("n", "is changed by a call, is no tensor, and the result depends on it"),
    ThroughAnArray: ("view", "is a NumPy view of a tensor's memory, and a call writes into it"),
    LeavesTheStep: ("h", r"is made inside a scan's step \(or an ODE function\) and kept after it"),
    InSubmodule: (r"parts\.1\.n", "is changed by a call, is no tensor, and the result depends on it"),
}


def test_what_has_no_copy_is_said() -> None:
    model = WarmsUp()
    vars(model)["batches"] = (i for i in range(3))
    with pytest.raises(InputError, match=r"cannot pickle 'generator'(.|\n)*take it out of the model"):
        prepare_shape(model.eval(), torch.rand(B, D))


def test_a_count_that_only_reports_is_no_state() -> None:
    class Reports(WarmsUp):
        def forward(self, x: Tensor) -> Tensor:
            self.n += 1
            if self.n % self.settings.warmup == 0:
                self.told = f"{self.n:6d} calls"
            return 2 * x

    assert not to_nnir(prepare_shape(Reports().eval(), torch.rand(B, D))[0]).graph.states


@pytest.mark.parametrize("cls", RECORDING, ids=lambda c: c.__name__)
def test_what_cannot_be_state_is_refused_by_name_and_line(cls: type[Base]) -> None:
    model, x = cls().eval(), torch.rand(B, D)
    before = {path: t.clone() for path, t in held(model).tensors.items()}, held(model).plain
    name, reason = RECORDING[cls]
    with pytest.raises(UnsupportedError) as caught:
        prepare_shape(model, x)
    assert caught.match(f"  {name}: {reason}")
    (entry,) = caught.value.entries
    assert f"here: {name.rpartition('.')[2]}" in entry.where
    assert f"{__file__}:" in entry.where
    assert entry.rewrite
    after = held(model)
    assert after.plain == before[1]
    assert all(torch.equal(t, before[0][path]) for path, t in after.tensors.items())


class Filled(DequeIsNotFull):
    def make(self) -> None:
        self.seen = deque([torch.zeros(B, D)] * 3, maxlen=3)


class CounterInATensor(Base):
    def make(self) -> None:
        self.n = torch.zeros(())

    def forward(self, x: Tensor) -> Tensor:
        self.n = self.n + 1
        return x / self.n


class MadeInInit(StartsWithOnes):
    def make(self) -> None:
        self.h = torch.ones(B, D)


@pytest.mark.parametrize("cls", [Filled, CounterInATensor, MadeInInit], ids=lambda c: c.__name__)
@torch.no_grad()
def test_the_remedies_work(cls: type[Base]) -> None:
    model, x = cls().eval(), torch.rand(B, D)
    nnir = to_nnir(prepare_shape(model, x)[0])
    states = nnir.initial_states()
    for factor in (1, 0.5, -1, 2, 0.1):
        assert torch.allclose(
            torch.from_numpy(nnir.run(x * factor, states=states)).float(), model(x * factor), atol=1e-5
        )


@pytest.mark.parametrize(
    "cls", [ListGrows, Counter, CacheGrows, FirstInput, CountsInATensor], ids=lambda c: c.__name__
)
def test_reset_takes_what_carry_refuses(cls: type[Base]) -> None:
    model, x = cls().eval(), torch.rand(B, D)
    traced, expected = prepare_shape(model, x, module_state="reset")
    nnir = to_nnir(traced)
    for _ in range(2):
        assert torch.allclose(torch.from_numpy(nnir.run(x)).float(), expected, atol=1e-5)


def test_whole_numbers_that_fp32_does_not_hold_are_refused() -> None:
    class Large(CounterInATensor):
        def make(self) -> None:
            self.n = torch.tensor(2**24 + 1)

    with pytest.raises(UnsupportedError, match=r"n: the state n holds whole numbers above 2\^24"):
        to_nnir(prepare_shape(Large().eval(), torch.rand(B, D))[0])


def test_state_outside_of_the_module_is_noticed() -> None:
    kept: list[Tensor] = []

    class Outside(Base):
        def forward(self, x: Tensor) -> Tensor:
            y = x + sum(kept)
            kept.append(x)
            return y

    with pytest.raises(UnsupportedError, match="outside of the model's modules"):
        prepare_shape(Outside().eval(), torch.rand(B, D))


# ---------------------------------------------------------------- streaming


class Difference(Base):
    """What the sequence before ended with stands in front of this one: no loop carries it."""

    def make(self) -> None:
        self.last = torch.zeros(B, 1, D)

    def forward(self, x: Tensor) -> Tensor:
        joined = torch.cat([self.last, x], 1)  # here
        self.last = x[:, -1:]
        return joined[:, 1:] - joined[:, :-1]


class OncePerCall(Base):
    def make(self) -> None:
        self.n = torch.ones(())

    def forward(self, x: Tensor) -> Tensor:
        self.n = self.n + 1
        return x * self.n  # here


class ChangedBehindTheLoop(Smoothed):
    def forward(self, x: Tensor) -> Tensor:
        y = super().forward(x)
        self.mean = self.mean * 0.5  # here
        return y


class OnlyTheEnd(Smoothed):
    """The loop starts from zeros: the state goes through no loop."""

    def forward(self, x: Tensor) -> Tensor:
        before = self.mean
        self.mean = torch.zeros(B, D)
        y = super().forward(x)
        self.mean = self.mean + before  # here
        return y


class WholeSequence(Smoothed):
    def make(self) -> None:
        self.mean, self.before = torch.zeros(B, D), torch.zeros(B, T, D)

    def forward(self, x: Tensor) -> Tensor:
        y = super().forward(x)
        y = y + self.before  # here
        self.before = x
        return y


class EveryOther(Smoothed):
    """The loop begins one step behind the sequence."""

    def forward(self, x: Tensor) -> Tensor:
        y = super().forward(x[:, 1:])  # the loop
        return torch.cat([x[:, :1], y], 1)


STREAMING: dict[type[Base], str] = {
    Difference: "reads the state 'last' as before the sequence, in every step of it",
    OncePerCall: "reads the state 'n' as before the sequence, in every step of it",
    ChangedBehindTheLoop: "the module state 'mean' is not what the loop over time ends with",
    OnlyTheEnd: "the module state 'mean' is not what the loop over time ends with",
    WholeSequence: "reads the state 'before' as before the sequence",
    EveryOther: "",
}


@pytest.mark.parametrize("cls", STREAMING, ids=lambda c: c.__name__)
def test_state_that_no_loop_over_time_carries_does_not_stream(cls: type[Base]) -> None:
    model, x = cls().eval(), torch.rand(B, T, D)
    nnir = to_nnir(prepare_shape(model, x)[0])
    with pytest.raises(StreamingError, match=STREAMING[cls]) as caught:
        nnir.streaming_transform(1)
    assert "module_state='reset'" in caught.value.remedy
    assert __file__ in caught.value.where or "stateful_models.py" in caught.value.where
    if cls is not EveryOther:
        assert "# here" in caught.value.where
