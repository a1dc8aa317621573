"""What is missing: each gap, whether the exchange was away or nobody traded, and a feed that stands still."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final, Literal

import numpy as np

from tradepulse_pipeline.market.candles import BoolArray, Candles, IntArray
from tradepulse_pipeline.market.quality.surroundings import Neighbours

#: How a series writes that nobody traded: a candle without volume, or no candle at all; None where nothing tells.
NoTrade = Literal["zero-volume candle", "no candle"]
GapCause = Literal["outage", "no trade", "unknown"]

#: A series that leaves candles out has many gaps, and most of them are one or two candles long.
LEAVES_OUT_GAPS: Final = 10
SHORT_GAP: Final = 2

#: Candles around a gap that tell how often a candle is missing there.
SURROUNDING: Final = 500

#: A gap or a standstill is no chance where fewer than this many are to be expected in the whole series.
CHANCE: Final = 1e-3

#: A feed stands still from this many candles without volume and with one price.
FROZEN_CANDLES: Final = 3


@dataclass(frozen=True, slots=True)
class Gap:
    """A stretch of missing candles.

    ``start_ms`` is the open time of the first of them and ``n_missing`` how many there are. ``n_others`` counts the
    other pairs of the exchange that have candles before and after, and ``n_others_missing`` those of them that have
    none within.
    """

    start_ms: int
    n_missing: int
    n_others: int = 0
    n_others_missing: int = 0
    cause: GapCause = "unknown"

    @property
    def is_shared(self) -> bool | None:
        """Whether most other pairs of the exchange have it too; None where no other pair is known."""
        return 2 * self.n_others_missing > self.n_others if self.n_others else None


@dataclass(frozen=True, slots=True)
class Standstill:
    """A run of candles without volume and with one price, and whether a gap is right before or after it."""

    start_ms: int
    n_candles: int
    is_at_gap: bool


def find_gaps(candles: Candles) -> tuple[Gap, ...]:
    """Return where candles are missing between the first and the last one; a closed market misses none."""
    missing = candles.calendar.missing_between(candles.open_time_ms, candles.timeframe)
    at = np.flatnonzero(missing)
    starts = candles.calendar.shifted(candles.open_time_ms[at], np.ones(len(at), dtype=np.int64), candles.timeframe)
    return tuple(Gap(start, n) for start, n in zip(starts.tolist(), missing[at].tolist(), strict=True))


def no_trade_convention(candles: Candles, gaps: tuple[Gap, ...]) -> NoTrade | None:
    """Return how the series writes that nobody traded, told from the candles themselves."""
    if (candles.volume == 0).any():
        return "zero-volume candle"
    n_short = sum(gap.n_missing <= SHORT_GAP for gap in gaps)
    return "no candle" if n_short >= LEAVES_OUT_GAPS and 2 * n_short > len(gaps) else None


def explain_gaps(
    candles: Candles, gaps: tuple[Gap, ...], convention: NoTrade | None, pairs: Neighbours
) -> tuple[Gap, ...]:
    """Return the gaps with what other pairs and the convention say about them.

    A gap is an outage where a candle without volume would stand if nobody had traded. Where such a candle is left
    out, a gap is an outage if it is too long for chance: with a share p of candles missing around it, n candles hold
    about ``n p^k (1 - p)`` gaps of k candles or more. Without a convention, one that most other pairs
    have is an outage.
    """
    if not gaps:
        return gaps
    starts = np.array([gap.start_ms for gap in gaps])
    lengths = np.array([gap.n_missing for gap in gaps])
    ends = candles.calendar.shifted(starts, lengths, candles.timeframe)
    n_others, n_missing = np.zeros((2, len(gaps)), dtype=np.int64)
    for load in pairs.values():
        times = load().open_time_ms
        if len(times):
            is_listed = (times[0] < starts) & (times[-1] >= ends)
            n_others += is_listed
            n_missing += is_listed & (np.searchsorted(times, starts) == np.searchsorted(times, ends))
    is_outage = _too_long_for_chance(candles, starts, lengths)
    return tuple(
        replace(gap, n_others=n, n_others_missing=m, cause=_cause(convention, too_long, 2 * m > n))
        for gap, n, m, too_long in zip(gaps, n_others.tolist(), n_missing.tolist(), is_outage.tolist(), strict=True)
    )


def _cause(convention: NoTrade | None, is_too_long: bool, is_shared: bool) -> GapCause:
    if convention == "zero-volume candle":
        return "outage"
    if convention == "no candle":
        return "outage" if is_too_long else "no trade"
    return "outage" if is_shared else "unknown"


def _too_long_for_chance(candles: Candles, starts: IntArray, lengths: IntArray) -> BoolArray:
    times = candles.open_time_ms
    missing = np.append(0, np.cumsum(candles.calendar.missing_between(times, candles.timeframe)))
    after = np.searchsorted(times, starts)
    first, last = np.maximum(after - SURROUNDING, 0), np.minimum(after + SURROUNDING, len(times)) - 1
    n_places = last - first + 1 + missing[last] - missing[first] - lengths
    share = (n_places - (last - first + 1) + 1) / (n_places + 1)  # of none seen, one may have been
    is_too_long: BoolArray = len(times) * share**lengths * (1 - share) < CHANCE
    return is_too_long


def find_standstills(candles: Candles, gaps: tuple[Gap, ...]) -> tuple[Standstill, ...]:
    """Return the runs of equal candles without volume that chance does not explain.

    Those are the ones beside a gap (a feed often freezes before it stops), and those of k candles where fewer than
    ``CHANCE`` are to be expected of the n candles, ``n p^k (1 - p)``, p being the share of such candles.
    """
    n = len(candles)
    is_still = (candles.volume == 0) & (candles.high == candles.low)
    is_still[1:] &= candles.close[1:] == candles.close[:-1]
    edges = np.flatnonzero(np.diff(is_still, prepend=False, append=False))
    starts, stops = edges[::2], edges[1::2]
    long_enough = stops - starts >= FROZEN_CANDLES
    starts, stops = starts[long_enough], stops[long_enough]
    share = is_still.mean() if n else 0.0
    is_rare = n * share ** (stops - starts) * (1 - share) < CHANCE
    step, times = candles.timeframe.milliseconds, candles.open_time_ms
    gap_starts = {gap.start_ms for gap in gaps}
    gap_ends = {gap.start_ms + gap.n_missing * step for gap in gaps}
    found = [
        Standstill(start, int(length), start in gap_ends or start + int(length) * step in gap_starts)
        for start, length in zip(times[starts].tolist(), stops - starts, strict=True)
    ]
    return tuple(one for one, rare in zip(found, is_rare, strict=True) if rare or one.is_at_gap)
