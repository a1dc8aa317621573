"""What a live feed and a replayed recording tell, one event at a time."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from operator import attrgetter
from typing import Final, Literal, NamedTuple

import numpy as np

from tradepulse_pipeline.errors import InvalidInputError, one_of
from tradepulse_pipeline.market.series import Market, SeriesKey
from tradepulse_pipeline.market.trades import Trades

Channel = Literal["candles", "trades", "depth"]
CHANNELS: Final[tuple[Channel, ...]] = ("candles", "trades", "depth")


class Trade(NamedTuple):
    """A single trade; see :class:`Trades` for what its fields mean."""

    trade_id: int
    time_ms: int
    price: float
    amount: float
    side: int

    @property
    def is_traded(self) -> bool:
        """Whether something changed hands: exchanges number liquidations without price or amount like trades."""
        return self.price > 0 and self.amount > 0


class Level(NamedTuple):
    """The amount that rests at a price, base currency; 0 where none rests any more."""

    price: float
    amount: float


@dataclass(frozen=True, slots=True, kw_only=True)
class TradesMade:
    """Trades of one message. ``received_ms`` is our clock's time of it, None where it is not known."""

    market: Market
    trades: tuple[Trade, ...]
    received_ms: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class DepthChanged:
    """Levels of the order book that changed, or the whole book where ``is_snapshot``.

    ``first_id`` to ``last_id`` are the exchange's numbers of the changes (None: it numbers none), ``previous_id`` the
    last number of the message before, where the exchange says so. ``checksum`` is that of the ten best levels of each
    side after the change, written with ``decimals`` of price and amount; the book is cut to ``depth`` levels a side
    (0: it is not).
    """

    market: Market
    time_ms: int
    bids: tuple[Level, ...]
    asks: tuple[Level, ...]
    is_snapshot: bool = False
    first_id: int | None = None
    last_id: int | None = None
    previous_id: int | None = None
    checksum: int | None = None
    decimals: tuple[int, int] = (0, 0)
    depth: int = 0
    received_ms: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class CandleClosed:
    """A candle that will not change any more: open time, open, high, low, close and volume."""

    series: SeriesKey
    row: tuple[int, float, float, float, float, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Interrupted:
    """The feed of a channel broke off and is taken up again; what was said in between is missed."""

    market: Market
    channel: Channel
    reason: str


Event = TradesMade | DepthChanged | CandleClosed | Interrupted


def channel_of(event: Event) -> Channel:
    """Return the channel that an event belongs to."""
    match event:
        case TradesMade():
            return "trades"
        case DepthChanged():
            return "depth"
        case CandleClosed():
            return "candles"
        case Interrupted():
            return event.channel


def parse_channels(names: Iterable[str]) -> tuple[Channel, ...]:
    """Return the channels of these names, each once.

    Raises
    ------
    InvalidInputError
        If a name is none of ``CHANNELS``, or there is none.
    """
    wanted = set(names)
    for name in sorted(wanted - set(CHANNELS)):
        raise one_of("channel", name, CHANNELS)
    if not wanted:
        raise InvalidInputError(f"No channel is named: expected one or several of {', '.join(CHANNELS)}.")
    return tuple(channel for channel in CHANNELS if channel in wanted)


def as_trades(trades: Iterable[Trade]) -> Trades:
    """Return single trades as arrays, in the order of the exchange's time and number."""
    rows = sorted(trades, key=attrgetter("time_ms", "trade_id"))
    columns = tuple(zip(*rows, strict=True)) or ((),) * len(Trade._fields)
    kinds = (np.int64, np.int64, np.float64, np.float64, np.int8)
    return Trades(*(np.array(values, dtype=kind) for values, kind in zip(columns, kinds, strict=True)))
