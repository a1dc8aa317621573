"""Candles from a source into the database: only what is missing, and what was fetched is kept."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import date

import numpy as np
import pytest

from tradepulse_pipeline.database.candles import load_candles, store_candles
from tradepulse_pipeline.database.corporate_actions import load_actions
from tradepulse_pipeline.database.ingestion import OVERLAP, RECHECKED, Span, ingest, missing_spans, refresh, without
from tradepulse_pipeline.database.quarantine import quarantined, set_aside
from tradepulse_pipeline.database.sources import absent_spans, deviations
from tradepulse_pipeline.errors import HistoryUnavailableError, InvalidInputError, SourceError, SourceUnreachableError
from tradepulse_pipeline.market.calendars import calendar_of
from tradepulse_pipeline.market.candles import PRICE_COLUMNS, Candles
from tradepulse_pipeline.market.corporate_actions import Dividend
from tradepulse_pipeline.market.history import HistorySettings
from tradepulse_pipeline.market.series import MS_PER_DAY, TIMEFRAMES, Market, SeriesKey, Timeframe
from tradepulse_pipeline.market.sources.base import Offer, Page
from tradepulse_pipeline.market.sources.rows import Rejected
from tradepulse_pipeline.market.sources.simulated import SimulatedMarketSettings, simulate

START = 1_704_067_200_000
STEP = 3_600_000
SPAN = (START, START + 20 * MS_PER_DAY)
CANDLES = simulate(
    Market.parse("simulated", "BTC/USDT"), Timeframe("1h"), *SPAN, SimulatedMarketSettings(outages_per_year=0)
)


@dataclass
class RecordedSource:
    """Gives candles in pages of a day, and remembers what it was asked for."""

    candles: Candles = CANDLES
    failure: Exception | None = None
    pages_before_failure: int = 0
    rejected: tuple[Rejected, ...] = ()
    asked: list[Span] = field(default_factory=list)
    name: str = "recorded"

    def offer(self) -> Offer:
        return Offer(timeframes=TIMEFRAMES, history="what was recorded")

    def check(self, series: SeriesKey) -> None:
        if self.failure is not None and not self.pages_before_failure:
            raise self.failure

    def pages(self, series: SeriesKey, start_ms: int, end_ms: int) -> Iterator[Page]:
        self.asked.append(Span(start_ms, end_ms))
        for number, start in enumerate(range(start_ms, end_ms, MS_PER_DAY)):
            if self.failure is not None and number >= self.pages_before_failure:
                raise self.failure
            page = self.candles.between(start, min(start + MS_PER_DAY, end_ms))
            yield Page(candles=page, rejected=self.rejected if number == 0 else ())


class ForgetfulSource(RecordedSource):
    """Gives the candles of the last days only."""

    def pages(self, series: SeriesKey, start_ms: int, end_ms: int) -> Iterator[Page]:
        if end_ms < SPAN[1]:
            self.asked.append(Span(start_ms, end_ms))
            raise HistoryUnavailableError("Only the latest candles.")
        yield from super().pages(series, start_ms, end_ms)


@pytest.fixture
def series(request):
    return SeriesKey.of("binance", f"T{abs(hash(request.node.name)) % 10**9}/USDT", "1h")


def columns(candles):
    return [candles.open_time_ms.tolist(), candles.close.tolist()]


def test_the_first_time_everything_is_fetched_and_the_second_time_only_the_last_candle(database, series):
    source, told = RecordedSource(), []
    first = ingest(database, series, [source], *SPAN, told.append)
    second = ingest(database, series, [source], SPAN[0], SPAN[1] + STEP)
    assert (first.inserted, first.unchanged) == (480, 0)
    assert (second.inserted, second.unchanged) == (0, RECHECKED)
    assert source.asked == [SPAN, (SPAN[1] - RECHECKED * STEP, SPAN[1] + STEP)]
    assert columns(load_candles(database, series)) == columns(CANDLES)
    assert [progress.done for progress in told] == [*range(24, 481, 24), 480]
    assert {progress.total for progress in told} == {480}


def test_a_longer_history_and_long_gaps_are_filled_up_the_latest_first(database, series):
    times = CANDLES.open_time_ms
    stored = [CANDLES.slice(100, 200), CANDLES.slice(203, 300), CANDLES.slice(304, 400)]
    for part in stored:
        store_candles(database, series, part, "file")
    source = RecordedSource()
    ingest(database, series, [source], *SPAN)
    assert source.asked == [
        # It holds the gap of 4 candles as well; that of 3 candles before is filled forward when it is read.
        (times[400] - RECHECKED * STEP, SPAN[1]),
        (SPAN[0], times[100]),
    ]
    assert len(load_candles(database, series)) == 480 - 3


def test_gaps_that_the_source_no_longer_knows_are_a_warning_and_the_newest_candles_come_all_the_same(database, series):
    for part in (CANDLES.slice(0, 100), CANDLES.slice(200, 300), CANDLES.slice(350, 400)):
        store_candles(database, series, part, "file")
    source = ForgetfulSource()
    done = ingest(database, series, [source], *SPAN)
    assert len(source.asked) == 2  # what is older than a span that it does not know, it does not know either
    assert done.warnings == (
        f"recorded gives no candles of {series} from before 2024-01-09T08:00Z: those that are not stored stay missing.",
    )
    assert len(load_candles(database, series)) == 480 - 100


def test_nothing_but_candles_that_the_source_no_longer_knows_is_an_error(database, series):
    with pytest.raises(HistoryUnavailableError):
        ingest(database, series, [ForgetfulSource()], START, START + 10 * MS_PER_DAY)


def test_what_came_before_a_failure_is_kept_and_the_next_run_goes_on_from_there(database, series):
    failing = RecordedSource(failure=SourceError("500 for good"), pages_before_failure=5)
    with pytest.raises(SourceError, match="500 for good"):
        ingest(database, series, [failing], *SPAN)
    kept = load_candles(database, series)
    assert columns(kept) == columns(CANDLES.slice(0, 120))
    source = RecordedSource()
    ingest(database, series, [source], *SPAN)
    assert source.asked == [(kept.end_ms - RECHECKED * STEP, SPAN[1])]
    assert columns(load_candles(database, series)) == columns(CANDLES)


def test_a_restated_candle_is_counted_and_bad_rows_are_set_aside(database, series):
    store_candles(database, series, CANDLES.slice(0, 479), "file")
    close = CANDLES.close.copy()
    close[478] = (CANDLES.low[478] + CANDLES.high[478]) / 2
    restated = Candles.from_arrays(
        CANDLES.timeframe, CANDLES.open_time_ms, CANDLES.open, CANDLES.high, CANDLES.low, close, CANDLES.volume
    )
    bad = Rejected(row=3, reason="negative volume", values=(START, 1.0, 1.0, 1.0, 1.0, -1.0))
    done = ingest(database, series, [RecordedSource(candles=restated, rejected=(bad,))], *SPAN)
    assert (done.inserted, done.restated, done.rejected) == (1, 1, 1)
    assert done.warnings == ("Rows of recorded set aside: 1 negative volume (row 3).",)
    (row,) = quarantined(database, series)
    assert (row.reason, row.row_number, row.raw["volume"]) == ("negative volume", 2, -1.0)


def test_a_candle_that_was_set_aside_stays_out_when_it_is_fetched_again(database, series):
    store_candles(database, series, CANDLES, "file")
    times = [int(time) for time in CANDLES.open_time_ms[100:110]]
    for time in times:
        set_aside(database, series, time, "looks wrong")
    source = RecordedSource()
    done = ingest(database, series, [source], *SPAN)
    assert (times[0], times[-1] + STEP) in source.asked
    assert (done.inserted, done.set_aside) == (0, 10)
    assert len(load_candles(database, series)) == 470


def test_simulated_candles_follow_their_settings(database):
    series = SeriesKey.of("simulated", "INGEST/USDT", "1h")
    ingest(database, series, [RecordedSource()], *SPAN)
    other = simulate(series.market, series.timeframe, *SPAN, SimulatedMarketSettings(edge=5.0, outages_per_year=0))
    done = ingest(database, series, [RecordedSource(candles=other)], *SPAN)
    assert done.restated == 480
    assert columns(load_candles(database, series)) == columns(other)


def sources_of(database, series):
    """Return how many stored candles came from which source."""
    query = "SELECT source, count(*) FROM market_data WHERE pair = %s GROUP BY source ORDER BY source"
    return dict(database.run(lambda connection: connection.execute(query, (series.pair,)).fetchall()))


class TestTheNextSource:
    def test_gives_what_the_first_one_lacks(self, database, series):
        late = RecordedSource(candles=CANDLES.slice(300, 480), name="late")
        other = RecordedSource(name="other")
        done = ingest(database, series, [late, other], *SPAN)
        assert columns(load_candles(database, series)) == columns(CANDLES)
        assert sources_of(database, series) == {"late": 180, "other": 300}
        assert (done.inserted, done.restated) == (480, 0)
        assert other.asked == [(SPAN[0], SPAN[0] + (300 + OVERLAP) * STEP)]

    def test_goes_on_where_the_first_one_failed(self, database, series):
        failing = RecordedSource(failure=SourceError("500 for good."), pages_before_failure=5, name="failing")
        other = RecordedSource(name="other")
        done = ingest(database, series, [failing, other], *SPAN)
        assert columns(load_candles(database, series)) == columns(CANDLES)
        assert sources_of(database, series) == {"failing": 120, "other": 360}
        assert done.warnings == ("500 for good. other is asked for what is missing.",)

    def test_is_not_asked_when_nothing_is_missing(self, database, series):
        other = RecordedSource(name="other")
        ingest(database, series, [RecordedSource(), other], *SPAN)
        assert other.asked == []

    def test_is_named_in_the_error_when_it_fails_too(self, database, series):
        one, other = (
            RecordedSource(failure=SourceError(f"{n} is down."), pages_before_failure=k, name=n)
            for n, k in (("a", 2), ("b", 3))
        )
        with pytest.raises(SourceError, match=r"a is down\. Then: b is down\."):
            ingest(database, series, [one, other], *SPAN)
        assert sources_of(database, series) == {"a": 48, "b": 24}

    def test_is_compared_with_the_first_one_and_changes_nothing_of_it(self, database, series):
        half = CANDLES.slice(240, 480)
        dearer = Candles.from_arrays(
            CANDLES.timeframe,
            CANDLES.open_time_ms,
            *(getattr(CANDLES, name) * 1.01 for name in ("open", "high", "low", "close")),
            CANDLES.volume,
        )
        sources = [RecordedSource(candles=half, name="one"), RecordedSource(candles=dearer, name="two")]
        done = ingest(database, series, sources, *SPAN)
        assert done.restated == 0
        assert columns(load_candles(database, series).slice(240, 480)) == columns(half)
        (found,) = deviations(database, series)
        assert (found.source, found.against) == ("two", "one")
        assert found.sentence.startswith("one against two: 50 common candles, 50 differ, by 0.99 % at most")
        assert done.warnings == (found.sentence,)


class TestWhatASourceDoesNotHave:
    gap = Candles.from_arrays(
        CANDLES.timeframe,
        *(np.delete(getattr(CANDLES, name), slice(100, 200)) for name in ("open_time_ms", *PRICE_COLUMNS)),
    )

    def test_is_asked_for_once(self, database, series):
        source = RecordedSource(candles=self.gap)
        ingest(database, series, [source], SPAN[0] - MS_PER_DAY, SPAN[1])
        source.asked.clear()
        ingest(database, series, [source], SPAN[0] - MS_PER_DAY, SPAN[1] + STEP)
        assert source.asked == [(SPAN[1] - RECHECKED * STEP, SPAN[1] + STEP)]

    def test_is_asked_for_again_on_demand(self, database, series):
        ingest(database, series, [RecordedSource(candles=self.gap)], *SPAN)
        mended = RecordedSource()
        ingest(database, series, [mended], *SPAN)
        assert mended.asked == []
        done = ingest(database, series, [mended], *SPAN, ask_again=True)
        assert (mended.asked, done.inserted) == ([SPAN], 100)

    def test_is_asked_of_another_one(self, database, series):
        ingest(database, series, [RecordedSource(candles=self.gap)], *SPAN)
        ingest(database, series, [RecordedSource(candles=self.gap), RecordedSource(name="other")], *SPAN)
        assert columns(load_candles(database, series)) == columns(CANDLES)

    def test_is_not_settled_within_the_latest_day(self, database, series, monkeypatch):
        monkeypatch.setattr("time.time_ns", lambda: SPAN[1] * 1_000_000)
        ingest(database, series, [RecordedSource(candles=CANDLES.slice(0, 440))], *SPAN)
        assert absent_spans(database, series, "recorded") == [(SPAN[0] + 440 * STEP, SPAN[1] - MS_PER_DAY)]


class TestShares:
    """Daily candles of a share from January to March, with weekends, two holidays and a hole of a week."""

    series = SeriesKey.of("xnas", "AAPL/USD", "1d")
    days = calendar_of("xnas").expected(Timeframe("1d"), 1_704_067_200_000, 1_711_929_600_000)
    prices = [np.linspace(100, 130, len(days))] * 4
    candles = Candles.from_arrays(Timeframe("1d"), days, *prices, np.full(len(days), 1e6), calendar=calendar_of("xnas"))

    @dataclass
    class Vendor(RecordedSource):
        def actions(self, series):
            return (Dividend(ex_date=date(2024, 2, 9), amount=0.24),)

    def test_a_closed_market_is_nothing_to_fetch(self, database):
        span = (int(self.days[0]), int(self.days[-1]) + MS_PER_DAY)
        source = self.Vendor(candles=self.candles)
        done = ingest(database, self.series, [source], *span)
        assert done.inserted == len(self.days) == 61
        assert load_actions(database, self.series.market) == self.Vendor().actions(self.series)
        assert missing_spans(self.days, self.series.timeframe, *span, calendar=self.candles.calendar) == []
        hole = np.delete(self.days, slice(20, 25))
        assert missing_spans(hole, self.series.timeframe, *span, calendar=self.candles.calendar) == [
            (int(self.days[19]) + MS_PER_DAY, int(self.days[25]))
        ]

    def test_candles_come_also_where_splits_and_dividends_do_not(self, database):
        class Without(self.Vendor):
            def actions(self, series):
                raise SourceError("This needs a paid key.")

        series = SeriesKey.of("xnas", "MSFT/USD", "1d")
        done = ingest(database, series, [Without(candles=self.candles)], int(self.days[0]), int(self.days[-1]))
        assert done.inserted == 60
        assert done.warnings == ("This needs a paid key. The splits and dividends of xnas:MSFT-USD may be incomplete.",)


@pytest.mark.parametrize("seed", range(20))
def test_known_spans_taken_out_leave_exactly_the_rest(seed):
    rng = np.random.default_rng(seed)
    known = [Span(start, start + length) for start, length in rng.integers((-5, 1), (40, 12), (6, 2)).tolist()]
    left = without(Span(3, 35), known)
    members = [n for span in left for n in range(*span)]
    assert sorted(members) == [n for n in range(3, 35) if not any(span.start_ms <= n < span.end_ms for span in known)]
    assert left == sorted(left, reverse=True)


class TestWhereCandlesMayComeFrom:
    history = HistorySettings(start_ms=SPAN[0], end_ms=SPAN[1])
    away = SourceUnreachableError("binance cannot be reached.")

    def refresh(self, database, series, source, origin):
        history = HistorySettings(source=origin, start_ms=SPAN[0], end_ms=SPAN[1])
        return refresh(database, series, history, lambda: [source])

    def test_auto_goes_on_with_stored_candles_and_says_so(self, database, series):
        store_candles(database, series, CANDLES, "file")
        done = self.refresh(database, series, RecordedSource(failure=self.away), "auto")
        assert done.warnings == ("binance cannot be reached. Going on with the stored candles.",)

    def test_exchange_does_not(self, database, series):
        store_candles(database, series, CANDLES, "file")
        with pytest.raises(SourceUnreachableError, match=r"cannot be reached\. Import candle files"):
            self.refresh(database, series, RecordedSource(failure=self.away), "exchange")

    @pytest.mark.parametrize("origin", ["auto", "exchange"])
    def test_without_stored_candles_the_error_names_the_ways_out(self, database, series, origin):
        pair = series.market
        with pytest.raises(SourceUnreachableError) as raised:
            self.refresh(database, series, RecordedSource(failure=self.away), origin)
        assert f"tradepulse import FILE --exchange binance --pair {pair.pair} --timeframe 1h" in str(raised.value)
        assert f"simulated:{pair.base}-USDT:1h" in str(raised.value)

    def test_an_unknown_pair_is_an_error_unless_its_candles_are_stored(self, database, series):
        unknown = RecordedSource(failure=InvalidInputError("Unknown pair."))
        with pytest.raises(InvalidInputError, match="Unknown pair"):
            self.refresh(database, series, unknown, "auto")
        store_candles(database, series, CANDLES, "file")
        assert "Unknown pair." in self.refresh(database, series, unknown, "auto").warnings[0]

    def test_stored_asks_nobody(self, database, series):
        source = RecordedSource(failure=self.away)
        with pytest.raises(InvalidInputError, match=r"No candles of .* are stored, and source is 'stored'"):
            self.refresh(database, series, source, "stored")
        store_candles(database, series, CANDLES, "file")
        assert self.refresh(database, series, source, "stored").warnings == ()
        assert source.asked == []


def test_a_source_that_fails_on_the_way_is_never_taken_for_one_that_is_away(database, series):
    store_candles(database, series, CANDLES.slice(0, 100), "file")
    failing = RecordedSource(failure=SourceError("500 for good"), pages_before_failure=7)
    history = HistorySettings(start_ms=SPAN[0], end_ms=SPAN[1])
    with pytest.raises(SourceError, match="500 for good"):
        refresh(database, series, history, lambda: [failing])
    assert len(load_candles(database, series)) == 7 * 24


def test_nothing_is_missing_when_all_is_there():
    times = np.arange(START, START + 10 * STEP, STEP)
    assert missing_spans(times, Timeframe("1h"), START, START + 10 * STEP) == []
