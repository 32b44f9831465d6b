"""A call of run_into takes no memory, and a step of run_timesteps no Python: counted, not believed.

A library that counts every call of malloc and its like is put before the C library in a process of its own.
"""

import json
import os
import shutil
import subprocess
import sys
from typing import Any

import pytest
from children import run_python

COUNTER = """
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdatomic.h>
#include <stddef.h>
static atomic_long taken;
long count_taken(void) { return taken; }
extern void *__libc_malloc(size_t), *__libc_calloc(size_t, size_t), *__libc_realloc(void *, size_t);
extern void *__libc_memalign(size_t, size_t);
void *malloc(size_t n) { ++taken; return __libc_malloc(n); }
void *calloc(size_t n, size_t m) { ++taken; return __libc_calloc(n, m); }
void *realloc(void *p, size_t n) { ++taken; return __libc_realloc(p, n); }
void *aligned_alloc(size_t a, size_t n) { ++taken; return __libc_memalign(a, n); }
void *memalign(size_t a, size_t n) { ++taken; return __libc_memalign(a, n); }
int posix_memalign(void **p, size_t a, size_t n) { ++taken; return (*p = __libc_memalign(a, n)) ? 0 : 12; }
"""

PROGRAM = """
import ctypes, gc, json, sys, tracemalloc
import numpy as np
from ltc_compiler.program import Program
from ltcasm import file_image
taken = ctypes.CDLL(sys.argv[1]).count_taken
taken.restype = ctypes.c_long
program = Program(file_image("state"))
vm = program.to_vm()
x = [np.ones(program.input_shape(input_index=i), np.float32) for i in range(program.num_inputs())]
y = [np.empty(program.output_shape(output_index=i), np.float32) for i in range(program.num_outputs())]
long = {n: [np.ones((n, *a.shape), np.float32) for a in x] for n in (10, 1000)}
found = {}
gc.disable()

def calls(n):
    for _ in range(n):
        vm.run_into(x, y)

calls(100)
for n in (1, 1000):
    before = taken()
    calls(n)
    found[f"run_into {n}"] = taken() - before
tracemalloc.start()
calls(10)
tracemalloc.reset_peak()
before = tracemalloc.get_traced_memory()[0]
calls(1000)
after, peak = tracemalloc.get_traced_memory()
found["python bytes kept"], found["python bytes at once"] = after - before, peak - before
tracemalloc.stop()

def events(work):
    seen = [0]
    sys.setprofile(lambda *_: seen.__setitem__(0, seen[0] + 1))
    work()
    sys.setprofile(None)
    return seen[0]

for n, arrays in long.items():
    run = lambda: vm.run_timesteps(*arrays, input_timestep_dim=0, output_timestep_dim=0)
    run()
    found[f"events {n}"] = events(run)
    before = taken()
    run()
    found[f"run_timesteps {n}"] = taken() - before
found["counted"] = taken()
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is None or not sys.platform.startswith("linux"):
        pytest.skip("needs a C compiler and Linux")
    if "libasan" in os.environ.get("LD_PRELOAD", ""):
        pytest.skip("the sanitizer has an allocator of its own")
    folder = tmp_path_factory.mktemp("counter")
    source, library = folder / "counter.c", folder / "counter.so"
    source.write_text(COUNTER)
    subprocess.run([compiler, "-O1", "-shared", "-fPIC", str(source), "-o", str(library)], check=True)
    done = run_python(PROGRAM, str(library), environment={"LD_PRELOAD": str(library)})
    assert done.returncode == 0, done.stderr
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def test_run_into_takes_no_memory(found: dict[str, Any]) -> None:
    assert found["counted"] > 1000  # the counter counts
    assert found["run_into 1000"] == found["run_into 1"] == 0


def test_run_into_keeps_no_python_objects(found: dict[str, Any]) -> None:
    assert found["python bytes kept"] <= 64  # of the loop itself
    assert found["python bytes at once"] < 2048  # one call's arguments; not a thousand's


def test_a_step_of_run_timesteps_costs_no_python(found: dict[str, Any]) -> None:
    assert found["events 10"] == found["events 1000"] > 0
    assert (
        abs(found["run_timesteps 1000"] - found["run_timesteps 10"]) <= 4
    )  # the outputs, from malloc when large
