"""Candles, splits and dividends of US shares from Alpha Vantage."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import UTC, date, datetime, timedelta
from typing import Any, ClassVar, Final
from zoneinfo import ZoneInfo

from tradepulse_pipeline.errors import InvalidInputError, SourceError, one_of
from tradepulse_pipeline.market.calendars import calendar_of
from tradepulse_pipeline.market.corporate_actions import CorporateAction, Dividend, Split, midnight_ms
from tradepulse_pipeline.market.series import SeriesKey
from tradepulse_pipeline.market.sources.base import Offer
from tradepulse_pipeline.market.sources.http import Patience, TransientError
from tradepulse_pipeline.market.sources.vendors import KeyedSource, Table, is_daily, table_of, utc_day

_NEW_YORK: Final = ZoneInfo("America/New_York")

#: Days in a compact reply, which any key may ask for; the whole history is for paid ones.
_COMPACT: Final = 100

_VALUES: Final = ("1. open", "2. high", "3. low", "4. close", "5. volume")


class AlphaVantageSource(KeyedSource):
    """Alpha Vantage's time series, as traded; it demands the key within the address.

    See https://www.alphavantage.co/documentation. It answers with HTTP 200 to everything: what is wrong stands in
    'Error Message', 'Information' or 'Note'.
    """

    name = "alpha_vantage"
    key_variable: ClassVar[str] = "ALPHAVANTAGE_API_KEY"
    key_page: ClassVar[str] = "https://www.alphavantage.co/support/#api-key"
    address: ClassVar[str] = "https://www.alphavantage.co"

    def offer(self) -> Offer:
        """See :class:`CandleSource`."""
        return Offer(
            timeframes=("1m", "5m", "15m", "30m", "1d"),
            history=f"the latest {_COMPACT} days with a free key, more than 20 years with a paid one",
            volume_unit="shares",
            limits="US shares only; 25 requests a day with a free key, and no intraday candles, splits or dividends. "
            "Its hourly candles begin on the hour: build longer ones from 30m.",
            key_variable=self.key_variable,
        )

    def actions(self, series: SeriesKey) -> tuple[CorporateAction, ...]:
        """See :class:`CorporateActionSource`."""
        self._check_series(series)
        days = self._series_of("TIME_SERIES_DAILY_ADJUSTED", series, outputsize="full")
        actions: list[CorporateAction] = []
        for day, row in sorted(days.items()):
            if (ratio := float(row["8. split coefficient"])) != 1.0:
                actions.append(Split(ex_date=date.fromisoformat(day), ratio=ratio))
            if (amount := float(row["7. dividend amount"])) > 0.0:
                actions.append(Dividend(ex_date=date.fromisoformat(day), amount=amount))
        return tuple(actions)

    def _check_symbol(self, series: SeriesKey, patience: Patience) -> None:
        symbol = series.market.base
        reply = self._get("symbols", "/query", {"function": "SYMBOL_SEARCH", "keywords": symbol}, patience)
        currencies = {match["1. symbol"]: match.get("8. currency", "USD") for match in reply["bestMatches"]}
        if symbol not in currencies:
            raise one_of("symbol", symbol, currencies, where=self.name)
        if currencies[symbol] != series.market.quote:
            raise InvalidInputError(
                f"{self.name} quotes {symbol} in {currencies[symbol]}, expected {series.market.quote}."
            )

    def _tables(self, series: SeriesKey, start_ms: int, end_ms: int) -> Iterator[Table]:
        if is_daily(series.timeframe):
            wanted = calendar_of(series.exchange).expected(
                series.timeframe, start_ms, midnight_ms(datetime.now(UTC).date())
            )
            size = "compact" if len(wanted) < _COMPACT else "full"
            rows = self._series_of("TIME_SERIES_DAILY", series, outputsize=size)
            yield table_of([_row(midnight_ms(date.fromisoformat(day)), row) for day, row in rows.items()])
            return
        for month in _months(start_ms, end_ms):
            rows = self._series_of(
                "TIME_SERIES_INTRADAY",
                series,
                interval=f"{series.timeframe.minutes}min",
                month=month,
                outputsize="full",
                adjusted="false",
                extended_hours="false",
            )
            yield table_of([_row(_new_york_ms(at), row) for at, row in rows.items()])

    def _series_of(self, function: str, series: SeriesKey, **parameters: str) -> dict[str, dict[str, str]]:
        """Return the rows of a reply by their day or time, which is New York's."""
        symbol = series.market.base
        query = {"function": function, "symbol": symbol, **parameters}
        reply = self._get(f"{symbol} {function}", "/query", query)
        rows: dict[str, dict[str, str]] = next(
            (value for name, value in reply.items() if name.startswith("Time Series")), {}
        )
        return rows

    def _signed(self, parameters: Mapping[str, str], key: str) -> tuple[dict[str, str], dict[str, str]]:
        return {**parameters, "apikey": key}, {}

    def _checked(self, reply: Any, what: str) -> Any:
        if any(name.startswith(("Time Series", "bestMatches")) for name in reply):
            return reply
        said = str(reply.get("Error Message") or reply.get("Information") or reply.get("Note") or reply)[:300]
        if "apikey" in said and "invalid" in said:
            raise SourceError(f"{self.name} refuses the key in {self.key_variable}: {said}")
        if "Error Message" in reply:
            raise InvalidInputError(f"{self.name} does not know what was asked for ({what}): {said}")
        if "premium" in said and "rate limit" not in said and "per " not in said:
            raise SourceError(f"{self.name} gives {what} to paid keys only: {said}")
        is_for_today = "per day" in said and "per minute" not in said and "per second" not in said
        if is_for_today:
            raise SourceError(f"{self.name} gives no more today: {said} Run again tomorrow: what was fetched is kept.")
        raise TransientError(f"it answered without {what}: {said}", is_answered=True)


def _row(time_ms: int, row: Mapping[str, str]) -> tuple[int, float, float, float, float, float]:
    open_, high, low, close, volume = (float(row[name]) for name in _VALUES)
    return time_ms, open_, high, low, close, volume


def _new_york_ms(at: str) -> int:
    return int(datetime.fromisoformat(at).replace(tzinfo=_NEW_YORK).timestamp()) * 1000


def _months(start_ms: int, end_ms: int) -> Iterator[str]:
    """Yield the months of ``[start_ms, end_ms)`` as Alpha Vantage writes them."""
    month = date.fromisoformat(utc_day(start_ms)).replace(day=1)
    while midnight_ms(month) < end_ms:
        yield month.strftime("%Y-%m")
        month = (month.replace(day=28) + timedelta(days=4)).replace(day=1)
