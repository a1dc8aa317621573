from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import bootstrap

from tradepulse_pipeline.configurations.sizing import kelly_fraction, mean_lower_bound


def returns_of(mean, n=200):
    return np.random.default_rng(7).normal(mean, 0.01, n)


def test_the_lower_bound_agrees_with_another_bootstrap():
    values = np.random.default_rng(3).exponential(1.0, 150) - 0.5
    other = bootstrap(
        (values,), np.mean, confidence_level=0.9, method="percentile", rng=np.random.default_rng(1)
    ).confidence_interval.low
    assert mean_lower_bound(values, seed=0) == pytest.approx(other, abs=0.01)
    assert mean_lower_bound(values, seed=0) < values.mean()


def test_kelly_is_a_quarter_of_bound_over_variance():
    values = returns_of(0.004)
    expected = 0.25 * mean_lower_bound(values, seed=5) / np.var(values, ddof=1)
    assert expected > 0
    assert kelly_fraction(values, "VALIDATION", seed=5) == pytest.approx(expected)
    assert kelly_fraction(values, "MATURE", seed=5) == kelly_fraction(values, "VALIDATION", seed=5)


@pytest.mark.parametrize("stage", ["PAPER", "DISCOVERY", "DECAY"])
def test_nothing_is_sized_outside_validation_and_mature(stage):
    assert kelly_fraction(returns_of(0.004), stage, seed=0) == 0.0


@pytest.mark.parametrize(
    "values", [returns_of(0.0), returns_of(-0.01), np.array([]), np.array([0.1]), np.full(9, 1e-4)]
)
def test_kelly_is_zero_where_the_bound_is_not_above_zero_or_undefined(values):
    assert kelly_fraction(values, "MATURE", seed=0) == 0.0
