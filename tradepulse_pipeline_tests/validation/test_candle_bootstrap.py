"""Candles drawn anew: valid, made of the real ones, clustered where they should be, without drift when reflected."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tradepulse_pipeline.backtest.api import backtest_strategy
from tradepulse_pipeline.errors import InvalidInputError
from tradepulse_pipeline.indicators.catalogue import ALL_INDICATORS
from tradepulse_pipeline.indicators.frame import IndicatorFrame
from tradepulse_pipeline.market.candles import PRICE_COLUMNS, Candles, FloatArray, broken_rules
from tradepulse_pipeline.optimizers.deadline import Deadline
from tradepulse_pipeline.strategies.registry import get_strategy
from tradepulse_pipeline.strategies.space import ParameterSpace
from tradepulse_pipeline.validation.candle_bootstrap import (
    bootstrapped_candles,
    candle_monte_carlo,
    permuted_candles,
)
from tradepulse_pipeline.validation.monte_carlo import FAN_LEVELS
from tradepulse_pipeline_tests.reference.markets import candles_of, cases, random_markets


def clustered(n: int = 4_800, seed: int = 0, drift: float = 0.0) -> Candles:
    """Hourly candles with quiet and wild stretches of four days."""
    rng = np.random.default_rng(seed)
    width = 0.001 * np.repeat(rng.choice([1.0, 8.0], n // 96 + 1), 96)[:n]
    close = 100 * np.exp(np.cumsum(drift + width * rng.standard_normal(n)))
    open_ = np.append(100.0, close[:-1]) * np.exp(0.1 * width * rng.standard_normal(n))
    open_[0] = 100.0
    high, low = np.maximum(open_, close) * (1 + width * rng.random(n)), np.minimum(open_, close) * (1 - width)
    return candles_of(list(zip(open_, high, low, close, strict=True)), volume=(1e6 * width * rng.random(n)).tolist())


def shapes(candles: Candles, start: float = 100.0) -> list[tuple[float, ...]]:
    """Each candle as open, high, low and close over the close before, and volume; rounded, to be found again."""
    before = [start, *candles.close[:-1].tolist()]
    rows = zip(*(getattr(candles, name).tolist() for name in PRICE_COLUMNS), before, strict=True)
    return [(*(round(price / previous, 9) for price in prices), volume) for *prices, volume, previous in rows]


@settings(max_examples=cases(100))
@given(candles=random_markets(min_bars=4), data=st.data(), seed=st.integers(0, 2**32))
def test_what_comes_out_is_candles(candles: Candles, data: st.DataObject, seed: int) -> None:
    candles, rng = candles.filled_forward(), np.random.default_rng(seed)
    block = data.draw(st.integers(1, len(candles)))
    every = data.draw(st.none() | st.integers(1, len(candles)))
    drawn = bootstrapped_candles(candles, block, rng)
    permuted = permuted_candles(candles, block, rng, reflect_every=every)
    for made in (drawn, permuted):
        assert all(len(rows) == 0 for rows in broken_rules(made).values())
        np.testing.assert_array_equal(made.open_time_ms, candles.open_time_ms)
        if made is drawn or every is None:
            assert_made_of(made, candles)
    assert sorted(permuted.volume) == sorted(candles.volume)
    assert sorted(permuted.is_filled) == sorted(candles.is_filled)


def assert_made_of(made: Candles, candles: Candles) -> None:
    """Each candle is one of the real ones, flag included, up to rounding."""
    start = float(candles.open[0])
    found, known = (np.column_stack([shapes(one, start), one.is_filled]) for one in (made, candles))
    differences = np.abs(found[:, None, :] / np.where(known == 0, 1, known) - (known != 0)).max(axis=2)
    assert differences.min(axis=1).max() < 1e-8


def test_one_block_is_the_market_itself() -> None:
    candles = clustered(480)
    made = permuted_candles(candles, 480, np.random.default_rng(1))
    for name in PRICE_COLUMNS:
        np.testing.assert_allclose(getattr(made, name), getattr(candles, name), rtol=1e-12)


def test_blocks_are_permuted_whole_and_the_rest_stays_in_place() -> None:
    candles = clustered(500)
    known = shapes(candles)
    made = shapes(permuted_candles(candles, 24, np.random.default_rng(2)))
    starts = [known.index(shape) for shape in made[:480:24]]
    assert sorted(starts) == list(range(0, 480, 24)) != starts
    for at, start in zip(range(0, 480, 24), starts, strict=True):
        assert made[at : at + 24] == known[start : start + 24]
    assert made[480:] == known[480:]


def test_bootstrapped_blocks_have_the_mean_length() -> None:
    candles = clustered(4_800)
    place = {shape: at for at, shape in enumerate(shapes(candles))}
    at = np.array([place[shape] for shape in shapes(bootstrapped_candles(candles, 24, np.random.default_rng(3)))])
    breaks = np.count_nonzero(np.diff(at) % 4_800 != 1)
    # A break after each bar with chance 1/24 (less 1 in 4,800 that goes on by luck): four standard errors.
    assert abs(breaks / 4_799 - 1 / 24) < 4 * (1 / 24 * 23 / 24 / 4_799) ** 0.5


def persistence(candles: Candles, lag: int) -> float:
    moves = np.abs(np.diff(np.log(candles.close)))
    return float(np.corrcoef(moves[lag:], moves[:-lag])[0, 1])


def test_volatility_clusters_within_blocks_alone() -> None:
    candles = clustered()
    for seed in range(3):
        rng = np.random.default_rng(seed)
        for made in (
            bootstrapped_candles(candles, 96, rng),
            permuted_candles(candles, 96, rng),
            permuted_candles(candles, 96, rng, reflect_every=1),
        ):
            assert persistence(made, 1) > 0.8 * persistence(candles, 1) > 0.2
        for made in (bootstrapped_candles(candles, 1, rng), permuted_candles(candles, 1, rng)):
            assert abs(persistence(made, 1)) < 0.07


def reflected_shape(shape: tuple[float, ...]) -> tuple[float, ...]:
    open_, high, low, close, volume = shape
    return 1 / open_, 1 / low, 1 / high, 1 / close, volume


@pytest.mark.parametrize("every", [1, 5, 24])
def test_stretches_are_turned_upside_down_as_a_whole(every: int) -> None:
    candles = clustered(484)
    plain = shapes(permuted_candles(candles, 24, np.random.default_rng(5)))
    made = shapes(permuted_candles(candles, 24, np.random.default_rng(5), reflect_every=every))
    turned = 0
    for first in range(0, 484, every):
        here, before = np.array(made[first : first + every]), plain[first : first + every]
        upside_down = np.array([reflected_shape(shape) for shape in before])
        is_turned = np.allclose(here, upside_down, rtol=1e-7)
        assert is_turned or np.allclose(here, np.array(before), rtol=1e-7)
        turned += is_turned
    n = len(range(0, 484, every))
    assert abs(turned / n - 0.5) < 4 * 0.5 / n**0.5


def growth_of(candles: Candles, every: int, seeds: range) -> FloatArray:
    """Factors by which price grows over each stretch of ``every`` bars, shape (n_seeds, n_stretches)."""
    factors = []
    for seed in seeds:
        made = permuted_candles(candles, len(candles), np.random.default_rng(seed), reflect_every=every)
        ends = made.close[every - 1 :: every]
        factors.append(ends / np.append(candles.open[0], ends[:-1]))
    return np.array(factors)


@pytest.mark.parametrize("every", [1, 24])
def test_reflection_takes_the_drift_exactly(every: int) -> None:
    """Price, not its logarithm, is a martingale: each stretch grows by 1 in the mean, though the market rose tenfold.

    Stretches that double or halve make the difference between the two plain: a fair coin would leave them 25 % each.
    """
    candles = clustered(96, drift=np.log(2) / every)
    found = growth_of(candles, every, range(4_000))
    error = found.std(axis=0, ddof=1) / len(found) ** 0.5
    assert np.abs((found.mean(axis=0) - 1) / error).max() < 4.5  # 96 means
    assert found.mean() == pytest.approx(1.0, abs=4 * found.std() / found.size**0.5)
    assert np.log(found).mean() < -0.05


def test_reflected_bars_hold_no_pattern() -> None:
    """Two of three up bars are followed by another, also when days are permuted; not when bars are reflected."""
    n = 2_400
    moves = np.tile([0.01, 0.01, 0.01, -0.028], n // 4)
    close = 100 * np.cumprod(1 + moves)
    open_ = np.append(100.0, close[:-1])
    candles = candles_of(list(zip(open_, np.maximum(open_, close), np.minimum(open_, close), close, strict=True)))

    def continuation(made: Candles) -> float:
        up = np.append(made.open[0], made.close[:-1]) < made.close
        return float(up[1:][up[:-1]].mean())

    assert continuation(candles) == pytest.approx(2 / 3, abs=0.01)
    assert continuation(permuted_candles(candles, 24, np.random.default_rng(1))) == pytest.approx(2 / 3, abs=0.01)
    reflected = permuted_candles(candles, 24, np.random.default_rng(1), reflect_every=1)
    assert continuation(reflected) == pytest.approx(0.5, abs=0.05)


STRATEGY = get_strategy("CAPITULATION_REVERSAL_V3")


def longest_under(days: FloatArray) -> int:
    """Most days in a row that end below the highest equity before."""
    runs = "".join("u" if equity < days[:k].max() else " " for k, equity in enumerate(days) if k).split()
    return max(map(len, runs), default=0)


def test_monte_carlo_runs_the_combination_over_each_series() -> None:
    candles = clustered(4_800, seed=2)
    space = ParameterSpace(STRATEGY.parameters)
    options = {"mean_block": 200, "seed": 4, "side": "both"}
    found = candle_monte_carlo(candles, STRATEGY, 5, n_series=6, **options)
    assert len(found) == 6
    assert (found.n_trades > 0).all()
    assert len(set(found.net_profit.tolist())) == 6
    paths = []
    for k, draw in enumerate(np.random.SeedSequence(4).spawn(6)):
        drawn = bootstrapped_candles(candles, 200, np.random.default_rng(draw))
        frame = IndicatorFrame.compute(drawn, ALL_INDICATORS)
        run = backtest_strategy(frame, STRATEGY, space.values(5), side="both")
        single = run.metrics
        assert (found.net_profit[k], found.max_drawdown[k], found.n_trades[k]) == (
            single.net_profit, single.max_drawdown, single.sample_size,
        )  # fmt: skip
        days = np.append(10_000.0, run.equity[23::24])
        assert found.lowest_equity[k] == pytest.approx(days.min())
        assert found.longest_under_water[k] == longest_under(days)
        paths.append(days)
    assert found.fan_days.tolist() == np.linspace(0, 200, 201).tolist()
    np.testing.assert_allclose(found.fan_equity, np.quantile(paths, FAN_LEVELS, axis=0))
    own = backtest_strategy(IndicatorFrame.compute(candles, ALL_INDICATORS), STRATEGY, space.values(5), side="both")
    np.testing.assert_allclose(found.own_equity, np.append(10_000.0, own.equity[23::24]))
    for n_series, workers in ((6, 3), (2, 1)):
        again = candle_monte_carlo(candles, STRATEGY, 5, n_series=n_series, workers=workers, **options)
        np.testing.assert_array_equal(again.net_profit, found.net_profit[:n_series])


def test_monte_carlo_stops_when_the_time_is_over() -> None:
    looks = iter([0.0, 0.0, 9.0])
    deadline = Deadline(at=5.0, clock=lambda: next(looks))
    found = candle_monte_carlo(
        clustered(960), STRATEGY, 5, mean_block=96, n_series=100, seed=1, workers=2, deadline=deadline
    )
    assert len(found) == 16
    passed = Deadline(at=0.0, clock=lambda: 1.0)
    none = candle_monte_carlo(clustered(960), STRATEGY, 5, mean_block=96, n_series=9, seed=1, deadline=passed)
    assert len(none) == len(none.max_drawdown) == len(none.n_trades) == 0
    assert np.isnan(none.fan_equity).all()


@pytest.mark.parametrize("block", [0, 61])
def test_blocks_longer_than_the_series_are_refused(block: int) -> None:
    candles, rng = clustered(60), np.random.default_rng(0)
    with pytest.raises(InvalidInputError, match=rf"mean_block: found {block}, expected 1 to 60 bars"):
        bootstrapped_candles(candles, block, rng)
    with pytest.raises(InvalidInputError, match=rf"block: found {block}, expected 1 to 60 bars"):
        permuted_candles(candles, block, rng)
    with pytest.raises(InvalidInputError, match=rf"reflect_every: found {block}, expected 1 to 60 bars"):
        permuted_candles(candles, 6, rng, reflect_every=block)


def test_flags_of_filled_candles_move_with_them() -> None:
    candles = replace(clustered(240), is_filled=np.arange(240) % 24 == 3)
    made = permuted_candles(candles, 5, np.random.default_rng(7))
    known = dict(zip(shapes(candles), candles.is_filled.tolist(), strict=True))
    assert [known[shape] for shape in shapes(made)] == made.is_filled.tolist()
