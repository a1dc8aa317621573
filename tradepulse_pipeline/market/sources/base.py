"""What every source of candles is."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, Protocol, runtime_checkable

import numpy as np

from tradepulse_pipeline.market.candles import Candles
from tradepulse_pipeline.market.corporate_actions import CorporateAction
from tradepulse_pipeline.market.series import SeriesKey, Timeframe
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


def empty_page(timeframe: Timeframe, warning: str) -> Page:
    """Return a page without candles that says why there are none."""
    return Page(candles=Candles.from_arrays(timeframe, np.empty(0, np.int64), *np.empty((5, 0))), warning=warning)


VolumeUnit = Literal["base currency", "shares"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Offer:
    """What a source can give, and what it cannot.

    ``history`` is a sentence about how far back its candles reach, ``limits`` one about what it does not give, empty
    if nothing is missing. ``key_variable`` names the environment variable that holds its key; None: none is needed.
    """

    timeframes: tuple[str, ...]
    history: str
    volume_unit: VolumeUnit = "base currency"
    limits: str = ""
    key_variable: str | None = None


class CandleSource(Protocol):
    """A place that candles come from: an exchange, its archive, files, a data vendor or the simulated market."""

    @property
    def name(self) -> str:
        """What users call it, and what each of its candles is marked with: ``binance``, ``kraken.trades``."""
        ...

    def offer(self) -> Offer:
        """Return what it can give; nothing is connected."""
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


@runtime_checkable
class CorporateActionSource(Protocol):
    """A source that also knows the splits and dividends of its shares."""

    @property
    def name(self) -> str:
        """As of :class:`CandleSource`."""
        ...

    def actions(self, series: SeriesKey) -> tuple[CorporateAction, ...]:
        """Return all splits and dividends of a share, in the order of their dates, dividends as they were paid.

        Raises
        ------
        InvalidInputError, SourceError
            As for :meth:`CandleSource.check`.
        """
        ...
