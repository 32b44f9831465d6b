"""LSTMs in the forms that streaming needs: torch's own layer and cell, and a layer whose state goes in and comes out.

A layer over a sequence becomes one step with the state inside the program. Where the host keeps the state itself (many
streams on one machine, say), RecurrentStateLSTM makes it an input and an output. The equations are torch.nn.LSTM's.
"""

from __future__ import annotations

from torch import Tensor, nn


class LSTM(nn.LSTM):
    """torch.nn.LSTM, arguments, weights and results alike; bidirectional layers do not stream.

    Streamed along time its hidden and cell states live in the program, from zeros on; `VM.reset` clears them. Initial
    states that are given, `lstm(x, (h, c))`, stay inputs of the step program, which reads them in its first step.
    """


class LSTMCell(nn.LSTMCell):
    """torch.nn.LSTMCell: one step, x (batch, input) and (h, c) to (h, c). In a loop over time, put it into a Scan."""


class RecurrentStateLSTM(nn.Module):
    """An LSTM over a piece of a sequence, whose state the caller keeps: `y, state = lstm(x, state)`.

    Pieces one after the other give what the whole sequence gives. A program of it keeps nothing between runs: the
    states are inputs and outputs.

    Args:
        input_size: features of the input.
        hidden_size: features of the state.
        num_layers: layers on top of each other.
        bias: as for nn.LSTM.
        batch_first: whether the input is (batch, time, features) or (time, batch, features).
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        *,
        bias: bool = True,
        batch_first: bool = True,
    ) -> None:
        super().__init__()
        self.lstm = nn.LSTM(input_size, hidden_size, num_layers, bias=bias, batch_first=batch_first)

    def initial_state(self, batch: int) -> tuple[Tensor, Tensor]:
        """The state of zeros, in the type and on the device of the weights.

        Args:
            batch: the size of the batch.

        Returns:
            (h, c), each (num_layers, batch, hidden_size).
        """
        shape = (self.lstm.num_layers, batch, self.lstm.hidden_size)
        like = next(self.lstm.parameters())
        return like.new_zeros(shape), like.new_zeros(shape)

    def forward(
        self,
        input: Tensor,  # noqa: A002 - torch's name
        state: tuple[Tensor, Tensor] | None = None,
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """The layer over a piece of a sequence.

        Args:
            input: (batch, time, input_size), or as batch_first says.
            state: (h, c), each (num_layers, batch, hidden_size); zeros if None.

        Returns:
            The hidden states, (batch, time, hidden_size) or as batch_first says, and the state behind the piece.
        """
        batch = input.shape[0 if self.lstm.batch_first else 1]
        output, state = self.lstm(input, self.initial_state(batch) if state is None else state)
        return output, state
