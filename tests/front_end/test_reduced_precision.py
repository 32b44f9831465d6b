"""Models in bf16 or fp16, and under autocast: recorded in fp32, near what PyTorch computes, or refused by the dtype."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from ltc_compiler import Config, InputError, UnsupportedError
from ltc_torch.fx import prepare_shape
from ltc_torch.fx.nnir import to_nnir
from ltc_torch.nn import GatedLTC

X = torch.randn(2, 6, 4, generator=torch.Generator().manual_seed(1))
KINDS = (torch.bfloat16, torch.float16)


class First(nn.Module):
    """The outputs of a layer that returns its states, too."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.layer(x)[0]
        return y


class Autocast(nn.Module):
    def __init__(self, kind: torch.dtype = torch.bfloat16) -> None:
        super().__init__()
        self.kind = kind
        self.linear, self.lstm = nn.Linear(4, 4), nn.LSTM(4, 8, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        with torch.autocast("cpu", dtype=self.kind):
            y: Tensor = self.lstm(torch.tanh(self.linear(x)))[0]
        return y.float() * 2


MODELS: dict[str, Callable[[], nn.Module]] = {
    "lstm": lambda: First(nn.LSTM(4, 8, batch_first=True)),
    "gru": lambda: First(nn.GRU(4, 16, batch_first=True)),
    "mlp": lambda: nn.Sequential(nn.Linear(4, 16), nn.GELU(), nn.LayerNorm(16), nn.Linear(16, 3)),
    "ltc": lambda: First(GatedLTC(4, 8)),
}


@pytest.mark.parametrize("kind", KINDS, ids=str)
@pytest.mark.parametrize("name", MODELS)
def test_a_model_of_reduced_precision_is_one_in_fp32_with_its_weights(name: str, kind: torch.dtype) -> None:
    torch.manual_seed(0)
    model = MODELS[name]().eval().to(kind)
    graph_module, returned = prepare_shape(model, X.to(kind))
    assert returned.dtype == kind, "what PyTorch returns"
    assert next(model.parameters()).dtype == kind, "the model stays as it is"
    nnir = to_nnir(graph_module)
    with torch.no_grad():
        wanted = model.float()(X.to(kind).float())
    np.testing.assert_allclose(nnir.run(X.to(kind).float().numpy()), wanted.numpy(), rtol=1e-5, atol=1e-5)
    tolerance = 0.03 * float(wanted.abs().max())
    np.testing.assert_allclose(returned.float().numpy(), wanted.numpy(), atol=tolerance)
    vm = nnir.to_program(Config.v80_c6b32(), quick_compile=True).to_vm()
    np.testing.assert_allclose(vm.run(X.to(kind).float()), returned.float().numpy(), atol=tolerance)


def test_autocast_is_recorded_as_if_it_were_not_there() -> None:
    torch.manual_seed(0)
    model = Autocast().eval()
    graph_module, returned = prepare_shape(model, X)
    with torch.no_grad():
        np.testing.assert_array_equal(returned.numpy(), model(X).numpy())
        model.kind = torch.float32  # which autocast does not know: it warns, and does nothing
        with pytest.warns(UserWarning, match="autocast"):
            wanted = model(X)
    assert not torch.equal(returned, wanted)
    np.testing.assert_allclose(to_nnir(graph_module).run(X.numpy()), wanted.numpy(), rtol=1e-5, atol=1e-5)


def test_an_autocast_region_around_the_recording() -> None:
    model = nn.Linear(4, 4).eval()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        graph_module, returned = prepare_shape(model, X)
        assert torch.is_autocast_enabled("cpu")
    assert returned.dtype == torch.bfloat16
    with torch.no_grad():
        np.testing.assert_allclose(
            to_nnir(graph_module).run(X.numpy()), model(X).numpy(), rtol=1e-5, atol=1e-6
        )


class Converting(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x.to(torch.bfloat16)).float()


def test_a_conversion_in_forward_is_refused_by_its_type() -> None:
    with pytest.raises(InputError, match=r"(?s)is in torch.bfloat16.*model.float\(\)"):
        prepare_shape(Converting().bfloat16().eval(), X)

    class Half(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.half() * 2

    with pytest.raises(UnsupportedError, match=r"conversion to torch.float16"):
        to_nnir(prepare_shape(Half().eval(), X)[0])


def test_fp64_is_recorded_as_it_is() -> None:
    model = nn.Linear(4, 3).double().eval()
    graph_module, returned = prepare_shape(model, X.double())
    assert returned.dtype == torch.float64
    np.testing.assert_allclose(
        to_nnir(graph_module).run(X.double().numpy()), returned.detach().numpy(), rtol=1e-12
    )
