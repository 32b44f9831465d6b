"""A loaded program and its VM hold the weights once each: as the file has them, and packed."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import ltc_torch.fx
from ltc_compiler import Config

MEASURE = """
import gc, json, sys
import conftest
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
    model = torch.nn.Sequential(*(torch.nn.Linear(1024, 1024) for _ in range(6))).eval()
    traced, _ = ltc_torch.fx.prepare_shape(model, torch.zeros(1, 1024))
    path = tmp_path / "large.ltcp"
    ltc_torch.fx.nnir.to_nnir(traced).to_program(Config.v80_c6b32()).save(path)
    size, spare = path.stat().st_size, 4 << 20  # measured: 40 kB; the weights once more would be 12 MiB
    assert size > 30 << 20
    here = Path(__file__).parent
    environment = os.environ | {"PYTHONPATH": f"{here}{os.pathsep}{here.parent}"}
    command = [sys.executable, "-c", MEASURE, str(path)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    weights = 6 * 1024 * 1024 * 2  # bf16
    assert weights <= found["packed"] <= 1.1 * weights + (4 << 20)
    assert found["both"] < 1.5 * size + (16 << 20)
    assert found["both"] < size + found["packed"] + spare
    assert found["vm"] < found["packed"] + spare  # the VM keeps nothing of the program
