"""Candles from the bulk archives that exchanges publish as files."""

from __future__ import annotations

import hashlib
import io
import random
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from functools import cached_property
from typing import Any, Final

from tradepulse_pipeline.errors import CandleError, HistoryUnavailableError, InvalidInputError, SourceError, one_of
from tradepulse_pipeline.market.series import TIMEFRAMES, SeriesKey
from tradepulse_pipeline.market.sources.base import Offer, Page, empty_page
from tradepulse_pipeline.market.sources.files import FileCandles, read_candles
from tradepulse_pipeline.market.sources.http import (
    FIRST_CONTACT,
    Patience,
    Reply,
    Retrying,
    TransientError,
    request_once,
)
from tradepulse_pipeline.market.sources.rows import rejected_within
from tradepulse_pipeline.market.sources.times import iso_utc

#: Exchanges with an archive of candles that needs no key, and where it is. All have Binance's layout:
#: https://github.com/binance/binance-public-data.
ARCHIVES: Final = {"binance": "https://data.binance.vision"}

#: The first month that there can be files of.
FIRST_MONTH: Final = date(2017, 1, 1)

_CHECKSUM: Final = re.compile(r"([0-9a-f]{64}) [ *](\S+)\s*", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class ArchiveFile:
    """One file of an archive: its path below the archive's address, and the span of its candles in UTC milliseconds."""

    path: str
    start_ms: int
    end_ms: int

    @property
    def name(self) -> str:
        """The file's name without the folders."""
        return self.path.rpartition("/")[2]

    @classmethod
    def of_month(cls, series: SeriesKey, month: date) -> ArchiveFile:
        """Return the file of a calendar month, of which ``month`` is the first day."""
        return cls(_path(series, "monthly", f"{month:%Y-%m}"), _ms(month), _ms(_next_month(month)))

    @classmethod
    def of_day(cls, series: SeriesKey, day: date) -> ArchiveFile:
        """Return the file of a day."""
        return cls(_path(series, "daily", f"{day:%Y-%m-%d}"), _ms(day), _ms(day + timedelta(days=1)))


class ArchiveSource:
    """The spot candles of one exchange's public bulk archive: a file for each month, and for each day of the last ones.

    Every file is checked against the checksum that lies beside it. The archive has no list of its pairs that could be
    asked for: a pair is known if there is a file of it.

    Parameters
    ----------
    exchange : str
        One of :data:`ARCHIVES`.
    base_url : str or None
        Where to send all requests instead of the archive's own address: scheme and host.
    patience : Patience
        Attempts, deadlines and waits.
    clock_ms : callable
        The present in UTC milliseconds: which files can have been published by now.
    sleep, jitter : callables
        How to wait, and what to draw the waits' randomness from.

    Raises
    ------
    InvalidInputError
        If the exchange has no archive.
    """

    def __init__(
        self,
        exchange: str,
        *,
        base_url: str | None = None,
        patience: Patience | None = None,
        clock_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
        sleep: Callable[[float], None] = time.sleep,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        if exchange not in ARCHIVES:
            raise one_of("exchange with an archive", exchange, ARCHIVES)
        self.name = f"{exchange}.archive"
        self._base_url = (base_url or ARCHIVES[exchange]).rstrip("/")
        self._patience = patience or Patience()
        self._clock_ms = clock_ms
        self._retrying = Retrying(name=self.name, sleep=sleep, jitter=jitter)

    @cached_property
    def _session(self) -> Any:
        import requests

        return requests.Session()

    def offer(self) -> Offer:
        """See :class:`CandleSource`."""
        return Offer(
            timeframes=TIMEFRAMES,
            history="since the pair was listed, pairs that are no longer traded too",
            limits="The candles of a day come on the next one.",
        )

    def check(self, series: SeriesKey) -> None:
        """See :class:`CandleSource`."""
        self._newest(series, FIRST_CONTACT)

    def pages(self, series: SeriesKey, start_ms: int, end_ms: int) -> Iterator[Page]:
        """See :class:`CandleSource`. A page is a file."""
        step = series.timeframe.milliseconds
        start, end = -(-start_ms // step) * step, min(end_ms, _ms(self._today()))
        since, without, is_first = start, list[ArchiveFile](), True
        for file in self._files(series, start, end):
            data = self._ask(file, self._patience)
            page = None if data is None else self._page(file, series, data, start, end)
            if page is None:
                without.append(file)
                continue
            first = int(page.candles.open_time_ms[0]) if len(page.candles) else file.start_ms
            lacks, warning = self._lacks(series, since, first), ""
            if is_first and first > start:
                warning = f"{lacks}: its history begins later or has a gap there."
            elif without:
                warning = f"{lacks}: {_listed(without)} not there."
            yield replace(page, warning=warning)
            since, without, is_first = file.end_ms, [], False
        # The file of yesterday may not have been published yet.
        if any(file.end_ms < _ms(self._today()) for file in without):
            lacks = self._lacks(series, since, end)
            if is_first and self._newest(series, self._patience).end_ms > since:
                raise HistoryUnavailableError(f"{lacks}: its history begins later or has a gap there.")
            yield empty_page(
                series.timeframe, f"{lacks}: {_listed(without)} not there. The pair may have been delisted."
            )

    def _page(self, file: ArchiveFile, series: SeriesKey, data: bytes, start: int, end: int) -> Page | None:
        """Return what a file holds of ``[start, end)``; None if that is nothing."""
        read = self._read(file, series, data)
        candles = read.candles.between(start, end)
        rejected = rejected_within(read.rejected, start, end)
        if not len(candles) and not rejected:
            return None
        return Page(candles=candles, rejected=rejected, n_duplicates=read.n_duplicates)

    def _lacks(self, series: SeriesKey, start: int, end: int) -> str:
        return f"{self.name} has no {series.pair} {series.timeframe} candles from {iso_utc(start)} to {iso_utc(end)}"

    def _files(self, series: SeriesKey, start: int, end: int) -> Iterator[ArchiveFile]:
        """Yield the files that can hold candles of ``[start, end)``, in time order.

        The file of a month comes some days after its end: until then there are those of its days.
        """
        if start >= end:
            return
        this_month = self._today().replace(day=1)
        last_month = (this_month - timedelta(days=1)).replace(day=1)
        month = max(_date(start).replace(day=1), FIRST_MONTH)
        while _ms(month) < end:
            file = ArchiveFile.of_month(series, month)
            if month < last_month or (month == last_month and self._is_there(file, self._patience)):
                yield file
            else:
                day = max(month, _date(start))
                while _ms(day) < min(file.end_ms, end):
                    yield ArchiveFile.of_day(series, day)
                    day += timedelta(days=1)
            month = _next_month(month)

    def _newest(self, series: SeriesKey, patience: Patience) -> ArchiveFile:
        """Return the latest file of a series.

        Raises
        ------
        InvalidInputError
            If there is none at all.
        """
        today = self._today()
        for days in (1, 2):
            file = ArchiveFile.of_day(series, today - timedelta(days=days))
            if self._is_there(file, patience):
                return file
        month = today.replace(day=1)
        while month > FIRST_MONTH:
            month = (month - timedelta(days=1)).replace(day=1)
            file = ArchiveFile.of_month(series, month)
            if self._is_there(file, patience):
                return file
        raise InvalidInputError(
            f"Unknown pair {series.pair!r} in {self.name}: there is no file of its {series.timeframe} candles, such as "
            f"{self._base_url}/{ArchiveFile.of_day(series, today - timedelta(days=1)).path}. Check the spelling."
        )

    def _is_there(self, file: ArchiveFile, patience: Patience) -> bool:
        def request() -> bool:
            return self._checksum(file, patience) is not None

        return self._retrying.ask(f"{file.name}.CHECKSUM", request, patience)

    def _ask(self, file: ArchiveFile, patience: Patience) -> bytes | None:
        """Return what a file holds, whose checksum is right; None if there is no such file."""

        def request() -> bytes | None:
            reply = self._get(file.path, patience)
            if reply is None:
                return None
            expected, found = self._checksum(file, patience), hashlib.sha256(reply.content).hexdigest()
            if expected is None:
                raise TransientError(f"there is no checksum beside {file.name}", is_answered=True)
            if found != expected:
                raise TransientError(
                    f"{file.name} has the SHA-256 {found}, expected {expected} ({len(reply.content)} bytes, "
                    f"{reply.beginning})",
                    is_answered=True,
                )
            return reply.content

        return self._retrying.ask(file.name, request, patience)

    def _checksum(self, file: ArchiveFile, patience: Patience) -> str | None:
        """Return the SHA-256 that a file should have; None if there is none beside it."""
        reply = self._get(f"{file.path}.CHECKSUM", patience)
        if reply is None:
            return None
        found = _CHECKSUM.fullmatch(reply.content.decode(errors="replace"))
        if found is None or found[2] != file.name:
            raise TransientError(
                f"{file.name}.CHECKSUM holds no SHA-256 of {file.name} ({reply.beginning})", is_answered=True
            )
        return found[1].lower()

    def _get(self, path: str, patience: Patience) -> Reply | None:
        """Make one request; None for 404."""
        url = f"{self._base_url}/{path}"
        reply = request_once(self._session, self.name, url, deadline_s=patience.deadline_s)
        if reply.status == 404:
            return None
        if reply.status != 200:
            raise SourceError(f"{self.name} answered HTTP {reply.status} {reply.reason} to {url} ({reply.beginning}).")
        return reply

    def _read(self, file: ArchiveFile, series: SeriesKey, data: bytes) -> FileCandles:
        """Read a file's candles; all have closed, since files are made of days that are over."""
        try:
            read = read_candles(io.BytesIO(data), file.name, series.timeframe, now_ms=file.end_ms)
        except CandleError as error:
            raise SourceError(f"{self.name} published a file that cannot be used: {error}") from error
        first = int(read.candles.open_time_ms[0])
        if first < file.start_ms:
            raise SourceError(
                f"{self.name}: {file.name} holds a candle of {iso_utc(first)}, expected none before "
                f"{iso_utc(file.start_ms)}."
            )
        return read

    def _today(self) -> date:
        return _date(self._clock_ms())


def _path(series: SeriesKey, period: str, stamp: str) -> str:
    symbol = series.market.base + series.market.quote
    return f"data/spot/{period}/klines/{symbol}/{series.timeframe}/{symbol}-{series.timeframe}-{stamp}.zip"


def _listed(files: list[ArchiveFile]) -> str:
    shown = ", ".join(file.name for file in files[:3])
    return f"{shown}{', …' if len(files) > 3 else ''} {'are' if len(files) > 1 else 'is'}"


def _next_month(month: date) -> date:
    return (month + timedelta(days=31)).replace(day=1)


def _date(time_ms: int) -> date:
    return datetime.fromtimestamp(time_ms / 1000, UTC).date()


def _ms(day: date) -> int:
    return int(datetime(day.year, day.month, day.day, tzinfo=UTC).timestamp()) * 1000
