"""What the reference strategies share: candles with their indicators, and orders on the sides asked for."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping

from tradepulse_pipeline_tests.reference.backtest import Order
from tradepulse_pipeline_tests.reference.candles import Candle
from tradepulse_pipeline_tests.reference.indicators import average_true_range

Parameters = Mapping[str, float]


class ReferenceStrategy(ABC):
    """Finds the orders of one series, whose candles last ``minutes``, for any parameters."""

    def __init__(self, candles: list[Candle], minutes: int) -> None:
        self.candles = candles
        self.kappa = math.sqrt(minutes / 60)
        self.low = [candle.low for candle in candles]
        self.high = [candle.high for candle in candles]
        self.atr = average_true_range(candles)

    def orders(self, parameters: Parameters, side: str) -> list[Order]:
        """Return the orders in bar order; every pattern that confirms at a bar gives one."""
        found: list[Order] = []
        if side in ("long", "both"):
            found += self.long_orders(parameters)
        if side in ("short", "both"):
            found += self.short_orders(parameters)
        return sorted(found, key=lambda order: (order.bar, -order.side))

    @abstractmethod
    def long_orders(self, parameters: Parameters) -> list[Order]: ...

    @abstractmethod
    def short_orders(self, parameters: Parameters) -> list[Order]: ...


def is_green(candle: Candle) -> bool:
    return candle.close > candle.open and not candle.is_filled


def is_red(candle: Candle) -> bool:
    return candle.close < candle.open and not candle.is_filled
