"""What the documents claim: the example runs as printed, links lead somewhere, names exist, walk-throughs work."""

from __future__ import annotations

import contextlib
import io
import re
import shutil
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from folders import ROOT
from walkthroughs import apply, hunks

from ltc_compiler import _core
from ltc_compiler.config import Config
from ltc_compiler.isa import markdown

DOCUMENTS = [ROOT / n for n in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "benchmarks/README.md")]
DOCUMENTS += sorted((ROOT / "docs").glob("*.md"))
GUIDES = [ROOT / "docs" / name for name in ("add-an-op.md", "add-an-instruction.md")]


def blocks(document: Path, language: str) -> list[str]:
    """The fenced blocks of a language."""
    text = document.read_text(encoding="utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


def prose(document: Path) -> str:
    """The text without its fenced blocks."""
    return re.sub(r"^```.*?^```$", "", document.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)


# --- the README -------------------------------------------------------------------------------------------------


def test_the_example_of_the_readme_prints_what_it_says() -> None:
    """The same text; the figures are of the day, but must be sensible."""
    (example,) = blocks(ROOT / "README.md", "python")
    (expected,) = blocks(ROOT / "README.md", "text")
    assert len(example.splitlines()) <= 20
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed), warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        exec(compile(example, "README.md", "exec"), {"__name__": "__main__"})
    number = re.compile(r"\d+(?:\.\d+)?")
    assert number.sub("#", printed.getvalue()) == number.sub("#", expected)
    error, cycles, time = (float(n) for n in number.findall(printed.getvalue()))
    assert error < 0.01
    assert round(cycles / Config.v80_c6b32().clock_mhz, 2) == time


def test_the_readme_starts_with_the_two_commands() -> None:
    assert blocks(ROOT / "README.md", "sh")[0].splitlines()[0].startswith("make demo")
    assert blocks(ROOT / "README.md", "sh")[0].splitlines()[1].startswith("make test")
    makefile = (ROOT / "Makefile").read_text()
    for document in DOCUMENTS:
        named = set(
            re.findall(r"^make ((?:[a-z-]+ ?)+?)(?: +#|$)", "\n".join(blocks(document, "sh")), re.MULTILINE)
        )
        for target in " ".join(named).split():
            assert f"\n{target}:" in makefile, f"{document.name} names make {target}"


# --- links, files and names -------------------------------------------------------------------------------------


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_relative_links_lead_somewhere(document: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", prose(document)):
        if "://" not in target:
            assert (document.parent / target).exists(), f"{document.name} links to {target}"


PATH = re.compile(r"`((?:[\w.-]+/)+(?:[\w.-]+\.\w+)?)`")
PACKAGES = (ROOT, ROOT / "ltc_compiler")  # docs shorten ltc_compiler/ir/ops.py to ir/ops.py


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_files_that_are_named_exist(document: Path) -> None:
    for name in PATH.findall(prose(document)):
        made_by_running = name.split("/")[0] in ("build", "demo_output")
        assert made_by_running or any((root / name).exists() for root in PACKAGES), f"{document.name}: {name}"


@pytest.mark.parametrize("guide", GUIDES, ids=lambda path: path.name)
def test_names_that_a_guide_finds_in_a_file_are_there(guide: Path) -> None:
    """Wherever it says "`a`, `b` and `c` in `path`"."""
    name = r"`[\w.]+`"
    text = " ".join(prose(guide).split())
    claims = re.findall(rf"((?:{name}(?:, | and ))*{name}) (?:in|of) `([\w/.-]+\.\w+)`", text)
    assert len(claims) >= 5
    for names, path in claims:
        content = (ROOT / path).read_text(encoding="utf-8")
        for identifier in re.findall(r"`([\w.]+)`", names):
            assert re.search(rf"\b{identifier}\b", content), f"{guide.name}: {identifier} in {path}"


# --- form -------------------------------------------------------------------------------------------------------

WIDTH = 120


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_lines_are_short_enough_to_read(document: Path) -> None:
    """All but the rows of tables, which Markdown cannot break."""
    lines = enumerate(document.read_text(encoding="utf-8").splitlines(), 1)
    long = [number for number, line in lines if len(line) > WIDTH and not line.startswith("|")]
    assert not long, f"{document.name}: lines {long} have more than {WIDTH} characters"


# --- what is generated ------------------------------------------------------------------------------------------


def test_the_reference_of_the_instruction_set_is_current() -> None:
    found = (ROOT / "docs" / "isa.md").read_text(encoding="utf-8")
    assert found == markdown.instructions(), "the table changed: run `make docs-isa`"


def test_the_reference_of_the_configuration_is_current() -> None:
    found = (ROOT / "docs" / "configuration.md").read_text(encoding="utf-8")
    assert found == markdown.configuration(), "the parameters changed: run `make docs-isa`"


def test_the_configuration_of_the_document_is_what_it_says(tmp_path: Path) -> None:
    text = (ROOT / "docs" / "configuration.md").read_text(encoding="utf-8")
    (toml,), (code,) = (re.findall(rf"^```{k}\n(.*?)^```$", text, re.M | re.S) for k in ("toml", "python"))
    (tmp_path / "two_cores.toml").write_text(toml, encoding="utf-8")
    names: dict[str, Any] = {"Config": Config}
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        exec(code, names)
    assert names["config"] == Config.load(tmp_path / "two_cores.toml")
    assert "latency.add" in printed.getvalue()


# --- the walk-throughs --------------------------------------------------------------------------------------------


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """The Python sources, without what a walk-through does not touch."""
    unwanted = shutil.ignore_patterns("__pycache__", "*.so", "*.bin", "*.pyi")
    for name in ("ltc_compiler", "ltc_torch", "sim_core", "tests", "configs"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=unwanted)
    table = "activation_tables.bin"
    (tmp_path / "ltc_compiler" / table).symlink_to(ROOT / "ltc_compiler" / table)
    return tmp_path


def test_an_instruction_with_a_latency_of_its_own_is_eight_files() -> None:
    files = {hunk.file for hunk in hunks(GUIDES[1])}
    assert {"ltc_compiler/isa/machine.py", "ltc_compiler/isa/table.py"} < files
    assert len(files) == 8


@pytest.mark.parametrize("guide", GUIDES, ids=lambda path: path.name)
def test_the_edits_of_a_guide_fit_the_sources(guide: Path, copy: Path) -> None:
    found = hunks(guide)
    assert len({hunk.file for hunk in found}) >= 3
    for hunk in found:
        apply(hunk, copy)
        if hunk.file.endswith(".py"):
            compile((copy / hunk.file).read_text(encoding="utf-8"), hunk.file, "exec")


IMPORT_THE_COPY = """
import importlib.util, sys
copy, core, *packages = sys.argv[1:]
sys.path[:0] = [copy, *packages]
spec = importlib.util.spec_from_file_location("ltc_compiler._core", core)
sys.modules["ltc_compiler._core"] = importlib.util.module_from_spec(spec)
spec.loader.exec_module(sys.modules["ltc_compiler._core"])
import ltc_compiler
assert ltc_compiler.__file__.startswith(copy), ltc_compiler.__file__
"""
USE_THE_NEW_OP = """
import numpy as np, onnxruntime, torch
from ltc_torch import fx

class Model(torch.nn.Module):
    def forward(self, a, b):
        return torch.ldexp(a, b)

a, b = torch.randn(4, 20), torch.randn(20)
traced, expected = fx.prepare_shape(Model().eval(), a, b)
nnir = fx.nnir.to_nnir(traced)
assert "ldexp(%a, %b)" in str(nnir)
assert str(type(nnir).parse(str(nnir))) == str(nnir)
program = nnir.to_program(ltc_compiler.Config.tiny_c2b8())
y = program.to_vm().run(a, b)
np.testing.assert_allclose(y, expected, rtol=1e-6)
assert y.tobytes() == program.to_oracle().run(a.numpy(), b.numpy()).tobytes()
nnir.to_onnx(copy + "/ldexp.onnx")
session = onnxruntime.InferenceSession(copy + "/ldexp.onnx", providers=["CPUExecutionProvider"])
np.testing.assert_allclose(session.run(None, {"a": a.numpy(), "b": b.numpy()})[0], expected, rtol=1e-6)
print(sum(name in program.disassemble() for name in ("exp2", "mul")), "instructions of two kinds")
"""


def in_the_copy(code: str, copy: Path) -> subprocess.CompletedProcess[str]:
    """Run code on the copied packages; -S keeps the installed ones out."""
    packages = {str(Path(module.__file__ or "").parents[1]) for module in (np, pytest)}
    command = [sys.executable, "-S", "-c", IMPORT_THE_COPY + code, str(copy), str(_core.__file__), *packages]
    return subprocess.run(command, cwd=copy, capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    "table",
    [
        "SELECTORS in ltc_compiler/schedule/select/select.py",
        "NAMES in ltc_compiler/frontend/names.py",
    ],
)
def test_a_new_op_that_lacks_a_row_is_named_at_import(table: str, copy: Path) -> None:
    for hunk in hunks(GUIDES[0]):
        if hunk.file not in table:
            apply(hunk, copy)
    done = in_the_copy("", copy)
    assert f"ImportError: {table} has no row for these ops: ldexp\n" in done.stderr


def test_the_op_of_the_guide_works(copy: Path) -> None:
    """From torch.ldexp to both machines and to ONNX, with edits of three files."""
    edits = hunks(GUIDES[0])
    assert len({hunk.file for hunk in edits}) == 3
    for hunk in edits:
        apply(hunk, copy)
    done = in_the_copy(USE_THE_NEW_OP, copy)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "2 instructions of two kinds\n"
