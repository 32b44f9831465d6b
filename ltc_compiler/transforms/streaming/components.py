"""What of a step graph depends on itself from step to step: the strongly connected components of nodes and states.

A node depends on what makes its operands, and a state, in the next step, on what makes its new value. A component of
several units is a recurrence; all others can be computed for many steps at once, in the order given here.
"""

from __future__ import annotations

from collections.abc import Iterator

from ltc_compiler.ir.graph import Graph, Node, State, Value

Unit = Node | State


def components(step: Graph) -> Iterator[list[Unit]]:
    """The components, each behind those that it depends on; its units in the graph's order (Tarjan, 1972)."""
    of_state: dict[Value, Unit] = {s.value: s for s in step.states}
    units: list[Unit] = [*step.nodes, *step.states]
    place = {unit: i for i, unit in enumerate(units)}
    number: dict[Unit, int] = {}  # in the order of the first visit
    lowest: dict[Unit, int] = {}  # the smallest number that a unit reaches
    stack: list[Unit] = []
    waiting: set[Unit] = set()

    def needs(unit: Unit) -> Iterator[Unit]:
        for value in unit.operands if isinstance(unit, Node) else (unit.next,):
            made = None if value is None else value.node or of_state.get(value)
            if made is not None:
                yield made

    for start in units:
        path = [(start, needs(start))] if start not in number else []
        while path:
            unit, further = path[-1]
            if unit not in number:
                number[unit] = lowest[unit] = len(number)
                stack.append(unit)
                waiting.add(unit)
            for other in further:
                if other not in number:
                    path.append((other, needs(other)))
                    break
                if other in waiting:
                    lowest[unit] = min(lowest[unit], number[other])
            else:
                path.pop()
                if path:
                    lowest[path[-1][0]] = min(lowest[path[-1][0]], lowest[unit])
                if lowest[unit] == number[unit]:
                    found = [stack.pop()]
                    while found[-1] is not unit:
                        found.append(stack.pop())
                    waiting.difference_update(found)
                    yield sorted(found, key=place.__getitem__)
