"""Every model of the zoo on several boards, under every precision policy: `make proof`.

All machines must give the bits of the smallest one, whole and step by step. It prints the errors against PyTorch.

    python tests/proof/test_models_full.py        measure the errors again and write tests/golden/model_errors.csv
    python tests/proof/test_models_full.py --new  the same for models alone that have none yet
"""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "support")]
from recorded_models import (
    FACTOR,
    FLOOR,
    POLICIES,
    assert_same_bits,
    assert_streams,
    error,
    measured,
    record,
    run_both,
    write_measured,
)

from ltc_compiler import Config
from zoo import SMALL, ZooModel

MACHINES = (Config.tiny_c1b8(), Config.small_c2b16(), Config.ia_840f_c3b64(), Config.v80_c6b32())


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("case", SMALL.values(), ids=list(SMALL))
def test_model_on_every_machine(case: ZooModel, policy: str) -> None:
    recorded = record(case, policy)
    first = None
    for machine in MACHINES:
        outputs = run_both(recorded.nnir.to_program(machine), recorded.inputs)
        if first is None:
            first = outputs
        assert_same_bits(outputs, first, f"{machine.name} and {MACHINES[0].name}")
        if case.streaming is not None:
            assert_streams(recorded, machine, outputs)
    assert first is not None
    assert error(first, recorded.expected) <= FACTOR * measured()[case.name][policy] + FLOOR


def _measure(known: dict[str, dict[str, float]]) -> None:
    errors: dict[str, dict[str, float]] = {}
    for case in SMALL.values():
        if case.name in known:
            errors[case.name] = known[case.name]
            continue
        errors[case.name] = {}
        for policy in POLICIES:
            recorded = record(case, policy)
            outputs = run_both(recorded.nnir.to_program(MACHINES[0]), recorded.inputs)
            errors[case.name][policy] = error(outputs, recorded.expected)
        print(f"{case.name:24s}", *(f"{p} {e:.2e}" for p, e in errors[case.name].items()), flush=True)
    write_measured(errors)
    for policy in POLICIES:
        worst = max(errors, key=lambda name: errors[name][policy])
        print(f"worst under {policy}: {worst} {errors[worst][policy]:.2e}")


if __name__ == "__main__":
    _measure(measured() if "--new" in sys.argv else {})
