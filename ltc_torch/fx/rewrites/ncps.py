"""ncps.torch, unmodified: LTC and CfC sequences become scans over time, an LTC cell is lowered to synapses.

The cell's update is the delta form, every operation one rounding in fp32, in this order, with h = dt * (1 / unfolds):

    N = (gleak * vleak + sensory num) + recurrent num
    D = ((gleak + epsilon) + sensory den) + recurrent den
    v = v + h * (N - D * v) / (cm + h * D)

It equals ncps's update algebraically, needs no division by dt, and keeps its accuracy as dt gets small.
Sources: Hasani et al., Liquid Time-constant Networks (2021); Lechner et al., Neural circuit policies (2020).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from ltc_compiler.ir.graph import Graph, Value
from ltc_torch.fx.convert.emit import Emitter
from ltc_torch.fx.record.active import current
from ltc_torch.fx.record.sources import refuse
from ltc_torch.fx.record.structured import scan
from ltc_torch.fx.registry import Refused, leaf, rewrite

Weights = NDArray[np.float64]


# ---------------------------------------------------------------- sequences


@rewrite("ncps.torch.ltc.LTC")
@rewrite("ncps.torch.cfc.CfC")
def sequence(module: Any, input: Tensor, hx: Any = None, timespans: Tensor | None = None) -> Any:
    """The forward of ncps LTC and CfC, (batch, time, features) or as batch_first says, or (time, features)."""
    recorder = current()
    assert recorder is not None
    if input.dim() not in (2, 3):
        raise _refuse(
            f"the input has shape {tuple(input.shape)}, expected 2 or 3 dimensions", "(batch, time, features)"
        )
    batched = input.dim() == 3
    batch_axis, time_axis = (0, 1) if module.batch_first else (1, 0)
    if not batched:
        input = input.unsqueeze(batch_axis)
        timespans = timespans.unsqueeze(batch_axis) if timespans is not None else None
    batch, steps = input.shape[batch_axis], input.shape[time_axis]
    states = _initial_states(module, hx, batch, batched, input)
    xs, axes = [input], [time_axis]
    if timespans is not None:
        xs.append(_shared_timespans(timespans, batch_axis, steps, time_axis))
        axes.append(0)
    readout = getattr(module, "fc", nn.Identity())

    def cell(carries: list[Tensor], slices: list[Tensor]) -> tuple[list[Tensor], Tensor]:
        h, *c = carries[: len(states)]
        if module.use_mixed:
            h, c[0] = module.lstm(slices[0], (h, c[0]))
        out, h = module.rnn_cell.forward(slices[0], h, slices[1] if timespans is not None else 1.0)
        return [h, *c], readout(out)

    if module.return_sequences:

        def step(carries: list[Tensor], slices: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
            new, out = cell(carries, slices)
            return new, [out]

        names = ("h", "c")
        final, (output,) = scan(step, states, xs, length=steps, in_axes=axes, out_axes=time_axis, names=names)
    else:  # the last output is one more state
        size = readout.out_features if isinstance(readout, nn.Linear) else module.output_size

        def last(carries: list[Tensor], slices: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
            new, out = cell(carries, slices)
            return [*new, out], []

        called = (*("h", "c")[: len(states)], "output")
        starts = [*states, input.new_zeros(batch, size)]
        (*final, output), _ = scan(last, starts, xs, length=steps, in_axes=axes, names=called)
    if not batched:
        output, final = output.squeeze(batch_axis), [s[0] for s in final]
    return output, (tuple(final) if module.use_mixed else final[0])


def _refuse(reason: str, rewrite: str) -> Exception:
    recorder = current()
    return refuse("ncps", recorder.session.module if recorder else "", reason, rewrite)


def _initial_states(module: Any, hx: Any, batch: int, batched: bool, like: Tensor) -> list[Tensor]:
    count = 2 if module.use_mixed else 1
    if hx is None:
        return [like.new_zeros(batch, module.state_size) for _ in range(count)]
    given = list(hx) if isinstance(hx, (tuple, list)) else [hx]
    if len(given) != count:
        raise _refuse(
            f"hx holds {len(given)} states, expected {count}",
            "a pair (h0, c0) with mixed_memory, else a tensor",
        )
    if any(s.dim() != (2 if batched else 1) for s in given):
        shapes = [tuple(s.shape) for s in given]
        raise _refuse(
            f"hx has the shapes {shapes}", "(batch, units) for batched and (units,) for unbatched inputs"
        )
    return given if batched else [s.unsqueeze(0) for s in given]


def _shared_timespans(timespans: Tensor, batch_axis: int, steps: int, time_axis: int) -> Tensor:
    """Elapsed times as (time,): one for each step, shared by the batch."""
    if timespans.dim() == 3 and timespans.shape[2] == 1:
        timespans = timespans.squeeze(2)
    if timespans.dim() != 2 or timespans.shape[time_axis] != steps:
        raise _refuse(
            f"timespans has shape {tuple(timespans.shape)} for {steps} steps", "(batch, time), as the input"
        )
    if timespans.shape[batch_axis] != 1:
        raise _refuse(
            "ncps computes wrongly with a span for every sample of a batch above 1",
            "batch 1, or spans that the batch shares: timespans of shape (1, time)",
        )
    return timespans.squeeze(batch_axis)


# ---------------------------------------------------------------- the LTC cell


@leaf("ncps.torch.ltc_cell.LTCCell")
def ltc_cell(
    c: Emitter, cell: Any, inputs: Value, states: Value, elapsed_time: Any = 1.0
) -> tuple[Value, Value]:
    """inputs (batch, features), states (batch, units), elapsed_time a number or broadcastable to the states."""
    if len(inputs.shape) != 2 or len(states.shape) != 2:
        raise Refused(
            f"inputs {inputs.shape} and states {states.shape}, expected (batch, features) and (batch, units)"
        )
    if isinstance(elapsed_time, Value):
        if len(elapsed_time.shape) == 1 and elapsed_time.type.size != 1:
            raise Refused(
                "elapsed_time of shape (batch,) meets the units, not the samples",
                "give it the shape (batch, 1)",
            )
        c.mark_elapsed_time(elapsed_time)
    p = _parameters(cell)
    x = inputs
    if "input_w" in p:
        x = c.add("mul", x, p["input_w"])
    if "input_b" in p:
        x = c.add("add", x, p["input_b"])
    sensory = _synapses(c, x, p, "sensory_")
    h = c.add("mul", elapsed_time, 1.0 / cell._ode_unfolds)
    v = _unfold(c, cell, p, states, sensory, h)
    out = c.slice(v, 1, 0, cell.motor_size) if cell.motor_size < cell.state_size else v
    if "output_w" in p:
        out = c.add("mul", out, p["output_w"])
    if "output_b" in p:
        out = c.add("add", out, p["output_b"])
    return out, v


def _parameters(cell: Any) -> dict[str, Weights]:
    """The cell's parameters in fp64, constraints applied, and what is derived from them."""
    raw: dict[str, Tensor] = {k: t.detach().double() for k, t in cell._params.items()}
    for name in ("gleak", "cm", "w", "sensory_w"):
        raw[name] = cell.make_positive_fn(raw[name])
    for kind in ("", "sensory_"):
        raw[kind + "w"] = raw[kind + "w"] * raw[kind + "sparsity_mask"]
        raw[kind + "we"] = raw[kind + "w"] * raw[kind + "erev"]
    raw["leak"] = raw["gleak"] * raw["vleak"]
    raw["leak_eps"] = raw["gleak"] + cell._epsilon
    return pytree.tree_map(lambda t: t.numpy(), raw)


def _synapses(c: Emitter, v: Value, p: dict[str, Weights], kind: str) -> tuple[Value, Value]:
    names = ("mu", "sigma", "w", "we", "sparsity_mask")
    num, den = c.add_many("synapse", [v, *(p[kind + name] for name in names)])
    return num, den


def _unfold(
    c: Emitter, cell: Any, p: dict[str, Weights], v: Value, sensory: tuple[Value, Value], h: Value
) -> Value:
    """The unfolds of one step: a scan that carries v."""
    still = [c.add("add", p[name], x) for name, x in zip(("leak", "leak_eps"), sensory, strict=True)]
    captured = [*still, *([] if h.constant() is not None else [h])]
    b = c.body(Graph("unfold"))
    state = b.graph.add_input(v.type, "v")
    inner = [b.graph.add_input(x.type, f"captured_{i}") for i, x in enumerate(captured)]
    dt: Any = inner[2] if h.constant() is None else h.constant()
    num, den = _synapses(b, state, p, "")
    total = b.add("add", inner[0], num)
    decay = b.add("add", inner[1], den)
    top = b.add("mul", dt, b.add("sub", total, b.add("mul", decay, state)))
    bottom = b.add("add", p["cm"], b.add("mul", dt, decay))
    b.graph.add_output(b.add("add", state, b.add("div", top, bottom)), "v")
    attrs = {"carries": 1, "scanned": 0, "trip_count": cell._ode_unfolds, "in_axes": (), "out_axes": ()}
    return c.add_many("scan", [v, *captured], body=b.graph, **attrs)[0]
