"""What `make sanitize` runs: the C++ core, beside the reference machine, on programs from bytecode or from graphs.

Nothing here may import torch, which does not run under the sanitizers in reasonable time.
"""

import sys
from collections.abc import Iterator

import pytest

REFUSAL = "imports torch, which make sanitize cannot run: move the test to the folder of what it tests"


def pytest_collection_finish(session: pytest.Session) -> None:
    """Where this folder is collected by itself, torch came from one of its files."""
    alone = all("/tests/core/" in item.path.as_posix() for item in session.items)
    if alone and "torch" in sys.modules:
        raise pytest.UsageError(f"a file in tests/core {REFUSAL}")


@pytest.fixture(autouse=True)
def _without_torch() -> Iterator[None]:
    there = "torch" in sys.modules
    yield
    if not there and "torch" in sys.modules:
        pytest.fail(f"the test {REFUSAL}")
