"""The live feed: one exchange over WebSocket, by ccxt.pro, as events; what breaks off is taken up again."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlsplit, urlunsplit

from tradepulse_pipeline.errors import InvalidInputError, SourceError, SourceUnreachableError, one_of
from tradepulse_pipeline.market.live.dialects import KRAKEN_DEPTH, BinanceDialect, ClosedByNext, KrakenDialect
from tradepulse_pipeline.market.live.events import CHANNELS, Channel, Event, Interrupted, Trade, TradesMade
from tradepulse_pipeline.market.live.sequence import Break
from tradepulse_pipeline.market.series import Market, SeriesKey, Timeframe
from tradepulse_pipeline.market.trades import NO_ID

#: Exchanges whose messages are read as they come, numbers and all. Of others ccxt's digest is taken.
_READ_RAW: Final = ("binance", "binanceus", "kraken")

_METHODS: Final[dict[Channel, str]] = {"candles": "watchOHLCV", "trades": "watchTrades", "depth": "watchOrderBook"}

#: Levels a side that a snapshot is asked for.
_DEPTH: Final = {"binance": 1_000, "binanceus": 1_000, "kraken": KRAKEN_DEPTH}

#: Trades that exchanges give at most in one answer.
_TRADES_PER_PAGE: Final = 1_000


@dataclass(frozen=True, slots=True, kw_only=True)
class FeedSettings:
    """A connection that says nothing for ``silence_s`` is stale, and made anew.

    The wait before a new connection doubles from ``first_wait_s`` to ``longest_wait_s``.
    """

    silence_s: float = 60.0
    first_wait_s: float = 0.5
    longest_wait_s: float = 60.0

    def __post_init__(self) -> None:
        for name in ("silence_s", "first_wait_s", "longest_wait_s"):
            if getattr(self, name) <= 0:
                raise InvalidInputError(f"live feed: {name} is {getattr(self, name)}, expected seconds above 0.")


class LiveFeed:
    """Markets of one exchange, live, without any key; an asynchronous context manager.

    Of Binance, Binance.US and Kraken the messages themselves are read, so that lost ones show: trades are numbered one
    by one, changes of the order book by number (Binance) or checksum (Kraken). Binance's trades are its aggregate
    ones, because those alone can be fetched later without a key. Of any other exchange that ccxt.pro knows, candles
    and trades are taken without such checks, and no depth.

    Parameters
    ----------
    markets : sequence of Market
        All of one exchange.
    timeframe : Timeframe
        Of the candles.
    channels : sequence of {'candles', 'trades', 'depth'}
        What to take.
    base_url : str or None
        Where to connect instead of the exchange's own address: scheme (http or https) and host.
    settings : FeedSettings or None
        Patience.

    Raises
    ------
    InvalidInputError
        If ccxt.pro does not know the exchange, or the exchange does not offer a channel.
    """

    def __init__(
        self,
        markets: Sequence[Market],
        timeframe: Timeframe,
        channels: Sequence[Channel] = CHANNELS,
        *,
        base_url: str | None = None,
        settings: FeedSettings | None = None,
    ) -> None:
        import ccxt.pro

        self.exchange: Final = markets[0].exchange
        if self.exchange not in ccxt.pro.exchanges:
            raise one_of("exchange", self.exchange, ccxt.pro.exchanges, where="ccxt.pro")
        self.markets: Final = tuple(markets)
        self.timeframe: Final = timeframe
        self._channels: Final = tuple(channels)
        self._settings: Final = settings or FeedSettings()
        self._take: Callable[[Event], None] = lambda _: None
        self._heard: Final[dict[str, float]] = {}
        self._renewed = float("-inf")
        self._dialect: BinanceDialect | KrakenDialect | None = None
        self._candles: Final = ClosedByNext()
        self._client: Final = self._connected_client(base_url)
        self._check_channels()

    async def __aenter__(self) -> LiveFeed:
        """Ask the exchange for its markets.

        Raises
        ------
        SourceUnreachableError, SourceError
            If it cannot be reached, or refuses.
        InvalidInputError
            If it does not trade one of the markets.
        """
        import ccxt

        try:
            await self._client.load_markets()
            for market in self.markets:
                if market.pair not in self._client.markets:
                    raise one_of("pair", market.pair, self._client.symbols, where=self.exchange)
        except ccxt.NetworkError as error:
            await self._client.close()
            raise SourceUnreachableError(f"{self.exchange} cannot be reached: {error}. Check the network.") from error
        except ccxt.BaseError as error:
            await self._client.close()
            raise SourceError(f"{self.exchange} refuses the request: {error}") from error
        except BaseException:
            await self._client.close()
            raise
        if self.exchange == "kraken":
            decimals = {market: self._decimals(market) for market in self.markets}
            self._dialect = KrakenDialect(self.markets, decimals, self._candles)
        elif self.exchange in _READ_RAW:
            self._dialect = BinanceDialect(self.markets)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._client.close()

    async def run(self, take: Callable[[Event], None]) -> None:
        """Give ``take`` every event, until cancelled.

        Raises
        ------
        SourceError
            If the exchange refuses what it is asked for.
        """
        self._take = take
        async with asyncio.TaskGroup() as tasks:
            for market in self.markets:
                for channel in self._channels:
                    tasks.create_task(self._keep_watching(market, channel))
            tasks.create_task(self._notice_silence())

    async def trades(self, hole: Break, after_ms: int) -> list[Trade]:
        """Fetch the trades of a hole over REST; ``after_ms`` is the time of a trade before it.

        Fewer come back where the exchange does not give them any more.

        Raises
        ------
        SourceError
            If the exchange fails.
        """
        import ccxt

        found: list[Trade] = []
        cursor: Any = hole.first if self._is_binance else after_ms * 1_000_000 - 1
        try:
            while not found or found[-1].trade_id < hole.last:
                page, cursor = await self._page(hole.market.pair, cursor, after_ms)
                new = [trade for trade in page if not found or trade.trade_id > found[-1].trade_id]
                if not new:
                    break
                found += new
        except ccxt.BaseError as error:
            raise SourceError(f"{self.exchange} does not give the trades of {hole.market.pair}: {error}") from error
        return found

    def renew_book(self, reason: str) -> None:
        """Bring about a new snapshot of a book that has broken, not more often than every ``longest_wait_s``.

        Of Binance it comes by itself, because ccxt sees the same numbers. Kraken gives one to a new connection.
        """
        import ccxt

        now = time.monotonic()
        if self._is_binance or now - self._renewed < self._settings.longest_wait_s:
            return
        self._renewed = now
        for client in list(self._client.clients.values()):
            if client.isConnected:
                client.on_error(ccxt.NetworkError(reason))

    @property
    def _is_binance(self) -> bool:
        return isinstance(self._dialect, BinanceDialect)

    def _connected_client(self, base_url: str | None) -> Any:
        import ccxt.pro

        feed = self

        class Tapped(getattr(ccxt.pro, self.exchange)):  # type: ignore[misc]
            """The exchange's client, which tells the feed what it receives."""

            def handle_message(self, client: Any, message: Any) -> None:
                feed._hear(client, message)
                super().handle_message(client, message)

            async def fetch_rest_order_book_safe(self, symbol: str, *arguments: Any) -> Any:
                book = await super().fetch_rest_order_book_safe(symbol, *arguments)
                feed._hear_snapshot(self.market_id(symbol), book)
                return book

        client = Tapped({"enableRateLimit": True, "options": {"defaultType": "spot"}})
        client.options["watchTrades"] = {**client.safe_dict(client.options, "watchTrades", {}), "name": "aggTrade"}
        wanted = client.options.get("fetchMarkets")
        if isinstance(wanted, dict) and "spot" in wanted.get("types", ()):
            wanted["types"] = ["spot"]
        if base_url:
            client.urls["api"] = _moved(client.urls["api"], base_url)
        return client

    def _check_channels(self) -> None:
        for channel in self._channels:
            is_there = self._client.has.get(_METHODS[channel]) is True
            if not is_there or (channel == "depth" and self.exchange not in _READ_RAW):
                raise InvalidInputError(
                    f"{self.exchange}: {channel} cannot be recorded live. "
                    + (f"Depth is recorded of {', '.join(_READ_RAW)}." if channel == "depth" else "Leave it out.")
                )
        if "candles" in self._channels and self.timeframe.name not in (self._client.timeframes or {}):
            raise one_of("timeframe", self.timeframe.name, self._client.timeframes or {}, where=self.exchange)

    def _decimals(self, market: Market) -> tuple[int, int]:
        info = self._client.market(market.pair)["info"]
        return int(info["pair_decimals"]), int(info["lot_decimals"])

    def _hear(self, client: Any, message: Any) -> None:
        if not (isinstance(message, dict) and message.get("method") == "pong"):
            self._heard[client.url] = time.monotonic()
        try:
            for event in self._dialect.decode(message, time.time_ns() / 1e6) if self._dialect else ():
                self._take(event)
        except (AttributeError, LookupError, TypeError, ValueError) as error:
            import ccxt

            client.on_error(ccxt.NetworkError(f"a message cannot be read: {error!r}"))

    def _hear_snapshot(self, market_id: str, book: Any) -> None:
        """Tell of a snapshot that ccxt has fetched over REST, in the form of the exchange's answer."""
        if self._dialect is not None:
            snapshot = {"s": market_id, "lastUpdateId": book["nonce"], "bids": book["bids"], "asks": book["asks"]}
            for event in self._dialect.decode(snapshot, time.time_ns() / 1e6):
                self._take(event)

    async def _keep_watching(self, market: Market, channel: Channel) -> None:
        import ccxt

        wait_s = self._settings.first_wait_s
        while True:
            try:
                found = await self._watch(market, channel)
            except ccxt.ChecksumError:
                continue  # ccxt has noticed a lost message too: watching again brings a new snapshot
            except ccxt.NetworkError as error:
                self._take(Interrupted(market=market, channel=channel, reason=str(error)))
                if channel == "candles":
                    self._candles.forget(market)
                await asyncio.sleep(wait_s)
                wait_s = min(2 * wait_s, self._settings.longest_wait_s)
            except ccxt.BaseError as error:
                raise SourceError(f"{self.exchange} refuses {channel} of {market.pair}: {error}") from error
            else:
                wait_s = self._settings.first_wait_s
                if self._dialect is None:
                    for event in self._digested(market, channel, found):
                        self._take(event)

    def _watch(self, market: Market, channel: Channel) -> Any:
        match channel:
            case "candles":
                return self._client.watch_ohlcv(market.pair, self.timeframe.name)
            case "trades":
                return self._client.watch_trades(market.pair)
            case "depth":
                return self._client.watch_order_book(market.pair, _DEPTH[self.exchange])

    def _digested(self, market: Market, channel: Channel, found: Any) -> Iterator[Event]:
        if channel == "candles":
            for row in found:
                yield from self._candles.closed(SeriesKey(market, self.timeframe), tuple(row))
        else:
            # Whether another exchange numbers its trades one by one is not known: none counts as missing.
            trades = tuple(_trade(one)._replace(trade_id=NO_ID) for one in found)
            yield TradesMade(market=market, trades=trades, received_ms=time.time_ns() / 1e6)

    async def _notice_silence(self) -> None:
        import ccxt

        while True:
            await asyncio.sleep(min(1.0, self._settings.silence_s / 4))
            now = time.monotonic()
            for url, client in list(self._client.clients.items()):
                if not client.isConnected:
                    self._heard.pop(url, None)
                elif now - self._heard.setdefault(url, now) > self._settings.silence_s:
                    del self._heard[url]
                    client.on_error(ccxt.RequestTimeout(f"nothing heard for {self._settings.silence_s:g} s"))

    async def _page(self, symbol: str, cursor: Any, after_ms: int) -> tuple[list[Trade], Any]:
        """Return trades from ``cursor`` on, and where to go on."""
        if self._is_binance:
            rows = await self._client.fetch_trades(symbol, limit=_TRADES_PER_PAGE, params={"fromId": cursor})
            trades = [_trade(row) for row in rows]
            return trades, trades[-1].trade_id + 1 if trades else cursor
        rows = await self._client.fetch_trades(symbol, after_ms, params={"since": str(cursor)})
        # Kraken's answer ends with where to go on, which ccxt puts behind the last trade.
        return [_trade(row) for row in rows], rows[-1]["info"][-1] if rows else cursor


def _trade(row: dict[str, Any]) -> Trade:
    number = str(row["id"] or "")
    return Trade(
        int(number) if number.isdecimal() else NO_ID,
        int(row["timestamp"]),
        float(row["price"]),
        float(row["amount"]),
        1 if row["side"] == "buy" else -1,
    )


def _moved(addresses: Any, base_url: str) -> Any:
    """Return ccxt's addresses, a text or nested mapping of texts, at another host; WebSockets stay WebSockets."""
    if isinstance(addresses, dict):
        return {key: _moved(address, base_url) for key, address in addresses.items()}
    base, address = urlsplit(base_url), urlsplit(addresses)
    scheme = base.scheme.replace("http", "ws") if address.scheme.startswith("ws") else base.scheme
    return urlunsplit((scheme, base.netloc, address.path, address.query, ""))
