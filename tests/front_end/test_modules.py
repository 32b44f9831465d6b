"""What stands around a model: containers as the root, wrappers, subclasses of known layers, and failures of our own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import ncps.torch
import ncps.wirings
import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations, parametrize

from ltc_compiler.errors import FaultError, InputError, UnsupportedError
from ltc_compiler.nnir import NNIR
from ltc_torch.fx import lowering, prepare_shape, registry
from ltc_torch.fx.nnir import to_nnir
from zoo.basic import Apply

D, H = 3, 4
X = torch.randn(2, 5, D, generator=torch.Generator().manual_seed(4))


class First(nn.Module):
    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, *inputs: Tensor) -> Any:
        y = self.layer(*inputs)
        return y[0] if isinstance(y, tuple) else y


class ThroughDict(nn.ModuleDict):
    def forward(self, x: Tensor) -> Tensor:
        for layer in self.values():
            x = layer(x)[0] if isinstance(layer, nn.RNNBase) else layer(x)
        return x


class ThroughList(nn.ModuleList):
    def forward(self, x: Tensor) -> Tensor:
        for layer in self:
            x = layer(x)[0]
        return x


class ThroughParameters(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.gru = nn.GRU(D, D, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        for name, parameter in self.named_parameters():
            x = self.gru(x)[0] + parameter.sum() * len(name)
        return x


class Halved(nn.GRUCell):
    def forward(self, x: Tensor, h: Tensor) -> Tensor:  # type: ignore[override]
        return 0.5 * super().forward(x, h) + 0.5 * h


class Doubled(nn.LSTM):
    def forward(self, x: Tensor) -> Tensor:  # type: ignore[override]
        y: Tensor = 2 * super().forward(x)[0]
        return y


class OfItsOwn(nn.RNNCellBase):
    def __init__(self) -> None:
        super().__init__(D, H, bias=True, num_chunks=1)

    def forward(self, x: Tensor, h: Tensor) -> Tensor:
        return torch.tanh(x @ self.weight_ih.T + h @ self.weight_hh.T + self.bias_ih)


class Deeper(Halved):
    """Two subclasses deep, the last without a forward."""


class Standardized(nn.Conv1d):
    def _conv_forward(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return super()._conv_forward(x, weight - weight.mean(), bias)


class Faster(ncps.torch.LTCCell):  # type: ignore[misc]
    """A known cell with another body for what its forward calls."""

    def _ode_solver(self, inputs: Tensor, state: Tensor, elapsed_time: Any) -> Tensor:
        y: Tensor = super()._ode_solver(inputs, state, elapsed_time) * 0.5
        return y


class Scale(nn.Module):
    def forward(self, w: Tensor) -> Tensor:
        return 2 * w


def parametrized(layer: nn.Module, name: str) -> nn.Module:
    parametrize.register_parametrization(layer, name, Scale())
    return layer


def compiled(layer: nn.Module) -> nn.Module:
    made: Any = torch.compile(layer)
    return made


def compiled_in_place(layer: nn.Module) -> nn.Module:
    layer.compile()
    return layer


def patched(layer: nn.Module) -> nn.Module:
    old = layer.forward
    layer.forward = lambda *inputs: old(*inputs) * 2
    return layer


def gru() -> nn.Module:
    return nn.GRU(D, H, batch_first=True)


def linear() -> nn.Module:
    return nn.Linear(D, H)


STATES = (X[:, 0], torch.ones(2, H))
MODELS: dict[str, tuple[Callable[[], nn.Module], tuple[Tensor, ...]]] = {
    "Sequential": (lambda: nn.Sequential(First(nn.LSTM(D, H, batch_first=True)), nn.Linear(H, 2)), (X,)),
    "ModuleDict": (lambda: ThroughDict({"a": linear(), "b": nn.GRU(H, H, batch_first=True)}), (X,)),
    "ModuleList": (lambda: ThroughList([gru(), nn.GRU(H, H, batch_first=True)]), (X,)),
    "parameters walked through": (ThroughParameters, (X,)),
    "compiled": (lambda: compiled(nn.Sequential(linear())), (X,)),
    "compiled layer as the model": (lambda: compiled(gru()), (X,)),
    "compiled inside": (lambda: First(compiled(gru())), (X,)),
    "compiled in place": (lambda: compiled_in_place(First(compiled_in_place(linear()))), (X,)),
    "DataParallel": (lambda: nn.DataParallel(First(nn.DataParallel(gru()))), (X,)),
    "AveragedModel": (lambda: torch.optim.swa_utils.AveragedModel(First(gru())), (X,)),
    "weight_norm": (lambda: First(parametrizations.weight_norm(linear())), (X,)),
    "spectral_norm": (lambda: First(parametrizations.spectral_norm(linear())), (X,)),
    "parametrized layer": (lambda: parametrized(gru(), "weight_hh_l0"), (X,)),
    "a cell's subclass": (lambda: First(Halved(D, H)), STATES),
    "a subclass of it": (lambda: Deeper(D, H), STATES),
    "a layer's subclass": (lambda: First(Doubled(D, H, batch_first=True)), (X,)),
    "a cell of the base class": (OfItsOwn, STATES),
    "a convolution's subclass": (lambda: First(Standardized(5, 2, 2)), (X,)),
    "a subclass of ncps": (
        lambda: First(Faster(ncps.wirings.AutoNCP(H + 3, 2), D)),
        (X[:, 0], torch.ones(2, H + 3)),
    ),
    "a patched forward": (lambda: First(patched(First(gru()))), (X,)),
}


def check(model: nn.Module, *inputs: Tensor) -> NNIR:
    graph_module, _ = prepare_shape(model.eval(), *inputs)
    nnir = to_nnir(graph_module)
    others = [0.7 * x + 0.1 for x in inputs]
    wanted = model(*others)
    wanted = list(wanted) if isinstance(wanted, tuple) else [wanted]
    found = nnir.run(*(x.numpy() for x in others))
    for a, b in zip(found if isinstance(found, tuple) else [found], wanted, strict=True):
        np.testing.assert_allclose(a, b.detach().numpy(), atol=1e-5)
    return nnir


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_a_model_is_recorded_as_it_is_wrapped(name: str) -> None:
    torch.manual_seed(0)
    make, inputs = MODELS[name]
    check(make(), *inputs)


def test_wrappers_leave_no_trace_in_names() -> None:
    nnir = check(compiled(First(nn.DataParallel(linear()))), X)
    assert {v.source.module for v in nnir.graph.nodes} == {"layer"}


def test_a_known_layer_below_a_subclass_is_one_loop() -> None:
    nnir = check(Doubled(D, H, batch_first=True), X)
    assert [n.op for n in nnir.graph.nodes].count("scan") == 1


def test_a_lowering_may_call_the_forward_that_it_replaces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "REWRITES", dict(registry.REWRITES))
    lowering(First)(lambda module, *inputs: First.forward(module, *inputs) * 1)
    check(nn.Sequential(First(gru())), X)


def test_a_lazy_module_must_have_been_called() -> None:
    model = nn.Sequential(nn.LazyLinear(H))
    with pytest.raises(InputError, match=r"0\.weight, 0\.bias.*no values") as caught:
        prepare_shape(model.eval(), X)
    assert "call the model once" in caught.value.remedy
    model(X)
    check(model, X)


def test_an_input_without_elements_is_refused() -> None:
    with pytest.raises(InputError, match=r"\(0, 3\) has no elements"):
        prepare_shape(nn.Linear(D, H).eval(), torch.empty(0, D))


@pytest.mark.parametrize("settings", [{}, {"dilation": (1, 2), "padding": (1, 0), "stride": (1, 2)}])
def test_patches_of_images(settings: dict[str, Any]) -> None:
    image = torch.randn(1, 2, 5, 9, generator=torch.Generator().manual_seed(1))
    check(Apply(lambda x: F.unfold(x, (2, 3), **settings)), image)
    patches = F.unfold(image, (2, 3), **settings)
    check(Apply(lambda x: F.fold(x, (5, 9), (2, 3), **settings)), patches)
    check(nn.Sequential(nn.Unfold((2, 3), **settings), nn.Fold((5, 9), (2, 3), **settings)), image[0])


def test_pixels_and_channels_are_shuffled() -> None:
    image = torch.arange(2 * 12 * 4 * 6.0).reshape(2, 12, 4, 6)
    shuffles = [
        nn.PixelShuffle(2),
        nn.PixelUnshuffle(2),
        nn.ChannelShuffle(3),
        Apply(
            lambda x: (F.pixel_shuffle(x, 1), F.pixel_shuffle(x[0], 2), F.channel_shuffle(x.flatten(2), 4))
        ),
    ]
    for model in shuffles:
        check(model, image / 100)


# ---------------------------------------------------------------- failures


def test_what_the_model_raises_is_raised_as_it_is() -> None:
    def fails(x: Tensor) -> Tensor:
        raise KeyError("the model's own")

    with pytest.raises(KeyError, match="the model's own"):
        prepare_shape(Apply(fails).eval(), X)


def test_a_failure_of_the_recorder_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(self: Any, *_: Any) -> None:
        raise IndexError("a list of ours")

    monkeypatch.setattr("ltc_torch.fx.record.inplace.Writes.call", broken)
    with pytest.raises(FaultError, match="recording fails with IndexError: a list of ours") as caught:
        prepare_shape(Apply(lambda x: (x * 1).add_(1)).eval(), X)
    assert "test_modules.py" in caught.value.where
    assert "report it" in caught.value.remedy


def test_a_failure_of_a_converter_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any, **__: Any) -> None:
        raise ZeroDivisionError

    monkeypatch.setitem(registry.FUNCTIONS, "relu", broken)
    graph_module, _ = prepare_shape(Apply(lambda x: x.relu() + torch.special.bessel_j1(x)).eval(), X)
    with pytest.raises(UnsupportedError, match="its converter fails with ZeroDivisionError") as caught:
        to_nnir(graph_module)
    assert len(caught.value.entries) == 2
    assert "test_modules.py" in caught.value.entries[0].where


def test_inputs_are_called_as_forward_calls_them() -> None:
    """Also of a layer whose forward a recording catches, and of one that takes any number of arguments."""

    class Open(nn.Module):
        def forward(self, x: Tensor, *more: Tensor, **settings: Any) -> Tensor:
            return x + more[0]

    x = torch.randn(1, 5, 3)
    models = (
        (nn.GRU(3, 4), (x,), ["input"]),
        (nn.LSTM(3, 4), (x, None), ["input"]),
        (Open(), (x, x), ["x", "input_1"]),
    )
    for model, inputs, names in models:
        nnir = to_nnir(prepare_shape(model.eval(), *inputs)[0])
        assert [value.name for value in nnir.graph.inputs] == names
    assert "__signature__" not in vars(nn.GRU.forward)
