"""How Bybit answers under /v5."""

from __future__ import annotations

from tradepulse_pipeline.market.series import TIMEFRAMES, Timeframe
from tradepulse_pipeline_tests.loopback.spans import Answer, Query, Rows, Series, candles_of, markets_of
from tradepulse_pipeline_tests.loopback.venues import rows_of

MOST_CANDLES = 1_000
INTERVALS = {**{str(Timeframe(name).minutes): name for name in TIMEFRAMES}, "D": "1d"}


class Bybit:
    """``/v5/market`` of Bybit, its spot pairs."""

    def __init__(self, series: Series) -> None:
        self._series = series
        self._symbols = {one.base + one.quote: one for one in markets_of(series, "bybit")}

    def answer(self, path: str, query: Query, now_ms: int) -> Answer | None:
        """Answer to a request; None if the path is not one of Bybit's."""
        match path:
            case "/v5/market/time":
                result: object = {"timeSecond": str(now_ms // 1000), "timeNano": str(now_ms * 1_000_000)}
                return 200, _bybit(result, now_ms), []
            case "/v5/market/instruments-info":
                return 200, _bybit({"category": "spot", "list": self._listed()}, now_ms), []
            case "/v5/market/kline":
                return self._kline(query, now_ms)
        return None

    def _listed(self) -> Rows:
        return [
            {
                "symbol": name,
                "baseCoin": market.base,
                "quoteCoin": market.quote,
                "status": "Trading",
                "marginTrading": "none",
                "lotSizeFilter": {
                    "basePrecision": "0.000001",
                    "quotePrecision": "0.00000001",
                    "minOrderQty": "0.00004",
                },
                "priceFilter": {"tickSize": "0.01"},
            }
            for name, market in self._symbols.items()
        ]

    def _kline(self, query: Query, now_ms: int) -> Answer:
        market = self._symbols.get(query.get("symbol", ""))
        candles = candles_of(self._series, market, INTERVALS.get(query.get("interval", ""), "")) if market else None
        if candles is None or query.get("category") != "spot":
            return 200, _bybit({}, now_ms, code=10001, message="params error: symbol or interval invalid"), []
        limit = min(int(query.get("limit", 200)), MOST_CANDLES)
        wanted = candles.between(int(query.get("start", 0)), min(int(query.get("end", now_ms)), now_ms) + 1)
        # From the start on if there is no end, up to the end if there is one.
        first = 0 if "start" in query and "end" not in query else max(len(wanted) - limit, 0)
        rows: Rows = [
            [str(time), *map(repr, values), "0"]
            for time, *values in rows_of(wanted.slice(first, first + limit), now_ms)
        ][::-1]
        return 200, _bybit({"category": "spot", "symbol": query["symbol"], "list": rows}, now_ms), rows


def _bybit(result: object, now_ms: int, *, code: int = 0, message: str = "OK") -> object:
    return {"retCode": code, "retMsg": message, "result": result, "retExtInfo": {}, "time": now_ms}
