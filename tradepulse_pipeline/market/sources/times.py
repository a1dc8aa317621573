"""Points in time as sources write them, and as people read them."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime

import numpy as np
from numpy.typing import NDArray

from tradepulse_pipeline.market.candles import FloatArray


def iso_utc(time_ms: int) -> str:
    """Return a time in UTC milliseconds as people read it.

    Examples
    --------
    >>> iso_utc(1_502_942_400_000)
    '2017-08-17T04:00Z'
    """
    return datetime.fromtimestamp(time_ms / 1000, UTC).strftime("%Y-%m-%dT%H:%MZ")


def to_milliseconds(times: NDArray[np.int64] | FloatArray) -> FloatArray:
    """Return times since 1970 in milliseconds; seconds, milli-, micro- and nanoseconds are told by their magnitude.

    The ranges do not overlap for dates between 1973 and 5138. NaN stays NaN.
    """
    size = np.abs(times)
    divisor = np.select([size < 1e11, size < 1e14, size < 1e17], [1e-3, 1.0, 1e3], 1e6)
    milliseconds: FloatArray = times / divisor
    whole = np.round(milliseconds)
    return np.where(np.abs(milliseconds - whole) < 1e-3, whole, milliseconds)


def most_common_step(times_ms: FloatArray) -> tuple[int, float]:
    """Return the most common distance between neighbouring times in milliseconds and its share; (0, 0.0) without one.

    Order and repetitions do not matter.
    """
    steps = Counter(np.diff(np.unique(times_ms[np.isfinite(times_ms)])).tolist())
    if not steps:
        return 0, 0.0
    step, count = steps.most_common(1)[0]
    return int(step), count / steps.total()
