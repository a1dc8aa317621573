from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from tradepulse_pipeline.errors import InvalidInputError
from tradepulse_pipeline.validation.value_at_risk import backtest_value_at_risk, kupiec_test, value_at_risk


def test_published_example():
    test = kupiec_test(20, 252, confidence=0.95)
    assert test.likelihood_ratio == pytest.approx(3.91, abs=5e-3)
    assert test.p_value < 0.05


@given(st.integers(1, 400), st.data(), st.sampled_from([0.9, 0.95, 0.99]))
def test_statistic_equals_the_ratio_of_binomial_likelihoods(n_days, data, confidence):
    n_exceptions = data.draw(st.integers(0, n_days))
    test = kupiec_test(n_exceptions, n_days, confidence=confidence)
    observed = stats.binom.logpmf(n_exceptions, n_days, n_exceptions / n_days)
    predicted = stats.binom.logpmf(n_exceptions, n_days, 1 - confidence)
    assert test.likelihood_ratio == pytest.approx(2 * (observed - predicted), rel=1e-6, abs=1e-6)
    assert test.p_value == pytest.approx(math.erfc(math.sqrt(test.likelihood_ratio / 2)), abs=1e-9)


def test_what_is_predicted_is_never_rejected_and_nothing_is_undefined():
    assert kupiec_test(5, 100, confidence=0.95) == pytest.approx((0.0, 1.0), abs=1e-6)
    assert kupiec_test(0, 0, confidence=0.95) is None
    with pytest.raises(InvalidInputError, match="found 3 exceptions in 2 days"):
        kupiec_test(3, 2, confidence=0.95)


def test_value_at_risk_is_the_loss_of_one_day_in_twenty_and_the_shortfall_the_mean_beyond():
    losses = np.random.default_rng(0).permutation(np.arange(1.0, 101.0)) / 1_000
    found = value_at_risk(-losses)
    # 5.05th worst of 100; the five worst lose 9.6 to 10 %.
    assert found.value_at_risk == pytest.approx(0.096 - 0.05 * 0.001)
    assert found.expected_shortfall == pytest.approx(0.098)


def test_value_at_risk_of_normal_returns_is_that_of_the_formula():
    found = value_at_risk(np.random.default_rng(1).normal(0.001, 0.02, 200_000))
    quantile = stats.norm.ppf(0.05)
    assert found.value_at_risk == pytest.approx(-(0.001 + 0.02 * quantile), rel=0.02)
    assert found.expected_shortfall == pytest.approx(0.02 * stats.norm.pdf(quantile) / 0.05 - 0.001, rel=0.02)


def test_few_losing_days_have_no_value_at_risk_but_a_shortfall():
    returns = np.zeros(100)
    returns[[7, 40]] = -0.05
    found = value_at_risk(returns)
    assert found.value_at_risk == 0.0
    assert found.expected_shortfall == pytest.approx(2 * 0.05 / 100 / 0.05)
    assert backtest_value_at_risk(np.tile(returns, 5)) is None


def test_a_gain_is_no_risk_and_too_little_says_nothing():
    found = value_at_risk(np.linspace(0.01, 0.02, 80))
    assert (found.value_at_risk, found.expected_shortfall) == (0.0, 0.0)
    noise = np.random.default_rng(2).normal(size=160)
    assert value_at_risk(noise[:59]) is None
    assert value_at_risk(np.zeros(200)) is None
    assert backtest_value_at_risk(noise[:159]) is None
    assert backtest_value_at_risk(noise[:10]) is None
    assert backtest_value_at_risk(noise).n_days == 100


def test_each_day_is_predicted_from_the_days_before_it_alone():
    returns = 0.01 * np.random.default_rng(3).standard_t(4, 400)
    found = backtest_value_at_risk(returns)
    assert (found.n_days, found.expected_exceptions) == (340, pytest.approx(17.0))
    n_exceptions = 0
    for day in range(60, 400):
        place = 0.05 * (day + 1)
        low, high = np.sort(returns[:day])[int(place) - 1 : int(place) + 1]
        n_exceptions += returns[day] < low + (place - int(place)) * (high - low)
    assert found.n_exceptions == n_exceptions
    assert found.test == kupiec_test(n_exceptions, 340, confidence=0.95)
    assert backtest_value_at_risk(np.append(returns, -9.0)).n_exceptions == n_exceptions + 1


def test_what_stays_as_it_was_is_rejected_as_often_as_said_and_what_grows_is_found():
    rng = np.random.default_rng(4)
    found = [backtest_value_at_risk(rng.standard_t(4, 260)) for _ in range(200)]
    rejected = sum(one.test.p_value < 0.05 for one in found)
    assert 2 <= rejected <= 20  # 10 expected
    assert np.mean([one.n_exceptions for one in found]) == pytest.approx(10.0, abs=0.8)
    grown = backtest_value_at_risk(np.concatenate([rng.standard_t(4, 150), 3 * rng.standard_t(4, 150)]))
    assert grown.n_exceptions > 2 * grown.expected_exceptions
    assert grown.test.p_value < 0.001
