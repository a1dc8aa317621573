from __future__ import annotations

import math
from statistics import NormalDist, mean, stdev

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import ndtr

from tradepulse_pipeline.validation.significance import is_overfit, p_value, walk_forward_efficiency, z_score

RETURNS = st.lists(st.integers(-1_000, 1_000).map(lambda n: n / 10_000), min_size=2, max_size=40)


@given(RETURNS)
def test_z_score_equals_the_textbook_formula(returns):
    z = z_score(np.array(returns))
    if len(set(returns)) == 1:
        assert z is None
    else:
        assert z == pytest.approx(mean(returns) * math.sqrt(len(returns)) / stdev(returns), rel=1e-9, abs=1e-12)


def test_z_score_is_undefined_for_one_trade_and_for_equal_returns():
    assert z_score(np.array([])) is None
    assert z_score(np.array([0.01])) is None
    assert z_score(np.full(7, 1e-4)) is None  # whose standard deviation is 1e-20, not 0


@given(st.floats(-6, 6))
def test_p_value_is_the_upper_tail_of_the_normal_distribution(z):
    assert p_value(z) == pytest.approx(1 - NormalDist().cdf(z), abs=1e-12)


def test_p_value_far_out_in_the_tail():
    assert p_value(10.0) == pytest.approx(float(ndtr(-10.0)), rel=1e-9)
    assert 0 < p_value(10.0) < 1e-20
    assert p_value(None) is None


@pytest.mark.parametrize(
    ("in_sample", "out_of_sample", "expected"),
    [
        ([2.0], [1.0], False),
        ([2.0], [0.99], True),
        ([1.0, 3.0], [2.5, -0.4], False),
        ([1.0, 3.0], [2.5, -0.6], True),
        ([-1.0], [-0.4], False),
        ([], [], None),
    ],
)
def test_overfit_means_less_than_half_of_the_in_sample_sharpe(in_sample, out_of_sample, expected):
    assert is_overfit(in_sample, out_of_sample) is expected


@pytest.mark.parametrize(
    ("in_sample", "out_of_sample", "expected"),
    [(0.5, 0.25, 0.5), (0.5, -0.1, -0.2), (0.0, 0.1, None), (-0.2, 0.1, None), (None, 0.1, None)],
)
def test_walk_forward_efficiency(in_sample, out_of_sample, expected):
    assert walk_forward_efficiency(in_sample, out_of_sample) == expected
