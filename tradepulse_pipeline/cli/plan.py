"""Which series a command is about: the product of exchanges, pairs and timeframes that the settings name."""

from __future__ import annotations

import time
from itertools import product
from typing import TYPE_CHECKING

from tradepulse_pipeline.errors import InvalidInputError, SourceError, SourceUnreachableError
from tradepulse_pipeline.market.series import MS_PER_DAY, SIMULATED_EXCHANGE, SeriesKey
from tradepulse_pipeline.settings import Settings

if TYPE_CHECKING:
    from tradepulse_pipeline.database.connection import Database
    from tradepulse_pipeline.market.candles import Candles
    from tradepulse_pipeline.market.sources.base import CandleSource


class Sources:
    """The sources of a command: each is made once, and one that cannot be reached is not asked again."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings.sources()
        self._sources: dict[str, CandleSource] = {}
        self._unreachable: dict[str, SourceUnreachableError] = {}

    def check(self, series: SeriesKey) -> None:
        """See :meth:`CandleSource.check`: one source of the series that can be asked is enough."""
        from tradepulse_pipeline.market.sources.registry import source_names

        failures = []
        for name in source_names(series.market, self._settings):
            try:
                self._check(name, series)
            except (SourceError, InvalidInputError) as error:
                failures.append(error)
            else:
                return
        raise failures[0]

    def _check(self, name: str, series: SeriesKey) -> None:
        from tradepulse_pipeline.market.sources.registry import source_named

        if name in self._unreachable:
            raise self._unreachable[name]
        if name not in self._sources:
            self._sources[name] = source_named(name, self._settings)
        try:
            self._sources[name].check(series)
        except SourceUnreachableError as error:
            self._unreachable[name] = error
            raise


def planned_series(settings: Settings) -> list[SeriesKey]:
    """Return the series that the settings ask for, every name checked as far as that goes without a network.

    Raises
    ------
    InvalidInputError
        If an exchange or timeframe is unknown or a pair is not spelled as one.
    """
    from tradepulse_pipeline.market.sources.registry import check_exchange

    exchanges = (SIMULATED_EXCHANGE,) if settings.source == SIMULATED_EXCHANGE else settings.exchanges
    for exchange in exchanges:
        check_exchange(exchange)
    return [SeriesKey.of(*names) for names in product(exchanges, settings.pairs, settings.timeframes)]


def simulated_twin(series: SeriesKey) -> SeriesKey:
    """Return the series of the simulated market with the same pair and timeframe."""
    return SeriesKey.of(SIMULATED_EXCHANGE, series.pair, series.timeframe.name)


def candles_at_hand(settings: Settings, database: Database, series: SeriesKey) -> tuple[SeriesKey, Candles]:
    """Return the stored candles of a series; without any, its simulated twin and the candles of that."""
    from tradepulse_pipeline.database.corporate_actions import candles_for_training

    stored = settings.history().select(candles_for_training(database, series))
    return (series, stored) if len(stored) else simulated_candles(settings, series)


def simulated_candles(settings: Settings, series: SeriesKey) -> tuple[SeriesKey, Candles]:
    """Return the simulated twin of a series and its candles, up to the last midnight."""
    from tradepulse_pipeline.market.sources.simulated import simulate

    twin = simulated_twin(series)
    end_ms = time.time_ns() // 1_000_000 // MS_PER_DAY * MS_PER_DAY
    start_ms = end_ms - settings.history_days * MS_PER_DAY
    return twin, simulate(twin.market, twin.timeframe, start_ms, end_ms, settings.simulated())
