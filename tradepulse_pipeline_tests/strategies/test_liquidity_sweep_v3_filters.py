"""The optional filters of LIQUIDITY_SWEEP_V3: by hand, against the slow reference, and what they must leave alone."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import fields
from typing import Final

import bidask
import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from tradepulse_pipeline.errors import InvalidInputError
from tradepulse_pipeline.indicators.frame import IndicatorFrame
from tradepulse_pipeline.indicators.spread import SPREAD_WINDOW, spread_estimate
from tradepulse_pipeline.market.candles import Candles, FloatArray
from tradepulse_pipeline.market.series import MS_PER_DAY
from tradepulse_pipeline.strategies import liquidity_sweep_v3
from tradepulse_pipeline.strategies.base import Parameter, SignalSource
from tradepulse_pipeline.strategies.decisions import SIDES, Decisions, Side
from tradepulse_pipeline.strategies.registry import get_strategy
from tradepulse_pipeline.strategies.space import ParameterSpace
from tradepulse_pipeline.validation.training import TrainingSettings
from tradepulse_pipeline_tests.reference.comparison import plain_candles
from tradepulse_pipeline_tests.reference.liquidity_sweep_v3 import Sweeps
from tradepulse_pipeline_tests.reference.markets import (
    NEW_YEAR_MS,
    candles_of,
    cases,
    fractions,
    frame_of,
    random_markets,
)

STRATEGY = get_strategy("LIQUIDITY_SWEEP_V3")
both_sides = pytest.mark.parametrize("side", ["long", "short"])
SIGN: Final = {"long": 1, "short": -1}
FILTERS: Final = {"min_stop_density_score": 0.0, "max_spread_tolerance": 0.0}

Row = tuple[float, float, float, float]
Found = list[tuple[int, int, float]]
Find = Callable[[Candles, Mapping[str, float], Side], Found]


def find_with_engine(candles: Candles, parameters: Mapping[str, float], side: Side) -> Found:
    """Return the decisions as bar, side and stop price."""
    checked = STRATEGY.check(parameters)
    found, exits = SignalSource(STRATEGY, frame_of(candles), side).decisions(checked), STRATEGY.exits(checked)
    stops = found.stop_anchor - found.side * exits.stop_multiple * found.stop_unit
    return sorted(zip(found.bar.tolist(), found.side.tolist(), stops.tolist(), strict=True))


def find_with_reference(candles: Candles, parameters: Mapping[str, float], side: Side) -> Found:
    reference = Sweeps(plain_candles(candles.filled_forward()), candles.timeframe.minutes)
    return sorted((order.bar, order.side, order.stop_price) for order in reference.orders(parameters, side))


@pytest.fixture(params=[find_with_engine, find_with_reference], ids=["engine", "reference"])
def find(request: pytest.FixtureRequest) -> Find:
    return request.param


# By hand. Every true range is 1, so that the ATR before the sweep is 1 to the bit and stops count within 0.25.

QUIET: Row = (102.0, 102.5, 101.5, 102.0)
SWEEP: Row = (101.0, 102.0, 99.9, 101.9)
PARAMETERS: Final[dict[str, float]] = {
    "pierce_depth": 0.003,
    "rejection_candles": 1,
    "volume_spike_threshold": 2.0,
    "reversal_candle_size": 0.5,
    "key_level_lookback": 30,
    "stop_distance": 1.0,
    "target_multiple": 2.0,
}


def valley(low: float) -> list[Row]:
    """Go down to a swing low in steps of no more than half the range of a bar, and back up."""
    lows = (101.0, 100.5, low + 0.5, low, low + 0.5, 100.5, 101.0)
    return [(low + 0.5, low + 1.0, low, low + 0.5) for low in lows] + [QUIET]


def swept(rows: list[Row], side: Side, sweep: Row = SWEEP) -> Candles:
    """Return bars with a sweep at their end, on a burst of volume; for a short one, mirrored at 100."""
    rows = [*rows, sweep]
    if side == "short":
        rows = [(200 - open_, 200 - low, 200 - high, 200 - close) for open_, high, low, close in rows]
    return candles_of(rows, volume=[10.0] * (len(rows) - 1) + [30.0])


def market(*lows: float, side: Side, sweep: Row = SWEEP) -> Candles:
    """Return swing lows one after the other and, on the last bar, the sweep."""
    rows = [QUIET] * 24
    for low in lows:
        rows += valley(low)
    return swept(rows, side, sweep)


#: Swing lows of which the last but those above 100.2 is swept, and how many stops are near it.
LEVELS: dict[str, tuple[tuple[float, ...], int]] = {
    "the level alone": ((100.0,), 1),
    "a lower one at the limit": ((99.75, 100.0), 2),
    "a lower one just off": ((99.749, 100.0), 1),
    "a higher one at the limit, traded through since": ((100.25, 100.0), 2),
    "a higher one just off": ((100.251, 100.0), 1),
    "a live higher one": ((100.0, 100.25), 2),
    "one on each side": ((99.875, 100.125, 100.0), 3),
    "an equal one": ((100.0, 100.0), 2),
    "far ones": ((101.0, 99.0, 100.0), 1),
}


@both_sides
@pytest.mark.parametrize(("lows", "n"), LEVELS.values(), ids=LEVELS.keys())
def test_stop_density_by_hand(find: Find, lows: tuple[float, ...], n: int, side: Side) -> None:
    candles, score = market(*lows, side=side), n / (n + 1)
    bars = [(len(candles) - 1, SIGN[side])]
    for least, expected in ((0.0, bars), (score, bars), (np.nextafter(score, 1), []), (score + 0.01, [])):
        found = find(candles, PARAMETERS | {"min_stop_density_score": float(least)}, side)
        assert [row[:2] for row in found] == expected, f"score {least}"


@both_sides
def test_stops_count_within_the_lookback_alone(find: Find, side: Side) -> None:
    # Three swings, 8 bars apart, the latest 5 bars before the sweep: 5, 13 and 21 bars.
    candles = market(100.0, 100.0, 100.0, side=side)
    for lookback, n in ((5, 1), (12, 1), (13, 2), (20, 2), (21, 3), (40, 3)):
        for least, is_found in ((n / (n + 1), True), (n / (n + 1) + 0.001, False)):
            changes = {"key_level_lookback": lookback, "min_stop_density_score": least}
            found = find(candles, PARAMETERS | changes, side)
            assert bool(found) == is_found, f"lookback {lookback}, score {least}"


@both_sides
def test_a_stop_that_the_bar_before_the_sweep_confirms_counts(find: Find, side: Side) -> None:
    candles = swept([QUIET] * 24 + valley(100.0) + valley(100.0)[:-1], side)
    for least, n in ((2 / 3, 1), (0.67, 0)):
        assert len(find(candles, PARAMETERS | {"min_stop_density_score": least}, side)) == n


@both_sides
def test_no_lower_level_takes_the_place_of_one_with_too_few_stops(find: Find, side: Side) -> None:
    # Two stops rest at 99.8 and one at 100.25; both levels are pierced, and 100.25 is the one that counts.
    sweep = (101.0, 102.0, 99.76, 101.9)
    candles = market(99.8, 99.8, 100.25, sweep=sweep, side=side)
    deep, shallow = PARAMETERS | {"pierce_depth": 0.006}, PARAMETERS | {"pierce_depth": 0.004}
    assert len(find(candles, deep, side)) == 1
    assert len(find(candles, shallow | {"min_stop_density_score": 0.6}, side)) == 1
    assert find(candles, deep | {"min_stop_density_score": 0.6}, side) == []


def noisy_market(side: Side, n_before: int) -> Candles:
    """Return ``n_before`` bars with gaps between close and open, a swing low and a sweep of it on the last bar."""
    rng = np.random.default_rng(8)
    rows = []
    for _ in range(n_before - 8):
        open_, close = 102.0 + rng.choice([-0.1, 0.0, 0.1], 2)
        rows.append((open_, max(open_, close) + 0.3, min(open_, close) - 0.3, close))
    return swept(rows + valley(100.0), side)


def edge_before(frame: IndicatorFrame, bar: int) -> float:
    """Return the spread in bps of the 100 bars before ``bar``."""
    window = slice(bar - SPREAD_WINDOW, bar)
    return 1e4 * bidask.edge(frame.open[window], frame.high[window], frame.low[window], frame.close[window])


@both_sides
def test_spread_at_and_just_off_the_limit(find: Find, side: Side) -> None:
    candles = noisy_market(side, 120)
    spread = edge_before(frame_of(candles), 120)
    assert spread > 1
    for tolerance, bars in ((0.0, [120]), (spread * (1 + 1e-8), [120]), (spread * (1 - 1e-8), []), (10_000.0, [120])):
        found = find(candles, PARAMETERS | {"max_spread_tolerance": tolerance}, side)
        assert [row[0] for row in found] == bars, f"tolerance {tolerance}"


@both_sides
def test_a_spread_of_exactly_the_tolerance_is_tolerated(side: Side) -> None:
    candles = noisy_market(side, 120)
    spread = float(1e4 * spread_estimate(frame_of(candles))[119])
    assert find_with_engine(candles, PARAMETERS | {"max_spread_tolerance": spread}, side)
    assert not find_with_engine(candles, PARAMETERS | {"max_spread_tolerance": np.nextafter(spread, 0.0)}, side)


@both_sides
def test_an_unknown_spread_is_not_tolerated(find: Find, side: Side) -> None:
    for n_before, is_known in ((99, False), (100, True)):
        candles = noisy_market(side, n_before)
        assert len(find(candles, PARAMETERS, side)) == 1
        assert bool(find(candles, PARAMETERS | {"max_spread_tolerance": 10_000.0}, side)) == is_known


def test_both_filters_must_be_passed(find: Find) -> None:
    candles = noisy_market("long", 120)
    spread = edge_before(frame_of(candles), 120)
    for score, tolerance, n in ((0.5, spread + 1, 1), (0.51, spread + 1, 0), (0.5, spread - 1, 0)):
        filters = {"min_stop_density_score": score, "max_spread_tolerance": tolerance}
        assert len(find(candles, PARAMETERS | filters, "long")) == n


# The estimate itself.


def traded_market(spread: float, n_bars: int, seed: int) -> Candles:
    """Return bars of 60 trades at the bid or the ask, ``spread`` apart, around a price that walks."""
    rng = np.random.default_rng(seed)
    middle = 100 * np.exp(np.cumsum(rng.normal(0, 0.0004, (n_bars, 60))).reshape(n_bars, 60))
    price = middle * (1 + spread / 2 * rng.choice([-1, 1], middle.shape))
    rows = zip(price[:, 0], price.max(axis=1), price.min(axis=1), price[:, -1], strict=True)
    return candles_of([tuple(row) for row in rows])  # type: ignore[misc]


@pytest.mark.parametrize("spread", [0.005, 0.01, 0.02])
def test_the_estimate_finds_the_spread_that_trades_were_made_with(spread: float) -> None:
    found = spread_estimate(frame_of(traded_market(spread, 600, 4)))[SPREAD_WINDOW - 1 :]
    assert np.median(found) == pytest.approx(spread, rel=0.1)


@settings(max_examples=cases(50))
@given(candles=random_markets(min_bars=90, max_bars=130))
def test_the_estimate_is_that_of_the_100_latest_bars(candles: Candles) -> None:
    frame = frame_of(candles)
    with np.errstate(all="ignore"):
        expected = [edge_before(frame, i + 1) if i >= SPREAD_WINDOW - 1 else np.nan for i in range(len(frame))]
    for seen in (frame, frame.mirrored()):
        np.testing.assert_allclose(1e4 * spread_estimate(seen), expected, rtol=1e-7, atol=LEAST_DIFFERENCE)


@pytest.mark.parametrize("n_bars", [1, 2, 99])
def test_there_is_no_estimate_of_fewer_than_100_bars(n_bars: int) -> None:
    assert np.isnan(spread_estimate(frame_of(traded_market(0.01, n_bars, 1)))).tolist() == [True] * n_bars


def test_there_is_no_estimate_of_no_bars_or_flat_ones() -> None:
    frame = frame_of(candles_of([(100.0, 100.0, 100.0, 100.0)] * 120))
    assert np.isnan(spread_estimate(frame)).all()
    assert len(spread_estimate(IndicatorFrame.compute(candles_of([QUIET]).slice(0, 0), ()))) == 0


# Against the reference, over drawn markets and parameters.

#: Bps by which two ways to add up an estimate near 0 may differ.
LEAST_DIFFERENCE: Final = 1e-3


def lenient_parameters() -> st.SearchStrategy[dict[str, float]]:
    """Parameter sets, without filters, for which random walks are full of sweeps."""
    return st.fixed_dictionaries(
        {
            "pierce_depth": st.just(0.05) | fractions(0.005, 0.02, low=0.001, high=0.05),
            "rejection_candles": st.just(5) | st.integers(1, 6),
            "volume_spike_threshold": st.just(0.0) | fractions(0.5, 1.0, low=0.0, high=2.0),
            "reversal_candle_size": st.just(0.0) | fractions(0.25, low=0.0, high=0.5),
            "key_level_lookback": st.sampled_from([8, 20, 50, 100]),
            "stop_distance": st.just(1.0),
            "target_multiple": st.just(2.0),
        }
    )


@st.composite
def filters_of(draw: st.DrawFn, candles: Candles) -> dict[str, float]:
    """Draw both filters, often near a limit of this market; one of them may be off."""
    known = 1e4 * spread_estimate(frame_of(candles))
    known = known[known > LEAST_DIFFERENCE]
    tolerance = st.just(0.0) | st.floats(0.01, 500.0)
    if len(known):
        near = st.sampled_from(known.tolist())
        tolerance |= st.builds(lambda spread, factor: spread * factor, near, st.sampled_from([0.99, 1.01, 1.5]))
    density = fractions(0.0, 0.5, 2 / 3, 0.75, 0.8, 5 / 6, low=0.0, high=1.0)
    return {"min_stop_density_score": draw(density), "max_spread_tolerance": draw(tolerance.map(lambda x: min(x, 1e4)))}


def assert_same(found: Found, expected: Found) -> None:
    assert [row[:2] for row in found] == [row[:2] for row in expected]
    np.testing.assert_allclose([row[2] for row in found], [row[2] for row in expected], rtol=1e-9)


@settings(max_examples=cases(150))
@given(candles=random_markets(min_bars=120, max_bars=200), parameters=lenient_parameters(), data=st.data())
def test_filtered_decisions_agree_with_reference(
    candles: Candles, parameters: dict[str, float], data: st.DataObject
) -> None:
    filters, side = data.draw(filters_of(candles)), data.draw(st.sampled_from(SIDES))
    spread = 1e4 * spread_estimate(frame_of(candles))
    assume(not (np.abs(spread - filters["max_spread_tolerance"]) < LEAST_DIFFERENCE).any())
    checked = parameters | filters
    assert_same(find_with_engine(candles, checked, side), find_with_reference(candles, checked, side))


def noisy_walk(rng: np.random.Generator, n_bars: int = 260) -> Candles:
    """Return a random walk with bid-ask bounce and bursts of volume, on a tick of 0.05, with a few bars missing."""
    rows = np.zeros((n_bars, 4))
    price = 100.0
    for i in range(n_bars):
        spread = 0.05 if i % 130 < 65 else 0.3
        open_, close = price + spread * rng.choice([-1, 1]), price * np.exp(rng.normal(0, 0.004))
        rows[i] = open_, max(open_, close) + rng.exponential(0.2), min(open_, close) - rng.exponential(0.2), close
        price = close
    rows = np.round(rows / 0.05) * 0.05
    volume = 10.0 * rng.choice([1, 1, 4], n_bars)
    missing = tuple(rng.choice(n_bars, 5, replace=False).tolist())
    return candles_of([tuple(row) for row in rows.tolist()], volume=volume.tolist(), missing=missing, timeframe="5m")  # type: ignore[misc]


LENIENT: Final = {**PARAMETERS, "pierce_depth": 0.03, "rejection_candles": 5, "volume_spike_threshold": 0.5}


def test_each_filter_takes_some_decisions_and_leaves_some_on_both_sides() -> None:
    rng, met = np.random.default_rng(12), Counter[tuple[str, int]]()
    for _ in range(cases(12)):
        candles = noisy_walk(rng)
        plain = find_with_engine(candles, LENIENT, "both")
        middle = float(np.nanmedian(1e4 * spread_estimate(frame_of(candles))))
        for name, value in (("min_stop_density_score", 2 / 3), ("max_spread_tolerance", middle)):
            found = find_with_engine(candles, LENIENT | {name: value}, "both")
            assert_same(found, find_with_reference(candles, LENIENT | {name: value}, "both"))
            assert set(found) <= set(plain)
            for _, side, _ in found:
                met[f"{name} leaves", side] += 1
            for _, side, _ in set(plain) - set(found):
                met[f"{name} takes", side] += 1
    for name in FILTERS:
        for what in ("leaves", "takes"):
            for side in (1, -1):
                assert met[f"{name} {what}", side] > 5, met


# Many sets at once.


def some_sets(rng: np.random.Generator, candles: Candles, n: int) -> Iterator[dict[str, float]]:
    known = 1e4 * spread_estimate(frame_of(candles))
    for _ in range(n):
        yield LENIENT | {
            "rejection_candles": float(rng.integers(1, 6)),
            "key_level_lookback": float(rng.choice([20, 50])),
            "min_stop_density_score": float(rng.choice([0.0, 0.6, 0.7])),
            "max_spread_tolerance": float(rng.choice([0.0, *np.nanquantile(known, [0.3, 0.7])])),
        }


def columns_of(sets: list[dict[str, float]]) -> dict[str, FloatArray]:
    return {name: np.array([one[name] for one in sets]) for name in sets[0]}


def test_sets_with_other_filters_decide_together_as_each_alone() -> None:
    rng = np.random.default_rng(2)
    candles = noisy_walk(rng)
    sets = list(some_sets(rng, candles, 40))
    source = SignalSource(STRATEGY, frame_of(candles), "both")
    together = source.decision_sets(columns_of(sets))
    assert len({len(together[number]) for number in range(40)}) > 5
    for number, parameters in enumerate(sets):
        alone = SignalSource(STRATEGY, frame_of(candles), "both").decisions(parameters)
        for field in fields(Decisions):
            np.testing.assert_array_equal(getattr(together[number], field.name), getattr(alone, field.name))


def test_threads_that_ask_at_once_estimate_each_side_once(monkeypatch: pytest.MonkeyPatch) -> None:
    n_estimates = []

    def counted(frame: IndicatorFrame) -> FloatArray:
        n_estimates.append(frame.sign)
        return spread_estimate(frame)

    monkeypatch.setattr(liquidity_sweep_v3, "spread_estimate", counted)
    rng = np.random.default_rng(6)
    candles = noisy_walk(rng)
    source = SignalSource(STRATEGY, frame_of(candles), "both")
    parameters = STRATEGY.check(LENIENT)
    source.decisions(parameters)
    assert n_estimates == []
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda _: source.decisions(parameters | {"max_spread_tolerance": 30.0}), range(16)))
    assert sorted(n_estimates) == [-1, 1]
    assert len({tuple(one.bar.tolist()) for one in found}) == 1


# No look-ahead.


def in_the_past(candles: Candles, parameters: dict[str, float], t: int) -> Found:
    return [row for row in find_with_engine(candles, parameters, "both") if row[0] <= t]


def poisoned(candles: Candles, t: int, factor: float) -> Candles:
    """Return the candles with all bars after t at absurd prices and volumes."""
    scale = np.where(np.arange(len(candles)) > t, factor, 1.0)
    prices = (getattr(candles, name) * scale for name in ("open", "high", "low", "close", "volume"))
    return Candles.from_arrays(candles.timeframe, candles.open_time_ms, *prices)


@pytest.mark.parametrize("factor", [1e-4, 0.5, 1e4])
def test_filters_are_blind_to_the_future(factor: float) -> None:
    rng, n_telling = np.random.default_rng(9), 0
    candles = noisy_walk(rng)
    for filters in ({"min_stop_density_score": 0.6, "max_spread_tolerance": 60.0}, {"max_spread_tolerance": 30.0}):
        parameters = LENIENT | filters
        full = find_with_engine(candles, parameters, "both")
        bars = rng.permutation(np.unique([row[0] for row in full]))[:8]
        for t in np.unique(np.concatenate([bars, bars - 1, rng.integers(0, len(candles), 4)])).tolist():
            past = [row for row in full if row[0] <= t]
            time_ms = int(frame_of(candles).open_time_ms[t])
            cut = int(np.searchsorted(candles.open_time_ms, time_ms, side="right"))
            assert in_the_past(candles.slice(0, cut), parameters, t) == past
            assert in_the_past(poisoned(candles, cut - 1, factor), parameters, t) == past
            n_telling += 0 < len(past) < len(full)
    assert n_telling > 10


# What the filters must leave alone.


def test_filters_are_off_by_default_and_leave_the_grid_as_it_is() -> None:
    seven = {name: value for name, value in PARAMETERS.items() if name not in FILTERS}
    assert STRATEGY.check(seven) == seven | FILTERS
    assert STRATEGY.defaults == FILTERS
    assert {p.name: p.grid for p in STRATEGY.parameters if p.name in FILTERS} == dict.fromkeys(FILTERS, (0.0,))
    space = ParameterSpace(STRATEGY.parameters)
    of_seven = ParameterSpace(tuple(p for p in STRATEGY.parameters if p.name not in FILTERS))
    assert space.size == of_seven.size == 201_600
    for combination in (0, 77_777, 201_599):
        assert space.values(combination) == of_seven.values(combination) | FILTERS
        assert space.combination_of(of_seven.values(combination)) == combination
        assert space.combination_of(space.values(combination) | {"max_spread_tolerance": 5.0}) is None
    with pytest.raises(InvalidInputError, match="1 of 7 parameters are missing: pierce_depth"):
        STRATEGY.check({name: value for name, value in seven.items() if name != "pierce_depth"})


def test_a_filter_that_is_switched_on_takes_the_place_of_its_grid_alone() -> None:
    filtered = STRATEGY.with_filters({"max_spread_tolerance": 20.0})
    space = ParameterSpace(filtered.parameters)
    assert space.size == 201_600
    before = ParameterSpace(STRATEGY.parameters).values(4_711)
    assert space.values(4_711) == before | {"max_spread_tolerance": 20.0}
    assert ParameterSpace(STRATEGY.parameters).values(4_711) == before


@pytest.mark.parametrize(
    ("strategy", "filters", "message"),
    [
        (
            "LIQUIDITY_SWEEP_V3",
            {"max_spread": 5.0},
            "Unknown filter 'max_spread'.*Allowed: min_stop_density_score, max_s",
        ),
        (
            "LIQUIDITY_SWEEP_V3",
            {"pierce_depth": 0.01},
            "Unknown filter 'pierce_depth' in the filters of LIQUIDITY_SWEEP",
        ),
        ("SUPPLY_SHOCK_V3", {"max_spread_tolerance": 5.0}, "in the filters of SUPPLY_SHOCK_V3. Allowed: none"),
        ("LIQUIDITY_SWEEP_V3", {"min_stop_density_score": 1.5}, "filters: .*density.*found 1.5.*from 0.0 to 1.0"),
        ("LIQUIDITY_SWEEP_V3", {"max_spread_tolerance": float("nan")}, "filters: .*found nan.*from 0.0 to 10000.0"),
    ],
)
def test_a_wrong_filter_is_refused(strategy: str, filters: dict[str, float], message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        get_strategy(strategy).with_filters(filters)


def test_other_grids_must_be_of_parameters_that_there_are() -> None:
    with pytest.raises(InvalidInputError, match=r"Unknown parameter 'pierce'.*Did you mean 'pierce_depth'"):
        STRATEGY.with_grids({"pierce": (0.001,)})


def test_a_default_must_be_in_range() -> None:
    with pytest.raises(InvalidInputError, match=r"'a': found 2.0, expected a number from 0.0 to 1.0"):
        Parameter(name="a", unit="", meaning="", kind="signal", grid=(0.5,), minimum=0.0, maximum=1.0, default=2.0)


def test_filters_are_part_of_the_settings_of_a_training() -> None:
    training = TrainingSettings(filters={"max_spread_tolerance": 20.0})
    assert TrainingSettings.from_json_dict(training.to_json_dict()) == training
    assert training.digest() != TrainingSettings().digest()
    stored = TrainingSettings().to_json_dict()
    del stored["filters"]
    assert TrainingSettings.from_json_dict(stored) == TrainingSettings()
    with pytest.raises(InvalidInputError, match=r"filters.max_spread_tolerance: found 'small'"):
        TrainingSettings.from_json_dict({"filters": {"max_spread_tolerance": "small"}})


def test_a_training_without_filters_does_not_load_what_estimates_spreads() -> None:
    script = f"""
import sys
from tradepulse_pipeline.indicators.frame import IndicatorFrame
from tradepulse_pipeline.market.series import Market, Timeframe
from tradepulse_pipeline.market.sources.simulated import SimulatedMarketSettings, simulate
from tradepulse_pipeline.optimizers.settings import SearchSettings
from tradepulse_pipeline.strategies.registry import get_strategy
from tradepulse_pipeline.validation.training import TrainingSettings
from tradepulse_pipeline.validation.walk_forward import judge_windows, search_windows
from tradepulse_pipeline.validation.windows import WindowSettings

end_ms = {NEW_YEAR_MS} + 60 * {MS_PER_DAY}
market = simulate(Market("simulated", "BTC", "USDT"), Timeframe("1h"), {NEW_YEAR_MS}, end_ms, SimulatedMarketSettings())
for filters in ({{}}, {{"max_spread_tolerance": 20.0}}):
    training = TrainingSettings(
        filters=filters,
        side="both",
        search=SearchSettings(method="random", budget=5, minimum_trades=1),
        windows=WindowSettings(train_days=30, test_days=15, gap_days=1),
    )
    strategy = get_strategy("LIQUIDITY_SWEEP_V3").with_filters(training.filters)
    frame = IndicatorFrame.compute(market.filled_forward(), strategy.indicators)
    judge_windows(frame, strategy, training, search_windows(frame, strategy, training))
    print("bidask" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["False", "True"]
