"""Indicator columns by hand and against the reference."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings

from tradepulse_pipeline.indicators.frame import IndicatorFrame
from tradepulse_pipeline.market.candles import Candles
from tradepulse_pipeline_tests.reference.comparison import plain_candles
from tradepulse_pipeline_tests.reference.indicators import (
    average_true_range,
    close_location,
    mean_volume,
    relative_strength_index,
)
from tradepulse_pipeline_tests.reference.markets import candles_of, cases, frame_of, random_markets, real_candles


def column(values: list[float | None]) -> np.ndarray:
    return np.array([np.nan if value is None else value for value in values])


def assert_agreement(frame: IndicatorFrame) -> None:
    candles = plain_candles(frame)
    np.testing.assert_allclose(frame["atr_14"], column(average_true_range(candles)), rtol=1e-12, err_msg="ATR")
    rsi = column(relative_strength_index(candles))
    np.testing.assert_allclose(frame["rsi_14"], rsi, rtol=1e-12, atol=1e-12, err_msg="RSI")
    location = [close_location(candle) for candle in candles]
    np.testing.assert_allclose(frame["close_location"], location, rtol=1e-12, atol=1e-12, err_msg="CLV")
    for n in (20, 50):
        # A mean volume of 0 allows no signal, as little as one that is undefined; the column shows both as NaN.
        volumes = column([mean_volume(candles, n, i) or None for i in range(len(candles))])
        np.testing.assert_allclose(frame[f"mean_volume_{n}"], volumes, rtol=1e-12, err_msg=f"V({n})")


def test_atr_by_hand() -> None:
    # True ranges: 1 to bar 13, 15 at bar 14 for the jump from a close of 100 to a high of 115, then 1 again.
    rows = [(100.0, 100.5, 99.5, 100.0)] * 14 + [(114.5, 115.0, 114.0, 114.5), (114.5, 115.0, 114.0, 114.5)]
    atr = frame_of(candles_of(rows))["atr_14"]
    assert np.isnan(atr[:14]).all()
    assert atr[14] == pytest.approx((13 * 1 + 15) / 14, rel=1e-12)
    assert atr[15] == pytest.approx((13 * 2 + 1) / 14, rel=1e-12)


def test_mean_volume_by_hand() -> None:
    # Candles 0 to 22 without 5 and 6, which get filled: of bars 0 to 21, those unfilled carry 20 volumes.
    places = [place for place in range(23) if place not in (5, 6)]
    candles = candles_of([(100.0, 101.0, 99.0, 100.0)] * 21, volume=[float(p) for p in places], missing=(5, 6))
    volume = frame_of(candles)["mean_volume_20"]
    assert np.isnan(volume[:22]).all()
    assert volume[22] == pytest.approx((sum(range(22)) - 5 - 6) / 20, rel=1e-12)


def test_no_trace_of_a_burst_is_left_in_a_mean_of_zero_volumes() -> None:
    volume = frame_of(candles_of([(1.0, 1.0, 1.0, 1.0)] * 45, volume=[0.1, 1e15, 0.7] + [0.0] * 42))["mean_volume_20"]
    assert volume[22] > 0
    assert np.isnan(volume[23:]).all()


def test_short_series_have_no_indicators() -> None:
    frame = frame_of(candles_of([(1.0, 1.0, 1.0, 1.0)] * 3))
    assert np.isnan(frame["atr_14"]).all()
    assert np.isnan(frame["mean_volume_20"]).all()


@settings(max_examples=cases(100))
@given(candles=random_markets())
def test_indicators_agree_with_reference(candles: Candles) -> None:
    assert_agreement(frame_of(candles))


@pytest.mark.parametrize("name", ["binance_BTC-USDT_5m", "kraken_BTC-USDT_15m", "kraken_BTC-USDC_1m"])
def test_indicators_agree_with_reference_on_real_candles(market_data_dir: Path, name: str) -> None:
    assert_agreement(frame_of(real_candles(market_data_dir, name, 3_000, 2_000)))
