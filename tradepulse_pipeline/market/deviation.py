"""How far two sources of the same candles agree, and whether one of them slipped in time or in a unit."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from tradepulse_pipeline.errors import InvalidInputError
from tradepulse_pipeline.market.candles import BoolArray, Candles, FloatArray, IntArray
from tradepulse_pipeline.market.series import MS_PER_MINUTE
from tradepulse_pipeline.market.sources.times import iso_utc

#: Relative difference up to which two numbers count as equal: the last digits of a sum depend on its order.
TOLERANCE: Final = 1e-9

#: A slip in time is claimed where the returns correlate this well with the shift, at most half as well without it, and
#: there are this many of them: the correlation of 100 unrelated ones has a standard deviation of 0.1.
SLIP_CORRELATION: Final = 0.7
SLIP_RETURNS: Final = 100

#: Time zones are up to 14 hours from UTC.
MAX_SLIP_HOURS: Final = 14

#: A slip in a unit is claimed where this share of the ratios lies this near to one power of ten.
UNIT_SHARE: Final = 0.9
UNIT_TOLERANCE: Final = 0.02


@dataclass(frozen=True, slots=True, kw_only=True)
class Deviation:
    """How the candles of a second source differ from those of a first one.

    Relative deviations are ``abs(a - b) / max(a, b)``, so in [0, 1); what there is nothing of is 0, its time None.

    Attributes
    ----------
    n_common : int
        Candles with an open time that both have.
    n_different, n_volumes_different : int
        Common candles with another open, high, low or close; with another volume.
    largest, largest_ms : float, int or None
        Largest relative deviation of any of the four prices, and the open time of its candle.
    median_close, largest_close, largest_close_ms : float, float, int or None
        Median and largest relative deviation of the close, and the open time of the latter.
    median_volume : float
        Median relative deviation of the volume.
    n_only_first, n_only_second : int
        Candles that one has and the other lacks, within the span that both cover.
    lag : int
        Candles by which the second one's open times are late (negative: early); 0 unless that is clear.
    lag_ms : int
        The same in milliseconds.
    price_factor, volume_factor : float
        The power of ten that the second one's prices or volumes are multiplied by; 1 unless that is clear.
    """

    n_common: int
    n_different: int
    n_volumes_different: int
    largest: float
    largest_ms: int | None
    median_close: float
    largest_close: float
    largest_close_ms: int | None
    median_volume: float
    n_only_first: int
    n_only_second: int
    lag: int
    lag_ms: int
    price_factor: float
    volume_factor: float

    @property
    def has_slip(self) -> bool:
        """Whether one of the two is clearly wrong: shifted in time, or in another unit."""
        return self.lag != 0 or self.price_factor != 1 or self.volume_factor != 1

    @property
    def is_notable(self) -> bool:
        """Whether the two differ at all."""
        return bool(self.n_different or self.n_volumes_different or self.has_slip)

    def sentence(self, first: str, second: str) -> str:
        """Say in plain words what was found, ``first`` and ``second`` being the names of the sources."""
        parts = [f"{first} against {second}: {_counted(self.n_common, 'common candle')}"]
        if self.n_different and self.largest_ms is not None:
            differ = "differs" if self.n_different == 1 else "differ"
            parts.append(
                f"{self.n_different} {differ}, by {_percent(self.largest)} at most ({iso_utc(self.largest_ms)})"
            )
        elif self.n_common:
            parts.append("all prices equal")
        if self.n_volumes_different:
            parts.append(f"{_counted(self.n_volumes_different, 'volume')} {_differ(self.n_volumes_different)}")
        parts += [
            f"{_counted(n, 'candle')} only in {name}"
            for n, name in ((self.n_only_first, first), (self.n_only_second, second))
            if n
        ]
        if self.lag:
            by = f"{abs(self.lag_ms) // MS_PER_MINUTE} minutes {'late' if self.lag > 0 else 'early'}"
            parts.append(f"the times of {second} are {by}: a wrong time zone, or close times in place of open times")
        parts += [
            f"the {what} of {second} are {factor:g} times those of {first}: another unit"
            for what, factor in (("prices", self.price_factor), ("volumes", self.volume_factor))
            if factor != 1
        ]
        return ", ".join(parts)


def compare(first: Candles, second: Candles, *, tolerance: float = TOLERANCE) -> Deviation:
    """Compare two series of candles of the same market and timeframe; candles that were filled forward do not count.

    A slip in time is told by the correlation of close-to-close log returns at shifts of one candle and of whole hours.

    Parameters
    ----------
    first, second : Candles
        What two sources gave.
    tolerance : float
        Relative deviation up to which two values count as equal.

    Raises
    ------
    InvalidInputError
        If the timeframes differ.
    """
    if first.timeframe != second.timeframe:
        raise InvalidInputError(
            f"Candles of {first.timeframe} cannot be compared with candles of {second.timeframe}: resample one of them."
        )
    a, b = first.traded(), second.traded()
    common, in_a, in_b = _common(a.open_time_ms, b.open_time_ms)
    prices = np.max(
        [_deviation(getattr(a, name)[in_a], getattr(b, name)[in_b]) for name in ("open", "high", "low", "close")],
        axis=0,
    )
    close = _deviation(a.close[in_a], b.close[in_b])
    volume = _deviation(a.volume[in_a], b.volume[in_b])
    largest, largest_ms = _largest(prices, common)
    largest_close, largest_close_ms = _largest(close, common)
    lag = _lag(a, b)
    lag_ms = lag * a.timeframe.milliseconds
    _, alike_a, alike_b = _common(a.open_time_ms, b.open_time_ms - lag_ms)
    return Deviation(
        n_common=len(common),
        n_different=int((prices > tolerance).sum()),
        n_volumes_different=int((volume > tolerance).sum()),
        largest=largest,
        largest_ms=largest_ms,
        median_close=_median(close),
        largest_close=largest_close,
        largest_close_ms=largest_close_ms,
        median_volume=_median(volume),
        n_only_first=_n_within(a, b) - len(common),
        n_only_second=_n_within(b, a) - len(common),
        lag=lag,
        lag_ms=lag_ms,
        price_factor=_power_of_ten(a.close[alike_a], b.close[alike_b]),
        volume_factor=_power_of_ten(a.volume[alike_a], b.volume[alike_b]),
    )


def _common(a: IntArray, b: IntArray) -> tuple[IntArray, IntArray, IntArray]:
    """Return the times that both have, and where each of the two has them."""
    times, in_a, in_b = np.intersect1d(a, b, assume_unique=True, return_indices=True)
    return times, in_a, in_b


def _deviation(a: FloatArray, b: FloatArray) -> FloatArray:
    """Return ``abs(a - b) / max(a, b)``, 0 where both are 0; neither is ever negative."""
    largest = np.maximum(a, b)
    return np.divide(np.abs(a - b), largest, out=np.zeros(len(a)), where=largest > 0)


def _largest(deviation: FloatArray, times: IntArray) -> tuple[float, int | None]:
    if not deviation.any():
        return 0.0, None
    at = int(np.argmax(deviation))
    return float(deviation[at]), int(times[at])


def _median(deviation: FloatArray) -> float:
    return float(np.median(deviation)) if len(deviation) else 0.0


def _n_within(candles: Candles, other: Candles) -> int:
    """Return how many candles lie between the first and the last one of another series."""
    if not len(other):
        return 0
    return len(candles.between(int(other.open_time_ms[0]), other.end_ms))


def _power_of_ten(a: FloatArray, b: FloatArray) -> float:
    """Return the power of ten that nearly all ratios ``b / a`` are near to, 1 if there is none."""
    both = (a > 0) & (b > 0)
    if not both.any():
        return 1.0
    exponents = np.log10(b[both] / a[both])
    exponent = round(float(np.median(exponents)))
    is_near = np.abs(exponents - exponent) < np.log10(1 + UNIT_TOLERANCE)
    return 10.0**exponent if is_near.mean() >= UNIT_SHARE else 1.0


def _lag(a: Candles, b: Candles) -> int:
    """Return the shift, in candles, at which the returns of ``b`` follow those of ``a``; 0 if that is not clear."""
    if not len(a) or not len(b):
        return 0
    step = a.timeframe.milliseconds
    start, end = min(a.open_time_ms[0], b.open_time_ms[0]), max(a.end_ms, b.end_ms)
    returns_a, returns_b = (_returns_on_grid(candles, int(start), end) for candles in (a, b))
    hours = {
        hour * 60 * MS_PER_MINUTE // step
        for hour in range(1, MAX_SLIP_HOURS + 1)
        if hour * 60 * MS_PER_MINUTE % step == 0
    }
    shifts = [shift for size in sorted({1, *hours}) for shift in (size, -size)]
    correlation = {shift: _correlation(returns_a, returns_b, shift) for shift in shifts}
    best = max(correlation, key=lambda shift: correlation[shift])
    is_clear = correlation[best] >= SLIP_CORRELATION and _correlation(returns_a, returns_b, 0) <= correlation[best] / 2
    return best if is_clear else 0


def _returns_on_grid(candles: Candles, start_ms: int, end_ms: int) -> FloatArray:
    """Return log returns for every step of the span, NaN where a candle or the one before it is missing."""
    step = candles.timeframe.milliseconds
    closes = np.full((end_ms - start_ms) // step, np.nan)
    closes[(candles.open_time_ms - start_ms) // step] = np.log(candles.close)
    return np.diff(closes)


def _correlation(a: FloatArray, b: FloatArray, shift: int) -> float:
    """Return the correlation of ``a[t]`` with ``b[t + shift]``; 0 for too few values or without variation."""
    n = len(a) - abs(shift)
    if n < SLIP_RETURNS:
        return 0.0
    x, y = a[max(-shift, 0) :][:n], b[max(shift, 0) :][:n]
    both: BoolArray = np.isfinite(x) & np.isfinite(y)
    if both.sum() < SLIP_RETURNS or x[both].std() < 1e-12 or y[both].std() < 1e-12:
        return 0.0
    return float(np.corrcoef(x[both], y[both])[0, 1])


def _counted(n: int, what: str) -> str:
    return f"{n} {what}{'' if n == 1 else 's'}"


def _differ(n: int) -> str:
    return "differs" if n == 1 else "differ"


def _percent(fraction: float) -> str:
    return f"{100 * fraction:.3g} %"
