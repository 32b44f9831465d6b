"""Prints what is made from the tables.

    python -I ltc_compiler/isa --header OUT          isa.gen.h, and
    python -I ltc_compiler/isa --machine-header OUT  machine.gen.h: the C++ headers that CMake compiles
    python -I ltc_compiler/isa --instructions OUT    docs/isa.md
    python -I ltc_compiler/isa --configuration OUT   docs/configuration.md
    python -m ltc_compiler.isa --schema OUT          the JSON schema of a machine's TOML file

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
    """Write what is asked for."""
    from ltc_compiler.isa import cpp, cpp_machine, markdown, schema

    printers = {
        "header": (cpp.header, "the C++ header of the instructions"),
        "machine-header": (cpp_machine.header, "the C++ header of the machine"),
        "instructions": (markdown.instructions, "the reference of the instructions, in Markdown"),
        "configuration": (markdown.configuration, "the reference of the machine's parameters, in Markdown"),
        "schema": (schema.schema, "the JSON schema of a machine's TOML file"),
    }
    parser = argparse.ArgumentParser(
        prog="python -m ltc_compiler.isa", description="Print the tables of the machine."
    )
    for name, (_, what) in printers.items():
        parser.add_argument(f"--{name}", type=Path, metavar="OUT", help=what)
    given = vars(parser.parse_args())
    asked = {name: path for name in printers if (path := given[name.replace("-", "_")]) is not None}
    if not asked:
        parser.error(f"nothing to print: give {' or '.join(f'--{name} OUT' for name in printers)}")
    for name, path in asked.items():
        text = printers[name][0]()
        if not path.is_file() or path.read_text(encoding="utf-8") != text:  # else nothing is to be built anew
            path.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    _stand_in()
    main()
