"""What an operation is, is decided by what it is and not by its last name; and nothing passes the recorder by.

Custom operators, scripted helpers, functions of autograd and constructors that alias a tensor: each is recorded
through, or refused at its line; in no case does a value of the example become a constant.
"""

import warnings
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.overrides import handle_torch_function, has_torch_function
from torch.utils import dlpack as _dlpack

from ltc_compiler import UnsupportedError
from ltc_torch.fx import converts, prepare_shape, registry
from ltc_torch.fx.nnir import to_nnir
from ltc_torch.fx.record.active import current

X = torch.randn(3, 4, generator=torch.Generator().manual_seed(4))
W = torch.randn(5, 4, generator=torch.Generator().manual_seed(5))

dlpack: Any = _dlpack
broadcast_tensors: Any = torch.broadcast_tensors


class Apply(nn.Module):
    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Any:
        return self.function(x)


def check(function: Callable[[Tensor], Tensor], example: Tensor = X) -> None:
    """Recorded on the example, right on another input whose signs differ."""
    nnir = to_nnir(prepare_shape(Apply(function).eval(), example.clone())[0])
    other = -1.5 * X + 0.3
    np.testing.assert_allclose(nnir.run(other.numpy()), function(other).numpy(), rtol=1e-5, atol=1e-6)


def refused(function: Callable[[Tensor], Tensor], *texts: str) -> None:
    with pytest.raises(UnsupportedError) as caught:
        to_nnir(prepare_shape(Apply(function).eval(), X.clone())[0])
    for text in texts:
        assert text in str(caught.value)
    assert "test_identity.py" in str(caught.value), "the line"


# ---------------------------------------------------------------- custom operators

KERNELS: dict[str, Callable[..., Tensor]] = {
    "linear(Tensor x, Tensor w) -> Tensor": lambda x, w: 2 * (x @ w.T),
    "tanh(Tensor x) -> Tensor": lambda x: x.clamp(-1, 1),
    "relu_(Tensor x) -> Tensor": lambda x: x * (x > 0.5),
    "item(Tensor x) -> Tensor": lambda x: x + x.mean(),
    "zeros_like(Tensor x) -> Tensor": lambda x: 3 * x,
    "hidden(Tensor x) -> Tensor": lambda x: torch.from_numpy(np.tanh(x.numpy())),
}
COMPOSITE = {"sigmoid(Tensor x) -> Tensor": lambda x: 1 / (1 + (-2 * x).exp())}


@pytest.fixture(scope="module")
def ops() -> Iterator[Any]:
    """A library whose operators have names of torch's and other meanings."""
    library: Any = torch.library.Library("ltc_test", "DEF")  # type: ignore[no-untyped-call]
    for key, kernels in (("CPU", KERNELS), ("CompositeImplicitAutograd", COMPOSITE)):
        for schema, kernel in kernels.items():
            library.define(schema)
            library.impl(schema.partition("(")[0], kernel, key)
    library.define("bare(Tensor x) -> Tensor")
    yield torch.ops.ltc_test
    library._destroy()


def test_a_custom_operator_is_recorded_through_its_kernel(ops: Any) -> None:
    check(lambda x: ops.linear(x, W))
    check(lambda x: ops.linear.default(x, W))
    check(lambda x: ops.linear(x, ops.tanh(W)))
    for op in (ops.tanh, ops.relu_, ops.item, ops.zeros_like, ops.sigmoid):
        check(op)


def test_a_decorated_custom_operator_is_recorded_through(ops: Any) -> None:
    @torch.library.custom_op("ltc_test::gelu", mutates_args=())
    def gelu(x: Tensor) -> Tensor:
        return x * torch.sigmoid(1.702 * x)

    check(gelu)


def test_torchs_own_operators_go_by_their_names() -> None:
    check(lambda x: torch.ops.aten.tanh(x) + torch.ops.aten.mul.Tensor(x, x))
    check(lambda x: torch.ops.aten.linear(x, W))


def test_a_kernel_that_hides_what_it_does_is_refused(ops: Any) -> None:
    refused(ops.hidden, "numpy: needs the value")
    with pytest.raises(UnsupportedError, match=r"ltc_test.bare: a custom operator whose kernel hides"):
        prepare_shape(Apply(ops.bare).eval(), X)


def test_a_converter_may_be_registered_for_a_custom_operator(ops: Any) -> None:
    before = dict(registry.FUNCTIONS)
    try:
        converts("ltc_test.hidden")(lambda c, x: c.add("tanh", x))
        check(ops.hidden)
    finally:
        registry.FUNCTIONS.clear()
        registry.FUNCTIONS.update(before)


def relu(x: Tensor) -> Tensor:
    """A user's function, named as one of torch's, that takes part in torch's protocol for overriding functions."""
    if has_torch_function((x,)):
        return handle_torch_function(relu, (x,), x)
    return x.clamp(max=0)


def test_a_users_function_is_not_taken_for_torchs() -> None:
    refused(relu, ".relu: there is no lowering")


class Doubling(Tensor):
    """Redefines every operation."""

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = super().__torch_function__(func, types, args, kwargs or {})  # type: ignore[no-untyped-call]
        return out * 2 if func is Tensor.add else out


def test_a_tensor_subclass_is_refused() -> None:
    refused(lambda x: W[:3].as_subclass(Doubling).add(x), "Doubling redefines operations")


# ---------------------------------------------------------------- what passes the recorder by


def _spike(v: Tensor) -> Tensor:
    return (v > 0).to(v.dtype)


def _mask(x: Tensor) -> Tensor:
    return torch.where(x > x.mean(), x, torch.zeros_like(x))


with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)
    script: Any = torch.jit.script
    trace: Any = torch.jit.trace
    spike, mask = script(_spike), script(_mask)
    traced = trace(lambda x: x * x.sign(), X)


def test_a_scripted_helper_is_recorded_through_its_python() -> None:
    check(lambda x: x * spike(x))
    check(lambda x: mask(x) - spike(W[:3]))
    check(traced, torch.zeros(3, 4))


def test_a_script_without_its_python_is_refused() -> None:
    compiled: Any = torch.jit.CompilationUnit("def f(x):\n    return (x > 0).float()\n").f
    refused(lambda x: x * compiled(x), "aten.gt.Scalar: runs where no recording reaches")


class Surrogate(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, v: Tensor, slope: float) -> Tensor:
        ctx.save_for_backward(v)
        return (v > 0).float()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        return grad, None


class StraightThrough(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, v: Tensor) -> Tensor:
        return v

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        return grad


def test_a_function_of_autograd_is_recorded_through() -> None:
    check(lambda x: Surrogate.apply(x - 0.2, 25.0) * x)  # type: ignore[no-untyped-call]
    check(lambda x: StraightThrough.apply(x) * 2)  # type: ignore[no-untyped-call]


@pytest.mark.parametrize("function", [
    lambda x: torch.Tensor(x) * 2,
    lambda x: torch.FloatTensor(x).sign(),
    lambda x: nn.Parameter(x) * 2,
    lambda x: Tensor._make_subclass(Tensor, x) * 2,
    lambda x: (x * 2).as_subclass(nn.Parameter) + 1,
    lambda x: dlpack.from_dlpack(x).sign() * x,
    lambda x: dlpack.from_dlpack(dlpack.to_dlpack(x)).sign() * x,
    lambda x: torch.tensor(np.asarray(x)),
    lambda x: x * (x.data_ptr() > 0),
    lambda x: x * x.untyped_storage()[0],
    lambda x: torch.Tensor([x[0, 0], x[0, 1]]),
])  # fmt: skip
def test_other_ways_to_the_values_are_refused(function: Callable[[Tensor], Tensor]) -> None:
    refused(function)


def test_memory_shared_with_a_constant_is_no_alias() -> None:
    check(lambda x: broadcast_tensors(W[0], x)[0] + W[0] + x)


@pytest.mark.parametrize("example", [X, X.abs(), torch.zeros(3, 4), torch.ones(3, 4)], ids=str)
def test_a_value_in_a_text_is_found_whatever_the_example(example: Tensor) -> None:
    with pytest.raises(UnsupportedError, match="inputs other than the example"):
        prepare_shape(Apply(lambda x: x * float(f"{(x > 0.4).sum()}")).eval(), example)


def test_a_model_may_reject_a_probe() -> None:
    def asserted(x: Tensor) -> Tensor:
        if current() is None and bool((x < 0).any()):
            raise ValueError("x is negative")
        return x.sqrt()

    for function in (asserted, torch.log):  # the logarithm is NaN for negative inputs
        nnir = to_nnir(prepare_shape(Apply(function).eval(), X.abs())[0])
        np.testing.assert_allclose(nnir.run(X.abs().numpy()), function(X.abs()).numpy(), rtol=1e-6)
