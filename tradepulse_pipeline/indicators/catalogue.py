"""The indicators that the shipped strategies read: what the shared indicators asset computes."""

from __future__ import annotations

from typing import Final

from tradepulse_pipeline.indicators.candle_shape import CLOSE_LOCATION
from tradepulse_pipeline.indicators.frame import Indicator
from tradepulse_pipeline.indicators.momentum import RSI
from tradepulse_pipeline.indicators.volatility import ATR
from tradepulse_pipeline.indicators.volume import MEAN_VOLUME_20, MEAN_VOLUME_50

ALL_INDICATORS: Final[tuple[Indicator, ...]] = (ATR, RSI, MEAN_VOLUME_20, MEAN_VOLUME_50, CLOSE_LOCATION)
