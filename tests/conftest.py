"""What every test shares.

LTC_CORE=path puts another build of the C++ core in place (`make sanitize`). Random tests draw the same examples every
time, so that a change is to blame for a failure; `pytest --hypothesis-profile default` draws others.
"""

import importlib.util
import os
import sys

from hypothesis import settings

settings.register_profile("same", derandomize=True)
settings.load_profile("same")


def _use_core(path: str) -> None:
    """Load the extension at `path` as ltc_compiler._core, before anything imports the installed one."""
    if "ltc_compiler._core" in sys.modules:
        raise RuntimeError("LTC_CORE is set, but ltc_compiler._core was imported before conftest.py")
    spec = importlib.util.spec_from_file_location("ltc_compiler._core", path)
    if spec is None or spec.loader is None:
        raise RuntimeError(f"LTC_CORE={path} is not an extension module")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    sys.modules["ltc_compiler._core"] = module


if "LTC_CORE" in os.environ:
    _use_core(os.environ["LTC_CORE"])
