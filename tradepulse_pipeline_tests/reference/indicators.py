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
