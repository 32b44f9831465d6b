"""NNIR in, Program out: the stages of the compiler, in order.

    transforms -> selection (virtual instructions) -> order -> memory -> encoding

Every stage is deterministic; the same graph and configuration give the same bytes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import product
from math import exp, log, prod
from typing import Any

from ltc_compiler.bytecode import Image, Port
from ltc_compiler.config import Config
from ltc_compiler.errors import AllocationError, GraphError
from ltc_compiler.ir.graph import Graph, Node, Precision, Value
from ltc_compiler.program import Program
from ltc_compiler.schedule.encode import Lowered, encode
from ltc_compiler.schedule.memory import allocate
from ltc_compiler.schedule.order.order import Order, reorder
from ltc_compiler.schedule.rows.contents import Digests
from ltc_compiler.schedule.rows.layout import View, innermost, row_count
from ltc_compiler.schedule.rows.lowering import UNROLL, Lowering, Spread
from ltc_compiler.schedule.rows.virtual import Op
from ltc_compiler.schedule.select.select import lower_graph
from ltc_compiler.schedule.select.states import place_states, write_states
from ltc_compiler.schedule.spread.partition import check_places, cut_points
from ltc_compiler.transforms.pipeline import run_pipeline
from ltc_compiler.transforms.roll import roll_products
from ltc_compiler.transforms.unroll import may_unroll, unroll

BEST_ORDERS = (Order.EAGER, Order.STATE_FIRST)
GRAINS = (4, 2, 1)  # rows of a band on a core
LAST_RESORTS = (Spread(rotate=True), Spread(lending=True))  # they fill the weight stores evenly
SMALL = 4  # blocks of the largest product below which links cannot pay
WORTH = (
    0.99  # what needs more instructions or cores must take fewer cycles than this share of what needs less
)
LARGE = 2000  # blocks in all above which the full machine alone is tried, and one order of what follows


def compile_graph(
    graph: Graph, config: Config, name: str | None = None, *, optimize: bool = True, quick: bool = False
) -> Program:
    """Compile one graph for one configuration; see `compile_graphs`."""
    source = Source(name or graph.name, graph, tuple(range(config.cores)))
    return compile_graphs([source], config, optimize=optimize, quick=quick)


@dataclass(frozen=True)
class Source:
    """A model to compile: its name, its graph, and the cores that it may use; the first of them is its home."""

    name: str
    graph: Graph
    cores: tuple[int, ...]


def compile_graphs(
    models: Sequence[Source], config: Config, *, optimize: bool = True, quick: bool = False
) -> Program:
    """Compile models into one program; equal weights are stored once, every model has a state of its own.

    Loops and written out turns, several spreads over the cores and two orders of the instructions are tried, and the
    exact cycle count decides. Where the rows are too few, products of computed tensors are made row by row.
    quick: one form, one spread, one order. optimize=False: that, and the instructions stay
    in the order in which they are selected. Raises AllocationError, UnsupportedError or GraphError.
    """
    for m in models:
        if m.graph.prologue is not None:
            raise GraphError("its states begin with what a prologue computes", where=f"model {m.name!r}",
                             remedy="compile it with NNIR.to_program or ProgramBuilder")  # fmt: skip
    sources = [replace(m, graph=run_pipeline(m.graph)) for m in models]
    try:
        return schedule_graphs(sources, config, optimize=optimize, quick=quick)
    except AllocationError as error:
        rolled = [roll_products(m.graph) for m in models]
        if "rows" not in error.store or all(graph is None for graph in rolled):
            raise
        smaller = [
            m if graph is None else replace(m, graph=run_pipeline(graph))
            for m, graph in zip(sources, rolled, strict=True)
        ]
        try:
            return schedule_graphs(smaller, config, optimize=optimize, quick=quick)
        except AllocationError as other:
            raise _nearer(error, other) from None


def schedule_graphs(
    sources: list[Source], config: Config, *, optimize: bool = True, quick: bool = False
) -> Program:
    """`compile_graphs` from where the passes end: for graphs that run_pipeline made."""
    for m in sources:
        check_places(m.graph, m.cores, config)
    search = Search(config, _orders(sources, optimize, quick))
    if not optimize or quick:
        return _first_that_fits(search, sources, core_counts(sources, config)[-1])
    for form, cores in product(_forms(sources), core_counts(sources, config)):
        search.try_out(form, Spread(cores))
    if search.best is None:
        for spread in LAST_RESORTS:
            search.try_out(sources, spread)
    else:
        _refine(search, search.best, config)
    return search.program()


def _first_that_fits(search: Search, sources: list[Source], cores: int) -> Program:
    failure: AllocationError | None = None
    for spread in (Spread(cores), *LAST_RESORTS):
        try:
            return search.only(sources, spread)
        except AllocationError as error:
            failure = _nearer(failure, error)
    assert failure is not None
    raise failure


def _nearer(a: AllocationError | None, b: AllocationError) -> AllocationError:
    """The refusal that is nearer to fitting; the first of equals."""
    return b if a is None or b.needed * a.available < a.needed * b.available else a


def _orders(sources: list[Source], optimize: bool, quick: bool) -> Sequence[Order]:
    """The orders to try; without states there is nothing to do before the input comes."""
    if not optimize:
        return (Order.AS_WRITTEN,)
    stateful = any(m.graph.states for m in sources)
    if quick or not stateful:
        return (Order.STATE_FIRST if stateful else Order.EAGER,)
    return BEST_ORDERS


def _refine(search: Search, first: Draft, config: Config) -> None:
    """Bands of fewer and fewer rows on what is best so far, then lent products with fewer cores for all else."""
    form, cores = first.sources, first.spread.cores
    if is_large(form, config):
        search.orders = search.orders[-1:]
    widest = max((row_count(n, config.block_size) for m in form for n in _widths(m.graph)), default=0)
    for height in GRAINS:
        if cores > 1 and height * cores < widest:
            search.try_out(form, Spread(cores, height))
    if config.cores > 1 and widest and any(m.graph.states for m in form):
        grain = first.spread.grain if search.best is None else search.best.spread.grain
        enough = -(-widest // -(-widest // cores))  # as many rows on the fullest of them
        search.try_out(form, Spread(1, lending=True))
        heights = sorted({grain, 1 if widest > cores else 0})
        for fewer, height in product(sorted({enough, cores} - {1}), heights):
            search.try_out(form, Spread(fewer, height, lending=True))


@dataclass(frozen=True)
class Draft:
    """A schedule: everything that a program needs but rows and weights."""

    sources: list[Source]
    spread: Spread
    low: Lowering
    models: list[Lowered]
    ops: list[list[Op]]

    def image(self, config: Config, draft: bool = False) -> Image:
        """The program's image. draft: without weights, for the clock."""
        schedules = [m.schedule for m in self.models]
        for schedule, ordered in zip(schedules, self.ops, strict=True):
            schedule.ops = ordered
        return encode(self.models, self.low, config, allocate(schedules, config), draft)


class Search:
    """The best of the schedules that were tried. One that fails for want of room counts if all of them do."""

    def __init__(self, config: Config, orders: Sequence[Order]) -> None:
        self.config = config
        self.orders = orders
        self.digests = Digests()
        self.best: Draft | None = None
        self.cycles = 0.0
        self.failure: AllocationError | None = None

    def try_out(self, sources: list[Source], spread: Spread) -> None:
        """Select instructions for a spread, and order them in every way."""
        try:
            for draft in self._drafts(sources, spread):
                cycles = _cycles(Program(draft.image(self.config, draft=True)))
                if self.best is None or cycles < WORTH * self.cycles:
                    self.best, self.cycles = draft, cycles
        except AllocationError as error:
            self.failure = _nearer(self.failure, error)

    def _drafts(self, sources: list[Source], spread: Spread) -> Iterator[Draft]:
        low = Lowering(self.config, self.digests)
        models = [lower(low, m.graph, m.name, m.cores, spread) for m in sources]
        written = [m.schedule.ops for m in models]
        for order in self.orders:
            sorted_ops = [reorder(ops, self.config, order) for ops in written]
            yield Draft(sources, spread, low, models, sorted_ops)

    def only(self, sources: list[Source], spread: Spread) -> Program:
        """The program of one spread, not tried out."""
        return Program(next(self._drafts(sources, spread)).image(self.config))

    def program(self) -> Program:
        """The best, written out. Raises the AllocationError that is nearest to fitting where nothing fits."""
        if self.best is None:
            assert self.failure is not None
            raise self.failure
        return Program(self.best.image(self.config))


def _linears(models: Sequence[Source]) -> list[Node]:
    return [n for m in models for n in m.graph.walk() if n.op == "linear"]


def _widths(graph: Graph) -> Iterator[int]:
    """The widths of the pieces of every product."""
    cuts = cut_points(graph)
    for node in graph.nodes:
        if node.op == "linear":
            value = node.results[0]
            yield from (end - first for first, end in cuts.get(value, ((0, value.shape[-1]),)))
        elif node.op == "scan":
            yield from _widths(node.body)


def _forms(sources: list[Source]) -> list[list[Source]]:
    """The models as they are, and with turns of their loops written out."""
    if not any(may_unroll(m.graph) for m in sources):
        return [sources]
    return [sources, [replace(m, graph=unroll(m.graph)) for m in sources]]


def _cycles(program: Program) -> float:
    """The geometric mean of the cycles of all models, idle before and back to back: a share gained here is worth as
    much as the same share lost there."""
    models = range(program.num_models)
    counts = [program.cycle_count_per_inference(m, spaced) for m in models for spaced in (True, False)]
    return exp(sum(log(max(1, count)) for count in counts) / len(counts))


def is_large(models: Sequence[Source], config: Config) -> bool:
    """Whether compiling takes so long that fewer schedules are tried."""
    return sum(_blocks(n, config.block_size) for n in _linears(models)) > LARGE


def core_counts(models: Sequence[Source], config: Config) -> list[int]:
    """The numbers of cores that are worth trying. Large models take all of them."""
    blocks = [_blocks(n, config.block_size) for n in _linears(models)]
    targets = [n.results[0].shape[-1] for m in models for n in m.graph.walk() if n.op == "synapse"]
    most = max(len(m.cores) for m in models)
    if max(blocks, default=0) < SMALL:  # links cannot pay for products, but for more than one row of targets
        most = min(most, max((row_count(n, config.block_size) for n in targets), default=1))
    return [most] if is_large(models, config) else list(range(1, most + 1))


def _blocks(node: Node, block: int) -> int:
    rows, columns = node.operands[1].shape
    return row_count(rows, block) * row_count(columns, block)


def lower(low: Lowering, graph: Graph, name: str, cores: Sequence[int], spread: Spread) -> Lowered:
    """Select instructions for a graph on some cores: inputs, nodes, outputs, then the states' new values."""
    low.begin_model(cores, spread)
    _emit_inputs(low, graph.inputs)
    states = place_states(low, graph)
    lower_graph(low, graph)
    _emit_outputs(low, graph)
    write_states(low, graph)
    inputs = [Port(v.name, v.shape, v.role.value, _port_precision(v)) for v in graph.inputs]
    outputs = [
        Port(n, v.shape, "plain", _port_precision(v))
        for n, v in zip(graph.output_names, graph.outputs, strict=True)
    ]
    return Lowered(name, low.schedule, inputs, outputs, states, low.resident, _streaming(graph))


def _streaming(graph: Graph) -> dict[str, Any]:
    """What META says of a model's stream; latencies and tails only where there are any."""
    entry: dict[str, Any] = {
        "inputs": list(graph.input_streaming_dims or [None] * len(graph.inputs)),
        "outputs": list(graph.output_streaming_dims or [None] * len(graph.outputs)),
    }
    given = {
        "latencies": list(graph.output_latencies or ()),
        "tails": list(graph.output_tails or ()),
        "counter": graph.step_counter,
        "limit": graph.step_limit,
        "marker": graph.end_marker,
    }
    entry |= {
        key: value for key, value in given.items() if (any(value) if isinstance(value, list) else value)
    }
    return entry


def _port_precision(value: Value) -> str:
    return "bf16" if value.type.precision is Precision.BF16 else "fp32"


def _emit_inputs(low: Lowering, inputs: list[Value]) -> None:
    for port, value in enumerate(inputs):
        view = low.new(value.shape)
        low.schedule.source, low.schedule.operation = f"input {value.name}", "input"
        low.resident.ports[view.ref.buffer] = port, low.schedule.source
        low.schedule.emit("input", low.home, dst=view.ref, rows=view.total_rows, port=port, first=0)
        low.env[value] = view


def _emit_outputs(low: Lowering, graph: Graph) -> None:
    for port, (value, name) in enumerate(zip(graph.outputs, graph.output_names, strict=True)):
        low.schedule.source, low.schedule.operation = f"output {name}", "output"
        for first, view in _output_parts(low, value):
            low.schedule.emit(
                "output", view.ref.buffer.core, src=view.ref, rows=view.total_rows, port=port, first=first
            )


def _output_parts(low: Lowering, value: Value) -> list[tuple[int, View]]:
    """What goes out as it lies: parts from the cores that hold them, else the whole; each with its first row."""
    spread = low.shards.get(value)
    vectors = prod(value.shape[:-1])
    if spread is None or vectors > UNROLL:
        return [(0, low.dense(low.view(value)))]
    parts = []
    across = low.rows(value.shape[-1])
    for part in spread.parts:
        for v, view in enumerate(innermost(low.vectors(part.view))):
            parts.append((v * across + part.start, view))
    return parts
