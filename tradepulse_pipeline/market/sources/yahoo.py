"""Candles, splits and dividends of shares from Yahoo Finance, by yfinance."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from tradepulse_pipeline.errors import InvalidInputError
from tradepulse_pipeline.market.corporate_actions import CorporateAction, Dividend, Split
from tradepulse_pipeline.market.series import SeriesKey
from tradepulse_pipeline.market.sources.base import Offer
from tradepulse_pipeline.market.sources.http import Patience, TransientError, in_time
from tradepulse_pipeline.market.sources.vendors import US_VENUES, Table, VendorSource, is_daily

if TYPE_CHECKING:
    import pandas as pd

#: What Yahoo appends to a ticker: https://help.yahoo.com/kb/SLN2310.html.
SUFFIXES: Final = {
    **dict.fromkeys(US_VENUES, ""),
    "xams": ".AS", "xasx": ".AX", "xbru": ".BR", "xcse": ".CO", "xdub": ".IR", "xetr": ".DE", "xfra": ".F",
    "xhel": ".HE", "xhkg": ".HK", "xjse": ".JO", "xkrx": ".KS", "xlis": ".LS", "xlon": ".L", "xmad": ".MC",
    "xmil": ".MI", "xnze": ".NZ", "xosl": ".OL", "xpar": ".PA", "xses": ".SI", "xsto": ".ST", "xswx": ".SW",
    "xtae": ".TA", "xtai": ".TW", "xtks": ".T", "xtse": ".TO", "xwbo": ".VI",
}  # fmt: skip

#: The hundredths that some exchanges quote in: a pair names them, so that pence are never taken for pounds.
_QUOTES: Final = {"GBp": "GBX", "ZAc": "ZAC", "ILA": "ILA"}

_PRICES: Final = ["Open", "High", "Low", "Close", "Volume"]


class YahooSource(VendorSource):
    """Yahoo's chart data, made what was traded.

    Yahoo's prices, volumes and dividends are always adjusted for every split up to today. Here that is undone with
    its own list of splits: prices before an ex-date are multiplied by the ratio, volumes divided by it. Yahoo keeps
    prices in single precision, so that they come back to about seven digits.

    Parameters
    ----------
    make_ticker : callable or None
        What gives access to a symbol, in place of ``yfinance.Ticker``.
    """

    name = "yahoo"

    def __init__(
        self,
        *,
        make_ticker: Callable[[str], Any] | None = None,
        patience: Patience | None = None,
        sleep: Callable[[float], None] = time.sleep,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        super().__init__(patience=patience, sleep=sleep, jitter=jitter)
        self._make_ticker = make_ticker or _ticker

    def offer(self) -> Offer:
        """See :class:`CandleSource`."""
        return Offer(
            timeframes=("1h", "1d"),
            history="daily candles since the share was listed, hourly ones of the last 730 days",
            volume_unit="shares",
            limits="An unofficial interface that may refuse to answer at any time.",
        )

    def actions(self, series: SeriesKey) -> tuple[CorporateAction, ...]:
        """See :class:`CorporateActionSource`."""
        self._check_series(series)
        return _actions_in(self._whole_history(series, self._patience))

    def _venues(self) -> tuple[str, ...]:
        return tuple(SUFFIXES)

    def _check_symbol(self, series: SeriesKey, patience: Patience) -> None:
        self._history(series, patience, period="5d", interval="1d")

    def _tables(self, series: SeriesKey, start_ms: int, end_ms: int) -> Iterator[Table]:
        whole = self._whole_history(series, self._patience)
        splits = [action for action in _actions_in(whole) if isinstance(action, Split)]
        if is_daily(series.timeframe):
            yield _as_traded(whole, whole.index.tz_localize(None), splits)
            return
        start, end = (datetime.fromtimestamp(ms / 1000, UTC) for ms in (start_ms, end_ms))
        hours = self._history(series, self._patience, start=start, end=end, interval="1h")
        yield _as_traded(hours, hours.index.tz_convert(None), splits)

    def _whole_history(self, series: SeriesKey, patience: Patience) -> pd.DataFrame:
        """Return all daily rows with all events: only so are all splits known that prices were adjusted for."""
        return self._history(series, patience, period="max", interval="1d")

    def _history(self, series: SeriesKey, patience: Patience, **span: Any) -> pd.DataFrame:
        symbol = series.market.base.replace(".", "-") + SUFFIXES[series.exchange]

        def request() -> pd.DataFrame:
            ticker = self._make_ticker(symbol)
            try:
                frame = ticker.history(
                    **span, auto_adjust=False, actions=True, prepost=False, timeout=patience.deadline_s
                )
                currency = str(ticker.history_metadata.get("currency", ""))
            except Exception as error:  # yfinance and the libraries beneath it raise what they like
                raise _explained(symbol, error) from error
            if not len(frame):
                raise InvalidInputError(
                    f"yahoo has no candles of {symbol} ({series}) there. Check the ticker, and that it was traded then."
                )
            quoted = _QUOTES.get(currency, currency)
            if quoted != series.market.quote:
                raise InvalidInputError(
                    f"yahoo quotes {symbol} in {quoted or 'an unknown currency'}, expected {series.market.quote}: the "
                    f"series is {series.exchange}:{series.market.base}-{quoted}:{series.timeframe}."
                )
            return frame

        return self._retrying.ask(f"{symbol} candles", lambda: in_time(patience.deadline_s, request), patience)


def _ticker(symbol: str) -> Any:
    import yfinance

    yfinance.config.debug.hide_exceptions = False  # else a failure is an empty table
    return yfinance.Ticker(symbol)


def _explained(symbol: str, error: Exception) -> InvalidInputError | TransientError:
    """Return what an error of yfinance means."""
    kind = type(error).__name__
    if kind in {"YFTzMissingError", "YFPricesMissingError", "YFTickerMissingError", "YFInvalidPeriodError"}:
        return InvalidInputError(f"yahoo has no candles of {symbol} there: {error}")
    is_answered = kind not in {"ConnectionError", "ConnectTimeout", "DNSError", "ProxyError", "SSLError", "Timeout"}
    return TransientError(f"{kind}: {error}", is_answered=is_answered)


def _as_traded(frame: pd.DataFrame, times: pd.DatetimeIndex, splits: Sequence[Split]) -> Table:
    """Return the rows of a table at ``times``, naive ones, with the adjustment for ``splits`` undone."""
    days = frame.index.tz_localize(None).to_numpy("datetime64[D]")
    ratio = np.ones(len(frame))
    for split in splits:
        ratio[days < np.datetime64(split.ex_date)] *= split.ratio
    values = frame[_PRICES].to_numpy(np.float64) * ratio[:, None]
    values[:, 4] = frame["Volume"].to_numpy(np.float64) / ratio
    return Table(times.to_numpy("datetime64[ms]").astype(np.int64), values)


def _actions_in(history: pd.DataFrame) -> tuple[CorporateAction, ...]:
    """Return the events of a whole history, dividends as they were paid: before later splits."""
    splits = [
        Split(ex_date=day.date(), ratio=float(ratio))
        for day, ratio in history["Stock Splits"].items()
        if ratio not in (0.0, 1.0)
    ]
    dividends = [
        Dividend(
            ex_date=day.date(),
            amount=float(amount) * float(np.prod([one.ratio for one in splits if one.ex_date > day.date()])),
        )
        for day, amount in history["Dividends"].items()
        if amount > 0
    ]
    return tuple(sorted([*splits, *dividends], key=lambda action: action.ex_date))
