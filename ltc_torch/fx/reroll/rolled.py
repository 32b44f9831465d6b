"""Writes a loop that repeats.py found as a scan: the body from the first iteration, then what follows the loop.

The new graph executes the operations of the old one. A value that a stack or a concatenation behind the loop reads is
an output that the scan stacks along that very axis; a value of a single iteration is cut from such a stack, or is the
final carry.
"""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Any

import torch
from torch import fx

from ltc_torch.fx.record.structured import run_scan
from ltc_torch.fx.reroll.repeats import Carried, Loop, Read, leaves


def as_scan(module: fx.GraphModule, loop: Loop) -> fx.GraphModule:
    """A copy of a module's graph with the loop as one `run_scan` node; its body becomes a submodule."""
    return _Rewrite(module, loop).run()


class _Rewrite:
    """One loop of a graph as a scan, in a new graph."""

    def __init__(self, module: fx.GraphModule, loop: Loop) -> None:
        self.module, self.loop = module, loop
        self.graph = fx.Graph()
        self.env: dict[fx.Node, fx.Node] = {}
        self.carries: list[
            tuple[Carried, int]
        ] = []  # a value of an earlier iteration, and how many iterations ago
        self.stacks: dict[
            tuple[int, str, int], int
        ] = {}  # (place, how it is joined, axis) -> output of the body
        self.results: fx.Node | None = None
        self.items: dict[int, fx.Node] = {}  # of the results
        self.selected: dict[fx.Node, fx.Node] = {}

    def run(self) -> fx.GraphModule:
        loop = self.loop
        end = loop.start + loop.iterations * loop.period
        for node in self.module.graph.nodes:
            if node.op in ("placeholder", "get_attr"):
                self._copy(node)
        for node in loop.sequence[: loop.start]:
            self._copy(node)
        after = [*loop.sequence[end:], *(n for n in self.module.graph.nodes if n.op == "output")]
        self._want(after)
        self._emit_scan()
        for node in after:
            self._copy_after(node)
        self.graph.eliminate_dead_code(is_impure_node=lambda n: n.op in ("placeholder", "output"))
        return fx.GraphModule(self.module, self.graph, type(self.module).__name__)

    def _copy(self, node: fx.Node) -> fx.Node:
        args, kwargs = fx.node.map_arg((node.args, node.kwargs), lambda n: self._value(n))
        made = self.graph.create_node(node.op, node.target, args, kwargs, name=node.name)
        made.meta = dict(node.meta)
        self.env[node] = made
        return made

    def _value(self, node: fx.Node) -> fx.Node:
        """A node's value behind the loop; one of a single iteration is cut from the stack of all."""
        at = self.loop.place(node)
        if at is None:
            return self.env[node]
        if node not in self.selected:
            iteration, place = at
            output = self.stacks.get((place, "each", 0))
            value = self._final(place)
            if output is not None:
                value = self._new(
                    torch.select, (self._result(output), 0, iteration), node, node.meta["shape"]
                )
            assert value is not None
            self.selected[node] = value
        return self.selected[node]

    def _new(self, target: Any, args: Any, like: fx.Node, shape: Any) -> fx.Node:
        made = self.graph.call_function(target, args)
        made.meta = {**like.meta, "shape": shape if isinstance(shape, list) else tuple(shape)}
        return made

    # ---------------------------------------------------------------- what the loop returns

    def _want(self, after: Sequence[fx.Node]) -> None:
        """Find the outputs that what follows the loop needs."""
        for node in after:
            joins = self._joins(node)
            for item in leaves(node):
                at = self.loop.place(item)
                if at is not None and joins is not None:
                    self.stacks.setdefault((at[1], *joins), len(self.stacks))
                elif at is not None and (at[0] < self.loop.iterations - 1 or not self._is_carried(at[1])):
                    self.stacks.setdefault((at[1], "each", 0), len(self.stacks))

    def _is_carried(self, place: int) -> bool:
        origins = [o for row in self.loop.arguments for o in row]
        return any(isinstance(o, Carried) and o.place == place for o in origins)

    def _joins(self, node: fx.Node) -> tuple[str, int] | None:
        """How a node joins values of several iterations, and along which axis; None for any other node."""
        name = getattr(node.target, "__name__", node.target)
        if (
            node.op != "call_function"
            or name not in ("stack", "cat", "concat", "concatenate")
            or not node.args
        ):
            return None
        parts = _parts(node)
        if not parts:
            return None
        axis = node.kwargs.get("dim", node.args[1] if len(node.args) > 1 else 0)
        rank = len(parts[0].meta["shape"]) + (name == "stack")
        long = any(len(self._run(parts, i)) >= 2 for i in range(len(parts)))
        return (
            (("stack" if name == "stack" else "cat"), axis % rank) if isinstance(axis, int) and long else None
        )

    def _run(self, parts: Sequence[fx.Node], begin: int) -> list[tuple[int, int]]:
        """The values of following iterations from a part on, forwards or backwards: (iteration, place) of each."""
        found: list[tuple[int, int]] = []
        for part in parts[begin:]:
            at = self.loop.place(part)
            stride = found[1][0] - found[0][0] if len(found) > 1 else 0
            fits = not found or (at is not None and at[1] == found[0][1] and abs(at[0] - found[-1][0]) == 1)
            if at is None or not fits or (stride and at[0] - found[-1][0] != stride):
                break
            found.append(at)
        return found

    def _copy_after(self, node: fx.Node) -> None:
        joins = self._joins(node)
        if joins is None:
            self._copy(node)
            return
        how, axis = joins
        parts, pieces, i = _parts(node), [], 0
        while i < len(parts):
            run = self._run(parts, i)
            if len(run) >= 2:
                pieces.append(self._piece(run, how, axis))
                i += len(run)
            else:
                value = self._value(parts[i])
                if how == "stack":
                    shape = list(value.meta["shape"])
                    value = self._new(
                        torch.unsqueeze, (value, axis), value, [*shape[:axis], 1, *shape[axis:]][:]
                    )
                    value.meta["shape"] = tuple(value.meta["shape"])
                pieces.append(value)
                i += 1
        whole = (
            pieces[0] if len(pieces) == 1 else self._new(torch.cat, (pieces, axis), node, node.meta["shape"])
        )
        self.env[node] = whole

    def _piece(self, run: Sequence[tuple[int, int]], how: str, axis: int) -> fx.Node:
        iteration, place = min(run)
        stack = self._result(self.stacks[place, how, axis])
        shape = list(stack.meta["shape"])
        if len(run) < self.loop.iterations:
            shape[axis] = len(run)
            stack = self._new(torch.narrow, (stack, axis, iteration, len(run)), stack, tuple(shape))
        if run[0] > run[-1]:
            stack = self._new(torch.flip, (stack, (axis,)), stack, tuple(shape))
        width = self.loop.sample(place).meta["shape"][axis] if how == "cat" else 1
        if width > 1:  # every iteration gives several elements: lay them end to end
            shape[axis : axis + 2] = [shape[axis] * shape[axis + 1]]
            stack = self._new(torch.reshape, (stack, tuple(shape)), stack, tuple(shape))
        return stack

    # ---------------------------------------------------------------- the scan

    def _result(self, output: int) -> fx.Node:
        """A stacked output of the scan."""
        return self._item(len(self.carries) + output)

    def _final(self, place: int) -> fx.Node | None:
        """The last value of an operation whose value is carried."""
        for i, (carried, ago) in enumerate(self.carries):
            if carried.place == place and ago == 1:
                return self._item(i)
        return None

    def _item(self, index: int) -> fx.Node:
        assert self.results is not None
        if index not in self.items:
            made = self.graph.call_function(operator.getitem, (self.results, index))
            made.meta = {**self.results.meta, **{k: self.results.meta[k][index] for k in ("shape", "dtype")}}
            self.items[index] = made
        return self.items[index]

    def _emit_scan(self) -> None:
        loop, body = self.loop, _Body(self)
        operands = body.build()
        module = fx.GraphModule(self.module, body.graph, "Body")
        name = f"_loop_{sum(n.startswith('_loop_') for n, _ in self.module.named_children())}"
        self.module.add_module(name, module)
        owner = self.graph.get_attr(name)
        first = loop.node(0, 0)
        owner.meta = {"body": module, "source": first.meta["source"]}
        carries, xs, in_axes, captures = operands
        axes = [axis for _, _, axis in self.stacks]
        self.results = self.graph.call_function(
            run_scan, (owner, carries, xs, captures, loop.iterations, in_axes, axes)
        )
        shapes = [tuple(c.meta["shape"]) for c in carries]
        dtypes = [c.meta["dtype"] for c in carries]
        for value, axis in zip(body.stacked, axes, strict=True):
            shape = list(value.meta["shape"])
            shapes.append((*shape[:axis], loop.iterations, *shape[axis:]))
            dtypes.append(value.meta["dtype"])
        self.results.meta = {**first.meta, "shape": shapes, "dtype": dtypes}


class _Body:
    """The graph of one iteration."""

    def __init__(self, rewrite: _Rewrite) -> None:
        self.rewrite, self.loop = rewrite, rewrite.loop
        self.graph = fx.Graph()
        self.values: list[fx.Node] = []  # by place
        self.inputs: dict[Any, fx.Node] = {}
        self.stacked: list[fx.Node] = []

    def build(self) -> tuple[list[fx.Node], list[fx.Node], list[int], list[fx.Node]]:
        """Fill the graph; the scan's carries, scanned tensors with their axes, and captures."""
        origins = [o for row in self.loop.arguments for o in row]
        carried = dict.fromkeys(o for o in origins if isinstance(o, Carried))
        outer = self.rewrite
        outer.carries = [(c, ago) for c in carried for ago in range(1, len(c.initial) + 1)]
        starts = [self._start(c, ago) for c, ago in outer.carries]
        for i, key in enumerate(outer.carries):
            self._input(key, f"carry_{i}", starts[i])
        xs, axes = self._scanned()
        captured = list(dict.fromkeys(o for o in origins if isinstance(o, fx.Node) and o.op != "get_attr"))
        for i, node in enumerate(captured):
            self._input(node, f"captured_{i}", node)
        for place in range(self.loop.period):
            self.values.append(self._operation(place))
        self._outputs()
        return starts, xs, axes, [outer.env[n] for n in captured]

    def _input(self, key: Any, name: str, like: fx.Node) -> fx.Node:
        self.inputs[key] = node = self.graph.placeholder(name)
        node.meta = {k: v for k, v in like.meta.items() if k != "exact"}
        return node

    def _start(self, carried: Carried, ago: int) -> fx.Node:
        """The initial value of a carry, in the shape that an iteration gives it."""
        outer = self.rewrite
        initial = outer.env[carried.initial[len(carried.initial) - ago]]
        made = self.loop.sample(carried.place)
        if initial.meta["shape"] == made.meta["shape"]:
            return initial
        return outer._new(torch.broadcast_to, (initial, made.meta["shape"]), made, made.meta["shape"])

    def _scanned(self) -> tuple[list[fx.Node], list[int]]:
        xs: list[fx.Node] = []
        axes = []
        outer, iterations = self.rewrite, self.loop.iterations
        for place, (read, stride) in self.loop.scanned.items():
            key = (read.tensor, read.axis, read.at, stride)
            if key in self.inputs:
                continue
            shape = list(read.tensor.meta["shape"])
            x = outer.env[read.tensor]
            low = read.at if stride == 1 else read.at - iterations + 1
            if iterations < shape[read.axis]:
                shape[read.axis] = iterations
                x = outer._new(torch.narrow, (x, read.axis, low, iterations), read.tensor, tuple(shape))
            if stride == -1:
                x = outer._new(torch.flip, (x, (read.axis,)), read.tensor, tuple(shape))
            if x is not outer.env[read.tensor]:
                x.meta.pop("exact", None)
                x.meta["source"] = self.loop.sample(place).meta["source"]
            xs.append(x)
            axes.append(read.axis)
            slice_ = self._input(key, f"slice_{len(xs) - 1}", read.tensor)
            slice_.meta["shape"] = tuple(shape[: read.axis] + shape[read.axis + 1 :])
        return xs, axes

    def _operation(self, place: int) -> fx.Node:
        first = self.loop.sample(place)
        if place in self.loop.scanned:
            read, stride = self.loop.scanned[place]
            return self._read(read, self.inputs[read.tensor, read.axis, read.at, stride], first)
        origins = iter([self._origin(o) for o in self.loop.arguments[place]])
        args, kwargs = fx.node.map_arg((first.args, first.kwargs), lambda n: next(origins))
        made = self.graph.create_node(first.op, first.target, args, kwargs)
        made.meta = dict(first.meta)
        return made

    def _origin(self, origin: int | fx.Node | Carried) -> fx.Node:
        if isinstance(origin, int):
            return self.values[origin]
        if isinstance(origin, Carried):
            return self.inputs[origin, len(origin.initial)]
        if origin in self.inputs:
            return self.inputs[origin]
        made = self.graph.get_attr(str(origin.target))
        made.meta = dict(origin.meta)
        self.inputs[origin] = made
        return made

    def _read(self, read: Read, slice_: fx.Node, like: fx.Node) -> fx.Node:
        """What the read gives, from the slice without its axis."""
        value = slice_
        if read.keep:
            value = self._new(
                torch.unsqueeze, (value, read.axis), like, _with(slice_.meta["shape"], read.axis)
            )
        if read.rest and any(item != slice(None) for item in read.rest):
            value = self._new(operator.getitem, (value, tuple(read.rest)), like, like.meta["shape"])
        return value

    def _new(self, target: Any, args: Any, like: fx.Node, shape: Sequence[int]) -> fx.Node:
        made = self.graph.call_function(target, args)
        made.meta = {**like.meta, "shape": tuple(shape)}
        return made

    def _outputs(self) -> None:
        new = []
        for carried, ago in self.rewrite.carries:
            new.append(self.values[carried.place] if ago == 1 else self.inputs[carried, ago - 1])
        for place, how, axis in self.rewrite.stacks:
            value = self.values[place]
            shape = list(value.meta["shape"])
            if how == "cat" and shape[axis] == 1:
                value = self._new(torch.squeeze, (value, axis), value, shape[:axis] + shape[axis + 1 :])
            self.stacked.append(value)
        self.graph.output((*new, *self.stacked))
        self.graph.eliminate_dead_code(is_impure_node=lambda n: n.op in ("placeholder", "output"))


def _with(shape: Sequence[int], axis: int) -> tuple[int, ...]:
    return (*shape[:axis], 1, *shape[axis:])


def _parts(join: fx.Node) -> list[fx.Node]:
    """What a stack or a concatenation joins."""
    parts = join.args[0]
    listed = isinstance(parts, (list, tuple))
    return [p for p in parts if isinstance(p, fx.Node)] if listed else []  # type: ignore[union-attr]
