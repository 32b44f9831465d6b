"""The typed stub of the C++ core: what the build generates equals the golden file that reviewers read."""

from pathlib import Path

from folders import GOLDEN

from ltc_compiler import _core


def test_generated_stub_equals_the_golden_file() -> None:
    assert _core.__file__ is not None
    generated = Path(_core.__file__).with_name("_core.pyi")
    golden = (GOLDEN / "_core.pyi").read_text()
    assert generated.read_text() == golden, "the binding changed: review it, then `make stubs`"
