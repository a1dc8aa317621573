"""How Coinbase's Advanced Trade interface answers, in the shape of its recorded replies."""

from __future__ import annotations

from tradepulse_pipeline_tests.loopback.spans import Answer, Query, Rows, Series, candles_of, markets_of
from tradepulse_pipeline_tests.loopback.venues import rows_of

MOST_CANDLES = 350
PRODUCTS = "/api/v3/brokerage/market/products"
GRANULARITIES = {
    "ONE_MINUTE": "1m",
    "FIVE_MINUTE": "5m",
    "FIFTEEN_MINUTE": "15m",
    "THIRTY_MINUTE": "30m",
    "ONE_HOUR": "1h",
    "TWO_HOUR": "2h",
    "SIX_HOUR": "6h",
    "ONE_DAY": "1d",
}


class Coinbase:
    """``/v2`` for the time and currencies, ``/api/v3/brokerage/market`` for products and candles."""

    def __init__(self, series: Series) -> None:
        self._series = series
        self._products = {f"{one.base}-{one.quote}": one for one in markets_of(series, "coinbase")}

    def answer(self, path: str, query: Query, now_ms: int) -> Answer | None:
        """Answer to a request; None if the path is not one of Coinbase's."""
        match path:
            case "/v2/time":
                return 200, {"data": {"iso": "", "epoch": now_ms // 1000}}, []
            case "/v2/currencies" | "/v2/currencies/crypto":
                return 200, {"data": []}, []
            case "/v2/exchange-rates":
                return 200, {"data": {"currency": "USD", "rates": {}}}, []
            case _ if path == PRODUCTS:
                return 200, {"products": self._listed(query)}, []
            case _ if path.startswith(f"{PRODUCTS}/") and path.endswith("/candles"):
                return self._candles(path.split("/")[-2], query, now_ms)
        return None

    def _listed(self, query: Query) -> Rows:
        if query.get("product_type", "SPOT") != "SPOT":
            return []
        return [
            {
                "product_id": name,
                "base_increment": "0.00000001",
                "quote_increment": "0.01",
                "price_increment": "0.01",
                "base_min_size": "0.00000001",
                "base_max_size": "3400",
                "status": "online",
                "trading_disabled": False,
                "product_type": "SPOT",
                "base_currency_id": market.base,
                "quote_currency_id": market.quote,
                "alias": "",
                "alias_to": [],
            }
            for name, market in self._products.items()
        ]

    def _candles(self, product: str, query: Query, now_ms: int) -> Answer:
        market = self._products.get(product)
        timeframe = GRANULARITIES.get(query.get("granularity", ""), "")
        candles = candles_of(self._series, market, timeframe) if market else None
        if candles is None:
            return 400, {"error": "INVALID_ARGUMENT", "message": "product or granularity is invalid"}, []
        start, end = int(query["start"]) * 1000, int(query["end"]) * 1000
        if (end - start) // candles.timeframe.milliseconds > MOST_CANDLES:
            return 400, {"error": "INVALID_ARGUMENT", "message": "number of candles requested should be less"}, []
        rows: Rows = [
            {
                "start": str(time // 1000),
                "low": repr(low),
                "high": repr(high),
                "open": repr(open_),
                "close": repr(close),
                "volume": repr(volume),
            }
            for time, open_, high, low, close, volume in rows_of(candles.between(start, min(end, now_ms) + 1), now_ms)
        ][::-1]
        return 200, {"candles": rows}, rows
