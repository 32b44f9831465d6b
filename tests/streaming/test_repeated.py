"""A conditioning input that forward repeats for every step of a sequence is the same in every step, and streams."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from ltc_compiler import Config
from ltc_compiler.errors import StreamingError
from ltc_torch.fx import prepare_shape
from ltc_torch.fx.nnir import to_nnir
from zoo.basic import Apply

B, T, D, P = 2, 6, 4, 3
W = torch.randn(5, P, generator=torch.Generator().manual_seed(2))


def repeated(p: Tensor, steps: int) -> Tensor:
    """(B, steps, P)."""
    return p.unsqueeze(1).repeat(1, steps, 1)


# what each makes of p (B, P) for a number of steps, (B, steps, any)
FORMS: dict[str, Callable[[Tensor, int], Tensor]] = {
    "repeat": repeated,
    "expand": lambda p, n: p[:, None].expand(-1, n, -1),
    "repeat_interleave": lambda p, n: p[:, None].repeat_interleave(n, 1),
    "stack": lambda p, n: torch.stack([p] * n, 1),
    "time first": lambda p, n: p[None].repeat(n, 1, 1).transpose(0, 1),
    "broadcast by zeros": lambda p, n: torch.zeros(B, n, P) + p[:, None],
    "a layer behind it": lambda p, n: torch.tanh(repeated(p, n) @ W.T + 0.5),
    "reductions": lambda p, n: (
        repeated(p, n).softmax(-1) + repeated(p, n).transpose(0, 1).amax(2).T[..., None]
    ),
    "slices and joins": lambda p, n: torch.cat([repeated(p, n + 2)[:, 1:-1, :2], repeated(-p, n)], 2),
    "merged with features": lambda p, n: repeated(p, n).reshape(B, n, 1, P).expand(-1, -1, 2, -1).flatten(2),
    "two of them": lambda p, n: torch.where(repeated(p, n) > 0, repeated(p * 2, n), repeated(p.flip(1), n)),
}


class Conditioned(nn.Module):
    def __init__(self, form: Callable[[Tensor, int], Tensor]) -> None:
        super().__init__()
        self.form = form
        self.lstm = nn.LSTM(D + form(torch.zeros(B, P), 1).shape[2], 5, batch_first=True)

    def forward(self, x: Tensor, p: Tensor) -> Tensor:
        y: Tensor = self.lstm(torch.cat([x, self.form(p, x.shape[1])], 2))[0]
        return y


@pytest.mark.parametrize("form", FORMS)
def test_what_is_repeated_is_the_same_in_every_step(form: str) -> None:
    torch.manual_seed(8)
    model, x, p = Conditioned(FORMS[form]).eval(), torch.randn(B, T, D), torch.randn(B, P)
    nnir = to_nnir(prepare_shape(model, x, p)[0])
    step, _ = nnir.streaming_transform((1, None))
    program = step.to_program(Config.tiny_c2b8(), quick_compile=True)
    whole = nnir.to_program(Config.tiny_c2b8(), quick_compile=True).to_vm().run(x.numpy(), p.numpy())
    assert np.array_equal(whole, program.to_vm().run_timesteps(x.numpy(), p.numpy()))
    longer = torch.randn(B, 2 * T, D)
    found = program.to_vm(bit_accurate=False).run_timesteps(longer.numpy(), p.numpy())
    np.testing.assert_allclose(found, model(longer, p).detach().numpy(), atol=1e-5)


@pytest.mark.parametrize(
    "form",
    [
        lambda p, n: torch.stack([p] * (n - 1) + [-p], 1),
        lambda p, n: p.repeat(1, n).reshape(B, P, n).transpose(1, 2),
        lambda p, n: torch.cumsum(p[:, None].expand(-1, n, -1), 1),
    ],
)
def test_what_differs_between_steps_is_refused(form: Callable[[Tensor, int], Tensor]) -> None:
    model = Apply(lambda x, p: x[..., :P] * form(p, x.shape[1])).eval()
    nnir = to_nnir(prepare_shape(model, torch.randn(B, T, D), torch.randn(B, P))[0])
    with pytest.raises(StreamingError, match=r"an operand that does not stream of shape .* varies along"):
        nnir.streaming_transform((1, None))
