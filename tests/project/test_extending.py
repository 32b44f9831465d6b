"""docs/extending.md, run as printed, and what the decorator takes and refuses."""

from __future__ import annotations

import contextlib
import io
import re
import sys
import types
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from folders import DOCS
from torch import Tensor, nn

from ltc_compiler import InputError, UnsupportedError
from ltc_torch.fx import lowering, prepare_shape, registry
from ltc_torch.fx.convert import hints
from ltc_torch.fx.nnir import to_nnir
from ltc_torch.fx.record.catch import _CAUGHT

DOCUMENT = DOCS / "extending.md"


@pytest.fixture(autouse=True)
def _registered() -> Iterator[None]:
    """What a test registers goes again."""
    tables: list[dict[Any, Any]] = [registry.REWRITES, _CAUGHT]
    before = [dict(t) for t in tables]
    yield
    for table, old in zip(tables, before, strict=True):
        table.clear()
        table.update(old)


def test_the_document_prints_what_it_says() -> None:
    text = DOCUMENT.read_text(encoding="utf-8")
    code, expected = (re.findall(rf"^```{k}\n(.*?)^```$", text, re.M | re.S) for k in ("python", "text"))
    cell = code[0][code[0].index("class ") : code[0].index("cell, x, h")].strip()
    assert len(cell.splitlines()) <= 30
    printed = io.StringIO()
    torch.manual_seed(0)
    with contextlib.redirect_stdout(printed):
        exec(compile(code[0], str(DOCUMENT), "exec"), {"__name__": "extending"})
    assert printed.getvalue() == expected[0]


def library(**functions: Any) -> types.ModuleType:
    """A library of the user's, with functions that leave torch."""
    module = types.ModuleType("a_library")
    exec(
        "import numpy as np, torch\n"
        "def clipped(x, scale=2.0):\n    return torch.from_numpy(np.clip(x.numpy(), -1, 1)) * scale\n"
        "class Tools:\n    @staticmethod\n"
        "    def root(x):\n        return torch.from_numpy(np.sqrt(np.abs(x.numpy())))\n"
        "@torch.no_grad()\ndef wrapped(x):\n    return torch.from_numpy(x.numpy() * 2)\n",
        module.__dict__,
    )
    return module


@pytest.fixture
def tools(monkeypatch: pytest.MonkeyPatch) -> Any:
    module = library()
    monkeypatch.setitem(sys.modules, "a_library", module)
    for name in ("clipped", "wrapped"):
        monkeypatch.setattr(getattr(module, name), "__module__", "a_library")
    monkeypatch.setattr(module.Tools.root, "__module__", "a_library")
    return module


class Model(nn.Module):
    def __init__(self, tools: Any) -> None:
        super().__init__()
        self.function = [tools.wrapped, tools.Tools.root, tools.clipped]

    def forward(self, x: Tensor) -> Tensor:
        wrapped, root, clipped = self.function
        y: Tensor = wrapped(root(clipped(x, scale=3.0)))
        return y


def test_functions_are_replaced_while_recording_alone(tools: Any) -> None:
    lowering(tools.clipped)(lambda x, scale=2.0: x.clamp(-1, 1) * scale)
    lowering(tools.Tools.root)(lambda x: x.abs().sqrt())
    lowering(tools.wrapped)(lambda x: x * 2)
    codes = [f.__code__ for f in (tools.clipped, tools.Tools.root, tools.wrapped)]
    x = torch.randn(3, 4) * 2
    nnir = to_nnir(prepare_shape(Model(tools).eval(), x)[0])
    assert np.abs(nnir.run(x.numpy()) - Model(tools)(x).numpy()).max() < 1e-6
    assert [f.__code__ for f in (tools.clipped, tools.Tools.root, tools.wrapped)] == codes
    assert not [name for name in tools.__dict__ if name.startswith("__ltc")]


def test_a_wrong_replacement_is_found(tools: Any) -> None:
    lowering(tools.clipped)(lambda x, scale=2.0: x * scale)
    lowering(tools.Tools.root)(lambda x: x.abs().sqrt())
    lowering(tools.wrapped)(lambda x: x * 2)
    with pytest.raises(UnsupportedError, match=r"differ|gives"):
        prepare_shape(Model(tools).eval(), torch.randn(3, 4) * 2)


@pytest.mark.parametrize("target", [torch.exp, lambda x: x, 3, int])
def test_other_targets_are_refused(target: Any) -> None:
    with pytest.raises(InputError, match="neither a module class nor a function"):
        lowering(target)


def test_hints_are_about_functions_without_a_lowering() -> None:
    known = [name for name in hints.HINTS if name in registry.FUNCTIONS]
    assert not known
    assert hints.hint("fft_rfft") == hints.HINTS["fft*"]
    assert "no lowering" in hints.hint("bessel_j0")[0]
