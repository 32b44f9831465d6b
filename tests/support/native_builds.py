"""C++ programs on libltc, built by CMake without the extension for Python."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

BIN = Path(sys.executable).parent  # CMake and ninja lie beside the interpreter


def build(source: Path, folder: Path, target: str, **variables: str) -> Path:
    """Configure the project in `source` and build one of its programs in `folder`; its path.

    Raises RuntimeError with the words of CMake or of the compiler.
    """
    configure(source, folder, **variables)
    _run("--build", str(folder), "--target", target)
    return folder / target


def configure(source: Path, folder: Path, **variables: str) -> None:
    """Configure the project in `source`, to be built in `folder`. Raises RuntimeError with the words of CMake."""
    settings = {"Python_EXECUTABLE": sys.executable, **variables}
    definitions = [f"-D{name}={value}" for name, value in settings.items()]
    _run("-S", str(source), "-B", str(folder), "-G", "Ninja", *definitions)


def without_preload() -> dict[str, str]:
    """This environment without what `make sanitize` loads into Python: compilers would be slow under ASan."""
    return {name: value for name, value in os.environ.items() if name != "LD_PRELOAD"}


def _run(*arguments: str) -> None:
    path = os.pathsep.join([str(BIN), os.environ.get("PATH", "")])
    command, environment = ["cmake", *arguments], without_preload() | {"PATH": path}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}\n{done.stdout[-3000:]}{done.stderr[-3000:]}")
