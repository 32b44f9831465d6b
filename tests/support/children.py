"""Python code in a process of its own, on the same build of the C++ core and with the modules of tests/support."""

from __future__ import annotations

import os
import subprocess
import sys

from folders import ROOT, SUPPORT


def run_python(
    code: str, *arguments: str, environment: dict[str, str] | None = None, folders: tuple[str, ...] = ()
) -> subprocess.CompletedProcess[str]:
    """Run `code` with `arguments` in the root of the repository; five minutes at most.

    Args:
        environment: variables beside those of this process.
        folders: where else `code` imports from.
    """
    inherited = os.environ.get("PYTHONPATH", "")
    path = os.pathsep.join([*folders, str(SUPPORT), str(ROOT), *inherited.split(os.pathsep)])
    return subprocess.run(
        [sys.executable, "-c", f"import chosen_core\n{code}", *arguments],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": path} | (environment or {}),
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
