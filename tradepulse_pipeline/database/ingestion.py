"""Bringing candles from a source into the database: what is missing, page by page, each stored as it comes."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, NamedTuple

import numpy as np

from tradepulse_pipeline.database.candles import RefusedRow, coverage_of, load_candles, quarantine, store_candles
from tradepulse_pipeline.database.connection import Database
from tradepulse_pipeline.errors import HistoryUnavailableError, InvalidInputError, SourceError
from tradepulse_pipeline.market.candles import MAX_FILL, PRICE_COLUMNS, IntArray
from tradepulse_pipeline.market.history import HistorySettings
from tradepulse_pipeline.market.series import MS_PER_DAY, SIMULATED_EXCHANGE, SeriesKey, Timeframe
from tradepulse_pipeline.market.sources.base import CandleSource, Page
from tradepulse_pipeline.market.sources.rows import Rejected, count_reasons
from tradepulse_pipeline.market.sources.times import iso_utc
from tradepulse_pipeline.progress import Progress, ProgressListener, ignore_progress

_RAW_COLUMNS: Final = ("open_time_ms", *PRICE_COLUMNS)


@dataclass(frozen=True, slots=True, kw_only=True)
class Ingestion:
    """What became of the candles of a source.

    Attributes
    ----------
    inserted, unchanged, restated : int
        Candles that are new, that were stored already, and whose stored values were others before.
    rejected : int
        Rows that break the data contract: they are in quarantine.
    warnings : tuple of str
        Sentences for the user.
    """

    inserted: int = 0
    unchanged: int = 0
    restated: int = 0
    rejected: int = 0
    warnings: tuple[str, ...] = ()

    def __add__(self, other: Ingestion) -> Ingestion:
        return Ingestion(
            inserted=self.inserted + other.inserted,
            unchanged=self.unchanged + other.unchanged,
            restated=self.restated + other.restated,
            rejected=self.rejected + other.rejected,
            warnings=tuple(dict.fromkeys((*self.warnings, *other.warnings))),
        )


class Span(NamedTuple):
    """A half-open span of open times, UTC milliseconds."""

    start_ms: int
    end_ms: int


def refresh(
    database: Database,
    series: SeriesKey,
    history: HistorySettings,
    make_source: Callable[[], CandleSource],
    on_progress: ProgressListener = ignore_progress,
) -> Ingestion:
    """Fetch what ``history`` asks for and the database does not have, as far as ``history.source`` allows.

    With ``auto``, an exchange that cannot be asked is a warning where candles are stored.

    Raises
    ------
    SourceError
        If candles are needed and the source cannot give them, or if it fails while it gives them: what came before
        is stored, and the next run goes on from there.
    InvalidInputError
        If the exchange, the pair or the timeframe is unknown, or nothing is stored and no exchange may be asked.
    """
    is_stored = coverage_of(database, series) is not None
    if history.source == "stored":
        if not is_stored:
            raise InvalidInputError(f"No candles of {series} are stored, and source is 'stored'. {_ways_out(series)}")
        return Ingestion()
    end_ms = history.end_ms if history.end_ms is not None else time.time_ns() // 1_000_000
    start_ms = history.start_ms if history.start_ms is not None else end_ms - history.history_days * MS_PER_DAY
    try:
        source = make_source()
        source.check(series)
    except (SourceError, InvalidInputError) as error:
        if history.source == "auto" and is_stored:
            return Ingestion(warnings=(f"{error} Going on with the stored candles.",))
        if isinstance(error, InvalidInputError):
            raise
        raise type(error)(f"{error} {_ways_out(series)}") from error
    return ingest(database, series, source, start_ms, end_ms, on_progress)


def ingest(
    database: Database,
    series: SeriesKey,
    source: CandleSource,
    start_ms: int,
    end_ms: int,
    on_progress: ProgressListener = ignore_progress,
) -> Ingestion:
    """Fetch the candles of ``[start_ms, end_ms)`` that are not stored yet, the latest first, and store each page.

    Where the source gives only recent candles, older ones that are missing beside stored ones are a warning. A
    simulated market is asked for all of them: its candles cost nothing, and follow its settings.

    Raises
    ------
    SourceError, InvalidInputError
        From the source; the pages before are stored.
    """
    if series.market.is_simulated:
        spans = [Span(start_ms, end_ms)]
    else:
        stored = load_candles(database, series, start_ms, end_ms).open_time_ms
        spans = missing_spans(stored, series.timeframe, start_ms, end_ms)
    step = series.timeframe.milliseconds
    total, done = sum((span.end_ms - span.start_ms) // step for span in spans), 0
    result = Ingestion()
    for span in spans:
        try:
            for page in source.pages(series, *span):
                result += _store_page(database, series, page, source.name)
                if len(page.candles):
                    fetched = done + (page.candles.end_ms - span.start_ms) // step
                    on_progress(Progress(phase="candles", done=min(fetched, total), total=total, unit="candles"))
        except HistoryUnavailableError:
            if span.end_ms == end_ms:
                raise
            result += Ingestion(
                warnings=(
                    f"{source.name} gives no candles of {series} from before {iso_utc(span.end_ms)}: those that are "
                    "not stored stay missing.",
                )
            )
            break
        done += (span.end_ms - span.start_ms) // step
    if total:
        on_progress(Progress(phase="candles", done=total, total=total, unit="candles"))
    return result


def missing_spans(open_time_ms: IntArray, timeframe: Timeframe, start_ms: int, end_ms: int) -> list[Span]:
    """Return what a source must be asked for, the latest span first.

    That is the time from the last stored candle on (which may have been restated), the time before the first one, and
    the gaps between that are too long to be filled forward.

    Parameters
    ----------
    open_time_ms : int64 array of shape (n_candles,)
        Ascending open times of the stored candles within the span.

    Examples
    --------
    >>> minute = 60_000
    >>> missing_spans(np.array([10, 11, 20]) * minute, Timeframe("1m"), 0, 30 * minute)
    [Span(start_ms=1200000, end_ms=1800000), Span(start_ms=720000, end_ms=1200000), Span(start_ms=0, end_ms=600000)]
    """
    if not len(open_time_ms):
        return [Span(start_ms, end_ms)]
    step = timeframe.milliseconds
    first, last = int(open_time_ms[0]), int(open_time_ms[-1])
    before_gaps = np.flatnonzero(np.diff(open_time_ms) > (MAX_FILL + 1) * step)
    spans = [Span(start_ms, first)] if first - start_ms > MAX_FILL * step else []
    spans += [Span(int(open_time_ms[i]) + step, int(open_time_ms[i + 1])) for i in before_gaps]
    spans += [Span(last, end_ms)] if end_ms - last > step else []
    return spans[::-1]


def _store_page(database: Database, series: SeriesKey, page: Page, source: str) -> Ingestion:
    stored = store_candles(database, series, page.candles, source)
    quarantine(database, series, [_refused(row) for row in page.rejected], source)
    warnings = [page.warning] if page.warning else []
    if page.rejected:
        warnings.append(f"Rows of {source} set aside: {count_reasons(page.rejected)}.")
    return Ingestion(
        inserted=stored.inserted,
        unchanged=stored.unchanged,
        restated=stored.restated,
        rejected=len(page.rejected),
        warnings=tuple(warnings),
    )


def _refused(row: Rejected) -> RefusedRow:
    return RefusedRow(row_number=row.row - 1, raw=dict(zip(_RAW_COLUMNS, row.values, strict=True)), reason=row.reason)


def _ways_out(series: SeriesKey) -> str:
    market = series.market
    return (
        f"Import candle files (tradepulse import FILE --exchange {market.exchange} --pair {market.pair} --timeframe "
        f"{series.timeframe}), or train on the simulated market: the series "
        f"{SIMULATED_EXCHANGE}:{market.base}-{market.quote}:{series.timeframe}."
    )
