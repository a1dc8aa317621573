"""Candles one by one, and the filling of short gaps."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Candle:
    open_time_ms: int
    open: float
    high: float
    low: float
    close: float
    volume: float
    is_filled: bool = False


def filled_forward(candles: list[Candle], step_ms: int, max_fill: int = 3) -> list[Candle]:
    """Put flat candles of volume 0 where up to ``max_fill`` candles in a row are missing."""
    result: list[Candle] = []
    for candle in candles:
        if result:
            before = result[-1]
            missing = 0
            while before.open_time_ms + (missing + 1) * step_ms < candle.open_time_ms:
                missing += 1
            if missing <= max_fill:
                for m in range(1, missing + 1):
                    time, price = before.open_time_ms + m * step_ms, before.close
                    result.append(Candle(time, price, price, price, price, 0.0, True))
        result.append(candle)
    return result
