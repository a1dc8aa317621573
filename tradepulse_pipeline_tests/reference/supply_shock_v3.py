"""SUPPLY_SHOCK_V3 as its definition reads, bar by bar; the short side is written out by hand."""

from __future__ import annotations

from tradepulse_pipeline_tests.reference.backtest import Order
from tradepulse_pipeline_tests.reference.candles import Candle
from tradepulse_pipeline_tests.reference.indicators import close_location, mean_volume
from tradepulse_pipeline_tests.reference.strategy import Parameters, ReferenceStrategy


class Shocks(ReferenceStrategy):
    """Jumps and drops that do not come back."""

    def __init__(self, candles: list[Candle], minutes: int) -> None:
        super().__init__(candles, minutes)
        self.mean_volume = [mean_volume(candles, 50, i) for i in range(len(candles))]

    def is_shock(self, s: int, parameters: Parameters, *, move: float, close_location: float) -> bool:
        """``move`` and ``close_location`` point in the direction of the shock that is looked for."""
        mean = self.mean_volume[s]
        if self.candles[s].is_filled or mean is None or mean <= 0:
            return False
        least_move = parameters["gap_threshold"] * self.kappa
        least_volume = parameters["volume_surge_multiplier"] * mean
        volume = self.candles[s].volume
        if move < least_move or volume < least_volume:
            return False
        strength = (
            0.4 * min(volume / (2 * least_volume), 1.0) + 0.4 * min(move / (2 * least_move), 1.0) + 0.2 * close_location
        )
        return strength >= parameters["catalyst_strength_minimum"]

    def is_likely_to_go_on(self, outcomes: list[bool], parameters: Parameters) -> bool:
        """Whether enough of the shocks before were wins; open while there were few."""
        n, wins = len(outcomes), sum(outcomes)
        return n < 20 or (1 + wins) / (2 + n) >= parameters["continuation_probability"]

    # Long: a jump.

    def long_orders(self, parameters: Parameters) -> list[Order]:
        found: list[Order] = []
        jumps: list[int] = []
        for s in range(1, len(self.candles)):
            if not self.is_jump(s, parameters):
                continue
            outcomes = [outcome for x in jumps if (outcome := self.outcome_of_jump(x, s)) is not None]
            jumps.append(s)
            r = s + int(parameters["momentum_persistence"])
            if self.goes_on_up(s, r) and self.is_likely_to_go_on(outcomes, parameters):
                atr = self.atr[r]
                assert atr is not None
                found.append(
                    Order(
                        bar=r,
                        side=1,
                        stop_price=self.candles[s - 1].close,
                        trail_activation=parameters["trail_stop_activation"] * atr,
                        trail_distance=atr,
                        exit_level=self.half_of_jump(s),
                        exit_level_bars=int(parameters["no_retracement_periods"]),
                        max_holding_bars=int(parameters["position_hold_maximum"]),
                    )
                )
        return found

    def is_jump(self, s: int, parameters: Parameters) -> bool:
        bar = self.candles[s]
        move = bar.close / self.candles[s - 1].close - 1
        return self.is_shock(s, parameters, move=move, close_location=close_location(bar))

    def outcome_of_jump(self, x: int, s: int) -> bool | None:
        """Whether price went up an ATR before it went down one; ``None`` if neither is known at the close of bar s."""
        close, atr = self.candles[x].close, self.atr[x]
        assert atr is not None
        for i in range(x + 1, s + 1):
            if self.low[i] <= close - atr:
                return False
            if self.high[i] >= close + atr:
                return True
        return None

    def half_of_jump(self, s: int) -> float:
        return self.candles[s].close - 0.5 * (self.candles[s].close - self.candles[s - 1].close)

    def goes_on_up(self, s: int, r: int) -> bool:
        if r >= len(self.candles) or self.candles[r].is_filled:
            return False
        after = self.candles[s + 1 : r + 1]
        n_green = sum(bar.close > bar.open for bar in after)
        is_held = all(bar.low >= self.half_of_jump(s) for bar in after)
        return 100 * n_green >= 60 * len(after) and after[-1].close > self.candles[s].close and is_held

    # Short: a drop.

    def short_orders(self, parameters: Parameters) -> list[Order]:
        found: list[Order] = []
        drops: list[int] = []
        for s in range(1, len(self.candles)):
            if not self.is_drop(s, parameters):
                continue
            outcomes = [outcome for x in drops if (outcome := self.outcome_of_drop(x, s)) is not None]
            drops.append(s)
            r = s + int(parameters["momentum_persistence"])
            if self.goes_on_down(s, r) and self.is_likely_to_go_on(outcomes, parameters):
                atr = self.atr[r]
                assert atr is not None
                found.append(
                    Order(
                        bar=r,
                        side=-1,
                        stop_price=self.candles[s - 1].close,
                        trail_activation=parameters["trail_stop_activation"] * atr,
                        trail_distance=atr,
                        exit_level=self.half_of_drop(s),
                        exit_level_bars=int(parameters["no_retracement_periods"]),
                        max_holding_bars=int(parameters["position_hold_maximum"]),
                    )
                )
        return found

    def is_drop(self, s: int, parameters: Parameters) -> bool:
        bar = self.candles[s]
        move = 1 - bar.close / self.candles[s - 1].close
        return self.is_shock(s, parameters, move=move, close_location=1 - close_location(bar))

    def outcome_of_drop(self, x: int, s: int) -> bool | None:
        """Whether price went down an ATR before it went up one; ``None`` if neither is known at the close of bar s."""
        close, atr = self.candles[x].close, self.atr[x]
        assert atr is not None
        for i in range(x + 1, s + 1):
            if self.high[i] >= close + atr:
                return False
            if self.low[i] <= close - atr:
                return True
        return None

    def half_of_drop(self, s: int) -> float:
        return self.candles[s].close + 0.5 * (self.candles[s - 1].close - self.candles[s].close)

    def goes_on_down(self, s: int, r: int) -> bool:
        if r >= len(self.candles) or self.candles[r].is_filled:
            return False
        after = self.candles[s + 1 : r + 1]
        n_red = sum(bar.close < bar.open for bar in after)
        is_held = all(bar.high <= self.half_of_drop(s) for bar in after)
        return 100 * n_red >= 60 * len(after) and after[-1].close < self.candles[s].close and is_held
