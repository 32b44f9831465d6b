"""The one structured operation: a scan, a loop with state whose body is a graph of its own.

A step maps carries and the present slices of scanned tensors to new carries and outputs. Outside of a recording `scan`
is a plain differentiable loop; inside one it becomes a single node that owns the recorded body, whatever its length.
Recurrent layers, time loops and the steps of an ODE solver all come here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, fx

from ltc_compiler.errors import UnsupportedError
from ltc_torch.fx.record.active import current, paused
from ltc_torch.fx.record.merged import merge
from ltc_torch.fx.record.record import Recorder
from ltc_torch.fx.record.sources import refuse

# (carries, slices) -> (new carries, outputs)
Step = Callable[[list[Tensor], list[Tensor]], tuple[Sequence[Tensor], Sequence[Tensor]]]


def scan(
    step: Step,
    carries: Sequence[Tensor],
    xs: Sequence[Tensor],
    *,
    length: int,
    in_axes: Sequence[int] | None = None,
    out_axes: Sequence[int] | int = 0,
    names: Sequence[str] = (),
) -> tuple[list[Tensor], list[Tensor]]:
    """Run `step` `length` times.

    carries: initial states; a step returns as many, of the same shapes.
    xs: tensors with `length` slices on the axis in `in_axes` (0 where not given); a step gets one slice of each.
    out_axes: the axis on which a step's outputs are stacked, one for all or one for each.
    names: of the carries, identifiers; behind the module's path they name the states of a stream.
    Returns the final carries and the stacked outputs.
    """
    axes = [0] * len(xs) if in_axes is None else [a % x.dim() for a, x in zip(in_axes, xs, strict=True)]
    for x, axis in zip(xs, axes, strict=True):
        if x.shape[axis] != length:
            raise ValueError(
                f"axis {axis} of a scanned tensor of shape {tuple(x.shape)} has not {length} elements"
            )
    recorder = current()
    if recorder is not None:
        return _record(recorder, step, list(carries), list(xs), length, axes, out_axes, names)
    states, rows = list(carries), []
    for k in range(length):
        new, outputs = step(states, [x.select(axis, k) for x, axis in zip(xs, axes, strict=True)])
        states = list(new)
        rows.append(list(outputs))
    return states, _stack(rows, out_axes)


def _stack(rows: Sequence[Sequence[Tensor]], out_axes: Sequence[int] | int) -> list[Tensor]:
    columns = list(zip(*rows, strict=True))
    axes = [out_axes] * len(columns) if isinstance(out_axes, int) else out_axes
    return [torch.stack(column, axis) for column, axis in zip(columns, axes, strict=True)]


def run_scan(
    body: Callable[..., Sequence[Tensor]],
    carries: Sequence[Tensor],
    xs: Sequence[Tensor],
    captures: Sequence[Tensor],
    length: int,
    in_axes: Sequence[int],
    out_axes: Sequence[int],
) -> tuple[Tensor, ...]:
    """The target of a recorded scan: `body(*carries, *slices, *captures)` returns new carries, then outputs."""
    states, rows = list(carries), []
    for k in range(length):
        slices = [x.select(axis, k) for x, axis in zip(xs, in_axes, strict=True)]
        results = body(*states, *slices, *captures)
        states = list(results[: len(states)])
        rows.append(results[len(states) :])
    return (*states, *_stack(rows, out_axes))


def _record(
    recorder: Recorder,
    step: Step,
    carries: list[Tensor],
    xs: list[Tensor],
    length: int,
    in_axes: list[int],
    out_axes: Sequence[int] | int,
    names: Sequence[str],
) -> tuple[list[Tensor], list[Tensor]]:
    session = recorder.session
    with paused():
        slices = [x.select(axis, 0) for x, axis in zip(xs, in_axes, strict=True)]
    known, mark, recorded = bool(xs) and not any(map(recorder.depends, xs)), session.reads.mark(), None
    try:
        recorded = _record_step(recorder, step, carries, slices, as_inputs=True)
    except UnsupportedError:
        if not known:
            raise
    if recorded is None or (known and session.reads.forget(mark)):
        session.reads.forget(mark)
        body, outputs, xs, in_axes = _record_each_step(recorder, step, carries, xs, in_axes, length)
    else:
        body, outputs = recorded
    for node, name in zip(body.graph.nodes, names, strict=False):  # its placeholders come first
        node.target = name
    with paused():
        kept = _unused_slices_dropped(body.graph, len(carries), len(xs))
        xs, in_axes = [xs[i] for i in kept], [in_axes[i] for i in kept]
        axes = [out_axes] * len(outputs) if isinstance(out_axes, int) else list(out_axes)
        axes = [a % (y.dim() + 1) for a, y in zip(axes, outputs, strict=True)]
        module = fx.GraphModule(session.home, body.graph, "Body")
        results = run_scan(module, carries, xs, body.captures, length, in_axes, axes)
        depends = any(map(recorder.depends, (*carries, *xs, *body.captures)))
        if depends or recorder.with_constants:
            owner = recorder.graph.get_attr(session.attach("body", module))
            owner.meta["body"] = module
            operands = (owner, carries, xs, body.captures, length, in_axes, axes)
            recorder.record(run_scan, operands, {}, results, constant=not depends)
    return list(results[: len(carries)]), list(results[len(carries) :])


def _record_step(
    recorder: Recorder, step: Step, carries: Sequence[Tensor], slices: Sequence[Tensor], as_inputs: bool
) -> tuple[Recorder, list[Tensor]]:
    """The recorder of one step, finished, and the step's outputs; slices are inputs of the body or constants."""
    body = Recorder(recorder.session, recorder)
    with paused():
        states = [t.detach().clone() for t in carries]
        rows = [t.detach().clone() for t in slices] if as_inputs else list(slices)
        for i, example in enumerate([*states, *(rows if as_inputs else ())]):
            name = f"carry_{i}" if i < len(states) else f"slice_{i - len(states)}"
            body.placeholder(name, example)
    with body:
        new, outputs = step(states, rows)
        new, outputs = list(new), list(outputs)
    _check_carries(recorder.session.module, carries, new)
    with paused():
        body.finish((*new, *outputs))
        recorder.close_body(body)
    return body, outputs


def _record_each_step(
    recorder: Recorder,
    step: Step,
    carries: Sequence[Tensor],
    xs: Sequence[Tensor],
    in_axes: Sequence[int],
    length: int,
) -> tuple[Recorder, list[Tensor], list[Tensor], list[int]]:
    """As `_record_step`, of a step that reads its slices, which are constants, by value; and what is scanned then."""
    recorded = [
        _record_step(
            recorder, step, carries, [x.select(axis, k) for x, axis in zip(xs, in_axes, strict=True)], False
        )
        for k in range(length)
    ]
    scanned = merge(recorder, [body for body, _ in recorded], len(carries))
    return *recorded[0], [x for x, _ in scanned], [axis for _, axis in scanned]


def _check_carries(module: str, carries: Sequence[Tensor], new: Sequence[Tensor]) -> None:
    before, after = [tuple(t.shape) for t in carries], [tuple(t.shape) for t in new]
    if before != after:
        reason = f"the states of a step have the shapes {before} before it and {after} after it"
        raise refuse("scan", module, reason, "give the initial states the shapes that the step returns")


def _unused_slices_dropped(graph: fx.Graph, carries: int, slices: int) -> list[int]:
    """Erase the placeholders of slices that the body does not read; the indices of those that remain."""
    placeholders = [n for n in graph.nodes if n.op == "placeholder"][carries : carries + slices]
    kept = [i for i, node in enumerate(placeholders) if node.users]
    if carries == 0 and not kept:
        kept = [0]
    for i, node in enumerate(placeholders):
        if i not in kept:
            graph.erase_node(node)
    return kept


def elapsed_time(t: Tensor) -> Tensor:
    """Mark an input of the model as elapsed times; the simulator then refuses negative ones, infinities and NaN.

    Args:
        t: the times, each since the step before, in the unit of the model's time constants.

    Returns:
        `t`.
    """
    recorder = current()
    if recorder is None or not recorder.depends(t):
        return t
    with paused():
        marked = t.clone()
        recorder.record(elapsed_time, (t,), {}, marked)
    return marked
