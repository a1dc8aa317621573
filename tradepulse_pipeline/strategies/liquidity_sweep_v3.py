"""LIQUIDITY_SWEEP_V3: a stop-hunt under a resting low, on a burst of volume, bought back at once."""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np
from numba import njit

from tradepulse_pipeline.indicators.frame import IndicatorFrame
from tradepulse_pipeline.indicators.swings import pierced_levels
from tradepulse_pipeline.indicators.volatility import ATR
from tradepulse_pipeline.indicators.volume import MEAN_VOLUME_20
from tradepulse_pipeline.market.candles import BoolArray, FloatArray, IntArray
from tradepulse_pipeline.strategies.base import Parameter, ParameterColumns, Parameters, Strategy
from tradepulse_pipeline.strategies.decisions import LONG, Decisions, DecisionSets, Exits

MAX_LOOKBACK: Final = 500


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
    pierces begin: ``first[i]`` to ``first[i + 1]``, the highest first.
    """

    bar: IntArray
    volume: FloatArray
    usual_volume: FloatArray
    atr_before: FloatArray
    first: IntArray
    level: FloatArray
    age: IntArray


class _Prepared(NamedTuple):
    bars: _Bars
    sweeps: _Sweeps
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
        sweeps = _Sweeps(
            bar,
            frame.volume[bar],
            usual_volume[bar],
            atr[bar - 1],
            np.append(first, np.count_nonzero(is_judged)),
            levels.level[is_judged],
            levels.age[is_judged],
        )
        return _Prepared(_Bars(frame.open, frame.low, frame.close, frame.is_filled, atr), sweeps, frame.sign)

    def signals(self, prepared: _Prepared, parameters: Parameters) -> Decisions:
        """Return the bars that buy a sweep back."""
        return self.signals_of_sets(prepared, {name: np.array([parameters[name]]) for name in _SIGNALS}).decisions

    def signals_of_sets(self, prepared: _Prepared, columns: ParameterColumns) -> DecisionSets:
        """Return the bars that buy a sweep back, for each set in one go."""
        values = np.column_stack([columns[name] for name in _SIGNALS]).astype(np.float64)
        bar, offsets = _confirmations(prepared.bars, prepared.sweeps, prepared.sign, values)
        return DecisionSets(Decisions.of(bar, LONG, prepared.bars.close[bar], prepared.bars.atr[bar]), offsets)

    def exits(self, parameters: Parameters) -> Exits:
        """Stop by ATR below the close, target by R."""
        return Exits(
            stop_multiple=parameters["stop_distance"], target="r", target_multiple=parameters["target_multiple"]
        )


_SIGNALS: Final = tuple(p.name for p in LiquiditySweepV3.parameters if p.kind == "signal")


@njit(cache=True, nogil=True)
def _confirmations(bars: _Bars, sweeps: _Sweeps, sign: int, sets: FloatArray) -> tuple[IntArray, IntArray]:
    """Return the decision bars of each row of ``sets``, ascending and each once, and where each set's begin."""
    n_sweeps = sweeps.bar.shape[0]
    offsets = np.zeros(sets.shape[0] + 1, np.int64)
    found = np.empty(n_sweeps + 64 * sets.shape[0], np.int64)
    n_found = 0
    for i in range(sets.shape[0]):
        pierce_depth, rejection_candles, volume_spike_threshold, reversal_candle_size, key_level_lookback = sets[i]
        begin = n_found
        if n_found + n_sweeps > found.shape[0]:
            larger = np.empty(2 * found.shape[0] + n_sweeps, np.int64)
            larger[:n_found] = found[:n_found]
            found = larger
        for k in range(n_sweeps):
            s = sweeps.bar[k]
            if not sweeps.volume[k] > volume_spike_threshold * sweeps.usual_volume[k] or s < key_level_lookback:
                continue
            level = _swept_level(bars, sweeps, sign, k, pierce_depth, key_level_lookback)
            if np.isnan(level):
                continue
            floor = level * (1.0 - sign * pierce_depth)
            body = reversal_candle_size * sweeps.atr_before[k]
            r = _confirmation(bars, s, level, floor, int(rejection_candles), body)
            if r < 0 or np.isnan(bars.atr[r]):
                continue
            at = n_found
            while at > begin and found[at - 1] > r:
                at -= 1
            if at > begin and found[at - 1] == r:
                continue  # another sweep confirms at the same bar: one decision
            for later in range(n_found, at, -1):
                found[later] = found[later - 1]
            found[at] = r
            n_found += 1
        offsets[i + 1] = n_found
    return found[:n_found].copy(), offsets


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
def _confirmation(bars: _Bars, s: int, level: float, floor: float, rejection_candles: int, least_body: float) -> int:
    """Return the first bar that buys the sweep at ``s`` back, or -1 if none does before the sweep is void."""
    for r in range(s, min(s + rejection_candles, bars.close.shape[0])):
        if bars.low[r] < floor:
            return -1
        body = bars.close[r] - bars.open[r]
        if body > 0.0 and body >= least_body and bars.close[r] > level and not bars.is_filled[r]:
            return r
    return -1
