"""Candles from a source into the database: only what is missing, and what was fetched is kept."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import pytest

from tradepulse_pipeline.database.candles import load_candles, quarantined, store_candles
from tradepulse_pipeline.database.ingestion import Span, ingest, missing_spans, refresh
from tradepulse_pipeline.errors import HistoryUnavailableError, InvalidInputError, SourceError, SourceUnreachableError
from tradepulse_pipeline.market.candles import Candles
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
    first = ingest(database, series, source, *SPAN, told.append)
    second = ingest(database, series, source, SPAN[0], SPAN[1] + STEP)
    assert (first.inserted, first.unchanged) == (480, 0)
    assert (second.inserted, second.unchanged) == (0, 1)
    assert source.asked == [SPAN, (SPAN[1] - STEP, SPAN[1] + STEP)]
    assert columns(load_candles(database, series)) == columns(CANDLES)
    assert [progress.done for progress in told] == [*range(24, 481, 24), 480]
    assert {progress.total for progress in told} == {480}


def test_a_longer_history_and_long_gaps_are_filled_up_the_latest_first(database, series):
    times = CANDLES.open_time_ms
    stored = [CANDLES.slice(100, 200), CANDLES.slice(203, 300), CANDLES.slice(304, 400)]
    for part in stored:
        store_candles(database, series, part, "file")
    source = RecordedSource()
    ingest(database, series, source, *SPAN)
    assert source.asked == [
        (times[399], SPAN[1]),
        (times[300], times[304]),  # the gap of 3 candles before is filled forward when it is read
        (SPAN[0], times[100]),
    ]
    assert len(load_candles(database, series)) == 480 - 3


def test_gaps_that_the_source_no_longer_knows_are_a_warning_and_the_newest_candles_come_all_the_same(database, series):
    for part in (CANDLES.slice(0, 100), CANDLES.slice(200, 300), CANDLES.slice(350, 400)):
        store_candles(database, series, part, "file")
    source = ForgetfulSource()
    done = ingest(database, series, source, *SPAN)
    assert len(source.asked) == 2  # what is older than a span that it does not know, it does not know either
    assert done.warnings == (
        f"recorded gives no candles of {series} from before 2024-01-15T14:00Z: those that are not stored stay missing.",
    )
    assert len(load_candles(database, series)) == 480 - 50 - 100


def test_nothing_but_candles_that_the_source_no_longer_knows_is_an_error(database, series):
    with pytest.raises(HistoryUnavailableError):
        ingest(database, series, ForgetfulSource(), START, START + 10 * MS_PER_DAY)


def test_what_came_before_a_failure_is_kept_and_the_next_run_goes_on_from_there(database, series):
    failing = RecordedSource(failure=SourceError("500 for good"), pages_before_failure=5)
    with pytest.raises(SourceError, match="500 for good"):
        ingest(database, series, failing, *SPAN)
    kept = load_candles(database, series)
    assert columns(kept) == columns(CANDLES.slice(0, 120))
    source = RecordedSource()
    ingest(database, series, source, *SPAN)
    assert source.asked == [(kept.open_time_ms[-1], SPAN[1])]
    assert columns(load_candles(database, series)) == columns(CANDLES)


def test_a_restated_candle_is_counted_and_bad_rows_are_set_aside(database, series):
    store_candles(database, series, CANDLES.slice(0, 479), "file")
    close = CANDLES.close.copy()
    close[478] = (CANDLES.low[478] + CANDLES.high[478]) / 2
    restated = Candles.from_arrays(
        CANDLES.timeframe, CANDLES.open_time_ms, CANDLES.open, CANDLES.high, CANDLES.low, close, CANDLES.volume
    )
    bad = Rejected(row=3, reason="negative volume", values=(START, 1.0, 1.0, 1.0, 1.0, -1.0))
    done = ingest(database, series, RecordedSource(candles=restated, rejected=(bad,)), *SPAN)
    assert (done.inserted, done.restated, done.rejected) == (1, 1, 1)
    assert done.warnings == ("Rows of recorded set aside: 1 negative volume (row 3).",)
    (row,) = quarantined(database, series)
    assert (row.reason, row.row_number, row.raw["volume"]) == ("negative volume", 2, -1.0)


def test_simulated_candles_follow_their_settings(database):
    series = SeriesKey.of("simulated", "INGEST/USDT", "1h")
    ingest(database, series, RecordedSource(), *SPAN)
    other = simulate(series.market, series.timeframe, *SPAN, SimulatedMarketSettings(edge=5.0, outages_per_year=0))
    done = ingest(database, series, RecordedSource(candles=other), *SPAN)
    assert done.restated == 480
    assert columns(load_candles(database, series)) == columns(other)


class TestWhereCandlesMayComeFrom:
    history = HistorySettings(start_ms=SPAN[0], end_ms=SPAN[1])
    away = SourceUnreachableError("binance cannot be reached.")

    def refresh(self, database, series, source, origin):
        history = HistorySettings(source=origin, start_ms=SPAN[0], end_ms=SPAN[1])
        return refresh(database, series, history, lambda: source)

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
    failing = RecordedSource(failure=SourceError("500 for good"), pages_before_failure=2)
    history = HistorySettings(start_ms=SPAN[0], end_ms=SPAN[1])
    with pytest.raises(SourceError, match="500 for good"):
        refresh(database, series, history, lambda: failing)
    assert len(load_candles(database, series)) == 99 + 48


def test_nothing_is_missing_when_all_is_there():
    times = np.arange(START, START + 10 * STEP, STEP)
    assert missing_spans(times, Timeframe("1h"), START, START + 10 * STEP) == []
