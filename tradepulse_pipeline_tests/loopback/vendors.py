"""How Alpha Vantage and Polygon answer, in the shapes that they document."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler
from typing import Any
from zoneinfo import ZoneInfo

from tradepulse_pipeline.market.candles import Candles
from tradepulse_pipeline.market.corporate_actions import CorporateAction, Dividend, Split
from tradepulse_pipeline.market.series import MS_PER_DAY, SeriesKey
from tradepulse_pipeline_tests.loopback.faults import Fault
from tradepulse_pipeline_tests.loopback.server import LoopbackExchange
from tradepulse_pipeline_tests.loopback.venues import Query

NEW_YORK = ZoneInfo("America/New_York")

AV_UNKNOWN = "Invalid API call. Please retry or visit the documentation (https://www.alphavantage.co/documentation/)."


class LoopbackVendors(LoopbackExchange):
    """Serves shares on 127.0.0.1 as Alpha Vantage does under /query, and as Polygon does under /v2 and /v3.

    Parameters
    ----------
    series : mapping of SeriesKey to Candles
        Prices as traded.
    key : str
        What both vendors take for a valid key. Alpha Vantage repeats it in what it says, as the real one does.
    actions : sequence of CorporateAction
        Of every share.
    page_size : int
        Most rows in a page of Polygon's.
    next_host : str
        Where Polygon says that its next pages are, in place of itself.
    """

    def __init__(
        self,
        series: Mapping[SeriesKey, Candles],
        *,
        key: str,
        actions: Sequence[CorporateAction] = (),
        page_size: int = 50_000,
        next_host: str | None = None,
    ) -> None:
        super().__init__({})
        self._series = {(one.market.base, one.timeframe.name): candles for one, candles in series.items()}
        self._key = key
        self._actions = actions
        self._page_size = page_size
        self._next_host = next_host
        self._request = threading.local()
        self._server.RequestHandlerClass = _with_authorization(self, self._server.RequestHandlerClass)

    def answer(self, path: str, query: Query, fault: Fault | None) -> tuple[int, Any]:
        """Return status and JSON value of the reply to a request."""
        if path == "/query":
            return 200, self._alpha_vantage(query)
        if self._request.authorization != f"Bearer {self._key}":
            return 401, {"status": "ERROR", "error": "Unknown API Key"}
        parts = path.strip("/").split("/")
        match parts:
            case ["v2", "aggs", "ticker", symbol, "range", multiplier, span, start, end]:
                return 200, self._aggregates(path, query, symbol, multiplier + span, start, end)
            case ["v3", "reference", "tickers", symbol]:
                if symbol not in {base for base, _ in self._series}:
                    return 404, {"status": "NOT_FOUND", "message": "Ticker not found."}
                return 200, {"status": "OK", "results": {"ticker": symbol, "currency_name": "usd"}}
            case ["v3", "reference", "splits"]:
                rows: list[dict[str, Any]] = [
                    {"execution_date": one.ex_date.isoformat(), "split_from": 1, "split_to": one.ratio, "id": "E1"}
                    for one in self._actions
                    if isinstance(one, Split)
                ]
                return 200, self._page(path, query, rows)
            case ["v3", "reference", "dividends"]:
                rows = [
                    {
                        "cash_amount": one.amount,
                        "currency": "USD",
                        "dividend_type": "CD",
                        "ex_dividend_date": one.ex_date.isoformat(),
                        "frequency": 4,
                    }
                    for one in self._actions
                    if isinstance(one, Dividend)
                ]
                return 200, self._page(path, query, rows)
        return 404, {"status": "NOT_FOUND"}

    def remember(self, authorization: str | None) -> None:
        """Keep what the request being answered is signed with."""
        self._request.authorization = authorization

    def _aggregates(self, path: str, query: Query, symbol: str, span: str, start: str, end: str) -> object:
        assert (query.get("adjusted"), query.get("sort")) in {("false", "asc"), (None, None)}  # a cursor has it all
        names = {"1day": "1d", **{f"{n}minute": f"{n}m" for n in (1, 5, 15, 30)}}
        candles = self._series.get((symbol, names[span]))
        if candles is None:
            return {"ticker": symbol, "status": "OK", "resultsCount": 0, "queryCount": 0}
        wanted = candles.between(_day_ms(start), _day_ms(end) + MS_PER_DAY)
        rows = [
            {
                "t": _new_york_midnight(time) if span == "1day" else time,
                "o": o,
                "h": h,
                "l": low,
                "c": c,
                "v": v,
                "n": 7,
            }
            for time, o, h, low, c, v in _rows(wanted)
        ]
        return {"ticker": symbol, "adjusted": False, **self._page(path, query, rows)}

    def _page(self, path: str, query: Query, rows: list[dict[str, Any]]) -> dict[str, Any]:
        first = int(query.get("cursor", 0))
        last = first + min(int(query.get("limit", self._page_size)), self._page_size)
        more = {"next_url": f"{self._next_host or self.base_url}{path}?cursor={last}"} if last < len(rows) else {}
        return {"status": "OK", "request_id": "r", "results": rows[first:last], **more}

    def _alpha_vantage(self, query: Query) -> object:
        if query.get("apikey") != self._key:
            return {"Error Message": f"the parameter apikey {query.get('apikey')} is invalid or missing."}
        function, symbol = query["function"], query.get("symbol", "")
        if function == "SYMBOL_SEARCH":
            near = [base for base, _ in self._series if base.startswith(query["keywords"][:2])]
            return {"bestMatches": [{"1. symbol": base, "8. currency": "USD"} for base in sorted(set(near))]}
        if function == "TIME_SERIES_INTRADAY":
            return self._intraday(query)
        candles = self._series.get((symbol, "1d"))
        if candles is None:
            return {"Error Message": AV_UNKNOWN}
        if query.get("outputsize") != "full":
            candles = candles.slice(max(len(candles) - 100, 0), len(candles))
        days = {}
        for time, o, h, low, c, v in reversed(_rows(candles)):
            prices = {"1. open": o, "2. high": h, "3. low": low, "4. close": c}
            day = datetime.fromtimestamp(time / 1000, UTC).date()
            if function == "TIME_SERIES_DAILY":
                row = {**prices, "5. volume": v}
            else:
                splits = [one.ratio for one in self._actions if isinstance(one, Split) and one.ex_date == day]
                paid = [one.amount for one in self._actions if isinstance(one, Dividend) and one.ex_date == day]
                row = {
                    **prices,
                    "5. adjusted close": c,
                    "6. volume": v,
                    "7. dividend amount": sum(paid),
                    "8. split coefficient": splits[0] if splits else 1.0,
                }
            days[day.isoformat()] = {name: repr(value) for name, value in row.items()}
        return {"Meta Data": {"2. Symbol": symbol, "5. Time Zone": "US/Eastern"}, "Time Series (Daily)": days}

    def _intraday(self, query: Query) -> object:
        candles = self._series.get((query["symbol"], query["interval"].replace("min", "m")))
        if candles is None:
            return {"Error Message": AV_UNKNOWN}
        assert (query["adjusted"], query["extended_hours"], query["outputsize"]) == ("false", "false", "full")
        rows = {}
        for time, *values in _rows(candles):
            at = datetime.fromtimestamp(time / 1000, NEW_YORK)
            if at.strftime("%Y-%m") == query["month"]:
                names = ("1. open", "2. high", "3. low", "4. close", "5. volume")
                rows[at.strftime("%Y-%m-%d %H:%M:%S")] = dict(zip(names, map(repr, values), strict=True))
        return {"Meta Data": {"6. Time Zone": "US/Eastern"}, f"Time Series ({query['interval']})": rows}


def _with_authorization(vendors: LoopbackVendors, handler: Any) -> type[BaseHTTPRequestHandler]:
    class Handler(handler):  # type: ignore[misc]
        def do_GET(self) -> None:  # noqa: N802 - the name that the server calls
            vendors.remember(self.headers.get("Authorization"))
            super().do_GET()

    return Handler


def _rows(candles: Candles) -> list[tuple[int, float, float, float, float, float]]:
    columns = (candles.open_time_ms, candles.open, candles.high, candles.low, candles.close, candles.volume)
    return list(zip(*(column.tolist() for column in columns), strict=True))


def _day_ms(day: str) -> int:
    return int(datetime.fromisoformat(day).replace(tzinfo=UTC).timestamp()) * 1000


def _new_york_midnight(day_ms: int) -> int:
    day = datetime.fromtimestamp(day_ms / 1000, UTC)
    return int(day.replace(tzinfo=NEW_YORK).timestamp()) * 1000
