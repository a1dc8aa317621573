from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tradepulse_pipeline.errors import InvalidInputError
from tradepulse_pipeline.validation.monte_carlo import FAN_LEVELS, resample_trades
from tradepulse_pipeline.validation.paths import follow_paths
from tradepulse_pipeline_tests.reference.statistics import equity_path, longest_under_water, max_drawdown

RETURNS = st.lists(st.integers(-120, 100).map(lambda n: n / 100), min_size=1, max_size=12)


@given(RETURNS, st.integers(0, 2**32 - 1))
def test_paths_equal_the_reference(returns, seed):
    orders = np.random.default_rng(seed).integers(0, len(returns), size=(4, 7))
    points = np.array([0, 3, 3, 7])
    found = follow_paths(np.array(returns), lambda n: orders[:n], 4, points)
    for k, order in enumerate(orders):
        equity = equity_path([returns[i] for i in order])
        assert found.final[k] == equity[-1]
        assert found.max_drawdown[k] == pytest.approx(max_drawdown(equity))
        assert found.longest_under_water[k] == longest_under_water(equity)
        assert found.lowest[k] == min(equity)
        assert found.seen[k].tolist() == [equity[point] for point in points]


def test_draws_with_replacement_come_close_to_all_possible_paths():
    returns = np.array([-0.5, 0.2, 0.3, -0.1])
    paths = [equity_path(order) for order in itertools.product(returns, repeat=4)]
    found = resample_trades(returns, initial_capital=1_000, seed=1, n_paths=20_000, ruin_share=0.4)
    assert found.net_profit.mean() == pytest.approx(1_000 * (np.mean([p[-1] for p in paths]) - 1), abs=10)
    assert found.max_drawdown.mean() == pytest.approx(np.mean([max_drawdown(p) for p in paths]), abs=0.01)
    assert found.longest_under_water.mean() == pytest.approx(np.mean([longest_under_water(p) for p in paths]), abs=0.04)
    assert found.probability_of_ruin == pytest.approx(np.mean([min(p) <= 0.4 for p in paths]), abs=0.015)


def test_shuffled_trades_earn_the_same_by_other_ways():
    returns = np.array([-0.5, 0.2, 0.3, -0.1])
    found = resample_trades(returns, initial_capital=1_000, seed=1, with_replacement=False, n_paths=5_000)
    np.testing.assert_allclose(found.net_profit, 1_000 * (math.prod(1 + returns) - 1))
    possible = [max_drawdown(equity_path(order)) for order in itertools.permutations(returns)]
    assert found.max_drawdown.mean() == pytest.approx(np.mean(possible), abs=0.01)
    assert (found.max_drawdown.min(), found.max_drawdown.max()) == pytest.approx((min(possible), max(possible)))


def test_the_fan_holds_the_quantiles_of_equity():
    returns = np.random.default_rng(2).normal(0.002, 0.02, size=300)
    found = resample_trades(returns, initial_capital=1_000, seed=3)
    assert (found.fan_trades[0], found.fan_trades[-1], len(found.fan_trades)) == (0, 300, 201)
    assert (found.fan_equity[:, 0] == 1_000).all()
    assert (np.diff(found.fan_equity, axis=0) >= 0).all()
    np.testing.assert_allclose(found.fan_equity[:, -1], 1_000 + np.quantile(found.net_profit, FAN_LEVELS))


def test_the_same_seed_gives_the_same_paths():
    returns = np.random.default_rng(2).normal(0.002, 0.02, size=30)
    first, again, other = (resample_trades(returns, initial_capital=1.0, seed=seed).net_profit for seed in (1, 1, 2))
    assert (first == again).all()
    assert not (first == other).all()


def test_no_trades_and_wrong_input():
    assert resample_trades(np.array([]), initial_capital=1_000, seed=1) is None
    with pytest.raises(InvalidInputError, match="found 1 returns that are not finite"):
        resample_trades(np.array([0.1, np.nan]), initial_capital=1_000, seed=1)
