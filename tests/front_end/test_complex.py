"""Complex parameters, constants and states: pairs of real values in the graph, against PyTorch's complex arithmetic."""

# ruff: noqa: E501 - a table with a case on each line

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils import _pytree as pytree

from ltc_compiler import Config, InputError, UnsupportedError
from ltc_torch import Fp32Activations
from ltc_torch.fx import prepare_shape
from ltc_torch.fx.nnir import to_nnir
from ltc_torch.nn import Scan

MACHINE = Config.v80_c6b32()
GENERATOR = torch.Generator().manual_seed(3)


def real(*shape: int) -> Tensor:
    return torch.randn(shape, generator=GENERATOR)


def cplx(*shape: int) -> Tensor:
    return torch.complex(real(*shape), real(*shape))


X = real(2, 6, 4)
Z, V, M, N = cplx(4), cplx(4), cplx(4, 4), cplx(3, 4)
KERNEL = real(3, 4, 2)


class Apply(nn.Module):
    def __init__(self, function: Callable[[Tensor], Any]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Any:
        with Fp32Activations():
            return self.function(x)


# Each of one real tensor (2, 6, 4), to real ones.
FUNCTIONS: dict[str, Callable[[Tensor], Any]] = {
    "parts": lambda x: ((Z * x).real, (Z * x).imag, torch.real(x * Z), torch.imag(x * Z), torch.view_as_real(Z * x)),
    "size": lambda x: ((Z * x).abs(), abs(Z * x + V)),
    "sums": lambda x: (Z * x + V - 2 * x * Z + 1j - x).imag,
    "products": lambda x: ((x + 1j) * (x * Z) * 3).real + ((2j - x * V) * 1j).imag,
    "quotients": lambda x: ((x * Z) / V + x / (x + 3j) + (x * Z) / 2 + 1 / (x + 2j)).imag + (x + 3j).reciprocal().real,
    "conjugates": lambda x: ((x * Z).conj() * (x * V)).imag + (x * Z).conj().resolve_conj().conj_physical().real,
    "powers": lambda x: torch.view_as_real((x * Z) ** 3 + (x * Z).square() + (x + 2j) ** -2),
    "made": lambda x: torch.view_as_real(torch.complex(x, x * x) * torch.view_as_complex(torch.stack([x, -x], -1))),
    "types": lambda x: x.to(torch.cfloat).real + (x.to(torch.complex64) * Z).imag,
    "matmul": lambda x: torch.view_as_real(x.to(torch.cfloat) @ M + (x * Z) @ M + torch.matmul(M, (x * V).mT).mT),
    "matrix": lambda x: torch.view_as_real(torch.bmm(x * Z, (x * V).mH) + (x * Z).sum()),
    "linear": lambda x: torch.view_as_real(F.linear(x * Z, N, V[:3])),
    "einsum": lambda x: torch.view_as_real(torch.einsum("bti,oi->bto", x.to(torch.cfloat), N) + torch.einsum("bti,bti->bt", x * Z, x * V)[..., None]),
    "addmm": lambda x: torch.view_as_real(torch.addmm(V, x[0] * Z, M, beta=2, alpha=0.5)),
    "layout": lambda x: torch.view_as_real(torch.cat([(x * Z)[:, 1:3], x[:, :1].to(torch.cfloat)], 1).transpose(1, 2).flip(1).reshape(2, -1)),
    "stacks": lambda x: torch.view_as_real(torch.stack([x * Z, x * V], 1).unsqueeze(-1).squeeze(-1).flatten(0, 1).expand(3, 4, 6, 4).permute(1, 0, 2, 3)),
    "pieces": lambda x: torch.view_as_real(sum((x * Z).chunk(3, 1)) + (x * V).unbind(1)[2][:, None]),
    "padding": lambda x: torch.view_as_real(F.pad(x * Z, (1, 2), value=3.0)),
    "choices": lambda x: torch.view_as_real(torch.where(x > 0, x * Z, x * V) + (x * Z).where(x > 1, 2.0) + (x * Z).masked_fill(x < 0, 0)),
    "sums over axes": lambda x: torch.view_as_real((x * Z).sum(1) + (x * V).mean((1,)) + (x * V).cumsum(1)[:, 2] + (x * Z).diff(dim=1)[:, 0]),
    "convolution": lambda x: F.conv1d((x * Z).real.mT, KERNEL),
    "phases": lambda x: torch.view_as_real(torch.polar(x.abs(), x) + torch.exp(x * Z) + Z**x + torch.exp(1j * x)),
    "angles": lambda x: (x * Z).angle() + torch.angle(x * V + 1),
    "nothing imaginary": lambda x: ((x.to(torch.cfloat) * 2).real + x.to(torch.cfloat).imag),
}  # fmt: skip


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_function_equals_torch(name: str) -> None:
    function = FUNCTIONS[name]
    nnir = to_nnir(prepare_shape(Apply(function).eval(), X.clone())[0])
    other = 0.5 * X.flip(0) - 0.7
    for given, wanted in zip(
        pytree.tree_leaves(nnir.run(other.numpy())), pytree.tree_leaves(function(other)), strict=True
    ):
        np.testing.assert_allclose(given, wanted.numpy(), rtol=1e-4, atol=1e-4)


class LRU(nn.Module):
    """A linear recurrent unit: a diagonal recurrence of complex numbers, parametrised by size and phase."""

    def __init__(self, width: int, states: int) -> None:
        super().__init__()
        self.nu = nn.Parameter(torch.log(-torch.log(0.5 + 0.45 * torch.rand(states, generator=GENERATOR))))
        self.theta = nn.Parameter(torch.log(math.pi * torch.rand(states, generator=GENERATOR)))
        self.B = nn.Parameter(cplx(states, width) / math.sqrt(2 * width))
        self.C = nn.Parameter(cplx(width, states) / math.sqrt(states))
        self.D = nn.Parameter(real(width))

    def forward(self, u: Tensor) -> Tensor:
        lam = torch.exp(torch.complex(-torch.exp(self.nu), torch.exp(self.theta)))
        gamma = torch.sqrt(1 - lam.abs() ** 2)
        state = torch.zeros(u.shape[0], lam.shape[0], dtype=torch.cfloat)
        outputs = []
        for t in range(u.shape[1]):
            state = lam * state + gamma * (u[:, t].to(self.B.dtype) @ self.B.T)
            outputs.append((state @ self.C.mT).real + self.D * u[:, t])
        return torch.stack(outputs, 1)


class S4D(nn.Module):
    """The step form of a diagonal state space model, discretised by zero-order hold; parameters as pairs of reals."""

    def __init__(self, width: int, states: int) -> None:
        super().__init__()
        self.log_dt = nn.Parameter(real(width) * 0.3 - 3)
        self.C = nn.Parameter(torch.view_as_real(cplx(width, states)))
        self.log_A_real = nn.Parameter(torch.log(0.5 * torch.ones(width, states)))
        self.A_imag = nn.Parameter(math.pi * torch.arange(states).float().repeat(width, 1))

    def forward(self, u: Tensor) -> Tensor:
        dt, A = torch.exp(self.log_dt), -torch.exp(self.log_A_real) + 1j * self.A_imag
        dtA = A * dt[:, None]
        dA, dB = torch.exp(dtA), (torch.exp(dtA) - 1.0) / A
        C = torch.view_as_complex(self.C)
        h = torch.zeros(u.shape[0], *A.shape, dtype=torch.complex64)
        ys = []
        for t in range(u.shape[1]):
            h = dA * h + dB * u[:, t, :, None]
            ys.append(2 * torch.einsum("bhn,hn->bh", h, C).real)
        return torch.stack(ys, 1)


class Scanned(nn.Module):
    """A complex state in a Scan, with a norm of it that is read."""

    def __init__(self) -> None:
        super().__init__()
        self.lam = nn.Parameter(torch.polar(torch.full((4,), 0.9), torch.linspace(0.1, 2.0, 4)))
        self.scan = Scan(self.step)

    def step(self, u: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
        new = self.lam * h + u
        return new.abs(), new

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.scan(x, torch.zeros(x.shape[0], 4, dtype=torch.cfloat), 1, 1)[0]
        return y


MODELS: dict[str, Callable[[], nn.Module]] = {
    "lru": lambda: LRU(4, 8),
    "s4d": lambda: S4D(4, 6),
    "scan": Scanned,
}


@pytest.mark.parametrize("name", MODELS)
def test_a_recurrence_compiles_and_streams(name: str) -> None:
    model, x = MODELS[name]().eval(), real(1, 12, 4)
    graph_module, _ = prepare_shape(model, x.clone())
    nnir = to_nnir(graph_module)
    with torch.no_grad():
        wanted = model(x).numpy()
    np.testing.assert_allclose(nnir.run(x.numpy()), wanted, rtol=1e-4, atol=1e-4)
    whole = nnir.to_program(MACHINE, quick_compile=True).to_vm().run(x)
    scale = np.abs(wanted).max()
    np.testing.assert_allclose(whole, wanted, atol=0.02 * scale)
    assert sum(n.op == "scan" for n in nnir.graph.nodes) == 1, "the loop is rolled up"
    step, axis = nnir.streaming_transform(1)
    vm = step.to_program(MACHINE, quick_compile=True).to_vm()
    assert axis == 1
    streamed = np.stack([vm.run(x[:, t]) for t in range(x.shape[1])], 1)
    np.testing.assert_array_equal(streamed, whole)


class Counting(nn.Module):
    """Module state that is complex."""

    phase: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("phase", torch.ones(4, dtype=torch.cfloat))

    def forward(self, x: Tensor) -> Tensor:
        self.phase = self.phase * Z / Z.abs()
        return (self.phase * x).real


def test_complex_module_state() -> None:
    model, x = Counting().eval(), real(2, 4)
    with pytest.warns(UserWarning, match="state"):
        graph_module, _ = prepare_shape(model, x.clone())
    vm = to_nnir(graph_module).to_program(MACHINE, quick_compile=True).to_vm()
    for _ in range(5):
        np.testing.assert_allclose(vm.run(x), model(x).numpy(), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(
    ("function", "text"),
    [
        (lambda x: torch.fft.rfft(x).abs(), "a Fourier transform needs"),
        (lambda x: x * Z, "forward returns complex numbers"),
        (lambda x: torch.tanh(x * Z).real, "tanh of complex numbers"),
        (lambda x: torch.prod(x * Z, 1).real, "prod of complex numbers"),
        (lambda x: ((x * Z) ** 0.5).real, "power of complex numbers"),
        (lambda x: torch.linalg.norm(x * Z, dim=1), "linalg_norm of complex numbers"),
    ],
)
def test_what_has_no_real_form_is_named(function: Any, text: str) -> None:
    with pytest.raises(UnsupportedError, match=text) as caught:
        to_nnir(prepare_shape(Apply(function).eval(), X.clone())[0])
    assert "test_complex.py" in str(caught.value)


def test_a_write_into_a_part_is_named() -> None:
    def write(x: Tensor) -> Tensor:
        z = x * Z
        z.real[:, 0] = x[:, 1]
        return z.real + z.imag

    with pytest.raises(UnsupportedError, match="real or imaginary part"):
        prepare_shape(Apply(write).eval(), X.clone())


def test_a_write_of_complex_numbers() -> None:
    def write(x: Tensor) -> Tensor:
        z = torch.zeros(2, 6, 4, dtype=torch.cfloat)
        z[:, 1] = x[:, 1] * Z
        z[:, 2:4] += x[:, :2] * V
        return torch.view_as_real(z)

    nnir = to_nnir(prepare_shape(Apply(write).eval(), X.clone())[0])
    np.testing.assert_allclose(nnir.run(X.numpy()), write(X).numpy(), rtol=1e-5, atol=1e-5)


def test_a_complex_input_is_refused() -> None:
    with pytest.raises(InputError, match="view_as_real"):
        prepare_shape(Apply(torch.abs).eval(), X * 1j)
