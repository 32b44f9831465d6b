"""Follows docs/add-an-instruction.md: its edits on a copy of the sources, built, and run by the copy's own tests.

    python tests/proof/walk_through.py     about two minutes on two cores

Before the line of C++ that gives the new row its meaning the copy must not build, and without the line of Python the
reference machine must not import. (docs/add-an-op.md needs no build; tests/project/test_docs.py follows it.)
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "tests" / "support"))

from walkthroughs import apply, hunks

COPY = ROOT / "build" / "walk_through" / "source"
BUILD = ROOT / "build" / "walk_through" / "build"
FOLDERS = ("ltc_compiler", "ltc_torch", "sim_core", "configs", "tests", "docs")
FILES = ("CMakeLists.txt", "pyproject.toml")
BIN = Path(sys.executable).parent
# The copy must be what is imported: -S and this path keep the editable install, and its rebuild, out.
PACKAGES = os.pathsep.join([str(COPY), *(path for path in sys.path if path.endswith("site-packages"))])
ENVIRONMENT = os.environ | {
    "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}",
    "PYTHONPATH": PACKAGES,
    "LTC_CORE": str(BUILD / "_core.abi3.so"),
}
TESTS = (
    "tests/core/test_differential.py",
    "tests/core/test_timing_walks.py",
    "tests/core/test_beats.py",
    "tests/core/test_self_test.py -k pinned",  # the others start processes, which import the installed package
    "tests/isa/test_config.py",
    "tests/oracle/test_oracle.py",
    "tests/isa/test_bytecode.py",
    "tests/schedule/test_compile.py",
    "tests/front_end/test_functions.py",
)
IMPORT = """
import importlib.util, sys
spec = importlib.util.spec_from_file_location("ltc_compiler._core", sys.argv[1])
sys.modules["ltc_compiler._core"] = importlib.util.module_from_spec(spec)
spec.loader.exec_module(sys.modules["ltc_compiler._core"])
import ltc_compiler
"""
USE = """
import torch
from ltc_torch import fx

class Model(torch.nn.Module):
    def forward(self, x):
        return torch.square(x)

x = torch.randn(3, 20)
program = fx.nnir.to_nnir(fx.prepare_shape(Model().eval(), x)[0]).to_program(ltc_compiler.Config.tiny_c2b8())
assert " square " in program.disassemble()
y = program.to_vm().run(x)
assert (torch.from_numpy(y) == x * x).all()
assert y.tobytes() == program.to_oracle().run(x.numpy()).tobytes()
"""


def copy_sources() -> None:
    shutil.rmtree(COPY.parent, ignore_errors=True)
    for name in FOLDERS:
        shutil.copytree(ROOT / name, COPY / name, ignore=shutil.ignore_patterns("__pycache__", "*.pyi"))
    for name in FILES:
        shutil.copy2(ROOT / name, COPY / name)


def run(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, cwd=COPY, env=ENVIRONMENT, capture_output=True, text=True, check=False)


def python(*arguments: str) -> subprocess.CompletedProcess[str]:
    return run(sys.executable, "-S", *arguments)


def build() -> subprocess.CompletedProcess[str]:
    nanobind = python("-m", "nanobind", "--cmake_dir").stdout.strip()
    run("cmake", "-S", str(COPY), "-B", str(BUILD), "-G", "Ninja", "-DCMAKE_BUILD_TYPE=Release",
        f"-DPython_EXECUTABLE={sys.executable}", f"-Dnanobind_DIR={nanobind}")  # fmt: skip
    return run("cmake", "--build", str(BUILD), "--target", "_core")


def demand(condition: bool, what: str, done: subprocess.CompletedProcess[str]) -> None:
    print(f"{'ok' if condition else 'FAILED'}: {what}", flush=True)
    if not condition:
        sys.exit(f"{done.stdout[-6000:]}\n{done.stderr[-3000:]}")


def main() -> None:
    """Prints a line for each demand; leaves at the first that fails."""
    copy_sources()
    edits = hunks(ROOT / "docs" / "add-an-instruction.md")
    print(f"{len({edit.file for edit in edits})} files to edit by hand")
    for edit in edits:
        if edit.file not in ("sim_core/kernels/elementwise.h", "ltc_compiler/oracle/semantics.py"):
            apply(edit, COPY)
    done = build()
    complaint = "incomplete type" in done.stdout and "Opcode::square" in done.stdout
    demand(done.returncode != 0 and complaint, "without its C++ semantics the row does not build", done)
    for edit in edits:
        if edit.file == "sim_core/kernels/elementwise.h":
            apply(edit, COPY)
    done = build()
    demand(done.returncode == 0, "with them it builds", done)
    done = python("-c", IMPORT, ENVIRONMENT["LTC_CORE"])
    demand("differ in {'square'}" in done.stderr, "without its NumPy semantics it does not import", done)
    for edit in edits:
        if edit.file == "ltc_compiler/oracle/semantics.py":
            apply(edit, COPY)
    done = python("-c", IMPORT + USE, ENVIRONMENT["LTC_CORE"])
    demand(done.returncode == 0, "torch.square becomes the new instruction, and both machines agree", done)
    for test in TESTS:
        done = python("-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", *test.split())
        demand(done.returncode == 0, f"{test}: {done.stdout.strip().splitlines()[-1:]}", done)
    pages = {"instructions": "docs/isa.md", "configuration": "docs/configuration.md"}
    done = python(
        "-I", "ltc_compiler/isa", *(word for name, page in pages.items() for word in (f"--{name}", page))
    )
    written = "".join((COPY / page).read_text(encoding="utf-8") for page in pages.values())
    demand("| `square` | Unary | vector | square |" in written, "docs/isa.md has the new row", done)
    demand(
        "| `square` | 3 | read 1, multiply 1, finish 1 |" in written,
        "docs/configuration.md has its latency",
        done,
    )


if __name__ == "__main__":
    main()
