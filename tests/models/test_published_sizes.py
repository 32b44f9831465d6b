"""Models of the zoo that stand for a published network have its number of parameters and see as far back as it."""

import pytest
import torch

from zoo import ZOO, build


@pytest.mark.parametrize(("name", "parameters"), [("wavenet, amplifier", 13_801)])
def test_parameters(name: str, parameters: int) -> None:
    model, _ = build(ZOO[name])
    assert sum(p.numel() for p in model.parameters()) == parameters


def test_receptive_field_of_the_amplifier() -> None:
    model, _ = build(ZOO["wavenet, amplifier"])
    past = 2 * 2 * sum(2**i for i in range(10))
    x = torch.randn(1, 1, past + 3, requires_grad=True)
    model(x)[0, 0, -1].backward()
    assert x.grad is not None
    seen = torch.nonzero(x.grad[0, 0])
    assert (int(seen[0]), int(seen[-1])) == (2, past + 2)
