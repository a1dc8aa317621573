"""Which sources the candles of a market come from, in which order, and what each is called."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from tradepulse_pipeline.errors import one_of
from tradepulse_pipeline.market.calendars import calendar_of, session_venues
from tradepulse_pipeline.market.series import SIMULATED_EXCHANGE, Market
from tradepulse_pipeline.market.sources.alpha_vantage import AlphaVantageSource
from tradepulse_pipeline.market.sources.archives import ARCHIVES, ArchiveSource
from tradepulse_pipeline.market.sources.base import CandleSource
from tradepulse_pipeline.market.sources.exchange import ExchangeSource
from tradepulse_pipeline.market.sources.folder import FolderSource
from tradepulse_pipeline.market.sources.http import Patience
from tradepulse_pipeline.market.sources.pace import Pace, local_pace
from tradepulse_pipeline.market.sources.polygon import PolygonSource
from tradepulse_pipeline.market.sources.simulated import SimulatedMarketSettings, SimulatedSource
from tradepulse_pipeline.market.sources.trades import TRADE_PAGES, TradesSource
from tradepulse_pipeline.market.sources.vendors import KeyedSource
from tradepulse_pipeline.market.sources.yahoo import YahooSource

YAHOO: Final = "yahoo"
#: Data vendors that want a key.
KEYED: Final[Mapping[str, type[KeyedSource]]] = {
    "alpha_vantage": AlphaVantageSource,
    "polygon": PolygonSource,
}

#: What a folder of candle files is called: ``folder:PATH``.
FOLDER: Final = "folder:"

#: What a person is shown who asks what there is.
SHOWN: Final = (
    *("binance", "kraken", "coinbase", "bybit", "delta", "okx"),
    *(f"{name}.trades" for name in TRADE_PAGES),
    *(f"{name}.archive" for name in ARCHIVES),
    *(YAHOO, *KEYED, SIMULATED_EXCHANGE),
)

#: What follows an exchange's name in those of its further sources.
ARCHIVE: Final = ".archive"
TRADES: Final = ".trades"


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceSettings:
    """How the sources of candles behave, and in which order they are asked.

    ``base_url`` (scheme and host) takes the place of all addresses, if given. ``order`` holds names of sources by
    exchange (``kraken``) or market (``kraken:BTC-USD``); what is not in it has its default: the exchange itself, Yahoo
    for shares. ``pace`` gives the turns of a venue, by default those of this process.
    """

    simulated: SimulatedMarketSettings = field(default_factory=SimulatedMarketSettings)
    base_url: str | None = None
    patience: Patience = field(default_factory=Patience)
    order: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    pace: Callable[[str], Pace] = local_pace


def exchange_names() -> tuple[str, ...]:
    """Return every exchange that never closes: the simulated one first, then ccxt's."""
    import ccxt

    return (SIMULATED_EXCHANGE, *ccxt.exchanges)


def check_exchange(exchange: str) -> None:
    """Refuse a name that no exchange has.

    Raises
    ------
    InvalidInputError
        The message gives the nearest names.
    """
    import ccxt

    if calendar_of(exchange).never_closes or exchange in ccxt.exchanges:
        if exchange not in exchange_names():
            raise one_of("exchange", exchange, exchange_names())
    elif exchange not in session_venues():
        raise one_of("stock exchange", exchange, session_venues())


def source_names(market: Market, settings: SourceSettings) -> tuple[str, ...]:
    """Return what the sources of a market are called, in the order in which they are asked."""
    if market.is_simulated:
        return (SIMULATED_EXCHANGE,)
    default = market.exchange if calendar_of(market.exchange).never_closes else YAHOO
    return settings.order.get(str(market), settings.order.get(market.exchange, (default,)))


def sources_for(market: Market, settings: SourceSettings | None = None) -> list[CandleSource]:
    """Return the sources of a market's candles in the order in which they are asked; nothing is connected yet.

    Raises
    ------
    InvalidInputError
        If there is no such exchange or source, or one that gives no candles of the market; the message gives the
        nearest names.
    """
    settings = settings or SourceSettings()
    check_exchange(market.exchange)
    return [source_named(name, settings) for name in source_names(market, settings)]


def source_named(name: str, settings: SourceSettings | None = None) -> CandleSource:
    """Return the source that a name stands for; ``docs/sources.md`` lists the names.

    Raises
    ------
    InvalidInputError
        If there is no such source; the message gives the nearest names.
    """
    import ccxt

    settings = settings or SourceSettings()
    if name.startswith(FOLDER):
        return FolderSource(Path(name.removeprefix(FOLDER)).expanduser())
    if name == SIMULATED_EXCHANGE:
        return SimulatedSource(settings.simulated)
    if name == YAHOO:
        return YahooSource(patience=settings.patience)
    if name in KEYED:
        return KEYED[name](base_url=settings.base_url, patience=settings.patience)
    if name.endswith(ARCHIVE):
        return ArchiveSource(name.removesuffix(ARCHIVE), base_url=settings.base_url, patience=settings.patience)
    exchange = name.removesuffix(TRADES)
    if exchange not in (TRADE_PAGES if name.endswith(TRADES) else ccxt.exchanges):
        built = (*(f"{one}{TRADES}" for one in TRADE_PAGES), *(f"{one}{ARCHIVE}" for one in ARCHIVES))
        raise one_of("source", name, (*built, YAHOO, *KEYED, *ccxt.exchanges))
    source = ExchangeSource(
        exchange, base_url=settings.base_url, patience=settings.patience, pace=settings.pace(exchange)
    )
    return TradesSource(source) if name.endswith(TRADES) else source
