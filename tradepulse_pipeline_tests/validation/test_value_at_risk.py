from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from tradepulse_pipeline.errors import InvalidInputError
from tradepulse_pipeline.validation.value_at_risk import kupiec_test


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
