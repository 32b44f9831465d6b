"""A bounds-checked cursor over one section of a program file: every error names section and byte offset."""

from __future__ import annotations

import struct
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from ltc_compiler.errors import ProgramError

RECOMPILE = "recompile the model with this version"


class Reader:
    """Reads `data` front to back; `base` is its place in the file, for the errors. Arrays are views of the data."""

    def __init__(self, section: str, data: bytes | bytearray | memoryview, base: int, start: int = 0) -> None:
        self.section = section
        self.base = base
        self.size = len(data)
        self._data = memoryview(data)
        self._at = start

    def take(self, layout: str) -> tuple[Any, ...]:
        """The next values of a struct layout."""
        size = struct.calcsize(layout)
        return struct.unpack(layout, self._bytes(size))

    def text(self) -> str:
        """A string: u16 length, then UTF-8."""
        (size,) = self.take("<H")
        try:
            return bytes(self._bytes(size)).decode()
        except UnicodeDecodeError as error:
            raise self.error(f"a name is not UTF-8: {error.reason}") from error

    def array(self, dtype: DTypeLike, shape: tuple[int, ...]) -> NDArray[Any]:
        """The next array. Its size is compared with what is left before it is made."""
        kind = np.dtype(dtype)
        count = 1
        for n in shape:
            count *= n
        data = self._bytes(count * kind.itemsize)
        return np.frombuffer(data, kind, count).reshape(shape)

    def rest(self) -> bytes:
        """Everything up to the end of the section."""
        return bytes(self._bytes(self.size - self._at))

    def expect_end(self) -> None:
        """Raises ProgramError if bytes are left."""
        if self._at != self.size:
            raise self.error(f"{self.size - self._at} bytes too many")

    def error(self, what: str) -> ProgramError:
        """A ProgramError for the present place."""
        where = f"section {self.section}, byte {self.base + self._at} of the file"
        return ProgramError(what, where=where, remedy=RECOMPILE)

    def _bytes(self, size: int) -> memoryview:
        if size > self.size - self._at:
            raise self.error(f"{size} bytes expected, the section has {self.size - self._at} left")
        data = self._data[self._at : self._at + size]
        self._at += size
        return data
