"""Imported before ltc_compiler: LTC_CORE=path puts another build of the C++ core in place (`make sanitize`)."""

import importlib.util
import os
import sys


def _use_core(path: str) -> None:
    """Load the extension at `path` as ltc_compiler._core, before anything imports the installed one."""
    if "ltc_compiler._core" in sys.modules:
        raise RuntimeError("LTC_CORE is set, but ltc_compiler._core was imported before chosen_core")
    spec = importlib.util.spec_from_file_location("ltc_compiler._core", path)
    if spec is None or spec.loader is None:
        raise RuntimeError(f"LTC_CORE={path} is not an extension module")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    sys.modules["ltc_compiler._core"] = module


if "LTC_CORE" in os.environ:
    _use_core(os.environ["LTC_CORE"])
