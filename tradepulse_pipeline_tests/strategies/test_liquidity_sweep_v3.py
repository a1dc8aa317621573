"""LIQUIDITY_SWEEP_V3 by hand: the engine and the reference alike."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import pytest

from tradepulse_pipeline.market.candles import Candles
from tradepulse_pipeline.strategies.base import SignalSource
from tradepulse_pipeline.strategies.decisions import Side
from tradepulse_pipeline.strategies.registry import get_strategy
from tradepulse_pipeline_tests.reference.backtest import Order
from tradepulse_pipeline_tests.reference.comparison import plain_candles, plain_orders
from tradepulse_pipeline_tests.reference.liquidity_sweep_v3 import Sweeps
from tradepulse_pipeline_tests.reference.markets import candles_of, frame_of

STRATEGY = get_strategy("LIQUIDITY_SWEEP_V3")

Find = Callable[[Candles, dict[str, float], Side], list[Order]]


def find_with_engine(candles: Candles, parameters: dict[str, float], side: Side) -> list[Order]:
    checked = STRATEGY.check(parameters)
    return plain_orders(SignalSource(STRATEGY, frame_of(candles), side).decisions(checked), STRATEGY.exits(checked))


def find_with_reference(candles: Candles, parameters: dict[str, float], side: Side) -> list[Order]:
    return Sweeps(plain_candles(candles.filled_forward()), candles.timeframe.minutes).orders(parameters, side)


@pytest.fixture(params=[find_with_engine, find_with_reference], ids=["engine", "reference"])
def find(request: pytest.FixtureRequest) -> Find:
    return request.param


Row = tuple[float, float, float, float]
QUIET: Row = (102.0, 102.5, 101.5, 102.0)
#: A range of 1 and no gaps: every true range, and so the ATR, is 1 before the swing.
SWING = [QUIET, (102.0, 102.5, 101.0, 102.0), (102.0, 102.5, 100.5, 102.0), (102.0, 102.5, 100.0, 102.0)]
#: Down to 100 and up again with no true range but 1, so that the ATR is 1 to the bit.
GENTLE_SWING: tuple[Row, ...] = (
    (101.5, 102.0, 101.0, 101.5),
    (101.0, 101.5, 100.5, 101.0),
    (100.5, 101.0, 100.0, 100.5),
)
GENTLE_RISE: tuple[Row, ...] = ((101.0, 101.5, 100.5, 101.0), (101.5, 102.0, 101.0, 101.5), QUIET, QUIET)


@dataclass(frozen=True, slots=True, kw_only=True)
class Hunt:
    """A swing low at 100, on bar 23 unless said otherwise, four quiet bars, the sweep on bar 28 and what follows."""

    n_before: int = 20
    swing: tuple[Row, ...] = tuple(SWING)
    wait: tuple[Row, ...] = (QUIET,) * 4
    sweep: Row = (101.0, 103.5, 99.8, 103.2)
    sweep_volume: float = 30.0
    after: tuple[Row, ...] = ()
    missing: tuple[int, ...] = ()

    def candles(self) -> Candles:
        before = [*[QUIET] * self.n_before, *self.swing, *self.wait]
        rows = [*before, self.sweep, *self.after]
        volume = [10.0] * len(before) + [self.sweep_volume] + [10.0] * len(self.after)
        return candles_of(rows, volume=volume, missing=self.missing)


PARAMETERS: dict[str, float] = {
    "pierce_depth": 0.003,
    "rejection_candles": 3,
    "volume_spike_threshold": 2.0,
    "reversal_candle_size": 1.0,
    "key_level_lookback": 20,
    "stop_distance": 1.0,
    "target_multiple": 2.0,
}
SLOW_SWEEP: Row = (101.0, 101.5, 99.8, 99.9)
REVERSAL: Row = (99.9, 102.5, 99.8, 102.4)
GENTLE = Hunt(swing=GENTLE_SWING, wait=GENTLE_RISE, sweep=(101.0, 102.0, 99.8, 102.0))
HUNTS: dict[str, tuple[Hunt, dict[str, float], list[int]]] = {
    "confirmed by the sweep bar itself": (Hunt(), {}, [28]),
    "confirmed two bars later": (Hunt(sweep=SLOW_SWEEP, after=(SLOW_SWEEP, REVERSAL)), {}, [30]),
    "confirmed too late": (Hunt(sweep=SLOW_SWEEP, after=(SLOW_SWEEP, REVERSAL)), {"rejection_candles": 2}, []),
    "the first confirmation decides": (Hunt(after=(REVERSAL, REVERSAL)), {}, [28]),
    "a lower low on the way is as deep as allowed": (
        Hunt(sweep=SLOW_SWEEP, after=((99.9, 100.5, 99.71, 99.9), REVERSAL)),
        {},
        [30],
    ),
    "a lower low on the way is too deep": (
        Hunt(sweep=SLOW_SWEEP, after=((99.9, 100.5, 99.69, 99.9), REVERSAL)),
        {},
        [],
    ),
    "the sweep is too deep": (Hunt(sweep=(101.0, 103.5, 99.69, 103.2)), {}, []),
    "as deep as the limit": (Hunt(sweep=(101.0, 103.5, 99.609375, 103.2)), {"pierce_depth": 1 / 256}, [28]),
    "the level is touched, not broken": (Hunt(sweep=(101.0, 103.5, 100.0, 103.2)), {}, []),
    "volume at the threshold is no burst": (Hunt(sweep_volume=20.0), {}, []),
    "volume above the threshold": (Hunt(sweep_volume=20.1), {}, [28]),
    "the body is too small": (Hunt(sweep=(102.0, 103.5, 99.8, 102.9)), {}, []),
    "a body of exactly the size": (GENTLE, {}, [27]),
    "a body of a little less": (GENTLE, {"reversal_candle_size": 1.001}, []),
    "a red bar": (Hunt(sweep=(103.0, 103.5, 99.8, 101.0)), {}, []),
    "a close under the level": (
        Hunt(sweep=(98.5, 99.95, 98.4, 99.9)),
        {"pierce_depth": 0.02, "reversal_candle_size": 0.5},
        [],
    ),
    "the swing is confirmed by the bar before": (Hunt(wait=(QUIET,) * 3), {}, [27]),
    "the swing is not yet confirmed": (Hunt(wait=(QUIET,) * 2), {}, []),
    "the swing lies at the edge of the lookback": (Hunt(wait=(QUIET,) * 4), {"key_level_lookback": 5}, [28]),
    "the swing lies beyond the lookback": (Hunt(wait=(QUIET,) * 4), {"key_level_lookback": 4}, []),
    "the level was traded through": (Hunt(wait=(*(QUIET,) * 3, (102.0, 102.5, 99.9, 102.0))), {}, []),
    "equal lows leave the level alive": (Hunt(wait=(*(QUIET,) * 3, (102.0, 102.5, 100.0, 102.0))), {}, [28]),
    "an equal low before is no swing": (Hunt(swing=(*SWING[:3], SWING[3], SWING[3])), {}, [29]),
    "a filled bar in the lookback counts as a bar": (Hunt(missing=(26,)), {}, [29]),
    "a long gap does not": (Hunt(missing=(5, 6, 7, 8)), {}, [28]),
    "20 candles of volume before the sweep": (Hunt(n_before=12), {"key_level_lookback": 10}, [20]),
    "19 candles of volume before the sweep": (Hunt(n_before=11), {"key_level_lookback": 10}, []),
    "19 candles of volume and a filled one": (Hunt(n_before=11, missing=(3,)), {"key_level_lookback": 10}, []),
    "a whole lookback before the sweep": (Hunt(n_before=12), {"key_level_lookback": 20}, [20]),
    "less than a lookback before the sweep": (Hunt(n_before=12), {"key_level_lookback": 21}, []),
}


@pytest.mark.parametrize("case", HUNTS.values(), ids=HUNTS.keys())
def test_hunts_by_hand_long(find: Find, case: tuple[Hunt, dict[str, float], list[int]]) -> None:
    hunt, changes, bars = case
    orders = find(hunt.candles(), PARAMETERS | changes, "long")
    assert [(order.bar, order.side) for order in orders] == [(bar, 1) for bar in bars]


def mirrored(row: Row) -> Row:
    """Return the bar in a mirror at 100, which is the level: depths are the same fractions of it."""
    open_, high, low, close = row
    return 200 - open_, 200 - low, 200 - high, 200 - close


@pytest.mark.parametrize("case", HUNTS.values(), ids=HUNTS.keys())
def test_hunts_by_hand_short(find: Find, case: tuple[Hunt, dict[str, float], list[int]]) -> None:
    hunt, changes, bars = case
    candles = hunt.candles()
    rows = zip(candles.open, candles.high, candles.low, candles.close, strict=True)
    short = candles_of([mirrored(row) for row in rows], volume=candles.volume.tolist(), missing=hunt.missing)
    orders = find(short, PARAMETERS | changes, "short")
    assert [(order.bar, order.side) for order in orders] == [(bar, -1) for bar in bars]
    assert find(short, PARAMETERS | changes, "both") == orders + find(short, PARAMETERS | changes, "long")


def test_the_stop_by_hand(find: Find) -> None:
    # With the swing bars' ranges of 1.5, 2 and 2.5, and 3.7 at the sweep, Wilder's average runs from 1 at bar 20.
    atr = 1.0
    for true_range in (1.5, 2.0, 2.5, 1.0, 1.0, 1.0, 1.0, 3.7):
        atr = (13 * atr + true_range) / 14
    (order,) = find(Hunt().candles(), PARAMETERS | {"stop_distance": 1.5}, "long")
    assert order.stop_price == pytest.approx(103.2 - 1.5 * atr, rel=1e-12)


def test_the_highest_swept_level_counts(find: Find) -> None:
    # A second, higher swing, at 100.4, stays live above the one at 100. A sweep to 99.8 goes 0.2 % under the one and
    # 0.6 % under the other; its close of 100.2 lies above 100 alone.
    second = ((102.0, 102.5, 101.4, 102.0), (102.0, 102.5, 100.4, 102.0))
    hunt = Hunt(wait=(QUIET, QUIET, *second, *(QUIET,) * 4), sweep=(99.9, 100.3, 99.8, 100.2))
    parameters = PARAMETERS | {"reversal_candle_size": 0.2}
    assert [order.bar for order in find(hunt.candles(), parameters, "long")] == [32]
    assert find(hunt.candles(), parameters | {"pierce_depth": 0.01}, "long") == []


def test_filled_bars_do_not_count_as_volume(find: Find) -> None:
    # Of the 20 bars before the sweep at bar 31, three are filled; V reaches three candles further back, to 10 as well.
    orders = find(Hunt(missing=(15, 16, 17)).candles(), PARAMETERS | {"volume_spike_threshold": 2.99}, "long")
    assert [order.bar for order in orders] == [31]
    assert find(Hunt(missing=(15, 16, 17)).candles(), PARAMETERS | {"volume_spike_threshold": 3.0}, "long") == []


def test_no_burst_over_a_market_without_volume(find: Find) -> None:
    candles = Hunt().candles()
    silent = np.where(np.arange(len(candles)) < 28, 0.0, candles.volume)
    assert find(replace(candles, volume=silent), PARAMETERS, "long") == []
