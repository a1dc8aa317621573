"""CAPITULATION_REVERSAL_V3 by hand: every rule on climaxes that just meet it and just miss it, on both sides."""

from __future__ import annotations

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
from tradepulse_pipeline_tests.reference.markets import candles_of, frame_of

STRATEGY = get_strategy("CAPITULATION_REVERSAL_V3")

Row = tuple[float, float, float, float]
QUIET: Row = (100.0, 100.5, 99.5, 100.0)
RED: Row = (98.5, 98.6, 97.0, 97.5)
GREEN: Row = (98.5, 100.0, 98.0, 99.5)


@dataclass(frozen=True, slots=True, kw_only=True)
class Fall:
    """55 quiet bars with an ATR of 1, the last ones as in ``into``, the climax on bar 55, and what follows.

    Unless said otherwise the climax falls by 4 % on 4 times the usual volume, with an RSI of 0, a lower wick of 3
    bodies, a range of 4 ATR, and a volume-weighted close location of (10 * 0.5 + 10 * 0.5 + 40 * 0.75) / 60 = 2/3;
    its middle is 98.
    """

    n_before: int = 55
    quiet: Row = QUIET
    into: tuple[Row, ...] = ()
    climax: Row = (100.0, 100.0, 96.0, 99.0)
    volume: float = 40.0
    after: tuple[Row, ...] = (GREEN,)
    missing: tuple[int, ...] = ()
    flagged: tuple[int, ...] = ()
    timeframe: str = "1h"

    def candles(self, *, is_mirrored: bool = False) -> Candles:
        before = [self.quiet] * (self.n_before - len(self.into)) + list(self.into)
        rows = [*before, self.climax, *self.after]
        if is_mirrored:
            rows = [(200 - open_, 200 - low, 200 - high, 200 - close) for open_, high, low, close in rows]
        volume = [10.0] * len(before) + [self.volume] + [10.0] * len(self.after)
        candles = candles_of(rows, volume=volume, missing=self.missing, timeframe=self.timeframe)
        return replace(candles, is_filled=np.isin(np.arange(len(rows)), self.flagged))


#: Every part of the panic score counts fully.
PARAMETERS: dict[str, float] = {
    "volume_explosion_threshold": 4.0,
    "price_move_speed": 0.015,
    "sentiment_extreme_threshold": 20.0,
    "exhaustion_wick_ratio": 1.5,
    "reversal_confirmation_candles": 2,
    "stop_distance": 1.0,
    "target_multiple": 2.0,
    "panic_score_minimum": 0.5,
    "smart_money_divergence": 0.25,
}


def decisions_of(candles: Candles, parameters: dict[str, float], side: Side = "long") -> Decisions:
    return SignalSource(STRATEGY, frame_of(candles), side).decisions(STRATEGY.check(parameters))


def assert_decides(fall: Fall, changes: dict[str, float], bars: list[int]) -> None:
    """Check the fall's decisions, and those of its mirror image on the short side."""
    for side, sign in (("long", 1), ("short", -1)):
        candles = fall.candles(is_mirrored=side == "short")
        decisions = decisions_of(candles, PARAMETERS | changes, side)
        assert decisions.bar.tolist() == bars, side
        assert decisions.side.tolist() == [sign] * len(bars)


def with_volume(candles: Candles, bar: int, volume: float) -> Candles:
    return replace(candles, volume=np.where(np.arange(len(candles)) == bar, volume, candles.volume))


def down_to(low: float) -> Row:
    return (100.0, 100.5, low, 100.0)


STEEPEST = {"price_move_speed": 0.04}
FALLS: dict[str, tuple[Fall, dict[str, float], list[int]]] = {
    "confirmed by the next bar": (Fall(), {}, [56]),
    # 1. Climax
    "a lower low 19 bars before": (Fall(into=(down_to(95.9), *[QUIET] * 18)), {}, []),
    "a lower low 20 bars before": (Fall(into=(down_to(95.9), *[QUIET] * 19)), {}, [56]),
    "an equal low 19 bars before": (Fall(into=(down_to(96.0), *[QUIET] * 18)), {}, [56]),
    "a fall of exactly the size": (Fall(), STEEPEST, [56]),
    "a fall of a little less": (Fall(), {"price_move_speed": 0.0401}, []),
    "the fall is measured from three bars before": (
        Fall(into=((100.0, 101.0, 99.5, 101.0), QUIET, QUIET)),
        {"price_move_speed": 0.049},
        [56],
    ),
    "not from four bars before": (
        Fall(into=((104.0, 104.5, 103.5, 104.0), QUIET, QUIET, QUIET)),
        {"price_move_speed": 0.0401},
        [],
    ),
    "on 15m half of the fall is enough": (Fall(timeframe="15m"), {"price_move_speed": 0.08}, [56]),
    "on 15m a little less than half": (Fall(timeframe="15m"), {"price_move_speed": 0.0802}, []),
    "half of the volume is enough": (Fall(), {"volume_explosion_threshold": 8.0}, [56]),
    "a little less than half of the volume": (Fall(), {"volume_explosion_threshold": 8.01}, []),
    "50 candles of volume before the climax": (Fall(n_before=50), {}, [51]),
    "49 candles of volume before the climax": (Fall(n_before=49), {}, []),
    "50 candles of volume and a filled one": (Fall(n_before=50, missing=(30,)), {}, [52]),
    "49 candles of volume and a filled one": (Fall(n_before=49, missing=(30,)), {}, []),
    "a filled climax": (Fall(flagged=(55,)), {}, []),
    # 3. Smart-money divergence
    "the divergence is enough": (Fall(), {"smart_money_divergence": 0.666}, [56]),
    "the divergence is too small": (Fall(), {"smart_money_divergence": 0.667}, []),
    "a divergence of exactly the size": (
        Fall(climax=(100.0, 100.0, 96.0, 98.0)),
        {"smart_money_divergence": 0.5},
        [56],
    ),
    # Of x-2 .. x the volume alone counts: a filled bar has none, so that (10 * 0.5 + 40 * 0.75) / 50 = 0.7.
    "a filled bar before has no weight": (Fall(missing=(54,)), {"smart_money_divergence": 0.699}, [57]),
    "and lends no more": (Fall(missing=(54,)), {"smart_money_divergence": 0.701}, []),
    # The bar x-2 closes at its low, so that (0 + 10 * 0.5 + 40 * 0.75) / 60 = 0.583; the bar x-3 does not matter.
    "two bars before count": (Fall(into=(down_to(100.0), QUIET)), {"smart_money_divergence": 0.584}, []),
    "three bars before do not": (Fall(into=(down_to(100.0), QUIET, QUIET)), {"smart_money_divergence": 0.666}, [56]),
    # 4. Confirmation
    "confirmed two bars later": (Fall(after=(RED, GREEN)), {}, [57]),
    "confirmed too late": (Fall(after=(RED, GREEN)), {"reversal_confirmation_candles": 1}, []),
    "the first confirmation decides": (Fall(after=(GREEN, GREEN)), {}, [56]),
    "a close at the middle": (Fall(after=((97.0, 99.0, 96.5, 98.0),)), {}, []),
    "a close above the middle": (Fall(after=((97.0, 99.0, 96.5, 98.1),)), {}, [56]),
    "a red bar above the middle": (Fall(after=((99.5, 100.0, 98.0, 98.5),)), {}, []),
    "a bar that closes where it opened": (Fall(after=((98.5, 100.0, 98.0, 98.5),)), {}, []),
    "the low is touched": (Fall(after=((98.5, 100.0, 96.0, 99.5),)), {}, [56]),
    "the low breaks on the bar that reverses": (Fall(after=((98.5, 100.0, 95.9, 99.5),)), {}, []),
    "the low breaks before": (Fall(after=((98.5, 98.6, 95.9, 97.5), GREEN)), {}, []),
    "a filled bar cannot confirm": (Fall(flagged=(56,)), {}, []),
    "a filled bar may stand between": (Fall(missing=(56,)), {}, [57]),
    "a filled bar takes its turn": (Fall(missing=(56,)), {"reversal_confirmation_candles": 1}, []),
    "a long gap may stand between": (Fall(missing=(56, 57, 58, 59)), {}, [56]),
    "no bar after the climax": (Fall(after=()), {}, []),
}


@pytest.mark.parametrize("case", FALLS.values(), ids=FALLS.keys())
def test_falls_by_hand(case: tuple[Fall, dict[str, float], list[int]]) -> None:
    assert_decides(*case)


# Up by 1.4 on bar 54 and down by 1.3 on bar 55: the averages are 13 * 1.4 / 14 / 14 = 1.3 / 14 and 1.3 / 14, so that
# the RSI is 50.
BALANCED = Fall(into=((100.0, 101.5, 99.5, 101.4),), climax=(101.4, 101.4, 96.0, 100.1))
SCORES: dict[str, tuple[Fall, dict[str, float], float]] = {
    "half of the volume": (Fall(), {"volume_explosion_threshold": 8.0}, 0.85),
    "half of the fall": (Fall(), STEEPEST, 0.875),
    "half of the fall, on 15m": (Fall(timeframe="15m"), {"price_move_speed": 0.08}, 0.875),
    "no more for twice the volume": (Fall(volume=80.0), STEEPEST, 0.875),
    "half of the RSI": (BALANCED, {"sentiment_extreme_threshold": 42.5}, 0.9),
    "all of the RSI": (replace(BALANCED, volume=20.0), {"sentiment_extreme_threshold": 50.0}, 0.85),
    "nothing of the RSI": (BALANCED, {"sentiment_extreme_threshold": 35.0}, 0.8),
    "an RSI far above": (BALANCED, {"sentiment_extreme_threshold": 20.0}, 0.8),
    "half of the wick": (Fall(), {"exhaustion_wick_ratio": 6.0}, 0.925),
    # A wick of 1 over a body of 2.
    "half of the wick under a green bar": (
        Fall(climax=(97.0, 100.0, 96.0, 99.0)),
        {"exhaustion_wick_ratio": 1.0},
        0.925,
    ),
    # A wick of 3 over a tenth of the range of 4.
    "half of the wick over no body": (Fall(climax=(99.0, 100.0, 96.0, 99.0)), {"exhaustion_wick_ratio": 15.0}, 0.925),
    # A range of 4 over an ATR of 3.2.
    "half of the range": (Fall(quiet=(100.0, 101.6, 98.4, 100.0)), {}, 0.95),
    "no range": (Fall(climax=(96.0, 96.0, 96.0, 96.0)), {}, 0.75),
    "halves of everything but the RSI": (
        Fall(quiet=(100.0, 101.6, 98.4, 100.0)),
        {"volume_explosion_threshold": 8.0, "price_move_speed": 0.04, "exhaustion_wick_ratio": 6.0},
        0.6,
    ),
}


@pytest.mark.parametrize("case", SCORES.values(), ids=SCORES.keys())
def test_panic_scores_by_hand(case: tuple[Fall, dict[str, float], float]) -> None:
    fall, changes, score = case
    assert_decides(fall, changes | {"panic_score_minimum": score - 0.001}, [56])
    assert_decides(fall, changes | {"panic_score_minimum": score + 0.001}, [])


def test_the_range_is_measured_in_the_atr_before_the_fall() -> None:
    # Ranges of 31 on bars 53 and 54 leave the ATR of bar 52 at 1: the range of 4 counts fully.
    wild = (100.0, 130.5, 99.5, 100.0)
    assert_decides(Fall(into=(wild, wild)), {"panic_score_minimum": 0.999}, [56])
    assert_decides(Fall(into=(wild, wild, wild)), {"panic_score_minimum": 0.999}, [])


def test_no_climax_where_nothing_was_traded_or_nothing_moved() -> None:
    candles = Fall().candles()
    silent = replace(candles, volume=np.where(np.arange(len(candles)) < 55, 0.0, candles.volume))
    assert len(decisions_of(silent, PARAMETERS)) == 0
    still = Fall(quiet=(100.0, 100.0, 100.0, 100.0))
    assert_decides(still, {}, [])
    assert_decides(replace(still, n_before=60, into=(QUIET,) * 5), {}, [61])


def test_the_stop_by_hand() -> None:
    wild = (100.0, 130.5, 99.5, 100.0)  # after bar 52, so that the ATR that counts is 1
    fall, parameters = Fall(into=(wild, wild)), PARAMETERS | {"stop_distance": 1.5}
    exits = STRATEGY.exits(parameters)
    assert exits == Exits(stop_multiple=1.5, target="r", target_multiple=2.0)
    for side, stop_price in (("long", 94.5), ("short", 105.5)):
        decisions = decisions_of(fall.candles(is_mirrored=side == "short"), parameters, side)
        stops = decisions.stop_anchor - decisions.side * exits.stop_multiple * decisions.stop_unit
        assert stops.tolist() == pytest.approx([stop_price], rel=1e-12)


def test_of_two_climaxes_that_confirm_at_once_the_nearest_stop_is_taken() -> None:
    # Two climaxes with the same low, on bars 55 and 56. The ATR before the first is 1, before the second (13 + 3) / 14.
    twin = Fall(into=((100.0, 102.5, 99.5, 100.0), QUIET), after=((99.0, 99.5, 96.0, 97.9), GREEN, GREEN, GREEN))
    frame, parameters = (
        frame_of(with_volume(twin.candles(), 56, 40.0)),
        PARAMETERS | {"reversal_confirmation_candles": 3},
    )
    decisions = SignalSource(STRATEGY, frame, "long").decisions(parameters)
    assert decisions.bar.tolist() == [57, 57]
    assert sorted((96.0 - decisions.stop_unit).tolist()) == pytest.approx([96.0 - 16 / 14, 95.0], rel=1e-12)
    trades = run_backtest(frame, decisions, STRATEGY.exits(parameters), AccountSettings()).trades
    assert trades.stop_price.tolist() == pytest.approx([95.0], rel=1e-12)


def test_decisions_stay_in_bar_order_where_a_later_climax_confirms_first() -> None:
    # Bar 55 has its middle at 98, bar 56 at 97: bar 57 confirms the second, bar 58 the first.
    rows: tuple[Row, ...] = ((97.5, 98.0, 96.0, 97.0), (97.0, 97.9, 96.5, 97.8), GREEN)
    candles = with_volume(Fall(after=rows).candles(), 56, 40.0)
    assert decisions_of(candles, PARAMETERS | {"reversal_confirmation_candles": 3}).bar.tolist() == [57, 58]


def random_walk(n: int) -> Candles:
    """Return a wild walk in steps of 0.25, on which ties happen, with bursts of volume."""
    rng = np.random.default_rng(8)
    close = np.round(400 * np.exp(np.cumsum(rng.normal(0, 0.006, n)))) / 4
    open_ = np.concatenate([close[:1], close[:-1]])
    high = np.maximum(open_, close) + rng.integers(0, 4, n) / 4
    low = np.minimum(open_, close) - rng.integers(0, 4, n) / 4
    volume = 10.0 * rng.integers(1, 3, n) * np.where(rng.random(n) < 0.2, 4, 1)
    return candles_of(list(zip(open_, high, low, close, strict=True)), volume=volume.tolist())


def test_many_sets_at_once_decide_as_each_alone() -> None:
    frame = frame_of(random_walk(3_000))
    space = ParameterSpace(tuple(p for p in STRATEGY.parameters if p.kind == "signal"))
    numbers = np.random.default_rng(4).permutation(space.size)[:300]
    source = SignalSource(STRATEGY, frame, "both")
    sets = source.decision_sets(space.columns(numbers))
    alone = [source.decisions(space.values(number)) for number in numbers.tolist()]
    assert sets.offsets.tolist() == np.cumsum([0, *map(len, alone)]).tolist()
    assert sum(len(decisions) > 0 for decisions in alone) > 100
    for name in ("bar", "side", "stop_anchor", "stop_unit"):
        together = np.concatenate([getattr(decisions, name) for decisions in alone])
        np.testing.assert_array_equal(getattr(sets.decisions.take(sets.members), name), together)


def test_the_grid_is_that_of_the_definition() -> None:
    assert ParameterSpace(STRATEGY.parameters).size == 97_200
    assert {p.name: p.grid for p in STRATEGY.parameters} == {
        "volume_explosion_threshold": (2, 3, 4, 5, 6),
        "price_move_speed": (0.015, 0.02, 0.03, 0.04, 0.05),
        "sentiment_extreme_threshold": (20, 25, 30),
        "exhaustion_wick_ratio": (0.8, 1.5, 2.5),
        "reversal_confirmation_candles": (1, 2, 3),
        "stop_distance": (0.25, 0.5, 1.0, 1.5),
        "target_multiple": (1.5, 2.0, 3.0, 4.0),
        "panic_score_minimum": (0.5, 0.6, 0.75),
        "smart_money_divergence": (0.25, 0.4, 0.5),
    }
