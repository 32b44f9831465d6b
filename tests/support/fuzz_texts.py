"""Texts of NNIR, configurations and bytecode, damaged at random: refused by the error family, or good.

`case(seed)` is one of them; tests/project/test_fuzz.py runs some, tests/proof/fuzz.py as many as an hour takes.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from functools import cache

import numpy as np
from generators import random_graph
from random_programs import draw

from ltc_compiler.bytecode import assemble, disassemble
from ltc_compiler.config import Config
from ltc_compiler.errors import LtcError
from ltc_compiler.nnir import NNIR

NUMBERS = ("0", "-1", "1", "2147483648", "4294967296", "9223372036854775808", "9" * 5000, "1e999", "nan", "-inf",
           "0x1p3", "1_0", "٣")  # fmt: skip
PIECES = ("(", ")", "[", "]", "{", "}", ",", "=", ":", '"', "%", "\\", "\\u", "\\ud800", "\x00", "\x1b", "\n", " ", "@",
          "c0", "all", "state", "next", "body", "splat(0.0)", "base64", "dense(", "true", "//", ";", "é", "\u2028",
          "[" * 3000, "{" * 300, "a." * 500)  # fmt: skip


def case(seed: int) -> str:
    """Damages one text and reads it. Returns how it went: "refused", or "read" where it still had a meaning."""
    rng = random.Random(seed)
    read, text = rng.choice((_nnir, _toml, _assembly))(rng.randrange(8))
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        text = _damage(rng, text)
    try:
        read(text)
    except LtcError as error:
        refusal = str(error)
    else:
        return "read"
    assert len(refusal) < 20_000
    return "refused"


def _damage(rng: random.Random, text: str) -> str:
    a, b = sorted((rng.randrange(len(text) + 1), rng.randrange(len(text) + 1)))
    b = min(b, a + rng.choice((0, 1, 3, 30)))
    kind = rng.randrange(5)
    if kind == 0:
        return text[:a] + text[b:]
    if kind == 1:
        return text[:b] + text[a:b] * rng.choice((1, 2, 50)) + text[b:]
    if kind == 2:  # a number becomes another
        digits = [i for i, c in enumerate(text) if c.isdigit()]
        at = rng.choice(digits) if digits else a
        return text[:at] + rng.choice(NUMBERS) + text[at + 1 :]
    if kind == 3:
        words = text.split(" ")
        i, j = rng.randrange(len(words)), rng.randrange(len(words))
        words[i], words[j] = words[j], words[i]
        return " ".join(words)
    return text[:a] + rng.choice(PIECES) + text[b:]


Reader = Callable[[str], object]


@cache
def _nnir(number: int) -> tuple[Reader, str]:
    def read(text: str) -> None:
        nnir = NNIR.parse(text)
        if sum(v.type.size for node in nnir.graph.walk() for v in node.results) < 1 << 20:
            assert str(NNIR.parse(str(nnir))) == str(nnir)

    return read, str(NNIR(random_graph(np.random.default_rng(number), streamable=number % 2 == 0)))


@cache
def _toml(number: int) -> tuple[Reader, str]:
    def read(text: str) -> None:
        config = Config.from_bytes(text.encode("utf-8", "surrogatepass"))
        assert Config.from_bytes(config.to_bytes()) == config

    return read, Config.preset(Config.presets()[number]).to_bytes().decode()


@cache
def _assembly(number: int) -> tuple[Reader, str]:
    def read(text: str) -> None:
        code = assemble(text)
        assert assemble(disassemble(code)) == code

    return read, disassemble(draw(number).code)
