"""SUPPLY_SHOCK_V3: a jump on exceptional volume that does not come back."""

from __future__ import annotations

import math
from typing import Final, NamedTuple

import numpy as np

from tradepulse_pipeline.compiled import njit
from tradepulse_pipeline.indicators.candle_shape import CLOSE_LOCATION
from tradepulse_pipeline.indicators.frame import IndicatorFrame
from tradepulse_pipeline.indicators.volatility import ATR
from tradepulse_pipeline.indicators.volume import MEAN_VOLUME_50
from tradepulse_pipeline.market.candles import BoolArray, FloatArray, IntArray
from tradepulse_pipeline.strategies.base import Parameter, ParameterColumns, Parameters, Strategy
from tradepulse_pipeline.strategies.decisions import LONG, Decisions, DecisionSets, Exits
from tradepulse_pipeline.strategies.kernels import with_room

#: Of the bars after a shock, at least this share must rise.
LEAST_SHARE_RISING: Final = 0.6

#: The continuation gate is open until this many earlier shocks have an outcome.
LEAST_OUTCOMES: Final = 20


class _Bars(NamedTuple):
    """Candles and ATR, arrays of shape (n_bars,)."""

    open: FloatArray
    high: FloatArray
    low: FloatArray
    close: FloatArray
    is_filled: BoolArray
    atr: FloatArray


class _Shocks(NamedTuple):
    """The bars that may be shocks: they rise, and their volume can be judged. Shape (n_shocks,), in bar order.

    ``origin`` is the close before the shock, ``half`` the price half-way back to it. ``known_at`` is the bar at whose
    close it is known whether price first went an ATR up (``is_win``) or down; the number of bars if it never is.
    """

    bar: IntArray
    move: FloatArray
    volume: FloatArray
    usual_volume: FloatArray
    close_location: FloatArray
    origin: FloatArray
    half: FloatArray
    known_at: IntArray
    is_win: BoolArray


class _Prepared(NamedTuple):
    bars: _Bars
    shocks: _Shocks
    kappa: float


class SupplyShockV3(Strategy):
    """See ``description``. Decisions are made at the close of the last of the bars in which the shock must persist.

    A shock's outcome counts in the continuation of a later one at bar s if the bar that settles it is s or earlier:
    the high and the low of s itself are known at its close.
    """

    name = "SUPPLY_SHOCK_V3"
    title = "Supply shock"
    description = (
        "A jump on exceptional volume that does not come back: the bars after it keep rising and hold more than half "
        "of the move. Rides it with a trailing stop, and leaves when half of the move is lost."
    )
    indicators = (ATR, MEAN_VOLUME_50, CLOSE_LOCATION)
    parameters = (
        Parameter(
            name="gap_threshold",
            unit="fraction, times sqrt(timeframe / 1h)",
            meaning="Smallest move of the shock from close to close.",
            kind="signal",
            grid=(0.01, 0.015, 0.02, 0.03),
            minimum=0.0001,
            maximum=0.5,
        ),
        Parameter(
            name="volume_surge_multiplier",
            unit="times the mean volume of the 50 bars before",
            meaning="Smallest volume of the shock.",
            kind="signal",
            grid=(3, 4, 5, 8),
            minimum=0.1,
            maximum=100.0,
        ),
        Parameter(
            name="momentum_persistence",
            unit="bars",
            meaning="Bars after the shock in which it must hold; the last of them decides.",
            kind="signal",
            grid=(1, 2, 3, 4),
            minimum=1,
            maximum=50,
            is_integer=True,
        ),
        Parameter(
            name="no_retracement_periods",
            unit="bars",
            meaning="First bars of a position in which a close below half of the shock's move ends it.",
            kind="exit",
            grid=(5, 10, 20),
            minimum=0,
            maximum=1_000,
            is_integer=True,
        ),
        Parameter(
            name="trail_stop_activation",
            unit="times ATR",
            meaning="How far above the entry the best high must be before the stop trails it, by one ATR.",
            kind="exit",
            grid=(1.5, 2.0, 3.0),
            minimum=0.01,
            maximum=50.0,
        ),
        Parameter(
            name="position_hold_maximum",
            unit="bars",
            meaning="Longest position.",
            kind="exit",
            grid=(5, 10, 20, 30),
            minimum=1,
            maximum=10_000,
            is_integer=True,
        ),
        Parameter(
            name="catalyst_strength_minimum",
            unit="0 to 1",
            meaning="Smallest score of the shock's volume, move and close together.",
            kind="signal",
            grid=(0.5, 0.6, 0.7, 0.8),
            minimum=0.0,
            maximum=1.0,
        ),
        Parameter(
            name="continuation_probability",
            unit="0 to 1, 0 is off",
            meaning="Smallest share of earlier shocks that went on by an ATR before they came back by one.",
            kind="signal",
            grid=(0, 0.5, 0.6),
            minimum=0.0,
            maximum=1.0,
        ),
    )

    def prepare(self, frame: IndicatorFrame) -> _Prepared:
        """Measure, once, every bar that can be a shock, and find what came of it.

        V(50) is the last indicator to be defined: where it is, so is the ATR.
        """
        usual_volume = frame[MEAN_VOLUME_50.name]
        bars = _Bars(frame.open, frame.high, frame.low, frame.close, frame.is_filled, frame[ATR.name])
        s = np.flatnonzero((np.diff(frame.close, prepend=np.nan) > 0) & ~frame.is_filled & ~np.isnan(usual_volume))
        close, origin = frame.close[s], frame.close[s - 1]
        shocks = _Shocks(
            s,
            frame.sign * (close / origin - 1.0),
            frame.volume[s],
            usual_volume[s],
            frame[CLOSE_LOCATION.name][s],
            origin,
            close - 0.5 * (close - origin),
            *_outcomes(bars, s),
        )
        return _Prepared(bars, shocks, math.sqrt(frame.timeframe.minutes / 60))

    def signals(self, prepared: _Prepared, parameters: Parameters) -> Decisions:
        """Return the bars to which a shock persists."""
        return self.signals_of_sets(prepared, {name: np.array([parameters[name]]) for name in _SIGNALS}).decisions

    def signals_of_sets(self, prepared: _Prepared, columns: ParameterColumns) -> DecisionSets:
        """Return the bars to which a shock persists, for each set in one go."""
        values = np.column_stack([columns[name] for name in _SIGNALS]).astype(np.float64)
        bars, shocks, kappa = prepared
        taken, offsets = _taken_shocks(bars, shocks, kappa, values)
        bar = shocks.bar[taken] + np.repeat(columns["momentum_persistence"], np.diff(offsets)).astype(np.int64)
        atr, origin, half = bars.atr[bar], shocks.origin[taken], shocks.half[taken]
        return DecisionSets.listed(Decisions.of(bar, LONG, origin, atr, trail_unit=atr, exit_level=half), offsets)

    def exits(self, parameters: Parameters) -> Exits:
        """Stop where the shock is undone, a trailing stop one ATR behind, half of the move as exit level, no target."""
        return Exits(
            trail_activation=parameters["trail_stop_activation"],
            trail_distance=1.0,
            exit_level_bars=int(parameters["no_retracement_periods"]),
            max_holding_bars=int(parameters["position_hold_maximum"]),
        )


_SIGNALS: Final = tuple(p.name for p in SupplyShockV3.parameters if p.kind == "signal")


@njit(cache=True, nogil=True)
def _outcomes(bars: _Bars, shocks: IntArray) -> tuple[IntArray, BoolArray]:
    """Return for each shock the bar that settles it (the number of bars if none does) and whether it is a win.

    The first bar after it decides whose high is an ATR above its close (a win) or whose low is an ATR below (a loss);
    both in one bar are a loss.
    """
    n_bars = bars.close.shape[0]
    known_at = np.full(shocks.shape[0], n_bars, np.int64)
    is_win = np.zeros(shocks.shape[0], np.bool_)
    for k in range(shocks.shape[0]):
        x = shocks[k]
        above, below = bars.close[x] + bars.atr[x], bars.close[x] - bars.atr[x]
        for t in range(x + 1, n_bars):
            is_loss = bars.low[t] <= below
            if is_loss or bars.high[t] >= above:
                known_at[k] = t
                is_win[k] = not is_loss
                break
    return known_at, is_win


@njit(cache=True, nogil=True)
def _taken_shocks(bars: _Bars, shocks: _Shocks, kappa: float, sets: FloatArray) -> tuple[IntArray, IntArray]:
    """Return the shocks that each row of ``sets`` takes, by number, and where each set's begin."""
    n_shocks = shocks.bar.shape[0]
    offsets = np.zeros(sets.shape[0] + 1, np.int64)
    taken = np.empty(n_shocks, np.int64)
    unsettled = np.empty(n_shocks, np.int64)
    n_taken = 0
    for i in range(sets.shape[0]):
        gap_threshold, multiplier, persistence, catalyst_strength_minimum, continuation_probability = sets[i]
        least_move = gap_threshold * kappa
        n_unsettled, n_known, n_won = 0, 0, 0
        taken = with_room(taken, n_taken, n_shocks)
        for k in range(n_shocks):
            least_volume = multiplier * shocks.usual_volume[k]
            if not (shocks.move[k] >= least_move and shocks.volume[k] >= least_volume):
                continue
            if not _catalyst_strength(shocks, k, least_volume, least_move) >= catalyst_strength_minimum:
                continue
            waiting, n_unsettled = n_unsettled, 0
            for m in range(waiting):
                x = unsettled[m]
                if shocks.known_at[x] <= shocks.bar[k]:
                    n_known += 1
                    n_won += shocks.is_win[x]
                else:
                    unsettled[n_unsettled] = x
                    n_unsettled += 1
            unsettled[n_unsettled] = k
            n_unsettled += 1
            if n_known >= LEAST_OUTCOMES and (1 + n_won) / (2 + n_known) < continuation_probability:
                continue
            if _persists(bars, shocks.bar[k], shocks.half[k], int(persistence)):
                taken[n_taken] = k
                n_taken += 1
        offsets[i + 1] = n_taken
    return taken[:n_taken].copy(), offsets


@njit(cache=True, nogil=True)
def _catalyst_strength(shocks: _Shocks, k: int, least_volume: float, least_move: float) -> float:
    """Return how strong shock ``k`` is, 0 to 1; twice the least volume and move count fully."""
    return float(
        0.4 * min(shocks.volume[k] / (2.0 * least_volume), 1.0)
        + 0.4 * min(shocks.move[k] / (2.0 * least_move), 1.0)
        + 0.2 * shocks.close_location[k]
    )


@njit(cache=True, nogil=True)
def _persists(bars: _Bars, s: int, half: float, persistence: int) -> bool:
    """Return whether the shock at bar ``s`` holds for ``persistence`` bars, the last of which can decide."""
    r = s + persistence
    if r >= bars.close.shape[0] or bars.is_filled[r] or not bars.close[r] > bars.close[s]:
        return False
    n_rising = 0
    for t in range(s + 1, r + 1):
        if bars.low[t] < half:
            return False
        n_rising += bars.close[t] > bars.open[t]
    return bool(n_rising >= LEAST_SHARE_RISING * persistence)
