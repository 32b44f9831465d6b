"""Liquid networks: ncps LTC, LTCCell and CfC in every setting, and our gated LTC."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import ncps.torch
import ncps.wirings
import torch
from torch import Tensor, nn

from ltc_torch.nn import GatedLTC, GatedLTCCell, Scan
from zoo.basic import B, D, H, T, x


class Sequence(nn.Module):
    """An ncps network and what the test reads of it."""

    def __init__(self, network: nn.Module, spans: bool = False) -> None:
        super().__init__()
        self.network, self.spans = network, spans

    def forward(self, inputs: Tensor, *rest: Tensor) -> tuple[Tensor, Any]:
        if self.spans:
            y, h = self.network(inputs, timespans=rest[0])
        else:
            y, h = self.network(inputs, rest[0] if len(rest) == 1 else rest or None)
        return y, h


class Cell(nn.Module):
    def __init__(self, implicit: bool) -> None:
        super().__init__()
        wiring = ncps.wirings.AutoNCP(12, 3, seed=7)
        self.cell = ncps.torch.LTCCell(wiring, D, ode_unfolds=4, implicit_param_constraints=implicit)

    def forward(self, inputs: Tensor, h: Tensor, elapsed: Tensor) -> tuple[Tensor, Tensor]:
        y, new = self.cell(inputs, h, elapsed)
        return y, new


class UserScan(nn.Module):
    """A user's step with two states and two outputs, one of them a tuple."""

    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Linear(D + H, H)
        self.scan = Scan(self.step)

    def step(self, inputs: dict[str, Tensor], state: dict[str, Tensor]) -> tuple[Any, dict[str, Tensor]]:
        h = torch.tanh(self.w(torch.cat([inputs["u"], state["h"]], -1))) * inputs["gain"]
        total = state["total"] + h
        return (h, total.mean(-1)), {"h": h, "total": total}

    def forward(self, u: Tensor, gain: Tensor) -> Any:
        zeros = u.new_zeros(u.shape[0], H)
        (h, mean), final = self.scan({"u": u, "gain": gain}, {"h": zeros, "total": zeros + 1}, 1, 1)
        return h, mean, final["total"]


def wiring() -> Any:
    return ncps.wirings.AutoNCP(12, 3, seed=3)


def ltc(
    units: Callable[[], Any] = lambda: H, spans: bool = False, **settings: Any
) -> Callable[[], nn.Module]:
    def make() -> nn.Module:
        network = ncps.torch.LTC(D, units(), **settings)
        with torch.no_grad():
            for name, parameter in network.named_parameters():
                if "put_" in name:  # the mappings begin as identities
                    parameter.uniform_(0.5, 1.5)
        return Sequence(network, spans)

    return make


def cfc(
    units: Callable[[], Any] = lambda: H, spans: bool = False, **settings: Any
) -> Callable[[], nn.Module]:
    return lambda: Sequence(ncps.torch.CfC(D, units(), **settings), spans)


def with_spans(batch: int, spans: tuple[int, ...]) -> Callable[[], tuple[Tensor, Tensor]]:
    return lambda: (torch.randn(batch, T, D), torch.rand(spans) + 0.2)


MODELS: dict[str, tuple[Any, ...]] = {
    "ltc": (ltc(), x(B, T, D), (1,)),
    "ltc_wired": (ltc(wiring), x(B, T, D), (1,)),
    "ltc_mixed": (ltc(wiring, mixed_memory=True), x(B, T, D), (1,)),
    "ltc_spans": (ltc(wiring, True), with_spans(1, (1, T)), (1, 1)),
    "ltc_spans_column": (ltc(lambda: H, True), with_spans(1, (1, T, 1)), (1, 1)),
    "ltc_shared_spans": (ltc(lambda: H, True), with_spans(3, (1, T)), (1, 1)),
    "ltc_state": (ltc(), lambda: (torch.randn(B, T, D), torch.rand(B, H)), (1, None)),
    "ltc_mixed_state": (
        ltc(mixed_memory=True),
        lambda: (torch.randn(B, T, D), torch.rand(B, H), torch.rand(B, H)),
        (1, None, None),
    ),
    "ltc_last": (ltc(wiring, return_sequences=False), x(B, T, D), (1,)),
    "ltc_time_major": (ltc(batch_first=False), x(T, B, D), (0,)),
    "ltc_batchless": (ltc(wiring), x(T, D), (0,)),
    "ltc_batchless_spans": (ltc(wiring, True), lambda: (torch.randn(T, D), torch.rand(T) + 0.2), (0, 0)),
    "ltc_explicit": (ltc(implicit_param_constraints=False, ode_unfolds=3, epsilon=1e-6), x(B, T, D), (1,)),
    "ltc_unmapped": (ltc(wiring, input_mapping=None, output_mapping="linear"), x(B, T, D), (1,)),
    "ltc_cell": (lambda: Cell(False), lambda: (torch.randn(B, D), torch.rand(B, 12), torch.rand(B, 1) + 0.1)),
    "ltc_cell_implicit": (
        lambda: Cell(True),
        lambda: (torch.randn(B, D), torch.rand(B, 12), torch.rand(()) + 0.1),
    ),
    "cfc": (cfc(backbone_units=16), x(B, T, D), (1,)),
    "cfc_pure": (cfc(backbone_units=16, mode="pure", backbone_layers=2, activation="silu"), x(B, T, D), (1,)),
    "cfc_no_gate": (cfc(lambda: H, True, mode="no_gate", activation="gelu"), with_spans(1, (1, T)), (1, 1)),
    "cfc_wired": (cfc(wiring), x(B, T, D), (1,)),
    "cfc_wired_last": (cfc(wiring, return_sequences=False, proj_size=2), x(B, T, D), (1,)),
    "cfc_mixed": (cfc(mixed_memory=True, proj_size=3, activation="relu"), x(B, T, D), (1,)),
    "gated_ltc": (lambda: GatedLTC(D, H, steps=3), x(B, T, D), (1,)),
    "gated_ltc_rk4": (lambda: GatedLTC(D, H, method="rk4", steps=2, batch_first=False), x(T, B, D), (0,)),
    "gated_ltc_spans": (
        lambda: Sequence(GatedSpans(), True),
        lambda: (torch.randn(B, T, D), torch.rand(B, T) + 0.1),
        (1, 1),
    ),
    "gated_ltc_cell": (
        lambda: GatedLTCCell(D, H, method="midpoint"),
        lambda: (torch.randn(B, D), torch.randn(B, H)),
    ),
    "driving": (lambda: Driving(), lambda: (torch.randn(B, 3, 2, 7, 9),), (1,)),
    "user_scan": (UserScan, lambda: (torch.randn(B, T, D), torch.rand(B, T, 1)), (1, 1)),
}


class Driving(nn.Module):
    """Frames of a camera through a convolutional head, then a liquid cell: Lechner et al. (2020)."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Sequential(nn.Conv2d(2, 4, 3, stride=2), nn.ReLU(), nn.Conv2d(4, 4, 2), nn.Flatten())
        self.cell = ncps.torch.LTCCell(ncps.wirings.AutoNCP(8, 2, seed=5), 24)

    def forward(self, frames: Tensor) -> Tensor:
        h, outputs = torch.zeros(len(frames), 8), []
        for t in range(frames.shape[1]):
            y, h = self.cell(self.head(frames[:, t]), h)
            outputs.append(y)
        return torch.stack(outputs, 1)


class GatedSpans(GatedLTC):
    def __init__(self) -> None:
        super().__init__(D, H, steps=3)

    def forward(self, inputs: Tensor, timespans: Tensor | None = None) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        return super().forward(inputs, elapsed=timespans)
