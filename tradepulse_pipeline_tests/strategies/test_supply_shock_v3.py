"""SUPPLY_SHOCK_V3 by hand: every rule on shocks that just meet it and just miss it, on both sides."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pytest

from tradepulse_pipeline.backtest.api import run_backtest
from tradepulse_pipeline.backtest.settings import AccountSettings
from tradepulse_pipeline.market.candles import Candles
from tradepulse_pipeline.strategies.base import SignalSource
from tradepulse_pipeline.strategies.decisions import Decisions, Exits, Side
from tradepulse_pipeline.strategies.registry import get_strategy
from tradepulse_pipeline.strategies.space import ParameterSpace
from tradepulse_pipeline_tests.reference.comparison import reasons
from tradepulse_pipeline_tests.reference.markets import candles_of, frame_of

STRATEGY = get_strategy("SUPPLY_SHOCK_V3")

Row = tuple[float, float, float, float]
QUIET: Row = (100.0, 100.5, 99.5, 100.0)
#: From 100 to 103.125, a move of 1/32, which floats hold exactly; half-way back is 101.5625.
SHOCK: Row = (100.0, 104.5, 99.0, 103.125)
UP: Row = (103.25, 104.0, 103.0, 103.75)
DOWN: Row = (103.75, 104.0, 103.0, 103.5)


def candles_from(rows: Sequence[Row], volume: Sequence[float], *, is_mirrored: bool, **places: object) -> Candles:
    """Build candles, or their mirror image at 100: moves from 100 are of the same size there."""
    if is_mirrored:
        rows = [(200 - open_, 200 - low, 200 - high, 200 - close) for open_, high, low, close in rows]
    return candles_of(list(rows), volume=list(volume), **places)


@dataclass(frozen=True, slots=True, kw_only=True)
class Jump:
    """55 quiet bars with an ATR of 1, the last ones as in ``into``, the shock on bar 55, and what follows.

    Unless said otherwise the shock moves by 1/32 on 6 times the usual volume, and closes at 3/4 of its range.
    """

    n_before: int = 55
    into: tuple[Row, ...] = ()
    shock: Row = SHOCK
    volume: float = 60.0
    after: tuple[Row, ...] = (UP,)
    missing: tuple[int, ...] = ()
    flagged: tuple[int, ...] = ()
    timeframe: str = "1h"

    def candles(self, *, is_mirrored: bool = False) -> Candles:
        before = [QUIET] * (self.n_before - len(self.into)) + list(self.into)
        rows = [*before, self.shock, *self.after]
        volume = [10.0] * len(before) + [self.volume] + [10.0] * len(self.after)
        candles = candles_from(rows, volume, is_mirrored=is_mirrored, missing=self.missing, timeframe=self.timeframe)
        return replace(candles, is_filled=np.isin(np.arange(len(rows)), self.flagged))


#: Twice the volume and the move that there must be: the catalyst strength is 0.4 + 0.4 + 0.2 * 0.75 = 0.95.
PARAMETERS: dict[str, float] = {
    "gap_threshold": 1 / 64,
    "volume_surge_multiplier": 3.0,
    "momentum_persistence": 1,
    "no_retracement_periods": 5,
    "trail_stop_activation": 2.0,
    "position_hold_maximum": 10,
    "catalyst_strength_minimum": 0.5,
    "continuation_probability": 0.0,
}


def decisions_of(candles: Candles, parameters: dict[str, float], side: Side = "long") -> Decisions:
    return SignalSource(STRATEGY, frame_of(candles), side).decisions(STRATEGY.check(parameters))


def assert_decides(jump: Jump, changes: dict[str, float], bars: list[int]) -> None:
    """Check the jump's decisions, and those of its mirror image on the short side."""
    for side, sign in (("long", 1), ("short", -1)):
        candles = jump.candles(is_mirrored=side == "short")
        decisions = decisions_of(candles, PARAMETERS | changes, side)
        assert decisions.bar.tolist() == bars, side
        assert decisions.side.tolist() == [sign] * len(bars)


def persistence(n: int) -> dict[str, float]:
    return {"momentum_persistence": n}


JUMPS: dict[str, tuple[Jump, dict[str, float], list[int]]] = {
    "persists for a bar": (Jump(), {}, [56]),
    # 1. Shock
    "a move of exactly the size": (Jump(), {"gap_threshold": 1 / 32}, [56]),
    "a move of a little less": (Jump(), {"gap_threshold": 1 / 32 + 1e-9}, []),
    "on 15m half of the move is enough": (Jump(timeframe="15m"), {"gap_threshold": 1 / 16}, [56]),
    "on 15m a little less than half": (Jump(timeframe="15m"), {"gap_threshold": 1 / 16 + 1e-9}, []),
    "from close to close, whatever the open": (
        Jump(shock=(103.0, 104.5, 99.0, 103.125)),
        {"gap_threshold": 1 / 32},
        [56],
    ),
    "exactly the volume": (Jump(), {"volume_surge_multiplier": 6.0}, [56]),
    "a little less than the volume": (Jump(), {"volume_surge_multiplier": 6.01}, []),
    "50 candles of volume before the shock": (Jump(n_before=50), {}, [51]),
    "49 candles of volume before the shock": (Jump(n_before=49), {}, []),
    "50 candles of volume and a filled one": (Jump(n_before=50, missing=(30,)), {}, [52]),
    "49 candles of volume and a filled one": (Jump(n_before=49, missing=(30,)), {}, []),
    "a filled shock": (Jump(flagged=(55,)), {}, []),
    "a filled bar before the shock": (Jump(missing=(54,)), {}, [57]),
    "a long gap before the shock": (Jump(missing=(51, 52, 53, 54)), {}, [56]),
    # 3. Persistence
    "one of two bars rises": (Jump(after=(DOWN, UP)), persistence(2), []),
    "both of two bars rise": (Jump(after=(UP, UP)), persistence(2), [57]),
    "two of three bars rise": (Jump(after=(UP, UP, DOWN)), persistence(3), [58]),
    "one of three bars rises": (Jump(after=(DOWN, UP, DOWN)), persistence(3), []),
    "two of four bars rise": (Jump(after=(UP, DOWN, UP, DOWN)), persistence(4), []),
    "three of four bars rise": (Jump(after=(UP, DOWN, UP, UP)), persistence(4), [59]),
    "three of five bars rise": (Jump(after=(DOWN, UP, UP, UP, DOWN)), persistence(5), [60]),
    "the last bar decides, none before": (Jump(after=(UP, UP, UP, UP, UP)), persistence(3), [58]),
    "a bar that closes where it opened does not rise": (Jump(after=((103.5, 104.0, 103.0, 103.5),)), {}, []),
    "a close at the shock's close": (Jump(after=((103.0, 104.0, 102.0, 103.125),)), {}, []),
    "a close below the shock's close on the way": (
        Jump(after=((102.0, 104.0, 102.0, 103.0), UP)),
        persistence(2),
        [57],
    ),
    "the half-way price is touched": (Jump(after=((103.25, 104.0, 101.5625, 103.75),)), {}, [56]),
    "the half-way price is broken": (Jump(after=((103.25, 104.0, 101.56, 103.75),)), {}, []),
    "the half-way price is broken on the way": (Jump(after=((103.25, 104.0, 101.56, 103.75), UP)), persistence(2), []),
    "the half-way price is broken afterwards": (Jump(after=(UP, (103.75, 104.0, 95.0, 103.5))), {}, [56]),
    "a filled bar cannot decide": (Jump(after=(UP, UP), missing=(58,)), persistence(3), []),
    "a flagged bar cannot decide": (Jump(flagged=(56,)), {}, []),
    "a filled bar on the way counts as one that does not rise": (
        Jump(after=(UP, UP), missing=(57,)),
        persistence(3),
        [58],
    ),
    "a filled bar on the way may be one too many": (Jump(after=(UP,), missing=(56,)), persistence(2), []),
    "no bar after the shock": (Jump(after=()), {}, []),
    "too few bars after the shock": (Jump(after=(UP, UP)), persistence(3), []),
}


@pytest.mark.parametrize("case", JUMPS.values(), ids=JUMPS.keys())
def test_jumps_by_hand(case: tuple[Jump, dict[str, float], list[int]]) -> None:
    assert_decides(*case)


CLOSE_AT_THE_HIGH: Row = (100.0, 103.125, 99.0, 103.125)
STRENGTHS: dict[str, tuple[Jump, dict[str, float], float]] = {
    "all of volume and move": (Jump(), {}, 0.95),
    "a close at the high": (Jump(shock=CLOSE_AT_THE_HIGH), {}, 1.0),
    "a close at the low": (Jump(shock=(103.125, 104.5, 103.125, 103.125)), {}, 0.8),
    "no range": (Jump(shock=(103.125, 103.125, 103.125, 103.125)), {}, 0.9),
    "half of the volume": (Jump(), {"volume_surge_multiplier": 6.0}, 0.75),
    "half of the move": (Jump(), {"gap_threshold": 1 / 32}, 0.75),
    "half of the move, on 15m": (Jump(timeframe="15m"), {"gap_threshold": 1 / 16}, 0.75),
    "no more for more": (Jump(), {"gap_threshold": 1 / 640, "volume_surge_multiplier": 0.5}, 0.95),
}


@pytest.mark.parametrize("case", STRENGTHS.values(), ids=STRENGTHS.keys())
def test_catalyst_strengths_by_hand(case: tuple[Jump, dict[str, float], float]) -> None:
    jump, changes, strength = case
    assert_decides(jump, changes | {"catalyst_strength_minimum": strength - 0.001}, [56])
    if strength < 1:
        assert_decides(jump, changes | {"catalyst_strength_minimum": strength + 0.001}, [])


# What becomes of a shock, none of which persists. The ATR at the shocks of a history lies between 1 and 5.
HIGH: Row = (103.0, 112.0, 102.5, 102.75)
LOW: Row = (103.0, 103.5, 92.0, 100.0)
HIGH_AND_LOW: Row = (103.0, 112.0, 92.0, 100.0)
HELD: Row = (103.125, 103.5, 102.75, 103.0)
WIN, LOSS, BOTH = (HIGH,), (LOW,), (HIGH_AND_LOW,)
WIN_THEN_LOSS, LOSS_THEN_WIN, LATE_WIN = (HIGH, LOW), (LOW, HIGH), (HELD, HELD, HIGH)


@dataclass(frozen=True, slots=True, kw_only=True)
class History:
    """Shocks with what becomes of them and six quiet bars each, then ``last``, the judged shock, and a bar up.

    The earlier shocks have more than 3 times their usual volume, the judged one more than 10 times.
    """

    outcomes: tuple[tuple[Row, ...], ...]
    early_shock: Row = SHOCK
    early_volume: float = 100.0
    last: tuple[tuple[Row, float], ...] = ()
    shock: Row = SHOCK
    after: Row = UP

    def candles(self, *, is_mirrored: bool) -> Candles:
        bars = [(QUIET, 10.0)] * 55
        for outcome in self.outcomes:
            bars += [(self.early_shock, self.early_volume), *((row, 10.0) for row in (*outcome, *[QUIET] * 6))]
        bars += [*self.last, (self.shock, 500.0), (self.after, 10.0)]
        rows, volume = zip(*bars, strict=True)
        return candles_from(rows, volume, is_mirrored=is_mirrored)


WEAK_SHOCK: Row = (103.5, 108.0, 103.125, 103.125)
# A twentieth shock without an outcome, and a judged bar that rises from there by 1.6 %, whose high does or does not
# reach an ATR of about 2.7 above that shock's close.
UNSETTLED = History(
    outcomes=(LOSS,) * 19,
    last=((SHOCK, 100.0), ((103.125, 103.5, 102.75, 103.125), 10.0)),
    shock=(103.0, 104.9, 102.5, 104.8),
    after=(104.9, 105.2, 104.5, 105.0),
)
HALF = {"continuation_probability": 0.5}
HISTORIES: dict[str, tuple[History, dict[str, float], bool]] = {
    "10 wins of 20": (History(outcomes=(WIN,) * 10 + (LOSS,) * 10), HALF, True),
    "9 wins of 20": (History(outcomes=(WIN,) * 9 + (LOSS,) * 11), HALF, False),
    "10 wins of 20, the losses first": (History(outcomes=(LOSS,) * 10 + (WIN,) * 10), HALF, True),
    "10 wins of 20 are no more than half": (
        History(outcomes=(WIN,) * 10 + (LOSS,) * 10),
        {"continuation_probability": 0.501},
        False,
    ),
    "10 wins of 21": (History(outcomes=(WIN,) * 10 + (LOSS,) * 11), HALF, False),
    "19 losses": (History(outcomes=(LOSS,) * 19), HALF, True),
    "20 losses": (History(outcomes=(LOSS,) * 20), HALF, False),
    "20 losses, and the gate is off": (History(outcomes=(LOSS,) * 20), {}, True),
    "20 wins prove less than certainty": (
        History(outcomes=(WIN,) * 20),
        {"continuation_probability": 21 / 22 + 1e-9},
        False,
    ),
    "20 wins": (History(outcomes=(WIN,) * 20), {"continuation_probability": 21 / 22 - 1e-9}, True),
    "both in one bar are a loss": (History(outcomes=(BOTH,) * 20), HALF, False),
    "the first to come is a win": (History(outcomes=(WIN_THEN_LOSS,) * 20), HALF, True),
    "the first to come is a loss": (History(outcomes=(LOSS_THEN_WIN,) * 20), HALF, False),
    "a win two bars later": (History(outcomes=(LATE_WIN,) * 20), HALF, True),
    "the shock's own high is no win": (
        History(outcomes=(LOSS,) * 20, early_shock=(100.0, 112.0, 99.0, 103.125)),
        HALF,
        False,
    ),
    "losses of shocks with the volume": (History(outcomes=(LOSS,) * 20, early_volume=70.0), HALF, False),
    "losses of bars without the volume": (
        History(outcomes=(LOSS,) * 20, early_volume=70.0),
        HALF | {"volume_surge_multiplier": 5.0},
        True,
    ),
    "losses of shocks with the strength": (History(outcomes=(LOSS,) * 20, early_shock=WEAK_SHOCK), HALF, False),
    "losses of bars without the strength": (
        History(outcomes=(LOSS,) * 20, early_shock=WEAK_SHOCK),
        HALF | {"catalyst_strength_minimum": 0.85},
        True,
    ),
    "the twentieth is not settled": (UNSETTLED, HALF, True),
    "the twentieth is settled by the judged bar": (
        replace(UNSETTLED, shock=(103.0, 112.0, 102.5, 104.8)),
        HALF,
        False,
    ),
    "the twentieth is settled by the bar after": (
        replace(UNSETTLED, after=(104.9, 112.0, 104.5, 105.0)),
        HALF,
        True,
    ),
}


@pytest.mark.parametrize("case", HISTORIES.values(), ids=HISTORIES.keys())
def test_continuation_by_hand(case: tuple[History, dict[str, float], bool]) -> None:
    history, changes, is_open = case
    for side in ("long", "short"):
        candles = history.candles(is_mirrored=side == "short")
        decisions = decisions_of(candles, PARAMETERS | changes, side)
        assert decisions.bar.tolist() == [len(candles) - 1] * is_open, side


def test_the_prices_of_a_decision_by_hand() -> None:
    for side, sign in (("long", 1), ("short", -1)):
        candles = Jump(after=(UP, UP, UP)).candles(is_mirrored=sign == -1)
        decisions = decisions_of(candles, PARAMETERS | persistence(2), side)
        assert decisions.stop_anchor.tolist() == [100.0]
        assert decisions.exit_level.tolist() == [100.0 + sign * 1.5625]
        # True ranges: 5.5 at the shock, 1 before and after it.
        assert decisions.trail_unit.tolist() == pytest.approx([1 + 4.5 / 14 * (13 / 14) ** 2], rel=1e-12)
        assert np.isnan(decisions.target_anchor).all()


def test_the_exits_are_declared() -> None:
    assert STRATEGY.exits(PARAMETERS) == Exits(
        stop_multiple=0.0,
        target="none",
        trail_activation=2.0,
        trail_distance=1.0,
        exit_level_bars=5,
        max_holding_bars=10,
    )


#: Trades free of cost enter bar 57 at 103.75, with a stop at 100, an exit level of 101.5625 and this ATR.
ATR = 1 + 4.5 / 14 * 13 / 14
CALM: Row = (103.75, 104.0, 103.0, 103.75)
BELOW_HALF: Row = (103.75, 104.0, 101.0, 101.5)
#: The path from bar 57 on; exit bar, price and reason.
RIDES: dict[str, tuple[tuple[Row, ...], tuple[int, float, str]]] = {
    "the shock is undone": ((CALM, (103.75, 104.0, 100.0, 103.75)), (58, 100.0, "STOP_LOSS")),
    "half of it is lost early": (((CALM,) * 4 + (BELOW_HALF, CALM)), (62, 103.75, "RETRACEMENT")),
    "half of it is lost late": (((CALM,) * 5 + (BELOW_HALF,) + (CALM,) * 4), (66, 103.75, "TIME_LIMIT")),
    "a close at the half-way price": (((103.75, 104.0, 101.0, 101.5625), *(CALM,) * 9), (66, 103.75, "TIME_LIMIT")),
    "a high of 2 ATR": (
        ((103.75, 103.75 + 2.01 * ATR, 103.0, 105.5), (105.5, 105.6, 104.0, 104.0)),
        (58, 103.75 + 1.01 * ATR, "TRAILING_STOP"),
    ),
    "a high of less": (
        ((103.75, 103.75 + 1.99 * ATR, 103.0, 105.5), (105.5, 105.6, 104.0, 104.0)),
        (58, 104.0, "END_OF_DATA"),
    ),
}


@pytest.mark.parametrize("case", RIDES.values(), ids=RIDES.keys())
def test_rides_by_hand(case: tuple[tuple[Row, ...], tuple[int, float, str]]) -> None:
    path, (exit_bar, exit_price, reason) = case
    for side, sign in (("long", 1), ("short", -1)):
        frame = frame_of(Jump(after=(UP, *path)).candles(is_mirrored=sign == -1))
        decisions = SignalSource(STRATEGY, frame, side).decisions(PARAMETERS)
        account = AccountSettings(fee_rate=0.0, slippage=0.0)
        trades = run_backtest(frame, decisions, STRATEGY.exits(PARAMETERS), account).trades
        assert (trades.exit_bar.tolist(), reasons(trades)) == ([exit_bar], [reason])
        assert trades.exit_price.tolist() == pytest.approx([100 + sign * (exit_price - 100)], rel=1e-12)


def random_walk(n: int) -> Candles:
    """Return a wild walk in steps of 0.25, on which ties happen, with bursts of volume."""
    rng = np.random.default_rng(8)
    close = np.round(400 * np.exp(np.cumsum(rng.normal(0, 0.012, n)))) / 4
    open_ = np.concatenate([close[:1], close[:-1]])
    high = np.maximum(open_, close) + rng.integers(0, 3, n) / 4
    low = np.minimum(open_, close) - rng.integers(0, 3, n) / 4
    volume = 10.0 * rng.integers(1, 3, n) * np.where(rng.random(n) < 0.1, 8, 1)
    return candles_of(list(zip(open_, high, low, close, strict=True)), volume=volume.tolist())


def test_many_sets_at_once_decide_as_each_alone() -> None:
    frame = frame_of(random_walk(3_000))
    space = ParameterSpace(tuple(p for p in STRATEGY.parameters if p.kind == "signal"))
    numbers = np.random.default_rng(4).permutation(space.size)
    source = SignalSource(STRATEGY, frame, "both")
    sets = source.decision_sets(space.columns(numbers))
    alone = [source.decisions(space.values(number)) for number in numbers.tolist()]
    assert sets.offsets.tolist() == np.cumsum([0, *map(len, alone)]).tolist()
    assert sum(len(decisions) > 0 for decisions in alone) > 300
    for name in ("bar", "side", "stop_anchor", "trail_unit", "exit_level"):
        together = np.concatenate([getattr(decisions, name) for decisions in alone])
        np.testing.assert_array_equal(getattr(sets.decisions.take(sets.members), name), together)


def test_the_grid_is_that_of_the_definition() -> None:
    assert ParameterSpace(STRATEGY.parameters).size == 27_648
    assert {p.name: p.grid for p in STRATEGY.parameters} == {
        "gap_threshold": (0.01, 0.015, 0.02, 0.03),
        "volume_surge_multiplier": (3, 4, 5, 8),
        "momentum_persistence": (1, 2, 3, 4),
        "no_retracement_periods": (5, 10, 20),
        "trail_stop_activation": (1.5, 2.0, 3.0),
        "position_hold_maximum": (5, 10, 20, 30),
        "catalyst_strength_minimum": (0.5, 0.6, 0.7, 0.8),
        "continuation_probability": (0, 0.5, 0.6),
    }
