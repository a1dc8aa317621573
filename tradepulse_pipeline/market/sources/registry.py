"""Which source answers to which exchange's name."""

from __future__ import annotations

from dataclasses import dataclass, field

from tradepulse_pipeline.errors import one_of
from tradepulse_pipeline.market.series import SIMULATED_EXCHANGE
from tradepulse_pipeline.market.sources.base import CandleSource
from tradepulse_pipeline.market.sources.exchange import ExchangeSource, Patience
from tradepulse_pipeline.market.sources.simulated import SimulatedMarketSettings, SimulatedSource


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceSettings:
    """How the sources of candles behave.

    ``base_url`` (scheme and host) takes the place of the exchanges' own addresses, if given.
    """

    simulated: SimulatedMarketSettings = field(default_factory=SimulatedMarketSettings)
    base_url: str | None = None
    patience: Patience = field(default_factory=Patience)


def exchange_names() -> tuple[str, ...]:
    """Return every name that :func:`source_for` knows: the simulated market first, then ccxt's exchanges."""
    import ccxt

    return (SIMULATED_EXCHANGE, *ccxt.exchanges)


def source_for(exchange: str, *, settings: SourceSettings | None = None) -> CandleSource:
    """Return the source of an exchange's candles; nothing is connected yet.

    Raises
    ------
    InvalidInputError
        If no exchange has that name; the message gives the nearest names.
    """
    settings = settings or SourceSettings()
    if exchange == SIMULATED_EXCHANGE:
        return SimulatedSource(settings.simulated)
    names = exchange_names()
    if exchange not in names:
        raise one_of("exchange", exchange, names)
    return ExchangeSource(exchange, base_url=settings.base_url, patience=settings.patience)
