"""to_nnir: a recorded fx graph to NNIR, one converter per target, everything unsupported reported at once.

Converters live beside their subject (pointwise, layout, linear, decompose, ncps) and are found in the registry by the
name of a torch function or by a module's class. Scans are converted here, bodies first.
"""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import fx
from torch.utils import _pytree as pytree

from ltc_compiler.errors import GraphError, Unsupported, UnsupportedError
from ltc_compiler.ir import ops
from ltc_compiler.ir.graph import Array, Graph, Precision, Role, Source, StateKind, Type, Value
from ltc_compiler.nnir import NNIR
from ltc_compiler.stages import stage
from ltc_torch.fx.convert import complex as complexes
from ltc_torch.fx.convert import converters  # noqa: F401 - fills the registry
from ltc_torch.fx.convert.complex import Pair, flat
from ltc_torch.fx.convert.dtypes import NUMBERS, convert_type
from ltc_torch.fx.convert.emit import Emitter
from ltc_torch.fx.convert.hints import hint
from ltc_torch.fx.convert.integers import check_integers
from ltc_torch.fx.record.calls import call_name, is_random
from ltc_torch.fx.registry import FUNCTIONS, LEAVES, Refused, find
from ltc_torch.fx.state.stateful import keep_states
from ltc_torch.precision import warn_of_unused

__all__ = ["to_nnir"]


def to_nnir(
    graph_module: fx.GraphModule,
    inputs_precisions: Sequence[Precision] | None = None,
    outputs_precisions: Sequence[Precision] | None = None,
    context: int | None = None,
) -> NNIR:
    """Convert what `prepare_shape` recorded.

    Args:
        graph_module: the graph that `prepare_shape` returned.
        inputs_precisions: the format of each input tensor; FP32 for all if None.
        outputs_precisions: the format of each output tensor; FP32 for all if None.
        context: how many positions, its own included, a position sees in causal attention whose mask shows all earlier
            ones. Streaming such attention needs it; None: all positions of the example, and no stream.

    Raises:
        UnsupportedError: some operations cannot be lowered; the error has the user's line, the reason and a rewrite
            for each.
        GraphError: `prepare_shape` did not make the graph, the number of formats is not that of the tensors, or
            `context` is not a positive whole number.
    """
    remedy = "pass the graph that ltc_torch.fx.prepare_shape returns"
    if not isinstance(graph_module, fx.GraphModule):
        what = f"a {type(graph_module).__name__} is given, expected a torch.fx.GraphModule"
        raise GraphError(what, where="to_nnir", remedy=remedy)
    if any("source" not in n.meta for n in graph_module.graph.nodes if n.op not in ("output", "get_attr")):
        raise GraphError("the graph has no shapes", where=type(graph_module).__name__, remedy=remedy)
    if context is not None and (not isinstance(context, int) or context < 1):
        raise GraphError(
            f"context is {context!r}", where="to_nnir", remedy="give a number of positions, 1 or more"
        )
    converter = _Converter(graph_module, None)
    converter.emitter.context = context
    name = type(graph_module).__name__
    with stage("convert", name):
        graph = converter.convert(name, inputs_precisions)
    if converter.problems:
        raise UnsupportedError(converter.problems)
    if outputs_precisions is not None:
        _set_output_precisions(graph, outputs_precisions)
    for value in _traced_back(graph, converter.emitter.elapsed):
        value.role = Role.ELAPSED_TIME
    _prune(graph)
    graph.written_out = graph_module.meta.get("written_out")
    warn_of_unused(graph_module.meta.get("regions", ()))
    return NNIR(graph)


_FAILED = object()  # the value of a node that was refused; what reads it is passed over


class _Converter:
    """Converts one fx graph; bodies get a converter each and share the list of problems."""

    def __init__(self, module: fx.GraphModule, outer: _Converter | None) -> None:
        self.module = module
        self.is_body = outer is not None
        self.problems: list[Unsupported] = outer.problems if outer else []
        self.emitter = Emitter(Graph())
        self.emitter.context = outer.emitter.context if outer else None
        self.values: dict[fx.Node, Any] = {}

    def convert(self, name: str, precisions: Sequence[Precision] | None = None) -> Graph:
        graph = self.emitter.graph
        graph.name = name
        placeholders = [n for n in self.module.graph.nodes if n.op == "placeholder"]
        if precisions is not None and len(precisions) != len(placeholders):
            what = f"{len(precisions)} inputs_precisions for {len(placeholders)} input tensors"
            raise GraphError(what, where="to_nnir", remedy="give one for each input tensor")
        for i, node in enumerate(placeholders):
            kind = Type(tuple(node.meta["shape"]), precisions[i] if precisions else Precision.FP32)
            made = [graph.add_input(kind, part) for part in _parts(node)]
            self.values[node] = made[0] if len(made) == 1 else Pair(*made)
        for node in self.module.graph.nodes:
            if node.op == "output":
                self._outputs(node)
            elif node.op != "placeholder":
                self.values[node] = self._guarded(node)
        return graph

    def _outputs(self, node: fx.Node) -> None:
        for path, leaf in pytree.tree_leaves_with_path(node.args[0]):
            if not isinstance(leaf, fx.Node):
                continue
            value = self.values[leaf]
            if isinstance(value, Refused):
                self._report(leaf, value)
            elif isinstance(value, Pair) and not self.is_body:
                self._report(
                    leaf, Refused("forward returns complex numbers", "torch.view_as_real(z), or z.real")
                )
            elif isinstance(value, (Value, Pair)):
                name = "_".join(str(getattr(key, "key", getattr(key, "idx", key))) for key in path)
                for part in flat([value]):
                    self.emitter.graph.add_output(part, name if not name.isdigit() else f"y{name}")

    def _guarded(self, node: fx.Node) -> Any:
        """A node's value; _FAILED after reporting what is wrong with it."""
        operands = [self.values[n] for n in node.all_input_nodes if n in self.values]
        if any(value is _FAILED for value in operands):
            return _FAILED
        refused = next((v for v in operands if isinstance(v, Refused)), None)
        if refused is None:
            try:
                return self._checked(node, self._value(node))
            except Refused as error:
                refused = error
            except (GraphError, TypeError, ValueError) as error:
                refused = Refused(f"these arguments are not supported ({_first_line(error)})")
            except Exception as error:
                reason = f"its converter fails with {type(error).__name__}: {_first_line(error)}"
                refused = Refused(reason, "a mistake of the compiler: please report it with this line")
        self._report(node, refused)
        return _FAILED

    def _report(self, node: fx.Node, problem: Refused) -> None:
        where = str(node.meta.get("source", Source()))
        self.problems.append(Unsupported(_name(node), where, problem.reason, problem.rewrite))

    def _checked(self, node: fx.Node, value: Any) -> Any:
        """The converter's shape is the recorded one."""
        if isinstance(value, (Value, Pair)) and value.shape != tuple(node.meta.get("shape", value.shape)):
            raise Refused(f"converted to the shape {value.shape}, recorded with {tuple(node.meta['shape'])}")
        return value

    def _value(self, node: fx.Node) -> Any:
        emitter = self.emitter
        emitter.source = node.meta.get("source", Source())
        emitter.precision, emitter.weights, emitter.cores = node.meta.get("requests", (None, None, ()))
        emitter.regions = node.meta.get("regions", ())
        if node.op == "get_attr":
            if "body" in node.meta:
                return node.meta["body"]
            if "state" in node.meta:
                return self._state(node)
            if node.meta["exact"].size == 0:
                raise Refused("a tensor without elements", "leave it out")
            if np.iscomplexobj(node.meta["exact"]):
                return complexes.pair_of(emitter, node.meta["exact"])
            made = emitter.value(node.meta["exact"])
            if node.meta["dtype"] == torch.bool:
                emitter.masks.add(made)
            return made
        args, kwargs = fx.node.map_arg((node.args, node.kwargs), lambda n: self.values[n])
        if node.op == "call_module":
            module = self.module.get_submodule(str(node.target))
            convert = find(LEAVES, module)
            assert convert is not None, "the recorder keeps modules of the table alone"
            return convert(emitter, module, *args, **kwargs)
        return self._call(node, args, kwargs)

    def _call(self, node: fx.Node, args: Any, kwargs: Any) -> Any:
        name = call_name(node.target) if callable(node.target) else node.target
        emitter = self.emitter
        emitter.target = name
        emitter.is_method = node.op == "call_method"
        emitter.dtype = node.meta.get("dtype")
        emitter.operand_dtype = next((n.meta.get("dtype") for n in node.all_input_nodes), None)
        if name == "run_scan":
            return self._scan(*args)
        if node.target is operator.getitem and isinstance(args[0], (list, tuple)):
            return args[0][args[1]]  # one of several results
        if node.target is keep_states:
            return self._keep(node)
        if is_random(name, node.args, node.kwargs):
            raise Refused("draws random numbers", "pass them as an input, or leave them out in eval mode")
        check_integers(name, emitter.dtype)
        convert = FUNCTIONS.get(name)
        is_complex = complexes.is_involved((args, kwargs)) or getattr(emitter.dtype, "is_complex", False)
        if is_complex and (convert is not None or name in complexes.KNOWN):
            return complexes.convert(emitter, name, args, kwargs)
        if convert is None:
            raise Refused(*hint(name))
        if convert is not convert_type:
            kwargs = _untyped(name, args, kwargs)
        value = convert(emitter, *args, **kwargs)
        if isinstance(value, Value) and node.meta.get("dtype") == torch.bool:
            emitter.masks.add(value)
        return value

    def _state(self, node: fx.Node) -> Value | Pair:
        """A state of the graph for a tensor that the model keeps from call to call: two for a complex one."""
        name, initial, kind = node.meta["state"], node.meta["exact"], node.meta["dtype"]
        if kind.is_complex:
            parts = {"re": initial.real, "im": initial.imag}
            return Pair(*(self._new_state(f"{name}_{part}", value) for part, value in parts.items()))
        if not kind.is_floating_point and np.abs(initial).max(initial=0) > 2**24:
            raise Refused(f"the state {name} holds whole numbers above 2^24", "keep it in floating point")
        state = self._new_state(name, initial)
        if kind == torch.bool:
            self.emitter.masks.add(state)
        return state

    def _new_state(self, name: str, initial: Array) -> Value:
        return self.emitter.graph.add_state(initial, name, StateKind.MODULE).value

    def _keep(self, node: fx.Node) -> None:
        buffers, values = node.args
        states = {s.value: s for s in self.emitter.graph.states}
        for buffer, value in zip(buffers, values, strict=True):  # type: ignore[arg-type]
            old, new = self.values[buffer], self.values[value]
            if isinstance(old, Pair):
                new = complexes.as_pair(self.emitter, new)
            for state, following in zip(flat([old]), flat([new]), strict=True):
                states[state].next = self.emitter.value(following)

    def _scan(
        self,
        body: fx.GraphModule,
        carries: Sequence[Value],
        xs: Sequence[Value],
        captures: Sequence[Value],
        length: int,
        in_axes: Sequence[int],
        out_axes: Sequence[int],
    ) -> Any:
        inner = _Converter(body, self)
        placeholders = [n for n in body.graph.nodes if n.op == "placeholder"]
        groups = self._as_recorded((*carries, *xs, *captures), placeholders)
        counts = [len(carries), len(xs)]
        operands = flat(groups)
        known = len(self.problems)
        graph = inner.convert("body")
        if len(self.problems) > known:
            return _FAILED
        for value in _traced_back(graph, inner.emitter.elapsed):
            self.emitter.elapsed.append(operands[graph.inputs.index(value)])
        _prune(graph)
        split = [groups[: counts[0]], groups[counts[0] : sum(counts)]]
        carried, scanned = (len(flat(part)) for part in split)
        attrs = {"carries": carried, "scanned": scanned, "trip_count": length}
        kinds = _kinds(body)
        axes = [a for a, v in zip(in_axes, split[1], strict=True) for _ in flat([v])]
        rows = [a for a, k in zip(out_axes, kinds[counts[0] :], strict=True) for _ in range(1 + k)]
        if [isinstance(v, Pair) for v in split[0]] != kinds[: counts[0]]:
            raise Refused(
                "a state of a loop that becomes complex", "a complex initial value: dtype=torch.cfloat"
            )
        results = self.emitter.add_many(
            "scan", operands, body=graph, in_axes=tuple(axes), out_axes=tuple(rows), **attrs
        )
        parts = iter(results)
        return tuple(Pair(next(parts), next(parts)) if k else next(parts) for k in kinds)

    def _as_recorded(self, values: Sequence[Any], placeholders: Sequence[fx.Node]) -> list[Value | Pair]:
        """Operands of a scan: complex where its body takes complex numbers, though a real one is given."""
        return [
            complexes.as_pair(self.emitter, v) if node.meta["dtype"].is_complex else v
            for v, node in zip(values, placeholders, strict=True)
        ]


def _kinds(body: fx.GraphModule) -> list[bool]:
    """Which outputs of a body are complex."""
    (output,) = (n for n in body.graph.nodes if n.op == "output")
    return [n.meta["dtype"].is_complex for n in output.args[0]]


def _parts(node: fx.Node) -> list[str]:
    """The names of the inputs that a placeholder becomes."""
    name = str(node.target)
    return [f"{name}_re", f"{name}_im"] if node.meta["dtype"].is_complex else [name]


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), "no message")


def _untyped(name: str, args: Any, kwargs: dict[str, Any]) -> dict[str, Any]:
    """The keyword arguments without `out`, which is None here, and without a dtype, which must be one of numbers: they
    are computed in the precision of the policy."""
    for given in (*args, *kwargs.values()):
        if isinstance(given, torch.dtype) and given not in NUMBERS:
            raise Refused(f"{name} with dtype={given}", "leave the dtype out, or torch.float32")
    return {k: v for k, v in kwargs.items() if k not in ("dtype", "out")}


def _name(node: fx.Node) -> str:
    if node.op == "call_module":
        return str(node.target)
    if "state" in node.meta:
        return str(node.meta["state"])
    origin = node.args[0] if node.target is operator.getitem else None
    if isinstance(origin, fx.Node) and isinstance(origin.meta.get("shape"), list):
        return _name(origin)  # one of several results
    return call_name(node.target) if callable(node.target) else node.target


def _traced_back(graph: Graph, values: Sequence[Value]) -> list[Value]:
    """The graph's inputs that values come from through layout alone."""
    pending, seen = [*values], set()
    while pending:
        value = pending.pop()
        if value not in seen:
            seen.add(value)
            if value.node is not None and value.node.op in ops.LAYOUT:
                pending += value.node.operands
    return [v for v in graph.inputs if v in seen]


def _prune(graph: Graph) -> None:
    """Drop nodes that no output and no state needs: folded constants, rows of a scan that were read as its state."""
    needed = {*graph.outputs, *(s.next for s in graph.states if s.next is not None)}
    kept = []
    for node in reversed(graph.nodes):
        if needed.intersection(node.results):
            needed.update(node.operands)
            kept.append(node)
    graph.nodes[:] = reversed(kept)


def _set_output_precisions(graph: Graph, precisions: Sequence[Precision]) -> None:
    if len(precisions) != len(graph.outputs):
        what = f"{len(precisions)} outputs_precisions for {len(graph.outputs)} output tensors"
        raise GraphError(what, where="to_nnir", remedy="give one for each output tensor")
    for i, (value, precision) in enumerate(zip([*graph.outputs], precisions, strict=True)):
        if precision is Precision.FP8_E4M3:
            raise GraphError(f"output {i} as {precision.value}", where="to_nnir", remedy="FP32 or BF16")
        if precision is not value.type.precision:  # a copy whose result is stored so
            copy = ops.add(graph, "mul", value, graph.constant(1.0))
            graph.nodes[-1].precision = precision
            graph.outputs[i] = copy
