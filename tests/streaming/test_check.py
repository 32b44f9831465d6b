"""Short examples: streamed rightly, or refused with the length that tells; and `ltc_torch.stream`, which compares a
step with the module on a sequence longer than the example."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ncps.torch
import numpy as np
import onnx
import pytest
import torch
from onnx_cases import recurrent_node
from torch import Tensor, nn
from torch.nn import functional as F

import ltc_torch
from ltc_compiler import NNIR, Config
from ltc_compiler.errors import GraphError, StreamingError
from ltc_torch.fx import prepare_shape
from ltc_torch.fx.nnir import to_nnir
from ltc_torch.nn import GatedLTC, PaddedConv1d, Scan

D, LONG = 4, 12


class Calls(nn.Module):
    """A function of a layer and the input as a model."""

    def __init__(self, f: Callable[[Any, Tensor], Tensor], layer: nn.Module) -> None:
        super().__init__()
        self.f, self.layer = f, layer

    def forward(self, x: Tensor) -> Tensor:
        return self.f(self.layer, x)


def first(layer: Any, x: Tensor) -> Tensor:
    y: Tensor = layer(x)[0]
    return y


def scanned(layer: Any, x: Tensor) -> Tensor:
    def step(u: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
        h = layer(u) + 0.5 * h
        return h, h

    y: Tensor = Scan(step)(x, x.new_zeros(x.shape[0], D), 1, 1)[0]
    return y


def looped(layer: Any, x: Tensor) -> Tensor:
    h, states = x.new_zeros(x.shape[0], D), []
    for t in range(x.shape[1]):
        h = torch.tanh(layer(x[:, t]) + h)
        states.append(h)
    return torch.stack(states, 1)


def attended(layer: Any, x: Tensor) -> Tensor:
    q = layer(x)
    return F.scaled_dot_product_attention(q, q, q, is_causal=True)


def linear() -> nn.Module:
    return nn.Linear(D, D)


# name: (function, layer, lengths of examples that are refused); all others stream rightly
MODELS: dict[str, tuple[Callable[[Any, Tensor], Tensor], Callable[[], nn.Module], tuple[int, ...]]] = {
    "LSTM": (first, lambda: nn.LSTM(D, 8, 2, batch_first=True), ()),
    "LSTM, time first": (lambda m, x: m(x.transpose(0, 1))[0].transpose(0, 1), lambda: nn.LSTM(D, 8), ()),
    "GRU": (first, lambda: nn.GRU(D, 8, batch_first=True), ()),
    "RNN": (first, lambda: nn.RNN(D, 8, batch_first=True), ()),
    "final state": (lambda m, x: m(x)[1][0], lambda: nn.LSTM(D, 8, batch_first=True), ()),
    "ncps LTC": (first, lambda: ncps.torch.LTC(D, 8), ()),
    "ncps CfC": (first, lambda: ncps.torch.CfC(D, 8), ()),
    "GatedLTC": (first, lambda: GatedLTC(D, 8), ()),
    "Scan": (scanned, linear, ()),
    "cumsum": (lambda m, x: m(x).cumsum(1), linear, ()),
    "convolution": (lambda m, x: m(x.mT).mT, lambda: PaddedConv1d(D, 3, 5), (1,)),
    "average of 4": (lambda m, x: F.avg_pool1d(F.pad(m(x).mT, (3, 0)), 4, 1).mT, linear, (1,)),
    "maximum of 4": (lambda m, x: F.max_pool1d(F.pad(m(x).mT, (3, 0)), 4, 1).mT, linear, (1,)),
    "lag of 3": (lambda m, x: x + F.pad(m(x), (0, 0, 3, 0))[:, : x.shape[1]], linear, (1,)),
    "unfolded window": (lambda m, x: F.pad(m(x).mT, (2, 0)).unfold(2, 3, 1).sum(-1).mT, linear, (1,)),
    "last step": (lambda m, x: m(x)[:, -1], linear, (1,)),
    "last state": (lambda m, x: m(x)[0][:, -1], lambda: nn.GRU(D, 8, batch_first=True), (1,)),
    "difference from the first": (lambda m, x: m(x) - x[:, :1], linear, (1,)),
    "last minus first": (lambda m, x: m(x[:, -1]) - x[:, 0], linear, (1, 2)),
    "loop": (looped, linear, (1, 2)),
    "both directions": (first, lambda: nn.GRU(D, 8, batch_first=True, bidirectional=True), (1, 2, 3, 5)),
    "unbatched": (lambda m, x: m(x[0])[0][None], lambda: nn.LSTM(D, 8), (1,)),
    "attention": (attended, linear, (1, 2, 3, 5)),
}


def run_on(step: NNIR, axis: Any, x: Tensor) -> np.ndarray:
    """The outputs of all steps of the machine, or the last one where time has no axis."""
    vm = step.to_program(Config.small_c2b16(), quick_compile=True).to_vm(bit_accurate=False)
    found = [vm.run(x[:, t]) for t in range(x.shape[1])]
    return found[-1] if axis is None else np.stack(found, axis)


@pytest.mark.parametrize("name", MODELS)
def test_a_short_example_streams_rightly_or_is_refused(name: str) -> None:
    f, layer, refused = MODELS[name]
    torch.manual_seed(len(name))
    model, x = Calls(f, layer()).eval(), torch.randn(1, LONG, D)
    expected = model(x).detach().numpy()
    for steps in (1, 2, 3, 5):
        nnir = to_nnir(prepare_shape(model, x[:, :steps].contiguous())[0])
        if steps in refused:
            with pytest.raises(StreamingError) as caught:
                nnir.streaming_transform(1)
            assert caught.value.remedy
            continue
        step, axis = nnir.streaming_transform(1)
        np.testing.assert_allclose(run_on(step, axis, x), expected, atol=1e-5, err_msg=f"{steps} steps")


def test_the_remedy_for_a_short_example_works() -> None:
    for f, layer, _ in (MODELS[name] for name in ("loop", "lag of 3", "last minus first", "unbatched")):
        model, steps = Calls(f, layer()).eval(), 1
        for _ in range(3):
            try:
                to_nnir(prepare_shape(model, torch.randn(1, steps, D))[0]).streaming_transform(1)
                break
            except StreamingError as error:
                needed = int(error.remedy.split("an example of ")[1].split()[0])
                assert needed > steps
                steps = needed
        else:
            pytest.fail("no length that a remedy names is long enough")


# ---------------------------------------------------------------- context


def test_attention_takes_the_context_that_is_asked_for() -> None:
    model, x = Calls(attended, linear()).eval(), torch.randn(1, LONG, D)
    traced, _ = prepare_shape(model, x[:, :5].contiguous())
    with pytest.raises(StreamingError, match="can keep a fixed number") as caught:
        to_nnir(traced).streaming_transform(1)
    assert "context=5" in caught.value.remedy
    q = model.layer(x)
    for context in (3, 5, 9):
        step, axis = to_nnir(traced, context=context).streaming_transform(1)
        mask = torch.ones(LONG, LONG).tril().triu(1 - context) > 0
        expected = F.scaled_dot_product_attention(q, q, q, attn_mask=mask).detach().numpy()
        np.testing.assert_allclose(run_on(step, axis, x), expected, atol=1e-5, err_msg=str(context))
    whole = to_nnir(traced).run(x[:, :5].numpy())
    np.testing.assert_array_equal(whole, to_nnir(traced, context=5).run(x[:, :5].numpy()))
    with pytest.raises(GraphError, match="context is 0"):
        to_nnir(traced, context=0)


# ---------------------------------------------------------------- ltc_torch.stream


@pytest.mark.parametrize("name", [n for n, (*_, refused) in MODELS.items() if 5 not in refused])
def test_stream_hands_out_what_agrees_with_the_module(name: str) -> None:
    f, layer, _ = MODELS[name]
    model = Calls(f, layer()).eval()
    before = torch.random.get_rng_state()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        step, _ = ltc_torch.stream(model, torch.randn(1, 5, D, generator=torch.Generator()), axis=1)
    assert step.graph.input_streaming_dims == (1,)
    assert torch.equal(before, torch.random.get_rng_state())


def test_stream_checks_outputs_that_come_late() -> None:
    x = torch.randn(1, 6, D)
    step, axis = ltc_torch.stream(
        Calls(lambda m, x: m(x.mT).mT, nn.Conv1d(D, 3, 3, padding=1)).eval(), x, axis=1
    )
    assert (step.graph.output_latencies, axis) == ((1,), 1)


def test_stream_takes_several_inputs_and_outputs() -> None:
    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.ltc = GatedLTC(D, 5)

        def forward(self, x: Tensor, scale: dict[str, Tensor], elapsed: Tensor) -> dict[str, Tensor]:
            states, last = self.ltc(x * scale["all"], elapsed=elapsed)
            return {"states": states, "last": last}

    given = torch.randn(1, 6, D), {"all": torch.ones(D)}, torch.rand(1, 6)
    step, axes = ltc_torch.stream(Model().eval(), *given, axis=(1, None, 1))
    assert axes == (1, None)
    assert step.initial_states()


@pytest.mark.parametrize(
    ("f", "match"),
    [
        (lambda m, x: m(x) + (x.shape[1] > 7), "output 'y0' of step 0 is"),
        (lambda m, x: m(x) * x.shape[1], "output 'y0' of step 0 is"),
        (lambda m, x: m(x) + F.pad(x[:, :6], (0, 0, 0, x.shape[1] - 6)), "output 'y0' of step 6 is"),
    ],
)
def test_stream_names_the_first_step_that_differs(f: Any, match: str) -> None:
    model, x = Calls(f, linear()).eval(), torch.randn(1, 6, D)
    with pytest.raises(StreamingError, match=match) as caught:
        ltc_torch.stream(model, x, axis=1)
    assert "an example of 6 steps" in str(caught.value)
    assert ltc_torch.stream(model, x, axis=1, check=False)[1] == 1


def test_a_fault_of_the_streaming_transform_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A state that starts with another value than the whole sequence gives it."""
    right = NNIR.streaming_transform

    def wrong(self: NNIR, *given: Any) -> Any:
        step, dims = right(self, *given)
        for state in step.graph.states:
            state.initial = state.initial + 0.5
        return step, dims

    monkeypatch.setattr(NNIR, "streaming_transform", wrong)
    with pytest.raises(StreamingError, match="of step 0 is"):
        ltc_torch.stream(Calls(first, nn.GRU(D, 8, batch_first=True)).eval(), torch.randn(1, 6, D), axis=1)


def test_a_fault_behind_the_end_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Padding of a sequence's end that nothing puts there."""
    right = NNIR.streaming_transform

    def wrong(self: NNIR, *given: Any) -> Any:
        step, dims = right(self, *given)
        step.graph.end_marker = ""
        return step, dims

    model = nn.Sequential(nn.Conv1d(D, D, 3, padding=1), nn.Sigmoid(), nn.Conv1d(D, D, 3, padding=1)).eval()
    ltc_torch.stream(model, torch.randn(1, D, LONG), axis=2)
    monkeypatch.setattr(NNIR, "streaming_transform", wrong)
    with pytest.raises(StreamingError, match=r"of step [0-9]+ is"):
        ltc_torch.stream(model, torch.randn(1, D, LONG), axis=2)


def test_what_takes_no_longer_sequence_is_said_to_be_unchecked() -> None:
    table = Calls(lambda m, x: m(x) + x.view(1, 6, D), linear()).eval()
    with pytest.warns(
        UserWarning, match="not checked on sequences longer than the example: it takes no sequence"
    ):
        ltc_torch.stream(table, torch.randn(1, 6, D), axis=1)
    with pytest.warns(UserWarning, match="a context of 4 shows no more than the example"):
        ltc_torch.stream(Calls(attended, linear()).eval(), torch.randn(1, 6, D), axis=1, context=4)


# ---------------------------------------------------------------- ONNX


@pytest.mark.parametrize(("operator", "gates"), [("LSTM", 4), ("GRU", 3), ("RNN", 1), ("Scan", 0)])
def test_a_recurrent_node_of_one_step_streams(operator: str, gates: int, tmp_path: Path) -> None:
    """As exporters that write the example's lengths down leave it: (time, batch, features)."""
    models = {steps: recurrent_node(operator, gates, steps, D) for steps in (1, LONG)}
    for steps, model in models.items():
        onnx.save(model, tmp_path / f"{steps}.onnx")
    whole, one = (NNIR.from_onnx(tmp_path / f"{steps}.onnx") for steps in (LONG, 1))
    x = np.random.default_rng(0).standard_normal((LONG, 1, D)).astype(np.float32)
    step, axis = one.streaming_transform(0)
    assert axis == 0
    vm = step.to_program(Config.small_c2b16(), quick_compile=True).to_vm(bit_accurate=False)
    found = np.stack([vm.run(x[t]) for t in range(LONG)])
    np.testing.assert_allclose(found, whole.run(x), atol=1e-5)
