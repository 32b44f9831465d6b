"""torch.nn's recurrent layers and cells as scans over time, their documented equations in torch operations.

Layers, both directions, projections, missing biases, batch_first, unbatched inputs and initial states are covered.
The input's part of the gates is one matmul over the whole sequence or inside the step, as the compiler decides.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.rnn import PackedSequence

from ltc_torch.fx.record.active import current
from ltc_torch.fx.record.sources import refuse
from ltc_torch.fx.record.structured import scan
from ltc_torch.fx.registry import rewrite

# (input gates, recurrent gates, states) -> new states; the first of them is the output
Cell = Callable[[Tensor, Tensor, list[Tensor]], list[Tensor]]


def lstm(gi: Tensor, gh: Tensor, states: list[Tensor]) -> list[Tensor]:
    i, f, g, o = (gi + gh).chunk(4, -1)
    c = torch.sigmoid(f) * states[1] + torch.sigmoid(i) * torch.tanh(g)
    return [torch.sigmoid(o) * torch.tanh(c), c]


def gru(gi: Tensor, gh: Tensor, states: list[Tensor]) -> list[Tensor]:
    (ri, zi, ni), (rh, zh, nh) = gi.chunk(3, -1), gh.chunk(3, -1)
    r, z = torch.sigmoid(ri + rh), torch.sigmoid(zi + zh)
    n = torch.tanh(ni + r * nh)
    return [n + z * (states[0] - n)]


def rnn_tanh(gi: Tensor, gh: Tensor, states: list[Tensor]) -> list[Tensor]:
    return [torch.tanh(gi + gh)]


def rnn_relu(gi: Tensor, gh: Tensor, states: list[Tensor]) -> list[Tensor]:
    return [torch.relu(gi + gh)]


CELLS: dict[str, Cell] = {"LSTM": lstm, "GRU": gru, "RNN_TANH": rnn_tanh, "RNN_RELU": rnn_relu}


@rewrite(nn.LSTM)
@rewrite(nn.GRU)
@rewrite(nn.RNN)
def layers(module: Any, input: Tensor, hx: Any = None) -> Any:
    """The forward of nn.LSTM, nn.GRU and nn.RNN."""
    recorder = current()
    assert recorder is not None
    if isinstance(input, PackedSequence):
        raise refuse(
            "PackedSequence", recorder.session.module, "lengths vary within a batch", "one padded tensor"
        )
    batched = input.dim() == 3
    x = input if batched else input.unsqueeze(1)
    if batched and module.batch_first:
        x = x.transpose(0, 1)
    two = module.mode == "LSTM"
    given = None if hx is None else list(hx) if two else [hx]
    if given is not None and not batched:
        given = [s.unsqueeze(1) for s in given]
    sizes = [module.proj_size or module.hidden_size, module.hidden_size][: 2 if two else 1]
    finals: list[list[Tensor]] = []
    for layer in range(module.num_layers):
        outputs = []
        for reverse in (False, True)[: 2 if module.bidirectional else 1]:
            states = [x.new_zeros(x.shape[1], size) for size in sizes]
            if given is not None:
                states = [s[len(finals)] for s in given]
            part = [f"layer{layer}"] * (module.num_layers > 1) + ["reverse"] * reverse
            with recorder.session.part(".".join(part)):
                suffix = f"_l{layer}" + ("_reverse" if reverse else "")
                output, final = _layer(module, x, states, suffix, reverse)
            outputs.append(output)
            finals.append(final)
        x = torch.cat(outputs, -1) if len(outputs) > 1 else outputs[0]
    stacked = [torch.stack(column) for column in zip(*finals, strict=True)]
    if not batched:
        x, stacked = x.squeeze(1), [s.squeeze(1) for s in stacked]
    elif module.batch_first:
        x = x.transpose(0, 1)
    return x, (tuple(stacked) if two else stacked[0])


def _layer(
    module: Any, x: Tensor, states: list[Tensor], suffix: str, reverse: bool
) -> tuple[Tensor, list[Tensor]]:
    """One direction of one layer over x (time, batch, features)."""
    cell = CELLS[module.mode]
    w_ih, w_hh = getattr(module, "weight_ih" + suffix), getattr(module, "weight_hh" + suffix)
    b_ih: Any = getattr(module, "bias_ih" + suffix) if module.bias else None
    b_hh: Any = getattr(module, "bias_hh" + suffix) if module.bias else None
    w_hr = getattr(module, "weight_hr" + suffix) if module.proj_size else None
    if module.bias and module.mode != "GRU":  # GRU multiplies its recurrent bias by a gate
        b_ih, b_hh = None, b_ih + b_hh

    def step(carries: list[Tensor], slices: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        new = cell(F.linear(slices[0], w_ih, b_ih), F.linear(carries[0], w_hh, b_hh), carries)
        if w_hr is not None:
            new[0] = F.linear(new[0], w_hr)
        return new, [new[0]]

    xs = [x.flip(0) if reverse else x]
    final, (output,) = scan(step, states, xs, length=x.shape[0], names=("h", "c"))
    return (output.flip(0) if reverse else output), final


@rewrite(nn.LSTMCell)
@rewrite(nn.GRUCell)
@rewrite(nn.RNNCell)
def one_step(module: Any, input: Tensor, hx: Any = None) -> Any:
    """The forward of nn.LSTMCell, nn.GRUCell and nn.RNNCell."""
    two = isinstance(module, nn.LSTMCell)
    mode = (
        "LSTM" if two else "GRU" if isinstance(module, nn.GRUCell) else f"RNN_{module.nonlinearity.upper()}"
    )
    if hx is None:
        zeros = input.new_zeros(*input.shape[:-1], module.hidden_size)
        hx = (zeros, zeros)
    states = list(hx) if isinstance(hx, (tuple, list)) else [hx]
    b_ih: Any = module.bias_ih
    b_hh: Any = module.bias_hh
    if module.bias and mode != "GRU":
        b_ih, b_hh = None, b_ih + b_hh
    gates = F.linear(input, module.weight_ih, b_ih), F.linear(states[0], module.weight_hh, b_hh)
    new = CELLS[mode](*gates, states)
    return tuple(new) if two else new[0]
