"""The random graphs of the streaming law use every streaming rule, and a fault in any of them breaks the law."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from generators import random_graph, random_inputs
from nnir_cases import assert_streams

from ltc_compiler.errors import LtcError
from ltc_compiler.ir.ops import OPS
from ltc_compiler.transforms.streaming import transform as streaming
from ltc_compiler.transforms.streaming.delays import Memory
from ltc_compiler.transforms.streaming.streamer import Current, Stream, Streamer

Patch = pytest.MonkeyPatch
SEEDS = 640


def holds(seed: int) -> bool:
    """Whether a random graph keeps the law."""
    rng = np.random.default_rng(seed)
    graph = random_graph(rng, streamable=True)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            assert_streams(graph, streaming.streaming_transform(graph, 0), random_inputs(rng, graph))
    except (AssertionError, LtcError, ValueError, IndexError):
        return False
    return True


def test_random_graphs_use_every_rule(monkeypatch: Patch) -> None:
    """Every rule, on early and late streams, on the first and on other axes, with a history, and for the last step."""
    seen: Counter[Any] = Counter()

    def watched(rule: str, original: Any) -> Any:
        def run(s: Streamer, node: Any, kinds: Any) -> Any:
            results = original(s, node, kinds)
            streams = [k for k in kinds if isinstance(k, Stream)]
            seen[rule] += 1
            seen[rule, "late"] += any(k.off > 0 for k in streams)
            seen[rule, "moved"] += any(k.axis > 0 for k in streams)
            seen["history"] += any(k.history is not None for k in streams)
            seen["delay line"] += len({k.off for k in streams}) > 1
            seen["last step"] += any(isinstance(k, Current) for k in results)
            return results

        return run

    for rule, original in list(streaming._RULES.items()):
        monkeypatch.setitem(streaming._RULES, rule, watched(rule, original))
    assert all(map(holds, range(SEEDS)))
    rules = {op.streaming for op in OPS.values()} - {"constant"}
    wanted = [*rules, *((r, "late") for r in rules), *((r, "moved") for r in rules - {"scan"})]
    assert not [w for w in (*wanted, "history", "delay line", "last step") if not seen[w]]


def rule(name: str, change: Callable[[Stream], Stream]) -> Callable[[Patch], None]:
    """A rule whose streamed results are described wrongly."""

    def plant(patch: Patch) -> None:
        original = streaming._RULES[name]

        def wrong(s: Streamer, node: Any, kinds: Any) -> Any:
            return [change(k) if isinstance(k, Stream) else k for k in original(s, node, kinds)]

        patch.setitem(streaming._RULES, name, wrong)

    return plant


def late(k: Stream) -> Stream:
    return replace(k, off=k.off + 1)


def moved(k: Stream) -> Stream:
    return replace(k, axis=k.axis - 1 if k.axis else min(1, len(k.value.shape)))


def forgets_padding(patch: Patch) -> None:
    original = Memory.delayed
    patch.setattr(Memory, "delayed", lambda m, v, initial, module: original(m, v, [None] * len(initial)))


FAULTS: dict[str, Callable[[Patch], None]] = {
    **{f"{name} is said to be late": rule(name, late) for name in streaming._RULES},
    **{
        f"{name} mistakes the axis": rule(name, moved)
        for name in ("permute", "reshape", "reduce", "broadcast", "pointwise", "linear", "concat", "slice")
    },
    "padding is forgotten": forgets_padding,
    "nothing is delayed": lambda patch: patch.setattr(
        Streamer, "delay", lambda s, kind, off, node: kind.value
    ),
    "the last step is taken too early": lambda patch: patch.setattr(
        Streamer, "current", lambda s, kind, node: kind.value
    ),
    "nothing is held back": lambda patch: patch.setattr(
        Memory, "after", lambda m, steps, source: m.graph.constant(1.0)
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_breaks_the_law(fault: str, monkeypatch: Patch) -> None:
    FAULTS[fault](monkeypatch)
    assert not all(map(holds, range(SEEDS))), "no random graph noticed it"
