"""docs/add-a-front-end.md, run as printed; each layer of its front end against torch's, and what it refuses."""

from __future__ import annotations

import contextlib
import io
import re
from typing import Any

import numpy as np
import pytest
import torch
from folders import DOCS
from torch import nn
from torch.nn import functional as F

from ltc_compiler import Config, UnsupportedError

DOCUMENT = DOCS / "add-a-front-end.md"


def page(language: str) -> str:
    (block,) = re.findall(rf"^```{language}\n(.*?)^```$", DOCUMENT.read_text(encoding="utf-8"), re.M | re.S)
    return str(block)


@pytest.fixture(scope="module")
def guide() -> dict[str, Any]:
    """What the page defines, and what it prints."""
    printed, names = io.StringIO(), {"__name__": "guide"}
    with contextlib.redirect_stdout(printed):
        exec(compile(page("python"), str(DOCUMENT), "exec"), names)
    return {**names, "printed": printed.getvalue()}


def array(tensor: Any, *dims: int) -> Any:
    return tensor.detach().permute(dims or tuple(range(tensor.ndim))).tolist()


def test_the_page_prints_what_it_says(guide: dict[str, Any]) -> None:
    assert guide["printed"] == page("text")


@pytest.mark.parametrize("activation", ["linear", "relu", "silu", "gelu", "softplus", "softsign", "softmax"])
def test_dense_is_torchs(guide: dict[str, Any], activation: str) -> None:
    own, x = nn.Linear(5, 7).double(), torch.randn(6, 5, dtype=torch.float64)
    layer = {"class": "dense", "name": "d", "kernel": array(own.weight, 1, 0), "bias": array(own.bias)}
    nnir = guide["read_layers"]([{**layer, "activation": activation}], (6, 5), "m.json")
    function = {"linear": lambda y: y, "softmax": lambda y: y.softmax(-1)}.get(activation) or getattr(
        F, activation
    )
    np.testing.assert_allclose(nnir.run(x.numpy()), function(own(x)).detach().numpy(), rtol=1e-12, atol=1e-12)


def test_layers_over_time_are_torchs_and_stream(guide: dict[str, Any]) -> None:
    conv, rnn = nn.Conv1d(3, 4, 3).double(), nn.RNN(4, 5).double()
    rnn.load_state_dict({**rnn.state_dict(), "bias_hh_l0": torch.zeros(5)})  # the layer has one bias
    layers = [
        {"class": "conv1d", "name": "c", "kernel": array(conv.weight, 2, 1, 0), "bias": array(conv.bias)},
        {"class": "simple_rnn", "name": "r", "activation": "tanh", "kernel": array(rnn.weight_ih_l0, 1, 0),
         "recurrent_kernel": array(rnn.weight_hh_l0, 1, 0), "bias": array(rnn.bias_ih_l0)},
    ]  # fmt: skip
    nnir = guide["read_layers"](layers, (12, 3), "m.json")
    x = torch.randn(12, 3, dtype=torch.float64)
    wanted = rnn(conv(F.pad(x.T, (2, 0))).T)[0].detach().numpy()
    np.testing.assert_allclose(nnir.run(x.numpy()), wanted, rtol=1e-12, atol=1e-12)
    step, _ = nnir.streaming_transform(0)
    np.testing.assert_allclose(step.run_timesteps(x.numpy()), wanted, rtol=1e-12, atol=1e-12)
    program, given = step.to_program(Config.tiny_c2b8()), x.numpy().astype(np.float32)
    streamed = program.to_vm().run_timesteps(given)
    assert streamed.tobytes() == program.to_oracle().run_timesteps(given).tobytes()


def test_every_layer_that_is_refused_is_named(guide: dict[str, Any]) -> None:
    own = nn.Linear(5, 5)
    dense = {"class": "dense", "name": "d", "kernel": array(own.weight), "bias": array(own.bias)}
    layers = [{**dense, "activation": "maxout"}, {"class": "lstm", "name": "l"}, dense]
    with pytest.raises(
        UnsupportedError,
        match=r"2 operations(.|\n)*'maxout'(.|\n)*one of relu(.|\n)*'lstm'(.|\n)*one of dense",
    ):
        guide["read_layers"](layers, (6, 5), "m.json")
