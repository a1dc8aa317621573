"""When a market is open: which candles are expected, so that a closed market is no gap."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np

from tradepulse_pipeline.errors import one_of
from tradepulse_pipeline.market.series import MS_PER_DAY, MS_PER_MINUTE, Timeframe

if TYPE_CHECKING:
    from tradepulse_pipeline.market.candles import IntArray

#: Stock exchanges go by their market identifier code (ISO 10383) in lower case: ``xnys``, ``xnas``, ``xlon``.
_VENUE: Final = re.compile(r"x[a-z0-9]{3}")

#: Sessions open on the half hour at the latest: that is the grid of intraday candles of 1h and longer.
_SESSION_GRID_MS: Final = 30 * MS_PER_MINUTE

_FIRST_DAY: Final = "1970-01-02"


class _Sessions(NamedTuple):
    """The trading days of a venue in ms at 00:00 UTC, and the stretches of trading, two for a day with a break."""

    days: IntArray
    opens: IntArray
    starts: IntArray
    ends: IntArray


@dataclass(frozen=True, slots=True)
class TradingCalendar:
    """The hours of a market: ``venue`` as :mod:`exchange_calendars` knows it, '' for one that never closes.

    A daily candle of a venue with sessions opens at 00:00 UTC of its trading day. An intraday candle opens when it
    does: the first one with the session or after its break, the others one timeframe after the one before; the last
    one may be cut short by the close.
    """

    venue: str = ""

    @property
    def never_closes(self) -> bool:
        """Whether a candle is expected for every timeframe of every day."""
        return not self.venue

    def grid_ms(self, timeframe: Timeframe) -> int:
        """Return what open times are multiples of."""
        step = timeframe.milliseconds
        return step if self.never_closes or step >= MS_PER_DAY else min(step, _SESSION_GRID_MS)

    def expected(self, timeframe: Timeframe, start_ms: int, end_ms: int) -> IntArray:
        """Return the open times of the candles that there should be in ``[start_ms, end_ms)``, ascending.

        Raises
        ------
        InvalidInputError
            If the venue is unknown.
        """
        step = timeframe.milliseconds
        if self.never_closes:
            return np.arange(-(-start_ms // step) * step, end_ms, step, dtype=np.int64)
        times = _expected(self.venue, timeframe)
        first, last = np.searchsorted(times, (start_ms, end_ms))
        found: IntArray = times[first:last]
        return found

    def missing_between(self, open_time_ms: IntArray, timeframe: Timeframe) -> IntArray:
        """Return how many candles are missing between neighbours, shape (n_candles - 1,)."""
        if self.never_closes:
            return np.diff(open_time_ms) // timeframe.milliseconds - 1
        times = _expected(self.venue, timeframe)
        before = np.searchsorted(times, open_time_ms[:-1], side="right")
        n_between: IntArray = np.maximum(np.searchsorted(times, open_time_ms[1:]) - before, 0)
        return n_between

    def shifted(self, open_time_ms: IntArray, n_candles: IntArray, timeframe: Timeframe) -> IntArray:
        """Return, for each open time, that of the candle ``n_candles`` (at least 0) after it."""
        if self.never_closes:
            return open_time_ms + n_candles * timeframe.milliseconds
        times = _expected(self.venue, timeframe)
        at = np.searchsorted(times, open_time_ms, side="right") - 1 + n_candles
        moved: IntArray = np.where(n_candles == 0, open_time_ms, times[np.minimum(at, len(times) - 1)])
        return moved

    def trading_days(self, open_time_ms: IntArray, timeframe: Timeframe) -> IntArray:
        """Return the trading days that candles belong to, in ms at 00:00 UTC: in Sydney it is the next UTC day's."""
        if self.never_closes or timeframe.milliseconds >= MS_PER_DAY:
            return open_time_ms // MS_PER_DAY * MS_PER_DAY
        sessions = _sessions(self.venue)
        days: IntArray = sessions.days[np.maximum(np.searchsorted(sessions.opens, open_time_ms, side="right") - 1, 0)]
        return days


#: The calendar of every market that has no sessions.
NEVER_CLOSES: Final = TradingCalendar()


def calendar_of(exchange: str) -> TradingCalendar:
    """Return the calendar of an exchange: that of a stock exchange by its code, any other never closes.

    Examples
    --------
    >>> calendar_of("xnas"), calendar_of("binance").never_closes
    (TradingCalendar(venue='xnas'), True)
    """
    return TradingCalendar(exchange) if _VENUE.fullmatch(exchange) else NEVER_CLOSES


@lru_cache(maxsize=1)
def session_venues() -> tuple[str, ...]:
    """Return the stock exchanges whose calendar is known, by their codes."""
    import exchange_calendars

    return tuple(name.lower() for name in exchange_calendars.get_calendar_names() if _VENUE.fullmatch(name.lower()))


@lru_cache(maxsize=16)
def _expected(venue: str, timeframe: Timeframe) -> IntArray:
    """Return all expected open times of a venue."""
    sessions, step = _sessions(venue), timeframe.milliseconds
    if step >= MS_PER_DAY:
        return sessions.days
    n_candles = -(-(sessions.ends - sessions.starts) // step)
    first = np.cumsum(n_candles) - n_candles
    within = np.arange(n_candles.sum()) - np.repeat(first, n_candles)
    return np.asarray(np.repeat(sessions.starts, n_candles) + within * step, dtype=np.int64)


@lru_cache(maxsize=16)
def _sessions(venue: str) -> _Sessions:
    """Return the sessions of a venue from 1970, or from where its calendar begins, to about a year from now."""
    import exchange_calendars
    import pandas as pd

    if venue not in session_venues():
        raise one_of("stock exchange", venue, session_venues())
    begins = exchange_calendars.get_calendar(venue.upper()).bound_min()
    start = max(pd.Timestamp(_FIRST_DAY), begins or pd.Timestamp(_FIRST_DAY))
    schedule = exchange_calendars.get_calendar(venue.upper(), start=start).schedule

    def milliseconds(column: pd.Series) -> IntArray:
        times: IntArray = column.dropna().to_numpy("datetime64[ms]").astype(np.int64)
        return times

    opens = milliseconds(schedule["open"])
    return _Sessions(
        days=milliseconds(schedule.index.to_series()),
        opens=opens,
        starts=np.sort(np.concatenate((opens, milliseconds(schedule["break_end"])))),
        ends=np.sort(np.concatenate((milliseconds(schedule["close"]), milliseconds(schedule["break_start"])))),
    )
