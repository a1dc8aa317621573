"""How exchanges say what happens: their messages over WebSocket, decoded into events.

The live feed and the replay of recordings decode with the same code.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any, Final, Protocol

from tradepulse_pipeline.market.live.events import CandleClosed, DepthChanged, Event, Level, Trade, TradesMade
from tradepulse_pipeline.market.series import TIMEFRAMES, Market, SeriesKey, Timeframe
from tradepulse_pipeline.market.trades import NO_ID

Row = tuple[int, float, float, float, float, float]

#: Levels a side that are asked of Kraken.
KRAKEN_DEPTH: Final = 100

_KRAKEN_NAMES: Final = {"XBT": "BTC", "XDG": "DOGE"}


class ClosedByNext:
    """Knows that a candle has closed by the next one having begun, where the exchange does not say so."""

    def __init__(self) -> None:
        self._running: dict[SeriesKey, Row] = {}

    def closed(self, series: SeriesKey, row: Row) -> Iterator[CandleClosed]:
        """Take a candle as it is now, and yield the one before it if that is closed by it."""
        running = self._running.get(series)
        if running is not None and row[0] < running[0]:
            return
        if running is not None and row[0] > running[0]:
            yield CandleClosed(series=series, row=running)
        self._running[series] = row

    def forget(self, market: Market) -> None:
        """Forget a market's running candles: after an interruption they may have ended differently."""
        for series in [series for series in self._running if series.market == market]:
            del self._running[series]


class Dialect(Protocol):
    """The decoder of one exchange's messages about the markets that it was made for; it may remember earlier ones."""

    def decode(self, message: Any, received_ms: float | None) -> Iterator[Event]:
        """Yield what a message, as parsed JSON, says; nothing for what is of no concern."""
        ...


class BinanceDialect:
    """Binance spot and USD-M: streams trade, aggTrade, depth and kline, and snapshots of the order book."""

    def __init__(self, markets: Sequence[Market]) -> None:
        self._markets = {market.base + market.quote: market for market in markets}
        self._only = markets[0] if len(markets) == 1 else None

    def decode(self, message: Any, received_ms: float | None) -> Iterator[Event]:
        """See :class:`Dialect`. A snapshot does not name its market: it is taken where there is only one."""
        data = message.get("data", message) if isinstance(message, dict) else {}
        market = self._markets.get(data["s"]) if "s" in data else self._only
        if market is None:
            return
        match data.get("e"):
            case "trade" | "aggTrade" as kind:
                trade = Trade(
                    data["t" if kind == "trade" else "a"],
                    data["T"],
                    float(data["p"]),
                    float(data["q"]),
                    -1 if data["m"] else 1,
                )
                yield TradesMade(market=market, trades=(trade,), received_ms=received_ms)
            case "depthUpdate":
                yield DepthChanged(
                    market=market,
                    time_ms=data["E"],
                    bids=_levels(data["b"]),
                    asks=_levels(data["a"]),
                    first_id=data["U"],
                    last_id=data["u"],
                    previous_id=data.get("pu"),
                    received_ms=received_ms,
                )
            case "kline" if data["k"]["x"] and data["k"]["i"] in TIMEFRAMES:
                candle = data["k"]
                row = (candle["t"], *(float(candle[name]) for name in "ohlcv"))
                yield CandleClosed(series=SeriesKey(market, Timeframe(candle["i"])), row=row)
            case None if "lastUpdateId" in data:
                yield DepthChanged(
                    market=market,
                    time_ms=data.get("E", int(received_ms or 0)),
                    bids=_levels(data["bids"]),
                    asks=_levels(data["asks"]),
                    is_snapshot=True,
                    first_id=data["lastUpdateId"],
                    last_id=data["lastUpdateId"],
                )


class KrakenDialect:
    """Kraken: channels trade, book and ohlc of version 2, and trade and book of version 1.

    Parameters
    ----------
    decimals : mapping of Market to two ints
        Decimals of price and amount, which version 2 does not show; without them its checksums are not compared.
    candles : ClosedByNext or None
        What remembers the running candles.
    """

    def __init__(
        self,
        markets: Sequence[Market],
        decimals: Mapping[Market, tuple[int, int]] | None = None,
        candles: ClosedByNext | None = None,
    ) -> None:
        self._markets = {(market.base, market.quote): market for market in markets}
        self._decimals = dict(decimals or {})
        self._candles = candles or ClosedByNext()

    def decode(self, message: Any, received_ms: float | None) -> Iterator[Event]:
        """See :class:`Dialect`."""
        if isinstance(message, list) and len(message) >= 4:
            market = self._market(message[-1])
            if market is not None:
                yield from self._version_1(market, str(message[-2]), message[1:-2], received_ms)
        elif isinstance(message, dict) and message.get("channel") in ("trade", "book", "ohlc"):
            for entry in message.get("data", ()):
                market = self._market(entry["symbol"])
                if market is not None:
                    yield from self._version_2(market, message, entry, received_ms)

    def _market(self, name: str) -> Market | None:
        base, _, quote = name.partition("/")
        return self._markets.get((_KRAKEN_NAMES.get(base, base), _KRAKEN_NAMES.get(quote, quote)))

    def _version_1(self, market: Market, channel: str, parts: list[Any], received_ms: float | None) -> Iterator[Event]:
        if channel == "trade":
            trades = tuple(
                Trade(NO_ID, int(float(row[2]) * 1000), float(row[0]), float(row[1]), 1 if row[3] == "b" else -1)
                for row in parts[0]
            )
            yield TradesMade(market=market, trades=trades, received_ms=received_ms)
        elif channel.startswith("book-"):
            sides = {name: rows for part in parts for name, rows in part.items()}
            is_snapshot = "as" in sides
            bids, asks = (sides.get(name + "s" * is_snapshot, []) for name in "ba")
            if is_snapshot:
                price, amount = ((bids or asks)[0][:2]) if bids or asks else ("", "")
                self._decimals[market] = (len(price.partition(".")[2]), len(amount.partition(".")[2]))
            yield DepthChanged(
                market=market,
                time_ms=int(max((float(row[2]) for row in (*bids, *asks)), default=0.0) * 1000),
                bids=_levels(bids),
                asks=_levels(asks),
                is_snapshot=is_snapshot,
                checksum=int(sides["c"]) if "c" in sides else None,
                decimals=self._decimals.get(market, (0, 0)),
                depth=int(channel.removeprefix("book-")),
                received_ms=received_ms,
            )

    def _version_2(
        self, market: Market, message: Mapping[str, Any], entry: Mapping[str, Any], received_ms: float | None
    ) -> Iterator[Event]:
        is_snapshot = message["type"] == "snapshot"
        match message["channel"]:
            case "trade":
                trade = Trade(
                    entry["trade_id"],
                    _milliseconds(entry["timestamp"]),
                    float(entry["price"]),
                    float(entry["qty"]),
                    1 if entry["side"] == "buy" else -1,
                )
                yield TradesMade(market=market, trades=(trade,), received_ms=None if is_snapshot else received_ms)
            case "ohlc":
                opened = _milliseconds(entry["interval_begin"])
                prices = (float(entry[name]) for name in ("open", "high", "low", "close", "volume"))
                timeframe = next((name for name in TIMEFRAMES if Timeframe(name).minutes == entry["interval"]), None)
                if timeframe is not None:
                    yield from self._candles.closed(SeriesKey(market, Timeframe(timeframe)), (opened, *prices))  # type: ignore[arg-type]
            case _:
                decimals = self._decimals.get(market)
                time = entry.get("timestamp") or message.get("timestamp")
                yield DepthChanged(
                    market=market,
                    time_ms=_milliseconds(time) if time else int(received_ms or 0),
                    bids=tuple(Level(float(row["price"]), float(row["qty"])) for row in entry["bids"]),
                    asks=tuple(Level(float(row["price"]), float(row["qty"])) for row in entry["asks"]),
                    is_snapshot=is_snapshot,
                    checksum=entry.get("checksum") if decimals else None,
                    decimals=decimals or (0, 0),
                    depth=KRAKEN_DEPTH,
                    received_ms=None if is_snapshot else received_ms,
                )


class CoinbaseDialect:
    """Coinbase Exchange: channels matches and level2, whose changes are not numbered."""

    def __init__(self, markets: Sequence[Market]) -> None:
        self._markets = {f"{market.base}-{market.quote}": market for market in markets}

    def decode(self, message: Any, received_ms: float | None) -> Iterator[Event]:
        """See :class:`Dialect`."""
        market = self._markets.get(message.get("product_id", ""))
        if market is None:
            return
        match message["type"]:
            case "match" | "last_match":
                # The side is the maker's: a seller who rested was bought from.
                trade = Trade(
                    message["trade_id"],
                    _milliseconds(message["time"]),
                    float(message["price"]),
                    float(message["size"]),
                    1 if message["side"] == "sell" else -1,
                )
                yield TradesMade(market=market, trades=(trade,), received_ms=received_ms)
            case "snapshot":
                yield DepthChanged(
                    market=market,
                    time_ms=int(received_ms or 0),
                    bids=_levels(message["bids"]),
                    asks=_levels(message["asks"]),
                    is_snapshot=True,
                )
            case "l2update":
                bids, asks = ([row[1:] for row in message["changes"] if row[0] == side] for side in ("buy", "sell"))
                yield DepthChanged(
                    market=market,
                    time_ms=_milliseconds(message["time"]),
                    bids=_levels(bids),
                    asks=_levels(asks),
                    received_ms=received_ms,
                )


class BybitDialect:
    """Bybit's order book, as its bulk files and its stream have it."""

    def __init__(self, markets: Sequence[Market]) -> None:
        self._markets = {market.base + market.quote: market for market in markets}

    def decode(self, message: Any, received_ms: float | None) -> Iterator[Event]:
        """See :class:`Dialect`."""
        if not str(message.get("topic", "")).startswith("orderbook."):
            return
        data = message["data"]
        market = self._markets.get(data["s"])
        if market is not None:
            yield DepthChanged(
                market=market,
                time_ms=message["ts"],
                bids=_levels(data["b"]),
                asks=_levels(data["a"]),
                is_snapshot=message["type"] == "snapshot",
                first_id=data["u"],
                last_id=data["u"],
                received_ms=received_ms,
            )


#: What decodes the messages of an exchange.
DIALECTS: Final[Mapping[str, type[BinanceDialect | KrakenDialect | CoinbaseDialect | BybitDialect]]] = {
    "binance": BinanceDialect,
    "binanceus": BinanceDialect,
    "binanceusdm": BinanceDialect,
    "kraken": KrakenDialect,
    "coinbase": CoinbaseDialect,
    "bybit": BybitDialect,
}


def _levels(rows: Sequence[Sequence[Any]]) -> tuple[Level, ...]:
    return tuple(Level(float(row[0]), float(row[1])) for row in rows)


def _milliseconds(text: str) -> int:
    return int(datetime.fromisoformat(text).timestamp() * 1000)
