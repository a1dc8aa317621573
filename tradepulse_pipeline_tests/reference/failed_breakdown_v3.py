"""FAILED_BREAKDOWN_V3 as its definition reads, bar by bar; the short side is written out by hand."""

from __future__ import annotations

from dataclasses import dataclass

from tradepulse_pipeline_tests.reference.backtest import Order
from tradepulse_pipeline_tests.reference.candles import Candle
from tradepulse_pipeline_tests.reference.indicators import mean_volume, weighted_close_location
from tradepulse_pipeline_tests.reference.strategy import Parameters, ReferenceStrategy, is_green, is_red

PHASE_C, PHASE_D = 0, 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Range:
    """The bars before a breakdown, the mean volume of those in the fifth that breaks, and all touches."""

    support: float
    resistance: float
    height: float
    atr: float
    candles: list[Candle]
    edge_volume: float
    n_touches: int


class FailedBreakdowns(ReferenceStrategy):
    """Springs under a range and upthrusts over one."""

    def __init__(self, candles: list[Candle], minutes: int) -> None:
        super().__init__(candles, minutes)
        self.mean_volume = [mean_volume(candles, 20, i) for i in range(len(candles))]

    def range_before(self, b: int, length: int, *, breaks_support: bool) -> Range | None:
        """Return the range of the ``length`` bars before b, if they are one."""
        if b < length:
            return None
        candles = self.candles[b - length : b]
        support, resistance = min(candle.low for candle in candles), max(candle.high for candle in candles)
        height, atr = resistance - support, self.atr[b - 1]
        if atr is None or height < 3 * atr or abs(candles[-1].close - candles[0].close) > 0.5 * height:
            return None
        lower = [i for i in range(length) if candles[i].low <= support + 0.2 * height]
        upper = [i for i in range(length) if candles[i].high >= resistance - 0.2 * height]
        n_lower, n_upper = n_touches(lower, length), n_touches(upper, length)
        if n_lower < 2 or n_upper < 2:
            return None
        edge = lower if breaks_support else upper
        return Range(
            support=support,
            resistance=resistance,
            height=height,
            atr=atr,
            candles=candles,
            edge_volume=sum(candles[i].volume for i in edge) / len(edge),
            n_touches=n_lower + n_upper,
        )

    def has_no_real_volume(self, b: int, around: Range, parameters: Parameters) -> bool:
        if around.edge_volume <= 0:
            return False
        return self.candles[b].volume / around.edge_volume <= 3 * parameters["volume_decline_threshold"]

    def is_confirmed_by_volume(self, r: int, parameters: Parameters) -> bool:
        mean = self.mean_volume[r]
        if mean is None or mean <= 0:
            return False
        return self.candles[r].volume >= parameters["spring_confirmation_volume"] * mean

    def score(self, b: int, r: int, around: Range, parameters: Parameters, *, close_location: float) -> float:
        """``close_location`` is the range's CLV, or 1 - CLV for an upthrust."""
        mean = self.mean_volume[r]
        assert mean is not None
        volume = self.candles[r].volume / (1.5 * parameters["spring_confirmation_volume"] * mean)
        supply = self.candles[b].volume / around.edge_volume / (3 * parameters["volume_decline_threshold"])
        return (
            0.30 * min(volume, 1.0)
            + 0.25 * max(0.0, 1 - supply)
            + 0.20 * (1 - (r - b - 1) / parameters["recovery_speed"])
            + 0.15 * min(around.n_touches / 6, 1.0)
            + 0.10 * min(max((close_location - 0.45) / 0.10, 0.0), 1.0)
        )

    # Long: a spring.

    def long_orders(self, parameters: Parameters) -> list[Order]:
        found: list[Order] = []
        for b in range(len(self.candles)):
            around = self.broken_support(b, parameters)
            if around is None or not self.has_no_real_volume(b, around, parameters):
                continue
            r = self.taken_back(b, around.support, parameters)
            if r is None:
                continue
            location = weighted_close_location(around.candles)
            if self.score(b, r, around, parameters, close_location=location) < parameters["accumulation_score_min"]:
                continue
            d = r if parameters["wyckoff_phase_alignment"] == PHASE_C else self.after_test_of_low(b, r, around.height)
            if d is not None:
                found.append(
                    Order(
                        bar=d,
                        side=1,
                        stop_price=min(self.low[b : d + 1]) - parameters["stop_distance"] * around.atr,
                        target_price=around.support + parameters["target_multiple"] * around.height,
                    )
                )
        return found

    def broken_support(self, b: int, parameters: Parameters) -> Range | None:
        """Return the range whose support bar b breaks, though not too deeply."""
        length = int(parameters["range_lookback_periods"])
        if b < length or self.candles[b].is_filled or self.low[b] >= min(self.low[b - length : b]):
            return None
        around = self.range_before(b, length, breaks_support=True)
        if around is None or (around.support - self.low[b]) / around.support > parameters["breakdown_depth"]:
            return None
        return around

    def taken_back(self, b: int, support: float, parameters: Parameters) -> int | None:
        for r in range(b + 1, b + int(parameters["recovery_speed"]) + 1):
            if r >= len(self.candles) or (support - self.low[r]) / support > parameters["breakdown_depth"]:
                return None
            is_above = self.candles[r].close > support
            if is_above and is_green(self.candles[r]) and self.is_confirmed_by_volume(r, parameters):
                return r
        return None

    def after_test_of_low(self, b: int, r: int, height: float) -> int | None:
        """Return the bar that turns up after the spring's low was tested on less volume."""
        q = min(self.low[b : r + 1])
        is_tested = False
        for i in range(r + 1, min(r + 10, len(self.candles) - 1) + 1):
            if self.low[i] < q:
                return None
            if is_tested and is_green(self.candles[i]):
                return i
            if i <= r + 9 and self.low[i] <= q + 0.25 * height and self.candles[i].volume < self.candles[b].volume:
                is_tested = True
        return None

    # Short: an upthrust.

    def short_orders(self, parameters: Parameters) -> list[Order]:
        found: list[Order] = []
        for b in range(len(self.candles)):
            around = self.broken_resistance(b, parameters)
            if around is None or not self.has_no_real_volume(b, around, parameters):
                continue
            r = self.given_back(b, around.resistance, parameters)
            if r is None:
                continue
            location = 1 - weighted_close_location(around.candles)
            if self.score(b, r, around, parameters, close_location=location) < parameters["accumulation_score_min"]:
                continue
            d = r if parameters["wyckoff_phase_alignment"] == PHASE_C else self.after_test_of_high(b, r, around.height)
            if d is not None:
                found.append(
                    Order(
                        bar=d,
                        side=-1,
                        stop_price=max(self.high[b : d + 1]) + parameters["stop_distance"] * around.atr,
                        target_price=around.resistance - parameters["target_multiple"] * around.height,
                    )
                )
        return found

    def broken_resistance(self, b: int, parameters: Parameters) -> Range | None:
        """Return the range whose resistance bar b breaks, though not too far."""
        length = int(parameters["range_lookback_periods"])
        if b < length or self.candles[b].is_filled or self.high[b] <= max(self.high[b - length : b]):
            return None
        around = self.range_before(b, length, breaks_support=False)
        if around is None or (self.high[b] - around.resistance) / around.resistance > parameters["breakdown_depth"]:
            return None
        return around

    def given_back(self, b: int, resistance: float, parameters: Parameters) -> int | None:
        for r in range(b + 1, b + int(parameters["recovery_speed"]) + 1):
            if r >= len(self.candles) or (self.high[r] - resistance) / resistance > parameters["breakdown_depth"]:
                return None
            is_below = self.candles[r].close < resistance
            if is_below and is_red(self.candles[r]) and self.is_confirmed_by_volume(r, parameters):
                return r
        return None

    def after_test_of_high(self, b: int, r: int, height: float) -> int | None:
        """Return the bar that turns down after the upthrust's high was tested on less volume."""
        q = max(self.high[b : r + 1])
        is_tested = False
        for i in range(r + 1, min(r + 10, len(self.candles) - 1) + 1):
            if self.high[i] > q:
                return None
            if is_tested and is_red(self.candles[i]):
                return i
            if i <= r + 9 and self.high[i] >= q - 0.25 * height and self.candles[i].volume < self.candles[b].volume:
                is_tested = True
        return None


def n_touches(bars: list[int], length: int) -> int:
    """Count the bars that come some time after the one before them, the first one too."""
    apart = max(3, length / 10)
    return sum(1 for k in range(len(bars)) if k == 0 or bars[k] - bars[k - 1] >= apart)
