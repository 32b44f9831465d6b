"""prepare_shape: a model and example inputs in, an annotated fx graph and the model's own output out.

The recorder trusts the model to be a function of its inputs. That is checked, not assumed: the recorded graph must
give what the model gives, on the example inputs and on others (probes.py). So a value that was taken from the example
(by a text, a C++ extension or a counter in the step) is found here, and not on the device.
"""

from __future__ import annotations

import copy
import dataclasses
import inspect
import pickle
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch._library.custom_ops import CustomOpDef
from torch.utils import _pytree as pytree

from ltc_compiler.errors import InputError, LtcError, Unsupported, UnsupportedError

from . import loops, probes, registry, solvers  # noqa: F401 - loops and solvers catch functions
from .catch import intercepted
from .inplace import warn_of_buffer
from .record import Recorder, Session, current, paused
from .repeats import may_have_loops
from .reroll import rolled
from .watch import Watch

_TOLERANCE = 1e-3  # of the largest element; rewrites (LSTM, ODE steps) differ from the model by rounding


def prepare_shape(model: nn.Module, *inputs: Any) -> tuple[fx.GraphModule, Any]:
    """Record a model on example inputs.

    model: on the CPU. It is deep-copied and put in eval mode (with a warning if it was in training mode); buffers that
    `forward` changes keep their values.
    inputs: tensors of a floating dtype on the CPU, None, or nested tuples, lists and dicts of them.

    Returns the graph, whose nodes carry `meta["shape"]`, `["dtype"]` and `["source"]` (module path, file, line, text),
    and what the model returns for the inputs. The graph's placeholders are the input tensors, flattened in order.
    Raises InputError for a model or input that is not on the CPU, not floating or cannot be copied, and
    UnsupportedError with the user's line where `forward` reads the value of a tensor that depends on an input.
    """
    _check(model, inputs)
    if any(m.training for m in model.modules()):
        warnings.warn("the model is in training mode: a copy of it in eval mode is recorded", stacklevel=2)
    with torch.no_grad(), intercepted(), torch.compiler.set_stance("force_eager"):
        session = Session(_root(_copy(model)))
        graph_module = _record(session, inputs)
        expected = _copy(model)(*_clone(inputs))
        if not session.random:
            graph_module = _rolled(graph_module, model, inputs)
            _replay(graph_module, _copy(model), inputs, "the example inputs")
            _replay(graph_module, _copy(model), probes.scaled(inputs), "inputs other than the example")
            for probe in probes.others(inputs):
                _replay(graph_module, _copy(model), probe, "inputs other than the example", optional=True)
    return graph_module, expected


def _check(model: nn.Module, inputs: Any) -> None:
    if not isinstance(model, nn.Module):
        what = f"the model is a {type(model).__name__}, expected a torch.nn.Module"
        raise InputError(what, where="prepare_shape", remedy="put the function in the forward of a module")
    if isinstance(model, torch.jit.ScriptModule):
        raise InputError(
            "the model is TorchScript, which hides its operations", remedy="pass the nn.Module itself"
        )
    for name, module in model.named_modules():
        if isinstance(module, torch.jit.ScriptModule):
            remedy = "keep the nn.Module in the model; it needs no script here"
            raise InputError(
                "a submodule is TorchScript, which hides its operations", where=name, remedy=remedy
            )
    for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
        if tensor.device.type != "cpu":
            what = f"{name} is on the device {tensor.device}, expected cpu"
            raise InputError(what, where=type(model).__name__, remedy="model.cpu()")
    for path, leaf in pytree.tree_leaves_with_path(inputs):
        where = f"inputs{pytree.keystr(path)}"
        if isinstance(leaf, Tensor):
            if leaf.device.type != "cpu":
                raise InputError(
                    f"an input is on the device {leaf.device}, expected cpu", where=where, remedy="x.cpu()"
                )
            if not leaf.is_floating_point():
                raise InputError(
                    f"an input is {leaf.dtype}, expected a floating dtype", where=where, remedy="x.float()"
                )
        elif isinstance(leaf, float) or not isinstance(leaf, (int, bool, str, type(None))):
            what = f"an input is a {type(leaf).__name__}, expected a tensor or None"
            raise InputError(what, where=where, remedy="pass torch.tensor(value)")


def _copy(model: nn.Module) -> nn.Module:
    """A copy in eval mode. Tensors that a hook computed (weight_norm's weight, say) are copied by value; functions that
    are objects, of TorchScript and of torch.library, are the same in the copy, as Python's are."""
    held = [v for m in model.modules() for v in m.__dict__.values()]
    memo: dict[int, Any] = {
        id(t): t.detach().clone() for t in held if isinstance(t, Tensor) and not t.is_leaf
    }
    memo.update({id(f): f for f in held if isinstance(f, (torch.jit.ScriptFunction, CustomOpDef))})
    try:
        return copy.deepcopy(model, memo).eval()
    except (RuntimeError, TypeError, pickle.PickleError) as error:
        remedy = "tensors kept as attributes need .detach(), or to be parameters or buffers"
        raise InputError(
            f"the model cannot be copied: {error}", where=type(model).__name__, remedy=remedy
        ) from error


class _Root(nn.Module):
    """Holds a model that is itself kept whole in the graph: an operation of a graph is no graph."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, *inputs: Any) -> Any:
        return self.model(*inputs)


def _root(model: nn.Module) -> nn.Module:
    return model if registry.find(registry.LEAVES, model) is None else _Root(model)


def _clone(tree: Any) -> Any:
    return pytree.tree_map(lambda t: t.detach().clone() if isinstance(t, Tensor) else t, tree)


def _rolled(graph_module: fx.GraphModule, model: nn.Module, inputs: Any) -> fx.GraphModule:
    """The recording, or one in which loops over an axis that Python has written out are scans."""
    if not may_have_loops(graph_module.graph):
        return graph_module
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # they were shown the first time
        again = _record(Session(_root(_copy(model))), inputs, with_constants=True)
    examples = [_tensors(_clone(inputs)), _tensors(probes.scaled(inputs))]
    return rolled(again, examples) or graph_module


def _tensors(tree: Any) -> list[Tensor]:
    return [t for t in pytree.tree_leaves(tree) if isinstance(t, Tensor)]


def _record(session: Session, inputs: Any, with_constants: bool = False) -> fx.GraphModule:
    root = session.root
    buffers = [(b, b.clone()) for b in root.buffers()]
    held = [(path, m, dict(m._buffers)) for path, m in root.named_modules()]
    recorder = Recorder(session, with_constants=with_constants)
    arguments = _clone(inputs)
    named = root.model if isinstance(root, _Root) else root
    for name, tensor in _named_leaves(named, arguments):
        recorder.placeholder(name, tensor)
    with ExitStack() as stack:
        stack.enter_context(_watched(session))
        stack.enter_context(Watch())
        stack.enter_context(recorder)
        outputs = _plain(root(*arguments))
    recorder.finish(outputs)
    for path, module, kept in held:  # buffers that forward replaced, and those that it wrote into
        for name in kept:
            if module._buffers.get(name) is not kept[name]:
                warn_of_buffer(f"{path}.{name}".lstrip("."))
        module._buffers.update(kept)
    for buffer, value in buffers:
        buffer.copy_(value)
    graph_module = fx.GraphModule(root, recorder.graph, type(root).__name__)
    count = sum(n.op == "placeholder" for n in graph_module.graph.nodes)
    assert count == sum(isinstance(t, Tensor) for t in pytree.tree_leaves(inputs)), (
        "every input is a placeholder"
    )
    return graph_module


def _plain(outputs: Any) -> Any:
    """What forward returns as tuples, lists and dicts of tensors; the fields of a dataclass as a dict."""
    if dataclasses.is_dataclass(outputs) and not isinstance(outputs, (type, dict)):
        return {f.name: _plain(getattr(outputs, f.name)) for f in dataclasses.fields(outputs)}
    if type(outputs) in (tuple, list):
        return type(outputs)(map(_plain, outputs))
    if type(outputs) is dict:
        return {key: _plain(value) for key, value in outputs.items()}
    for leaf in pytree.tree_leaves(outputs):
        if not isinstance(leaf, (Tensor, int, float, str, type(None))):
            what = f"forward returns a {type(leaf).__name__}"
            remedy = "return tensors, or tuples, lists, dicts and dataclasses of them"
            raise UnsupportedError([Unsupported("forward", "the model", what, remedy)])
    return outputs


def _named_leaves(root: nn.Module, arguments: tuple[Any, ...]) -> list[tuple[str, Tensor]]:
    """The input tensors with names: the parameter's, and the path inside it where it is nested."""
    parameters = list(inspect.signature(root.forward).parameters.values())
    plain = [p.name for p in parameters if p.kind is not inspect.Parameter.VAR_POSITIONAL]
    found = []
    for i, argument in enumerate(arguments):
        name = plain[i] if i < len(plain) else f"input_{i}"
        for path, leaf in pytree.tree_leaves_with_path(argument):
            if isinstance(leaf, Tensor):
                parts = [name, *(str(getattr(key, "key", getattr(key, "idx", key))) for key in path)]
                found.append(("_".join(parts), leaf))
    return found


@contextmanager
def _watched(session: Session) -> Iterator[None]:
    """Put our own `forward` on every submodule while the model runs: libraries call it directly, past `__call__`."""
    changed: list[tuple[nn.Module, Any]] = []
    for path, module in session.root.named_modules():
        own = module.__dict__.get("forward")
        changed.append((module, own))
        module.__dict__["forward"] = _forward(session, path, module, module.forward)
    try:
        yield
    finally:
        for module, own in changed:
            del module.__dict__["forward"]
            if own is not None:
                module.__dict__["forward"] = own


def _forward(
    session: Session, path: str, module: nn.Module, original: Callable[..., Any]
) -> Callable[..., Any]:
    rewritten = registry.find(registry.REWRITES, module)
    is_leaf = registry.find(registry.LEAVES, module) is not None

    def forward(*args: Any, **kwargs: Any) -> Any:
        recorder = current()
        if recorder is None:
            return original(*args, **kwargs)
        session.modules.append(path)
        try:
            if rewritten is not None:
                return rewritten(module, *args, **kwargs)
            tensors = [t for t in pytree.tree_leaves((args, kwargs)) if isinstance(t, Tensor)]
            depends = any(map(recorder.depends, tensors))
            if not is_leaf or not (depends or recorder.with_constants):
                return original(*args, **kwargs)
            with paused():
                result = original(*args, **kwargs)
                recorder.record_module(path, args, kwargs, result, constant=not depends)
            return result
        finally:
            session.modules.pop()

    return forward


def _replay(
    graph_module: fx.GraphModule, model: nn.Module, inputs: Any, on: str, optional: bool = False
) -> None:
    """The graph gives what the model gives. Optional inputs may be such that the model gives nothing for them."""
    try:
        with warnings.catch_warnings():
            if optional:
                warnings.simplefilter("ignore")
            wanted = pytree.tree_leaves(_plain(model(*_clone(inputs))))
    except Exception:
        if optional:
            return
        raise
    if optional and not all(bool(t.isfinite().all()) for t in wanted if isinstance(t, Tensor)):
        return
    given = pytree.tree_leaves(graph_module(*_tensors(_clone(inputs))))
    reason = f"the recorded graph does not give what forward gives for {on}"
    if len(wanted) != len(given):
        raise _not_a_function(f"{reason}: {len(given)} outputs, not {len(wanted)}")
    for i, (a, b) in enumerate(zip(wanted, given, strict=True)):
        if not isinstance(a, Tensor):
            continue
        a, b = a.double(), b.double()
        scale = float(a.abs().nan_to_num(0, 0, 0).max()) if a.numel() else 0.0
        near = a.shape == b.shape and torch.allclose(b, a, _TOLERANCE, _TOLERANCE * scale, equal_nan=True)
        if not near:
            raise _not_a_function(f"{reason} (output {i})")


def _not_a_function(reason: str) -> LtcError:
    remedy = "let forward depend on its inputs through torch operations alone: no NumPy, TorchScript, counters or lists"
    return UnsupportedError([Unsupported("forward", "the model", reason, remedy)])
