"""What data vendors for shares have in common: regular hours only, a key that is never shown, bounded retries."""

from __future__ import annotations

import logging
import os
import random
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from functools import cached_property
from typing import Any, ClassVar, Final, NamedTuple, TypeVar
from urllib.parse import quote_plus, urlsplit

import numpy as np

from tradepulse_pipeline.errors import InvalidInputError, SourceError, one_of
from tradepulse_pipeline.market.calendars import calendar_of
from tradepulse_pipeline.market.candles import Candles, FloatArray, IntArray
from tradepulse_pipeline.market.corporate_actions import CorporateAction
from tradepulse_pipeline.market.series import MS_PER_DAY, SeriesKey, Timeframe
from tradepulse_pipeline.market.sources.base import Offer, Page
from tradepulse_pipeline.market.sources.http import (
    FIRST_CONTACT,
    Patience,
    Reply,
    Retrying,
    TransientError,
    json_of,
    refuse,
    request_once,
)
from tradepulse_pipeline.market.sources.rows import NOT_CLOSED, clean_rows
from tradepulse_pipeline.market.sources.times import iso_utc

T = TypeVar("T")

#: The stock exchanges of the United States that trade in the regular hours of New York.
US_VENUES: Final = ("xnys", "xnas", "xase", "xphs")


class Table(NamedTuple):
    """Rows as a vendor gives them: times in UTC ms, and open, high, low, close and volume of shape (n_rows, 5)."""

    times_ms: IntArray
    values: FloatArray


class VendorSource(ABC):
    """A vendor of candles of shares.

    A trading day's candle is labelled by the day; of intraday candles those of the regular hours are kept. Prices and
    volumes are as traded.

    Parameters
    ----------
    patience : Patience
        Attempts, deadlines and waits.
    sleep, jitter : callables
        How to wait, and what to draw the waits' randomness from.
    """

    name: str

    def __init__(
        self,
        *,
        patience: Patience | None = None,
        sleep: Callable[[float], None] = time.sleep,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self._patience = patience or Patience()
        self._retrying = Retrying(name=self.name, sleep=sleep, jitter=jitter)

    @abstractmethod
    def offer(self) -> Offer:
        """See :class:`CandleSource`."""

    @abstractmethod
    def actions(self, series: SeriesKey) -> tuple[CorporateAction, ...]:
        """See :class:`CorporateActionSource`."""

    @abstractmethod
    def _check_symbol(self, series: SeriesKey, patience: Patience) -> None:
        """Raise InvalidInputError for an unknown symbol."""

    @abstractmethod
    def _tables(self, series: SeriesKey, start_ms: int, end_ms: int) -> Iterator[Table]:
        """Yield the rows about ``[start_ms, end_ms)``, in time order; a daily one at 00:00 UTC of its day."""

    @abstractmethod
    def _venues(self) -> tuple[str, ...]:
        """Return the stock exchanges whose shares the vendor has."""

    def check(self, series: SeriesKey) -> None:
        """See :class:`CandleSource`."""
        self._check_series(series)
        self._check_symbol(series, FIRST_CONTACT)

    def pages(self, series: SeriesKey, start_ms: int, end_ms: int) -> Iterator[Page]:
        """See :class:`CandleSource`."""
        self._check_series(series)
        calendar, timeframe = calendar_of(series.exchange), series.timeframe
        now_ms = time.time_ns() // 1_000_000
        is_first = True
        for table in self._tables(series, start_ms, min(end_ms, now_ms)):
            times_ms, values = table
            if timeframe.milliseconds < MS_PER_DAY:
                first, last = int(times_ms.min(initial=end_ms)), int(times_ms.max(initial=start_ms))
                is_regular = np.isin(times_ms, calendar.expected(timeframe, first, last + 1))
                times_ms, values = times_ms[is_regular], values[is_regular]
            cleaned = clean_rows(times_ms, values, timeframe, now_ms=now_ms, calendar=calendar)
            page = cleaned.candles.between(start_ms, end_ms)
            rejected = tuple(row for row in cleaned.rejected if row.reason != NOT_CLOSED)
            if len(page) or rejected:
                warning = self._missing_history(series, start_ms, page) if is_first else ""
                is_first = is_first and not len(page)
                yield Page(candles=page, rejected=rejected, n_duplicates=cleaned.n_duplicates, warning=warning)

    def _missing_history(self, series: SeriesKey, start_ms: int, page: Candles) -> str:
        first = int(page.open_time_ms[0]) if len(page) else start_ms
        if not len(page.calendar.expected(series.timeframe, start_ms, first)):
            return ""
        return (
            f"{self.name} has no {series.pair} candles from {iso_utc(start_ms)} to {iso_utc(first)}: "
            "its history begins later or has a gap there."
        )

    def _check_series(self, series: SeriesKey) -> None:
        offered, venues = self.offer().timeframes, self._venues()
        if series.exchange not in venues:
            raise one_of("stock exchange", series.exchange, venues, where=self.name)
        if series.timeframe.name not in offered:
            raise one_of("timeframe", series.timeframe.name, offered, where=self.name)


class KeyedSource(VendorSource):
    """A vendor whose REST interface wants a key; it is read from the environment and shown nowhere.

    Parameters
    ----------
    base_url : str or None
        Where to send all requests instead of the vendor's own address: scheme and host.
    key : str or None
        The key in place of the one in the environment.
    """

    key_variable: ClassVar[str]
    key_page: ClassVar[str]
    address: ClassVar[str]

    def __init__(
        self,
        *,
        base_url: str | None = None,
        key: str | None = None,
        patience: Patience | None = None,
        sleep: Callable[[float], None] = time.sleep,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        super().__init__(patience=patience, sleep=sleep, jitter=jitter)
        self._base_url = (base_url or self.address).rstrip("/")
        self._given_key = key

    @cached_property
    def _session(self) -> Any:
        import requests

        return requests.Session()

    def _refuse(self, name: str, url: str, reply: Reply) -> None:
        """Raise for a status that is an error: a refusal is one of the key, what is not there an unknown name."""
        if reply.status in {401, 403}:
            raise SourceError(
                f"{name} refuses the key in {self.key_variable}, or its plan does not include this "
                f"(HTTP {reply.status}). Check the key, and what the plan covers."
            )
        if reply.status == 404:
            raise InvalidInputError(f"{name} does not know this symbol (HTTP 404).")
        refuse(name, url, reply)
        if reply.status >= 400:
            raise SourceError(f"{name} answered HTTP {reply.status} to {url}: {reply.beginning}.")

    def _venues(self) -> tuple[str, ...]:
        return US_VENUES

    def _key(self) -> str:
        key = self._given_key or os.environ.get(self.key_variable, "")
        if not key.strip():
            raise InvalidInputError(
                f"{self.name} needs a key, and {self.key_variable} is not set. Get one at {self.key_page}, and put it "
                f"into the environment: export {self.key_variable}=…"
            )
        return key.strip()

    @abstractmethod
    def _signed(self, parameters: Mapping[str, str], key: str) -> tuple[dict[str, str], dict[str, str]]:
        """Return the query and the headers of a request, the key in one of them."""

    @abstractmethod
    def _checked(self, reply: Any, what: str) -> Any:
        """Return a reply that is what was asked for, or raise what it says."""

    def _get(self, what: str, url: str, parameters: Mapping[str, str], patience: Patience | None = None) -> Any:
        """Return the decoded JSON of a request to ``url``, a path or an address on the vendor's host."""
        import requests

        key = self._key()
        query, headers = self._signed(parameters, key)
        address = url if "://" in url else self._base_url + url
        if urlsplit(address)[:2] != urlsplit(self._base_url)[:2]:
            raise SourceError(
                f"{self.name} sends on to {urlsplit(address).netloc or 'nowhere'}, expected {self._base_url}: not "
                "followed, for the key is nobody else's. Check the vendor's address in the settings."
            )
        prepared = str(requests.Request("GET", address, params=query).prepare().url)
        waits = patience or self._patience

        def request() -> Any:
            # Errors are told anew, and outside of the except clause, so that none carries one that shows the key.
            failure: Exception
            with _key_left_out_of_logs(key):
                try:
                    reply = request_once(
                        self._session,
                        self.name,
                        prepared,
                        headers=headers,
                        deadline_s=waits.deadline_s,
                        refuse=self._refuse,
                    )
                    return self._checked(json_of(self.name, prepared, reply), what)
                except TransientError as error:
                    failure = TransientError(
                        _without(key, error), is_answered=error.is_answered, retry_after_s=error.retry_after_s
                    )
                except (SourceError, InvalidInputError) as error:
                    failure = type(error)(_without(key, error))
                except (AttributeError, LookupError, TypeError, ValueError) as error:
                    failure = TransientError(
                        f"its reply could not be read: {_without(key, repr(error))}", is_answered=True
                    )
            raise failure

        return self._retrying.ask(what, request, waits)


class _key_left_out_of_logs:  # noqa: N801 - reads as a statement
    """While this holds, what urllib3 logs of requests shows no key."""

    def __init__(self, key: str) -> None:
        self._key = key
        self._logger = logging.getLogger("urllib3.connectionpool")

    def __enter__(self) -> None:
        self._logger.addFilter(self.filter)

    def __exit__(self, *_: object) -> None:
        self._logger.removeFilter(self.filter)

    def filter(self, record: logging.LogRecord) -> bool:
        record.msg, record.args = _without(self._key, record.getMessage()), ()
        return True


def _without(key: str, text: object) -> str:
    return str(text).replace(key, "…").replace(quote_plus(key), "…")


def table_of(rows: list[tuple[int, float, float, float, float, float]]) -> Table:
    """Return rows of open time in UTC ms, open, high, low, close and volume as arrays, in time order."""
    array = np.array(sorted(rows), dtype=np.float64).reshape(-1, 6)
    return Table(array[:, 0].astype(np.int64), array[:, 1:])


def utc_day(time_ms: int) -> str:
    """Return the UTC day of a time, as ISO 8601 writes it."""
    return datetime.fromtimestamp(time_ms / 1000, UTC).date().isoformat()


def is_daily(timeframe: Timeframe) -> bool:
    """Whether candles are labelled by their trading day."""
    return timeframe.milliseconds >= MS_PER_DAY
