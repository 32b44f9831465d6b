"""A recorded graph that keeps its module state, as the model does.

While it is being made, such a graph is a function: its states come in as placeholders behind the inputs, and their
next values go out beside the outputs. `stateful` turns it into a module that is called like the model, with buffers
that hold the states from call to call. `to_nnir` reads the states off its nodes: `meta["state"]` of a buffer is the
state's name, and `keep_states` is the last operation.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor, fx

from ltc_compiler.ir.graph import Value
from ltc_torch.fx.record.exact import in_numpy
from ltc_torch.fx.registry import converts
from ltc_torch.fx.state.held import Path, spelled


def read_state(buffer: Tensor) -> Tensor:
    """The value of a state when the call began."""
    return buffer.clone()


@converts("read_state")
def _read(emitter: object, state: Value) -> Value:
    return state


def keep_states(buffers: Sequence[Tensor], values: Sequence[Tensor]) -> None:
    """Replace states by their next values, which share no memory with them (read_state)."""
    for buffer, value in zip(buffers, values, strict=True):
        buffer.copy_(value)


fx.node.has_side_effect(keep_states)


def stateful(module: fx.GraphModule, states: Mapping[Path, Tensor]) -> fx.GraphModule:
    """`module` with its last placeholders, one for each of `states` in order, as buffers that hold initial values.

    The module returns (outputs, next values of the states) before and outputs alone after.
    """
    graph = module.graph
    placeholders = [n for n in graph.nodes if n.op == "placeholder"]
    (output,) = (n for n in graph.nodes if n.op == "output")
    results, following = output.args[0]
    buffers = []
    place = placeholders[-1]
    for i, (old, (path, initial)) in enumerate(
        zip(placeholders[-len(states) :], states.items(), strict=True)
    ):
        module.register_buffer(f"_state_{i}", initial.detach().clone())
        with graph.inserting_after(place):
            buffer = graph.get_attr(f"_state_{i}")
        with graph.inserting_after(buffer):
            place = graph.call_function(read_state, (buffer,))
        exact = in_numpy(initial)
        place.meta = dict(old.meta)
        buffer.meta = dict(old.meta) | {"state": spelled(path), "exact": exact}
        old.replace_all_uses_with(place)
        buffers.append(buffer)
    results, following = output.args[0]
    with graph.inserting_before(output):
        kept = graph.call_function(keep_states, (buffers, list(following)))
    kept.meta = dict(output.meta) | {"source": placeholders[-1].meta["source"], "shape": [], "dtype": []}
    output.args = (results,)
    for old in placeholders[-len(states) :]:
        graph.erase_node(old)
    graph.lint()
    module.recompile()
    return module
