"""What the arithmetic of a program costs on this CPU at the least: bare kernels without an interpreter around them.

`work` lists the matrix products, synapses, activations and pointwise vectors of a program. limits.cpp, which CMake
builds here, walks that list over packed weights. Raises OSError where CMake or the instructions are missing.
"""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import tempfile
from functools import cache
from pathlib import Path
from types import ModuleType

import numpy as np

from ltc_compiler import isa
from ltc_compiler.bytecode import Image
from ltc_compiler.program import Program

HERE = Path(__file__).parent
MATMUL, SYNAPSE, SIGMOID, TANH, DIVIDE, POINTWISE = range(6)
LANES = 16
Work = tuple[int, int, int, int]


@cache
def kernels() -> ModuleType:
    """limits.cpp as a module."""
    if "avx512_bf16" not in Path("/proc/cpuinfo").read_text(encoding="utf-8"):
        raise OSError("the bare kernels need a CPU with AVX-512 and its bf16 dot product")
    folder = Path(tempfile.mkdtemp(prefix="limits"))
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    configure = ["-S", HERE, "-B", folder, "-G", "Ninja", f"-DPython_EXECUTABLE={sys.executable}"]
    for arguments in (configure, ["--build", folder, "--target", "limits"]):
        subprocess.run(
            ["cmake", *arguments], check=True, env=os.environ | {"PATH": path}, stdout=subprocess.DEVNULL
        )
    target = folder / "limits.so"
    spec = importlib.util.spec_from_file_location("limits", target)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    check(module)
    return module


def check(module: ModuleType, k: int = 200) -> None:
    """The bare matrix product has the bits of the reference's rule 7, the bare units those of rules 2, 8 and 9."""
    from ltc_compiler import numerics

    random = np.random.default_rng(0)
    w, x = (
        numerics.to_bf16(random.standard_normal(shape).astype(np.float32)) for shape in ((LANES, k), (k,))
    )
    padded = np.zeros((LANES + 1, -(-k // 16) * 16), np.float32)
    padded[:LANES, :k], padded[LANES, :k] = w, x
    halves = (padded.view(np.uint32) >> 16).reshape(LANES + 1, -1, 2)
    pairs = halves[:, :, 0] << 16 | halves[:, :, 1]
    y = np.empty(LANES, np.float32)
    module.product(np.ascontiguousarray(pairs[:LANES].T), np.ascontiguousarray(pairs[LANES]), y)
    expected = np.array([numerics.dot(row, x) for row in w], np.float32)
    if y.tobytes() != expected.tobytes():
        raise AssertionError("the bare matrix product differs from rule 7")
    x = numerics.to_bf16(random.standard_normal(1024).astype(np.float32) * 4)
    units = {
        SIGMOID: numerics.activation_bf16("sigmoid", x),
        TANH: numerics.activation_bf16("tanh", x),
        DIVIDE: numerics.write_fp32(numerics.div(np.float32(1), numerics.add(x, np.float32(1)))),
        POINTWISE: numerics.write_fp32(numerics.mul(x, x)),
    }
    for kind, expected in units.items():
        y = np.concatenate([x, np.zeros_like(x)])
        module.vectors(kind, y)
        if y[1024:].tobytes() != expected.tobytes():
            raise AssertionError(f"the bare unit {kind} differs from the reference machine")


def work(program: Program) -> list[Work]:
    """(kind, k, vectors, batch) of every executed instruction that computes."""
    image, executions, found = program.image, [1], []
    block = image.config.block_size
    for instr in image.code:
        o = instr.operands
        if instr.name == "loop":
            executions.append(executions[-1] * int(o["count"]))
        elif instr.name == "end":
            executions.pop()
        else:
            found += _work_of(instr.name, o, image, block, instr.core) * executions[-1]
    return found


def _work_of(name: str, o: dict, image: Image, block: int, core: int) -> list[Work]:
    if name == "matmul":
        return [(MATMUL, o["k"] * o["taps"], o["m_rows"] * block // LANES, o["batch"])]
    if name == "synapse":
        ends = np.flatnonzero(image.cores[core].slots.last[o["slots"] :])[: o["targets"]]
        return [(SYNAPSE, 0, int(ends[-1] + 1) * block // LANES, 1)]
    if isa.BY_NAME[name].format.name not in ("Unary", "Binary", "Ternary") or name in ("move", "state_write"):
        return []
    vectors = o["n_outer"] * o["n_inner"] * max(1, block // LANES)
    kind = {"sigmoid": SIGMOID, "tanh": TANH, "div": DIVIDE}.get(name, POINTWISE)
    return [(kind, 0, vectors, 1)]


def measure(listed: list[Work], calls: int) -> np.ndarray:
    """Microseconds of each of `calls` walks of the bare kernels over that work."""
    return np.frombuffer(kernels().measure(listed, calls))
