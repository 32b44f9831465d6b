"""The tables of segments.py as memories: what `$readmemh` of the activation unit reads, and the sizes that it is built
with. `python -m ltc_compiler.numerics.segment_images FOLDER` writes all three files."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from ltc_compiler.numerics.segments import FRACTION, SLOPE_BITS, START_BITS, Segments, segments

BLOCKS_FILE, SEGMENTS_FILE = "activation_blocks.hex", "activation_segments.hex"
PACKAGE_FILE = "ltc_segments.sv"


def block_words(tables: Segments) -> list[int]:
    """base (16 bits), first segment (16 bits) and splits (3 bits) of each block, at {function, sign, exponent}."""
    words = (tables.base << 19) | (tables.first << 3) | tables.splits
    return [int(word) for word in words.reshape(-1)]


def segment_words(tables: Segments) -> list[int]:
    """slope and start of each segment, in two's complement."""
    slope = tables.slope & (2**SLOPE_BITS - 1)
    start = tables.start & (2**START_BITS - 1)
    return [int(word) for word in (slope << START_BITS) | start]


def package(tables: Segments) -> str:
    """The text of the package `ltc_segments`: the sizes, and which functions are odd or even."""
    functions = len(tables.odd)

    def mask(flags: np.ndarray) -> str:
        return f"{functions}'b{''.join('01'[int(flag)] for flag in flags[::-1])}"

    numbers = {
        "FUNCTIONS": functions,
        "SEGMENTS": len(tables.slope),
        "FRACTION": FRACTION,
        "SLOPE": SLOPE_BITS,
        "START": START_BITS,
    }
    return "\n".join(
        [
            "// Printed from the bf16 activation tables by ltc_compiler/numerics/segment_images.py.",
            "package ltc_segments;",
            *(f"  localparam int {name} = {value};" for name, value in numbers.items()),
            f"  localparam logic [{functions - 1}:0] ODD = {mask(tables.odd)};",
            f"  localparam logic [{functions - 1}:0] EVEN = {mask(tables.even)};",
            "endpackage",
            "",
        ]
    )


def write(folder: Path) -> None:
    """Write the two memories and the package."""
    tables = segments()
    digits = -(-(SLOPE_BITS + START_BITS) // 4)
    texts = {
        BLOCKS_FILE: "".join(f"{word:09x}\n" for word in block_words(tables)),
        SEGMENTS_FILE: "".join(f"{word:0{digits}x}\n" for word in segment_words(tables)),
        PACKAGE_FILE: package(tables),
    }
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in texts.items():
        (folder / name).write_text(text, encoding="ascii")


if __name__ == "__main__":
    write(Path(sys.argv[1]))
