"""What step_latency.py times: our simulator, and what a user would otherwise run, each with its state carried along.

A contestant is made by a function of a Case. It returns the call to time and a function that gives the output of the
last call. A package that is missing, or a model that a runtime cannot take, raises; step_latency.py then says so.
"""

from __future__ import annotations

import io
import tempfile
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
from _workloads import LSTMS, Workload
from torch import Tensor, nn

from ltc_compiler.program import Program

Contestant = tuple[Callable[[], object], Callable[[], np.ndarray]]


class Case(NamedTuple):
    """A workload, made. x: the input of every call, (rows, features)."""

    workload: Workload
    model: nn.Module
    step: nn.Module
    program: Program
    x: Tensor


# ---------------------------------------------------------------- ours


def _ours(case: Case, bit_accurate: bool = True) -> tuple[Any, np.ndarray]:
    x = case.x.numpy()
    return case.program.to_vm(bit_accurate), x[:, None] if case.workload.sequence else x


def simulator_run(case: Case, bit_accurate: bool = True) -> Contestant:
    """run, or run_timesteps for a sequence."""
    vm, x = _ours(case, bit_accurate)
    last = [None]
    if case.workload.sequence:
        axis = case.program.input_streaming_dim()
        whole = np.ascontiguousarray(np.moveaxis(x, 0, axis))

        def timesteps() -> None:
            last[0] = vm.run_timesteps(whole)

        return timesteps, lambda: last[0]

    def run() -> None:
        last[0] = vm.run(x)

    return run, lambda: last[0]


def simulator_fp32(case: Case) -> Contestant:
    """Plain fp32: compared with PyTorch, and not timed."""
    return simulator_run(case, bit_accurate=False)


def simulator_into(case: Case) -> Contestant:
    vm, x = _ours(case)
    y = np.empty(case.program.output_shape(), np.float32)
    if case.workload.sequence:
        raise ValueError("a sequence has no run_into")
    return lambda: vm.run_into(x, y), lambda: y


# ---------------------------------------------------------------- PyTorch


def carried(call: Callable[..., Any], x: Any, states: list[Any]) -> Contestant:
    """A callable (x, *states) -> (y, *states), whose states go into its next call."""
    held = [None, *states]

    def step() -> None:
        held[:] = call(x, *held[1:])

    return step, lambda: np.asarray(held[0])


def eager(case: Case) -> Contestant:
    """The module as a user writes it."""
    model, x = torch.inference_mode()(case.model), case.x
    if not case.workload.recurrent:
        return carried(lambda x: (model(x),), x, [])
    if case.workload.kind == "cnn":  # it has no state that a user could hand over
        return carried(torch.inference_mode()(case.step), x, case.step.initial)
    rows = x[None]
    held: list[Any] = [None, None]

    def step() -> None:
        held[:] = model(rows, held[1])

    return step, lambda: held[0][0].numpy()


def eager_step(case: Case) -> Contestant:
    """The step with its formulas written out."""
    return carried(torch.inference_mode()(case.step), case.x, case.step.initial)


def jit_trace(case: Case) -> Contestant:
    with torch.no_grad():
        traced = torch.jit.freeze(torch.jit.trace(case.step, (case.x, *case.step.initial)))
    return carried(torch.inference_mode()(traced), case.x, case.step.initial)


def compiled(case: Case) -> Contestant:
    """torch.compile with inductor."""
    torch._dynamo.reset()
    return carried(torch.no_grad()(torch.compile(case.step)), case.x, case.step.initial)


def aot_inductor(case: Case) -> Contestant:
    with torch.no_grad(), tempfile.TemporaryDirectory() as folder:
        exported = torch.export.export(case.step, (case.x, *case.step.initial))
        path = torch._inductor.aoti_compile_and_package(exported, package_path=f"{folder}/model.pt2")
        model = torch._inductor.aoti_load_package(path)
    return carried(torch.no_grad()(model), case.x, case.step.initial)


# ---------------------------------------------------------------- ONNX runtimes


def onnx_bytes(case: Case, module: nn.Module | None = None, inputs: tuple[Any, ...] | None = None) -> bytes:
    """The step, or another module, as an ONNX model; inputs in0, in1, ..., outputs out0, out1, ..."""
    inputs = inputs or (case.x, *case.step.initial)
    buffer = io.BytesIO()
    flat = sum(len(i) if isinstance(i, tuple) else 1 for i in inputs)
    names = [f"in{n}" for n in range(flat)]
    outs = [f"out{n}" for n in range(flat)]
    with torch.no_grad():
        torch.onnx.export(
            module or case.step,
            inputs,
            buffer,
            dynamo=False,
            input_names=names,
            output_names=outs,
            opset_version=17,
        )
    return buffer.getvalue()


def _bound_session(data: bytes, x: np.ndarray, states: list[np.ndarray], threads: int = 1) -> Contestant:
    """onnxruntime with every array bound; two bindings hand the state to each other."""
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    session = ort.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    value = ort.OrtValue.ortvalue_from_numpy
    given, names = value(x), [o.name for o in session.get_outputs()]
    sides = [[value(s.copy()) for s in states] for _ in range(2)]
    bindings = []
    for come, go in (sides, sides[::-1]):
        binding = session.io_binding()
        for n, array in enumerate([given, *come]):
            binding.bind_ortvalue_input(f"in{n}", array)
        binding.bind_output(names[0], "cpu")
        for name, array in zip(names[1:], go, strict=True):
            binding.bind_ortvalue_output(name, array)
        bindings.append(binding)
    turn = [0]

    def step() -> None:
        session.run_with_iobinding(bindings[turn[0]])
        turn[0] ^= 1

    return step, lambda: bindings[turn[0] ^ 1].get_outputs()[0].numpy()


def onnxruntime(case: Case, threads: int = 1) -> Contestant:
    return _bound_session(onnx_bytes(case), case.x.numpy(), [s.numpy() for s in case.step.initial], threads)


def onnxruntime_lstm(case: Case) -> Contestant:
    """The user's nn.LSTM, which exports as the operator of that name."""
    if case.workload.kind not in LSTMS:
        raise ValueError("no LSTM")

    class Flat(nn.Module):
        def __init__(self, model: nn.Module) -> None:
            super().__init__()
            self.model = model

        def forward(self, x: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, ...]:
            y, (h, c) = self.model(x, (h, c))
            return y, h, c

    lstm = case.model.lstm
    state = torch.zeros(lstm.num_layers, 1, lstm.hidden_size)
    data = onnx_bytes(case, Flat(case.model).eval(), (case.x[None], state, state.clone()))
    step, read = _bound_session(data, case.x[None].numpy(), [state.numpy()] * 2)
    return step, lambda: read()[0]


def _openvino(case: Case, precision: str, threads: int = 1) -> Contestant:
    """Two requests over shared arrays, which hand the state to each other."""
    import openvino as ov

    settings = {
        "INFERENCE_PRECISION_HINT": precision, "INFERENCE_NUM_THREADS": threads, "NUM_STREAMS": 1,
        "PERFORMANCE_HINT": "LATENCY", "ENABLE_CPU_PINNING": False,
    }  # fmt: skip
    core = ov.Core()
    compiled_model = core.compile_model(core.read_model(onnx_bytes(case), b""), "CPU", settings)
    sides = [[s.numpy().copy() for s in case.step.initial] for _ in range(2)]
    out = np.empty(tuple(compiled_model.outputs[0].shape), np.float32)
    requests = []  # with their arrays: a request does not keep them alive
    for come, go in (sides, sides[::-1]):
        request = compiled_model.create_infer_request()
        arrays = [case.x.numpy(), *come, out, *go]
        for n, array in enumerate(arrays):
            place, side = n % (1 + len(come)), "in" if n <= len(come) else "out"
            request.set_tensor(f"{side}{place}", ov.Tensor(array, shared_memory=True))
        requests.append((request, arrays))
    turn = [0]

    def step() -> None:
        requests[turn[0]][0].infer()
        turn[0] ^= 1

    return step, lambda: out


def openvino_f32(case: Case, threads: int = 1) -> Contestant:
    return _openvino(case, "f32", threads)


def openvino_bf16(case: Case, threads: int = 1) -> Contestant:
    return _openvino(case, "bf16", threads)


# ---------------------------------------------------------------- JAX and numba


def jax_jit(case: Case) -> Contestant:
    import _jax_steps
    import jax.numpy as jnp

    call = _jax_steps.make(case.workload, case.model)
    states = [jnp.asarray(s.numpy()) for s in case.step.initial]
    step, read = carried(call, jnp.asarray(case.x.numpy()), states)

    def finished() -> None:
        step()
        read()  # waits for the result, without a copy

    return finished, read


def numba_by_hand(case: Case) -> Contestant:
    """The gated ODE as loops; a user would hardly write more than this."""
    if case.workload.kind != "gated":
        raise ValueError("written for the gated ODE alone")
    import numba
    import sine_ltc

    m = case.model
    arrays = [m.drive.weight, m.drive.bias, m.gate.weight, m.gate.bias, m.readout.weight, m.readout.bias]
    wd, bd, wg, bg, wr, br = (np.ascontiguousarray(a.detach().numpy().T) for a in arrays)
    tau = (0.1 + torch.nn.functional.softplus(m.raw_tau)).detach().numpy()
    steps, n = sine_ltc.EULER_STEPS, m.hidden

    @numba.njit(fastmath=True)
    def call(x: np.ndarray, y: np.ndarray) -> None:
        h = np.zeros(n, np.float32)
        for _ in range(steps):
            drive, gate = bd + wd[0] * x[0, 0], bg + wg[0] * x[0, 0]
            for k in range(n):
                for j in range(n):
                    drive[j] += wd[k + 1, j] * h[k]
                    gate[j] += wg[k + 1, j] * h[k]
            for j in range(n):
                h[j] += (
                    (-h[j] + drive[j] / (np.float32(1) + np.exp(-gate[j]))) / tau[j] * np.float32(1 / steps)
                )
        total = br[0]
        for j in range(n):
            total += wr[j, 0] * h[j]
        y[0, 0] = total

    x, y = case.x.numpy(), np.empty((1, 1), np.float32)
    return lambda: call(x, y), lambda: y


OURS = {"run": simulator_run, "run_into": simulator_into}
UNTIMED = {"plain fp32": simulator_fp32}
PEERS = {
    "PyTorch eager": eager,
    "PyTorch eager, step": eager_step,
    "jit.trace": jit_trace,
    "torch.compile": compiled,
    "AOTInductor": aot_inductor,
    "onnxruntime": onnxruntime,
    "onnxruntime LSTM": onnxruntime_lstm,
    "OpenVINO f32": openvino_f32,
    "OpenVINO bf16": openvino_bf16,
    "JAX jit": jax_jit,
    "numba by hand": numba_by_hand,
}
IN_BATCHES = {"onnxruntime": onnxruntime, "OpenVINO f32": openvino_f32, "OpenVINO bf16": openvino_bf16}
SLOW_TO_BUILD = ("torch.compile", "AOTInductor")  # half a minute and more a workload
REDUCED = ("run", "run_into", "OpenVINO bf16")  # bf16 products: held to another tolerance
