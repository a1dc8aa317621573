"""Indicators, each value from its definition. ``None`` stands for undefined."""

from __future__ import annotations

from tradepulse_pipeline_tests.reference.candles import Candle


def true_range(candles: list[Candle], i: int) -> float:
    high, low, close_before = candles[i].high, candles[i].low, candles[i - 1].close
    return max(high - low, abs(high - close_before), abs(low - close_before))


def average_true_range(candles: list[Candle]) -> list[float | None]:
    """Wilder's ATR of period 14: first at bar 14, the mean of the true ranges of bars 1 to 14."""
    atr: list[float | None] = []
    for i in range(len(candles)):
        if i < 14:
            atr.append(None)
        elif i == 14:
            atr.append(sum(true_range(candles, k) for k in range(1, 15)) / 14)
        else:
            before = atr[i - 1]
            assert before is not None
            atr.append((13 * before + true_range(candles, i)) / 14)
    return atr


def mean_volume(candles: list[Candle], n: int, i: int) -> float | None:
    """V(n, i): the mean volume of the n latest unfilled bars before bar i."""
    volumes: list[float] = []
    for k in range(i - 1, -1, -1):
        if not candles[k].is_filled:
            volumes.append(candles[k].volume)
        if len(volumes) == n:
            return sum(volumes) / n
    return None


def relative_strength_index(candles: list[Candle]) -> list[float | None]:
    """Wilder's RSI of period 14 as TA-Lib has it: first at bar 14; 0 where no close has moved at all."""
    rsi: list[float | None] = []
    gain = loss = 0.0
    for i in range(len(candles)):
        change = candles[i].close - candles[i - 1].close if i > 0 else 0.0
        up, down = max(change, 0.0), max(-change, 0.0)
        if i <= 14:
            gain, loss = gain + up / 14, loss + down / 14
        else:
            gain, loss = (13 * gain + up) / 14, (13 * loss + down) / 14
        if i < 14:
            rsi.append(None)
        else:
            rsi.append(100 * gain / (gain + loss) if gain + loss > 0 else 0.0)
    return rsi


def close_location(candle: Candle) -> float:
    """CLV: where in its range the candle closes, 0 at the low and 1 at the high."""
    if candle.high == candle.low:
        return 0.5
    return (candle.close - candle.low) / (candle.high - candle.low)


def weighted_close_location(candles: list[Candle]) -> float:
    """Mean CLV, weighted by volume, of which there must be some."""
    total = sum(candle.volume for candle in candles)
    return sum(candle.volume * close_location(candle) for candle in candles) / total


def is_swing_low(candles: list[Candle], j: int) -> bool:
    """Whether bar j is a swing low; known only once bar j + 3 has closed."""
    if j < 3 or j + 3 >= len(candles):
        return False
    low = candles[j].low
    return all(low < candles[j - m].low and low <= candles[j + m].low for m in (1, 2, 3))


def is_swing_high(candles: list[Candle], j: int) -> bool:
    """Whether bar j is a swing high; known only once bar j + 3 has closed."""
    if j < 3 or j + 3 >= len(candles):
        return False
    high = candles[j].high
    return all(high > candles[j - m].high and high >= candles[j + m].high for m in (1, 2, 3))
