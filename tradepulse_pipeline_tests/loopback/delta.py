"""How Delta Exchange answers under /v2."""

from __future__ import annotations

from tradepulse_pipeline_tests.loopback.spans import Answer, Query, Rows, Series, candles_of, markets_of
from tradepulse_pipeline_tests.loopback.venues import rows_of

MOST_CANDLES = 2_000


class Delta:
    """``/v2`` of Delta Exchange, its spot pairs."""

    def __init__(self, series: Series) -> None:
        self._series = series
        self._symbols = {f"{one.base}_{one.quote}": one for one in markets_of(series, "delta")}

    def answer(self, path: str, query: Query, now_ms: int) -> Answer | None:
        """Answer to a request; None if the path is not one of Delta's."""
        match path:
            case "/v2/settings":
                return 200, _delta({"server_time": now_ms * 1000}), []
            case "/v2/assets":
                return 200, _delta([]), []
            case "/v2/products":
                return 200, _delta(self._listed()), []
            case "/v2/history/candles":
                return self._candles(query, now_ms)
        return None

    def _listed(self) -> Rows:
        return [
            {
                "id": number,
                "symbol": name,
                "contract_type": "spot",
                "state": "live",
                "tick_size": "0.01",
                "contract_value": "1",
                "underlying_asset": {"symbol": market.base},
                "quoting_asset": {"symbol": market.quote},
                "settling_asset": None,
                "product_specs": {"underlying_precision": 2},
                "position_size_limit": 10_000_000,
            }
            for number, (name, market) in enumerate(self._symbols.items(), start=1)
        ]

    def _candles(self, query: Query, now_ms: int) -> Answer:
        market = self._symbols.get(query.get("symbol", ""))
        candles = candles_of(self._series, market, query.get("resolution", "")) if market else None
        if candles is None:
            return 400, {"error": {"code": "bad_schema"}, "success": False}, []
        start, end = int(query["start"]) * 1000, min(int(query["end"]) * 1000, now_ms)
        wanted = candles.between(start, end + 1)
        wanted = wanted.slice(max(len(wanted) - MOST_CANDLES, 0), len(wanted))
        names = ("time", "open", "high", "low", "close", "volume")
        rows: Rows = [
            dict(zip(names, [time // 1000, *values], strict=True)) for time, *values in rows_of(wanted, now_ms)
        ][::-1]
        return 200, _delta(rows), rows


def _delta(result: object) -> object:
    return {"result": result, "success": True}
