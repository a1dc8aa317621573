"""What a record predicts of the time after it: as many possible continuations as are asked for."""

from __future__ import annotations

import math
from typing import Final

import numpy as np

from tradepulse_pipeline.market.candles import FloatArray
from tradepulse_pipeline.validation.bootstrap import optimal_block_length, stationary_orders

#: Share of the continuations that may cross a limit which records that go on as they were are to cross in fewer than
#: 5 % of cases: a short record is uncertain of its own spread, too, and so is the limit. With 5 % here 10 % crossed it.
#: docs/monitoring.md has what was measured for each limit.
REACHED_BY: Final = 0.02

#: Numbers that are drawn at once: bounds the memory.
_DRAWN_AT_ONCE: Final = 1 << 19


def continuations(values: FloatArray, length: int, *, n_paths: int, seed: int) -> FloatArray:
    """Return continuations of a record that goes on as it was, shape (n_paths, length).

    Each is a stationary resample of the record (blocks of the optimal length, at least the cube root of that of the
    record), moved by the difference between the mean of another, independent resample and the record's own: what a
    record of finite length says of its mean is uncertain, too, and over a long continuation that is what counts most.
    Resamples spread too little, by about ``(2 b - 1) / n`` of the variance for blocks of mean length b, because they
    vary around the mean of the record; their deviations are widened by as much.

    Parameters
    ----------
    values : float64 array of shape (n,)
        Daily returns, or results of trades, in time order; at least one.
    length : int
        Values of a continuation.
    """
    n = len(values)
    block_length = max(optimal_block_length(values), math.cbrt(n))
    mean, widening = float(values.mean()), math.sqrt(n / max(1.0, n - 2 * block_length + 1))
    generator = np.random.default_rng(seed)
    n_parts = -(-length // n)
    paths = np.empty((n_paths, length))
    n_at_once = max(1, _DRAWN_AT_ONCE // (n * (n_parts + 1)))
    for first in range(0, n_paths, n_at_once):
        rows = slice(first, min(n_paths, first + n_at_once))
        n_rows = rows.stop - first
        orders = stationary_orders(n, n_rows * (n_parts + 1), block_length=block_length, generator=generator)
        drawn = widening * (values[orders] - mean)
        shift = drawn[:n_rows].mean(axis=1, keepdims=True)
        paths[rows] = mean + shift + drawn[n_rows:].reshape(n_rows, -1)[:, :length]
    return paths
