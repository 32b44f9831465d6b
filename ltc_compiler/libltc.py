"""What a C or C++ compiler needs for libltc, as it lies in the wheel.

gcc loop.c $(python -m ltc_compiler.libltc --cflags --libs) -o loop
"""

from __future__ import annotations

import argparse
import shlex
import sys
from importlib.util import find_spec
from pathlib import Path

from ltc_compiler.errors import FileError


def native() -> Path:
    """The folder that holds include/ and lib/.

    Raises:
        FileError: this build of the package has none.
    """
    spec = find_spec("ltc_compiler._core")
    beside = Path(spec.origin).parent if spec is not None and spec.origin is not None else Path()
    found = beside / "native"
    if not (found / "include" / "ltc.h").is_file():
        raise FileError(
            "libltc is not in this installation", where=str(found),
            remedy="install the package again by pip, or build libltc alone (docs/deploy.md)",
        )  # fmt: skip
    return found


def main(arguments: list[str] | None = None) -> int:
    """Print what the options ask for, on one line."""
    parser = argparse.ArgumentParser(
        prog="python -m ltc_compiler.libltc",
        description="What a C or C++ compiler needs for libltc.",
        epilog="example: gcc loop.c $(python -m ltc_compiler.libltc --cflags --libs) -o loop",
    )
    parser.add_argument("--cflags", action="store_true", help="where the headers ltc.h and ltc.hpp lie")
    parser.add_argument(
        "--libs", action="store_true", help="libltc.so, found where it lies when the program runs"
    )
    parser.add_argument(
        "--static-libs", action="store_true", help="libltc.a and what it needs, instead of --libs"
    )
    parser.add_argument(
        "--cmake-dir", action="store_true", help="for -Dltc_DIR=, by which find_package(ltc) finds it"
    )
    parser.add_argument("--pkg-config-dir", action="store_true", help="for PKG_CONFIG_PATH")
    options = parser.parse_args(arguments)
    if not any(vars(options).values()):
        parser.print_usage(sys.stderr)
        print("say what to print; --help lists it", file=sys.stderr)
        return 2
    try:
        folder = native()
    except FileError as error:
        print(error, file=sys.stderr)
        return 1
    lib = folder / "lib"
    printed = {
        "cflags": [f"-I{folder / 'include'}"],
        "libs": [f"-L{lib}", f"-Wl,-rpath,{lib}", "-lltc"],
        "static_libs": [str(lib / "libltc.a"), "-lstdc++", "-lm", "-lpthread"],
        "cmake_dir": [str(lib / "cmake" / "ltc")],
        "pkg_config_dir": [str(lib / "pkgconfig")],
    }
    print(shlex.join(word for name, words in printed.items() if getattr(options, name) for word in words))
    return 0


if __name__ == "__main__":
    sys.exit(main())
