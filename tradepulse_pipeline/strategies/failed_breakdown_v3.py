"""FAILED_BREAKDOWN_V3: Wyckoff's spring, a range whose support breaks without supply and is taken back on volume.

Where the definition leaves a choice, this is what is taken:

- A bar touches the lower fifth of a range when its low is at or below ``support + 0.2 * height``, the upper fifth when
  its high is at or above ``resistance - 0.2 * height``. A touch counts as another one when the latest bar in that zone,
  counted or not, is at least ``max(3, lookback / 10)`` bars back, a number that is not rounded.
- The volume that a breakdown is compared with is the mean over all bars that touch the lower fifth, filled ones too.
  Where that mean is 0 no volume is little, and nothing is decided.
- Depth is judged before the recovery at each bar, also at the bar that would recover. A bar whose usual volume is
  undefined does not recover. The score is that of the first bar that recovers: no later bar gets another chance.
- The bar of the test in phase D is read as it is, so that a filled one may be it. A low under the spring's low ends the
  wait also at the bar that would decide.
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple

import numpy as np

from tradepulse_pipeline.compiled import njit
from tradepulse_pipeline.indicators.candle_shape import CLOSE_LOCATION
from tradepulse_pipeline.indicators.frame import IndicatorFrame
from tradepulse_pipeline.indicators.volatility import ATR
from tradepulse_pipeline.indicators.volume import MEAN_VOLUME_20
from tradepulse_pipeline.market.candles import BoolArray, FloatArray, IntArray
from tradepulse_pipeline.strategies.base import Parameter, ParameterColumns, Parameters, Strategy
from tradepulse_pipeline.strategies.decisions import LONG, Decisions, DecisionSets, Exits
from tradepulse_pipeline.strategies.kernels import with_room

MIN_LOOKBACK: Final = 5
MAX_LOOKBACK: Final = 500

#: Values of ``wyckoff_phase_alignment``.
PHASE_C: Final = 0
PHASE_D: Final = 1

#: Touches of each outer fifth that make a range.
LEAST_TOUCHES: Final = 2

#: Bars after the recovery within which phase D must be decided; the test must come before the last of them.
PHASE_D_BARS: Final = 10


class _Bars(NamedTuple):
    """What the rules read of each bar, arrays of shape (n_bars,); in the mirror ``sign`` is -1."""

    open: FloatArray
    high: FloatArray
    low: FloatArray
    close: FloatArray
    volume: FloatArray
    is_filled: BoolArray
    atr: FloatArray
    usual_volume: FloatArray
    close_location: FloatArray
    sign: int


class _Prepared(NamedTuple):
    """The bars and, of those that break some range, how many bars right before have a higher low: (n_breaks,)."""

    bars: _Bars
    break_bar: IntArray
    n_higher_lows: IntArray


class _Range(NamedTuple):
    """What the rules read of the bars before a breakdown; ``n_touches`` is 0 where they are no range.

    ``lower_volume`` is the mean volume of the bars in the lower fifth, ``close_location`` the volume-weighted mean.
    """

    support: float
    height: float
    n_touches: int
    lower_volume: float
    close_location: float


#: A breakdown and a rising bar after it that closes above support again: a spring, if its volumes, its depth (the
#: deepest until then, as a fraction of support) and its score are what a parameter set asks for. ``supply`` is the
#: breakdown's volume over the mean of the range's lower fifth, ``tested`` the bar that decides in phase D, -1 for none.
_SPRING: Final = np.dtype(
    [
        ("breakdown", np.int64),
        ("recovery", np.int64),
        ("tested", np.int64),
        ("support", np.float64),
        ("height", np.float64),
        ("low", np.float64),
        ("depth", np.float64),
        ("supply", np.float64),
        ("n_touches", np.int64),
        ("close_location", np.float64),
        ("volume", np.float64),
        ("usual_volume", np.float64),
    ]
)

_SpringArray = Any  # an array of such records: numba reads their fields as attributes


class FailedBreakdownV3(Strategy):
    """See ``description``. Decisions are made at the recovery (phase C) or after a successful test of it (phase D)."""

    name = "FAILED_BREAKDOWN_V3"
    title = "Failed breakdown"
    description = (
        "Wyckoff's spring: a range's support, touched before, breaks without real supply (little volume, not deep) and "
        "is taken back within a few bars by a rising candle on volume. Phase C decides at that candle, phase D waits "
        "for a test of the spring's low on less volume."
    )
    indicators = (ATR, MEAN_VOLUME_20, CLOSE_LOCATION)
    parameters = (
        Parameter(
            name="range_lookback_periods",
            unit="bars",
            meaning="Length of the range before the breakdown.",
            kind="signal",
            grid=(20, 50, 100, 200),
            minimum=MIN_LOOKBACK,
            maximum=MAX_LOOKBACK,
            is_integer=True,
        ),
        Parameter(
            name="breakdown_depth",
            unit="fraction of support",
            meaning="How far below support price may go, at most.",
            kind="signal",
            grid=(0.002, 0.005, 0.01, 0.02),
            minimum=0.0001,
            maximum=0.2,
        ),
        Parameter(
            name="volume_decline_threshold",
            unit="times three mean volumes of the range's lower fifth",
            meaning="Volume of the breakdown, at most: 0.5 allows one and a half means.",
            kind="signal",
            grid=(0.3, 0.5, 0.7, 0.9),
            minimum=0.01,
            maximum=100.0,
        ),
        Parameter(
            name="recovery_speed",
            unit="bars",
            meaning="Bars after the breakdown within which support must be taken back.",
            kind="signal",
            grid=(1, 3, 5, 8),
            minimum=1,
            maximum=100,
            is_integer=True,
        ),
        Parameter(
            name="spring_confirmation_volume",
            unit="times the mean volume of the 20 bars before",
            meaning="Volume of the candle that takes support back, at least.",
            kind="signal",
            grid=(1.0, 1.5, 2.0, 2.5),
            minimum=0.01,
            maximum=100.0,
        ),
        Parameter(
            name="stop_distance",
            unit="times ATR",
            meaning="Distance of the stop below the spring's low.",
            kind="exit",
            grid=(0.1, 0.5, 1.0),
            minimum=0.0,
            maximum=50.0,
        ),
        Parameter(
            name="target_multiple",
            unit="range heights",
            meaning="Distance of the target above support.",
            kind="exit",
            grid=(0.5, 1.0, 1.5),
            minimum=0.01,
            maximum=100.0,
        ),
        Parameter(
            name="accumulation_score_min",
            unit="0 to 1",
            meaning="Score of the spring, at least: volumes, speed, touches and closes of the range.",
            kind="signal",
            grid=(0.35, 0.5, 0.6, 0.7),
            minimum=0.0,
            maximum=1.0,
        ),
        Parameter(
            name="wyckoff_phase_alignment",
            unit="0 is phase C, 1 is phase D",
            meaning="Decide at the recovery (C), or only after a test of the spring's low (D).",
            kind="signal",
            grid=(PHASE_C, PHASE_D),
            minimum=PHASE_C,
            maximum=PHASE_D,
            is_integer=True,
        ),
    )

    def prepare(self, frame: IndicatorFrame) -> _Prepared:
        """Find, once, every bar that breaks the support of some range and can be judged."""
        bars = _Bars(
            frame.open,
            frame.high,
            frame.low,
            frame.close,
            frame.volume,
            frame.is_filled,
            frame[ATR.name],
            frame[MEAN_VOLUME_20.name],
            frame[CLOSE_LOCATION.name],
            frame.sign,
        )
        n_higher_lows = _higher_lows_before(bars.low)
        is_judged = ~bars.is_filled
        is_judged[1:] &= ~np.isnan(bars.atr[:-1])
        break_bar = np.flatnonzero((n_higher_lows >= MIN_LOOKBACK) & is_judged)
        return _Prepared(bars, break_bar, n_higher_lows[break_bar])

    def signals(self, prepared: _Prepared, parameters: Parameters) -> Decisions:
        """Return the bars that complete a spring."""
        return self.signals_of_sets(prepared, {name: np.array([parameters[name]]) for name in _SIGNALS}).decisions

    def signals_of_sets(self, prepared: _Prepared, columns: ParameterColumns) -> DecisionSets:
        """Return the bars that complete a spring, for each set in one go; each range length is looked at once."""
        bars = prepared.bars
        values = np.column_stack([columns[name] for name in _SIGNALS]).astype(np.float64)
        lookbacks, lookback_of = np.unique(values[:, 0], return_inverse=True)
        recovery_speed = int(columns["recovery_speed"].max())
        parts = [
            _springs(bars, prepared.break_bar[prepared.n_higher_lows >= lookback], int(lookback), recovery_speed)
            for lookback in lookbacks
        ]
        springs = np.concatenate(parts)
        first = np.cumsum([0, *(len(part) for part in parts)])
        bar, taken, offsets = _decisions(springs, first, lookback_of, values)
        decisions = Decisions.of(
            bar,
            LONG,
            springs["low"][taken],
            bars.atr[springs["breakdown"][taken] - 1],
            target_anchor=springs["support"][taken],
            target_unit=springs["height"][taken],
        )
        return DecisionSets.listed(decisions, offsets)

    def exits(self, parameters: Parameters) -> Exits:
        """Stop by ATR below the spring's low, target by range heights above support."""
        return Exits(
            stop_multiple=parameters["stop_distance"], target="price", target_multiple=parameters["target_multiple"]
        )


_SIGNALS: Final = tuple(p.name for p in FailedBreakdownV3.parameters if p.kind == "signal")


@njit(cache=True, nogil=True)
def _higher_lows_before(low: FloatArray) -> IntArray:
    """Return how many bars right before each one have a higher low, shape (n_bars,).

    The stack holds the bars that no later low has reached down to: their lows ascend.
    """
    n = low.shape[0]
    count = np.empty(n, np.int64)
    stack = np.empty(n, np.int64)
    depth = 0
    for i in range(n):
        while depth > 0 and low[stack[depth - 1]] > low[i]:
            depth -= 1
        count[i] = i - stack[depth - 1] - 1 if depth > 0 else i
        stack[depth] = i
        depth += 1
    return count


@njit(cache=True, nogil=True)
def _range_before(bars: _Bars, b: int, lookback: int) -> _Range:
    """Return the range of the ``lookback`` bars before ``b``."""
    begin = b - lookback
    support, resistance = bars.low[begin], bars.high[begin]
    for k in range(begin + 1, b):
        support = min(support, bars.low[k])
        resistance = max(resistance, bars.high[k])
    height = resistance - support
    nothing = _Range(support, height, 0, np.nan, np.nan)
    if abs(bars.close[b - 1] - bars.close[begin]) > 0.5 * height or height < 3.0 * bars.atr[b - 1]:
        return nothing
    lower, upper = support + 0.2 * height, resistance - 0.2 * height
    separation = max(3.0, lookback / 10)
    n_lower_touches, n_upper_touches = 0, 0
    latest_lower, latest_upper = -np.inf, -np.inf
    n_lower, lower_volume, volume, weighted = 0, 0.0, 0.0, 0.0
    for k in range(begin, b):
        if bars.low[k] <= lower:
            n_lower_touches += k - latest_lower >= separation
            latest_lower = k
            n_lower += 1
            lower_volume += bars.volume[k]
        if bars.high[k] >= upper:
            n_upper_touches += k - latest_upper >= separation
            latest_upper = k
        volume += bars.volume[k]
        weighted += bars.volume[k] * bars.close_location[k]
    if n_lower_touches < LEAST_TOUCHES or n_upper_touches < LEAST_TOUCHES or lower_volume == 0.0:
        return nothing
    return _Range(support, height, n_lower_touches + n_upper_touches, lower_volume / n_lower, weighted / volume)


@njit(cache=True, nogil=True)
def _springs(bars: _Bars, break_bar: IntArray, lookback: int, recovery_speed: int) -> _SpringArray:
    """Return what may be a spring of a range of ``lookback`` bars, ordered by breakdown, then by recovery."""
    springs = np.empty(256, _SPRING)
    n_found = 0
    for b in break_bar:
        before = _range_before(bars, b, lookback)
        if before.n_touches == 0:
            continue
        low = bars.low[b]
        for r in range(b + 1, min(b + 1 + recovery_speed, bars.close.shape[0])):
            low = min(low, bars.low[r])
            if not (bars.close[r] > before.support and _is_rising(bars, r)):
                continue
            if n_found == springs.shape[0]:
                larger = np.empty(2 * n_found, _SPRING)
                larger[:n_found] = springs
                springs = larger
            spring = springs[n_found]
            spring.breakdown = b
            spring.recovery = r
            spring.tested = _tested(bars, b, r, low, low + 0.25 * before.height)
            spring.support = before.support
            spring.height = before.height
            spring.low = low
            spring.depth = bars.sign * ((before.support - low) / before.support)
            spring.supply = bars.volume[b] / before.lower_volume
            spring.n_touches = before.n_touches
            spring.close_location = before.close_location
            spring.volume = bars.volume[r]
            spring.usual_volume = bars.usual_volume[r]
            n_found += 1
    return springs[:n_found]


@njit(cache=True, nogil=True)
def _tested(bars: _Bars, b: int, r: int, spring_low: float, highest_test: float) -> int:
    """Return the bar that decides after a test of the spring's low, -1 if none does before the wait is over."""
    is_tested = False
    for k in range(r + 1, min(r + 1 + PHASE_D_BARS, bars.close.shape[0])):
        if bars.low[k] < spring_low:
            return -1
        if is_tested and _is_rising(bars, k):
            return k
        is_tested = is_tested or (bars.low[k] <= highest_test and bars.volume[k] < bars.volume[b])
    return -1


@njit(cache=True, nogil=True)
def _is_rising(bars: _Bars, k: int) -> bool:
    return bars.close[k] > bars.open[k] and not bars.is_filled[k]


@njit(cache=True, nogil=True)
def _decisions(
    springs: _SpringArray, first: IntArray, lookback_of: IntArray, sets: FloatArray
) -> tuple[IntArray, IntArray, IntArray]:
    """Return decision bars, the springs that they complete, and where the decisions of each row of ``sets`` begin.

    Set i reads springs ``first[lookback_of[i]]`` to ``first[lookback_of[i] + 1]``. Its decisions are in bar order,
    and at the same bar in the order of their breakdowns.
    """
    offsets = np.zeros(sets.shape[0] + 1, np.int64)
    bar, taken = np.empty(springs.shape[0], np.int64), np.empty(springs.shape[0], np.int64)
    n_found = 0
    for i in range(sets.shape[0]):
        _, breakdown_depth, volume_decline, recovery_speed, confirmation_volume, least_score, phase = sets[i]
        begin, last = n_found, first[lookback_of[i] + 1]
        bar, taken = with_room(bar, n_found, springs.shape[0]), with_room(taken, n_found, springs.shape[0])
        recovered = -1
        for k in range(first[lookback_of[i]], last):
            spring = springs[k]
            if (
                spring.breakdown == recovered
                or spring.recovery - spring.breakdown > recovery_speed
                or spring.depth > breakdown_depth
                or spring.supply > 3.0 * volume_decline
                or not spring.volume >= confirmation_volume * spring.usual_volume
            ):
                continue
            recovered = spring.breakdown
            score = _accumulation_score(spring, volume_decline, recovery_speed, confirmation_volume)
            d = spring.recovery if phase == PHASE_C else spring.tested
            if score < least_score or d < 0:
                continue
            at = n_found
            while at > begin and bar[at - 1] > d:
                bar[at], taken[at] = bar[at - 1], taken[at - 1]
                at -= 1
            bar[at], taken[at] = d, k
            n_found += 1
        offsets[i + 1] = n_found
    return bar[:n_found].copy(), taken[:n_found].copy(), offsets


@njit(cache=True, nogil=True)
def _accumulation_score(spring: Any, volume_decline: float, recovery_speed: float, confirmation_volume: float) -> float:
    """Return how much a spring looks like accumulation, from 0 to 1."""
    delay = spring.recovery - spring.breakdown - 1
    return float(
        0.30 * min(spring.volume / (1.5 * confirmation_volume * spring.usual_volume), 1.0)
        + 0.25 * max(0.0, 1.0 - spring.supply / (3.0 * volume_decline))
        + 0.20 * (1.0 - delay / recovery_speed)
        + 0.15 * min(spring.n_touches / 6, 1.0)
        + 0.10 * min(max((spring.close_location - 0.45) / 0.10, 0.0), 1.0)
    )
