"""A whole program as data: configuration, code, the initial stores of every core, and its models.

The compiler builds an Image; the container turns it into bytes and back; the oracle executes it as it stands.
Every part checks its own shapes when it is built. What the instructions do with the stores (bounds, FIFO
balance, who may write a state row) is the verifier's matter, when a machine loads the program.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, Self

from ltc_compiler import isa
from ltc_compiler.bytecode import container
from ltc_compiler.bytecode.instr import Instr
from ltc_compiler.bytecode.ports import F32, Model
from ltc_compiler.bytecode.reader import RECOMPILE
from ltc_compiler.bytecode.rings import check_rings
from ltc_compiler.bytecode.stores import U16, CoreImage
from ltc_compiler.config import Config
from ltc_compiler.errors import ProgramError


@dataclass(frozen=True, eq=False)
class Image:
    """A program. `code` is legal when executed front to back; each instruction is tagged with its core.

    file: its bytes, where the weights are views of them (`filled`).
    meta: for people and tools, plain JSON values, no influence on the result. Keys in use: "compiler"
    (version), "instructions" (index as text -> what it does for the user: the place in the model),
    "operations" (index as text -> op of the graph that it belongs to), "streaming" (per model:
    {"inputs": [axis or null ...], "outputs": [...], "latencies": [steps ...], "tails": [...], "counter": state,
    "limit": steps, "marker": state}, as alignment.Streaming says; absent where there is nothing to say), "states" (per
    model: the kind of every state, as the graph names it: "stream", "module", "tied"),
    "state_reset" (false: `reset` is refused), "live_rows" (per core: rows that hold something at once, at most).
    """

    config: Config
    code: list[Instr]
    cores: list[CoreImage]
    models: list[Model]
    meta: dict[str, Any] = field(default_factory=dict)
    file: bytes | bytearray | None = field(default=None, init=False, repr=False)

    def __post_init__(self) -> None:
        if len(self.cores) != self.config.cores:
            raise ProgramError(f"{len(self.cores)} core images for a machine of {self.config.cores} cores")
        for index, core in enumerate(self.cores):
            if core.block_size != self.config.block_size:
                raise ProgramError(
                    f"core {index} has block size {core.block_size}, the machine {self.config.block_size}"
                )
            for store, (used, depth) in store_use(self, index).items():
                if used > depth:
                    raise ProgramError(f"core {index} uses {used} {store}, the machine has {depth}")
        for number, instr in enumerate(self.code):
            if instr.core != isa.ALL_CORES and instr.core >= self.config.cores:
                raise ProgramError(f"instruction {number} is for core {instr.core} of {self.config.cores}")
        for model in self.models:
            self._check_model(model)
        self._check_rings()

    def _check_model(self, model: Model) -> None:
        if model.end > len(self.code):
            raise ProgramError(f"model {model.name!r} ends at instruction {model.end} of {len(self.code)}")
        for state in model.states:
            for core, row in state.places:
                rows = self.cores[core].tensor_rows if 0 <= core < len(self.cores) else 0
                if not 0 <= row <= rows - state.rows(self.config.block_size):
                    raise ProgramError(
                        f"state {state.name!r} of model {model.name!r} is at row {row} of core"
                        f" {core}, which has {rows} rows"
                    )

    def _check_rings(self) -> None:
        rings = [ring for model in self.models for ring in model.rings]
        for index, core in enumerate(self.cores):
            check_rings(rings, core.tensor_rows, self.config.rings, index)
        for model in self.models:
            places = [
                (c, row, row + state.rows(self.config.block_size))
                for state in model.states
                for c, row in state.places
            ]
            for ring in model.rings:
                held = [row for c, low, end in places if c == ring.core and ring.holds(low, end - 1)
                        for row in range(low, end)]  # fmt: skip
                if len(set(held)) < ring.places * ring.rows:
                    raise ProgramError(
                        f"a ring of model {model.name!r} at row {ring.row} of core {ring.core} has rows of no state"
                        " of the model"
                    )

    def state_kinds(self, model_index: int) -> dict[str, str]:
        """The kind of every state of a model, by its name. Raises ProgramError if META contradicts the states."""
        model, every = self.models[model_index], self.meta.get("states")
        if every is None:
            return {state.name: "stream" for state in model.states}
        kinds = every[model_index] if isinstance(every, list) and model_index < len(every) else None
        if not isinstance(kinds, list) or len(kinds) != len(model.states):
            raise ProgramError(
                f"kinds of the states of model {model.name!r} are {kinds!r} for {len(model.states)} states",
                where="section META", remedy=RECOMPILE,
            )  # fmt: skip
        return {state.name: str(kind) for state, kind in zip(model.states, kinds, strict=True)}

    def to_bytes(self, shadow: bool = True) -> bytes:
        """The program file; shadow=False leaves the fp32 originals out (no plain fp32 machine then)."""
        if self.file is not None and shadow:
            return bytes(self.file)
        return container.write(self._parts(), shadow)

    def filled(self, fill: Callable[[int, U16, F32 | None], None]) -> Self:
        """The same program, with weights that `fill` writes: of a core, into its blocks and their fp32 originals. This
        image's weights give their number alone; the new one holds them once, in the bytes of its file."""
        data, cores = container.write_around(self._parts(), fill)
        made = replace(self, cores=cores)
        object.__setattr__(made, "file", data)
        return made

    def _parts(self) -> container.Parts:
        return container.Parts(self.config, self.code, self.cores, self.models, self.meta)

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """The inverse of to_bytes. Raises ProgramError or IsaMismatchError with section and byte offset."""
        parts = container.read(data)
        try:
            return cls(*parts)
        except ProgramError as error:
            raise ProgramError(error.what, where="the program's stores", remedy=RECOMPILE) from error


def store_use(image: Image, core: int) -> dict[str, tuple[int, int]]:
    """Used and depth of every store of a core, in its own unit."""
    stores, config = image.cores[core], image.config
    instructions = sum(instr.core in (core, isa.ALL_CORES) for instr in image.code)
    return {
        "tensor_rows": (stores.tensor_rows, config.tensor_rows),
        "weight_blocks": (len(stores.weights), config.weight_blocks),
        "synapse_slots": (len(stores.slots), config.synapse_slots),
        "gather_entries": (len(stores.entries), config.gather_entries),
        "instruction_slots": (instructions, config.instruction_slots),
    }
