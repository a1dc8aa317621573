"""LIQUIDITY_SWEEP_V3: a stop-hunt under a resting low, on a burst of volume, bought back at once."""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np
from numba import njit

from tradepulse_pipeline.indicators.frame import IndicatorFrame
from tradepulse_pipeline.indicators.swings import PiercedLevels, pierced_levels
from tradepulse_pipeline.indicators.volatility import ATR
from tradepulse_pipeline.indicators.volume import MEAN_VOLUME_20
from tradepulse_pipeline.market.candles import BoolArray, FloatArray, IntArray
from tradepulse_pipeline.strategies.base import Parameter, Parameters, Strategy
from tradepulse_pipeline.strategies.decisions import LONG, Decisions, Exits

MAX_LOOKBACK: Final = 500


class _Bars(NamedTuple):
    """What the signal function reads of each bar, arrays of shape (n_bars,)."""

    open: FloatArray
    low: FloatArray
    close: FloatArray
    volume: FloatArray
    is_filled: BoolArray
    atr: FloatArray
    usual_volume: FloatArray


class _Prepared(NamedTuple):
    bars: _Bars
    levels: PiercedLevels
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
        bars = _Bars(
            frame.open,
            frame.low,
            frame.close,
            frame.volume,
            frame.is_filled,
            frame[ATR.name],
            frame[MEAN_VOLUME_20.name],
        )
        return _Prepared(bars, pierced_levels(frame.low, MAX_LOOKBACK), frame.sign)

    def signals(self, prepared: _Prepared, parameters: Parameters) -> Decisions:
        """Return the bars that buy a sweep back."""
        bar = _confirmations(
            prepared.bars,
            prepared.levels,
            prepared.sign,
            parameters["pierce_depth"],
            int(parameters["rejection_candles"]),
            parameters["volume_spike_threshold"],
            parameters["reversal_candle_size"],
            int(parameters["key_level_lookback"]),
        )
        return Decisions.of(bar, LONG, prepared.bars.close[bar], prepared.bars.atr[bar])

    def exits(self, parameters: Parameters) -> Exits:
        """Stop by ATR below the close, target by R."""
        return Exits(
            stop_multiple=parameters["stop_distance"], target="r", target_multiple=parameters["target_multiple"]
        )


@njit(cache=True, nogil=True)
def _confirmations(
    bars: _Bars,
    levels: PiercedLevels,
    sign: int,
    pierce_depth: float,
    rejection_candles: int,
    volume_spike_threshold: float,
    reversal_candle_size: float,
    key_level_lookback: int,
) -> IntArray:
    """Return the decision bars, ascending, each once."""
    n_bars = bars.close.shape[0]
    n_piercings = levels.bar.shape[0]
    found = np.empty(n_piercings, np.int64)
    n_found = 0
    p = 0
    while p < n_piercings:
        s = levels.bar[p]
        level = np.nan
        while p < n_piercings and levels.bar[p] == s:
            candidate = levels.level[p]
            is_within = (
                levels.age[p] <= key_level_lookback and sign * ((candidate - bars.low[s]) / candidate) <= pierce_depth
            )
            if np.isnan(level) and is_within:
                level = candidate
            p += 1
        if np.isnan(level) or s < key_level_lookback or bars.is_filled[s]:
            continue
        if not bars.volume[s] > volume_spike_threshold * bars.usual_volume[s] or np.isnan(bars.atr[s - 1]):
            continue
        r = _confirmation(bars, s, level, level * (1.0 - sign * pierce_depth), rejection_candles, reversal_candle_size)
        if 0 <= r < n_bars and not np.isnan(bars.atr[r]):
            found[n_found] = r
            n_found += 1
    return np.unique(found[:n_found])


@njit(cache=True, nogil=True)
def _confirmation(
    bars: _Bars, s: int, level: float, floor: float, rejection_candles: int, reversal_candle_size: float
) -> int:
    """Return the first bar that buys the sweep at ``s`` back, or -1 if none does before the sweep is void."""
    for r in range(s, min(s + rejection_candles, bars.close.shape[0])):
        if bars.low[r] < floor:
            return -1
        body = bars.close[r] - bars.open[r]
        is_large = body > 0 and body >= reversal_candle_size * bars.atr[s - 1]
        if is_large and bars.close[r] > level and not bars.is_filled[r]:
            return r
    return -1
