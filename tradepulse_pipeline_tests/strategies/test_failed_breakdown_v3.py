"""FAILED_BREAKDOWN_V3 by hand: each rule decides once and is missed once, long and in the mirror."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pytest

from tradepulse_pipeline.market.candles import Candles
from tradepulse_pipeline.market.series import Timeframe
from tradepulse_pipeline.strategies.base import SignalSource
from tradepulse_pipeline.strategies.decisions import Decisions, Side
from tradepulse_pipeline.strategies.registry import get_strategy
from tradepulse_pipeline.strategies.space import ParameterSpace
from tradepulse_pipeline_tests.reference.markets import NEW_YEAR_MS, candles_of, frame_of

STRATEGY = get_strategy("FAILED_BREAKDOWN_V3")

#: Open, high, low, close and volume.
Row = tuple[float, float, float, float, float]


def in_range(low: float, *, close: float | None = None, volume: float = 10.0) -> Row:
    """Return a bar of the range: 3 high, so that with steps of up to 1.5 every true range, and so the ATR, is 3."""
    middle = low + 1.5
    return middle, low + 3.0, low, middle if close is None else close, volume


#: 20 bars between 100 and 110. Bars 1-3 and 11-12 touch the lower fifth, up to 102, bars 6-8 and 15-16 the upper one.
LOWS = (103.0, 101.5, 100.0, 101.5, 103.0, 104.5, 106.0, 107.0, 106.0, 104.5)
LOWS += (103.0, 101.5, 101.0, 102.5, 104.0, 105.5, 105.0, 104.0, 103.0, 102.5)
RANGE = tuple(in_range(low) for low in LOWS)

BREAKDOWN: Row = (102.0, 102.5, 99.5, 100.5, 10.0)
RECOVERY: Row = (100.0, 103.0, 99.75, 102.0, 30.0)
#: Under support, falling: does not recover.
WAITING: Row = (100.0, 100.5, 99.75, 99.75, 10.0)
#: Above the zone in which the spring's low is tested, falling.
ABOVE: Row = (105.0, 105.5, 103.0, 104.0, 10.0)
#: Tests the spring's low on less volume than the breakdown's.
TEST: Row = (102.0, 102.5, 101.0, 101.5, 5.0)
RISING: Row = (103.0, 105.0, 102.5, 104.5, 10.0)


def changed(row: Row, **changes: float) -> Row:
    columns = dict(zip(("open", "high", "low", "close", "volume"), row, strict=True)) | changes
    return columns["open"], columns["high"], columns["low"], columns["close"], columns["volume"]


def with_bar(bar: int, row: Row) -> tuple[Row, ...]:
    """Return the range with another bar."""
    return (*RANGE[:bar], row, *RANGE[bar + 1 :])


@dataclass(frozen=True, slots=True, kw_only=True)
class Market:
    """Five bars, the range, the breakdown on bar 25 and what follows; bars ``filled`` carry the flag."""

    n_before: int = 5
    range: tuple[Row, ...] = RANGE
    breakdown: Row = BREAKDOWN
    after: tuple[Row, ...] = (RECOVERY,)
    missing: tuple[int, ...] = ()
    filled: tuple[int, ...] = ()

    def candles(self, side: int = 1) -> Candles:
        """Return the candles, for the short side in a mirror at 100: depths are the same fractions of support."""
        rows = [*[in_range(103.0)] * self.n_before, *self.range, self.breakdown, *self.after]
        if side < 0:
            rows = [(200 - open_, 200 - low, 200 - high, 200 - close, v) for open_, high, low, close, v in rows]
        candles = candles_of([row[:4] for row in rows], volume=[row[4] for row in rows], missing=self.missing)
        return replace(candles, is_filled=np.isin(np.arange(len(candles)), self.filled))


PARAMETERS: dict[str, float] = {
    "range_lookback_periods": 20,
    "breakdown_depth": 0.01,
    "volume_decline_threshold": 0.5,
    "recovery_speed": 3,
    "spring_confirmation_volume": 2.0,
    "stop_distance": 0.5,
    "target_multiple": 1.5,
    "accumulation_score_min": 0.0,
    "wyckoff_phase_alignment": 0,
}


def decisions_of(candles: Candles, changes: dict[str, float], side: Side) -> Decisions:
    return SignalSource(STRATEGY, frame_of(candles), side).decisions(STRATEGY.check(PARAMETERS | changes))


def lower_touches_at(*bars: int) -> tuple[Row, ...]:
    """Return a range that touches its lower fifth at these bars alone, from 0 to 9, and its upper fifth twice."""
    lows = [101.5 if bar in bars else 103.0 for bar in range(10)]
    lows[bars[0]] = 100.0
    return tuple(in_range(low) for low in (*lows, 104.5, 106.0, 107.0, 105.5, 104.5, 104.5, 104.5, 105.5, 104.0, 102.5))


HIGH_AT_FIRST = changed(in_range(106.0), close=109.0)
#: As high as 3 ATR, and a little less.
NINE_HIGH = tuple(in_range(min(low, 106.0)) for low in LOWS)
LESS_HIGH = tuple(in_range(min(low, 105.9)) for low in LOWS)
#: A lower low on much volume: no spring of its own, but it may void the one before.
DEEPER = changed(WAITING, low=99.25, volume=100.0)
TOO_DEEP = changed(WAITING, low=98.75, volume=100.0)
#: 14 bars between 100 and 110, for a breakdown before or just after the first ATR.
EARLY_LOWS = (100.5, 100.0, 102.5, 105.0, 107.0, 108.0, 105.5, 103.0, 101.0, 100.5, 103.5, 106.0, 105.0, 103.0)
EARLY = Market(
    range=tuple((low + 1, low + 2, low, low + 1, 10.0) for low in EARLY_LOWS), after=(*[WAITING] * 5, RECOVERY)
)

RULES: dict[str, tuple[Market, dict[str, float], list[int]]] = {
    "a spring": (Market(), {}, [26]),
    # 1: the range
    "a range of all bars": (Market(n_before=0), {}, [21]),
    "fewer bars than the range needs": (Market(n_before=0), {"range_lookback_periods": 21}, []),
    "a range of any length": (Market(), {"range_lookback_periods": 23}, [26]),
    "a drift of half the range": (Market(range=with_bar(0, HIGH_AT_FIRST)), {}, [26]),
    "a drift of more than half": (
        Market(range=(HIGH_AT_FIRST, *RANGE[1:19], in_range(102.5, close=103.75))),
        {},
        [],
    ),
    "as high as 3 ATR": (Market(range=NINE_HIGH), {}, [26]),
    "less high than 3 ATR": (Market(range=LESS_HIGH), {}, []),
    "one touch of the lower fifth": (Market(range=lower_touches_at(2)), {}, []),
    "touches 3 bars apart": (Market(range=lower_touches_at(2, 5)), {}, [26]),
    "touches 2 bars apart": (Market(range=lower_touches_at(2, 4)), {}, []),
    "touches are measured from the latest bar in the zone": (Market(range=lower_touches_at(2, 4, 6)), {}, []),
    "touches 3 bars apart where 3 are a tenth": (
        Market(n_before=10, range=lower_touches_at(2, 5)),
        {"range_lookback_periods": 30},
        [31],
    ),
    "touches 3 bars apart where a tenth is 3.1": (
        Market(n_before=11, range=lower_touches_at(2, 5)),
        {"range_lookback_periods": 31},
        [],
    ),
    "touches 4 bars apart where a tenth is 3.1": (
        Market(n_before=11, range=lower_touches_at(2, 6)),
        {"range_lookback_periods": 31},
        [32],
    ),
    "a touch at the edge of the lower fifth": (
        Market(range=tuple(in_range(102.0 if 10 < bar < 13 else low) for bar, low in enumerate(LOWS))),
        {},
        [26],
    ),
    "no touch beyond the edge of the lower fifth": (
        Market(range=tuple(in_range(102.25 if 10 < bar < 13 else low) for bar, low in enumerate(LOWS))),
        {},
        [],
    ),
    "a touch at the edge of the upper fifth": (
        Market(
            range=tuple(
                in_range(105.0 if bar == 15 else min(low, 104.5) if bar > 8 else low) for bar, low in enumerate(LOWS)
            )
        ),
        {},
        [26],
    ),
    "no second touch of the upper fifth": (
        Market(range=tuple(in_range(min(low, 104.75) if bar > 8 else low) for bar, low in enumerate(LOWS))),
        {},
        [],
    ),
    "no ATR before the breakdown": (
        replace(EARLY, n_before=0),
        {"range_lookback_periods": 14, "recovery_speed": 8},
        [],
    ),
    "the first ATR before the breakdown": (
        replace(EARLY, n_before=1),
        {"range_lookback_periods": 14, "recovery_speed": 8},
        [21],
    ),
    # 2: the breakdown
    "support is touched, not broken": (Market(breakdown=changed(BREAKDOWN, low=100.0)), {}, []),
    "as deep as the limit": (Market(), {"breakdown_depth": 0.005}, [26]),
    "deeper than the limit": (Market(), {"breakdown_depth": 0.00499}, []),
    "a filled bar breaks nothing": (Market(filled=(25,)), {}, []),
    # 3: no real supply
    "volume at the limit": (Market(breakdown=changed(BREAKDOWN, volume=15.0)), {}, [26]),
    "volume above the limit": (Market(breakdown=changed(BREAKDOWN, volume=15.1)), {}, []),
    "volume elsewhere in the range does not count": (
        Market(range=with_bar(13, in_range(102.5, volume=20.0)), breakdown=changed(BREAKDOWN, volume=15.1)),
        {},
        [],
    ),
    "volume in the lower fifth does": (
        Market(range=with_bar(11, in_range(101.5, volume=20.0)), breakdown=changed(BREAKDOWN, volume=15.1)),
        {},
        [26],
    ),
    "no volume in the lower fifth": (
        Market(
            range=tuple(in_range(low, volume=0.0 if low <= 102.0 else 10.0) for low in LOWS),
            breakdown=changed(BREAKDOWN, volume=0.0),
        ),
        {},
        [],
    ),
    # 4: the recovery
    "the breakdown bar does not recover itself": (
        Market(breakdown=changed(BREAKDOWN, close=102.5, volume=10.0), after=(WAITING,)),
        {"spring_confirmation_volume": 0.5},
        [],
    ),
    "as late as allowed": (Market(after=(WAITING, WAITING, RECOVERY)), {}, [28]),
    "too late": (Market(after=(WAITING, WAITING, RECOVERY)), {"recovery_speed": 2}, []),
    "a close at support": (Market(after=(changed(RECOVERY, open=99.75, close=100.0),)), {}, []),
    "a close above support": (Market(after=(changed(RECOVERY, open=99.75, close=100.25),)), {}, [26]),
    "a bar that does not rise": (Market(after=(changed(RECOVERY, open=102.0),)), {}, []),
    "volume at the threshold": (Market(after=(changed(RECOVERY, volume=20.0),)), {}, [26]),
    "volume below the threshold": (Market(after=(changed(RECOVERY, volume=19.9),)), {}, []),
    "usual volume is not defined at first": (
        Market(n_before=0, range=RANGE[2:], after=(RECOVERY, RECOVERY)),
        {"range_lookback_periods": 18},
        [20],
    ),
    "a filled bar does not recover": (Market(filled=(26,)), {}, []),
    "a filled bar on the way": (Market(missing=(26,)), {}, [27]),
    "a lower low on the way": (Market(after=(DEEPER, RECOVERY)), {}, [27]),
    "a low on the way that is too deep": (Market(after=(TOO_DEEP, RECOVERY)), {}, []),
    "the recovery itself goes too deep": (Market(after=(changed(RECOVERY, low=98.75),)), {"recovery_speed": 1}, []),
    "the first recovery decides": (Market(after=(RECOVERY, RECOVERY)), {}, [26]),
    # 5: the score, of the first recovery alone
    "the score of the first recovery is enough": (
        Market(after=(changed(RECOVERY, volume=20.0), changed(RECOVERY, volume=60.0))),
        {"recovery_speed": 8, "accumulation_score_min": 0.63},
        [26],
    ),
    "the score of the second recovery would be": (
        Market(after=(changed(RECOVERY, volume=20.0), changed(RECOVERY, volume=60.0))),
        {"recovery_speed": 8, "accumulation_score_min": 0.7},
        [],
    ),
}


#: What follows the recovery at bar 26 and decides in phase D. The spring's low is 99.5; tests reach down to 102.
TESTS: dict[str, tuple[tuple[Row, ...], list[int]]] = {
    "a test, then a rising bar": ((ABOVE, TEST, RISING), [29]),
    "rising bars without a test": ((RISING, RISING, RISING), []),
    "the first rising bar after the test": ((TEST, ABOVE, RISING, RISING), [29]),
    "the test does not decide itself": ((changed(TEST, open=101.5, close=102.0), ABOVE), []),
    "a test at the upper end of its zone": ((changed(TEST, low=102.0, close=102.0), RISING), [28]),
    "too high for a test": ((changed(TEST, open=102.5, low=102.25, close=102.25), RISING), []),
    "a test at the spring's low": ((changed(TEST, low=99.5), RISING), [28]),
    "a test below the spring's low": ((changed(TEST, low=99.25), RISING), []),
    "a new low before the test": ((changed(ABOVE, low=99.25), TEST, RISING), []),
    "a new low after the test": ((TEST, changed(ABOVE, low=99.25), RISING), []),
    "a new low in the bar that would decide": ((TEST, changed(RISING, low=99.25)), []),
    "a test on as much volume as the breakdown": ((changed(TEST, volume=10.0), RISING), []),
    "the latest test and decision": ((*[ABOVE] * 8, TEST, RISING), [36]),
    "a test that is too late": ((*[ABOVE] * 9, TEST, RISING), []),
    "a decision that is too late": ((TEST, *[ABOVE] * 9, RISING), []),
}

CASES = RULES | {
    f"phase D: {name}": (Market(after=(RECOVERY, *after)), {"wyckoff_phase_alignment": 1}, bars)
    for name, (after, bars) in TESTS.items()
}
CASES |= {
    "phase D: the recovery is no test": (
        Market(breakdown=changed(BREAKDOWN, volume=60.0), after=(RECOVERY, RISING)),
        {"wyckoff_phase_alignment": 1, "volume_decline_threshold": 2.0},
        [],
    ),
    "phase D: the bar after the recovery is": (
        Market(breakdown=changed(BREAKDOWN, volume=60.0), after=(RECOVERY, RECOVERY, RISING)),
        {"wyckoff_phase_alignment": 1, "volume_decline_threshold": 2.0},
        [28],
    ),
    "phase D: a filled bar may be the test": (
        Market(after=(RECOVERY, changed(TEST, volume=20.0), RISING), missing=(28,)),
        {"wyckoff_phase_alignment": 1},
        [29],
    ),
    "phase D: a filled bar does not decide": (
        Market(after=(RECOVERY, TEST, RISING), filled=(28,)),
        {"wyckoff_phase_alignment": 1},
        [],
    ),
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_springs_by_hand_long(case: tuple[Market, dict[str, float], list[int]]) -> None:
    market, changes, bars = case
    decisions = decisions_of(market.candles(), changes, "long")
    assert decisions.bar.tolist() == bars
    assert decisions.side.tolist() == [1] * len(bars)


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_springs_by_hand_short(case: tuple[Market, dict[str, float], list[int]]) -> None:
    market, changes, bars = case
    decisions = decisions_of(market.candles(side=-1), changes, "short")
    assert decisions.bar.tolist() == bars
    assert decisions.side.tolist() == [-1] * len(bars)


TWICE = tuple(in_range(low) for low in LOWS * 2)
LOUD = changed(RECOVERY, volume=300.0)
#: A close at the low and at the high of one bar of the range, which changes no true range but that of the bar after.
FALLEN = in_range(103.0, close=103.0)
RISEN = in_range(103.0, close=106.0)

#: 0.30 for the volume, 0.25 for little supply, 0.20 for speed, 0.15 for touches and 0.10 for closes.
PLAIN_SCORE = 0.30 + 0.25 / 3 + 0.20 + 0.10 + 0.05
SCORES: dict[str, tuple[Market, dict[str, float], float]] = {
    "plain": (Market(), {}, PLAIN_SCORE),
    "half as much again is full volume": (Market(after=(LOUD,)), {}, PLAIN_SCORE),
    "volume at the threshold": (Market(after=(changed(RECOVERY, volume=20.0),)), {}, PLAIN_SCORE - 0.10),
    "less supply": (Market(breakdown=changed(BREAKDOWN, volume=5.0), after=(LOUD,)), {}, PLAIN_SCORE + 0.25 / 3),
    "supply at the limit": (
        Market(breakdown=changed(BREAKDOWN, volume=15.0), after=(LOUD,)),
        {},
        PLAIN_SCORE - 0.25 / 3,
    ),
    "a bar later": (Market(after=(WAITING, RECOVERY)), {}, PLAIN_SCORE - 0.20 / 3),
    "as late as allowed": (Market(after=(WAITING, WAITING, RECOVERY)), {}, PLAIN_SCORE - 0.40 / 3),
    "5 touches": (Market(range=TWICE), {"range_lookback_periods": 24}, PLAIN_SCORE + 0.025),
    "6 touches": (Market(range=TWICE), {"range_lookback_periods": 30}, PLAIN_SCORE + 0.05),
    "8 touches": (Market(range=TWICE), {"range_lookback_periods": 40}, PLAIN_SCORE + 0.05),
    "a close at a low": (Market(range=with_bar(18, FALLEN), after=(LOUD,)), {}, PLAIN_SCORE - 0.025),
    "on much volume": (
        Market(range=with_bar(18, changed(FALLEN, volume=30.0)), after=(LOUD,)),
        {},
        PLAIN_SCORE - 0.05,
    ),
    "a close at a high": (Market(range=with_bar(18, RISEN), after=(LOUD,)), {}, PLAIN_SCORE + 0.025),
    "a close at a high on much volume": (
        Market(range=with_bar(18, changed(RISEN, volume=30.0)), after=(LOUD,)),
        {},
        PLAIN_SCORE + 0.05,
    ),
}


@pytest.mark.parametrize("side", [1, -1], ids=["long", "short"])
@pytest.mark.parametrize("case", SCORES.values(), ids=SCORES.keys())
def test_the_score_by_hand(case: tuple[Market, dict[str, float], float], side: int) -> None:
    """The mirror sees closes at 1 - CLV: what the short side earns there is the same."""
    market, changes, score = case
    candles, name = market.candles(side), "long" if side > 0 else "short"
    assert len(decisions_of(candles, changes | {"accumulation_score_min": score - 1e-9}, name)) == 1
    assert len(decisions_of(candles, changes | {"accumulation_score_min": score + 1e-9}, name)) == 0


@pytest.mark.parametrize(
    ("after", "phase", "bar", "spring_low"),
    [
        ((changed(WAITING, low=99.25, volume=100.0), RECOVERY), 0, 27, 99.25),
        ((changed(WAITING, low=99.25, volume=100.0), RECOVERY, TEST, RISING), 1, 29, 99.25),
    ],
    ids=["phase C", "phase D"],
)
def test_stop_and_target_by_hand(after: tuple[Row, ...], phase: int, bar: int, spring_low: float) -> None:
    """Stop: half an ATR, which is 3 before the breakdown, under the spring's low. Target: 1.5 x 10 above support."""
    parameters = STRATEGY.check(PARAMETERS | {"wyckoff_phase_alignment": phase})
    exits = STRATEGY.exits(parameters)
    assert (exits.stop_multiple, exits.target, exits.target_multiple) == (0.5, "price", 1.5)
    for side, name in ((1, "long"), (-1, "short")):
        decisions = decisions_of(Market(after=after).candles(side), parameters, name)
        (stop,) = decisions.stop_anchor - decisions.side * exits.stop_multiple * decisions.stop_unit
        (target,) = decisions.target_anchor + decisions.side * exits.target_multiple * decisions.target_unit
        assert decisions.bar.tolist() == [bar]
        assert stop - 100 == pytest.approx(side * (spring_low - 1.5 - 100), rel=1e-12)
        assert target - 100 == pytest.approx(side * 15.0, rel=1e-12)


def test_two_breakdowns_may_recover_at_one_bar() -> None:
    """The second one breaks the first one's low: its range reaches from 99.5 to 110."""
    decisions = decisions_of(Market(after=(changed(WAITING, low=99.25), RECOVERY)).candles(), {}, "long")
    assert decisions.bar.tolist() == [27, 27]
    assert decisions.stop_anchor.tolist() == [99.25, 99.25]
    assert decisions.target_anchor.tolist() == [100.0, 99.5]
    assert decisions.target_unit.tolist() == [10.0, 10.5]


def test_decisions_are_in_bar_order() -> None:
    """The second breakdown, of 99.5, recovers at a close that is still below 100, the support of the first."""
    halfway = (99.5, 100.0, 99.5, 99.75, 30.0)
    decisions = decisions_of(Market(after=(changed(WAITING, low=99.25), halfway, RECOVERY)).candles(), {}, "long")
    assert decisions.bar.tolist() == [27, 28]
    assert decisions.target_anchor.tolist() == [99.5, 100.0]


def ranging_market(n_bars: int) -> Candles:
    """Return a market that returns to its mean, with bursts of volume: full of ranges and springs, with some gaps."""
    rng = np.random.default_rng(11)
    log_price = np.zeros(n_bars + 1)
    for i, noise in enumerate(rng.normal(0.0, 0.003, n_bars)):
        log_price[i + 1] = 0.93 * log_price[i] + noise
    open_, close = 100 * np.exp(log_price[:-1]), 100 * np.exp(log_price[1:])
    high = np.maximum(open_, close) * (1 + rng.exponential(0.0008, n_bars))
    low = np.minimum(open_, close) * (1 - rng.exponential(0.0008, n_bars))
    places = np.flatnonzero(rng.random(2 * n_bars) > 0.01)[:n_bars]
    volume = rng.lognormal(0.0, 0.8, n_bars)
    times = NEW_YEAR_MS + places * 300_000
    return Candles.from_arrays(Timeframe("5m"), times, *(np.round(x, 2) for x in (open_, high, low, close)), volume)


def test_many_sets_at_once_are_each_set_alone() -> None:
    space = ParameterSpace(tuple(p for p in STRATEGY.parameters if p.kind == "signal"))
    columns = space.columns(np.random.default_rng(3).choice(space.size, 120, replace=False))
    # Lookbacks off the grid, and in no order.
    columns["range_lookback_periods"][::3] = np.resize([37.0, 5.0, 120.0], 40)
    columns["accumulation_score_min"] -= 0.35
    source = SignalSource(STRATEGY, frame_of(ranging_market(3_000)), "both")
    sets = source.decision_sets(columns)
    counts = np.diff(sets.offsets)
    assert np.count_nonzero(counts) > 60
    for i in range(len(sets)):
        alone = source.decisions({name: float(column[i]) for name, column in columns.items()})
        for name in Decisions.__dataclass_fields__:
            np.testing.assert_array_equal(getattr(sets[i], name), getattr(alone, name), err_msg=name)


def test_the_spring_has_the_combinations_of_its_definition() -> None:
    assert ParameterSpace(STRATEGY.parameters).size == 73_728
    assert {p.name: p.grid for p in STRATEGY.parameters} == {
        "range_lookback_periods": (20, 50, 100, 200),
        "breakdown_depth": (0.002, 0.005, 0.01, 0.02),
        "volume_decline_threshold": (0.3, 0.5, 0.7, 0.9),
        "recovery_speed": (1, 3, 5, 8),
        "spring_confirmation_volume": (1.0, 1.5, 2.0, 2.5),
        "stop_distance": (0.1, 0.5, 1.0),
        "target_multiple": (0.5, 1.0, 1.5),
        "accumulation_score_min": (0.35, 0.5, 0.6, 0.7),
        "wyckoff_phase_alignment": (0, 1),
    }
