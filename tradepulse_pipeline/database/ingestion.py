"""Bringing candles from a source into the database: what is missing, page by page, each stored as it comes."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Final, NamedTuple

import numpy as np

from tradepulse_pipeline.database.candles import coverage_of, load_candles, store_candles
from tradepulse_pipeline.database.connection import Database
from tradepulse_pipeline.database.corporate_actions import store_actions
from tradepulse_pipeline.database.quarantine import RefusedRow, quarantine
from tradepulse_pipeline.database.sources import absent_spans, given_by_others, remember_absent, store_deviation
from tradepulse_pipeline.database.staleness import stale_sentence
from tradepulse_pipeline.errors import HistoryUnavailableError, InvalidInputError, SourceError
from tradepulse_pipeline.market.calendars import NEVER_CLOSES, TradingCalendar, calendar_of
from tradepulse_pipeline.market.candles import MAX_FILL, Candles, IntArray
from tradepulse_pipeline.market.deviation import compare
from tradepulse_pipeline.market.history import HistorySettings
from tradepulse_pipeline.market.series import MS_PER_DAY, SIMULATED_EXCHANGE, SeriesKey, Timeframe
from tradepulse_pipeline.market.sources.base import CandleSource, CorporateActionSource, Page
from tradepulse_pipeline.market.sources.rows import count_reasons
from tradepulse_pipeline.market.sources.times import iso_utc
from tradepulse_pipeline.progress import Progress, ProgressListener, ignore_progress

#: Stored candles, the latest ones, that are asked for again with what follows them.
RECHECKED: Final = 100

#: Candles on both sides of a missing span that a second source is asked for as well, to compare it with the first.
OVERLAP: Final = 50


@dataclass(frozen=True, slots=True, kw_only=True)
class Ingestion:
    """What became of the candles of a source.

    Attributes
    ----------
    inserted, unchanged, restated : int
        Candles that are new, that were stored already, and whose stored values were others before.
    rejected : int
        Rows that break the data contract: they are in quarantine.
    set_aside : int
        Candles that a person has set aside, and that stayed out.
    made_stale : int
        Trained configurations whose candles have become others.
    warnings : tuple of str
        Sentences for the user.
    """

    inserted: int = 0
    unchanged: int = 0
    restated: int = 0
    rejected: int = 0
    set_aside: int = 0
    made_stale: int = 0
    warnings: tuple[str, ...] = ()

    def __add__(self, other: Ingestion) -> Ingestion:
        return Ingestion(
            inserted=self.inserted + other.inserted,
            unchanged=self.unchanged + other.unchanged,
            restated=self.restated + other.restated,
            rejected=self.rejected + other.rejected,
            set_aside=self.set_aside + other.set_aside,
            made_stale=self.made_stale + other.made_stale,
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
    make_sources: Callable[[], Sequence[CandleSource]],
    on_progress: ProgressListener = ignore_progress,
    *,
    ask_again: bool = False,
) -> Ingestion:
    """Fetch what ``history`` asks for and the database does not have, as far as ``history.source`` allows.

    The sources are asked in their order: one that cannot be asked is left out with a warning while another can. With
    ``auto``, none that can be asked is a warning where candles are stored.

    Raises
    ------
    SourceError
        If candles are needed and no source can give them, or if all fail while they give them: what came before is
        stored, and the next run goes on from there.
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
    able: list[CandleSource] = []
    failures: list[SourceError | InvalidInputError] = []
    for source in make_sources():
        try:
            source.check(series)
        except (SourceError, InvalidInputError) as error:
            failures.append(error)
        else:
            able.append(source)
    if not able:
        message = " ".join(str(failure) for failure in failures)
        if history.source == "auto" and is_stored:
            return Ingestion(warnings=(f"{message} Going on with the stored candles.",))
        if not isinstance(failures[0], InvalidInputError):
            message = f"{message} {_ways_out(series)}"
        raise type(failures[0])(message) from failures[0]
    skipped = Ingestion(warnings=tuple(f"{error} The next source was asked." for error in failures))
    return skipped + ingest(database, series, able, start_ms, end_ms, on_progress, ask_again=ask_again)


def ingest(
    database: Database,
    series: SeriesKey,
    sources: Sequence[CandleSource],
    start_ms: int,
    end_ms: int,
    on_progress: ProgressListener = ignore_progress,
    *,
    ask_again: bool = False,
) -> Ingestion:
    """Fetch the candles of ``[start_ms, end_ms)`` that are not stored yet, the latest first, and store each page.

    What the first source does not have, or has not given when it fails, the next one is asked for; where candles of
    both are at hand they are compared, and the stored ones hold. What a source has been found not to have it is asked
    for again after a month only. With ``ask_again`` it is asked for everything, also for what is stored: that finds
    what was restated. A simulated market is asked for all its candles: they cost nothing, and follow its settings.

    Raises
    ------
    SourceError, InvalidInputError
        From the sources, if the last one fails too or is alone; the pages before are stored.
    """
    result = Ingestion()
    failure: SourceError | None = None
    for number, source in enumerate(sources):
        fetching = _Fetching(database, series, source, Span(start_ms, end_ms), is_fallback=number > 0)
        spans = fetching.spans(ask_again=ask_again)
        if number and not spans:
            break
        try:
            for done in fetching.fetch(spans, on_progress):
                result += done
        except SourceError as error:
            if number == len(sources) - 1:
                raise error if failure is None else type(error)(f"{failure} Then: {error}") from error
            failure = error
            result += Ingestion(warnings=(f"{error} {sources[number + 1].name} is asked for what is missing.",))
        else:
            failure = None
        result += fetching.deviation()
    if result.made_stale:
        result += Ingestion(warnings=(stale_sentence(result.made_stale),))
    return result


class _Fetching:
    """What one source is asked for, and what becomes of its answers."""

    def __init__(
        self, database: Database, series: SeriesKey, source: CandleSource, wanted: Span, *, is_fallback: bool
    ) -> None:
        self._database = database
        self._series = series
        self._source = source
        self._wanted = wanted
        self._is_fallback = is_fallback
        self._calendar = calendar_of(series.exchange)
        self._overlap: list[Candles] = []

    def spans(self, *, ask_again: bool) -> list[Span]:
        """Return what the source has to be asked for, the latest span first."""
        if self._series.market.is_simulated or ask_again:
            return [self._wanted]
        stored = load_candles(self._database, self._series, *self._wanted).open_time_ms
        n_rechecked = 0 if self._is_fallback else RECHECKED
        missing = missing_spans(
            stored, self._series.timeframe, *self._wanted, n_rechecked=n_rechecked, calendar=self._calendar
        )
        known = [Span(*span) for span in absent_spans(self._database, self._series, self._source.name)]
        left = [part for span in missing for part in without(span, known)]
        return [span for span in left if self._n_candles(span) > MAX_FILL or span.end_ms == self._wanted.end_ms]

    def fetch(self, spans: Sequence[Span], on_progress: ProgressListener) -> Iterator[Ingestion]:
        """Ask for spans, store the pages as they come, and yield what became of each."""
        if spans and isinstance(self._source, CorporateActionSource):
            yield self._store_actions(self._source)
        total, done = sum(self._n_candles(span) for span in spans), 0
        for span in spans:
            fetched: list[IntArray] = []
            try:
                for page in self._source.pages(self._series, *self._asked(span)):
                    yield self._store(page, span)
                    if len(page.candles):
                        fetched.append(page.candles.open_time_ms)
                        reached = min(max(page.candles.end_ms, span.start_ms), span.end_ms)
                        so_far = done + self._n_candles(Span(span.start_ms, reached))
                        on_progress(Progress(phase="candles", done=so_far, total=total, unit="candles"))
            except HistoryUnavailableError:
                if span.end_ms == self._wanted.end_ms:
                    raise
                yield Ingestion(
                    warnings=(
                        f"{self._source.name} gives no candles of {self._series} from before {iso_utc(span.end_ms)}: "
                        "those that are not stored stay missing.",
                    )
                )
                break
            self._remember_absent(span, np.concatenate([np.empty(0, dtype=np.int64), *fetched]))
            done += self._n_candles(span)
        if total:
            on_progress(Progress(phase="candles", done=total, total=total, unit="candles"))

    def _store_actions(self, source: CorporateActionSource) -> Ingestion:
        """Store splits and dividends; candles without them are worth something all the same."""
        try:
            actions = source.actions(self._series)
        except SourceError as error:
            warning = f"{error} The splits and dividends of {self._series.market} may be incomplete."
            return Ingestion(warnings=(warning,))
        store_actions(self._database, self._series.market, actions, self._source.name)
        return Ingestion()

    def _asked(self, span: Span) -> Span:
        """Return the span with some candles on both sides, which are compared, where another source gave those."""
        if not self._is_fallback:
            return span
        margin = OVERLAP * self._series.timeframe.milliseconds
        return Span(max(span.start_ms - margin, self._wanted.start_ms), min(span.end_ms + margin, self._wanted.end_ms))

    def _store(self, page: Page, span: Span) -> Ingestion:
        inside = page.candles.between(*span)
        self._overlap += [page.candles.between(None, span.start_ms), page.candles.between(span.end_ms, None)]
        return _store_page(self._database, self._series, replace(page, candles=inside), self._source.name)

    def _remember_absent(self, span: Span, fetched: IntArray) -> None:
        """Note what the source does not have, but for the latest day, of which it may still get some."""
        if self._series.market.is_simulated:
            return
        settled = Span(span.start_ms, min(span.end_ms, time.time_ns() // 1_000_000 - MS_PER_DAY))
        inside = fetched[(fetched >= settled.start_ms) & (fetched < settled.end_ms)]
        edges = np.concatenate([[settled.start_ms - self._step], inside, [settled.end_ms]])
        missing = self._calendar.missing_between(edges, self._series.timeframe)
        gaps = [(int(edges[i]) + self._step, int(edges[i + 1])) for i in np.flatnonzero(missing > MAX_FILL)]
        remember_absent(self._database, self._series, self._source.name, gaps)

    def deviation(self) -> Ingestion:
        """Compare what was fetched beside the missing spans with what is stored there, and keep what comes of it."""
        fetched = Candles.joined(self._series.timeframe, self._overlap)
        times, others = given_by_others(self._database, self._series, self._source.name, fetched.open_time_ms)
        if not len(times):
            return Ingestion()
        stored = load_candles(self._database, self._series, int(times[0]), int(times[-1]) + 1)
        found = compare(stored.at(times), fetched.at(times))
        against = ", ".join(others)
        store_deviation(self._database, self._series, found, self._source.name, against)
        return Ingestion(warnings=(found.sentence(against, self._source.name),) if found.is_notable else ())

    @property
    def _step(self) -> int:
        return self._series.timeframe.milliseconds

    def _n_candles(self, span: Span) -> int:
        if self._calendar.never_closes:
            return (span.end_ms - span.start_ms) // self._step
        return len(self._calendar.expected(self._series.timeframe, *span))


def without(span: Span, known: Sequence[Span]) -> list[Span]:
    """Return what is left of a span when known ones are taken out, the latest first.

    Examples
    --------
    >>> without(Span(0, 10), [Span(2, 3), Span(8, 20)])
    [Span(start_ms=3, end_ms=8), Span(start_ms=0, end_ms=2)]
    """
    left, start = [], span.start_ms
    for one in sorted(known):
        if start < min(one.start_ms, span.end_ms):
            left.append(Span(start, min(one.start_ms, span.end_ms)))
        start = max(start, one.end_ms)
    if start < span.end_ms:
        left.append(Span(start, span.end_ms))
    return left[::-1]


def missing_spans(
    open_time_ms: IntArray,
    timeframe: Timeframe,
    start_ms: int,
    end_ms: int,
    *,
    n_rechecked: int = RECHECKED,
    calendar: TradingCalendar = NEVER_CLOSES,
) -> list[Span]:
    """Return what a source must be asked for, the latest span first.

    That is the time since shortly before the last stored candle (the latest ones are restated most often, and come in
    the same request), the time before the first one, and the gaps between that are too long to be filled forward.

    Parameters
    ----------
    open_time_ms : int64 array of shape (n_candles,)
        Ascending open times of the stored candles within the span.
    n_rechecked : int
        Stored candles, the latest ones, to ask for again.
    calendar : TradingCalendar
        A closed market misses nothing.

    Examples
    --------
    >>> minute = 60_000
    >>> missing_spans(np.array([10, 11, 20]) * minute, Timeframe("1m"), 0, 30 * minute)
    [Span(start_ms=600000, end_ms=1800000), Span(start_ms=0, end_ms=600000)]
    """
    if not len(open_time_ms):
        return [Span(start_ms, end_ms)]
    step = timeframe.milliseconds
    first, last = int(open_time_ms[0]), int(open_time_ms[-1])
    edges = np.concatenate([[start_ms - step], open_time_ms])
    gaps = np.flatnonzero(calendar.missing_between(edges, timeframe) > MAX_FILL)
    spans = [Span(int(edges[i]) + step, int(edges[i + 1])) for i in gaps]
    if end_ms - last > step:
        latest = Span(max(first, last + step - n_rechecked * step), end_ms)
        spans = [part for span in spans for part in without(span, [latest])] + [latest]
    return spans[::-1]


def _store_page(database: Database, series: SeriesKey, page: Page, source: str) -> Ingestion:
    stored = store_candles(database, series, page.candles, source)
    quarantine(database, series, [RefusedRow.of(row) for row in page.rejected], source)
    warnings = [page.warning] if page.warning else []
    if page.rejected:
        warnings.append(f"Rows of {source} set aside: {count_reasons(page.rejected)}.")
    return Ingestion(
        inserted=stored.inserted,
        unchanged=stored.unchanged,
        restated=stored.restated,
        rejected=len(page.rejected),
        set_aside=stored.set_aside,
        made_stale=stored.made_stale,
        warnings=tuple(warnings),
    )


def _ways_out(series: SeriesKey) -> str:
    market = series.market
    return (
        f"Import candle files (tradepulse import FILE --exchange {market.exchange} --pair {market.pair} --timeframe "
        f"{series.timeframe}), or train on the simulated market: the series "
        f"{SIMULATED_EXCHANGE}:{market.base}-{market.quote}:{series.timeframe}."
    )
