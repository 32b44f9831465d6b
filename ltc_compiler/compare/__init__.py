"""Comparisons: which operation loses the precision, and what it would cost to keep it (docs/compare.md).

probe.py       a copy of the graph that hands out every value, and the way back
runs.py        the runs: fp64, plain fp32, bit-accurate; and with one operation in FP32
observed.py    which value of PyTorch's is which operation's
measure.py     errors, ulps, infinities, flushed values, NaNs of two arrays
results.py     the rows
comparison.py  compare and Comparison, the public API; show.py prints and plots it, inputs.py checks its inputs
"""

from ltc_compiler.compare.comparison import Comparison, compare
from ltc_compiler.compare.measure import ULP_BINS
from ltc_compiler.compare.observed import Observed
from ltc_compiler.compare.results import COLUMNS

__all__ = ["COLUMNS", "ULP_BINS", "Comparison", "Observed", "compare"]
