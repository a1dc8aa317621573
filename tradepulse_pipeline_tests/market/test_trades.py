"""Candles of single trades, against a slow reference and real recordings."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tradepulse_pipeline.market.series import Timeframe
from tradepulse_pipeline.market.sources.files import read_candle_file
from tradepulse_pipeline.market.sources.trade_files import read_trade_file
from tradepulse_pipeline.market.trades import NO_ID, NO_TRADES, Trades, candles_of_trades, missing_ids

MINUTE = 60_000


def trades_at(times, *, seed=0, ids=None):
    rng = np.random.default_rng(seed)
    n = len(times)
    return Trades.from_arrays(
        np.arange(n) if ids is None else ids,
        np.array(times),
        rng.integers(1, 1_000, n) / 8,
        rng.integers(1, 1_000, n) / 8,
        rng.choice([-1, 1], n),
    )


@given(
    st.lists(st.integers(0, 12 * MINUTE), max_size=40).map(sorted),
    st.integers(0, 9),
    st.sampled_from(["1m", "3m", "5m"]),
)
def test_candles_are_those_that_a_loop_over_the_trades_makes(times, seed, timeframe):
    trades, step = trades_at(times, seed=seed), Timeframe(timeframe).milliseconds
    expected = {}
    for time, price, amount in zip(times, trades.price.tolist(), trades.amount.tolist(), strict=True):
        open_, high, low, _, volume = expected.get(time // step * step, (price, price, price, price, 0.0))
        expected[time // step * step] = (open_, max(high, price), min(low, price), price, volume + amount)
    found = candles_of_trades(trades, Timeframe(timeframe))
    columns = (getattr(found, name).tolist() for name in ("open", "high", "low", "close", "volume"))
    rows = list(zip(*columns, strict=True))
    assert dict(zip(found.open_time_ms.tolist(), rows, strict=True)) == expected


def test_trades_of_one_millisecond_count_in_their_order():
    trades = Trades.from_arrays([4, 3, 2], [5, 5, 5], [10.0, 30.0, 20.0], [1.0, 1.0, 1.0], [1, 1, 1])
    candles = candles_of_trades(trades, Timeframe("1m"))
    assert (candles.open[0], candles.close[0]) == (10, 20)
    merged = candles_of_trades(Trades.merged([trades, NO_TRADES]), Timeframe("1m"))
    assert (merged.open[0], merged.close[0]) == (20, 10)  # by id
    nameless = Trades.from_arrays([NO_ID] * 3, trades.time_ms, trades.price, trades.amount, trades.side)
    assert Trades.merged([nameless]).price.tolist() == [10, 30, 20]


@pytest.mark.parametrize(
    ("ids", "missing"),
    [
        ([1, 2, 3], []),
        ([1, 3, 9], [[2, 2], [4, 8]]),
        ([9, 1, 3], [[2, 2], [4, 8]]),
        ([NO_ID] * 3, []),
        ([NO_ID, 5, NO_ID], []),
        ([], []),
    ],
)
def test_missing_ids_come_in_stretches(ids, missing):
    assert missing_ids(trades_at([1] * len(ids), ids=ids)).tolist() == missing


@pytest.mark.parametrize("timeframe", ["1m", "5m"])
def test_real_trades_make_the_candles_of_the_same_days(ticks_dir, market_data_dir, timeframe):
    trades = read_trade_file(ticks_dir / "kraken_BTC-USDT_trades_2023-11.parquet")
    found = candles_of_trades(trades, Timeframe(timeframe))
    candles = read_candle_file(market_data_dir / f"kraken_BTC-USDT_{timeframe}.parquet", Timeframe(timeframe)).candles
    for name in ("open_time_ms", "open", "high", "low", "close"):
        np.testing.assert_array_equal(getattr(found, name), getattr(candles, name), err_msg=name)
    np.testing.assert_allclose(found.volume, candles.volume, rtol=1e-15)


@pytest.mark.parametrize(
    ("name", "n_missing"),
    [
        ("kraken_BTC-USDT_trades_2023-11", 26),
        ("kraken_ETH-BTC_trades_2023-11", 9),
        ("kraken_ETH-BTC_trades_2020-02", 0),
        ("binance_XRP-ETH_trades_2019-10", 0),
    ],
)
def test_the_trades_that_a_download_lost_are_found(ticks_dir, name, n_missing):
    trades = read_trade_file(ticks_dir / f"{name}.parquet")
    gaps = missing_ids(trades)
    assert len(gaps) == n_missing
    assert (gaps[:, 0] == gaps[:, 1]).all()
    # One after every 999 rows.
    assert np.searchsorted(trades.trade_id, gaps[:, 0]).tolist() == [999 * (at + 1) for at in range(n_missing)]
