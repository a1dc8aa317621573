"""What every source of candles offers."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

from tradepulse_pipeline.market.candles import Candles
from tradepulse_pipeline.market.series import SeriesKey
from tradepulse_pipeline.market.sources.rows import Rejected


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """One stretch of closed candles as a source gave it, to be stored before the next one is asked for.

    The candles of successive pages are in time order and never overlap. ``warning`` is a sentence for the user, such
    as that the history asked for begins later; empty if there is nothing to say.
    """

    candles: Candles
    rejected: tuple[Rejected, ...] = ()
    n_duplicates: int = 0
    warning: str = ""


class CandleSource(Protocol):
    """A place that candles come from: an exchange or the simulated market."""

    @property
    def name(self) -> str:
        """The exchange, as in a series' key."""
        ...

    def check(self, series: SeriesKey) -> None:
        """Find out, within some ten seconds, whether the source can be reached and has the series.

        Raises
        ------
        InvalidInputError
            If the pair or the timeframe is unknown there; the message gives the nearest names.
        SourceUnreachableError
            If there is no connection.
        SourceError
            If the source answers, but refuses or fails.
        """
        ...

    def pages(self, series: SeriesKey, start_ms: int, end_ms: int) -> Iterator[Page]:
        """Yield the closed candles with an open time in ``[start_ms, end_ms)``, page by page as they come.

        Raises
        ------
        InvalidInputError, SourceError
            As for :meth:`check`; the pages yielded before hold.
        """
        ...
