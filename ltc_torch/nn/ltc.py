"""A gated liquid time-constant layer: a neural ODE per time step, solved by torchdiffeq with a fixed number of steps.

    dh/dt = (-h + W [x, h] * sigmoid(Wg [x, h])) / tau

The input is held during a step, so its share of W and Wg is one matmul per step, outside of the solver. Elapsed time
scales the right-hand side, and the solver runs over [0, 1]: every sample may have its own. The time constants are kept
positive by a softplus. Source: Hasani et al., Liquid Time-constant Networks (2021), with a gate in the place of the
conductance.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchdiffeq import odeint

from ltc_torch.fx.record.structured import elapsed_time
from ltc_torch.nn.scan import Scan


class GatedLTCCell(nn.Module):
    """One time step of a gated LTC.

    Args:
        input_size: features of the input.
        hidden_size: features of the state.
        method: a fixed-step method of torchdiffeq: euler, midpoint, heun2, heun3 or rk4.
        steps: solver steps per time step, at least 1; else ValueError.
    """

    def __init__(self, input_size: int, hidden_size: int, *, method: str = "euler", steps: int = 4) -> None:
        super().__init__()
        if steps < 1:
            raise ValueError(f"steps is {steps}, expected at least 1")
        self.input_size, self.hidden_size = input_size, hidden_size
        self.method, self.steps = method, steps
        self.input = nn.Linear(
            input_size, 2 * hidden_size
        )  # the input's share of W and Wg, with their biases
        self.recurrent = nn.Linear(hidden_size, 2 * hidden_size, bias=False)  # the state's
        self.raw_tau = nn.Parameter(torch.full((hidden_size,), 0.5413))  # softplus gives 1

    @property
    def tau(self) -> Tensor:
        """The time constants (hidden_size), in the unit of elapsed times."""
        return F.softplus(self.raw_tau)

    def forward(self, x: Tensor, h: Tensor, elapsed: Tensor | None = None) -> Tensor:
        """The state after a time step.

        Args:
            x: the input, (batch, input_size).
            h: the state, (batch, hidden_size).
            elapsed: the time since the step before, a scalar, (batch) or (batch, 1); 1 if None.

        Returns:
            The new state, (batch, hidden_size).
        """
        held = self.input(x)
        rate = 1 / self.tau
        if elapsed is not None:
            elapsed = elapsed_time(elapsed)
            rate = rate * (elapsed.unsqueeze(-1) if elapsed.dim() == 1 else elapsed)

        def derivative(t: Tensor, state: Tensor) -> Tensor:
            value, gate = (held + self.recurrent(state)).chunk(2, -1)
            return (value * torch.sigmoid(gate) - state) * rate

        t = torch.linspace(0.0, 1.0, self.steps + 1, dtype=h.dtype)
        solution: Tensor = odeint(derivative, h, t, method=self.method)
        return solution[-1]


class GatedLTC(nn.Module):
    """A gated LTC over a sequence. The layer has no readout; put a Linear on its states.

    Args:
        input_size: features of the input.
        hidden_size: features of the state.
        method: as for GatedLTCCell.
        steps: as for GatedLTCCell.
        batch_first: whether sequences are (batch, time, features) or (time, batch, features).
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        *,
        method: str = "euler",
        steps: int = 4,
        batch_first: bool = True,
    ) -> None:
        super().__init__()
        self.cell = GatedLTCCell(input_size, hidden_size, method=method, steps=steps)
        self.batch_first = batch_first
        self.scan = Scan(self._step)

    def _step(self, x: tuple[Tensor, ...], h: Tensor) -> tuple[Tensor, Tensor]:
        h = self.cell(x[0], h, *x[1:])
        return h, h

    def forward(
        self, x: Tensor, h: Tensor | None = None, elapsed: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """The states over a sequence.

        Args:
            x: the inputs, (batch, time, input_size), or as batch_first says.
            h: the initial state, (batch, hidden_size); zeros if None.
            elapsed: the time since the step before, of every step: (batch, time), or as batch_first says; 1 if None.

        Returns:
            The states, (batch, time, hidden_size) or as batch_first says, and the final state, (batch, hidden_size).
        """
        axis = 1 if self.batch_first else 0
        if h is None:
            h = x.new_zeros(x.shape[1 - axis], self.cell.hidden_size)
        xs = (x,) if elapsed is None else (x, elapsed)
        states, final = self.scan(xs, h, input_axis=axis, output_axis=axis)
        return states, final
