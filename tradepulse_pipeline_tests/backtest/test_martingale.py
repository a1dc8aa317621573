"""On a driftless walk nobody earns anything before costs: whatever the exits, the mean result is 0.

The walk moves by one tick at a time, up or down with equal chance, and a candle is made of ``STEPS`` such moves. Stops
and targets lie on ticks, so the walk meets each price exactly where the order is filled: nothing is jumped over. Only a
candle that reaches both could be read wrongly (the stop wins), and where stop and target are more than ``STEPS`` ticks
apart there is none. The discretisation bias is therefore 0, and what remains is sampling error. Trades follow each
other on a walk that forgets, so they are independent.

A walk that does not stop at the barriers, as one of normal steps, overshoots them: there the bias is known to first
order.
"""

from __future__ import annotations

import math

import numpy as np
import pytest

from tradepulse_pipeline.backtest.api import run_backtest
from tradepulse_pipeline.backtest.result import EXIT_REASONS, TAKE_PROFIT, Trades
from tradepulse_pipeline.backtest.settings import AccountSettings
from tradepulse_pipeline.indicators.frame import IndicatorFrame
from tradepulse_pipeline.market.candles import Candles
from tradepulse_pipeline.market.series import MS_PER_DAY, Timeframe
from tradepulse_pipeline.strategies.decisions import LONG, SHORT, Decisions, Exits
from tradepulse_pipeline_tests.reference.markets import NEW_YEAR_MS

#: Ticks that a candle's path makes, and its price at the start: far more ticks from 0 than the walk ever goes.
STEPS, START = 16, 1_000_000.0
N_CANDLES = 200_000

#: Standard errors that a mean may be off; the seeds are fixed, so a failure is a fault and not bad luck.
LIMIT = 4.0

FREE = AccountSettings(fee_rate=0.0, slippage=0.0, risk_fraction=1e-4, max_leverage=1_000.0)


def frame_of_walk(seed: int, steps: int, *, is_normal: bool = False) -> IndicatorFrame:
    """Candles of a walk of ``steps`` unit steps each; each opens where the one before it closed."""
    rng = np.random.default_rng(seed)
    moves = np.empty((N_CANDLES, steps))
    moves[:] = rng.standard_normal(moves.shape) if is_normal else 2.0 * rng.integers(0, 2, moves.shape) - 1.0
    path = START + np.cumsum(moves).reshape(moves.shape)
    close = path[:, -1]
    open_ = np.append(START, close[:-1])
    high, low = np.maximum(path.max(axis=1), open_), np.minimum(path.min(axis=1), open_)
    times = NEW_YEAR_MS + MS_PER_DAY // 288 * np.arange(N_CANDLES, dtype=np.int64)
    candles = Candles.from_arrays(Timeframe("5m"), times, open_, high, low, close, np.ones(N_CANDLES))
    return IndicatorFrame.compute(candles, ())


@pytest.fixture(scope="module")
def walk() -> IndicatorFrame:
    return frame_of_walk(20_260_101, STEPS)


def trades_at_every_bar(frame: IndicatorFrame, side: int, stop: float, exits: Exits) -> Trades:
    """Enter whenever flat, with the stop ``stop`` ticks away from the close, which is where the next candle opens."""
    bar = np.arange(len(frame) - 1, dtype=np.int64)
    decisions = Decisions.of(
        bar,
        side,
        frame.close[bar] - side * stop,
        np.zeros(len(bar)),
        trail_unit=np.ones(len(bar)),
        exit_level=frame.close[bar] - side * 2.0,
    )
    return run_backtest(frame, decisions, exits, FREE).trades


def assert_mean_is_zero(values: np.ndarray) -> None:
    error = values.std(ddof=1) / math.sqrt(len(values))
    assert abs(values.mean()) <= LIMIT * error, f"mean {values.mean():+.4f}, standard error {error:.4f}"


@pytest.mark.parametrize("side", [LONG, SHORT])
@pytest.mark.parametrize(("stop", "target"), [(10.0, 10.0), (10.0, 20.0), (6.0, 24.0), (24.0, 12.0)])
def test_the_target_comes_first_as_often_as_its_distance_says(
    walk: IndicatorFrame, side: int, stop: float, target: float
) -> None:
    assert stop + target > STEPS  # no candle holds both
    trades = trades_at_every_bar(walk, side, stop, Exits(target="r", target_multiple=target / stop))
    decided = trades.exit_reason[:-1]  # the last one ends with the data
    chance = stop / (stop + target)
    error = math.sqrt(chance * (1 - chance) / len(decided))
    assert len(decided) > 4_000
    assert abs((decided == TAKE_PROFIT).mean() - chance) <= LIMIT * error
    assert set(np.round(trades.r_multiple[:-1], 9)) == {-1.0, round(target / stop, 9)}
    assert_mean_is_zero(trades.r_multiple)


@pytest.mark.parametrize("side", [LONG, SHORT])
@pytest.mark.parametrize(
    ("exits", "reasons"),
    [
        (Exits(max_holding_bars=3, target="r", target_multiple=2.0), {"STOP_LOSS", "TAKE_PROFIT", "TIME_LIMIT"}),
        (Exits(trail_activation=6.0, trail_distance=4.0), {"STOP_LOSS", "TRAILING_STOP"}),
        (Exits(exit_level_bars=5, target="r", target_multiple=2.0), {"STOP_LOSS", "TAKE_PROFIT", "RETRACEMENT"}),
    ],
    ids=["time limit", "trailing stop", "exit level"],
)
def test_no_exit_makes_anything_of_a_driftless_walk(
    walk: IndicatorFrame, side: int, exits: Exits, reasons: set[str]
) -> None:
    trades = trades_at_every_bar(walk, side, 8.0, exits)
    assert {EXIT_REASONS[code] for code in trades.exit_reason[:-1]} == reasons
    assert_mean_is_zero(trades.r_multiple)


def test_costs_are_all_that_is_left(walk: IndicatorFrame) -> None:
    account = AccountSettings(fee_rate=1e-6, slippage=0.0, risk_fraction=1e-4, max_leverage=1_000.0)
    bar = np.arange(len(walk) - 1, dtype=np.int64)
    decisions = Decisions.of(bar, LONG, walk.close[bar] - 10.0, np.zeros(len(bar)))
    trades = run_backtest(walk, decisions, Exits(target="r", target_multiple=2.0), account).trades
    # 1e-6 of about 1,000,000 on entry and exit, of the 10 that are risked.
    cost = 1e-6 * (trades.entry_price + trades.exit_price) / trades.risk
    assert cost.mean() == pytest.approx(0.2, rel=0.01)
    assert_mean_is_zero(trades.r_multiple + cost)


@pytest.mark.parametrize("side", [LONG, SHORT])
def test_the_bias_of_steps_that_overshoot_is_known(side: int) -> None:
    """Barriers that are only watched at the ends of steps act as if 0.5826 steps further away.

    Broadie, Glasserman and Kou (1997), Mathematical Finance 7(4): the constant is -zeta(1/2) / sqrt(2 pi).
    """
    stop, target, steps = 10.0, 20.0, 4  # a candle that spans 30 of its own steps' deviations of 2 does not happen
    trades = trades_at_every_bar(
        frame_of_walk(7, steps, is_normal=True), side, stop, Exits(target="r", target_multiple=target / stop)
    )
    far = 0.5826
    chance = (stop + far) / (stop + target + 2 * far)
    decided = trades.exit_reason[:-1]
    error = math.sqrt(chance * (1 - chance) / len(decided))
    assert len(decided) > 2_000
    assert abs((decided == TAKE_PROFIT).mean() - chance) <= LIMIT * error
