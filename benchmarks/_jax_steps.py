"""The steps of _workloads.py in JAX, from torch's parameters: step(x, *states) -> (y, *states)."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import sine_ltc
from _workloads import Workload
from torch import nn


def make(workload: Workload, model: nn.Module) -> Any:
    """The jitted step of one call, its parameters bound."""
    p = {name: jnp.asarray(value.detach().numpy()) for name, value in model.named_parameters()}
    if workload.kind == "ltc":
        p |= {name: jnp.asarray(value.detach().numpy()) for name, value in model.rnn_cell._params.items()}
    step = {"gated": _gated, "ltc": _ltc, "cfc": _cfc, "lstm": _lstm, "mlp": _mlp, "cnn": _conv}[
        workload.kind
    ](p, model)
    if not workload.sequence:
        return jax.jit(step)

    def scanned(x: Any, *states: Any) -> Any:
        def body(carry: Any, row: Any) -> Any:
            y, *carry = step(row[None], *carry)
            return tuple(carry), y[0]

        states, ys = jax.lax.scan(body, states, x)
        return ys, *states

    return jax.jit(scanned)


def _linear(p: Any, name: str, x: Any) -> Any:
    return x @ p[f"{name}.weight"].T + p[f"{name}.bias"]


def _gated(p: Any, model: Any) -> Any:
    def step(x: Any) -> Any:
        tau = 0.1 + jax.nn.softplus(p["raw_tau"])
        h = jnp.zeros((1, model.hidden), jnp.float32)
        for _ in range(sine_ltc.EULER_STEPS):
            xh = jnp.concatenate([x, h], -1)
            h = (
                h
                + (-h + _linear(p, "drive", xh) * jax.nn.sigmoid(_linear(p, "gate", xh)))
                / tau
                / sine_ltc.EULER_STEPS
            )
        return (_linear(p, "readout", h),)

    return step


def _ltc(p: Any, model: Any) -> Any:
    cell = model.rnn_cell
    sensory_mask = jnp.asarray(cell._params["sensory_sparsity_mask"].numpy())
    mask, motor = jnp.asarray(cell._params["sparsity_mask"].numpy()), cell.motor_size

    def activated(v: Any, mu: Any, sigma: Any) -> Any:
        return jax.nn.sigmoid(sigma * (v[0][:, None] - mu))

    def step(x: Any, v: Any) -> Any:
        plus = jax.nn.softplus if cell._implicit_param_constraints else lambda a: a
        x = x * p["input_w"] + p["input_b"]
        sensory = plus(p["sensory_w"]) * activated(x, p["sensory_mu"], p["sensory_sigma"]) * sensory_mask
        sensory_num, sensory_den = (sensory * p["sensory_erev"]).sum(0), sensory.sum(0)
        cm, gleak, w = plus(p["cm"]) * cell._ode_unfolds, plus(p["gleak"]), plus(p["w"])
        for _ in range(cell._ode_unfolds):
            a = w * activated(v, p["mu"], p["sigma"]) * mask
            num = cm * v + gleak * p["vleak"] + (a * p["erev"]).sum(0) + sensory_num
            v = num / (cm + gleak + a.sum(0) + sensory_den + cell._epsilon)
        return v[:, :motor] * p["output_w"] + p["output_b"], v

    return step


def _cfc(p: Any, model: Any) -> Any:
    def step(x: Any, h: Any) -> Any:
        x = jnp.concatenate([x, h], 1)
        x = 1.7159 * jnp.tanh(0.666 * _linear(p, "rnn_cell.backbone.0", x))
        a, b = jnp.tanh(_linear(p, "rnn_cell.ff1", x)), jnp.tanh(_linear(p, "rnn_cell.ff2", x))
        t = jax.nn.sigmoid(_linear(p, "rnn_cell.time_a", x) + _linear(p, "rnn_cell.time_b", x))
        h = a * (1.0 - t) + t * b
        return h, h

    return step


def _lstm(p: Any, model: Any) -> Any:
    def step(x: Any, *states: Any) -> Any:
        out = []
        for n in range(model.lstm.num_layers):
            h, c = states[2 * n : 2 * n + 2]
            gates = x @ p[f"lstm.weight_ih_l{n}"].T + p[f"lstm.bias_ih_l{n}"]
            gates = gates + h @ p[f"lstm.weight_hh_l{n}"].T + p[f"lstm.bias_hh_l{n}"]
            i, f, g, o = jnp.split(gates, 4, 1)
            c = jax.nn.sigmoid(f) * c + jax.nn.sigmoid(i) * jnp.tanh(g)
            x = jax.nn.sigmoid(o) * jnp.tanh(c)
            out += [x, c]
        return _linear(p, "readout", x), *out

    return step


def _mlp(p: Any, model: Any) -> Any:
    def step(x: Any) -> Any:
        x = jax.nn.relu(_linear(p, "0", x))
        return (_linear(p, "4", jax.nn.relu(_linear(p, "2", x))),)

    return step


def _conv(p: Any, model: Any) -> Any:
    def step(x: Any, *windows: Any) -> Any:
        out = []
        for n, past in enumerate(windows):
            window = jnp.concatenate([past, x[:, :, None]], 2)
            out.append(window[:, :, 1:])
            x = x + jax.nn.relu(
                jnp.einsum("bck,ock->bo", window, p[f"{n}.conv.weight"]) + p[f"{n}.conv.bias"]
            )
        return x, *out

    return step
