"""Candles with the causal columns that strategies read, and the mirror in which the short side sees them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Self

import numpy as np

from tradepulse_pipeline.errors import InvalidInputError, StrategyError, blamed_on
from tradepulse_pipeline.market.calendars import NEVER_CLOSES, TradingCalendar
from tradepulse_pipeline.market.candles import BoolArray, Candles, FloatArray, IntArray
from tradepulse_pipeline.market.series import Timeframe


def _same(column: FloatArray) -> FloatArray:
    return column


@dataclass(frozen=True, slots=True)
class Indicator:
    """A named causal column: its value at bar i reads bars <= i only, and is NaN while undefined.

    ``mirror`` turns the column into what the mirrored market would show (RSI becomes 100 - RSI; ATR stays).
    """

    name: str
    description: str
    compute: Callable[[Candles], FloatArray]
    mirror: Callable[[FloatArray], FloatArray] = _same

    def column(self, candles: Candles) -> FloatArray:
        """Return the column over ``candles``, shape (n_candles,).

        Raises
        ------
        StrategyError
            If it cannot be computed, or what comes back is no such column.
        """
        with blamed_on(f"Indicator {self.name!r}"):
            column = self.compute(candles)
        if isinstance(column, np.ndarray) and column.dtype == np.float64 and column.shape == (len(candles),):
            return column
        found = f"{column.dtype} of shape {column.shape}" if isinstance(column, np.ndarray) else type(column).__name__
        raise StrategyError(
            f"Indicator {self.name!r}: its function returned {found}, expected a NumPy array, float64 of shape "
            f"({len(candles)},): one value per candle, NaN where it is undefined."
        )


@dataclass(frozen=True, slots=True, eq=False)
class IndicatorFrame:
    """What a strategy sees: the candles of one series (short gaps filled) and indicator columns of the same length.

    ``sign`` is +1 as the market is, and -1 in the mirror: there every price is negated and high and low are swapped,
    so that code written for the long side finds the mirror image of its patterns on the short side. Two things keep
    such code exact: relative moves are ``sign * (a / b - 1)`` and levels scaled by a fraction f are
    ``level * (1 - sign * f)``.

    ``is_adjacent`` tells of each bar whether it directly follows the one before: the market's calendar expects no
    candle between them. It is False for the first bar.
    """

    timeframe: Timeframe
    open_time_ms: IntArray
    open: FloatArray
    high: FloatArray
    low: FloatArray
    close: FloatArray
    volume: FloatArray
    is_filled: BoolArray
    is_adjacent: BoolArray
    indicators: tuple[Indicator, ...]
    columns: Mapping[str, FloatArray]
    sign: int = 1
    calendar: TradingCalendar = NEVER_CLOSES

    @classmethod
    def compute(cls, candles: Candles, indicators: Iterable[Indicator]) -> Self:
        """Compute ``indicators`` over ``candles``."""
        wanted = tuple(indicators)
        return cls.of(candles, wanted, {indicator.name: indicator.column(candles) for indicator in wanted})

    @classmethod
    def of(cls, candles: Candles, indicators: Iterable[Indicator], columns: Mapping[str, FloatArray]) -> Self:
        """Join ``candles`` and indicator columns that were computed before.

        Raises
        ------
        InvalidInputError
            If a column is missing or not of the candles' length.
        """
        wanted = tuple(indicators)
        for indicator in wanted:
            length = len(columns[indicator.name]) if indicator.name in columns else None
            if length != len(candles):
                found = "no such column" if length is None else f"{length} values"
                raise InvalidInputError(
                    f"Indicator {indicator.name!r}: expected {len(candles)} values, one per candle, found {found}. "
                    "Materialize the indicators again."
                )
        return cls(
            candles.timeframe,
            candles.open_time_ms,
            candles.open,
            candles.high,
            candles.low,
            candles.close,
            candles.volume,
            candles.is_filled,
            np.append(False, candles.calendar.missing_between(candles.open_time_ms, candles.timeframe) == 0),
            wanted,
            {indicator.name: columns[indicator.name] for indicator in wanted},
            calendar=candles.calendar,
        )

    def __len__(self) -> int:
        return len(self.open_time_ms)

    def __getitem__(self, name: str) -> FloatArray:
        return self.columns[name]

    def mirrored(self) -> Self:
        """Return the frame in a mirror of prices."""
        return type(self)(
            self.timeframe,
            self.open_time_ms,
            -self.open,
            -self.low,
            -self.high,
            -self.close,
            self.volume,
            self.is_filled,
            self.is_adjacent,
            self.indicators,
            {indicator.name: indicator.mirror(self.columns[indicator.name]) for indicator in self.indicators},
            -self.sign,
            self.calendar,
        )
