"""From raw rows of any origin to valid candles, and a reason for every row that is none."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from tradepulse_pipeline.market.calendars import NEVER_CLOSES, TradingCalendar
from tradepulse_pipeline.market.candles import BoolArray, Candles, FloatArray, IntArray
from tradepulse_pipeline.market.series import Timeframe
from tradepulse_pipeline.market.sources.times import to_milliseconds

#: The reason given to the candle that an exchange is still building.
NOT_CLOSED: Final = "not closed yet"


@dataclass(frozen=True, slots=True, kw_only=True)
class Rejected:
    """A row that is no valid candle: its number (the first row of data is 1), why, and what it held.

    ``values`` are open time in UTC milliseconds, open, high, low, close and volume; NaN where no number was found.
    """

    row: int
    reason: str
    values: tuple[float, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class CleanedRows:
    """Valid candles in time order, the rows that were refused, and how many were mere repetitions."""

    candles: Candles
    rejected: tuple[Rejected, ...]
    n_duplicates: int


def count_reasons(rejected: Sequence[Rejected]) -> str:
    """Say how many rows were refused for which reason, and where the first ones are.

    Examples
    --------
    >>> count_reasons([Rejected(row=7, reason="negative volume", values=())])
    '1 negative volume (row 7)'
    """
    rows: dict[str, list[int]] = {}
    for one in rejected:
        rows.setdefault(one.reason, []).append(one.row)

    def where(numbers: list[int]) -> str:
        shown = ", ".join(str(number) for number in numbers[:3])
        return f"row{'s' if len(numbers) > 1 else ''} {shown}{', …' if len(numbers) > 3 else ''}"

    return "; ".join(f"{len(numbers)} {reason} ({where(numbers)})" for reason, numbers in rows.items())


def rejected_within(rejected: Sequence[Rejected], start_ms: int, end_ms: int) -> tuple[Rejected, ...]:
    """Return the rows with an open time in ``[start_ms, end_ms)``, and those without one: they belong to every span."""
    return tuple(row for row in rejected if not (row.values[0] < start_ms or row.values[0] >= end_ms))


def clean_rows(
    times: NDArray[np.int64] | FloatArray,
    values: FloatArray,
    timeframe: Timeframe,
    *,
    now_ms: int,
    calendar: TradingCalendar = NEVER_CLOSES,
) -> CleanedRows:
    """Turn raw rows into valid candles and rejected rows.

    A row is rejected for the first rule that it breaks, in this order: open time missing, off the grid, in the future,
    not closed; values missing, infinite, inconsistent. Of the rows that are left, several with one open time count
    once if they are equal; if they differ, the last one holds and the others are rejected. Rows that run backwards in
    time as a whole are read in reverse; the fewest rows that break the order are rejected.

    Parameters
    ----------
    times : int64 or float64 array of shape (n_rows,)
        Open times since 1970 in s, ms, µs or ns, each told by its magnitude; NaN where there is none.
    values : float64 array of shape (n_rows, 5)
        Open, high, low, close and volume; NaN where there is none.
    timeframe : Timeframe
        The span of one candle.
    now_ms : int
        The time, in UTC milliseconds, up to which candles have closed.
    calendar : TradingCalendar
        That of the market, which the candles carry on.
    """
    times_ms = to_milliseconds(times)
    reasons = _reasons(times_ms, values, timeframe, now_ms, calendar)
    sound = np.flatnonzero(reasons == "")

    # Stable: rows of one open time stay in the order in which they came.
    by_time = sound[np.argsort(times_ms[sound], kind="stable")]
    starts = np.flatnonzero(np.diff(times_ms[by_time], prepend=-1.0))
    group = np.repeat(np.arange(len(starts)), np.diff(starts, append=len(by_time)))
    last = by_time[np.append(starts[1:], len(by_time)) - 1] if len(starts) else by_time
    repeated = by_time != last[group]
    differs = repeated & (values[by_time] != values[last[group]]).any(axis=1)
    reasons[by_time[differs]] = "replaced by a later row of the same open time"

    backwards = _out_of_order(by_time[starts])
    reasons[last[backwards]] = "out of time order"
    kept = last[~backwards]

    open_, high, low, close, volume = values[kept].T
    rejected = np.flatnonzero(reasons != "")
    return CleanedRows(
        candles=Candles.from_arrays(
            timeframe, times_ms[kept].astype(np.int64), open_, high, low, close, volume, calendar=calendar
        ),
        rejected=tuple(
            Rejected(row=int(row) + 1, reason=str(reasons[row]), values=(float(times_ms[row]), *values[row].tolist()))
            for row in rejected
        ),
        n_duplicates=int((repeated & ~differs).sum()),
    )


def _reasons(
    times_ms: FloatArray, values: FloatArray, timeframe: Timeframe, now_ms: int, calendar: TradingCalendar
) -> NDArray[np.object_]:
    """Return per row the first rule that it breaks taken by itself, '' for none."""
    open_, high, low, close, volume = values.T
    with np.errstate(invalid="ignore"):
        rules = {
            "without an open time": ~(np.isfinite(times_ms) & (times_ms > 0)),
            f"with an open time off the {timeframe} grid": times_ms % calendar.grid_ms(timeframe) != 0,
            "in the future": times_ms > now_ms,
            NOT_CLOSED: times_ms + timeframe.milliseconds > now_ms,
            "with a value that is missing or not a number": np.isnan(values).any(axis=1),
            "with an infinite value": np.isinf(values).any(axis=1),
            "with a price not above 0": (values[:, :4] <= 0).any(axis=1),
            "with the high below open, low or close": high < np.maximum(np.maximum(open_, close), low),
            "with the low above open or close": low > np.minimum(open_, close),
            "with a negative volume": volume < 0,
        }
        return np.select(list(rules.values()), list(rules), default="").astype(object)


def _out_of_order(positions: IntArray) -> BoolArray:
    """Mark the fewest elements whose removal leaves increasing numbers (decreasing ones, if most steps go down).

    ``positions`` are the places in the file of rows sorted by time. The rows that stay are a longest increasing
    subsequence, found by patience sorting: Fredman (1975), Discrete Mathematics 11(1).
    """
    steps = np.diff(positions)
    places = -positions if (steps < 0).sum() * 2 > len(steps) else positions
    misplaced = np.zeros(len(places), dtype=np.bool_)
    if (np.diff(places) > 0).all():
        return misplaced
    ends: list[int] = []  # the smallest place that ends an increasing run of length 1, 2, …
    end_of: list[int] = []  # and whose it is
    before: list[int] = []
    for index, place in enumerate(places.tolist()):
        length = bisect_left(ends, place)
        before.append(end_of[length - 1] if length else -1)
        ends[length : length + 1] = [place]
        end_of[length : length + 1] = [index]
    misplaced[:] = True
    index = end_of[-1]
    while index >= 0:
        misplaced[index] = False
        index = before[index]
    return misplaced
