"""A model on virtual rows: what selection makes of a graph, and order, memory and encoding work on."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from ltc_compiler.bytecode import Port
from ltc_compiler.schedule.rows.resident import Resident
from ltc_compiler.schedule.rows.virtual import Ref, Schedule


@dataclass(frozen=True)
class StateRows:
    """A state, and its rows on the core that holds it first; Resident has its copies on others."""

    name: str
    shape: tuple[int, ...]
    ref: Ref
    kind: str


@dataclass
class LoweredModel:
    """The instructions of a model, and what it exchanges with the host. streaming: its entry in the program's META."""

    name: str
    schedule: Schedule
    inputs: list[Port]
    outputs: list[Port]
    states: list[StateRows]
    resident: Resident
    streaming: dict[str, Any] = field(default_factory=dict)
