"""LIQUIDITY_SWEEP_V3 as its definition reads, bar by bar and level by level; the short side is written out by hand."""

from __future__ import annotations

import bidask

from tradepulse_pipeline_tests.reference.backtest import Order
from tradepulse_pipeline_tests.reference.candles import Candle
from tradepulse_pipeline_tests.reference.indicators import is_swing_high, is_swing_low, mean_volume
from tradepulse_pipeline_tests.reference.strategy import Parameters, ReferenceStrategy, is_green, is_red


class Sweeps(ReferenceStrategy):
    """Stop-hunts."""

    def __init__(self, candles: list[Candle], minutes: int) -> None:
        super().__init__(candles, minutes)
        self.mean_volume = [mean_volume(candles, 20, i) for i in range(len(candles))]
        self.is_swing_low = [is_swing_low(candles, j) for j in range(len(candles))]
        self.is_swing_high = [is_swing_high(candles, j) for j in range(len(candles))]

    def has_volume_spike(self, s: int, parameters: Parameters) -> bool:
        mean = self.mean_volume[s]
        if mean is None or mean <= 0 or self.candles[s].is_filled:
            return False
        return self.candles[s].volume > parameters["volume_spike_threshold"] * mean

    def has_stop_density(self, s: int, level: float, stops: list[float], parameters: Parameters) -> bool:
        """Whether enough of the ``stops`` rest near the level that bar s sweeps; without the filter, always."""
        least = parameters.get("min_stop_density_score", 0.0)
        if least == 0:
            return True
        atr = self.atr[s - 1]
        if atr is None:
            return False
        n = 0
        for stop in stops:
            if abs(stop - level) <= 0.25 * atr:
                n += 1
        return n / (n + 1) >= least

    def has_small_spread(self, s: int, parameters: Parameters) -> bool:
        """Whether the spread of the 100 bars before bar s is tolerable; without the filter, always."""
        most = parameters.get("max_spread_tolerance", 0.0)
        if most == 0:
            return True
        if s < 100:
            return False
        window = self.candles[s - 100 : s]
        spread = bidask.edge(
            [bar.open for bar in window],
            [bar.high for bar in window],
            [bar.low for bar in window],
            [bar.close for bar in window],
        )
        return spread * 10_000 <= most

    # Long: a dip under a swing low.

    def long_orders(self, parameters: Parameters) -> list[Order]:
        found: dict[int, Order] = {}
        for s in range(int(parameters["key_level_lookback"]), len(self.candles)):
            level = self.swept_low(s, parameters)
            if level is None:
                continue
            if not self.has_stop_density(s, level, self.swing_lows(s, parameters), parameters):
                continue
            if not self.has_small_spread(s, parameters):
                continue
            r = self.bought_back(s, level, parameters)
            if r is None:
                continue
            atr = self.atr[r]
            assert atr is not None
            found[r] = Order(
                bar=r,
                side=1,
                stop_price=self.candles[r].close - parameters["stop_distance"] * atr,
                target_multiple=parameters["target_multiple"],
            )
        return list(found.values())

    def swing_lows(self, s: int, parameters: Parameters) -> list[float]:
        """Return the swing lows in the lookback that are confirmed before bar s, traded through or not."""
        bars = range(s - int(parameters["key_level_lookback"]), s - 3)
        return [self.candles[j].low for j in bars if self.is_swing_low[j]]

    def swept_low(self, s: int, parameters: Parameters) -> float | None:
        """Return the highest live low that bar s sweeps."""
        if not self.has_volume_spike(s, parameters):
            return None
        low = self.candles[s].low
        swept: list[float] = []
        for j in range(s - int(parameters["key_level_lookback"]), s - 3):
            if not self.is_swing_low[j]:
                continue
            level = self.candles[j].low
            is_live = all(self.candles[i].low >= level for i in range(j + 1, s))
            if is_live and low < level and (level - low) / level <= parameters["pierce_depth"]:
                swept.append(level)
        return max(swept) if swept else None

    def bought_back(self, s: int, level: float, parameters: Parameters) -> int | None:
        """Return the bar that confirms the sweep of a low at bar s."""
        atr = self.atr[s - 1]
        if atr is None:
            return None
        for r in range(s, s + int(parameters["rejection_candles"])):
            if r >= len(self.candles):
                return None
            bar = self.candles[r]
            if bar.low < level * (1 - parameters["pierce_depth"]):
                return None
            is_large = bar.close - bar.open >= parameters["reversal_candle_size"] * atr
            if is_green(bar) and bar.close > level and is_large:
                return r
        return None

    # Short: a spike over a swing high.

    def short_orders(self, parameters: Parameters) -> list[Order]:
        found: dict[int, Order] = {}
        for s in range(int(parameters["key_level_lookback"]), len(self.candles)):
            level = self.swept_high(s, parameters)
            if level is None:
                continue
            if not self.has_stop_density(s, level, self.swing_highs(s, parameters), parameters):
                continue
            if not self.has_small_spread(s, parameters):
                continue
            r = self.sold_back(s, level, parameters)
            if r is None:
                continue
            atr = self.atr[r]
            assert atr is not None
            found[r] = Order(
                bar=r,
                side=-1,
                stop_price=self.candles[r].close + parameters["stop_distance"] * atr,
                target_multiple=parameters["target_multiple"],
            )
        return list(found.values())

    def swing_highs(self, s: int, parameters: Parameters) -> list[float]:
        """Return the swing highs in the lookback that are confirmed before bar s, traded through or not."""
        bars = range(s - int(parameters["key_level_lookback"]), s - 3)
        return [self.candles[j].high for j in bars if self.is_swing_high[j]]

    def swept_high(self, s: int, parameters: Parameters) -> float | None:
        """Return the lowest live high that bar s sweeps."""
        if not self.has_volume_spike(s, parameters):
            return None
        high = self.candles[s].high
        swept: list[float] = []
        for j in range(s - int(parameters["key_level_lookback"]), s - 3):
            if not self.is_swing_high[j]:
                continue
            level = self.candles[j].high
            is_live = all(self.candles[i].high <= level for i in range(j + 1, s))
            if is_live and high > level and (high - level) / level <= parameters["pierce_depth"]:
                swept.append(level)
        return min(swept) if swept else None

    def sold_back(self, s: int, level: float, parameters: Parameters) -> int | None:
        """Return the bar that confirms the sweep of a high at bar s."""
        atr = self.atr[s - 1]
        if atr is None:
            return None
        for r in range(s, s + int(parameters["rejection_candles"])):
            if r >= len(self.candles):
                return None
            bar = self.candles[r]
            if bar.high > level * (1 + parameters["pierce_depth"]):
                return None
            is_large = bar.open - bar.close >= parameters["reversal_candle_size"] * atr
            if is_red(bar) and bar.close < level and is_large:
                return r
        return None
