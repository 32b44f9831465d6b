"""Delay lines among the states of a graph: those that take over each other's values, in the order of time.

A step moves a line on by one stage. A program that takes several steps at once moves it on by as many: every stage then
takes over the value of the one so many behind it, which makes as many chains, that lie side by side in one line.
"""

from __future__ import annotations

from collections import defaultdict
from typing import NamedTuple

from ltc_compiler.ir.graph import State, Value


class Line(NamedTuple):
    """Stages, the oldest first. Each takes over the value of the one `advance` further on, the last ones new values;
    with an advance of all stages, all of them do."""

    stages: list[State]
    advance: int = 1


def delay_lines(places: dict[State, tuple[int, ...]]) -> list[Line]:
    """All states in lines, those on one core together: most are a line by themselves."""
    beside: dict[object, list[tuple[int, list[State]]]] = defaultdict(list)
    lines = []
    for chain in _chains(places):
        row = _row_of(chain[-1].next)
        if row is None:
            lines.append(Line(chain))
        else:
            beside[row[0], places[chain[-1]], chain[-1].value.shape].append((row[1], chain))
    for found in beside.values():
        found.sort(key=lambda entry: entry[0], reverse=True)
        indices, chains = [index for index, _ in found], [chain for _, chain in found]
        lines += [_side_by_side(chains)] if _fit(indices, chains) else [Line(chain) for chain in chains]
    return lines


def _fit(indices: list[int], chains: list[list[State]]) -> bool:
    """Whether chains whose last stages take over these rows of one value make up a line."""
    lengths = [len(chain) for chain in chains]
    even = lengths == sorted(lengths, reverse=True) and lengths[0] - lengths[-1] < 2
    return (
        even
        and len(chains) * lengths[0] > 1
        and indices == list(range(indices[0], indices[0] - len(indices), -1))
    )


def _side_by_side(chains: list[list[State]]) -> Line:
    """The line of chains, of which the first ends with its newest stage."""
    by_age = [chain[-age] for age in range(1, len(chains[0]) + 1) for chain in chains if age <= len(chain)]
    return Line(by_age[::-1], len(chains))


def _row_of(value: Value | None) -> tuple[Value, int] | None:
    """The value that another is one row of, and which."""
    node = value.node if value is not None else None
    if node is not None and node.op == "reshape":
        node = node.operands[0].node
    if node is None or node.op != "slice" or node.attrs["axis"] != 0:
        return None
    start, stop = node.attrs["start"], node.attrs["stop"]
    return (node.operands[0], start) if stop - start == 1 else None


def _chains(places: dict[State, tuple[int, ...]]) -> list[list[State]]:
    """The states in chains: each stage is replaced by the one behind it, on the same core."""
    states = list(places)
    by_value = {s.value: s for s in states}
    older: dict[Value, State] = {}
    for state in states:
        source = by_value.get(state.next) if state.next is not None else None
        if source is None or source is state or places[source] != places[state]:
            continue
        if source.value.shape == state.value.shape:
            older.setdefault(source.value, state)
    lines: list[list[State]] = []
    placed: set[Value] = set()
    followers = set(older.values())
    for newest in [*(s for s in states if s not in followers), *states]:
        line = []
        stage: State | None = newest
        while stage is not None and stage.value not in placed:
            placed.add(stage.value)
            line.append(stage)
            stage = older.get(stage.value)
        if line:
            lines.append(line[::-1])
    return lines
