"""Longer candles from shorter ones, against a slow reference and the exchange's own."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tradepulse_pipeline.errors import InvalidInputError
from tradepulse_pipeline.market.candles import Candles
from tradepulse_pipeline.market.resampling import resample
from tradepulse_pipeline.market.series import TIMEFRAMES, Timeframe
from tradepulse_pipeline.market.sources.files import read_candle_file

MINUTE = 60_000
DAY = 24 * 60


def candles_at(minutes, timeframe="1m", seed=0, filled=()):
    """Return candles with values in eighths, whose sums are exact in any order."""
    rng = np.random.default_rng(seed)
    n = len(minutes)
    open_, close = rng.integers(80, 800, (2, n)) / 8
    high, low = np.maximum(open_, close) + rng.integers(0, 8, n), np.minimum(open_, close) - rng.integers(0, 8, n)
    times = np.array(minutes, dtype=np.int64) * MINUTE
    volume = rng.integers(0, 80, n) / 8
    return Candles.from_arrays(
        Timeframe(timeframe), times, open_, high, low, close, volume, np.isin(minutes, list(filled))
    )


histories = st.builds(
    candles_at,
    st.sets(st.integers(DAY - 30, DAY + 200), max_size=120).map(sorted),
    seed=st.integers(0, 9),
    filled=st.sets(st.integers(DAY, DAY + 40)),
)


def rows_of(candles):
    names = ("open_time_ms", "open", "high", "low", "close", "volume")
    return list(zip(*(getattr(candles, name).tolist() for name in names), strict=True))


def reference(candles, timeframe, start, end):
    """Go through all candles, one by one."""
    step, spans = Timeframe(timeframe).milliseconds, {}
    for row, is_filled in zip(rows_of(candles), candles.is_filled.tolist(), strict=True):
        span = row[0] // step * step
        if not is_filled and span >= start and span + step <= end:
            spans.setdefault(span, []).append(row)
    return [
        (
            span,
            rows[0][1],
            max(row[2] for row in rows),
            min(row[3] for row in rows),
            rows[-1][4],
            sum(row[5] for row in rows),
        )
        for span, rows in spans.items()
    ]


@given(histories, st.sampled_from(["1m", "3m", "5m", "15m", "1h"]))
def test_candles_are_those_that_a_loop_makes(candles, timeframe):
    start, end = (int(candles.open_time_ms[0]), candles.end_ms) if len(candles) else (0, 0)
    assert rows_of(resample(candles, Timeframe(timeframe))) == reference(candles, timeframe, start, end)


@given(histories, st.integers(DAY - 40, DAY + 50), st.integers(DAY + 50, DAY + 240))
def test_a_candle_is_made_where_its_whole_span_is_covered(candles, first, last):
    start, end = first * MINUTE, last * MINUTE
    found = resample(candles, Timeframe("15m"), start_ms=start, end_ms=end)
    assert rows_of(found) == reference(candles, "15m", start, end)
    assert not found.is_filled.any()


@given(histories, st.sampled_from([("5m", "15m"), ("5m", "1h"), ("15m", "1h"), ("3m", "30m")]))
def test_in_two_steps_is_as_in_one(candles, steps):
    half, whole = map(Timeframe, steps)
    start, end = DAY * MINUTE, (DAY + 180) * MINUTE
    between = resample(candles, half, start_ms=start, end_ms=end)
    twice = resample(between, whole, start_ms=start, end_ms=end)
    assert rows_of(twice) == rows_of(resample(candles, whole, start_ms=start, end_ms=end))
    assert rows_of(resample(twice, whole, start_ms=start, end_ms=end)) == rows_of(twice)


@given(histories)
def test_volume_is_conserved(candles):
    start, end = (DAY - 60) * MINUTE, (DAY + 240) * MINUTE
    hours = resample(candles, Timeframe("1h"), start_ms=start, end_ms=end)
    assert hours.volume.sum() == candles.volume[~candles.is_filled].sum()


def test_partial_spans_at_the_ends_make_no_candle_and_gaps_do_not_matter():
    candles = candles_at([7, 10, 11, 14, 15, 31, 36])
    found = resample(candles, Timeframe("5m"))
    assert (found.open_time_ms // MINUTE).tolist() == [10, 15, 30]
    assert (found.open[0], found.close[0]) == (candles.open[1], candles.close[3])
    known = resample(candles, Timeframe("5m"), start_ms=5 * MINUTE, end_ms=40 * MINUTE)
    assert (known.open_time_ms // MINUTE).tolist() == [5, 10, 15, 30, 35]


def test_a_filled_candle_is_no_trade():
    candles = candles_at(range(10), filled=[0, 4, 5, 6, 7, 8, 9])
    found = resample(candles, Timeframe("5m"))
    assert (len(found), found.open[0], found.close[0]) == (1, candles.open[1], candles.close[3])
    assert len(resample(replace(candles, is_filled=np.ones(10, dtype=np.bool_)), Timeframe("5m"))) == 0


@pytest.mark.parametrize(("base", "timeframe"), [("5m", "3m"), ("1h", "15m"), ("3m", "5m"), ("8h", "12h")])
def test_only_multiples_can_be_made(base, timeframe):
    candles = candles_at([0], base)
    message = f"{base} candles cannot be resampled to {timeframe}: expected a multiple of {base}."
    with pytest.raises(InvalidInputError, match=f"^{re.escape(message)}$"):
        resample(candles, Timeframe(timeframe))


def test_every_timeframe_that_a_shorter_one_divides_can_be_made():
    candles = candles_at(range(2 * DAY))
    for name in TIMEFRAMES:
        found = resample(candles, Timeframe(name))
        assert len(found) == 2 * DAY // Timeframe(name).minutes
        assert found.volume.sum() == candles.volume.sum()


@pytest.mark.parametrize("pair", ["BTC-USDT", "ETH-USDT", "SOL-USDT"])
def test_candles_are_the_exchange_s_own(market_data_dir, pair):
    fine = read_candle_file(market_data_dir / f"binance_{pair}_5m.parquet", Timeframe("5m")).candles
    for name in ("15m", "1h", "4h", "1d"):
        found = resample(fine, Timeframe(name))
        native = read_candle_file(
            market_data_dir / "native" / f"binance_{pair}_{name}.parquet", Timeframe(name)
        ).candles
        native = native.between(int(found.open_time_ms[0]), found.end_ms)
        found = found.between(int(native.open_time_ms[0]), native.end_ms)
        assert len(native) > 300
        for column in ("open_time_ms", "open", "high", "low", "close"):
            np.testing.assert_array_equal(getattr(found, column), getattr(native, column), err_msg=f"{name} {column}")
        np.testing.assert_allclose(found.volume, native.volume, rtol=1e-15, err_msg=name)
