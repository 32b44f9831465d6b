"""Random graphs with many constants of 0, -0 and 1, widths that are no power of two, and several ports.

Every machine gives the same bits, the reference machine too; plain fp32 is near the meaning in fp64; a stream is its
whole sequence, bit for bit, and a block of steps is so many steps. `case(seed)` is one of them;
tests/project/test_fuzz.py runs some, tests/proof/fuzz.py as many as an hour takes.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from generators import random_graph, random_inputs

from ltc_compiler.config import Config
from ltc_compiler.errors import AllocationError, StreamingError, UnsupportedError
from ltc_compiler.nnir import NNIR
from ltc_compiler.program import Program

WIDTHS = (1, 2, 3, 5, 6, 7, 9, 11, 12, 13, 15, 17, 21, 31, 33)
MACHINES = [
    replace(Config.preset(name), tensor_rows=1 << 16, gather_entries=1 << 16)
    for name in ("tiny_c1b8", "tiny_c2b8", "small_c2b16", "v80_c6b32", "ia_840f_c3b64")
]
TOLERANCE = 1e-3  # of 1 + |y|; test_compile.py has what is usual
SHORT = 4000  # beats that the reference machine is given


def case(seed: int) -> str:
    """Compiles and runs one graph. Returns how it went: "refused" where it does not fit, or "agreed"."""
    rng = np.random.default_rng(seed)
    streams, wishes = bool(rng.random() < 0.5), bool(rng.random() < 0.3)
    nnir = NNIR(random_graph(rng, streams, sizes=WIDTHS, specials=0.4, ports=3, wishes=wishes))
    assert str(NNIR.parse(str(nnir))) == str(nnir)
    inputs = [x.astype(np.float32) for x in random_inputs(rng, nnir.graph)]
    one, other = (MACHINES[int(n)] for n in rng.choice(len(MACHINES), 2, replace=False))
    try:
        return _check(nnir, inputs, one, other, near=not wishes, seed=seed if streams else None)
    except (AllocationError, UnsupportedError, StreamingError):
        return "refused"


def _check(nnir: NNIR, inputs: list[Any], one: Config, other: Config, near: bool, seed: int | None) -> str:
    program = nnir.to_program(one, quick_compile=True)
    twin = nnir.to_program(other, quick_compile=True)
    whole = [_outputs(program.to_vm(bit_accurate).run(*inputs)) for bit_accurate in (True, False)]
    for bit_accurate, expected in zip((True, False), whole, strict=True):
        _same(expected, _outputs(twin.to_vm(bit_accurate).run(*inputs)), f"{one.name} and {other.name}")
        if program.work_per_inference()["beats"] <= SHORT:
            found = _outputs(program.to_oracle(bit_accurate).run(*inputs))
            _same(expected, found, "VM and reference")
    meaning = _outputs(nnir.run(*inputs, states=nnir.initial_states()))
    for y, exact in zip(whole[1] if near else [], meaning, strict=near):
        assert y.shape == exact.shape
        far = np.abs(y - exact) > TOLERANCE * (1 + np.abs(exact))
        assert not far.any(), f"plain fp32 is off: {y[far][:3]} for {exact[far][:3]}"
    if seed is not None:
        step, axes = nnir.streaming_transform(0)
        machine = step.to_program(other, quick_compile=True)
        for bit_accurate, expected in zip((True, False), whole, strict=True):
            found = _outputs(machine.to_vm(bit_accurate).run_timesteps(*inputs, end=True))
            last = [y[-1] if axis is None else y for y, axis in zip(found, _outputs(axes), strict=True)]
            _same(expected, last, "the whole and its stream")
        _check_block(nnir, step, machine, inputs, other, seed)
    return "agreed"


def _check_block(
    nnir: NNIR, step: NNIR, machine: Program, inputs: list[Any], config: Config, seed: int
) -> None:
    """A block of a random number of steps, over sequences of random length, against single steps; states too."""
    rng = np.random.default_rng(seed)
    limit = step.graph.step_limit
    block = int(rng.choice([n for n in range(1, 9) if not limit or limit % n == 0]))
    blocks = nnir.streaming_transform(0, block=block)[0].to_program(config, quick_compile=True)
    runs = limit // block if limit else int(rng.integers(2, 5)) + len(inputs[0]) // block
    order = rng.permutation(runs * block) % len(inputs[0])
    given = [x[order] for x in inputs]
    first = block * int(rng.integers(1, runs)) if runs > 1 else 0
    early = max((0, *(-n for n in step.graph.output_tails or ())))
    for bit_accurate in (True, False):
        one, many = machine.to_vm(bit_accurate), blocks.to_vm(bit_accurate)
        for part, end in ((slice(0, first), False), (slice(first, None), runs * block - first >= early)):
            x = [a[part] for a in given]
            a, b = (_outputs(vm.run_timesteps(*x, end=end)) for vm in (one, many))
            _same(a, b, f"steps and blocks of {block}")
            states, others = one.get_state(), many.get_state()
            _same(
                list(states.values()), [others[name] for name in states], f"states behind blocks of {block}"
            )


def _outputs(result: Any) -> list[Any]:
    return list(result) if isinstance(result, tuple) else [result]


def _same(a: list[Any], b: list[Any], what: str) -> None:
    for i, (x, y) in enumerate(zip(a, b, strict=True)):
        assert x.tobytes() == y.tobytes(), f"{what} differ in output {i}"
