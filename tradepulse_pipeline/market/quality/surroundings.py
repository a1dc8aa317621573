"""What else is known when candles are judged: their neighbours, the time, and what people and ingestion have said."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final

from tradepulse_pipeline.market.candles import Candles
from tradepulse_pipeline.market.series import Market

#: Candles of other series by name, each loaded when it is asked for.
Neighbours = Mapping[str, Callable[[], Candles]]

#: Quote currencies that follow the US dollar: a market in one of them moves as a market in another.
DOLLAR_LIKE: Final = frozenset({"USD", "USDT", "USDC", "BUSD", "FDUSD", "TUSD", "USDP", "DAI", "USD1", "PYUSD"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """What else is known about a series; whatever is left out is not known, and nothing is claimed from it.

    Attributes
    ----------
    pairs : mapping of str to callable
        Other pairs on the same exchange, in the same timeframe: whether a gap or a move is the exchange's.
    venues : mapping of str to callable
        The same asset on other exchanges, in the same timeframe: whether a price was there, too.
    timeframes : mapping of str to callable
        The same market in other timeframes: whether the last candle is finished.
    now_ms : int, optional
        The time, by the exchange's clock, up to which candles should be there.
    confirmed_ms : frozenset of int
        Open times of candles that a person has looked at and called true.
    set_aside : mapping of str to int
        How many rows of this series are in quarantine, by reason.
    sentences : tuple of str
        What ingestion had to say, such as where sources disagree.
    """

    pairs: Neighbours = field(default_factory=dict)
    venues: Neighbours = field(default_factory=dict)
    timeframes: Neighbours = field(default_factory=dict)
    now_ms: int | None = None
    confirmed_ms: frozenset[int] = frozenset()
    set_aside: Mapping[str, int] = field(default_factory=dict)
    sentences: tuple[str, ...] = ()


def is_same_asset(one: Market, other: Market) -> bool:
    """Return whether two markets trade the same asset for the same or a dollar-like currency.

    Examples
    --------
    >>> btc = Market("binance", "BTC", "USDT")
    >>> is_same_asset(btc, Market("kraken", "BTC", "USD")), is_same_asset(btc, Market("kraken", "BTC", "EUR"))
    (True, False)
    """
    return one.base == other.base and (one.quote == other.quote or {one.quote, other.quote} <= DOLLAR_LIKE)
