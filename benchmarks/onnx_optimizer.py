"""What onnxscript's optimizer would add to the import of ONNX files: time beside nodes, and whether numbers change.

For each file: its nodes before and after the optimizer, CPU seconds of the import and of the optimizer, the NNIR nodes
that the compiler's passes leave of both, and the largest difference between both graphs on random inputs, in fp64.
docs/onnx.md says what follows from it.

    python benchmarks/onnx_optimizer.py model.onnx ... [--json FILE]
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from ltc_compiler.nnir import NNIR
from ltc_compiler.transforms.pipeline import run_pipeline


def nodes(nnir: NNIR) -> int:
    """Operations that are left for the scheduler, those of loop bodies included."""
    return sum(node.op != "constant" for node in run_pipeline(nnir.graph).walk())


def outputs(nnir: NNIR) -> list[Any]:
    rng = np.random.default_rng(0)
    found = nnir.run(*(rng.uniform(0.1, 1, v.shape) for v in nnir.graph.inputs))
    return list(found) if isinstance(found, tuple) else [found]


def measure(path: Path, folder: Path) -> dict[str, Any]:
    """The figures of one file with shapes that are fixed."""
    import onnx
    from onnxscript import optimizer

    start = time.process_time()
    plain = NNIR.from_onnx(path)
    imported = time.process_time()
    model = optimizer.optimize(onnx.load(path))
    end = time.process_time()
    onnx.save(model, folder / "optimized.onnx")
    other = NNIR.from_onnx(folder / "optimized.onnx")
    pairs = zip(outputs(plain), outputs(other), strict=True)
    return {
        "onnx nodes": len(onnx.load(path).graph.node),
        "optimized": len(model.graph.node),
        "import s": imported - start,
        "optimizer s": end - imported,
        "nnir nodes": nodes(plain),
        "optimized nnir": nodes(other),
        "difference": max(float(np.max(np.abs(a - b))) for a, b in pairs),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("models", nargs="+", type=Path, help="ONNX files")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there, too")
    given = parser.parse_args()
    logging.disable(logging.WARNING)
    results = {}
    with tempfile.TemporaryDirectory() as folder:
        for path in given.models:
            results[path.name] = row = measure(path, Path(folder))
            if len(results) == 1:
                print(f"| file | {' | '.join(row)} |\n|---|{'---:|' * len(row)}")
            cells = (f"{v:.3g}" if isinstance(v, float) else str(v) for v in row.values())
            print(f"| {path.name} | {' | '.join(cells)} |", flush=True)
    if given.json:
        given.json.write_text(json.dumps(results, indent=1), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
