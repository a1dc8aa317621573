"""Why candles are missing: an outage of the exchange, or nobody traded; and feeds that stand still."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from tradepulse_pipeline.market.candles import Candles
from tradepulse_pipeline.market.quality import Surroundings, assess
from tradepulse_pipeline.market.quality.gaps import find_gaps
from tradepulse_pipeline.market.series import Timeframe
from tradepulse_pipeline.market.sources.files import read_candle_file

START = 1_735_689_600_000
STEP = 3_600_000


def candles(at, *, still=(), timeframe="1h", first=START):
    """Candles at some places of the grid; those at ``still`` repeat the price and have no volume."""
    at = np.asarray(at)
    close = 100.0 + np.cumsum(np.where(np.isin(at, still), 0.0, 0.01))
    spread = np.where(np.isin(at, still), 0.0, 0.5)
    volume = np.where(np.isin(at, still), 0.0, 1.0)
    step = Timeframe(timeframe).milliseconds
    return Candles.from_arrays(
        Timeframe(timeframe), first + step * at, close, close + spread, close - spread, close, volume
    )


def around(**pairs):
    return Surroundings(pairs={name: lambda found=found: found for name, found in pairs.items()})


def read(folder, name):
    return read_candle_file(folder / f"{name}.parquet", Timeframe(name.split("_")[-1])).candles


def test_outages_of_binance_are_in_all_pairs_and_called_so(market_data_dir):
    for timeframe, names in {
        "15m": ("SOL", "AVAX", "DOT", "MANA"),
        "1h": ("BTC", "ETH", "SOL", "XRP", "BNB", "ADA", "DOGE", "LINK"),
    }.items():
        found = {name: read(market_data_dir, f"binance_{name}-USDT_{timeframe}") for name in names}
        for name in names:
            report = assess(found[name], around(**{other: found[other] for other in names if other != name}))
            assert report.no_trade == "zero-volume candle"
            assert report.outages == report.gaps
            shared = [gap for gap in report.gaps if gap.n_others]
            assert len(shared) >= 9
            assert all(gap.n_others_missing == gap.n_others for gap in shared), name
            assert "so a gap is an outage." in " ".join(report.warnings)


def test_missing_minutes_of_kraken_are_no_trade_and_long_ones_outages(market_data_dir):
    minutes = assess(read(market_data_dir, "kraken_BTC-USDC_1m"))
    assert minutes.no_trade == "no candle"
    assert len(minutes.outages) < 10 < 26_000 < len(minutes.gaps)
    quarters = assess(read(market_data_dir, "kraken_BTC-USDT_15m"))
    assert sorted(gap.n_missing for gap in quarters.outages) == [5, 13, 22]
    assert {gap.n_missing for gap in quarters.gaps if gap.cause == "no trade"} == {1, 2}
    assert "most gaps mean no trade; 3 gaps too long for that: likely outages" in quarters.warnings[0]
    # Three gaps in a year tell nothing about a convention.
    hours = assess(read(market_data_dir, "kraken_BTC-USDT_1h"))
    assert {gap.cause for gap in hours.gaps} == {"unknown"}


def test_the_feed_that_froze_before_it_stopped_is_seen_in_every_pair(market_data_dir):
    frozen_ms = int(np.datetime64("2021-02-11T02:30", "ms").astype(np.int64))
    for name in ("SOL", "AVAX", "DOT", "MANA"):
        report = assess(read(market_data_dir, f"binance_{name}-USDT_15m"))
        (still,) = [one for one in report.standstills if one.is_at_gap]
        assert (still.start_ms, still.n_candles) == (frozen_ms, 5)
        assert "Around 1 gap the feed stood still" in " ".join(report.warnings)


def test_an_unfinished_last_candle_is_shown_by_another_timeframe(market_data_dir):
    quarters, hours = (read(market_data_dir, f"kraken_BTC-USDT_{timeframe}") for timeframe in ("15m", "1h"))
    (report,) = [assess(quarters, Surroundings(timeframes={"kraken:BTC-USDT:1h": lambda: hours}))]
    assert report.unfinished is not None
    assert (round(report.unfinished.volume, 2), round(report.unfinished.other_volume, 2)) == (23.04, 33.79)
    assert (report.unfinished.close, report.unfinished.other_close) == (68_628.6, 68_405.3)
    assert any("is likely unfinished" in sentence for sentence in report.warnings)
    # One candle earlier there is nothing to see, and neither without another timeframe.
    whole = quarters.slice(0, len(quarters) - 4)
    assert assess(whole, Surroundings(timeframes={"1h": lambda: hours})).unfinished is None
    assert assess(quarters).unfinished is None


def test_shorter_candles_show_that_a_longer_one_is_unfinished():
    quarters = candles(np.arange(400 * 4), timeframe="15m")
    hours = candles(np.arange(400))
    whole = Candles.from_arrays(
        hours.timeframe, hours.open_time_ms, hours.open, hours.high, hours.low, hours.close, 4 * hours.volume
    )
    cut = whole.volume.copy()
    cut[-1] = 1.5
    running = Candles.from_arrays(
        hours.timeframe, hours.open_time_ms, hours.open, hours.high, hours.low, hours.close, cut
    )
    known = Surroundings(timeframes={"15m": lambda: quarters})
    assert assess(whole, known).unfinished is None
    assert assess(running, known).unfinished is not None
    # Where the two never had the same volume, the last candle proves nothing.
    assert assess(hours, known).unfinished is None


def test_gaps_are_compared_with_the_pairs_that_were_listed_then():
    holes = np.delete(np.arange(500), [100, 101, 300])
    same, later = candles(holes), candles(np.arange(200, 500))
    full = candles(np.arange(500))
    first, second = assess(candles(holes), around(same=same, full=full, later=later)).gaps
    assert (first.n_others, first.n_others_missing, first.is_shared) == (2, 1, False)
    assert (second.n_others, second.n_others_missing, second.is_shared) == (3, 1, False)
    alone = assess(candles(holes)).gaps[0]
    assert (alone.n_others, alone.is_shared, alone.cause) == (0, None, "unknown")
    assert [gap.cause for gap in assess(candles(holes), around(same=same)).gaps] == ["outage", "outage"]


def test_a_long_standstill_is_noted_and_an_ordinary_one_is_not():
    rare = assess(candles(np.arange(500), still=range(100, 112)))
    assert [(one.start_ms, one.n_candles, one.is_at_gap) for one in rare.standstills] == [
        (START + 100 * STEP, 12, False)
    ]
    assert rare.warnings == ()
    assert "12 candles at most" in rare.notes[0]
    thin = assess(candles(np.arange(2_000), still=np.flatnonzero(np.arange(2_000) % 10 < 6)))
    assert thin.standstills == ()


def test_candles_that_are_late_are_a_warning():
    end = START + 400 * STEP
    late = {n: assess(candles(np.arange(400)), Surroundings(now_ms=end + n * STEP + 1)) for n in (3, 4)}
    assert [report.n_late for report in late.values()] == [3, 4]
    assert late[3].problems == ()
    assert late[4].warnings == ("The last candle is of 2025-01-17T15:00Z: 4 candles should have followed by now.",)
    assert assess(candles(np.arange(400))).n_late is None


def test_what_ingestion_said_and_set_aside_is_told():
    known = Surroundings(set_aside={"with an open time off the 1d grid": 2}, sentences=("Two sources disagree.",))
    report = assess(candles(np.arange(400)), known)
    assert report.warnings == (
        "Daily candles that do not open at 00:00 UTC are days of another time zone.",
        "Two sources disagree.",
    )
    assert report.notes == ("2 rows in quarantine: 2 with an open time off the 1d grid.",)


@given(st.sets(st.integers(0, 400), min_size=1), st.data())
def test_gaps_and_candles_make_up_the_whole_span(places, data):
    at = np.array(sorted(places))
    found = candles(at)
    other = candles(np.array(sorted(data.draw(st.sets(st.integers(0, 400), min_size=1)))))
    report = assess(found, around(other=other))
    missing = [START + STEP * place for place in range(at[0], at[-1]) if place not in places]
    covered = [gap.start_ms + STEP * n for gap in report.gaps for n in range(gap.n_missing)]
    assert covered == missing
    assert [(gap.start_ms, gap.n_missing) for gap in find_gaps(found)] == [
        (gap.start_ms, gap.n_missing) for gap in report.gaps
    ]
    for gap in report.gaps:
        end = gap.start_ms + gap.n_missing * STEP
        is_listed = other.open_time_ms[0] < gap.start_ms and other.open_time_ms[-1] >= end
        is_there = ((other.open_time_ms >= gap.start_ms) & (other.open_time_ms < end)).any()
        assert (gap.n_others, gap.n_others_missing) == (int(is_listed), int(is_listed and not is_there))
