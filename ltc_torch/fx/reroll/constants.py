"""Constants of a rolled recording: what depends on no input is computed here, once, and in fp64 beside.

To find a loop whose first state is a constant, operations on constants are recorded too. Outside of the loop, and
inside where every iteration does the same, they are constants again in the end: the machine need not know them.
"""

from __future__ import annotations

import itertools
import operator
from collections import Counter
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, fx

from ltc_torch.fx.record.exact import Exact, widened
from ltc_torch.fx.record.views import read_region
from ltc_torch.fx.reroll.repeats import LEAST_ITERATIONS


def settle(module: fx.GraphModule, reads_alone: bool = False) -> None:
    """Replace the operations on constants of a graph, and of the bodies of its scans, by constants.

    reads_alone: replace reads of parts of constants alone, which are the same in all iterations if the parts are; of
    a constant that was computed, as a weight written in place, those alone that the iterations of a loop share.
    """
    exact = Exact()
    values: dict[fx.Node, Any] = {}
    for node in list(module.graph.nodes):
        if node.op == "get_attr":
            body = getattr(module, str(node.target), None) if "body" in node.meta else None
            if isinstance(body, fx.GraphModule):
                settle(body)
            elif "exact" in node.meta:
                values[node] = _held(module, node, exact)
        elif node.op in ("call_function", "call_method") and _reads_known(node, values):
            values[node] = _computed(node, values, exact)
    if reads_alone:
        values = {node: value for node, value in values.items() if _same_in_iterations(node, values)}
    for node in list(_frontier(module.graph, values)):
        _replace(module, node, values[node], exact)
    if not reads_alone:
        module.graph.eliminate_dead_code(is_impure_node=lambda n: n.op in ("placeholder", "output"))
    module.recompile()


def _reads_known(node: fx.Node, values: dict[fx.Node, Any]) -> bool:
    return bool(node.all_input_nodes) and all(n in values for n in node.all_input_nodes)


def _held(module: fx.GraphModule, node: fx.Node, exact: Exact) -> Tensor:
    tensor: Tensor = operator.attrgetter(str(node.target))(module).detach()
    if tensor.is_floating_point():
        exact.keep(tensor, torch.from_numpy(widened(node.meta["exact"]).copy()))
    return tensor


def _computed(node: fx.Node, values: dict[fx.Node, Any], exact: Exact) -> Any:
    given: Any = fx.node.map_arg((node.args, node.kwargs), lambda n: values[n])
    args, kwargs = given
    if node.target is operator.getitem and not isinstance(args[0], Tensor):
        return args[0][args[1]]
    target = node.target
    if node.op == "call_method":
        return exact.call(lambda *a, **k: getattr(a[0], str(target))(*a[1:], **k), args, kwargs)
    assert callable(target)
    return exact.call(target, args, kwargs)


def _same_in_iterations(node: fx.Node, values: dict[fx.Node, Any]) -> bool:
    """Whether a constant is held, or a read of a held one, or a read that operations of several iterations share: a
    read of a state that the first iteration finds constant is none of these."""
    if node.op == "get_attr":
        return True
    if node.target is not read_region:
        return False
    lines = Counter((user.target, user.meta["source"].line) for user in node.users)
    return node.all_input_nodes[0].op == "get_attr" or max(lines.values(), default=0) >= LEAST_ITERATIONS


def _frontier(graph: fx.Graph, values: dict[fx.Node, Any]) -> Iterator[fx.Node]:
    """The computed constants that something other than a computed constant reads."""
    for node in graph.nodes:
        made = node.op != "get_attr" and isinstance(values.get(node), Tensor)
        if made and any(user not in values for user in node.users):
            yield node


def _replace(module: fx.GraphModule, node: fx.Node, value: Tensor, exact: Exact) -> None:
    numbers = itertools.count()  # an earlier pass over this module has taken some
    name = next(name for n in numbers if not hasattr(module, name := f"_settled_{n}"))
    module.register_buffer(name, value.detach().clone(), persistent=False)
    with module.graph.inserting_before(node):
        made = module.graph.get_attr(name)
    made.meta = {**node.meta, "exact": exact.array(value)}
    node.replace_all_uses_with(made)
    module.graph.erase_node(node)
