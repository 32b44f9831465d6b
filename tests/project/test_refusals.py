"""Models that are refused: the message names the user's line, the reason and a rewrite, and the rewrite compiles.

python tests/project/test_refusals.py      write docs/refusals.md from the table and the messages
"""

from __future__ import annotations

import copy
import importlib.util
import re
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

sys.path.insert(0, str(Path(__file__).parents[1] / "support"))
from folders import DOCS
from refused_models import CASES, KEPT, MODULES, NAMES, B, Case, D, T

from ltc_compiler import Config, UnsupportedError
from ltc_compiler.errors import LtcError
from ltc_compiler.nnir import NNIR
from ltc_torch.fx import prepare_shape
from ltc_torch.fx.nnir import to_nnir

DOCUMENT = DOCS / "refusals.md"
MACHINE = Config.tiny_c1b8()
X = torch.randn(B, T, D, generator=torch.Generator().manual_seed(2))
STAGES = {
    "record": "While recording",
    "convert": "While converting",
    "stream": "While streaming along time",
    "fit": "While placing on a machine",
}


class Base(nn.Module):
    """What the models of the table have."""

    def __init__(self) -> None:
        super().__init__()
        for name, module in MODULES.items():
            self.add_module(name, copy.deepcopy(module))
        for name, value in KEPT.items():
            setattr(self, name, copy.deepcopy(value))


def model_of(line: str, folder: Path) -> tuple[nn.Module, Path]:
    """A model whose forward returns the line, in a file of its own, so that errors can name it."""
    file = folder / "model.py"
    file.write_text(f"class Model(Base):\n    def forward(self, x):\n        return {line}\n")
    spec = importlib.util.spec_from_file_location(f"refused_{abs(hash((line, folder)))}", file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    module.__dict__.update(NAMES, Base=Base)
    spec.loader.exec_module(module)
    made: nn.Module = module.Model().eval()
    return made, file


def through(case: Case, model: nn.Module, context: int | None = None) -> NNIR:
    """All the stages that the case is about. Raises what the compiler raises."""
    nnir = to_nnir(prepare_shape(model, X.clone())[0], context=context)
    if case.stage == "stream":
        nnir, _ = nnir.streaming_transform(1)
    if case.stage == "fit":
        nnir.to_program(MACHINE)
    return nnir


def refusal(case: Case, folder: Path) -> tuple[LtcError, str, str, str]:
    """The error of a case: itself, and where, why and what to do."""
    model, _ = model_of(case.line, folder)
    with pytest.raises(LtcError) as caught:
        through(case, model)
    error = caught.value
    if isinstance(error, UnsupportedError):
        first = error.entries[0]
        return error, first.where, first.reason, first.rewrite
    return error, error.where, error.what, error.remedy


@pytest.mark.filterwarnings("ignore:.*the end of the sequence")
@pytest.mark.parametrize("case", CASES, ids=lambda c: c.line)
def test_a_refusal_names_line_reason_and_rewrite(case: Case, tmp_path: Path) -> None:
    error, where, reason, rewrite = refusal(case, tmp_path)
    assert reason
    assert rewrite
    assert "Traceback" not in str(error)
    if case.stage != "fit":  # a machine is too small for the whole of a model
        assert f"{tmp_path / 'model.py'}:3" in where
        assert f"return {case.line}" in where


@pytest.mark.filterwarnings("ignore:.*the end of the sequence")
@pytest.mark.parametrize("case", CASES, ids=lambda c: c.rewrite)
def test_the_rewrite_compiles(case: Case, tmp_path: Path) -> None:
    model, _ = model_of(case.rewrite, tmp_path)
    through(case, model, context=T)
    nnir = to_nnir(prepare_shape(model, X.clone())[0])
    outputs = nnir.to_program(Config.v80_c6b32()).to_vm().run(X.numpy())
    wanted = model(X.clone())
    assert torch.allclose(torch.from_numpy(outputs), wanted, atol=0.05)
    if case.equal:
        (tmp_path / "original").mkdir()
        original = model_of(case.line, tmp_path / "original")[0](X.clone())
        assert torch.allclose(original.detach().float(), wanted, atol=1e-5)


def test_the_document_is_this_table(tmp_path: Path) -> None:
    assert DOCUMENT.read_text(encoding="utf-8") == document(tmp_path), (
        "run python tests/project/test_refusals.py"
    )


def test_there_are_thirty() -> None:
    assert len({c.line for c in CASES}) == len(CASES) >= 30


# ---------------------------------------------------------------- the document

HEAD = """# What does not compile, and what to write instead

Every line below was compiled as the whole `forward(self, x)` of a model, with `x` of shape (batch, time, features) =
({B}, {T}, {D}). The reasons and remedies are the messages as they come; each also names the file and the line. The form
in the last column compiles: some compute the same, others are the causal or fixed-step form of the idea. All operations
of a model that cannot be lowered are reported at once.

A test runs every row, and this page is written from it: `python tests/project/test_refusals.py`.
"""


def document(folder: Path) -> str:
    """docs/refusals.md."""
    lines = [HEAD.format(B=B, T=T, D=D)]
    for stage, title in STAGES.items():
        lines += [f"\n## {title}\n", "| line | reason | remedy | for example |", "|---|---|---|---|"]
        for i, case in enumerate(c for c in CASES if c.stage == stage):
            place = folder / f"{stage}{i}"
            place.mkdir(parents=True, exist_ok=True)
            _, _, reason, rewrite = refusal(case, place)
            if stage == "fit":
                reason = re.sub(r"\d+ (needed|available)", r"N \1", reason)  # the scheduler's, and of the day
            cells = [_code(case.line), _text(reason), _text(rewrite), _code(case.rewrite)]
            lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def _code(line: str) -> str:
    return f"`{line}`".replace("|", "\\|")


def _text(message: Any) -> str:
    return str(message).splitlines()[0].replace("|", "\\|").replace("*", "\\*").replace("<", "&lt;")


if __name__ == "__main__":
    import tempfile

    with tempfile.TemporaryDirectory() as made:
        DOCUMENT.write_text(document(Path(made)), encoding="utf-8")
