"""Prints what is made from the tables.

    python -I ltc_compiler/isa --header OUT     writes the header that CMake compiles
    python -I ltc_compiler/isa --markdown OUT   writes docs/isa.md

The build runs this by its path. The package ltc_compiler cannot be imported then, since it needs the core that is being
built, and an installed one may be another: a package without content, whose folder is this one's parent, stands in.
"""

from __future__ import annotations

import argparse
import sys
from importlib.machinery import PathFinder
from pathlib import Path
from types import ModuleType


def _stand_in() -> None:
    package = ModuleType("ltc_compiler")
    package.__path__ = [str(Path(__file__).resolve().parents[1])]
    sys.modules["ltc_compiler"] = package
    sys.meta_path.insert(0, PathFinder)  # before the hook of an editable install, which has files of its own


def main() -> None:
    """Write the C++ header or the reference."""
    from ltc_compiler.isa import cpp, markdown

    parser = argparse.ArgumentParser(prog="isa", description="Print the tables of the machine.")
    parser.add_argument("--header", type=Path, metavar="OUT", help="the C++ header")
    parser.add_argument("--markdown", type=Path, metavar="OUT", help="the reference in Markdown")
    arguments = parser.parse_args()
    if arguments.header is None and arguments.markdown is None:
        parser.error("nothing to print: give --header OUT or --markdown OUT")
    for path, text in ((arguments.header, cpp.header), (arguments.markdown, markdown.reference)):
        if path is not None:
            path.write_text(text(), encoding="utf-8")


if __name__ == "__main__":
    _stand_in()
    main()
