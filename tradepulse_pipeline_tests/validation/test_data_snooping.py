from __future__ import annotations

import numpy as np
import pytest

from tradepulse_pipeline.errors import InvalidInputError
from tradepulse_pipeline.validation.bootstrap import stationary_orders
from tradepulse_pipeline.validation.data_snooping import data_snooping


def noise(seed, n_candidates=10, n_days=250):
    return np.random.default_rng(seed).normal(0, 0.01, size=(n_days, n_candidates))


def test_a_true_strategy_is_found_among_others_and_named():
    returns = noise(1)
    returns[:, 3] += 0.003
    returns[:, 7] = 0.0
    found = data_snooping(returns, seed=1)
    assert found.better_than_nothing == (3,)
    assert found.superior_predictive_ability <= found.reality_check < 0.01


def test_without_skill_p_values_are_uniform():
    """And the best of ten on its own would be called significant in 40 of 100 cases."""
    found = [data_snooping(noise(seed, n_days=120), seed=seed, n_resamples=199, block_length=1) for seed in range(120)]
    p_values = np.array([f.superior_predictive_ability for f in found])
    assert np.mean(p_values <= 0.2) == pytest.approx(0.2, abs=0.1)
    assert np.mean(p_values <= 0.05) <= 0.1
    assert np.mean([bool(f.better_than_nothing) for f in found]) <= 0.1


def test_reality_check_equals_a_second_implementation():
    """White (2000): the best of the centred, resampled means against the best mean, in standard deviations."""
    returns = noise(4, n_candidates=5)
    returns[:, 2] += 0.0012
    orders = stationary_orders(250, 4_000, block_length=5, generator=np.random.default_rng(1))
    returns[:, 4] *= 5  # which would decide alone
    scaled = returns / returns.std(axis=0)
    means, centre = scaled[orders].mean(axis=1), scaled.mean(axis=0)
    expected = np.mean((means - centre).max(axis=1) >= centre.max())
    found = data_snooping(returns, seed=2, n_resamples=4_000, block_length=5)
    assert 0.05 < expected < 0.6
    assert found.reality_check == pytest.approx(expected, abs=0.03)


def test_worse_candidates_weaken_the_reality_check_more_than_the_other_test():
    returns = noise(4, n_candidates=20)
    returns[:, 0] += 0.0015
    returns[:, 1:] -= 0.005
    found = data_snooping(returns, seed=3)
    assert found.superior_predictive_ability < found.reality_check


def test_the_same_seed_gives_the_same_p_values():
    assert data_snooping(noise(5), seed=1) == data_snooping(noise(5), seed=1)
    assert data_snooping(noise(5), seed=1) != data_snooping(noise(5), seed=2)


def test_nothing_to_test_and_wrong_shapes():
    assert data_snooping(np.zeros((100, 3)), seed=1) is None
    assert data_snooping(np.full((100, 3), 1e-4), seed=1) is None
    assert data_snooping(np.array([[1.0], [2.0]]), seed=1) is None
    assert data_snooping(np.ones((10, 0)), seed=1) is None
    with pytest.raises(InvalidInputError, match=r"at most 50 candidates, found shape \(10, 51\)"):
        data_snooping(np.ones((10, 51)), seed=1)


def test_all_candidates_may_be_better_than_nothing():
    returns = np.random.default_rng(1).normal(0.01, 0.001, (200, 3))
    found = data_snooping(returns, seed=0)
    assert found.better_than_nothing == (0, 1, 2)
    assert found.superior_predictive_ability < 0.01
