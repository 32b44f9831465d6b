"""torch's recurrent layers and cells, and hand-written time loops."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from zoo.basic import B, D, H, T, x


class Readout(nn.Module):
    """A recurrent layer, a linear map of its outputs, its final states."""

    def __init__(self, layer: nn.Module, size: int) -> None:
        super().__init__()
        self.layer, self.readout = layer, nn.Linear(size, 3)

    def forward(self, inputs: Tensor, *states: Tensor) -> tuple[Tensor, Any]:
        hx = states[0] if len(states) == 1 else states or None
        y, final = self.layer(inputs, hx)
        return self.readout(y), final


def layer(kind: Any, **settings: Any) -> Callable[[], nn.Module]:
    size = (settings.get("proj_size", 0) or H) * (2 if settings.get("bidirectional") else 1)
    return lambda: Readout(kind(D, H, **settings), size)


class CellLoop(nn.Module):
    """Cells in a Python loop."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm, self.gru, self.rnn = (
            nn.LSTMCell(D, H),
            nn.GRUCell(H, H),
            nn.RNNCell(H, H, nonlinearity="relu"),
        )

    def forward(self, inputs: Tensor) -> Tensor:
        state, g, r = None, None, None
        for t in range(3):
            state = self.lstm(inputs[:, t], state)
            g = self.gru(state[0], g)
            r = self.rnn(g, r)
        assert r is not None
        return r


class UserLoop(nn.Module):
    scale: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.w, self.o = nn.Linear(D + H, H), nn.Linear(H, 2)
        self.register_buffer("scale", torch.tensor(0.5))

    def forward(self, inputs: Tensor, h: Tensor | None = None) -> tuple[Tensor, Tensor]:
        h = inputs.new_zeros(inputs.size(0), H) if h is None else h
        rows = []
        for row in inputs.transpose(0, 1):
            h = h + self.scale * (torch.tanh(self.w(torch.cat([row, h], -1))) - h)
            rows.append(self.o(h))
        return torch.stack(rows, dim=1), h


def states(*shapes: tuple[int, ...]) -> Callable[[], tuple[Tensor, ...]]:
    return lambda: (torch.randn(B, T, D), *(torch.randn(s) for s in shapes))


MODELS: dict[str, tuple[Any, ...]] = {
    "lstm": (layer(nn.LSTM, batch_first=True), x(B, T, D), (1,)),
    "lstm_two_layers": (layer(nn.LSTM, num_layers=2, bias=False), x(T, B, D), (0,)),
    "lstm_projected": (layer(nn.LSTM, proj_size=5, batch_first=True), x(B, T, D), (1,)),
    "lstm_bidirectional": (layer(nn.LSTM, bidirectional=True, num_layers=2, batch_first=True), x(B, T, D)),
    "lstm_states": (layer(nn.LSTM, batch_first=True), states((1, B, H), (1, B, H)), (1, None, None)),
    "lstm_unbatched": (layer(nn.LSTM), x(T, D), (0,)),
    "gru": (layer(nn.GRU, batch_first=True, num_layers=2), x(B, T, D), (1,)),
    "gru_state": (layer(nn.GRU, batch_first=True, bias=False), states((1, B, H)), (1, None)),
    "rnn_tanh": (layer(nn.RNN, batch_first=True), x(B, T, D), (1,)),
    "rnn_relu": (layer(nn.RNN, nonlinearity="relu", bidirectional=True), x(T, B, D)),
    "cell_loop": (CellLoop, x(B, 3, D)),
    "user_loop": (UserLoop, x(B, T, D)),
}
