"""Triple barriers and folds, each from its definition; long and short are each written out."""

from __future__ import annotations

from tradepulse_pipeline_tests.reference.candles import Candle


def first_barrier(
    candles: list[Candle], step_ms: int, j: int, side: int, distance: float, horizon: int
) -> tuple[str, int]:
    """Return what comes first after a decision at bar j, and the last bar that was looked at."""
    unlabelled = ("unlabelled", j)
    if j + 1 >= len(candles) or candles[j].is_filled or candles[j + 1].is_filled or not distance > 0:
        return unlabelled
    if candles[j + 1].open_time_ms - candles[j].open_time_ms != step_ms:
        return unlabelled
    entry = candles[j + 1].open
    upper, lower = entry + distance, entry - distance
    above, below = ("target", "stop") if side == 1 else ("stop", "target")
    for k in range(j + 1, j + 1 + horizon):
        if k == len(candles):
            return unlabelled
        bar = candles[k]
        if k > j + 1 and bar.open <= lower:
            return below, k
        if k > j + 1 and bar.open >= upper:
            return above, k
        met = {name for name, is_met in ((above, bar.high >= upper), (below, bar.low <= lower)) if is_met}
        if met:
            return ("stop" if "stop" in met else "target"), k
    return "timeout", j + horizon


def purged_train(start: list[int], end: list[int], test: list[int], embargo: int) -> list[int]:
    """Return the samples that share no bar with any bar of the test span, nor start right after it."""
    span = range(min(start[i] for i in test), max(end[i] for i in test) + 1)
    forbidden = set(span)
    after = range(span.stop, span.stop + embargo)
    return [i for i in range(len(start)) if not forbidden & set(range(start[i], end[i] + 1)) and start[i] not in after]
