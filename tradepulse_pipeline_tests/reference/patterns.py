"""What each strategy looks for, planted in quiet markets: sound patterns, near misses, and parameters to find them."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Final, Protocol

import numpy as np
import pytest
from hypothesis import strategies as st

from tradepulse_pipeline.market.candles import Candles
from tradepulse_pipeline.market.series import Timeframe
from tradepulse_pipeline.strategies.registry import get_strategy, strategy_names
from tradepulse_pipeline_tests.reference.markets import NEW_YEAR_MS, Tape, fractions, tapes, write_walk

sides: Final = st.sampled_from([1, -1])
ParameterSets = st.SearchStrategy[dict[str, float]]


class Pen:
    """Writes bars in fractions of the price at which it begins; for a short pattern, up and down change places."""

    def __init__(self, tape: Tape, side: int, draws: bytes, usual_volume: float) -> None:
        self.tape, self.side, self.origin, self.usual_volume = tape, side, tape.price, usual_volume
        self.kappa: Final = math.sqrt(tape.timeframe.minutes / 60)
        self.noise: Iterator[int] = iter(draws)

    def bar(self, open_: float, best: float, worst: float, close: float, volume: float | None = None) -> None:
        prices = [self.origin * (1 + self.side * offset) for offset in (open_, best, worst, close)]
        high, low = (prices[1], prices[2]) if self.side == 1 else (prices[2], prices[1])
        some = self.usual_volume * (1 + next(self.noise) % 8 / 10)
        self.tape.write(prices[0], high, low, prices[3], some if volume is None else volume)

    def near(self, offset: float) -> float:
        return offset + next(self.noise) % 8 * 0.0001


class Plant(Protocol):
    """One planted pattern."""

    @property
    def side(self) -> int: ...

    def write(self, pen: Pen) -> None: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Pattern:
    """The plants of one strategy, and parameters with which many of them just pass or just fail."""

    plants: st.SearchStrategy[Plant]
    #: A random plant of a side that often confirms under ``lenient``.
    likely: Callable[[int, np.random.Generator], Plant]
    parameters: ParameterSets
    lenient: dict[str, float]
    #: Quiet bars that the indicators need before the first plant.
    n_quiet: int


def write_rest(tape: Tape, n_bars: int, random_bytes: Callable[[int], bytes], calm_volume: float | None) -> None:
    """Write quiet bars: a random walk, or all alike where there is a ``calm_volume``, so that averages are round."""
    if calm_volume is None:
        write_walk(tape, random_bytes(n_bars * 5), 0.002)
        return
    price, wick = tape.price, math.sqrt(tape.timeframe.minutes / 60) / 128
    for _ in range(n_bars):
        tape.write(price, price * (1 + wick), price * (1 - wick), price, calm_volume)


def write_market(
    tape: Tape,
    pattern: Pattern,
    plants: list[Plant],
    random_bytes: Callable[[int], bytes],
    calm_volume: float | None = None,
) -> Candles:
    """Write quiet bars, enough of them for the indicators, then plants and a few more quiet bars in turn."""
    write_rest(tape, pattern.n_quiet, random_bytes, calm_volume)
    for plant in plants:
        plant.write(Pen(tape, plant.side, random_bytes(120), 10.0 if calm_volume is None else calm_volume))
        write_rest(tape, 4, random_bytes, calm_volume)
    return tape.candles()


@st.composite
def planted_markets(draw: st.DrawFn, pattern: Pattern) -> Candles:
    """Quiet markets with planted patterns of both sides, and now and then bars flagged as filled."""
    likely = st.builds(pattern.likely, sides, st.integers(0, 99).map(np.random.default_rng))
    plants = draw(st.lists(pattern.plants | likely, min_size=2, max_size=6))
    calm_volume = draw(st.sampled_from([None, None, 10.0, 0.0]))

    def random_bytes(n: int) -> bytes:
        return draw(st.binary(min_size=n, max_size=n))

    candles = write_market(draw(tapes()), pattern, plants, random_bytes, calm_volume)
    flagged = draw(st.just([]) | st.lists(st.integers(0, len(candles) - 1), max_size=20))
    return replace(candles, is_filled=np.isin(np.arange(len(candles)), flagged))


def seeded_market(pattern: Pattern, rng: np.random.Generator, n_plants: int = 4) -> Candles:
    """Return a market of a random timeframe with likely plants, half of them of each side.

    Now and then it is calm or silent, or bars are flagged as filled.
    """
    timeframe = Timeframe(str(rng.choice(["1m", "5m", "15m", "1h", "4h"])))
    tape = Tape(timeframe, float(rng.choice([0.0, 0.01, 0.25])), NEW_YEAR_MS, 1000.0)
    plants = [pattern.likely(side, rng) for side in rng.permutation([1, -1] * (n_plants // 2)).tolist()]
    candles = write_market(tape, pattern, plants, rng.bytes, (None, None, None, 10.0, 0.0)[rng.integers(5)])
    is_flagged = rng.random(len(candles)) < rng.choice([0.0, 0.0, 0.05])
    return replace(candles, is_filled=is_flagged)


def often(value: float, others: st.SearchStrategy[float]) -> st.SearchStrategy[float]:
    """Return ``value`` about half of the time."""
    return st.just(value) | st.just(value) | others


gaps: Final = st.sampled_from([0, 0, 0, 0, 1, 3, 4])


@dataclass(frozen=True, slots=True, kw_only=True)
class StopHunt:
    """In fractions of the price: a swing, a wait above it, the sweep and the way back."""

    side: int
    drop: float
    wait: int
    has_equal_swing: bool
    depth: float
    further_depth: float
    volume_multiple: float
    delay: int
    body: float
    gap: int

    def write(self, pen: Pen) -> None:
        level = -self.drop
        for step in (0.3, 0.6, 0.9):
            pen.bar(pen.near(level * (step - 0.3)), 0.0005, pen.near(level * step), pen.near(level * (step - 0.1)))
        pen.bar(level * 0.9, level * 0.8, level, level * 0.7)
        rest = level * 0.5
        for _ in range(3 + self.wait):
            pen.bar(pen.near(rest), pen.near(rest) + 0.0008, pen.near(level * 0.8), pen.near(rest))
        if self.has_equal_swing:
            pen.bar(rest, rest + 0.0005, level, rest)
            for _ in range(3):
                pen.bar(pen.near(rest), pen.near(rest) + 0.0008, pen.near(level * 0.8), pen.near(rest))
        pen.tape.skip(self.gap)
        bottom = (1 + level) * (1 - self.depth) - 1
        for i in range(self.delay + 1):
            is_last = i == self.delay
            close = level + self.body if is_last else (level + bottom) / 2
            open_ = level + 0.0002 if is_last else rest
            worst = bottom if i == 0 else bottom - self.further_depth
            pen.bar(open_, max(open_, close), worst, close, 10.0 * self.volume_multiple if i == 0 else None)


STOP_HUNTS: Final = Pattern(
    plants=st.builds(
        StopHunt,
        side=sides,
        drop=st.sampled_from([0.002, 0.004, 0.01]),
        wait=st.integers(0, 6),
        has_equal_swing=st.booleans(),
        depth=st.sampled_from([0.0, 0.0004, 0.0005, 0.001, 0.002, 0.005, 0.006]),
        further_depth=st.sampled_from([0.0, 0.0, 0.0, 0.0005, 0.01]),
        volume_multiple=often(20.0, st.sampled_from([1.0, 2.0, 3.0, 4.0])),
        delay=st.integers(0, 5),
        body=often(0.01, st.sampled_from([0.0, 0.002, 0.006])),
        gap=gaps,
    ),
    likely=lambda side, rng: StopHunt(
        side=side,
        drop=0.004,
        wait=int(rng.integers(0, 5)),
        has_equal_swing=bool(rng.integers(0, 2)),
        depth=rng.uniform(0.0003, 0.004),
        further_depth=float(rng.choice([0.0, 0.0, 0.001])),
        volume_multiple=rng.uniform(6, 20),
        delay=int(rng.integers(0, 4)),
        body=rng.uniform(0.003, 0.01),
        gap=int(rng.choice([0, 0, 0, 1])),
    ),
    parameters=st.fixed_dictionaries(
        {
            "pierce_depth": often(0.02, fractions(0.001, 0.005, low=0.0001, high=0.05)),
            "rejection_candles": often(5, st.integers(1, 6)),
            "volume_spike_threshold": often(0.5, fractions(0.0, 1.0, 2.0, low=0.0, high=3.0)),
            "reversal_candle_size": often(0.25, fractions(0.0, 0.5, low=0.0, high=1.5)),
            "key_level_lookback": often(20, st.integers(4, 14) | st.just(50)),
            "stop_distance": fractions(0.5, 1.0, 2.0, low=0.01, high=5.0),
            "target_multiple": fractions(1.5, 2.0, low=0.01, high=5.0),
        }
    ),
    lenient={
        "pierce_depth": 0.005,
        "rejection_candles": 5,
        "volume_spike_threshold": 1.5,
        "reversal_candle_size": 0.5,
        "key_level_lookback": 20,
        "stop_distance": 1.0,
        "target_multiple": 2.0,
        "min_stop_density_score": 0.0,
        "max_spread_tolerance": 0.0,
    },
    n_quiet=25,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Climax:
    """A fall over three bars, of ``leg`` times kappa, the last on volume; a wait near the low; and the way back.

    Closes lie in units of the leg: 0 where it began, -1 at its low.
    """

    side: int
    leg: float
    has_equal_low: bool
    gap: int
    gap_after: int
    volume_multiple: float
    close: float
    delay: int
    undercut: float
    back: float

    def write(self, pen: Pen) -> None:
        leg = min(self.leg * pen.kappa, 0.6)
        if self.has_equal_low:
            pen.bar(0.0, 0.0005, -leg, 0.0)
        pen.bar(pen.near(0.0), 0.001, -0.0005, 0.0)
        pen.bar(0.0, pen.near(0.0), -0.3 * leg, -0.25 * leg)
        pen.tape.skip(self.gap)
        pen.bar(-0.25 * leg, pen.near(-0.25 * leg), -0.6 * leg, -0.5 * leg)
        pen.bar(-0.5 * leg, -0.5 * leg, -leg, self.close * leg, 10.0 * self.volume_multiple)
        pen.tape.skip(self.gap_after)
        for _ in range(self.delay):
            pen.bar(self.close * leg, pen.near(self.close * leg), -leg * (1 + self.undercut), -0.95 * leg)
        pen.bar(-0.95 * leg, pen.near(self.back * leg), -0.95 * leg, self.back * leg)


CLIMAXES: Final = Pattern(
    plants=st.builds(
        Climax,
        side=sides,
        leg=often(0.05, st.sampled_from([0.005, 0.01, 1 / 64, 0.02, 0.03, 0.04, 0.08])),
        has_equal_low=st.booleans(),
        gap=gaps,
        gap_after=gaps,
        volume_multiple=often(50.0, st.sampled_from([1.0, 5.0, 10.0, 20.0])),
        close=often(-0.7, st.sampled_from([-1.0, -0.9, -0.75, -0.5, -0.3])),
        delay=st.integers(0, 4),
        undercut=often(0.0, st.sampled_from([-0.02, 0.02])),
        back=often(-0.4, st.sampled_from([-0.9, -0.75, -0.7, -0.5, 0.2])),
    ),
    likely=lambda side, rng: Climax(
        side=side,
        leg=rng.uniform(0.02, 0.08),
        has_equal_low=bool(rng.integers(0, 2)),
        gap=int(rng.choice([0, 0, 0, 1])),
        gap_after=int(rng.choice([0, 0, 0, 1])),
        volume_multiple=rng.uniform(8, 50),
        close=rng.uniform(-0.95, -0.5),
        delay=int(rng.integers(0, 4)),
        undercut=float(rng.choice([0.0, 0.0, -0.01])),
        back=rng.uniform(-0.76, 0.0),
    ),
    parameters=st.fixed_dictionaries(
        {
            "volume_explosion_threshold": often(0.5, fractions(2.0, 3.0, 4.0, 5.0, 6.0, low=0.1, high=8.0)),
            "price_move_speed": often(0.001, fractions(0.015, 1 / 64, 0.02, 0.03, 0.04, 0.05, low=0.001, high=0.06)),
            "sentiment_extreme_threshold": often(40.0, fractions(20.0, 25.0, 30.0, low=0.0, high=100.0)),
            "exhaustion_wick_ratio": fractions(0.8, 1.5, 2.5, 10.0, low=0.1, high=20.0),
            "reversal_confirmation_candles": often(3, st.integers(1, 6)),
            "stop_distance": fractions(0.0, 0.25, 0.5, 1.0, 1.5, low=0.01, high=3.0),
            "target_multiple": fractions(1.5, 2.0, 3.0, 4.0, low=0.1, high=5.0),
            "panic_score_minimum": often(0.1, fractions(0.0, 0.5, 0.6, 0.75, low=0.0, high=1.0)),
            "smart_money_divergence": often(0.1, fractions(0.0, 0.25, 0.4, 0.5, low=0.0, high=0.7)),
        }
    ),
    lenient={
        "volume_explosion_threshold": 2.0,
        "price_move_speed": 0.015,
        "sentiment_extreme_threshold": 30.0,
        "exhaustion_wick_ratio": 0.8,
        "reversal_confirmation_candles": 3,
        "stop_distance": 0.5,
        "target_multiple": 1.5,
        "panic_score_minimum": 0.5,
        "smart_money_divergence": 0.25,
    },
    n_quiet=55,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Spring:
    """A range from 0 down to ``-height`` that price crosses in waves; the break of its support; recovery; and a test.

    Depths are fractions of the support; the test's depth lies in units of the height above the spring's low.
    """

    side: int
    height: float
    wave: int
    n_range: int
    gap: int
    depth: float
    further_depth: float
    volume_multiple: float
    delay: int
    recovery: float
    recovery_volume: float
    wait: int
    test_depth: float
    test_volume: float
    turn: int

    def write(self, pen: Pen) -> None:
        before = 0.0
        for i in range(self.n_range):
            at = abs(i % self.wave - self.wave / 2) / (self.wave / 2) - 1
            close = at * self.height
            best, worst = min(max(before, close) + 0.0002, 0.0), max(min(before, close) - 0.0002, -self.height)
            pen.bar(before, best, worst, close)
            before = close
            if i == self.n_range // 2:
                pen.tape.skip(self.gap)
        support = -self.height
        bottom = (1 + support) * (1 - self.depth) - 1
        pen.bar(before, before, bottom, support, 10.0 * self.volume_multiple)
        low = bottom - self.further_depth
        for _ in range(self.delay):
            pen.bar(support, pen.near(support), low, bottom)
        up = support + self.recovery * self.height
        pen.bar(support, max(support, up), bottom, up, 10.0 * self.recovery_volume)
        for _ in range(self.wait):
            pen.bar(up, pen.near(up), up - 0.1 * self.height, up)
        test = (min(bottom, low) if self.delay else bottom) + self.test_depth * self.height
        for _ in range(self.turn):
            pen.bar(up, pen.near(up), test, min(up, test + 0.1 * self.height), 10.0 * self.test_volume)
        pen.bar(test, test + 0.4 * self.height, test, test + 0.3 * self.height)


SPRINGS: Final = Pattern(
    plants=st.builds(
        Spring,
        side=sides,
        height=often(0.03, st.sampled_from([0.005, 0.01, 0.02])),
        wave=often(8, st.sampled_from([4, 6, 12])),
        n_range=often(26, st.sampled_from([12, 20])),
        gap=gaps,
        depth=st.sampled_from([0.0005, 0.001, 0.002, 0.005, 0.02]),
        further_depth=often(0.0, st.sampled_from([-0.0002, 0.001, 0.01])),
        volume_multiple=often(0.5, st.sampled_from([0.0, 1.0, 2.0, 4.0])),
        delay=st.integers(0, 5),
        recovery=often(0.2, st.sampled_from([-0.05, 0.05, 0.8])),
        recovery_volume=often(4.0, st.sampled_from([1.0, 2.0])),
        wait=st.integers(0, 8),
        test_depth=often(0.1, st.sampled_from([-0.01, 0.0, 0.25, 0.3])),
        test_volume=often(0.2, st.sampled_from([1.0, 5.0])),
        turn=st.integers(0, 4),
    ),
    likely=lambda side, rng: Spring(
        side=side,
        height=rng.uniform(0.015, 0.03),
        wave=int(rng.choice([5, 6, 8, 12])),
        n_range=26,
        gap=int(rng.choice([0, 0, 0, 1])),
        depth=rng.uniform(0.0002, 0.004),
        further_depth=float(rng.choice([0.0, 0.0, 0.001])),
        volume_multiple=rng.uniform(0.1, 3.0),
        delay=int(rng.integers(0, 4)),
        recovery=rng.uniform(0.02, 0.4),
        recovery_volume=rng.uniform(1, 5),
        wait=int(rng.integers(0, 10)),
        test_depth=rng.uniform(0.0, 0.28),
        test_volume=rng.uniform(0.05, 1.0),
        turn=int(rng.integers(0, 4)),
    ),
    parameters=st.fixed_dictionaries(
        {
            "range_lookback_periods": often(20, st.integers(5, 40)),
            "breakdown_depth": often(0.02, fractions(0.002, 0.005, 0.01, 0.02, low=0.0001, high=0.05)),
            "volume_decline_threshold": often(3.0, fractions(0.3, 0.5, 0.7, 0.9, low=0.1, high=2.0)),
            "recovery_speed": often(8, st.integers(1, 8)),
            "spring_confirmation_volume": often(0.5, fractions(1.0, 1.5, 2.0, 2.5, low=0.1, high=3.0)),
            "stop_distance": fractions(0.0, 0.1, 0.5, 1.0, low=0.01, high=2.0),
            "target_multiple": fractions(0.5, 1.0, 1.5, low=0.1, high=3.0),
            "accumulation_score_min": often(0.1, fractions(0.0, 0.35, 0.5, 0.6, 0.7, low=0.0, high=1.0)),
            "wyckoff_phase_alignment": st.sampled_from([0, 1]),
        }
    ),
    lenient={
        "range_lookback_periods": 20,
        "breakdown_depth": 0.02,
        "volume_decline_threshold": 0.9,
        "recovery_speed": 8,
        "spring_confirmation_volume": 1.0,
        "stop_distance": 0.5,
        "target_multiple": 1.0,
        "accumulation_score_min": 0.35,
        "wyckoff_phase_alignment": 0,
    },
    n_quiet=25,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Jump:
    """A bar that moves by ``move`` times kappa on volume, and what follows, in units of the move: 0 undoes it."""

    side: int
    move: float
    volume_multiple: float
    wick: float
    gap: int
    gap_after: int
    steps: tuple[float, ...]
    aftermath: tuple[float, ...]

    def write(self, pen: Pen) -> None:
        move = min(self.move * pen.kappa, 0.12)  # seven times as much still leaves a price
        pen.bar(pen.near(0.0), 0.001, -0.0005, 0.0)
        pen.tape.skip(self.gap)
        pen.bar(0.0, (1 + self.wick) * move, -0.0005, move, 10.0 * self.volume_multiple)
        pen.tape.skip(self.gap_after)
        before = move
        for close in (*self.steps, *self.aftermath):
            at = close * move
            pen.bar(before, max(before, at) + 0.0002, min(before, at) - 0.0002, at)
            before = at


#: Closes after the decision that end in each way: the trail, half the move lost, all of it, nothing for long, a rally.
AFTERMATHS: Final = (
    (1.5, 2.5, 3.5, 4.0, 2.0),
    (1.1, 0.8, 0.45, 0.6),
    (0.9, -0.2, -1.0),
    (1.2,) * 8,
    (2.0, 3.0, 4.0, 5.0, 6.0, 7.0),
)

JUMPS: Final = Pattern(
    plants=st.builds(
        Jump,
        side=sides,
        move=often(0.04, st.sampled_from([0.005, 0.01, 1 / 64, 0.02])),
        volume_multiple=often(50.0, st.sampled_from([1.0, 5.0, 10.0, 20.0])),
        wick=often(0.0, st.sampled_from([0.2, 1.0])),
        gap=gaps,
        gap_after=gaps,
        steps=st.lists(st.sampled_from([1.2, 1.1, 1.0, 0.9, 0.5, 0.45]), max_size=4).map(tuple),
        aftermath=st.sampled_from(AFTERMATHS),
    ),
    likely=lambda side, rng: Jump(
        side=side,
        move=rng.uniform(0.008, 0.05),
        volume_multiple=rng.uniform(10, 60),
        wick=rng.uniform(0.0, 0.5),
        gap=int(rng.choice([0, 0, 0, 1])),
        gap_after=int(rng.choice([0, 0, 0, 1])),
        steps=tuple(1.0 + rng.uniform(-0.05, 0.2, size=rng.integers(0, 5)).cumsum()),
        aftermath=AFTERMATHS[int(rng.integers(len(AFTERMATHS)))],
    ),
    parameters=st.fixed_dictionaries(
        {
            "gap_threshold": often(0.0005, fractions(0.01, 1 / 64, 0.015, 0.02, 0.03, low=0.0002, high=0.05)),
            "volume_surge_multiplier": often(0.2, fractions(3.0, 4.0, 5.0, 8.0, low=0.1, high=10.0)),
            "momentum_persistence": often(1, st.integers(1, 6)),
            "no_retracement_periods": st.integers(0, 10) | st.just(20),
            "trail_stop_activation": fractions(1.5, 2.0, 3.0, low=0.05, high=4.0),
            "position_hold_maximum": st.sampled_from([5, 10, 20, 30]) | st.integers(1, 40),
            "catalyst_strength_minimum": often(0.1, fractions(0.0, 0.5, 0.6, 0.7, 0.8, low=0.0, high=1.0)),
            "continuation_probability": fractions(0.0, 0.5, 0.6, low=0.2, high=0.8),
        }
    ),
    lenient={
        "gap_threshold": 0.005,
        "volume_surge_multiplier": 2.0,
        "momentum_persistence": 1,
        "no_retracement_periods": 5,
        "trail_stop_activation": 1.5,
        "position_hold_maximum": 20,
        "catalyst_strength_minimum": 0.5,
        "continuation_probability": 0.5,
    },
    n_quiet=55,
)

#: By the name of the strategy.
PATTERNS: Final = {
    "LIQUIDITY_SWEEP_V3": STOP_HUNTS,
    "CAPITULATION_REVERSAL_V3": CLIMAXES,
    "FAILED_BREAKDOWN_V3": SPRINGS,
    "SUPPLY_SHOCK_V3": JUMPS,
}

#: Runs a test with each strategy that there is.
every_strategy = pytest.mark.parametrize(
    "strategy", [get_strategy(name) for name in strategy_names()], ids=strategy_names()
)
