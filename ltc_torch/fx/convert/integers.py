"""Booleans and whole numbers that depend on an input: what torch computes with them where it differs from numbers.

The machine knows fp32 alone. Whole numbers are exact there up to 2^24; what wraps at 128 or 256, and bits, are refused.
"""

from __future__ import annotations

import torch

from ltc_torch.fx.record.calls import words
from ltc_torch.fx.registry import Refused

_NARROW = {torch.uint8: 8, torch.int8: 8, torch.int16: 16}
_GROWING = words(
    """
    add __add__ __radd__ sub subtract __sub__ rsub __rsub__ mul multiply __mul__ __rmul__ neg negative __neg__
    square pow __pow__ __rpow__ abs absolute __abs__ diff addcmul lerp cumsum cumprod sum prod
    matmul __matmul__ __rmatmul__ mm bmm mv dot inner outer vdot addmm addmv baddbmm einsum tensordot kron linear
    scatter_add index_add index_put scatter_reduce index_reduce
    """
)
_BITS = words(
    "bitwise_and __and__ __rand__ bitwise_or __or__ __ror__ bitwise_xor __xor__ bitwise_not __invert__"
)
_GATHERED = words("scatter_add index_add index_put")  # adds booleans by `or`


def check_integers(name: str, dtype: object) -> None:
    """Raises Refused where a result of this type is no sum, product or comparison of plain numbers."""
    if not isinstance(dtype, torch.dtype) or dtype.is_floating_point or dtype.is_complex:
        return
    if dtype in _NARROW and name in _GROWING:
        what = f"whole numbers of {_NARROW[dtype]} bits ({dtype}), which wrap where they grow too large"
        raise Refused(what, "compute in floats: mask.float(), or a buffer of torch.float32")
    if dtype != torch.bool and name in _BITS:
        raise Refused(
            f"bits of whole numbers ({dtype})", "booleans, or arithmetic: n % 2, n // 2, a float mask"
        )
    if dtype == torch.bool and name in _GATHERED:
        raise Refused("adds up booleans", "add up floats: mask.float()")
