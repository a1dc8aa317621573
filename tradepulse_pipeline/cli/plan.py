"""Which series a command is about: the product of exchanges, pairs and timeframes that the settings name."""

from __future__ import annotations

from itertools import product

from tradepulse_pipeline.market.series import SIMULATED_EXCHANGE, SeriesKey
from tradepulse_pipeline.settings import Settings


def planned_series(settings: Settings) -> list[SeriesKey]:
    """Return the series that the settings ask for, every name checked as far as that goes without a network.

    Raises
    ------
    InvalidInputError
        If an exchange or timeframe is unknown or a pair is not spelled as one.
    """
    from tradepulse_pipeline.market.sources.registry import source_for

    exchanges = (SIMULATED_EXCHANGE,) if settings.source == SIMULATED_EXCHANGE else settings.exchanges
    for exchange in exchanges:
        source_for(exchange)
    return [SeriesKey.of(*names) for names in product(exchanges, settings.pairs, settings.timeframes)]


def simulated_twin(series: SeriesKey) -> SeriesKey:
    """Return the series of the simulated market with the same pair and timeframe."""
    return SeriesKey.of(SIMULATED_EXCHANGE, series.pair, series.timeframe.name)
