"""The differential programs on every set of kernels that this CPU runs: one hash, the reference machine's.

Each set runs in a process of its own, as a user's would: LTC_SIMD is all that differs. Programs and inputs come from a
file that the first process writes. VMs of one process may differ in their kernels too.
"""

from __future__ import annotations

import copy
import hashlib
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from children import run_python
from core_images import kernel_names
from generators import random_graph, random_inputs
from random_programs import draw, inputs_of

from ltc_compiler import Config, ConfigError
from ltc_compiler.nnir import NNIR
from ltc_compiler.program import Program

PROGRAMS, GRAPHS, RUNS = 60, 8, 2
CONFIGS = (Config.tiny_c1b8(), Config.small_c2b16(), Config.ia_840f_c3b64(), Config.v80_c6b32())


Case = tuple[
    bytes, bool, list[Any]
]  # a program file, whether it runs bit-accurately, and the inputs of its runs


def corpus() -> list[Case]:
    """Random bytecode, and compiled random graphs."""
    found: list[Case] = []
    for seed in range(PROGRAMS):
        rng = np.random.default_rng(seed)
        image = draw(seed, 40)
        inputs = [inputs_of(rng, image.models[0]) for _ in range(RUNS)]
        found.append((image.to_bytes(), seed % 4 != 0, inputs))
    for seed in range(GRAPHS):
        rng = np.random.default_rng(seed)
        graph = random_graph(rng, wishes=True)
        program = NNIR(graph).to_program(CONFIGS[seed % len(CONFIGS)])
        inputs = [[x.astype(np.float32) for x in random_inputs(rng, graph)] for _ in range(RUNS)]
        found.append((program.save_bytes(), seed % 4 != 0, inputs))
    return found


def bits_after(machine: Any, inputs: list[Any]) -> bytes:
    """The bits of every output and state after one run."""
    outputs = machine.run(*inputs)
    arrays = (*(outputs if isinstance(outputs, tuple) else (outputs,)), *machine.state.values())
    return b"".join(np.ascontiguousarray(array, np.float32).tobytes() for array in arrays)


def hashed(cases: list[Case], machine_of: Any) -> str:
    """SHA-256 of every output and state."""
    digest = hashlib.sha256()
    for data, bit_accurate, runs in cases:
        machine = machine_of(Program.load_bytes(data), bit_accurate)
        for inputs in runs:
            digest.update(bits_after(machine, inputs))
    return digest.hexdigest()


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The file, and the hash of the reference machine."""
    cases = corpus()
    path = tmp_path_factory.mktemp("corpus") / "cases"
    path.write_bytes(pickle.dumps(cases))
    return path, hashed(cases, Program.to_oracle)


def answer(path: str) -> str:
    """What one process has to say: its kernels, and the hash of the simulator."""
    cases = pickle.loads(Path(path).read_bytes())
    simd = Program.load_bytes(cases[0][0]).to_vm().metrics()["simd"]
    return f"{simd} {hashed(cases, Program.to_vm)}"


@pytest.mark.parametrize("kernels", kernel_names())
def test_one_hash(kernels: str, recorded: tuple[Path, str]) -> None:
    path, expected = recorded
    script = "import sys, test_every_set_of_kernels as t; print(t.answer(sys.argv[1]))"
    here = str(Path(__file__).parent)
    done = run_python(script, str(path), environment={"LTC_SIMD": kernels}, folders=(here,))
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [kernels, expected]


def test_vms_of_one_process_differ_in_kernels_and_in_no_bit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LTC_SIMD", "none")  # what a program asks for goes before what the environment does
    names = kernel_names()
    for seed in range(6):
        program, rng = Program(draw(seed, 40)), np.random.default_rng(seed)
        machines = {name: program.to_vm(kernels=name) for name in names}
        oracle = program.to_oracle()
        for _ in range(RUNS):
            inputs = inputs_of(rng, program.image.models[0])
            expected = bits_after(oracle, inputs)
            assert {name: bits_after(vm, inputs) for name, vm in machines.items()} == dict.fromkeys(
                names, expected
            )
        assert [vm.metrics()["simd"] for vm in machines.values()] == names
        assert [copy.copy(vm).metrics()["simd"] for vm in machines.values()] == names


def test_kernels_that_are_not_there_are_refused_with_those_that_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LTC_SIMD", raising=False)
    program = Program(draw(0, 40))
    for name in ("avx3", "", "AVX2"):
        with pytest.raises(ConfigError, match=f"no kernels {name} for this CPU") as caught:
            program.to_vm(kernels=name)
        assert caught.value.where == "kernels"
        assert caught.value.remedy.rsplit(" of ", 1)[1].split(", ") == kernel_names()
