"""No strategy sees the future: neither cutting it off nor poisoning it changes a decision that was made before."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tradepulse_pipeline.indicators.catalogue import ALL_INDICATORS
from tradepulse_pipeline.indicators.frame import IndicatorFrame
from tradepulse_pipeline.market.candles import Candles
from tradepulse_pipeline.strategies.base import Parameters, SignalSource, Strategy
from tradepulse_pipeline.strategies.decisions import Decisions
from tradepulse_pipeline.strategies.space import ParameterSpace
from tradepulse_pipeline_tests.reference.markets import cases, frame_of, real_candles
from tradepulse_pipeline_tests.reference.patterns import PATTERNS, every_strategy, planted_markets, seeded_market


def decisions_of(strategy: Strategy, candles: Candles, parameters: Parameters) -> Decisions:
    source = SignalSource(strategy, IndicatorFrame.compute(candles, ALL_INDICATORS), "both")
    return source.decisions(strategy.check(parameters))


def assert_same_past(found: Decisions, full: Decisions, t: int) -> None:
    """Compare the decisions at bars up to t to the bit."""
    for field in fields(Decisions):
        past = getattr(full, field.name)[full.bar <= t]
        np.testing.assert_array_equal(
            getattr(found, field.name)[found.bar <= t], past, err_msg=f"{field.name}, t = {t}"
        )


def poisoned(candles: Candles, t: int, factor: float, volume: float) -> Candles:
    """Return the candles with all bars after t at absurd prices and volumes."""
    is_future = np.arange(len(candles)) > t
    prices = {
        name: np.where(is_future, getattr(candles, name) * factor, getattr(candles, name))
        for name in ("open", "high", "low", "close")
    }
    return replace(candles, **prices, volume=np.where(is_future, volume, candles.volume))


def assert_blind_to_the_future(
    strategy: Strategy, candles: Candles, parameters: Parameters, cuts: Iterable[int], *, factor: float, volume: float
) -> int:
    """Check every cut; return how many of them have decisions on both sides."""
    full = decisions_of(strategy, candles, parameters)
    n_telling = 0
    for t in cuts:
        assert_same_past(decisions_of(strategy, candles.slice(0, t + 1), parameters), full, t)
        assert_same_past(decisions_of(strategy, poisoned(candles, t, factor, volume), parameters), full, t)
        n_telling += bool((full.bar <= t).any() and (full.bar > t).any())
    return n_telling


@every_strategy
@settings(max_examples=cases(40))
@given(data=st.data(), factor=st.sampled_from([1e-4, 0.5, 3.0, 1e4]), volume=st.sampled_from([0.0, 1e12]))
def test_every_strategy_is_blind_to_the_future(
    strategy: Strategy, data: st.DataObject, factor: float, volume: float
) -> None:
    pattern = PATTERNS[strategy.name]
    candles, parameters = data.draw(planted_markets(pattern)).filled_forward(), data.draw(pattern.parameters)
    bars = st.integers(0, len(candles) - 1)
    cuts = data.draw(st.lists(bars, min_size=1, max_size=6, unique=True))
    assert_blind_to_the_future(strategy, candles, parameters, cuts, factor=factor, volume=volume)


def deciding_sets(strategy: Strategy, candles: Candles, rng: np.random.Generator, n: int) -> Iterator[dict[str, float]]:
    """Draw parameter sets from the grid, of those that make at least two decisions."""
    space = ParameterSpace(strategy.parameters)
    source = SignalSource(strategy, IndicatorFrame.compute(candles, strategy.indicators), "both")
    drawn = map(space.values, rng.permutation(space.size).tolist())
    return itertools.islice((values for values in drawn if len(source.decisions(values)) > 1), n)


@pytest.mark.parametrize(("factor", "volume"), [(1e-3, 1e9), (1e3, 0.0)], ids=["crash", "rally"])
@every_strategy
def test_every_strategy_is_blind_to_the_future_at_every_bar(strategy: Strategy, factor: float, volume: float) -> None:
    pattern = PATTERNS[strategy.name]
    rng = np.random.default_rng(3)
    candles = seeded_market(pattern, rng, n_plants=10).filled_forward()
    for parameters in (pattern.lenient, *deciding_sets(strategy, candles, rng, 2)):
        n_telling = assert_blind_to_the_future(
            strategy, candles, parameters, range(len(candles)), factor=factor, volume=volume
        )
        assert n_telling > 0


@pytest.mark.parametrize("series", ["binance_BTC-USDT_5m", "kraken_BTC-USDT_15m", "kraken_BTC-USDC_1m"])
@every_strategy
def test_every_strategy_is_blind_to_the_future_of_real_candles(
    market_data_dir: Path, strategy: Strategy, series: str
) -> None:
    candles = real_candles(market_data_dir, series, 20_000, 4_000).filled_forward()
    rng = np.random.default_rng(17)
    n_telling = 0
    for parameters in deciding_sets(strategy, candles, rng, cases(5)):
        full = decisions_of(strategy, candles, parameters)
        # Cuts anywhere, and on and right before decisions, where a look ahead would show.
        telling = rng.choice(full.bar, min(len(full), 6), replace=False)
        cuts = np.unique(np.concatenate([rng.integers(0, len(candles), 6), telling, np.maximum(telling - 1, 0)]))
        n_telling += assert_blind_to_the_future(
            strategy, candles, parameters, cuts.tolist(), factor=float(rng.choice([1e-3, 0.9, 1.1, 1e3])), volume=1e9
        )
    assert n_telling > 0


@settings(max_examples=cases(40))
@given(candles=st.one_of(map(planted_markets, PATTERNS.values())), data=st.data())
def test_indicators_are_blind_to_the_future(candles: Candles, data: st.DataObject) -> None:
    filled = candles.filled_forward()
    t = data.draw(st.integers(0, len(filled) - 1))
    full = frame_of(candles)
    for changed in (filled.slice(0, t + 1), poisoned(filled, t, 100.0, 1e12)):
        frame = IndicatorFrame.compute(changed, ALL_INDICATORS)
        for indicator in ALL_INDICATORS:
            past = full[indicator.name][: t + 1]
            np.testing.assert_array_equal(frame[indicator.name][: t + 1], past, err_msg=indicator.name)
