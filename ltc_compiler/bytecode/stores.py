"""The initial stores of a core: constant rows, weight blocks, synapses and gather patterns.

Every part checks its own shapes when it is built and keeps contiguous arrays of the store's own types, so
that the container can write them as they stand. Weights that are filled in later are one element, broadcast.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from ltc_compiler.bytecode.ports import F32
from ltc_compiler.errors import ProgramError

U16 = NDArray[np.uint16]

CANONICAL_NAN = 0x7FC00000


@dataclass(frozen=True, eq=False)
class SlotArrays:
    """The synapse store: n slots of B synapses, one per lane.

    src: (n, B) uint16, presynaptic element or isa.ABSENT; mu, sigma, w, we: (n, B) float32; last: (n,) bool,
    the last slot of a target row.
    """

    src: U16
    mu: F32
    sigma: F32
    w: F32
    we: F32
    last: NDArray[np.bool_]

    def __post_init__(self) -> None:
        n = len(self.last)
        width = self.src.shape[-1]
        for name in ("src", "mu", "sigma", "w", "we"):
            kind: type[np.generic] = np.uint16 if name == "src" else np.float32
            _set_array(self, name, kind, (n, width))
        _set_array(self, "last", np.bool_, (n,))

    def __len__(self) -> int:
        return len(self.last)

    @classmethod
    def empty(cls, block_size: int) -> Self:
        lanes = np.zeros((0, block_size), np.float32)
        src = np.zeros((0, block_size), np.uint16)
        return cls(src, lanes, lanes, lanes, lanes, np.zeros(0, np.bool_))


@dataclass(frozen=True, eq=False)
class EntryArrays:
    """The gather store: n entries.

    src, dst: (n,) int32 row offsets; clear: (n,) bool; lane: (n, B) uint16, or isa.ABSENT.
    """

    src: NDArray[np.int32]
    dst: NDArray[np.int32]
    clear: NDArray[np.bool_]
    lane: U16

    def __post_init__(self) -> None:
        n = len(self.src)
        _set_array(self, "src", np.int32, (n,))
        _set_array(self, "dst", np.int32, (n,))
        _set_array(self, "clear", np.bool_, (n,))
        _set_array(self, "lane", np.uint16, (n, self.lane.shape[-1]))

    def __len__(self) -> int:
        return len(self.src)

    @classmethod
    def empty(cls, block_size: int) -> Self:
        rows = np.zeros(0, np.int32)
        return cls(rows, rows, np.zeros(0, np.bool_), np.zeros((0, block_size), np.uint16))


@dataclass(frozen=True, eq=False)
class CoreImage:
    """The initial stores of one core.

    tensor_rows: rows that the program uses; constants: (first row, (rows, B) float32) ranges, initial states
    among them, every other row starts as +0; weights: (n, B, B) uint16, bf16 words or halves of fp32;
    shadow_weights (n, B, B), shadow_slots (slots, 4, B: mu, sigma, w, we) and shadow_constants (the rows of
    every range): the fp32 originals for the plain fp32 machine; None where they are not known, and no
    shadow_constants at all where the constants are exact. Constants must be values that a machine can hold:
    no subnormals, and 0x7FC00000 the only NaN.
    """

    tensor_rows: int
    constants: list[tuple[int, F32]]
    weights: U16
    slots: SlotArrays
    entries: EntryArrays
    shadow_weights: F32 | None = None
    shadow_slots: F32 | None = None
    shadow_constants: Sequence[F32] | None = ()

    def __post_init__(self) -> None:
        width = self.block_size
        _set_array(self, "weights", np.uint16, (len(self.weights), width, width))
        if self.shadow_weights is not None:
            _set_array(self, "shadow_weights", np.float32, self.weights.shape)
        if self.shadow_slots is not None:
            _set_array(self, "shadow_slots", np.float32, (len(self.slots), 4, width))
        if self.slots.src.shape[1] != width or self.entries.lane.shape[1] != width:
            raise ProgramError(f"the stores of a core differ in block size: weights have {width}")
        ranges = [(int(row), _constant(int(row), rows, width)) for row, rows in self.constants]
        end = 0
        for row, rows in sorted(ranges, key=lambda r: r[0]):
            if row < end or row + len(rows) > self.tensor_rows:
                raise ProgramError(
                    f"constant rows {row} to {row + len(rows) - 1} overlap others,"
                    f" or pass the last row, {self.tensor_rows - 1}"
                )
            end = row + len(rows)
        object.__setattr__(self, "constants", ranges)
        self._set_originals(ranges)

    def _set_originals(self, ranges: Sequence[tuple[int, F32]]) -> None:
        if self.shadow_constants is None:
            return
        given = self.shadow_constants or [rows for _, rows in ranges]
        if [np.shape(rows) for rows in given] != [rows.shape for _, rows in ranges]:
            raise ProgramError("shadow_constants are not of the shapes of the constants")
        originals = [_constant(row, o, self.block_size) for (row, _), o in zip(ranges, given, strict=True)]
        object.__setattr__(self, "shadow_constants", originals)

    @property
    def block_size(self) -> int:
        return int(self.weights.shape[-1])

    @property
    def has_shadow(self) -> bool:
        """Whether the fp32 originals of everything in its stores are there."""
        weights = self.shadow_weights is not None or len(self.weights) == 0
        constants = self.shadow_constants is not None or not self.constants
        return weights and constants and (self.shadow_slots is not None or len(self.slots) == 0)

    def initial_rows(self, bit_accurate: bool = True) -> Iterator[tuple[int, F32]]:
        """The ranges of rows that do not start as +0: the constants, or their fp32 originals."""
        originals = self.shadow_constants or ()
        for i, (row, rows) in enumerate(self.constants):
            yield row, rows if bit_accurate else originals[i]

    @classmethod
    def empty(cls, block_size: int, tensor_rows: int = 0) -> Self:
        """A core with nothing in its stores."""
        weights = np.zeros((0, block_size, block_size), np.uint16)
        return cls(tensor_rows, [], weights, SlotArrays.empty(block_size), EntryArrays.empty(block_size))


def _constant(row: int, rows: F32, width: int) -> F32:
    array = np.ascontiguousarray(rows, np.float32)
    if array.ndim != 2 or array.shape[1] != width or row < 0:
        raise ProgramError(f"constant rows at {row} have shape {array.shape}, not (rows, {width})")
    bits = array.view(np.uint32)
    magnitude = bits & 0x7FFFFFFF
    subnormal = (magnitude > 0) & (magnitude < 0x00800000)
    foreign_nan = (magnitude > 0x7F800000) & (bits != CANONICAL_NAN)
    if (subnormal | foreign_nan).any():
        raise ProgramError(
            f"constant rows at {row} hold subnormals or NaNs that no machine can hold",
            remedy="pass them through numerics.write_fp32",
        )
    return array


def _set_array(owner: object, name: str, kind: type[np.generic], shape: Sequence[int]) -> None:
    array = getattr(owner, name)
    if np.shape(array) != tuple(shape):
        raise ProgramError(f"{name} has shape {np.shape(array)}, expected {tuple(shape)}")
    if array.dtype == kind and array.size and not any(array.strides):
        return  # one element for all: it takes no memory, and stays so
    stored = np.ascontiguousarray(array, kind)
    if stored.dtype != np.asarray(array).dtype and not np.array_equal(stored, array):
        raise ProgramError(f"{name} holds values that {stored.dtype} cannot: {np.asarray(array).dtype} given")
    object.__setattr__(owner, name, stored)
