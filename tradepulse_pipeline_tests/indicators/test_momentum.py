"""The relative strength index by hand, on a published example, and in the mirror."""

from __future__ import annotations

import numpy as np
import pytest

from tradepulse_pipeline.indicators.catalogue import ALL_INDICATORS
from tradepulse_pipeline.indicators.frame import IndicatorFrame
from tradepulse_pipeline_tests.reference.markets import candles_of, frame_of


def rsi_of(closes: list[float]) -> np.ndarray:
    return frame_of(candles_of([(close, close, close, close) for close in closes]))["rsi_14"]


def test_rsi_by_hand() -> None:
    # Bars 1 to 14 rise by 1 ten times and fall by 2 four times; bar 15 rises by 6, bar 16 does not move.
    closes = [100.0, *np.cumsum([1.0] * 10 + [-2.0] * 4 + [6.0, 0.0]) + 100.0]
    rsi = rsi_of(closes)
    assert np.isnan(rsi[:14]).all()
    assert rsi[14] == pytest.approx(100 * 10 / 18, rel=1e-12)
    gain, loss = (13 * 10 / 14 + 6) / 14, 13 * 8 / 14 / 14
    assert rsi[15] == pytest.approx(100 * gain / (gain + loss), rel=1e-12)
    assert rsi[16] == pytest.approx(rsi[15], rel=1e-12)


def test_rsi_of_a_published_example() -> None:
    # The closes of StockCharts' worked example, rounded to cents, and what other implementations make of them.
    closes = [
        *(44.34, 44.09, 44.15, 43.61, 44.33, 44.83, 45.10, 45.42, 45.84, 46.08, 45.89, 46.03, 45.61, 46.28, 46.28),
        *(46.00, 46.03, 46.41, 46.22, 45.64, 46.21),
    ]
    published = [
        *(70.46413502109704, 66.24961855355505, 66.48094183471265, 69.34685316290864, 66.29471265892624),
        *(57.91502067008556, 62.88071830996241),
    ]
    np.testing.assert_allclose(rsi_of(closes)[14:], published, rtol=1e-12)


def test_rsi_at_its_ends() -> None:
    assert rsi_of([100.0 + i for i in range(15)])[14] == 100.0
    assert rsi_of([100.0 - i for i in range(15)])[14] == 0.0
    assert rsi_of([100.0] * 15)[14] == 0.0
    assert np.isnan(rsi_of([100.0])).all()


def test_rsi_in_the_mirror() -> None:
    closes = [100.0, *np.cumsum([1.0] * 10 + [-2.0] * 6) + 100.0]
    candles = candles_of([(close, close, close, close) for close in closes])
    mirror = IndicatorFrame.compute(candles, ALL_INDICATORS).mirrored()["rsi_14"]
    np.testing.assert_allclose(mirror[14:], rsi_of([200.0 - close for close in closes])[14:], rtol=1e-12)
