"""How OKX answers under /api/v5, in the shape of its recorded replies."""

from __future__ import annotations

from tradepulse_pipeline_tests.loopback.spans import Answer, Query, Rows, Series, candles_of, markets_of
from tradepulse_pipeline_tests.loopback.venues import rows_of

MOST_CANDLES = 300
RECENT_CANDLES = 1_440


class Okx:
    """``/api/v5`` of OKX, its spot pairs: the recent candles at one address, closed ones of any age at another."""

    def __init__(self, series: Series) -> None:
        self._series = series
        self._instruments = {f"{one.base}-{one.quote}": one for one in markets_of(series, "okx")}

    def answer(self, path: str, query: Query, now_ms: int) -> Answer | None:
        """Answer to a request; None if the path is not one of OKX's."""
        match path:
            case "/api/v5/public/time":
                return 200, _okx([{"ts": str(now_ms)}]), []
            case "/api/v5/public/instruments":
                return 200, _okx(self._listed()), []
            case "/api/v5/market/candles" | "/api/v5/market/history-candles":
                return self._candles(query, now_ms, is_recent=path.endswith("/candles"))
        return None

    def _listed(self) -> Rows:
        return [
            {
                "alias": "",
                "baseCcy": market.base,
                "category": "1",
                "instId": name,
                "instType": "SPOT",
                "lever": "10",
                "listTime": "1548133413000",
                "lotSz": "0.00000001",
                "minSz": "0.00001",
                "quoteCcy": market.quote,
                "settleCcy": "",
                "state": "live",
                "tickSz": "0.1",
                "uly": "",
            }
            for name, market in self._instruments.items()
        ]

    def _candles(self, query: Query, now_ms: int, *, is_recent: bool) -> Answer:
        market = self._instruments.get(query.get("instId", ""))
        bar = query.get("bar", "1m").lower().removesuffix("utc")
        candles = candles_of(self._series, market, bar) if market else None
        if candles is None:
            return 200, {"code": "51000", "msg": "Parameter instId or bar error", "data": []}, []
        known = candles.between(None, now_ms + 1 if is_recent else now_ms - candles.timeframe.milliseconds + 1)
        if is_recent:
            known = known.slice(max(len(known) - RECENT_CANDLES, 0), len(known))
        # Both ends are outside.
        wanted = known.between(int(query.get("before", 0)) + 1, int(query.get("after", now_ms + 1)))
        wanted = wanted.slice(max(len(wanted) - min(int(query.get("limit", 100)), MOST_CANDLES), 0), len(wanted))
        span = candles.timeframe.milliseconds
        rows: Rows = [
            [str(time), *map(repr, values), "0", "0", str(int(time + span <= now_ms))]
            for time, *values in rows_of(wanted, now_ms)
        ][::-1]
        return 200, _okx(rows), rows


def _okx(data: Rows) -> object:
    return {"code": "0", "msg": "", "data": data}
