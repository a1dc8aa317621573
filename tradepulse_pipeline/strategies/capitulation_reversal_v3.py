"""CAPITULATION_REVERSAL_V3: a selling climax on exploding volume, absorbed, then reversed."""

from __future__ import annotations

import math
from typing import Final, NamedTuple

import numpy as np

from tradepulse_pipeline.compiled import njit
from tradepulse_pipeline.indicators.candle_shape import CLOSE_LOCATION
from tradepulse_pipeline.indicators.frame import IndicatorFrame
from tradepulse_pipeline.indicators.momentum import RSI
from tradepulse_pipeline.indicators.volatility import ATR
from tradepulse_pipeline.indicators.volume import MEAN_VOLUME_50
from tradepulse_pipeline.market.candles import BoolArray, FloatArray, IntArray
from tradepulse_pipeline.strategies.base import Parameter, ParameterColumns, Parameters, Strategy
from tradepulse_pipeline.strategies.decisions import LONG, Decisions, DecisionSets, Exits
from tradepulse_pipeline.strategies.kernels import with_room

#: A climax is the lowest low of this many bars, itself counted.
LOWEST_OF: Final = 20

#: A climax ends a fall that began this many bars before it.
LEG_BARS: Final = 3

MAX_CONFIRMATION: Final = 50


class _Bars(NamedTuple):
    """What confirmation reads of each bar, arrays of shape (n_bars,)."""

    open: FloatArray
    high: FloatArray
    low: FloatArray
    close: FloatArray
    is_filled: BoolArray


class _Climaxes(NamedTuple):
    """The bars that may be climaxes and are confirmed, arrays of shape (n_climaxes,), in order of confirmation.

    ``delay`` is the number of bars from the climax to its confirmation at ``confirmed_at``; ``surge`` its volume over
    the usual one; ``leg`` the fall into it; ``wick`` its lower wick over its body; ``stretch`` how far its range comes
    to 2.5 ATR, at most 1; ``divergence`` the volume-weighted close location of its last three bars.
    """

    confirmed_at: IntArray
    delay: IntArray
    low: FloatArray
    atr_before: FloatArray
    surge: FloatArray
    leg: FloatArray
    rsi: FloatArray
    wick: FloatArray
    stretch: FloatArray
    divergence: FloatArray


class _Prepared(NamedTuple):
    climaxes: _Climaxes
    kappa: float


class CapitulationReversalV3(Strategy):
    """See ``description``. Decisions are made at the close of the bar that confirms the climax."""

    name = "CAPITULATION_REVERSAL_V3"
    title = "Capitulation reversal"
    description = (
        "A selling climax: a fast fall on exploding volume into a new low that buyers absorb, confirmed by a bar that "
        "closes in the upper half of the climax before its low breaks."
    )
    indicators = (ATR, MEAN_VOLUME_50, RSI, CLOSE_LOCATION)
    parameters = (
        Parameter(
            name="volume_explosion_threshold",
            unit="times the mean volume of the 50 bars before",
            meaning="Volume of a full-blown climax; half of it is the least there must be.",
            kind="signal",
            grid=(2, 3, 4, 5, 6),
            minimum=0.1,
            maximum=100.0,
        ),
        Parameter(
            name="price_move_speed",
            unit="fraction over 3 bars, times sqrt(timeframe / 1h)",
            meaning="Smallest fall into the climax.",
            kind="signal",
            grid=(0.015, 0.02, 0.03, 0.04, 0.05),
            minimum=0.0001,
            maximum=0.5,
        ),
        Parameter(
            name="sentiment_extreme_threshold",
            unit="RSI",
            meaning="RSI at or below which sentiment counts fully as panic; above, it fades out over 15 points.",
            kind="signal",
            grid=(20, 25, 30),
            minimum=0.0,
            maximum=100.0,
        ),
        Parameter(
            name="exhaustion_wick_ratio",
            unit="lower wick / body",
            meaning="Lower wick at which selling counts fully as exhausted.",
            kind="signal",
            grid=(0.8, 1.5, 2.5),
            minimum=0.01,
            maximum=100.0,
        ),
        Parameter(
            name="reversal_confirmation_candles",
            unit="bars",
            meaning="Bars after the climax within which it must be confirmed.",
            kind="signal",
            grid=(1, 2, 3),
            minimum=1,
            maximum=MAX_CONFIRMATION,
            is_integer=True,
        ),
        Parameter(
            name="stop_distance",
            unit="times ATR",
            meaning="Distance of the stop below the low of the climax.",
            kind="exit",
            grid=(0.25, 0.5, 1.0, 1.5),
            minimum=0.0,
            maximum=50.0,
        ),
        Parameter(
            name="target_multiple",
            unit="R",
            meaning="Distance of the target from the entry.",
            kind="exit",
            grid=(1.5, 2.0, 3.0, 4.0),
            minimum=0.01,
            maximum=100.0,
        ),
        Parameter(
            name="panic_score_minimum",
            unit="0 to 1",
            meaning="Smallest score of volume, fall, RSI, wick and range together.",
            kind="signal",
            grid=(0.5, 0.6, 0.75),
            minimum=0.0,
            maximum=1.0,
        ),
        Parameter(
            name="smart_money_divergence",
            unit="0 to 1",
            meaning="Smallest volume-weighted mean of where in their ranges the last three bars of the fall close.",
            kind="signal",
            grid=(0.25, 0.4, 0.5),
            minimum=0.0,
            maximum=1.0,
        ),
    )

    def prepare(self, frame: IndicatorFrame) -> _Prepared:
        """Measure, once, every bar that can be a climax, and find where it is confirmed.

        The measures divide by V(50), which is the last indicator to be defined, and by the ATR, so that there is no
        climax where the ATR is 0; a bar without a range has no wick. Equal lows are both the lowest.
        """
        atr, usual_volume = frame[ATR.name], frame[MEAN_VOLUME_50.name]
        x = _lowest(frame.low, LOWEST_OF)
        x = x[~frame.is_filled[x] & (frame.volume[x] > 0) & ~np.isnan(usual_volume[x]) & (atr[x - LEG_BARS] > 0)]
        x = x[frame.close[x - LEG_BARS] > frame.low[x]]
        bars = _Bars(frame.open, frame.high, frame.low, frame.close, frame.is_filled)
        r = _confirmations(bars, x)
        x, r = x[r >= 0], r[r >= 0]
        order = np.argsort(r, kind="stable")
        x, r = x[order], r[order]

        origin, atr_before = frame.close[x - LEG_BARS], atr[x - LEG_BARS]
        height = frame.high[x] - frame.low[x]
        body = np.abs(frame.close[x] - frame.open[x])
        lower_wick = np.minimum(frame.open[x], frame.close[x]) - frame.low[x]
        wick = np.divide(lower_wick, np.maximum(body, 0.1 * height), out=np.zeros(len(x)), where=height > 0)
        climaxes = _Climaxes(
            r,
            r - x,
            frame.low[x],
            atr_before,
            frame.volume[x] / usual_volume[x],
            frame.sign * ((origin - frame.low[x]) / origin),
            frame[RSI.name][x],
            wick,
            np.minimum(height / (2.5 * atr_before), 1.0),
            _weighted_close_location(frame, x),
        )
        return _Prepared(climaxes, math.sqrt(frame.timeframe.minutes / 60))

    def signals(self, prepared: _Prepared, parameters: Parameters) -> Decisions:
        """Return the bars that confirm a climax."""
        return self.signals_of_sets(prepared, {name: np.array([parameters[name]]) for name in _SIGNALS}).decisions

    def signals_of_sets(self, prepared: _Prepared, columns: ParameterColumns) -> DecisionSets:
        """Return the bars that confirm a climax, for each set in one go."""
        values = np.column_stack([columns[name] for name in _SIGNALS]).astype(np.float64)
        climaxes = prepared.climaxes
        taken, offsets = _taken_climaxes(climaxes, prepared.kappa, values)
        decisions = Decisions.of(climaxes.confirmed_at[taken], LONG, climaxes.low[taken], climaxes.atr_before[taken])
        return DecisionSets.listed(decisions, offsets)

    def exits(self, parameters: Parameters) -> Exits:
        """Stop by ATR below the climax, target by R."""
        return Exits(
            stop_multiple=parameters["stop_distance"], target="r", target_multiple=parameters["target_multiple"]
        )


_SIGNALS: Final = tuple(p.name for p in CapitulationReversalV3.parameters if p.kind == "signal")


def _lowest(low: FloatArray, n: int) -> IntArray:
    """Return the bars whose low is the lowest of the ``n`` bars that end there."""
    if len(low) < n:
        return np.empty(0, np.int64)
    windows = np.lib.stride_tricks.sliding_window_view(low, n)
    return np.flatnonzero(low[n - 1 :] == windows.min(axis=1)) + n - 1


def _weighted_close_location(frame: IndicatorFrame, x: IntArray) -> FloatArray:
    """Return the volume-weighted mean close location of each bar ``x`` and the two before it."""
    location, volume = frame[CLOSE_LOCATION.name], frame.volume
    weighted = location[x - 2] * volume[x - 2] + location[x - 1] * volume[x - 1] + location[x] * volume[x]
    return weighted / (volume[x - 2] + volume[x - 1] + volume[x])


@njit(cache=True, nogil=True)
def _confirmations(bars: _Bars, climaxes: IntArray) -> IntArray:
    """Return the bar that confirms each climax, or -1 if none does before its low breaks."""
    confirmed_at = np.full(climaxes.shape[0], -1, np.int64)
    for k in range(climaxes.shape[0]):
        x = climaxes[k]
        middle = (bars.high[x] + bars.low[x]) / 2.0
        for r in range(x + 1, min(x + 1 + MAX_CONFIRMATION, bars.close.shape[0])):
            if bars.low[r] < bars.low[x]:
                break
            if bars.close[r] > middle and bars.close[r] > bars.open[r] and not bars.is_filled[r]:
                confirmed_at[k] = r
                break
    return confirmed_at


@njit(cache=True, nogil=True)
def _taken_climaxes(climaxes: _Climaxes, kappa: float, sets: FloatArray) -> tuple[IntArray, IntArray]:
    """Return the climaxes that each row of ``sets`` takes, by number, and where each set's begin."""
    n_climaxes = climaxes.delay.shape[0]
    offsets = np.zeros(sets.shape[0] + 1, np.int64)
    taken = np.empty(n_climaxes, np.int64)
    n_taken = 0
    for i in range(sets.shape[0]):
        explosion, speed, rsi_limit, wick_ratio, confirmation_candles, panic_score_minimum, smart_money = sets[i]
        least_surge, least_leg = 0.5 * explosion, speed * kappa
        taken = with_room(taken, n_taken, n_climaxes)
        for k in range(n_climaxes):
            if (
                climaxes.surge[k] >= least_surge
                and climaxes.leg[k] >= least_leg
                and climaxes.delay[k] <= confirmation_candles
                and climaxes.divergence[k] >= smart_money
                and _panic_score(climaxes, k, explosion, least_leg, rsi_limit, wick_ratio) >= panic_score_minimum
            ):
                taken[n_taken] = k
                n_taken += 1
        offsets[i + 1] = n_taken
    return taken[:n_taken].copy(), offsets


@njit(cache=True, nogil=True)
def _panic_score(
    climaxes: _Climaxes, k: int, explosion: float, least_leg: float, rsi_limit: float, wick_ratio: float
) -> float:
    """Return how much of a panic climax ``k`` is, 0 to 1."""
    return float(
        0.30 * min(climaxes.surge[k] / explosion, 1.0)
        + 0.25 * min(climaxes.leg[k] / (2.0 * least_leg), 1.0)
        + 0.20 * min(max(1.0 + (rsi_limit - climaxes.rsi[k]) / 15.0, 0.0), 1.0)
        + 0.15 * min(climaxes.wick[k] / wick_ratio, 1.0)
        + 0.10 * climaxes.stretch[k]
    )
