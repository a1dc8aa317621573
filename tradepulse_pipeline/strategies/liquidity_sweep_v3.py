"""LIQUIDITY_SWEEP_V3: a stop-hunt under a resting low, on a burst of volume, bought back at once."""

from __future__ import annotations

from threading import Lock
from typing import Final, NamedTuple

import numpy as np

from tradepulse_pipeline.compiled import njit
from tradepulse_pipeline.indicators.frame import IndicatorFrame
from tradepulse_pipeline.indicators.spread import spread_estimate
from tradepulse_pipeline.indicators.swings import SWING_STRENGTH, pierced_levels, swing_lows
from tradepulse_pipeline.indicators.volatility import ATR
from tradepulse_pipeline.indicators.volume import MEAN_VOLUME_20
from tradepulse_pipeline.market.candles import BoolArray, FloatArray, IndexArray, IntArray
from tradepulse_pipeline.strategies.base import Parameter, ParameterColumns, Parameters, Strategy
from tradepulse_pipeline.strategies.decisions import LONG, Decisions, DecisionSets, Exits
from tradepulse_pipeline.strategies.kernels import with_room

MAX_LOOKBACK: Final = 500

#: Swing lows count as stops at a level when they lie within this many ATR of it.
DENSITY_REACH: Final = 0.25


class _Bars(NamedTuple):
    """What confirmation reads of each bar, arrays of shape (n_bars,)."""

    open: FloatArray
    low: FloatArray
    close: FloatArray
    is_filled: BoolArray
    atr: FloatArray


class _Sweeps(NamedTuple):
    """The bars that may be sweep bars: they pierce a live level, and volume and ATR can be judged.

    Arrays of shape (n_sweeps,), in bar order; ``first`` has one value more and says where the levels that bar i
    pierces begin: ``first[i]`` to ``first[i + 1]``, the highest first. Of all swing lows, live or not, in bar order,
    the first ``n_swings[i]`` are confirmed before bar i. ``spread`` is the estimate right before the bar in bps, all
    NaN as long as no set asks for it.
    """

    bar: IntArray
    volume: FloatArray
    usual_volume: FloatArray
    atr_before: FloatArray
    first: IntArray
    level: FloatArray
    age: IntArray
    n_swings: IntArray
    swing_bar: IntArray
    swing_low: FloatArray
    spread: FloatArray


class _Confirmations(NamedTuple):
    """Which bar confirms which sweep (its place in ``_Sweeps``), in the order of the bars; with room for more."""

    bar: IntArray
    sweep: IntArray


class _Spread:
    """The spread at each bar: estimated when it is first asked for, once for all threads."""

    def __init__(self, frame: IndicatorFrame) -> None:
        self._frame: Final = frame
        self._lock: Final = Lock()
        self._bps: FloatArray | None = None

    def bps(self) -> FloatArray:
        """Return the estimates in bps, shape (n_bars,)."""
        with self._lock:
            if self._bps is None:
                self._bps = 1e4 * spread_estimate(self._frame)
            return self._bps


class _Prepared(NamedTuple):
    bars: _Bars
    sweeps: _Sweeps
    spread: _Spread
    sign: int


class LiquiditySweepV3(Strategy):
    """See ``description``. Decisions are made at the close of the bar that buys the sweep back."""

    name = "LIQUIDITY_SWEEP_V3"
    title = "Liquidity sweep"
    description = (
        "A stop-hunt: price dips under a resting low (a confirmed swing low that has not been traded through), on a "
        "burst of volume, and is bought back within a few bars by a large candle that closes above the level again."
    )
    indicators = (ATR, MEAN_VOLUME_20)
    parameters = (
        Parameter(
            name="pierce_depth",
            unit="fraction of the level",
            meaning="How far below the level price may dip, at most.",
            kind="signal",
            grid=(0.0005, 0.001, 0.002, 0.003, 0.004, 0.005),
            minimum=0.0001,
            maximum=0.05,
        ),
        Parameter(
            name="rejection_candles",
            unit="bars",
            meaning="Bars within which the level must be bought back, the sweep bar counted.",
            kind="signal",
            grid=(1, 2, 3, 4, 5),
            minimum=1,
            maximum=50,
            is_integer=True,
        ),
        Parameter(
            name="volume_spike_threshold",
            unit="times the mean volume of the 20 bars before",
            meaning="Volume that the sweep bar must exceed.",
            kind="signal",
            grid=(1.5, 2.0, 2.5, 3.0, 3.5, 4.0, 4.5, 5.0),
            minimum=0.0,
            maximum=100.0,
        ),
        Parameter(
            name="reversal_candle_size",
            unit="times ATR",
            meaning="Smallest body of the candle that buys the level back.",
            kind="signal",
            grid=(0.5, 0.75, 1.0, 1.25, 1.5, 1.75, 2.0),
            minimum=0.0,
            maximum=20.0,
        ),
        Parameter(
            name="key_level_lookback",
            unit="bars",
            meaning="How old a resting low may be.",
            kind="signal",
            grid=(20, 50, 100, 150, 200),
            minimum=4,
            maximum=MAX_LOOKBACK,
            is_integer=True,
        ),
        Parameter(
            name="min_stop_density_score",
            unit="n / (n + 1), 0 is off",
            meaning="How many stops must rest at the level: n swing lows within a quarter of the ATR of it.",
            kind="signal",
            grid=(0.0,),
            minimum=0.0,
            maximum=1.0,
            default=0.0,
        ),
        Parameter(
            name="max_spread_tolerance",
            unit="bps, 0 is off",
            meaning="Largest spread right before the sweep, estimated from the 100 bars before it.",
            kind="signal",
            grid=(0.0,),
            minimum=0.0,
            maximum=10_000.0,
            default=0.0,
        ),
        Parameter(
            name="stop_distance",
            unit="times ATR",
            meaning="Distance of the stop from the close of the decision bar.",
            kind="exit",
            grid=(0.5, 1.0, 1.5, 2.0),
            minimum=0.01,
            maximum=50.0,
        ),
        Parameter(
            name="target_multiple",
            unit="R",
            meaning="Distance of the target from the entry.",
            kind="exit",
            grid=(1.5, 2.0, 2.5, 3.0, 3.5, 4.0),
            minimum=0.01,
            maximum=100.0,
        ),
    )

    def prepare(self, frame: IndicatorFrame) -> _Prepared:
        """Find, once, every bar that pierces a live level, and which levels."""
        atr, usual_volume = frame[ATR.name], frame[MEAN_VOLUME_20.name]
        levels = pierced_levels(frame.low, MAX_LOOKBACK)
        is_judged = ~(frame.is_filled[levels.bar] | np.isnan(usual_volume[levels.bar]) | np.isnan(atr[levels.bar - 1]))
        bar, first = np.unique(levels.bar[is_judged], return_index=True)
        swing_bar = np.flatnonzero(swing_lows(frame.low))
        sweeps = _Sweeps(
            bar,
            frame.volume[bar],
            usual_volume[bar],
            atr[bar - 1],
            np.append(first, np.count_nonzero(is_judged)),
            levels.level[is_judged],
            levels.age[is_judged],
            np.searchsorted(swing_bar, bar - SWING_STRENGTH),
            swing_bar,
            frame.low[swing_bar],
            np.full(len(bar), np.nan),
        )
        bars = _Bars(frame.open, frame.low, frame.close, frame.is_filled, atr)
        return _Prepared(bars, sweeps, _Spread(frame), frame.sign)

    def signals(self, prepared: _Prepared, parameters: Parameters) -> Decisions:
        """Return the bars that buy a sweep back."""
        return self.signals_of_sets(prepared, {name: np.array([parameters[name]]) for name in _SIGNALS})[0]

    def signals_of_sets(self, prepared: _Prepared, columns: ParameterColumns) -> DecisionSets:
        """Return the bars that buy a sweep back, for each set in one go; see ``_decision_bars``."""
        bars, sweeps = prepared.bars, prepared.sweeps
        if columns["max_spread_tolerance"].any():
            sweeps = sweeps._replace(spread=prepared.spread.bps()[sweeps.bar - 1])
        sets = np.column_stack([columns[name] for name in _SIGNALS]).astype(np.float64)
        loud = np.flatnonzero(sweeps.volume > columns["volume_spike_threshold"].min() * sweeps.usual_volume)
        order = np.lexsort([columns[name] for name in _SHARED])
        bar_of_member, offsets = _decision_bars(bars, sweeps, prepared.sign, loud, sets, order)
        # A bar is one decision, whichever sweeps it confirms and however many sets decide there.
        is_decision = np.zeros(len(bars.close), dtype=np.bool_)
        is_decision[bar_of_member] = True
        bar = np.flatnonzero(is_decision)
        row_of_bar = np.empty(len(bars.close), dtype=np.int32)
        row_of_bar[bar] = np.arange(len(bar))
        decisions = Decisions.of(bar, LONG, bars.close[bar], bars.atr[bar])
        return DecisionSets(decisions, row_of_bar[bar_of_member], offsets)

    def exits(self, parameters: Parameters) -> Exits:
        """Stop by ATR below the close, target by R."""
        return Exits(
            stop_multiple=parameters["stop_distance"], target="r", target_multiple=parameters["target_multiple"]
        )


#: The parameters on which it depends which bar confirms a sweep; the others pick among the confirmed sweeps.
_SHARED: Final = (
    "pierce_depth",
    "key_level_lookback",
    "reversal_candle_size",
    "min_stop_density_score",
    "max_spread_tolerance",
)
_SIGNALS: Final = (*_SHARED, "rejection_candles", "volume_spike_threshold")
_N_SHARED: Final = len(_SHARED)


@njit(cache=True, nogil=True)
def _decision_bars(
    bars: _Bars, sweeps: _Sweeps, sign: int, loud: IntArray, sets: FloatArray, order: IntArray
) -> tuple[IndexArray, IntArray]:
    """Return the decision bars of each of ``sets``, ascending and each once, and where each set's begin.

    Which bar is the first to confirm a sweep depends neither on how many candles that may take nor on the volume asked
    for. It is looked for once for all sets that differ in nothing else; each of them then picks among what was found.

    Parameters
    ----------
    loud : array of shape (n_loud,)
        The sweeps whose volume is enough for at least one set, ascending.
    sets : array of shape (n_sets, n_parameters)
        Parameter values, in the order of ``_SIGNALS``.
    order : array of shape (n_sets,)
        The numbers of the sets, those with the same values of ``_SHARED`` side by side.
    """
    n_sets, room = sets.shape[0], loud.shape[0]
    confirmed = _Confirmations(np.empty(room, np.int64), np.empty(room, np.int64))
    found = np.empty(room + 64 * n_sets + 1, np.int32)
    begin, length = np.empty(n_sets, np.int64), np.empty(n_sets, np.int64)
    n_found = 0
    first = 0
    while first < n_sets:
        last = first + 1
        while last < n_sets and np.all(sets[order[last], :_N_SHARED] == sets[order[first], :_N_SHARED]):
            last += 1
        n_confirmed = _find_confirmations(bars, sweeps, sign, loud, sets[order[first:last]], confirmed)
        for i in order[first:last]:
            found = with_room(found, n_found, n_confirmed + 1)
            begin[i] = n_found
            n_found = _pick(sweeps, confirmed, n_confirmed, sets[i, _N_SHARED:], found, n_found)
            length[i] = n_found - begin[i]
        first = last
    offsets = np.append(0, np.cumsum(length))
    in_order = np.empty(n_found, np.int32)
    for i in range(n_sets):
        in_order[offsets[i] : offsets[i + 1]] = found[begin[i] : begin[i] + length[i]]
    return in_order, offsets


@njit(cache=True, nogil=True)
def _pick(
    sweeps: _Sweeps,
    confirmed: _Confirmations,
    n_confirmed: int,
    limits: FloatArray,
    found: IndexArray,
    n_found: int,
) -> int:
    """Add the bars that confirm a sweep in time and of enough volume to ``found``; return how many there are then.

    Every bar is written and the next one over it if it does not count, since a branch would be guessed wrong too often.
    """
    rejection_candles, volume_spike_threshold = limits
    latest = -1
    for i in range(n_confirmed):
        r, k = confirmed.bar[i], confirmed.sweep[i]
        is_in_time = r < sweeps.bar[k] + rejection_candles
        is_loud = sweeps.volume[k] > volume_spike_threshold * sweeps.usual_volume[k]
        counts = is_in_time & is_loud & (r != latest)
        found[n_found] = r
        n_found += counts
        latest = r if counts else latest
    return n_found


@njit(cache=True, nogil=True)
def _find_confirmations(
    bars: _Bars, sweeps: _Sweeps, sign: int, loud: IntArray, sets: FloatArray, confirmed: _Confirmations
) -> int:
    """Write into ``confirmed`` what sets that share ``_SHARED`` pick from; return how many confirmations there are."""
    pierce_depth, key_level_lookback, reversal_candle_size, least_density, most_spread = sets[0, :_N_SHARED]
    rejection_candles = int(sets[:, _N_SHARED].max())
    n = 0
    for k in loud:
        s = sweeps.bar[k]
        if s < key_level_lookback or (most_spread > 0.0 and not sweeps.spread[k] <= most_spread):
            continue
        level = _swept_level(bars, sweeps, sign, k, pierce_depth, key_level_lookback)
        if np.isnan(level):
            continue
        floor = level * (1.0 - sign * pierce_depth)
        body = reversal_candle_size * sweeps.atr_before[k]
        r = _confirmation(bars, s, level, floor, rejection_candles, body)
        if r < 0 or np.isnan(bars.atr[r]):
            continue
        if least_density > 0.0 and _stop_density(sweeps, k, level, key_level_lookback) < least_density:
            continue
        at = n
        while at > 0 and confirmed.bar[at - 1] > r:
            confirmed.bar[at], confirmed.sweep[at] = confirmed.bar[at - 1], confirmed.sweep[at - 1]
            at -= 1
        confirmed.bar[at], confirmed.sweep[at] = r, k
        n += 1
    return n


@njit(cache=True, nogil=True)
def _swept_level(
    bars: _Bars, sweeps: _Sweeps, sign: int, k: int, pierce_depth: float, key_level_lookback: float
) -> float:
    """Return the highest level that sweep bar ``k`` pierces no deeper than allowed, NaN if there is none."""
    low = bars.low[sweeps.bar[k]]
    for p in range(sweeps.first[k], sweeps.first[k + 1]):
        level = sweeps.level[p]
        if sweeps.age[p] <= key_level_lookback and sign * ((level - low) / level) <= pierce_depth:
            return float(level)
    return np.nan


@njit(cache=True, nogil=True)
def _stop_density(sweeps: _Sweeps, k: int, level: float, key_level_lookback: float) -> float:
    """Return n / (n + 1) for the n swing lows near ``level`` in the lookback of sweep bar ``k``."""
    reach = DENSITY_REACH * sweeps.atr_before[k]
    n = 0
    for i in range(sweeps.n_swings[k] - 1, -1, -1):
        if sweeps.swing_bar[i] < sweeps.bar[k] - key_level_lookback:
            break
        n += abs(sweeps.swing_low[i] - level) <= reach
    return n / (n + 1.0)


@njit(cache=True, nogil=True)
def _confirmation(bars: _Bars, s: int, level: float, floor: float, rejection_candles: int, least_body: float) -> int:
    """Return the first bar that buys the sweep at ``s`` back, or -1 if none does before the sweep is void."""
    for r in range(s, min(s + rejection_candles, bars.close.shape[0])):
        if bars.low[r] < floor:
            return -1
        body = bars.close[r] - bars.open[r]
        if body > 0.0 and body >= least_body and bars.close[r] > level and not bars.is_filled[r]:
            return r
    return -1
