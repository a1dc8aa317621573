"""The candle type: a struct of arrays that is valid by construction, and the filling of short gaps."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, Self

import numpy as np
from numpy.typing import NDArray

from tradepulse_pipeline.errors import CandleError
from tradepulse_pipeline.market.calendars import NEVER_CLOSES, TradingCalendar
from tradepulse_pipeline.market.series import Timeframe

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]
BoolArray = NDArray[np.bool_]

#: Bars, days and rows as small integers, to keep tables of them in the cache.
IndexArray = NDArray[np.int32]

_Rows = slice | IntArray

#: Gaps of up to this many candles are filled forward wherever candles are read for a backtest or a training.
MAX_FILL: Final = 3

PRICE_COLUMNS: Final = ("open", "high", "low", "close", "volume")


@dataclass(frozen=True, slots=True, eq=False)
class Candles:
    """Closed candles of one series in time order, as contiguous arrays of shape (n_candles,).

    ``open_time_ms`` holds open times in UTC milliseconds, strictly increasing and on the timeframe's grid; prices are
    in quote currency, volume in base currency; ``is_filled`` marks candles that were filled forward. ``calendar`` tells
    which candles are to be expected: between two neighbours that leave out none of them there is no gap.

    Raises
    ------
    CandleError
        If a row breaks the contract: the message gives the rule, the number of rows and the first of them.
    """

    timeframe: Timeframe
    open_time_ms: IntArray
    open: FloatArray
    high: FloatArray
    low: FloatArray
    close: FloatArray
    volume: FloatArray
    is_filled: BoolArray
    calendar: TradingCalendar = NEVER_CLOSES

    def __post_init__(self) -> None:
        n = len(self.open_time_ms)
        for name in (*PRICE_COLUMNS, "is_filled"):
            if getattr(self, name).shape != (n,):
                raise CandleError(f"Column {name!r} has shape {getattr(self, name).shape}, expected ({n},).")
        for rule, broken in broken_rules(self).items():
            if len(broken):
                rows = ", ".join(str(row) for row in broken[:5])
                raise CandleError(f"{rule}: {len(broken)} of {n} rows, first at row {rows}.")

    @classmethod
    def from_arrays(
        cls,
        timeframe: Timeframe,
        open_time_ms: IntArray,
        open_: FloatArray,
        high: FloatArray,
        low: FloatArray,
        close: FloatArray,
        volume: FloatArray,
        is_filled: BoolArray | None = None,
        calendar: TradingCalendar = NEVER_CLOSES,
    ) -> Self:
        """Build candles from arrays of any layout; dtype and contiguity are fixed here, once."""

        def column(values: FloatArray) -> FloatArray:
            return np.ascontiguousarray(values, dtype=np.float64)

        times = np.ascontiguousarray(open_time_ms, dtype=np.int64)
        filled = np.zeros(len(times), dtype=np.bool_) if is_filled is None else is_filled
        return cls(
            timeframe,
            times,
            column(open_),
            column(high),
            column(low),
            column(close),
            column(volume),
            np.ascontiguousarray(filled, dtype=np.bool_),
            calendar,
        )

    @classmethod
    def joined(cls, timeframe: Timeframe, parts: Sequence[Candles]) -> Self:
        """Return the candles of all parts in time order; of several that open at one time the first part's holds."""

        def column(name: str, kind: type[np.generic]) -> NDArray[Any]:
            return np.concatenate([np.empty(0, dtype=kind), *(getattr(part, name) for part in parts)])

        times, first = np.unique(column("open_time_ms", np.int64), return_index=True)
        open_, high, low, close, volume = (column(name, np.float64)[first] for name in PRICE_COLUMNS)
        filled = column("is_filled", np.bool_)[first]
        calendar = parts[0].calendar if parts else NEVER_CLOSES
        return cls.from_arrays(timeframe, times, open_, high, low, close, volume, filled, calendar)

    def __len__(self) -> int:
        return len(self.open_time_ms)

    @property
    def end_ms(self) -> int:
        """Close time of the last candle in UTC milliseconds, exclusive."""
        return int(self.open_time_ms[-1]) + self.timeframe.milliseconds

    def slice(self, start: int, stop: int) -> Self:
        """Return the candles of the half-open range of bars ``[start, stop)``."""
        return self._taken(slice(start, stop))

    def between(self, start_ms: int | None, end_ms: int | None) -> Self:
        """Return the candles whose open time lies in ``[start_ms, end_ms)``; ``None`` leaves that side open."""
        first = 0 if start_ms is None else int(np.searchsorted(self.open_time_ms, start_ms))
        last = len(self) if end_ms is None else int(np.searchsorted(self.open_time_ms, end_ms))
        return self.slice(first, max(first, last))

    def at(self, open_time_ms: IntArray) -> Self:
        """Return the candles that open at these times, as far as they are there."""
        return self._taken(np.flatnonzero(np.isin(self.open_time_ms, open_time_ms)))

    def traded(self) -> Self:
        """Return the candles without those that were filled forward."""
        return self._taken(np.flatnonzero(~self.is_filled)) if self.is_filled.any() else self

    def _taken(self, index: _Rows) -> Self:
        return type(self)(
            self.timeframe,
            self.open_time_ms[index],
            self.open[index],
            self.high[index],
            self.low[index],
            self.close[index],
            self.volume[index],
            self.is_filled[index],
            self.calendar,
        )

    def fingerprint(self) -> str:
        """Return the SHA-256 of timeframe, calendar and all columns: equal candles, equal fingerprint, to the bit."""
        digest = hashlib.sha256(f"{self.timeframe}{self.calendar.venue}".encode())
        for name in ("open_time_ms", *PRICE_COLUMNS, "is_filled"):
            digest.update(getattr(self, name).tobytes())
        return digest.hexdigest()

    def filled_forward(self, max_fill: int = MAX_FILL) -> Self:
        """Return the candles with gaps of up to ``max_fill`` candles filled; longer gaps stay gaps.

        Only candles that the calendar expects are filled in. A filled candle has open = high = low = close = the
        previous close, volume 0 and ``is_filled``. Filling twice changes nothing.
        """
        missing = self.calendar.missing_between(self.open_time_ms, self.timeframe)
        n_fill = np.where(missing <= max_fill, missing, 0)
        if len(self) == 0 or not n_fill.any():
            return self
        repeats = np.append(n_fill, 0) + 1
        origin = np.repeat(np.arange(len(self)), repeats)
        starts = np.cumsum(repeats) - repeats
        offset = np.arange(len(origin)) - starts[origin]
        made = offset > 0

        def price(values: FloatArray) -> FloatArray:
            return np.where(made, self.close[origin], values[origin])

        return type(self)(
            self.timeframe,
            self.calendar.shifted(self.open_time_ms[origin], offset, self.timeframe),
            price(self.open),
            price(self.high),
            price(self.low),
            self.close[origin],
            np.where(made, 0.0, self.volume[origin]),
            made | self.is_filled[origin],
            self.calendar,
        )


def broken_rules(candles: Candles) -> dict[str, IntArray]:
    """Return, for each rule of the data contract, the indices of the rows that break it."""
    prices = (candles.open, candles.high, candles.low, candles.close)
    grid_ms = candles.calendar.grid_ms(candles.timeframe)
    finite = np.logical_and.reduce([np.isfinite(column) for column in (*prices, candles.volume)])
    with np.errstate(invalid="ignore"):
        rules = {
            "Not finite": ~finite,
            "Price not above 0": finite & (candles.low <= 0),
            "High below open or close": finite & (candles.high < np.maximum(candles.open, candles.close)),
            "Low above open or close": finite & (candles.low > np.minimum(candles.open, candles.close)),
            "Negative volume": finite & (candles.volume < 0),
            "Open time off the timeframe's grid": candles.open_time_ms % grid_ms != 0,
            "Open time not after the one before": np.append(False, np.diff(candles.open_time_ms) <= 0),
        }
    return {rule: np.flatnonzero(broken) for rule, broken in rules.items()}
