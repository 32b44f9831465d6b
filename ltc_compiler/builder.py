"""Several models in one program: weights that are equal are stored once, and every model keeps a state of its own.

builder = ProgramBuilder(Config.v80_c6b32())
builder.add_nnir(left, "left").add_nnir(right, "right", core_indices=[3, 4, 5])
program = builder.to_program()
program.to_vm().run(x, model_index=1)
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Self

from ltc_compiler.config import Config
from ltc_compiler.errors import ConfigError
from ltc_compiler.nnir import NNIR
from ltc_compiler.program import Program
from ltc_compiler.schedule.search import Job
from ltc_compiler.settle import compile_models


class ProgramBuilder:
    """Collects models for one configuration; `model_index` counts them in the order in which they were added.

    Args:
        config: the accelerator.
    """

    def __init__(self, config: Config) -> None:
        self.config = config
        self._models: list[Job] = []

    def add_nnir(
        self, nnir: NNIR, name: str | None = None, core_indices: Sequence[int] | None = None
    ) -> Self:
        """Add a model.

        Args:
            nnir: the model.
            name: its name in the program; the graph's if None.
            core_indices: the cores that it may use, its home core first; all cores if None.

        Returns:
            The builder, to add the next model.

        Raises:
            ConfigError: the name is taken, or the configuration does not have these cores.
        """
        name = name or nnir.graph.name
        if any(m.name == name for m in self._models):
            raise ConfigError(
                f"a model is called {name!r} already", where="name", remedy="give each a name of its own"
            )
        cores = tuple(range(self.config.cores)) if core_indices is None else tuple(core_indices)
        if not cores or len(set(cores)) != len(cores) or not set(cores) <= set(range(self.config.cores)):
            raise ConfigError(
                f"core_indices is {list(cores)}",
                where=f"model {name!r}",
                remedy=f"give different cores from 0 to {self.config.cores - 1}, at least one",
            )
        self._models.append(Job(name, nnir.graph, cores))
        return self

    def to_program(
        self, *, optimize: bool = True, quick_compile: bool = False, generate_state_reset: bool = True
    ) -> Program:
        """Compile all models into one program.

        Args:
            optimize: as for NNIR.to_program.
            quick_compile: as for NNIR.to_program.
            generate_state_reset: as for NNIR.to_program.

        Raises:
            ConfigError: no model was added, or the configuration lacks what a model asks for.
            AllocationError: the models do not fit together.
            GraphError: a graph cannot be lowered.
            UnsupportedError: an operation cannot be lowered.
        """
        if not self._models:
            raise ConfigError("there is no model", where="ProgramBuilder", remedy="call add_nnir first")
        program = compile_models(self._models, self.config, optimize=optimize, quick=quick_compile)
        return program if generate_state_reset else program.without_reset()
