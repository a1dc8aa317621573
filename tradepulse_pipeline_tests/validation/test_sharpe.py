from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import integrate, stats

from tradepulse_pipeline.errors import InvalidInputError
from tradepulse_pipeline.validation.sharpe import (
    ReturnMoments,
    deflated_sharpe_ratio,
    expected_maximum,
    luck_ceiling,
    minimum_track_record_length,
    probabilistic_sharpe_ratio,
    sharpe_standard_error,
)

HEDGE_FUND = ReturnMoments(n=24, sharpe=0.036 / 0.079, skewness=-2.448, kurtosis=10.164)


@pytest.mark.parametrize(
    ("moments", "expected"),
    [
        (HEDGE_FUND, 0.329),
        (ReturnMoments(n=12, sharpe=0.5), 0.306),  # Lo (2002), table 1
        (ReturnMoments(n=60, sharpe=1.0), 0.158),
    ],
)
def test_standard_error_of_published_examples(moments, expected):
    assert sharpe_standard_error(moments) == pytest.approx(expected, abs=5e-4)


def test_probabilistic_sharpe_ratio_of_the_published_example():
    assert probabilistic_sharpe_ratio(HEDGE_FUND) == pytest.approx(0.913, abs=5e-4)


@pytest.mark.parametrize(("periods", "years"), [(252, 2.73), (52, 2.83), (12, 3.24)])
def test_minimum_track_record_length_of_the_published_example(periods, years):
    moments = ReturnMoments(n=periods, sharpe=2 / math.sqrt(periods))
    length = minimum_track_record_length(moments, benchmark=1 / math.sqrt(periods))
    assert length / periods == pytest.approx(years, abs=5e-3)


def test_deflated_sharpe_ratio_of_the_published_example():
    moments = ReturnMoments(n=1250, sharpe=2.5 / math.sqrt(250), skewness=-3, kurtosis=10)
    assert luck_ceiling(100, 0.5 / 250) == pytest.approx(0.1132, abs=5e-5)
    assert deflated_sharpe_ratio(moments, n_trials=100, trials_variance=0.5 / 250) == pytest.approx(0.900, abs=5e-4)


def test_expected_maximum_of_the_published_example_and_of_whole_searches():
    assert expected_maximum(10) == pytest.approx(1.5746, abs=5e-5)
    assert [round(luck_ceiling(n, 1.0), 2) for n in (24, 1_000, 201_600)] == [1.98, 3.26, 4.54]


@pytest.mark.parametrize("n", [10, 100, 1_000, 201_600])
def test_expected_maximum_is_close_to_the_integral_over_its_distribution(n):
    exact, _ = integrate.quad(
        lambda x: x * n * stats.norm.pdf(x) * stats.norm.cdf(x) ** (n - 1), -10, 10, points=[0, 4]
    )
    assert expected_maximum(n) == pytest.approx(exact, rel=0.025)
    if n == 10:
        assert exact == pytest.approx(1.5388, abs=5e-5)


def test_the_best_of_one_trial_is_no_selection():
    moments = ReturnMoments.of(np.array([0.01, -0.005, 0.02, 0.0]))
    assert expected_maximum(1) == expected_maximum(1.01) == 0
    assert deflated_sharpe_ratio(moments, n_trials=1, trials_variance=0.3) == probabilistic_sharpe_ratio(moments)
    with pytest.raises(InvalidInputError, match=r"at least 1 number, found n = 0\.5"):
        expected_maximum(0.5)


@given(st.lists(st.integers(-500, 500), min_size=3, max_size=60).filter(lambda values: len(set(values)) > 1))
def test_moments_equal_those_of_scipy(values):
    returns = np.array(values) / 10_000
    moments = ReturnMoments.of(returns)
    assert moments.sharpe == pytest.approx(returns.mean() / stats.tstd(returns), rel=1e-9, abs=1e-12)
    assert moments.skewness == pytest.approx(stats.skew(returns), rel=1e-6, abs=1e-6)
    assert moments.kurtosis == pytest.approx(stats.kurtosis(returns, fisher=False), rel=1e-6)


@given(
    st.integers(2, 2_000), st.floats(0.01, 1), st.floats(-2, 2), st.floats(0, 10), st.sampled_from([0.9, 0.95, 0.99])
)
def test_after_the_minimum_track_record_the_ratio_is_as_probable_as_asked_for(n, sharpe, skewness, excess, confidence):
    moments = {"sharpe": sharpe, "skewness": skewness, "kurtosis": 1.1 + skewness**2 + excess}
    length = minimum_track_record_length(ReturnMoments(n=n, **moments), confidence=confidence)
    if length > 3:
        longer, shorter = (ReturnMoments(n=rounded(length), **moments) for rounded in (math.ceil, math.floor))
        assert probabilistic_sharpe_ratio(shorter) <= confidence + 1e-9
        assert probabilistic_sharpe_ratio(longer) >= confidence - 1e-9


def test_standard_error_is_the_spread_of_simulated_sharpe_ratios():
    generator = np.random.default_rng(7)
    returns = generator.gamma(4.0, size=(4_000, 250)) - 3.5  # skewness 1, kurtosis 4.5
    ratios = returns.mean(axis=1) / returns.std(axis=1, ddof=1)
    predicted = sharpe_standard_error(ReturnMoments(n=250, sharpe=0.25, skewness=1.0, kurtosis=4.5))
    assert ratios.std() == pytest.approx(predicted, rel=0.05)


@pytest.mark.parametrize("returns", [[], [0.01], [1e-4] * 7])
def test_what_has_no_sharpe_ratio_has_no_probability(returns):
    moments = ReturnMoments.of(np.array(returns))
    assert moments is None
    assert probabilistic_sharpe_ratio(moments) is None
    assert minimum_track_record_length(moments) is None
    assert deflated_sharpe_ratio(moments, n_trials=10, trials_variance=1.0) is None


def test_no_track_record_is_long_enough_below_the_benchmark():
    assert minimum_track_record_length(ReturnMoments(n=100, sharpe=-0.1)) is None
    assert minimum_track_record_length(ReturnMoments(n=100, sharpe=0.1), benchmark=0.1) is None


def test_excess_kurtosis_is_refused():
    with pytest.raises(InvalidInputError, match=r"kurtosis 0\.0: kurtosis is raw"):
        ReturnMoments(n=10, sharpe=0.1, kurtosis=0.0)
    with pytest.raises(InvalidInputError, match=r"at least 2 returns, found 1"):
        ReturnMoments(n=1, sharpe=0.1)
    with pytest.raises(InvalidInputError, match="found -1"):
        luck_ceiling(10, -1.0)
