"""Models of the zoo that stand for a published network have its number of parameters and see as far back as it."""

import pytest
import torch

from zoo import ZOO, build


def test_parameters_of_the_amplifier() -> None:
    """Its publisher counts the scale of the output, too."""
    model, _ = build(ZOO["wavenet, amplifier"])
    assert sum(p.numel() for p in model.parameters()) == 13_802 - 1


@pytest.mark.parametrize(("name", "parameters"), [("A", 160_901), ("B", 1_002_601), ("C", 30_017_001)])
def test_parameters_of_the_forecasts(name: str, parameters: int) -> None:
    """Their publisher counts one bias a layer, where PyTorch has two."""
    with torch.device("meta"):
        model = ZOO[f"forecast {name}"].make()
    counted = [p.numel() for name, p in model.named_parameters() if "bias_hh" not in name]
    assert sum(counted) == parameters


def test_receptive_field_of_the_amplifier() -> None:
    model, _ = build(ZOO["wavenet, amplifier"])
    past = 2 * 2 * sum(2**i for i in range(10))
    x = torch.randn(1, 1, past + 3, requires_grad=True)
    model(x)[0, 0, -1].backward()
    assert x.grad is not None
    seen = torch.nonzero(x.grad[0, 0])
    assert (int(seen[0]), int(seen[-1])) == (2, past + 2)
