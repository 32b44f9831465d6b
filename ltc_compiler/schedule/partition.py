"""Which core computes which rows of a matrix product.

Whole rows of blocks go to a core: a dot product is never split, so the bits do not depend on the choice. Spreading
pays when the beats saved outweigh the links: the vector has to travel out and the results back home.
"""

from __future__ import annotations

from ..config import Config


def _cost(config: Config, cores: int, m_rows: int, k_rows: int, batch: int, fp32: bool) -> int:
    """Cycles, roughly: the beats of the core that has most, and two trips over the link."""
    part = -(-m_rows // cores)
    beats = part * k_rows * batch * (config.fp32_beats if fp32 else 1)
    if cores == 1:
        return beats
    lat = config.latency
    away = m_rows - part
    return beats + 2 * (lat.link + lat.move) + batch * (k_rows + away)


def output_rows_per_core(
    config: Config, m_rows: int, k_rows: int, batch: int, fp32: bool
) -> list[tuple[int, int, int]]:
    """(core, first output row, end) for each core that takes part, the home core first."""
    limit = min(config.cores, m_rows)
    cores = min(range(1, limit + 1), key=lambda n: (_cost(config, n, m_rows, k_rows, batch, fp32), n))
    part, more = divmod(m_rows, cores)
    parts: list[tuple[int, int, int]] = []
    start = 0
    for core in range(cores):
        stop = start + part + (core < more)
        parts.append((core, start, stop))
        start = stop
    return parts
