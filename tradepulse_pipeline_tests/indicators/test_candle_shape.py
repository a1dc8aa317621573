"""The shape of candles by hand, as the market is and in the mirror."""

from __future__ import annotations

from tradepulse_pipeline.indicators.candle_shape import CLOSE_LOCATION
from tradepulse_pipeline.indicators.frame import IndicatorFrame
from tradepulse_pipeline_tests.reference.markets import candles_of

ROWS = [(3.0, 6.0, 2.0, 5.0), (3.0, 6.0, 2.0, 2.0), (3.0, 6.0, 2.0, 6.0), (4.0, 4.0, 4.0, 4.0)]


def test_close_location_by_hand() -> None:
    frame = IndicatorFrame.compute(candles_of(ROWS), [CLOSE_LOCATION])
    assert frame["close_location"].tolist() == [0.75, 0.0, 1.0, 0.5]
    assert frame.mirrored()["close_location"].tolist() == [0.25, 1.0, 0.0, 0.5]
