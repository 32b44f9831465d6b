"""Models by name, one row each, for tests, benchmarks, golden cycles and sweeps: who needs some names them or loops.

SMALL has every kind of model that the front end takes, at the least size that shows it. SWEEP has what people deploy in
many sizes, SIZED more of trained size for single purposes. ZOO is all of them. The folder is no part of the wheel.
"""

from dataclasses import replace

from zoo import basic, causal, liquid, ode, published, recurrent
from zoo.row import Inputs, ZooModel, build, by_name, context, step_graph
from zoo.sized import SIZED, SWEEP

SMALL: dict[str, ZooModel] = by_name(
    replace(ZooModel(name, *row), family=module.__name__.rpartition(".")[2])
    for module in (basic, causal, ode, liquid, recurrent, published)
    for name, row in module.MODELS.items()
)
ZOO: dict[str, ZooModel] = by_name([*SMALL.values(), *SWEEP.values(), *SIZED.values()])

__all__ = ["SIZED", "SMALL", "SWEEP", "ZOO", "Inputs", "ZooModel", "build", "context", "step_graph"]
