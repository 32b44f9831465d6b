"""prepare_shape: a model and example inputs in, an annotated fx graph and the model's own output out.

The recorder trusts the model to be a function of its inputs and of the tensors that its calls change (module_state.py).
That is checked, not assumed: the recorded graph must give what the model gives, call by call, on the example inputs and
on others (probes.py). So a value that was taken from the example (by a text, a C++ extension or a counter in the step)
is found here, and not on the device.
"""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, Literal

import torch
from torch import Tensor, fx, nn
from torch.utils import _pytree as pytree

from ltc_compiler.errors import FaultError, InputError, LtcError, Unsupported, UnsupportedError
from ltc_compiler.stages import stage
from ltc_torch.fx import registry
from ltc_torch.fx.record import inference  # noqa: F401 - catches functions
from ltc_torch.fx.record.active import current, paused
from ltc_torch.fx.record.catch import intercepted
from ltc_torch.fx.record.eager import eager
from ltc_torch.fx.record.record import Recorder, Session
from ltc_torch.fx.record.sources import failing_line
from ltc_torch.fx.record.unwrap import check_made, unwrapped
from ltc_torch.fx.record.watch import Watch
from ltc_torch.fx.reduced import kind_of, widened, without_autocast
from ltc_torch.fx.reroll.repeats import may_have_loops
from ltc_torch.fx.reroll.reroll import NodeNames, rolled
from ltc_torch.fx.reroll.unlike import unlike
from ltc_torch.fx.rewrites import libraries, scan_operator, solvers  # noqa: F401 - they catch functions
from ltc_torch.fx.state.carried import NO_STATES, States, idle, module_states
from ltc_torch.fx.state.copies import called, cloned, copied, plain, same_random_state, scaled, tensors_of
from ltc_torch.fx.state.held import spelled
from ltc_torch.fx.state.module_state import FACTORS, Behaviour, behaviour, refusal
from ltc_torch.fx.state.replay import check_calls, check_probes, check_states
from ltc_torch.fx.state.stateful import stateful
from ltc_torch.precision import noting

ModuleState = Literal["carry", "reset", "refuse"]


def prepare_shape(
    model: nn.Module, *inputs: Any, module_state: ModuleState = "carry"
) -> tuple[fx.GraphModule, Any]:
    """Record a model on example inputs.

    Neither the model nor the state of random number generators changes. What `forward` itself raises is raised as it
    is.

    Args:
        model: a module on the CPU. A deep copy of it is recorded, in eval mode (with a warning if the model is in
            training mode).
        inputs: tensors of a floating dtype on the CPU, None, or nested tuples, lists and dicts of them. A model or
            inputs in bf16 or fp16 are recorded in fp32, and autocast regions as if they were not there: PyTorch's own
            results differ by its rounding of every operation, in bf16 up to 2^-9 of each result.
        module_state: what to do with tensors that a call leaves changed in the model, in buffers, attributes or
            containers (docs/state.md). "carry": they are state of the program, under their own names, and a warning
            lists them; "reset": every call starts from what the model holds now; "refuse": an error.

    Returns:
        The graph, and what the model returns for the inputs. The nodes of the graph carry `meta["shape"]`, `["dtype"]`
        and `["source"]` (module path, file, line, text); its placeholders are the input tensors, flattened in order. A
        graph with module state keeps it in buffers from call to call, as the model does.

    Raises:
        InputError: the model or an input is not on the CPU, is not floating, or cannot be copied.
        UnsupportedError: `forward` reads the value of a tensor that depends on an input or on module state, or changes
            something from call to call that cannot be state; the error names the user's lines.
        FaultError: the recorder itself failed.
    """
    model = unwrapped(model)
    _check(model, inputs)
    if module_state not in ("carry", "reset", "refuse"):
        remedy = 'give "carry", "reset" or "refuse"'
        raise InputError(f"module_state is {module_state!r}", where="prepare_shape", remedy=remedy)
    reduced = kind_of(model, inputs)
    own, given = (model, inputs) if reduced is None else widened(model, inputs)
    try:
        with stage("record", type(model).__name__), without_autocast() as asked:
            graph_module, outputs = _prepare(own, given, module_state)
        if reduced is not None or asked.autocast:
            with same_random_state(), torch.no_grad():
                outputs = called(copied(model), inputs)
        return graph_module, outputs
    except (LtcError, MemoryError):
        raise
    except Exception as error:
        if reduced is not None:
            what = f"the model is in {reduced}, and does not run in fp32, in which it is recorded: {error}"
            remedy = f"model.float() and x.float(), and no conversion to {reduced} in forward"
            raise InputError(what, where=type(model).__name__, remedy=remedy) from error
        with torch.no_grad():
            called(copied(model), inputs)  # what the model itself raises is the user's to see
        if "does not require grad" in str(error):
            where = failing_line(error.__traceback__) or type(model).__name__
            reason = "takes a gradient while it runs, and a recording has none"
            remedy = "write the derivative by torch operations"
            raise UnsupportedError([Unsupported("forward", where, reason, remedy)]) from error
        what = f"recording fails with {type(error).__name__}: {error}"
        remedy = "this is a mistake of the compiler, not of the model: please report it with the line"
        where = failing_line(error.__traceback__) or type(model).__name__
        raise FaultError(what, where=where, remedy=remedy) from error


def _prepare(model: nn.Module, inputs: Any, module_state: str) -> tuple[fx.GraphModule, Any]:
    if any(m.training for m in model.modules()):
        warnings.warn("the model is in training mode: a copy of it in eval mode is recorded", stacklevel=3)
    with same_random_state(), torch.no_grad(), intercepted(), eager():
        session = _session(model)
        graph_module = _record(session, inputs)
        session.reads.warn(stacklevel=3)
        if module_state == "reset":
            outputs = [called(copied(model), scaled(inputs, factor)) for factor in FACTORS[:2]]
        else:
            found = behaviour(model, inputs)
            outputs = found.outputs
            stateful_graph = _with_state(found, model, inputs, module_state)
            if stateful_graph is not None:
                return stateful_graph, outputs[0]
        if session.random:  # what it returns cannot be compared
            return graph_module, outputs[0]
        graph_module = _rolled(graph_module, model, inputs)
        check_calls(graph_module, model, inputs, outputs)
        check_probes(graph_module, model, inputs)
    return graph_module, outputs[0]


def _with_state(found: Behaviour, model: nn.Module, inputs: Any, policy: str) -> fx.GraphModule | None:
    """The recording with module state; None where no call reads what another left behind."""
    states, module = dict(found.states), None
    while states:
        session = _session(found.model)
        module = _record(session, inputs, states)
        unread = idle(module, states)
        if not unread:
            break
        states = {path: value for path, value in states.items() if path not in unread}
    if not states or module is None:
        return None
    listed = ", ".join(f"{spelled(path)} {tuple(value.shape)}" for path, value in states.items())
    if policy == "refuse":
        reason = "a call leaves it changed, and the next call reads it"
        raise refusal(
            found.model, dict.fromkeys(states, reason), "module_state='carry' makes it program state"
        )
    later = {path: found.after[path] for path in states}
    if not session.random:
        module = _rolled(module, found.model, inputs, states, later)
        check_states(module, model, inputs, states)
        check_probes(module, model, inputs, states)
    warnings.warn(
        f"module state is carried from call to call: {listed}; it starts from what the model holds now"
        " (module_state='reset': every call does)",
        stacklevel=4,
    )
    return stateful(module, states)


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
    check_made(model)
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
            if leaf.is_complex():
                what = f"an input is {leaf.dtype}: a port of a program holds real numbers"
                raise InputError(
                    what, where=where, remedy="give torch.view_as_real(x), and in forward view_as_complex"
                )
            if not leaf.is_floating_point():
                raise InputError(
                    f"an input is {leaf.dtype}, expected a floating dtype", where=where, remedy="x.float()"
                )
            if leaf.numel() == 0:
                what = f"an input of shape {tuple(leaf.shape)} has no elements"
                raise InputError(what, where=where, remedy="give an example of the size that will be run")
        elif isinstance(leaf, float) or not isinstance(leaf, (int, bool, str, type(None))):
            what = f"an input is a {type(leaf).__name__}, expected a tensor or None"
            raise InputError(what, where=where, remedy="pass torch.tensor(value)")


class _Root(nn.Module):
    """Holds a model that is itself kept whole in the graph: an operation of a graph is no graph."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, *inputs: Any) -> Any:
        return self.model(*inputs)


def _session(model: nn.Module) -> Session:
    return Session(_root(copied(model)), registry.FUNCTIONS)


def _root(model: nn.Module) -> nn.Module:
    return model if registry.find(registry.LEAVES, model) is None else _Root(model)


def _rolled(
    graph_module: fx.GraphModule,
    model: nn.Module,
    inputs: Any,
    states: States = NO_STATES,
    later: States = NO_STATES,
) -> fx.GraphModule:
    """The recording, or one in which loops over an axis that Python has written out are scans.

    later: other values of the states.
    """
    if not may_have_loops(graph_module.graph):
        return graph_module
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # they were shown the first time
        try:
            again = _record(_session(model), inputs, states, with_constants=True)
        except (
            LtcError
        ):  # a value is read of a constant that was written in place, which counts as recorded here
            return graph_module
    examples = [
        [*tensors_of(cloned(inputs)), *states.values()],
        [*tensors_of(scaled(inputs, FACTORS[1])), *later.values()],
    ]
    made = rolled(again, examples)
    if made is None:
        made = graph_module
    else:
        made.meta["regions"] = again.meta["regions"]
    made.meta["written_out"] = unlike(again.graph, NodeNames(again))
    return made


def _record(
    session: Session, inputs: Any, states: States = NO_STATES, with_constants: bool = False
) -> fx.GraphModule:
    """The graph of one call. With states it takes them behind the inputs, and returns (outputs, their next values)."""
    root = session.root
    buffers = [(b, b.clone()) for b in root.buffers()]
    kept = [(m, dict(m._buffers)) for m in root.modules()]
    recorder = Recorder(session, with_constants=with_constants)
    arguments = cloned(inputs)
    named = root.model if isinstance(root, _Root) else root
    for name, tensor in _named_leaves(named, arguments):
        recorder.placeholder(name, tensor)
    following = module_states(recorder, named, states)
    with ExitStack() as stack:
        stack.enter_context(session.reads.refused())
        stack.enter_context(_watched(session))
        stack.enter_context(Watch())
        entered = stack.enter_context(noting())
        stack.enter_context(recorder)
        outputs = plain(root(*arguments))
    if states:
        outputs = outputs, following(outputs)
    recorder.finish(outputs)
    for module, before in kept:  # buffers that forward replaced, and those that it wrote into
        module._buffers.update(before)
    for buffer, value in buffers:
        buffer.copy_(value)
    graph_module = fx.GraphModule(session.home, recorder.graph, type(root).__name__)
    graph_module.meta["regions"] = entered
    found = sum(n.op == "placeholder" for n in graph_module.graph.nodes)
    assert found == len(tensors_of(inputs)) + len(states), "every input is a placeholder"
    return graph_module


def _named_leaves(root: nn.Module, arguments: tuple[Any, ...]) -> list[tuple[str, Tensor]]:
    """The input tensors with names: the parameter's, and the path inside it where it is nested."""
    parameters = list(inspect.signature(root.forward).parameters.values())
    many = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    plain = [p.name for p in parameters if p.kind not in many]
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
                with session.in_rewrite(module):
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
