"""The search for the best schedule: several are made without weights, and the exact cycle count decides.

What is tried: loops as they are or with iterations written out, numbers of cores, heights of bands, products of the
state lent to other cores, and two orders of the instructions.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import product

from ltc_compiler.bytecode import Image
from ltc_compiler.clock import Clock
from ltc_compiler.config import Config
from ltc_compiler.errors import AllocationError
from ltc_compiler.ir.graph import Graph, Node
from ltc_compiler.schedule.encode import encode
from ltc_compiler.schedule.lower import lower
from ltc_compiler.schedule.memory import allocate
from ltc_compiler.schedule.order.order import Order, Sorter
from ltc_compiler.schedule.rows.contents import Contents
from ltc_compiler.schedule.rows.layout import row_count
from ltc_compiler.schedule.rows.model import LoweredModel
from ltc_compiler.schedule.spread.partition import Spread, check_places, cut_points
from ltc_compiler.transforms.unroll import may_unroll, unroll

_LOGGER = logging.getLogger("ltc_compiler.schedule")
BEST_ORDERS = (Order.EAGER, Order.STATE_FIRST)
GRAINS = (4, 2, 1)  # rows of a band per core
LAST_RESORTS = (Spread(rotate=True), Spread(lending=True))  # they fill the weight stores evenly
SMALL = 4  # blocks of the largest product below which links cannot pay
WORTH = 0.99  # share of the cycles below which a candidate need not be better in anything else
WORTH_MORE = 0.995  # and above which one with more instructions, on as many cores, is not worth them
LONG = (
    1 << 18
)  # cycles above which the time between inferences is not looked at, which takes a walk over 24 of them
LARGE = 2000  # blocks in all above which the full machine alone is tried, and one order of what follows


@dataclass(frozen=True)
class Job:
    """A model to compile: its name, its graph, and the cores that it may use; the first of them is its home."""

    name: str
    graph: Graph
    cores: tuple[int, ...]


@dataclass(frozen=True)
class Draft:
    """A schedule: everything that a program needs but rows and weights."""

    jobs: list[Job]
    spread: Spread
    contents: Contents
    models: list[LoweredModel]

    @cached_property
    def image(self) -> Image:
        """The program's image. Raises AllocationError where it does not fit."""
        return self._encoded(weights=True)

    @property
    def instructions(self) -> int:
        """Those of all models, over all cores."""
        return sum(len(m.schedule.ops) for m in self.models)

    def mean_latency(self) -> float:
        """Clock.mean_latency of the image, made without weights. Raises AllocationError where it does not fit."""
        return self._clock.mean_latency()

    @cached_property
    def interval(self) -> float:
        """Clock.mean_interval of the image. Raises AllocationError where it does not fit."""
        return self._clock.mean_interval()

    @cached_property
    def _clock(self) -> Clock:
        return Clock.of(self._encoded(weights=False))

    def _encoded(self, weights: bool) -> Image:
        uses = allocate([m.schedule for m in self.models], self.contents.config)
        return encode(self.models, self.contents, uses, weights)


def best_schedule(jobs: list[Job], config: Config, *, optimize: bool = True, quick: bool = False) -> Draft:
    """The schedule of fewest cycles, for graphs that run_pipeline made.

    optimize, quick: as for compile_graphs. Raises AllocationError where nothing fits, UnsupportedError or ConfigError.
    """
    for job in jobs:
        check_places(job.graph, job.cores, config)
    search = Search(config, _orders(jobs, optimize, quick))
    if not optimize or quick:
        return search.first_that_fits(jobs, (Spread(core_counts(jobs, config)[-1]), *LAST_RESORTS))
    for form, cores in product(_forms(jobs), core_counts(jobs, config)):
        search.try_out(form, Spread(cores))
    if search.best is None:
        for spread in LAST_RESORTS:
            search.try_out(jobs, spread)
    else:
        _refine(search, search.best, config)
    return search.result()


def nearer(a: AllocationError | None, b: AllocationError) -> AllocationError:
    """The refusal that is nearer to fitting; the first of equals."""
    return b if a is None or b.needed * a.available < a.needed * b.available else a


class Search:
    """The best of the schedules that were tried. One that does not fit is passed over; if none fits, the refusal of the
    one nearest to fitting is raised."""

    def __init__(self, config: Config, orders: Sequence[Order]) -> None:
        self.config = config
        self.orders = orders
        self.best: Draft | None = None
        self.cycles = 0.0
        self.failure: AllocationError | None = None

    def try_out(self, jobs: list[Job], spread: Spread) -> None:
        """Select instructions for a spread, and order them in every way."""
        try:
            for draft in self._drafts(jobs, spread):
                cycles = draft.mean_latency()
                _LOGGER.debug("%s: %.0f cycles", spread, cycles)
                if self.best is None or self._is_better(draft, cycles, self.best):
                    self.best, self.cycles = draft, cycles
        except AllocationError as error:
            self.failure = nearer(self.failure, error)

    def _is_better(self, draft: Draft, cycles: float, best: Draft) -> bool:
        """Clearly fewer cycles; or not more of them, nor between inferences that follow each other without a pause."""
        if cycles < WORTH * self.cycles:
            return True
        larger = draft.instructions > best.instructions
        if draft.spread.cores > best.spread.cores or cycles > (WORTH_MORE if larger else 1.0) * self.cycles:
            return False
        if cycles > LONG:
            return cycles < self.cycles
        return (draft.interval, cycles) < (best.interval, self.cycles)

    def first_that_fits(self, jobs: list[Job], spreads: Sequence[Spread]) -> Draft:
        """The first spread that finds room, in the first order. Raises AllocationError, as `result`."""
        for spread in spreads:
            draft = next(self._drafts(jobs, spread))
            try:
                _ = draft.image
            except AllocationError as error:
                self.failure = nearer(self.failure, error)
                continue
            return draft
        return self.result()

    def _drafts(self, jobs: list[Job], spread: Spread) -> Iterator[Draft]:
        contents = Contents(self.config)
        models = [lower(contents, job.graph, job.name, job.cores, spread) for job in jobs]
        sorters = [Sorter(m.schedule.ops, self.config) for m in models]
        for order in self.orders:
            ordered = [
                replace(model, schedule=replace(model.schedule, ops=sorter.ordered(order)))
                for model, sorter in zip(models, sorters, strict=True)
            ]
            yield Draft(jobs, spread, contents, ordered)

    def result(self) -> Draft:
        """The best. Raises the AllocationError that is nearest to fitting where nothing fits."""
        if self.best is None:
            assert self.failure is not None
            raise self.failure
        return self.best


def _orders(jobs: list[Job], optimize: bool, quick: bool) -> Sequence[Order]:
    """The orders to try; without states there is nothing to do before the input comes."""
    if not optimize:
        return (Order.AS_WRITTEN,)
    stateful = any(job.graph.states for job in jobs)
    if quick or not stateful:
        return (Order.STATE_FIRST if stateful else Order.EAGER,)
    return BEST_ORDERS


def _refine(search: Search, first: Draft, config: Config) -> None:
    """Try the best form so far in bands of fewer and fewer rows; then with products of the state lent to other cores,
    and fewer cores for the rest."""
    form, cores = first.jobs, first.spread.cores
    if is_large(form, config):
        search.orders = search.orders[-1:]
    widest = max((row_count(n, config.block_size) for job in form for n in _widths(job.graph)), default=0)
    for height in GRAINS:
        if cores > 1 and height * cores < widest:
            search.try_out(form, Spread(cores, height))
    if config.cores > 1 and widest and any(job.graph.states for job in form):
        grain = first.spread.grain if search.best is None else search.best.spread.grain
        enough = -(-widest // -(-widest // cores))  # as many rows on the fullest of them
        search.try_out(form, Spread(1, lending=True))
        tried = GRAINS[1:] if is_large(form, config) else GRAINS  # which is best is not seen without lending
        heights = sorted({grain, *(height for height in tried if height * cores < widest)})
        for fewer, height in product(sorted({enough, cores} - {1}), heights):
            search.try_out(form, Spread(fewer, height, lending=True))


def _forms(jobs: list[Job]) -> list[list[Job]]:
    """The models as they are, and with iterations of their loops written out."""
    if not any(may_unroll(job.graph) for job in jobs):
        return [jobs]
    return [jobs, [replace(job, graph=unroll(job.graph)) for job in jobs]]


def is_large(jobs: Sequence[Job], config: Config) -> bool:
    """Whether compiling takes so long that fewer schedules are tried."""
    return sum(_blocks(n, config.block_size) for n in _linears(jobs)) > LARGE


def core_counts(jobs: Sequence[Job], config: Config) -> list[int]:
    """The numbers of cores that are worth trying. Large models take all of them."""
    blocks = [_blocks(n, config.block_size) for n in _linears(jobs)]
    targets = [n.results[0].shape[-1] for job in jobs for n in job.graph.walk() if n.op == "synapse"]
    most = max(len(job.cores) for job in jobs)
    if max(blocks, default=0) < SMALL:  # links cannot pay for products, but for more than one row of targets
        most = min(most, max((row_count(n, config.block_size) for n in targets), default=1))
    return [most] if is_large(jobs, config) else list(range(1, most + 1))


def _linears(jobs: Sequence[Job]) -> list[Node]:
    return [n for job in jobs for n in job.graph.walk() if n.op == "linear"]


def _blocks(node: Node, block: int) -> int:
    rows, columns = node.operands[1].shape
    return row_count(rows, block) * row_count(columns, block)


def _widths(graph: Graph) -> Iterator[int]:
    """The widths of the pieces of every product."""
    cuts = cut_points(graph)
    for node in graph.nodes:
        if node.op == "linear":
            value = node.results[0]
            yield from (end - first for first, end in cuts.get(value, ((0, value.shape[-1]),)))
        elif node.op == "scan":
            yield from _widths(node.body)
