"""The units of the RTL on many more operands than the test suite takes, by Verilator: 20 million pairs an operation.

    python tests/proof/rtl_units.py                 all of it
    python tests/proof/rtl_units.py --pairs 1000000 fewer pairs

The arithmetic units of rtl/fp are compared with the CPU's IEEE arithmetic. Ends with 1 if a result differs, and with a
message that says what to install if Verilator is missing.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
from pathlib import Path

from tqdm import tqdm

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "support")]

from verilated import ARITHMETIC, UNITS, build

STAGES, CHUNK = 2, 1_000_000


def arithmetic(pairs: int) -> bool:
    """Whether every operation agrees with the CPU on that many pairs, in chunks with seeds of their own."""
    bench = build("fp_bench", (*ARITHMETIC, UNITS / "fp_bench.sv"), UNITS / "fp_bench.cpp", STAGES=STAGES)
    right = True
    for seed in tqdm(range(1, -(-pairs // CHUNK) + 1), "million pairs"):
        command = [str(bench), str(min(pairs, CHUNK)), str(STAGES), str(seed)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            right = False
            print(done.stdout)
    return right


def main() -> int:
    """Run the proof and say what it found."""
    parser = argparse.ArgumentParser(description="The RTL's arithmetic units against the CPU.")
    parser.add_argument("--pairs", type=int, default=20_000_000)
    arguments = parser.parse_args()
    if shutil.which("verilator") is None:
        print("Verilator is not installed: `apt-get install verilator` (Debian), then run this again")
        return 1
    right = arithmetic(arguments.pairs)
    print(
        f"arithmetic units, 13 operations, {arguments.pairs} pairs each:", "all right" if right else "WRONG"
    )
    return 0 if right else 1


if __name__ == "__main__":
    sys.exit(main())
