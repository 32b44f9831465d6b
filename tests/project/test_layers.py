"""Imports run one way: import-linter checks the floors that stand in pyproject.toml."""

import shutil
import subprocess
import sys
from pathlib import Path

from folders import ROOT


def test_every_import_runs_down() -> None:
    lint_imports = shutil.which("lint-imports", path=str(Path(sys.executable).parent))
    assert lint_imports is not None, "not installed beside this Python: pip install -e .[test]"
    done = subprocess.run([lint_imports, "--no-cache"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_ltc_compiler_imports_without_torch() -> None:
    code = "import sys; sys.modules['torch'] = None; import ltc_compiler"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_the_tests_of_the_core_import_without_torch() -> None:
    """Collected by itself, as by `make sanitize`, the folder refuses a file that does."""
    command = [
        sys.executable,
        "-m",
        "pytest",
        "--collect-only",
        "-qq",
        "-p",
        "no:cacheprovider",
        "tests/core",
    ]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
