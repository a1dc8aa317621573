"""How Binance and Kraken answer, in the shapes of their recorded replies."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from tradepulse_pipeline.market.candles import PRICE_COLUMNS, Candles
from tradepulse_pipeline.market.series import MS_PER_DAY, Market, SeriesKey

Query = Mapping[str, str]
Series = Mapping[SeriesKey, Candles]
Rows = list[list[Any]]

BINANCE_PAGE = 1_000
KRAKEN_LATEST = 720

_KRAKEN_NAMES = {"BTC": "XBT", "DOGE": "XDG"}
_KRAKEN_ASSETS = {"BTC": "XXBT", "DOGE": "XXDG", "ETH": "XETH", "XRP": "XXRP", "USD": "ZUSD", "EUR": "ZEUR"}


def rows_of(candles: Candles, now_ms: int) -> Rows:
    """Return time, open, high, low, close and volume per candle; one that has not closed is given half-built."""
    rows: Rows = [
        [time, *values]
        for time, *values in zip(
            candles.open_time_ms.tolist(),
            *(getattr(candles, name).tolist() for name in PRICE_COLUMNS),
            strict=True,
        )
    ]
    if rows and candles.end_ms > now_ms:
        time, open_, _, _, close, volume = rows[-1]
        price = (open_ + close) / 2
        rows[-1] = [time, open_, max(open_, price), min(open_, price), price, volume / 2]
    return rows


class Day(NamedTuple):
    """What was traded of a market in the last 24 hours."""

    price: float
    volume: float
    quote_volume: float

    @property
    def mean_price(self) -> float:
        """Mean price, by volume."""
        return self.quote_volume / self.volume if self.volume else self.price


def day_of(series: Series, market: Market, now_ms: int) -> Day:
    """Return the last day of a market by the candles of its shortest timeframe that have closed."""
    key = min((key for key in series if key.market == market), key=lambda key: key.timeframe.minutes)
    step = key.timeframe.milliseconds
    closed = series[key].between(None, now_ms - step + 1)
    day = closed.between(now_ms - MS_PER_DAY, None)
    price = float(closed.close[-1]) if len(closed) else 0.0
    return Day(price, float(day.volume.sum()), float((day.volume * day.close).sum()))


class Binance:
    """``/api/v3`` of Binance and Binance.US."""

    def __init__(self, series: Series) -> None:
        self._series = {key: candles for key, candles in series.items() if key.exchange.startswith("binance")}

    def time(self, now_ms: int) -> object:
        """Answer to /time."""
        return {"serverTime": now_ms}

    def exchange_info(self, now_ms: int) -> object:
        """Answer to /exchangeInfo."""
        return {
            "timezone": "UTC",
            "serverTime": now_ms,
            "rateLimits": [],
            "exchangeFilters": [],
            "symbols": [
                {
                    "symbol": market.base + market.quote,
                    "status": "TRADING",
                    "baseAsset": market.base,
                    "baseAssetPrecision": 8,
                    "quoteAsset": market.quote,
                    "quotePrecision": 8,
                    "quoteAssetPrecision": 8,
                    "orderTypes": ["LIMIT", "MARKET"],
                    "isSpotTradingAllowed": True,
                    "isMarginTradingAllowed": False,
                    "filters": [
                        {"filterType": "PRICE_FILTER", "minPrice": "0.01", "maxPrice": "1000000", "tickSize": "0.01"},
                        {"filterType": "LOT_SIZE", "minQty": "0.00001", "maxQty": "9000", "stepSize": "0.00001"},
                    ],
                    "permissions": ["SPOT"],
                }
                for market in sorted({key.market for key in self._series})
            ],
        }

    def tickers(self, query: Query, now_ms: int) -> tuple[int, object]:
        """Answer to /ticker/24hr: status and reply."""
        markets = {market.base + market.quote: market for market in sorted({key.market for key in self._series})}
        wanted = json.loads(query["symbols"]) if "symbols" in query else list(markets)
        if not set(wanted) <= set(markets):
            return 400, {"code": -1121, "msg": "Invalid symbol."}
        days = {symbol: day_of(self._series, markets[symbol], now_ms) for symbol in wanted}
        return 200, [
            {
                "symbol": symbol,
                "lastPrice": repr(day.price),
                "volume": repr(day.volume),
                "quoteVolume": repr(day.quote_volume),
                "openTime": now_ms - MS_PER_DAY,
                "closeTime": now_ms,
            }
            for symbol, day in days.items()
        ]

    def klines(self, query: Query, now_ms: int) -> tuple[int, object, Rows]:
        """Answer to /klines: status, the reply and the list in it that holds the rows."""
        named = {(key.market.base + key.market.quote, key.timeframe.name): value for key, value in self._series.items()}
        if query.get("symbol") not in {symbol for symbol, _ in named}:
            return 400, {"code": -1121, "msg": "Invalid symbol."}, []
        candles = named.get((query["symbol"], query.get("interval", "")))
        if candles is None:
            return 400, {"code": -1120, "msg": "Invalid interval."}, []
        limit = min(int(query.get("limit", 500)), BINANCE_PAGE)
        wanted = candles.between(int(query.get("startTime", 0)), min(int(query.get("endTime", now_ms)), now_ms) + 1)
        first = 0 if "startTime" in query else max(len(wanted) - limit, 0)
        span = candles.timeframe.milliseconds
        rows: Rows = [
            [time, *map(repr, values), time + span - 1, "0.0", 1, "0.0", "0.0", "0"]
            for time, *values in rows_of(wanted.slice(first, first + limit), now_ms)
        ]
        return 200, rows, rows


class Kraken:
    """``/0/public`` of Kraken."""

    def __init__(self, series: Series) -> None:
        self._series = {key: candles for key, candles in series.items() if key.exchange == "kraken"}

    def time(self, now_ms: int) -> object:
        """Answer to /Time."""
        return _kraken({"unixtime": now_ms // 1000, "rfc1123": ""})

    def assets(self) -> object:
        """Answer to /Assets."""
        currencies = sorted({name for key in self._series for name in (key.market.base, key.market.quote)})
        return _kraken(
            {
                _KRAKEN_ASSETS.get(name, name): {
                    "aclass": "currency",
                    "altname": _KRAKEN_NAMES.get(name, name),
                    "decimals": 10,
                    "display_decimals": 5,
                    "status": "enabled",
                }
                for name in currencies
            }
        )

    def asset_pairs(self) -> object:
        """Answer to /AssetPairs."""
        return _kraken(
            {
                kraken_id(market): {
                    "altname": kraken_id(market),
                    "wsname": f"{_KRAKEN_NAMES.get(market.base, market.base)}/{market.quote}",
                    "aclass_base": "currency",
                    "base": _KRAKEN_ASSETS.get(market.base, market.base),
                    "aclass_quote": "currency",
                    "quote": _KRAKEN_ASSETS.get(market.quote, market.quote),
                    "lot": "unit",
                    "cost_decimals": 5,
                    "pair_decimals": 1,
                    "lot_decimals": 8,
                    "lot_multiplier": 1,
                    "leverage_buy": [],
                    "leverage_sell": [],
                    "fees": [[0, 0.4]],
                    "fees_maker": [[0, 0.25]],
                    "ordermin": "0.00005",
                    "costmin": "0.5",
                    "tick_size": "0.1",
                    "status": "online",
                }
                for market in sorted({key.market for key in self._series})
            }
        )

    def tickers(self, query: Query, now_ms: int) -> object:
        """Answer to /Ticker: last price, and volume and mean price of today and of 24 hours."""
        markets = {kraken_id(market): market for market in sorted({key.market for key in self._series})}
        wanted = query["pair"].split(",") if "pair" in query else list(markets)
        if not set(wanted) <= set(markets):
            return {"error": ["EQuery:Unknown asset pair"]}
        days = {name: day_of(self._series, markets[name], now_ms) for name in wanted}
        return _kraken(
            {
                name: {
                    "a": [repr(day.price), "1", "1.000"],
                    "b": [repr(day.price), "1", "1.000"],
                    "c": [repr(day.price), "0.1"],
                    "v": [repr(day.volume), repr(day.volume)],
                    "p": [repr(day.mean_price), repr(day.mean_price)],
                    "t": [1, 1],
                    "l": [repr(day.price), repr(day.price)],
                    "h": [repr(day.price), repr(day.price)],
                    "o": repr(day.price),
                }
                for name, day in days.items()
            }
        )

    def ohlc(self, query: Query, now_ms: int) -> tuple[int, object, Rows]:
        """Answer to /OHLC: status, the reply and the list in it that holds the rows."""
        named = {(kraken_id(key.market), key.timeframe.minutes): value for key, value in self._series.items()}
        if query.get("pair") not in {pair for pair, _ in named}:
            return 200, {"error": ["EQuery:Unknown asset pair"]}, []
        candles = named.get((query["pair"], int(query.get("interval", 1))))
        if candles is None:
            return 200, {"error": ["EGeneral:Invalid arguments"]}, []
        known = _without_gaps(candles.between(None, now_ms + 1))
        latest = known.slice(max(len(known) - KRAKEN_LATEST - 1, 0), len(known))
        rows: Rows = [
            [time // 1000, *map(repr, prices), "0.0", repr(volume), 1]
            for time, *prices, volume in rows_of(latest, now_ms)
            if time // 1000 > int(query.get("since", 0))
        ]
        closed = latest.open_time_ms[latest.open_time_ms + candles.timeframe.milliseconds <= now_ms]
        last = int(closed[-1]) // 1000 if len(closed) else 0
        return 200, _kraken({query["pair"]: rows, "last": last}), rows


def _kraken(result: object) -> object:
    return {"error": [], "result": result}


def kraken_id(market: Market) -> str:
    """Return the name by which Kraken's replies call a market."""
    return _KRAKEN_NAMES.get(market.base, market.base) + market.quote


def _without_gaps(candles: Candles) -> Candles:
    """Kraken's reply, unlike its files, holds a candle for every minute: flat and without volume if nothing traded."""
    longest = int(np.diff(candles.open_time_ms).max(initial=0)) // candles.timeframe.milliseconds
    return candles.filled_forward(longest)
