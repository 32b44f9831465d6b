"""The recorder: runs a model on real tensors and writes down every operation that depends on an input.

A tensor that depends on an input has a node in the graph being recorded; what has none runs eagerly and becomes a
constant where a recorded operation reads it. Sizes are plain integers. To read the value of a recorded tensor (a
branch on it, `item()`) is refused at the user's line. Bodies of scans are recorded by a recorder of their own, inside.
"""

from __future__ import annotations

import keyword
import operator
from collections.abc import Callable, Container, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.overrides import TorchFunctionMode
from torch.utils import _pytree as pytree

from ltc_torch import precision
from ltc_torch.fx.record.active import stack
from ltc_torch.fx.record.calls import (
    ASSERTS,
    EMPTY,
    IDENTITY,
    JOINS,
    LIKE,
    METADATA,
    PROPERTIES,
    VALUE_READS,
    call_name,
    has_shape_by_value,
    has_value_index,
    is_random,
    target_of,
    without_empty,
)
from ltc_torch.fx.record.custom import is_opened, open_up
from ltc_torch.fx.record.exact import Exact, is_inexact
from ltc_torch.fx.record.filled import join_parts
from ltc_torch.fx.record.guards import Reads
from ltc_torch.fx.record.inplace import Writes, is_write, storage_key
from ltc_torch.fx.record.operands import Places
from ltc_torch.fx.record.sources import refuse, user_source
from ltc_torch.fx.record.unwrap import shelf


class Session:
    """What the recorders of one model share: the model, names of its tensors, the module now running.

    converted: names of operations that have a converter, so that a custom operator among them is recorded as it is.
    """

    def __init__(self, root: nn.Module, converted: Container[str] = ()) -> None:
        self.root = root
        self.converted = converted
        self.home = shelf(root)  # what the graphs read: the model's own, and what the recording makes
        self.names: dict[int, tuple[str, int]] = {}  # id of a parameter or buffer -> (name, version)
        for name, tensor in [*root.named_parameters(), *root.named_buffers()]:
            self.names[id(tensor)] = (name, tensor._version)
        self.modules = [""]
        self.rewriting: list[nn.Module] = []  # modules whose replaced forward is running
        self.exact = Exact()
        self.reads = Reads()
        self.has_states = False  # tensors that calls of the model change are read as its state
        self.random = False  # the recording holds random numbers, so that it cannot be replayed
        self.finished: dict[int, Tensor] = {}  # of finished bodies, kept alive so that ids stay unique
        self._made = 0

    @property
    def module(self) -> str:
        return self.modules[-1]

    @contextmanager
    def in_rewrite(self, module: nn.Module) -> Iterator[None]:
        """While code runs in the place of a module's forward, that forward is itself: the code may call it."""
        self.rewriting.append(module)
        try:
            yield
        finally:
            self.rewriting.pop()

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """While a part of the present module runs that is no module of its own, as a layer of several is."""
        self.modules.append(".".join(filter(None, (self.module, name))))
        try:
            yield
        finally:
            self.modules.pop()

    def attach(self, kind: str, item: Tensor | nn.Module) -> str:
        """Keep a constant or a body under a fresh name."""
        name = f"_{kind}_{self._made}"
        self._made += 1
        if isinstance(item, nn.Module):
            self.home.add_module(name, item)
        else:
            self.home.register_buffer(name, item, persistent=False)
        return name


def _tensors(tree: Any) -> list[Tensor]:
    return [t for t in pytree.tree_leaves(tree) if isinstance(t, Tensor)]


def _is_path(name: str) -> bool:
    """Whether Python code can name it: a ModuleDict's key may be a keyword."""
    return not any(map(keyword.iskeyword, name.split(".")))


class Recorder(TorchFunctionMode):
    """Records one graph: the model's, or with a parent the body of a scan.

    with_constants: operations on constants are recorded too, so that the first iteration of a loop, whose state is
    still a constant, looks like the others; and nothing is dropped at the end.
    """

    def __init__(
        self, session: Session, parent: Recorder | None = None, with_constants: bool = False
    ) -> None:
        super().__init__()
        self.session = session
        self.parent = parent
        self.with_constants = with_constants
        self.graph = fx.Graph()
        self.captures: list[
            Tensor
        ] = []  # tensors of enclosing graphs that a body reads, in the order of placeholders
        self._nodes: dict[
            int, tuple[fx.Node, int]
        ] = {}  # id of a tensor -> (its node, version of its storage then)
        self._folded: dict[int, tuple[fx.Node, int]] = {}  # the same for constants that were computed
        self._kept: list[Tensor] = []
        self._constants: dict[tuple[int, int], fx.Node] = {}
        self.places = Places(self)
        self.writes = Writes(self)
        self._last_placeholder: fx.Node | None = None

    def __enter__(self) -> Recorder:
        stack.recorders.append(self)
        super().__enter__()  # type: ignore[no-untyped-call]
        return self

    def __exit__(self, *error: object) -> None:
        super().__exit__(*error)  # type: ignore[no-untyped-call]
        stack.recorders.pop()

    # ---------------------------------------------------------------- tensors and nodes

    def placeholder(self, name: str, tensor: Tensor) -> fx.Node:
        """A new input of the graph, after those that are there."""
        if self._last_placeholder is None:
            node = self.graph.placeholder(name)
        else:
            with self.graph.inserting_after(self._last_placeholder):
                node = self.graph.placeholder(name)
        self._last_placeholder = node
        self.annotate(node, tensor)
        self.bind(tensor, node)
        self.places.add([tensor])
        return node

    def depends(self, tensor: Tensor) -> bool:
        """Whether a tensor depends on an input of this graph or of an enclosing one. One without elements has no
        value that could."""
        if tensor.numel() == 0:
            return False
        if id(tensor) in self._nodes or self.writes.of(tensor) is not None:
            return True
        if id(tensor) in self.session.finished:
            raise refuse(
                "tensor",
                self.session.module,
                "a tensor made inside a scan's step (or an ODE function) is read outside of it",
                "return it from the step as an output or as a state",
            )
        return self.parent is not None and self.parent.depends(tensor)

    def owns(self, tensor: Tensor) -> bool:
        """Whether a tensor has a node in this very graph."""
        return id(tensor) in self._nodes

    def was_read(self, placeholder: fx.Node, tensor: Tensor) -> bool:
        """Whether an operation, here or in the body of a scan, has taken a placeholder's tensor, or written into it."""
        return bool(placeholder.users) or self.writes.of(tensor) is not None

    def sharing(self, tensor: Tensor) -> list[Tensor]:
        """The recorded tensors that share a tensor's memory."""
        key = storage_key(tensor)
        return [t for t in self._kept if id(t) in self._nodes and storage_key(t) == key]

    def node(self, tensor: Tensor) -> fx.Node:
        """The node whose value a tensor is: recorded, captured from an enclosing graph, or a constant."""
        written = self.writes.of(tensor)
        bound = self._nodes.get(id(tensor))
        if bound is not None and (written is None or bound[1] == written.version):
            return bound[0]
        if written is not None:
            return self.writes.cut(tensor, written)
        if self.parent is not None and self.parent.depends(tensor):
            self.captures.append(tensor)
            return self.placeholder(f"captured_{len(self.captures) - 1}", tensor)
        folded = self._folded.get(id(tensor))
        if folded is not None and folded[1] == tensor._version:
            return folded[0]
        return self.constant(tensor)

    def bind(self, tensor: Tensor, node: fx.Node, constant: bool = False) -> None:
        """From now on a tensor is the value of a node."""
        if constant:
            self._folded[id(tensor)] = (node, tensor._version)
        else:
            written = self.writes.of(tensor)
            self._nodes[id(tensor)] = (node, written.version if written else 0)
        self._kept.append(tensor)

    def constant(self, tensor: Tensor) -> fx.Node:
        """The node of a tensor that depends on no input: a parameter by its name, else its present value."""
        key = (id(tensor), tensor._version)
        if key not in self._constants:
            name, version = self.session.names.get(id(tensor), ("", 0))
            is_held = bool(name) and _is_path(name) and version == tensor._version
            if not is_held:
                name = self.session.attach("constant", tensor.detach().clone())
            self._constants[key] = node = self.graph.get_attr(name)
            self.annotate(node, tensor)
            node.meta["exact"] = self.session.exact.array(tensor, is_held)
            self._kept.append(tensor)
        return self._constants[key]

    def argument(self, value: Any) -> Any:
        """A call's argument as the graph holds it: nodes in the place of tensors."""
        if isinstance(value, Tensor):
            return self.node(value)
        if isinstance(value, (list, tuple)):
            return (
                tuple(map(self.argument, value)) if isinstance(value, tuple) else [*map(self.argument, value)]
            )
        if isinstance(value, dict):
            return {key: self.argument(item) for key, item in value.items()}
        if isinstance(value, slice):
            return slice(*map(self.argument, (value.start, value.stop, value.step)))
        return value.item() if type(value).__module__ == "numpy" and value.ndim == 0 else value

    def annotate(self, node: fx.Node, result: Any) -> None:
        """Give a node its shape, dtype, source and the user's requests."""
        node.meta["source"] = user_source(self.session.module)
        node.meta["requests"] = (precision.activations(), precision.weights(), precision.cores())
        node.meta["regions"] = precision.regions()
        tensors = [result] if isinstance(result, Tensor) else pytree.tree_leaves(result)
        shapes = [tuple(t.shape) for t in tensors if isinstance(t, Tensor)]
        dtypes = [t.dtype for t in tensors if isinstance(t, Tensor)]
        single = isinstance(result, Tensor)
        node.meta["shape"] = shapes[0] if single else shapes
        node.meta["dtype"] = dtypes[0] if single else dtypes
        source = node.meta["source"]
        if source.file:
            node.stack_trace = f'File "{source.file}", line {source.line}, in forward\n    {source.text}'

    def record(
        self, target: Callable[..., Any], args: Any, kwargs: Any, result: Any, constant: bool = False
    ) -> fx.Node:
        """Write down a call whose result is known."""
        op, shown = target_of(target)
        return self._emit(
            op, shown, self.argument(tuple(args)), self.argument(dict(kwargs)), result, constant
        )

    def record_module(
        self, path: str, args: Any, kwargs: Any, result: Any, constant: bool = False
    ) -> fx.Node:
        """Write down a call of a submodule that is kept whole."""
        if not _is_path(path):
            path = self.session.attach("module", self.session.root.get_submodule(path))
        return self._emit(
            "call_module", path, self.argument(tuple(args)), self.argument(dict(kwargs)), result, constant
        )

    def _emit(
        self, op: str, target: Any, args: Any, kwargs: Any, result: Any, constant: bool = False
    ) -> fx.Node:
        node = self.graph.create_node(op, target, args, kwargs)
        self.annotate(node, result)
        self._bind_result(node, result, constant)
        return node

    def _bind_result(self, node: fx.Node, result: Any, constant: bool = False) -> None:
        if isinstance(result, Tensor):
            self.bind(result, node, constant)
        elif isinstance(result, (tuple, list)):
            for i, part in enumerate(result):
                if isinstance(part, (tuple, list)) or (isinstance(part, Tensor) and part.numel()):
                    item = self.graph.call_function(operator.getitem, (node, i))
                    self.annotate(item, part)
                    self._bind_result(item, part, constant)

    # ---------------------------------------------------------------- calls

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        with torch._C.DisableTorchFunction(), torch._C._DisableTorchDispatch():
            opened = is_opened(func, self.session.converted) and any(
                map(self.depends, _tensors((args, kwargs)))
            )
            if not opened:
                return self._call(func, call_name(func), args, kwargs)
        return open_up(self, func, args, kwargs)

    def _call(
        self, func: Callable[..., Any], name: str, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        tensors = _tensors((args, kwargs))
        if any(map(torch._C._functorch.is_functorch_wrapped_tensor, tensors)):
            reason = "a transform of torch.func (vmap, grad, jvp) hides the tensors that it works on"
            raise refuse(
                name, self.session.module, reason, "write the batch axis out: operations broadcast over it"
            )
        self.places.check(name, tensors)
        if name == "__set__" and func.__self__.__name__ == "data":  # type: ignore[attr-defined]
            func(*args, **kwargs)
            return self.bind(args[0], self.node(args[1])) if any(map(self.depends, tensors)) else None
        if name == "" and func.__self__.__name__ not in PROPERTIES:  # type: ignore[attr-defined]
            return func(*args, **kwargs)
        if name in METADATA and not any(self.depends(t) for t in tensors if t is not args[0]):
            out = func(*args, **kwargs)
            return out.zero_() if name in EMPTY else out
        random = is_random(name, args, kwargs)
        self.session.random |= random
        by_value = has_shape_by_value(name, args, kwargs, self.depends)
        if by_value or has_value_index(name, args, self.depends):
            return self.session.reads.read(self.session, func, name, args, kwargs)
        if name in LIKE and not self.depends(args[0]) and any(map(self.depends, tensors)):
            tensors = []  # of the other tensor only shape and type matter
        counts = self.with_constants and is_write(name, args, kwargs) and args[0].dtype.is_floating_point
        if not random and not counts and not any(map(self.depends, tensors)):
            return self._call_on_constants(func, name, args, kwargs, tensors)
        if name in VALUE_READS or name in ASSERTS or isinstance(kwargs.get("out"), Tensor):
            return self.session.reads.read(self.session, func, name, args, kwargs)
        if is_write(name, args, kwargs):
            return self.writes.call(func, name, args, kwargs)
        if name == "__iter__":
            return iter(self._call(torch.unbind, "unbind", args, kwargs))
        if name == "":
            name, func, args = "getattr", getattr, (args[0], func.__self__.__name__)  # type: ignore[attr-defined]
        out = func(*args, **kwargs)
        if not any(t.numel() for t in _tensors(out)):  # no elements, or no tensor: `h == None`
            return out
        if name not in IDENTITY or not any(out is t for t in tensors):
            kwargs = {k: v for k, v in kwargs.items() if k != "generator"}
            if name in JOINS:
                args, kwargs = without_empty(args, kwargs)
            self.record(func, args, kwargs, out)
            self.places.add(_tensors(out), (t for t in tensors if not self.depends(t)))
        return out

    def _call_on_constants(
        self, func: Callable[..., Any], name: str, args: Any, kwargs: Any, tensors: list[Tensor]
    ) -> Any:
        out = self.session.exact.call(func, args, kwargs)
        if not self.with_constants or not tensors or not name or name in VALUE_READS:
            return out
        results = pytree.tree_leaves(out)
        values = all(isinstance(t, Tensor) and (is_inexact(t) or t.dtype == torch.bool) for t in results)
        if (
            values
            and results
            and not is_write(name, args, kwargs)
            and not any(t is r for t in tensors for r in results)
        ):
            self.record(func, args, kwargs, out, constant=True)
        return out

    # ---------------------------------------------------------------- the end

    def finish(self, outputs: Any) -> None:
        """Set the graph's outputs (any nest of tensors) and drop what they do not need."""
        self.graph.output(pytree.tree_map(lambda t: self.node(t) if isinstance(t, Tensor) else t, outputs))
        join_parts(self.graph)
        if not self.with_constants:
            self.graph.eliminate_dead_code(is_impure_node=lambda n: n.op in ("placeholder", "output"))

    def close_body(self, body: Recorder) -> None:
        """Tensors of a finished body must not be read any more."""
        ours = {id(t) for t in body.captures}
        self.session.finished.update(
            (id(t), t) for t in body._kept if id(t) in body._nodes and id(t) not in ours
        )
        self.session.finished.update((id(w.base), w.base) for w in body.writes.all())
