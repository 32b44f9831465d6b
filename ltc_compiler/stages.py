"""How long the stages of a compilation take, as the logger of each says at INFO (docs/reports.md lists them)."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def stage(name: str, what: str) -> Iterator[None]:
    """Log the seconds that pass inside, to the logger `ltc_compiler.<name>`; the record has them as `wall_s` and
    `cpu_s`. what: of which model or program."""
    logger = logging.getLogger(f"ltc_compiler.{name}")
    wall, cpu = time.perf_counter(), time.process_time()
    yield
    spent = {"wall_s": time.perf_counter() - wall, "cpu_s": time.process_time() - cpu}
    logger.info("%s: %.3f s, %.3f s of CPU", what, *spent.values(), extra=spent)
