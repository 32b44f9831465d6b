"""Weights are in memory once in each form: a compilation makes the file around them, and a VM packs those of a file."""

import json
import os
import sys
from pathlib import Path

import numpy as np
import pytest
from children import run_python

from ltc_compiler import Config
from ltc_compiler.ir.graph import Graph, Type
from ltc_compiler.ir.ops import add
from ltc_compiler.nnir import NNIR

MEASURE = """
import gc, json, sys
from pathlib import Path
from ltc_compiler.program import Program

def resident():
    return int(next(l for l in open("/proc/self/status") if l.startswith("VmRSS")).split()[1]) * 1024

Program.load(sys.argv[1]).to_vm()  # what is loaded with the first one stays: tables, code
gc.collect()
before = resident()
program = Program.load(sys.argv[1])
vm = program.to_vm()
both = resident() - before
packed = vm.metrics()["parameter_bytes"]
del program
gc.collect()
print(json.dumps({"both": both, "vm": resident() - before, "packed": packed}))
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
@pytest.mark.skipif("LD_PRELOAD" in os.environ, reason="the sanitizer keeps memory that was given back")
def test_resident_size(tmp_path: Path) -> None:
    rng, graph = np.random.default_rng(0), Graph("six layers")
    value = graph.add_input(Type((1, 1024)), "x")
    for _ in range(6):
        arrays = [graph.constant(rng.uniform(-0.03, 0.03, shape)) for shape in ((1024, 1024), (1024,))]
        value = add(graph, "linear", value, *arrays)
    graph.add_output(value)
    path = tmp_path / "large.ltcp"
    NNIR(graph).to_program(Config.v80_c6b32()).save(path)
    size, spare = path.stat().st_size, 4 << 20  # measured: 40 kB; the weights once more would be 12 MiB
    assert size > 30 << 20
    done = run_python(MEASURE, str(path))
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    weights = 6 * 1024 * 1024 * 2  # bf16
    assert weights <= found["packed"] <= 1.1 * weights + (4 << 20)
    assert found["both"] < 1.5 * size + (16 << 20)
    assert found["both"] < size + found["packed"] + spare
    assert found["vm"] < found["packed"] + spare  # the VM keeps nothing of the program


COMPILE = """
from pathlib import Path
import numpy as np
from ltc_compiler import Config
from ltc_compiler.ir.graph import Graph, Type, fixed
from ltc_compiler.ir.ops import add
from ltc_compiler.nnir import NNIR

def status(name):
    return int(next(l for l in open("/proc/self/status") if l.startswith(name)).split()[1]) * 1024

def compiled(width):
    rng, graph = np.random.default_rng(0), Graph("six layers")
    value = graph.add_input(Type((1, width)), "x")
    for _ in range(6):
        weight = fixed(rng.random((width, width), np.float32) - 0.5)
        value = add(graph, "linear", value, graph.constant(weight), graph.constant(np.zeros(width)))
    graph.add_output(value)
    nnir = NNIR(graph)
    Path("/proc/self/clear_refs").write_text("5")  # the peak counts from here on
    before = status("VmRSS")
    program = nnir.to_program(Config.v80_c6b32(), quick_compile=True)
    return program, status("VmHWM") - before

compiled(64)  # what is loaded with the first one stays
print(compiled(1536)[1] / (4 * 6 * 1536 * 1536))
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
@pytest.mark.skipif("LD_PRELOAD" in os.environ, reason="the sanitizer keeps memory that was given back")
def test_a_compilation_adds_the_file_to_the_weights_and_little_more() -> None:
    """The file has them in fp32 and in bf16: 1.5 times. They were in memory 8 times."""
    done = run_python(COMPILE)
    assert done.returncode == 0, done.stderr
    assert 1.5 <= float(done.stdout) < 2.0


MAPPED = """
import json, sys
import numpy as np
from ltc_compiler.program import Program

def anonymous():
    return int(next(l for l in open("/proc/self/status") if l.startswith("RssAnon")).split()[1]) * 1024

vm = Program.load(sys.argv[1]).to_vm()
x = np.memmap(sys.argv[2], np.float32, "r").reshape(-1, 64)
vm.run_timesteps(x[:100])
before = anonymous()
y = vm.run_timesteps(x)
one = anonymous() - before
batch = vm.run_batch(x.reshape(4, -1, 64), threads=1)
both = anonymous() - before
print(json.dumps({"one": one, "both": both, "outputs": y.nbytes, "steps": len(y), "last": batch[-1, -1].tolist()}))
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
@pytest.mark.skipif("LTC_CORE" in os.environ, reason="a sanitized core takes memory of its own")
def test_an_array_in_a_file_is_not_copied_into_memory(tmp_path: Path) -> None:
    graph = Graph("readout")
    x = graph.add_input(Type((64,)), "x")
    graph.add_output(add(graph, "linear", x, graph.constant(np.ones((2, 64))), graph.constant(np.zeros(2))))
    program = NNIR(graph).to_program(Config.v80_c6b32())
    program.save(tmp_path / "p.ltcp")
    steps = 400_000
    data = np.memmap(tmp_path / "x.bin", np.float32, "w+", shape=(steps, 64))
    data[-1] = 1
    data.flush()
    done = run_python(MAPPED, str(tmp_path / "p.ltcp"), str(tmp_path / "x.bin"))
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["steps"] == steps
    assert found["last"] == [64.0, 64.0]
    spare = 8 << 20  # the input has 98 MiB
    assert found["one"] < found["outputs"] + spare
    assert found["both"] < 2 * found["outputs"] + spare
