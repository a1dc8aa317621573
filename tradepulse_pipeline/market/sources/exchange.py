"""Candles from exchanges, by ccxt."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final, TypeVar
from urllib.parse import urlsplit, urlunsplit

import numpy as np

from tradepulse_pipeline.errors import (
    HistoryUnavailableError,
    InvalidInputError,
    SourceError,
    SourceUnreachableError,
    one_of,
)
from tradepulse_pipeline.market.candles import Candles
from tradepulse_pipeline.market.series import TIMEFRAMES, SeriesKey, Timeframe
from tradepulse_pipeline.market.sources.base import Offer, Page
from tradepulse_pipeline.market.sources.http import GuardedHttp, TransientError, within
from tradepulse_pipeline.market.sources.rows import NOT_CLOSED, clean_rows
from tradepulse_pipeline.market.sources.times import iso_utc

T = TypeVar("T")

#: Exchanges whose candle endpoint gives only so many of the latest candles, whatever start is asked for.
LATEST_ONLY: Final = {"kraken": 720}

#: Candles asked for at once where ccxt does not know the exchange's own limit.
DEFAULT_PAGE_SIZE: Final = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class Patience:
    """How long to try: each attempt ends after ``deadline_s``; the waits between them double, with jitter.

    An exchange that asks for a longer wait than ``longest_wait_s`` is not waited for.
    """

    attempts: int = 6
    deadline_s: float = 60.0
    first_wait_s: float = 1.0
    longest_wait_s: float = 120.0

    def wait_s(self, attempt: int, jitter: float) -> float:
        """Return the wait after the ``attempt``-th failure (from 1), ``jitter`` in [0, 1) being random."""
        return min(self.first_wait_s * 2.0 ** (attempt - 1) * (0.5 + jitter), self.longest_wait_s)


#: A first contact is made in less than ten seconds or not at all.
FIRST_CONTACT: Final = Patience(attempts=2, deadline_s=4.0, first_wait_s=0.5)


class ExchangeSource:
    """The spot candles of one exchange, through ccxt's synchronous client, without any key.

    A candle counts as closed by the exchange's clock, not by ours. Volume is what ccxt gives for spot markets, in
    base currency. Kraken gives the latest 720 candles of a timeframe only; other exchanges give their whole history.

    Parameters
    ----------
    exchange : str
        The exchange's name in ccxt.
    base_url : str or None
        Where to send all requests instead of the exchange's own address: scheme and host.
    patience : Patience
        Attempts, deadlines and waits.
    sleep, jitter : callables
        How to wait, and what to draw the waits' randomness from.
    """

    def __init__(
        self,
        exchange: str,
        *,
        base_url: str | None = None,
        patience: Patience | None = None,
        sleep: Callable[[float], None] = time.sleep,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self.name = exchange
        self._base_url = base_url
        self._patience = patience or Patience()
        self._sleep = sleep
        self._jitter = jitter

    @cached_property
    def client(self) -> Any:
        """The ccxt client; made without any request."""
        import ccxt

        guarded = type(f"Guarded_{self.name}", (GuardedHttp, getattr(ccxt, self.name)), {})
        client = guarded({"enableRateLimit": True, "options": {"defaultType": "spot"}})
        wanted = client.options.get("fetchMarkets")
        if isinstance(wanted, dict) and "spot" in wanted.get("types", ()):
            wanted["types"] = ["spot"]
        if self._base_url:
            client.urls["api"] = _at(self._base_url, client.urls["api"])
        return client

    def offer(self) -> Offer:
        """See :class:`CandleSource`."""
        latest = LATEST_ONLY.get(self.name)
        return Offer(
            timeframes=tuple(name for name in TIMEFRAMES if name in (self.client.timeframes or {})),
            history="since the pair was listed" if latest is None else f"the latest {latest} candles of a timeframe",
        )

    def check(self, series: SeriesKey) -> None:
        """See :class:`CandleSource`."""
        self._check_timeframe(series.timeframe)
        if self.client.has["fetchTime"]:
            self._ask("the time", self.client.fetch_time, FIRST_CONTACT)
            self._symbol(series, self._patience)
        else:
            self._symbol(series, FIRST_CONTACT)

    def pages(self, series: SeriesKey, start_ms: int, end_ms: int) -> Iterator[Page]:
        """See :class:`CandleSource`."""
        self._check_timeframe(series.timeframe)
        symbol = self._symbol(series, self._patience)
        step = series.timeframe.milliseconds
        now_ms = self._now_ms()
        start, end = -(-start_ms // step) * step, min(end_ms, now_ms // step * step)
        since, is_first = start, True
        while since < end:
            rows = self._rows(symbol, series.timeframe, since) or self._rows(symbol, series.timeframe, since)
            table = np.array(rows, dtype=np.float64).reshape(-1, 6)
            cleaned = clean_rows(table[:, 0], table[:, 1:], series.timeframe, now_ms=now_ms)
            found, warning = cleaned.candles, ""
            if len(found):
                warning = self._missing_history(series, start, end, found, now_ms) if is_first else ""
                is_first = False
                since = found.end_ms
            else:
                # An empty page in mid-history is a stretch without candles: step over it.
                since += self._page_size(symbol) * step
            page = found.between(None, end)
            rejected = tuple(row for row in cleaned.rejected if row.reason != NOT_CLOSED)
            if len(page) or rejected:
                yield Page(candles=page, rejected=rejected, n_duplicates=cleaned.n_duplicates, warning=warning)

    def _missing_history(self, series: SeriesKey, start: int, end: int, found: Candles, now_ms: int) -> str:
        """Return the warning for a first candle later than asked for, '' if there is nothing to warn of."""
        first, step = int(found.open_time_ms[0]), series.timeframe.milliseconds
        if first == start:
            return ""
        latest = LATEST_ONLY.get(self.name)
        if latest is None or first < now_ms - (latest + 1) * step:
            return (
                f"{self.name} has no {series.pair} candles from {iso_utc(start)} to {iso_utc(first)}: "
                "its history begins later or has a gap there."
            )
        warning = (
            f"History unavailable beyond {iso_utc(first)}: {self.name} gives only the latest {latest} candles, and "
            f"{series.pair} {series.timeframe} was asked for from {iso_utc(start)}. Import {self.name}'s archive files "
            f"for the time before: tradepulse import FILE --exchange {self.name} --pair {series.pair} "
            f"--timeframe {series.timeframe}."
        )
        if first >= end:
            raise HistoryUnavailableError(warning)
        return warning

    def _check_timeframe(self, timeframe: Timeframe) -> None:
        offered = self.offer().timeframes
        if timeframe.name not in offered:
            raise one_of("timeframe", timeframe.name, offered, where=self.name)

    def _symbol(self, series: SeriesKey, patience: Patience) -> str:
        """Return ccxt's name of the pair, if it is traded."""
        markets = self._ask("its markets", self.client.load_markets, patience)
        spot = {symbol: market for symbol, market in markets.items() if market.get("spot")}
        traded = sorted(symbol for symbol, market in spot.items() if market.get("active") is not False)
        if series.pair in traded:
            return series.pair
        unknown = one_of("pair", series.pair, traded, where=self.name)
        if series.pair in spot:
            raise InvalidInputError(f"{self.name} no longer trades {series.pair}. {unknown}")
        raise unknown

    def _now_ms(self) -> int:
        """The exchange's clock; ours where the exchange does not tell the time."""
        if not self.client.has["fetchTime"]:
            return time.time_ns() // 1_000_000
        return int(self._ask("the time", self.client.fetch_time, self._patience))

    def _page_size(self, symbol: str) -> int:
        return int(self.client.feature_value(symbol, "fetchOHLCV", "limit") or DEFAULT_PAGE_SIZE)

    def _rows(self, symbol: str, timeframe: Timeframe, since_ms: int) -> list[list[float | None]]:
        def request() -> list[list[float | None]]:
            rows: list[list[float | None]] = self.client.fetch_ohlcv(
                symbol, timeframe.name, since=since_ms, limit=self._page_size(symbol)
            )
            if not rows and not _holds_rows(self.client.reply):
                raise TransientError(
                    f"{self.name} answered without a list of candles: {str(self.client.reply)[:120]}", is_answered=True
                )
            return rows

        return self._ask(f"{symbol} candles since {iso_utc(since_ms)}", request, self._patience)

    def _ask(self, what: str, request: Callable[[], T], patience: Patience) -> T:
        """Make a request, again where that can help, and say what was tried when it does not."""
        attempt = 1
        while True:
            try:
                return self._attempt(request, patience)
            except TransientError as error:
                wait_s = error.retry_after_s
                if attempt == patience.attempts or (wait_s or 0.0) > patience.longest_wait_s:
                    raise self._given_up(what, attempt, error) from error
            self._sleep(patience.wait_s(attempt, self._jitter()) if wait_s is None else wait_s)
            attempt += 1

    def _given_up(self, what: str, attempts: int, error: TransientError) -> SourceError:
        tried = f"{attempts} attempt{'s' if attempts > 1 else ''}"
        if not error.is_answered:
            return SourceUnreachableError(f"{self.name} cannot be reached ({tried}): {error}. Check the network.")
        asked = "" if error.retry_after_s is None else f" It asks to wait {error.retry_after_s:.0f} s."
        return SourceError(
            f"{self.name} fails ({tried} to get {what}): {error}.{asked} "
            "Run again later: what was fetched is kept, and the next run goes on from there."
        )

    def _attempt(self, request: Callable[[], T], patience: Patience) -> T:
        """Make a request once; a failure that may pass is a TransientError, any other a SourceError."""
        import ccxt

        try:
            return within(patience.deadline_s, request)
        except TimeoutError as error:
            raise TransientError(f"no full reply within {patience.deadline_s:g} s", is_answered=False) from error
        except ccxt.NetworkError as error:
            raise TransientError(str(error), is_answered=True) from error
        except ccxt.BaseError as error:
            raise SourceError(f"{self.name} refuses the request: {error}") from error
        except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
            # What ccxt stumbles with over JSON that is not what the exchange documents.
            raise TransientError(f"its reply could not be read: {error!r}", is_answered=True) from error


def _at(base_url: str, addresses: Any) -> Any:
    """Return ccxt's addresses, a text or nested mapping of texts, moved to another scheme and host."""
    if isinstance(addresses, dict):
        return {key: _at(base_url, address) for key, address in addresses.items()}
    base, address = urlsplit(base_url), urlsplit(addresses)
    return urlunsplit((base.scheme, base.netloc, address.path, address.query, ""))


def _holds_rows(reply: Any) -> bool:
    """Whether a reply holds a list of rows, be it an empty one, other than Kraken's list of errors."""
    if isinstance(reply, dict):
        return any(_holds_rows(part) for key, part in reply.items() if key != "error")
    return isinstance(reply, list) and all(isinstance(row, list | dict) for row in reply)
