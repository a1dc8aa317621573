"""Candles, splits and dividends of US shares from Polygon (which calls itself Massive since 2025)."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from datetime import date, datetime
from typing import Any, ClassVar, Final
from urllib.parse import quote
from zoneinfo import ZoneInfo

from tradepulse_pipeline.errors import InvalidInputError
from tradepulse_pipeline.market.corporate_actions import CorporateAction, Dividend, Split, midnight_ms
from tradepulse_pipeline.market.series import SeriesKey
from tradepulse_pipeline.market.sources.base import Offer
from tradepulse_pipeline.market.sources.http import Patience, TransientError
from tradepulse_pipeline.market.sources.vendors import KeyedSource, Table, is_daily, table_of, utc_day

_NEW_YORK: Final = ZoneInfo("America/New_York")
_PAGE_SIZE: Final = "50000"


class PolygonSource(KeyedSource):
    """Polygon's aggregates, unadjusted, and its reference data; the key goes into a header.

    See https://polygon.io/docs/rest/stocks/aggregates/custom-bars and …/corporate-actions.
    """

    name = "polygon"
    key_variable: ClassVar[str] = "POLYGON_API_KEY"
    key_page: ClassVar[str] = "https://polygon.io/dashboard/keys"
    address: ClassVar[str] = "https://api.polygon.io"

    def offer(self) -> Offer:
        """See :class:`CandleSource`."""
        return Offer(
            timeframes=("1m", "5m", "15m", "30m", "1d"),
            history="two years with a free key, back to 2003 with a paid one",
            volume_unit="shares",
            limits="US shares only. Its hourly candles begin on the hour and mix in the time before the market opens: "
            "build longer ones from 30m.",
            key_variable=self.key_variable,
        )

    def actions(self, series: SeriesKey) -> tuple[CorporateAction, ...]:
        """See :class:`CorporateActionSource`."""
        self._check_series(series)
        query = {"ticker": series.market.base, "limit": "1000"}
        splits = [
            Split(ex_date=date.fromisoformat(row["execution_date"]), ratio=float(row["split_to"] / row["split_from"]))
            for rows in self._pages_of("splits", "/v3/reference/splits", query)
            for row in rows
        ]
        dividends = [
            Dividend(ex_date=date.fromisoformat(row["ex_dividend_date"]), amount=float(row["cash_amount"]))
            for rows in self._pages_of("dividends", "/v3/reference/dividends", query)
            for row in rows
            if row["cash_amount"] > 0 and row.get("currency", series.market.quote) == series.market.quote
        ]
        return tuple(sorted([*splits, *dividends], key=lambda action: action.ex_date))

    def _check_symbol(self, series: SeriesKey, patience: Patience) -> None:
        symbol = series.market.base
        what = f"the ticker {symbol}"
        found = self._get(what, f"/v3/reference/tickers/{quote(symbol)}", {}, patience)["results"]
        currency = str(found.get("currency_name", series.market.quote)).upper()
        if currency != series.market.quote:
            raise InvalidInputError(f"polygon quotes {symbol} in {currency}, expected {series.market.quote}.")

    def _tables(self, series: SeriesKey, start_ms: int, end_ms: int) -> Iterator[Table]:
        daily = is_daily(series.timeframe)
        span = "1/day" if daily else f"{series.timeframe.minutes}/minute"
        symbol = quote(series.market.base)
        path = f"/v2/aggs/ticker/{symbol}/range/{span}/{utc_day(start_ms)}/{utc_day(max(end_ms - 1, start_ms))}"
        query = {"adjusted": "false", "sort": "asc", "limit": _PAGE_SIZE}
        for rows in self._pages_of(f"{series} candles", path, query):
            yield table_of([_row(row, daily) for row in rows])

    def _pages_of(self, what: str, path: str, query: Mapping[str, str]) -> Iterator[list[dict[str, Any]]]:
        """Yield the results of a query, page by page."""
        url: str | None = path
        seen = set()
        while url and url not in seen:
            seen.add(url)
            reply = self._get(what, url, query)
            yield reply.get("results") or []
            url, query = reply.get("next_url"), {}

    def _signed(self, parameters: Mapping[str, str], key: str) -> tuple[dict[str, str], dict[str, str]]:
        return dict(parameters), {"Authorization": f"Bearer {key}"}

    def _checked(self, reply: Any, what: str) -> Any:
        if isinstance(reply, dict) and reply.get("status") in {"OK", "DELAYED"}:
            return reply
        raise TransientError(f"polygon answered without {what}: {str(reply)[:200]}", is_answered=True)


def _row(row: Mapping[str, float], daily: bool) -> tuple[int, float, float, float, float, float]:
    """Return a row of aggregates; a daily one begins at midnight in New York."""
    open_, high, low, close, volume = (float(row.get(name, math.nan)) for name in "ohlcv")
    time_ms = int(row["t"])
    if daily:
        time_ms = midnight_ms(datetime.fromtimestamp(time_ms / 1000, _NEW_YORK).date())
    return time_ms, open_, high, low, close, volume
