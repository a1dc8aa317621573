from __future__ import annotations

import math

import numpy as np
import pytest
from arch.bootstrap import StationaryBootstrap
from arch.bootstrap import optimal_block_length as arch_block_length
from hypothesis import given
from hypothesis import strategies as st
from scipy.signal import lfilter

from tradepulse_pipeline.errors import InvalidInputError
from tradepulse_pipeline.validation.bootstrap import (
    bootstrap_intervals,
    bootstrap_p_value,
    equity_band,
    optimal_block_length,
    stationary_orders,
)
from tradepulse_pipeline.validation.significance import p_value, z_score


def independent(generator, n):
    return generator.standard_normal(n)


def autoregressive(generator, n):
    shocks = generator.standard_normal(n + 50) * math.sqrt(1 - 0.15**2)
    values = [0.0]
    for shock in shocks:
        values.append(0.15 * values[-1] + shock)
    return np.array(values[-n:])


def clustering(generator, n):
    """GARCH(1, 1) with a variance of 1."""
    values, variance = [], 1.0
    for shock in generator.standard_normal(n + 200):
        values.append(math.sqrt(variance) * shock)
        variance = 0.05 + 0.1 * values[-1] ** 2 + 0.85 * variance
    return np.array(values[-n:])


def rarely_trading(generator, n):
    """A trade on one day of five, which wins twice what it risks in two of five cases; mean 0, variance 1."""
    outcome = np.where(generator.random(n) < 0.4, 2.0, -1.0)
    return (np.where(generator.random(n) < 0.2, outcome, 0.0) - 0.04) / math.sqrt(0.44 - 0.04**2)


def slowly_changing(generator, n):
    """An edge that comes and goes over months: the variance of a year's mean is 1.3 times that of independent days."""
    edge = lfilter([math.sqrt(1 - 0.98**2)], [1, -0.98], generator.standard_normal(n + 300))[-n:]
    return math.sqrt(1 - 0.06**2) * generator.standard_normal(n) + 0.06 * edge


@pytest.mark.parametrize("process", [independent, autoregressive, clustering, rarely_trading, slowly_changing])
@pytest.mark.parametrize("sharpe", [0.0, 1.5])
def test_intervals_cover_the_true_sharpe_ratio_and_growth(process, sharpe):
    """95 % of them should; of 250 simulated records 2.8 % more or less is twice the sampling error."""
    records = [0.01 * (process(np.random.default_rng(seed), 300) + sharpe / math.sqrt(365)) for seed in range(250)]
    growth = 300 * np.log1p(np.array(records) - np.mean(records) + 0.01 * sharpe / math.sqrt(365)).mean()
    found = [
        bootstrap_intervals(returns, initial_capital=1.0, periods_per_year=365, seed=seed, n_resamples=400)
        for seed, returns in enumerate(records)
    ]
    for truth, intervals in (
        (sharpe, np.array([one.sharpe_ratio for one in found])),
        (math.expm1(growth), np.array([one.net_profit for one in found])),
    ):
        assert np.mean((intervals[:, 0] <= truth) & (truth <= intervals[:, 1])) == pytest.approx(0.95, abs=0.035)
        assert np.mean(intervals[:, 1] < truth) <= 0.06


def test_the_interval_of_the_drawdown_holds_what_fresh_histories_come_to():
    generator = np.random.default_rng(5)
    returns = generator.normal(0.001, 0.01, size=500)
    low, high = bootstrap_intervals(returns, initial_capital=1_000, periods_per_year=365, seed=1).max_drawdown
    fresh = returns.mean() + returns.std() * generator.standard_normal((4_000, 500))
    equity = np.cumprod(1 + np.column_stack([np.zeros(4_000), fresh]), axis=1)
    drawdown = (1 - equity / np.maximum.accumulate(equity, axis=1)).max(axis=1)
    assert np.mean((low <= drawdown) & (drawdown <= high)) == pytest.approx(0.95, abs=0.03)


def test_a_total_loss_has_intervals():
    returns = np.random.default_rng(1).normal(0.0, 0.1, 60)
    returns[30] = -1.0
    found = bootstrap_intervals(returns, initial_capital=10.0, periods_per_year=365, seed=1)
    assert found.net_profit.low == pytest.approx(-10.0)
    assert all(math.isfinite(end) for end in (*found.sharpe_ratio, *found.net_profit, *found.max_drawdown))


def test_resampled_means_vary_as_those_of_arch():
    returns = autoregressive(np.random.default_rng(3), 400)
    orders = stationary_orders(400, 4_000, block_length=12.0, generator=np.random.default_rng(1))
    theirs = StationaryBootstrap(12, returns, seed=2).apply(np.mean, 4_000)
    assert returns[orders].mean(axis=1).std() == pytest.approx(theirs.std(), rel=0.06)


@given(st.integers(1, 60), st.floats(1, 30), st.integers(0, 2**32 - 1))
def test_resamples_are_as_long_as_the_series_and_taken_from_it(n, block_length, seed):
    orders = stationary_orders(n, 5, block_length=block_length, generator=np.random.default_rng(seed))
    assert orders.shape == (5, n)
    assert set(orders.ravel().tolist()) <= set(range(n))


def test_blocks_have_the_length_asked_for():
    orders = stationary_orders(1_000, 200, block_length=8.0, generator=np.random.default_rng(1))
    breaks = np.mean((np.diff(orders, axis=1) - 1) % 1_000 != 0)
    assert 1 / breaks == pytest.approx(8.0, rel=0.05)
    assert np.bincount(orders.ravel(), minlength=1_000).std() < 40  # every day is drawn about as often


def test_block_length_is_that_of_arch_and_at_least_one():
    returns = autoregressive(np.random.default_rng(3), 400)
    assert optimal_block_length(returns) == pytest.approx(arch_block_length(returns)["stationary"].iloc[0])
    assert optimal_block_length(returns[:7]) == optimal_block_length(np.full(50, 1e-4)) == 1.0
    with pytest.raises(InvalidInputError, match=r"at least 1, found 0\.5"):
        stationary_orders(10, 1, block_length=0.5, generator=np.random.default_rng(1))


@pytest.mark.parametrize("mean", [-0.1, 0.0, 0.1, 0.2])
def test_p_value_of_independent_returns_is_close_to_the_normal_one(mean):
    returns = np.random.default_rng(9).standard_normal(200)
    returns += mean - returns.mean()
    assert bootstrap_p_value(returns, seed=1) == pytest.approx(p_value(z_score(returns)), abs=0.02)


def test_p_values_without_an_edge_are_uniform():
    p_values = [
        bootstrap_p_value(rarely_trading(np.random.default_rng(seed), 200), seed=seed, n_resamples=300)
        for seed in range(200)
    ]
    assert np.mean(np.array(p_values) <= 0.25) == pytest.approx(0.25, abs=0.07)
    assert np.mean(np.array(p_values) <= 0.05) <= 0.09


@pytest.mark.parametrize("returns", [[], [0.01], [1e-4] * 30])
def test_what_does_not_vary_has_no_intervals(returns):
    assert bootstrap_p_value(np.array(returns), seed=1) is None
    assert bootstrap_intervals(np.array(returns), initial_capital=1.0, periods_per_year=365, seed=1) is None


def test_the_same_seed_gives_the_same_intervals():
    returns = independent(np.random.default_rng(2), 100) / 100
    first, again, other = (
        bootstrap_intervals(returns, initial_capital=1.0, periods_per_year=365, seed=seed) for seed in (1, 1, 2)
    )
    assert first == again != other


def test_the_band_holds_the_record_and_widens():
    returns = np.random.default_rng(2).normal(0.001, 0.01, 300)
    low, high = equity_band(returns, initial_capital=1_000.0, seed=0)
    width = np.log(high / low)
    assert width[-1] > 3 * width[5]
    # Far out, independent normal returns spread by the root of their number.
    assert width[-1] == pytest.approx(2 * 1.96 * 0.01 * math.sqrt(300), rel=0.25)
    equity = 1_000 * np.cumprod(1 + returns)
    assert np.mean((equity >= low) & (equity <= high)) > 0.8
    assert (low < high).all()


def test_the_band_of_a_flat_record_is_the_record():
    low, high = equity_band(np.zeros(5), initial_capital=10.0, seed=0)
    assert low.tolist() == high.tolist() == [10.0] * 5


def test_returns_that_stand_still_for_long_have_a_block_length_and_raise_no_warning():
    returns = np.zeros(9)
    returns[0] = 0.01
    assert bootstrap_p_value(returns, seed=0) is not None
    assert math.isfinite(optimal_block_length(returns))
