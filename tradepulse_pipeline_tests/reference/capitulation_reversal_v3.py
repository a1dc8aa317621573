"""CAPITULATION_REVERSAL_V3 as its definition reads, bar by bar; the short side is written out by hand."""

from __future__ import annotations

from tradepulse_pipeline_tests.reference.backtest import Order
from tradepulse_pipeline_tests.reference.candles import Candle
from tradepulse_pipeline_tests.reference.indicators import (
    mean_volume,
    relative_strength_index,
    weighted_close_location,
)
from tradepulse_pipeline_tests.reference.strategy import Parameters, ReferenceStrategy, is_green, is_red


class Climaxes(ReferenceStrategy):
    """Selling and buying climaxes that are absorbed and reversed."""

    def __init__(self, candles: list[Candle], minutes: int) -> None:
        super().__init__(candles, minutes)
        self.rsi = relative_strength_index(candles)
        self.mean_volume = [mean_volume(candles, 50, i) for i in range(len(candles))]

    def relative_volume(self, x: int) -> float | None:
        mean = self.mean_volume[x]
        if mean is None or mean <= 0:
            return None
        return self.candles[x].volume / mean

    def panic_score(
        self, x: int, parameters: Parameters, *, volume: float, leg: float, fear: float, wick: float, atr: float
    ) -> float:
        """``fear`` is the RSI of a fall or 100 - RSI of a rise, ``wick`` the one that was bought, or sold, back."""
        bar = self.candles[x]
        bar_range = bar.high - bar.low
        speed = parameters["price_move_speed"] * self.kappa
        rejection = wick / max(abs(bar.close - bar.open), 0.1 * bar_range) if bar_range > 0 else 0.0
        return (
            0.30 * min(volume / parameters["volume_explosion_threshold"], 1.0)
            + 0.25 * min(leg / (2 * speed), 1.0)
            + 0.20 * min(max(1 + (parameters["sentiment_extreme_threshold"] - fear) / 15, 0.0), 1.0)
            + 0.15 * min(rejection / parameters["exhaustion_wick_ratio"], 1.0)
            + 0.10 * min(bar_range / (2.5 * atr), 1.0)
        )

    # Long: a selling climax.

    def long_orders(self, parameters: Parameters) -> list[Order]:
        found: list[Order] = []
        for x in range(19, len(self.candles)):
            if not self.is_selling_climax(x, parameters):
                continue
            r = self.bought_back(x, parameters)
            atr = self.atr[x - 3]
            assert atr is not None
            if r is not None:
                found.append(
                    Order(
                        bar=r,
                        side=1,
                        stop_price=self.low[x] - parameters["stop_distance"] * atr,
                        target_multiple=parameters["target_multiple"],
                    )
                )
        return found

    def is_selling_climax(self, x: int, parameters: Parameters) -> bool:
        bar, volume = self.candles[x], self.relative_volume(x)
        rsi, atr = self.rsi[x], self.atr[x - 3]
        if bar.is_filled or volume is None or rsi is None or not atr:  # without a range, no move is a panic
            return False
        if bar.low > min(self.low[x - 19 : x + 1]):
            return False
        close_before = self.candles[x - 3].close
        leg = (close_before - bar.low) / close_before
        if leg < parameters["price_move_speed"] * self.kappa:
            return False
        if volume < 0.5 * parameters["volume_explosion_threshold"]:
            return False
        wick = min(bar.open, bar.close) - bar.low
        score = self.panic_score(x, parameters, volume=volume, leg=leg, fear=rsi, wick=wick, atr=atr)
        if score < parameters["panic_score_minimum"]:
            return False
        return weighted_close_location(self.candles[x - 2 : x + 1]) >= parameters["smart_money_divergence"]

    def bought_back(self, x: int, parameters: Parameters) -> int | None:
        """Return the bar that confirms a selling climax at bar x."""
        middle = (self.high[x] + self.low[x]) / 2
        for r in range(x + 1, x + int(parameters["reversal_confirmation_candles"]) + 1):
            if r >= len(self.candles) or self.low[r] < self.low[x]:
                return None
            if self.candles[r].close > middle and is_green(self.candles[r]):
                return r
        return None

    # Short: a buying climax.

    def short_orders(self, parameters: Parameters) -> list[Order]:
        found: list[Order] = []
        for x in range(19, len(self.candles)):
            if not self.is_buying_climax(x, parameters):
                continue
            r = self.sold_back(x, parameters)
            atr = self.atr[x - 3]
            assert atr is not None
            if r is not None:
                found.append(
                    Order(
                        bar=r,
                        side=-1,
                        stop_price=self.high[x] + parameters["stop_distance"] * atr,
                        target_multiple=parameters["target_multiple"],
                    )
                )
        return found

    def is_buying_climax(self, x: int, parameters: Parameters) -> bool:
        bar, volume = self.candles[x], self.relative_volume(x)
        rsi, atr = self.rsi[x], self.atr[x - 3]
        if bar.is_filled or volume is None or rsi is None or not atr:  # without a range, no move is a panic
            return False
        if bar.high < max(self.high[x - 19 : x + 1]):
            return False
        close_before = self.candles[x - 3].close
        leg = (bar.high - close_before) / close_before
        if leg < parameters["price_move_speed"] * self.kappa:
            return False
        if volume < 0.5 * parameters["volume_explosion_threshold"]:
            return False
        wick = bar.high - max(bar.open, bar.close)
        score = self.panic_score(x, parameters, volume=volume, leg=leg, fear=100 - rsi, wick=wick, atr=atr)
        if score < parameters["panic_score_minimum"]:
            return False
        return 1 - weighted_close_location(self.candles[x - 2 : x + 1]) >= parameters["smart_money_divergence"]

    def sold_back(self, x: int, parameters: Parameters) -> int | None:
        """Return the bar that confirms a buying climax at bar x."""
        middle = (self.high[x] + self.low[x]) / 2
        for r in range(x + 1, x + int(parameters["reversal_confirmation_candles"]) + 1):
            if r >= len(self.candles) or self.high[r] > self.high[x]:
                return None
            if self.candles[r].close < middle and is_red(self.candles[r]):
                return r
        return None
