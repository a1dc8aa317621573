"""The indicator frame: columns that belong to their candles, and the mirror."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings

from tradepulse_pipeline.errors import InvalidInputError
from tradepulse_pipeline.indicators.catalogue import ALL_INDICATORS
from tradepulse_pipeline.indicators.frame import Indicator, IndicatorFrame
from tradepulse_pipeline.market.candles import Candles
from tradepulse_pipeline_tests.reference.markets import candles_of, cases, frame_of, random_markets

RSI = Indicator("rsi", "As an example of a column that changes in the mirror.", lambda c: c.close, lambda x: 100 - x)


def test_columns_must_be_there_and_of_the_candles_length() -> None:
    candles = candles_of([(1.0, 1.0, 1.0, 1.0)] * 3)
    with pytest.raises(InvalidInputError, match=r"'rsi': expected 3 values, one per candle, found no such column"):
        IndicatorFrame.of(candles, [RSI], {})
    with pytest.raises(InvalidInputError, match=r"'rsi': expected 3 values, one per candle, found 2 values"):
        IndicatorFrame.of(candles, [RSI], {"rsi": np.zeros(2)})


def test_columns_computed_before_give_the_same_frame() -> None:
    candles = candles_of([(1.0, 2.0, 1.0, 2.0)] * 30)
    computed = IndicatorFrame.compute(candles, ALL_INDICATORS)
    joined = IndicatorFrame.of(candles, ALL_INDICATORS, computed.columns)
    assert len(joined) == 30
    for indicator in ALL_INDICATORS:
        np.testing.assert_array_equal(joined[indicator.name], computed[indicator.name])


def test_the_mirror_negates_prices_and_swaps_high_and_low() -> None:
    mirror = IndicatorFrame.compute(candles_of([(3.0, 5.0, 2.0, 4.0)]), [RSI]).mirrored()
    assert (mirror.open[0], mirror.high[0], mirror.low[0], mirror.close[0]) == (-3.0, -2.0, -5.0, -4.0)
    assert (mirror.volume[0], mirror.sign, mirror["rsi"][0]) == (1.0, -1, 96.0)


@settings(max_examples=cases(25))
@given(candles=random_markets(max_bars=40))
def test_the_mirror_of_the_mirror_is_the_market(candles: Candles) -> None:
    frame = frame_of(candles)
    twice = frame.mirrored().mirrored()
    assert twice.sign == 1
    for name in ("open", "high", "low", "close", "volume", "is_filled"):
        np.testing.assert_array_equal(getattr(twice, name), getattr(frame, name), err_msg=name)
    for indicator in ALL_INDICATORS:
        np.testing.assert_allclose(twice[indicator.name], frame[indicator.name], rtol=1e-12)
