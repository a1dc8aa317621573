"""What an exchange does wrong, from the wire to the table: the rows are those of a run without the fault."""

from __future__ import annotations

import sys
from dataclasses import replace

import numpy as np
import pytest

from tradepulse_pipeline.database.candles import load_candles
from tradepulse_pipeline.database.ingestion import ingest
from tradepulse_pipeline.database.quarantine import quarantined
from tradepulse_pipeline.errors import HistoryUnavailableError, InvalidInputError, SourceError
from tradepulse_pipeline.market.candles import PRICE_COLUMNS, Candles
from tradepulse_pipeline.market.quality import assess
from tradepulse_pipeline.market.series import MS_PER_DAY, Market, SeriesKey, Timeframe
from tradepulse_pipeline.market.sources.exchange import ExchangeSource
from tradepulse_pipeline.market.sources.http import Patience
from tradepulse_pipeline.market.sources.simulated import SimulatedMarketSettings, simulate
from tradepulse_pipeline_tests.loopback import Fault, LoopbackExchange

STEP = 300_000
START = 1_704_067_200_000
BINANCE = SeriesKey.of("binance", "BTC/USDT", "5m")
KRAKEN = SeriesKey.of("kraken", "BTC/USDT", "5m")
CANDLES = simulate(
    Market.parse("simulated", "BTC/USDT"),
    Timeframe("5m"),
    START,
    START + 20 * MS_PER_DAY,
    SimulatedMarketSettings(outages_per_year=60),
)
#: In the middle of the last candle but three.
NOW = CANDLES.end_ms - 3 * STEP - STEP // 2
CLOSED = CANDLES.between(None, NOW - STEP)


@pytest.fixture
def exchange():
    with LoopbackExchange({BINANCE: CANDLES, KRAKEN: CANDLES}, clock_ms=lambda: NOW) as loopback:
        yield loopback


class Eager:
    """Lets everybody's turn come at once, and notes what is to be waited."""

    def __init__(self, waits):
        self.waits = waits

    def wait(self, seconds):
        pass

    def hold(self, seconds):
        self.waits.append(seconds)


def source_at(loopback, venue="binance", **patience):
    waits = []
    source = ExchangeSource(
        venue,
        base_url=loopback.base_url,
        patience=Patience(**patience),
        pace=Eager(waits),
        sleep=waits.append,
        jitter=lambda: 0.5,
    )
    return source, waits


def fetch(database, loopback, series=BINANCE, start=START, end=NOW, **patience):
    source, waits = source_at(loopback, series.exchange, **patience)
    return ingest(database, series, [source], start, end), waits


def assert_stored(database, candles, series=BINANCE):
    stored = load_candles(database, series)
    for name in ("open_time_ms", *PRICE_COLUMNS):
        np.testing.assert_array_equal(getattr(stored, name), getattr(candles, name), err_msg=name)


def changed(candles, at, **values):
    """Return candles with other values in one row."""
    columns = {name: getattr(candles, name).copy() for name in PRICE_COLUMNS}
    for name, value in values.items():
        columns[name][at] = value
    return Candles.from_arrays(candles.timeframe, candles.open_time_ms, *columns.values())


@pytest.mark.parametrize(
    "fault",
    [
        Fault(kind="status", status=429, retry_after="7", path="klines", skip=1),
        Fault(kind="status", status=503, path="klines", skip=1, times=3),
        Fault(kind="status", status=500, path="exchangeInfo", times=2),
        Fault(kind="reset", path="klines", skip=2, times=2),
        Fault(kind="short_body", path="klines", skip=1, times=2),
        Fault(kind="truncated_json", path="klines", skip=3),
        Fault(kind="html", path="klines", times=2),
        Fault(kind="empty_body", path="klines", skip=1),
        Fault(kind="other_json", path="klines", skip=1),
        Fault(kind="empty_page", path="klines", skip=1),
        Fault(kind="partial_page", path="klines", times=3),
        Fault(kind="overlapping_page", path="klines", times=None),
        Fault(kind="duplicated_page", path="klines", times=None),
    ],
    ids=lambda fault: f"{fault.kind}{fault.status if fault.kind == 'status' else ''}",
)
def test_what_passes_leaves_no_trace(database, exchange, fault):
    exchange.inject(fault)
    done, waits = fetch(database, exchange)
    assert_stored(database, CLOSED)
    assert (done.inserted, done.restated, done.rejected) == (len(CLOSED), 0, 0)
    assert quarantined(database) == []
    if fault.retry_after:
        assert waits == [7.0]


def test_a_reply_that_drips_ends_at_the_deadline(database, exchange):
    exchange.inject(Fault(kind="drip", path="klines", skip=1, seconds=60))
    fetch(database, exchange, deadline_s=1.5)
    assert_stored(database, CLOSED)


def test_what_came_before_a_lasting_failure_is_kept_and_the_next_run_goes_on_from_there(database, exchange):
    exchange.inject(Fault(kind="status", status=503, path="klines", skip=3, times=30))
    with pytest.raises(SourceError, match="what was fetched is kept"):
        fetch(database, exchange, attempts=3)
    kept = load_candles(database, BINANCE)
    assert_stored(database, CLOSED.slice(0, len(kept)))
    assert 1_000 <= len(kept) < len(CLOSED)
    with LoopbackExchange({BINANCE: CANDLES}, clock_ms=lambda: NOW) as recovered:
        done, _ = fetch(database, recovered)
    assert done.unchanged < 1_000
    assert_stored(database, CLOSED)


@pytest.mark.parametrize("kind", ["html", "truncated_json", "empty_body", "short_body", "other_json"])
def test_a_reply_that_is_none_is_never_taken_for_no_data(database, exchange, kind):
    exchange.inject(Fault(kind=kind, path="klines", times=None))
    with pytest.raises(SourceError, match="binance fails"):
        fetch(database, exchange, attempts=2)
    assert len(load_candles(database, BINANCE)) == 0


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        (Fault(kind="status", status=418, retry_after="900", path="klines", times=None), "banned this address"),
        (Fault(kind="status", status=403, path="klines", times=None), "Use another exchange, or import files"),
        (Fault(kind="status", status=451, path="klines", times=None), "Use another exchange, or import files"),
        (Fault(kind="redirect", path="klines", times=None), "redirects are not followed"),
    ],
    ids=["418", "403", "451", "redirect"],
)
def test_a_venue_that_refuses_is_left_alone_and_other_venues_go_on(database, exchange, fault, message):
    exchange.inject(fault)
    with pytest.raises(SourceError, match=message):
        fetch(database, exchange)
    assert exchange.count("klines") <= 4  # those under way at once
    start = NOW - 500 * STEP
    fetch(database, exchange, KRAKEN, start=start)
    kraken = load_candles(database, KRAKEN)
    assert kraken.end_ms == CLOSED.end_ms


def test_pages_that_stay_empty_in_mid_history_are_a_gap_and_not_the_end(database):
    hole = slice(1_500, 4_000)
    with_hole = CANDLES.at(np.delete(CANDLES.open_time_ms, hole))
    with LoopbackExchange({BINANCE: with_hole}, clock_ms=lambda: NOW) as exchange:
        fetch(database, exchange)
        assert_stored(database, CLOSED.at(np.delete(CLOSED.open_time_ms, hole)))
        assert max(gap.n_missing for gap in assess(load_candles(database, BINANCE)).gaps) >= 2_500
        asked = exchange.count("klines")
        fetch(database, exchange, end=NOW + STEP)
        assert exchange.count("klines") - asked <= 2  # what is known to be absent is not asked for again
    with LoopbackExchange({BINANCE: CANDLES}, clock_ms=lambda: NOW) as mended:
        source, _ = source_at(mended)
        ingest(database, BINANCE, [source], START, NOW, ask_again=True)
    assert_stored(database, CLOSED)


def test_a_running_candle_is_stored_once_it_has_closed(database):
    now = [NOW]
    with LoopbackExchange({BINANCE: CANDLES}, clock_ms=lambda: now[0]) as exchange:
        fetch(database, exchange)
        assert load_candles(database, BINANCE).end_ms == CLOSED.end_ms
        now[0] += STEP
        done, _ = fetch(database, exchange, end=now[0])
    assert (done.inserted, done.restated) == (1, 0)
    assert_stored(database, CANDLES.between(None, now[0] - STEP))


@pytest.mark.parametrize("years", [-3, 0, 3])
def test_a_candle_has_closed_by_the_clock_of_the_exchange(database, years, monkeypatch):
    monkeypatch.setattr("time.time_ns", lambda: (NOW + years * 365 * MS_PER_DAY) * 1_000_000)
    with LoopbackExchange({BINANCE: CANDLES}, clock_ms=lambda: NOW) as exchange:
        fetch(database, exchange, end=NOW + MS_PER_DAY)
    assert_stored(database, CLOSED)


def test_a_restated_candle_becomes_a_revision(database, exchange):
    fetch(database, exchange)
    at = len(CLOSED) - 7
    restated = changed(CANDLES, at, volume=CANDLES.volume[at] * 1.25)
    with LoopbackExchange({BINANCE: restated}, clock_ms=lambda: NOW + STEP) as later:
        done, _ = fetch(database, later, end=NOW + STEP)
    assert done.restated == 1
    assert load_candles(database, BINANCE).volume[at] == restated.volume[at]
    (former,) = database.run(
        lambda connection: connection.execute("SELECT volume FROM market_data_revisions").fetchall()
    )
    assert former == (CANDLES.volume[at],)


def test_kraken_says_what_it_does_not_have_and_how_to_get_it(database, exchange):
    with pytest.raises(HistoryUnavailableError) as raised:
        fetch(database, exchange, KRAKEN, end=START + MS_PER_DAY)
    message = str(raised.value)
    assert message.startswith("History unavailable beyond 2024-01-")
    assert "kraken.trades" in message
    assert "tradepulse import FILE --exchange kraken" in message


def test_rows_that_are_no_candles_go_to_quarantine_and_the_rest_is_stored(database, exchange):
    exchange.inject(Fault(kind="nonsense_page", path="klines"))
    done, _ = fetch(database, exchange)
    assert done.rejected == 1
    assert_stored(database, CLOSED.at(np.delete(CLOSED.open_time_ms, 5)))
    (row,) = quarantined(database)
    assert row.reason
    assert row.raw["open_time_ms"] == CLOSED.open_time_ms[5]


def test_a_giant_wick_and_candles_without_volume_are_kept_as_they_are(database):
    wild = changed(CANDLES, 3_000, high=CANDLES.high[3_000] * 8)
    flat = dict.fromkeys(("open", "high", "low", "close"), wild.close[3999])
    wild = changed(wild, 4_000, **flat, volume=0.0)
    with LoopbackExchange({BINANCE: wild}, clock_ms=lambda: NOW) as exchange:
        fetch(database, exchange)
    assert_stored(database, wild.between(None, NOW - STEP))
    stored = load_candles(database, BINANCE)
    assert not stored.is_filled.any()
    assert assess(stored).n_zero_volume == 1


def test_an_unknown_market_fails_alone_and_names_the_nearest(database, exchange):
    for key, nearest in (
        (replace(BINANCE, market=Market.parse("binance", "BTC/USDX")), "BTC/USDT"),
        (replace(BINANCE, timeframe=Timeframe("3m")), None),
    ):
        source, _ = source_at(exchange)
        if nearest is None:
            with pytest.raises(SourceError, match="Invalid interval"):
                ingest(database, key, [source], START, NOW)
            continue
        with pytest.raises(InvalidInputError, match=f"Did you mean '{nearest}'"):
            ingest(database, key, [source], START, NOW)
    fetch(database, exchange)
    assert_stored(database, CLOSED)


def test_figures_that_json_cannot_hold_do_not_stop_a_page(database, exchange):
    wild = changed(CANDLES, 10, volume=sys.float_info.max)
    with LoopbackExchange({BINANCE: wild}, clock_ms=lambda: NOW) as other:
        fetch(database, other)
    assert load_candles(database, BINANCE).volume[10] == sys.float_info.max
