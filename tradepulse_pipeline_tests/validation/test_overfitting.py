from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from tradepulse_pipeline.errors import InvalidInputError
from tradepulse_pipeline.validation.overfitting import _count_lower, _find_best, backtest_overfitting
from tradepulse_pipeline_tests.reference.statistics import overfitting_logits


def blocks(returns, n_blocks=16):
    days = np.array_split(returns, n_blocks)
    return np.column_stack([day.sum(axis=0) for day in days]), np.column_stack([(day**2).sum(axis=0) for day in days])


def small_sums(lowest):
    # Whole numbers, so that sums in any order are the same and ties are ties.
    shapes = st.tuples(st.integers(2, 9), st.sampled_from([2, 4, 6]))
    return shapes.flatmap(lambda shape: arrays(np.float64, shape, elements=st.integers(lowest, 4).map(float)))


@given(small_sums(-4), st.integers(1, 3))
def test_logits_of_mean_returns_equal_the_reference(sums, workers):
    result = backtest_overfitting(sums, workers=workers)
    n_traded = np.count_nonzero(sums.any(axis=1))
    if n_traded < 2:
        assert result is None
        return
    expected = overfitting_logits(sums.tolist(), None)
    assert result.n_trials == n_traded
    np.testing.assert_allclose(np.sort(result.logits), np.sort(expected), atol=1e-12)
    assert result.probability == pytest.approx(np.mean(np.array(expected) <= 0))


@settings(max_examples=30)
@given(st.integers(0, 2**32 - 1), st.sampled_from([2, 4, 8]), st.integers(2, 300))
def test_logits_of_sharpe_ratios_equal_the_reference(seed, n_blocks, n_trials):
    returns = np.random.default_rng(seed).standard_normal((5 * n_blocks, n_trials))
    sums, squares = blocks(returns, n_blocks)
    sums[0, 0] = squares[0, 0] = 0  # a trial that did not trade in one of the blocks
    result = backtest_overfitting(sums, squares, workers=2)
    expected = overfitting_logits(sums.tolist(), squares.tolist())
    np.testing.assert_allclose(np.sort(result.logits), np.sort(expected), atol=1e-12)


def test_order_of_trials_number_of_workers_and_scale_change_nothing():
    generator = np.random.default_rng(3)
    sums = np.repeat(generator.integers(-3, 4, size=(400, 8)).astype(float), 2, axis=0)  # full of ties
    first = backtest_overfitting(sums)
    for other in (
        backtest_overfitting(generator.permutation(sums), workers=3),
        backtest_overfitting(sums * 0.25),
        backtest_overfitting(np.concatenate([sums, np.zeros((5, 8))])),
    ):
        np.testing.assert_array_equal(other.logits, first.logits)
        assert other.probability_of_loss == first.probability_of_loss
        assert other.degradation_slope == pytest.approx(first.degradation_slope)


def test_noise_is_near_one_half_in_the_mean():
    probabilities = [
        backtest_overfitting(*blocks(np.random.default_rng(seed).standard_normal((365, 100)))).probability
        for seed in range(80)
    ]
    assert np.mean(probabilities) == pytest.approx(0.5, abs=4 * np.std(probabilities) / np.sqrt(80))


@pytest.mark.parametrize(("sharpe", "expected"), [(1, 0.69), (2, 0.08), (3, 0.001)])
def test_one_true_strategy_among_100_as_published(sharpe, expected):
    """Bailey et al. (2015): 1,000 days of 250 a year; each trial has a Sharpe ratio of exactly 0, one has more."""
    probabilities = []
    for seed in range(20):
        returns = np.random.default_rng(seed).standard_normal((1_000, 100))
        returns = (returns - returns.mean(axis=0)) / returns.std(axis=0, ddof=1)
        returns[:, 0] += sharpe / np.sqrt(250)
        probabilities.append(backtest_overfitting(*blocks(returns)).probability)
    assert np.mean(probabilities) == pytest.approx(expected, abs=0.025)


def test_a_trial_that_is_best_everywhere_is_not_overfit_and_one_that_alternates_is():
    steady = np.ones((5, 4)) * np.arange(1, 6)[:, None]
    result = backtest_overfitting(steady)
    assert (result.probability, result.probability_of_loss, result.degradation_slope) == (0, 0, None)
    reversing = np.kron(np.eye(4), np.ones((1, 1))) * 8 - 2 * np.ones((4, 4)) + np.diag([0.1, 0.2, 0.3, 0.4])
    result = backtest_overfitting(reversing)
    assert (result.probability, result.probability_of_loss) == (1, 1)


def test_columns_in_memory_give_the_same_without_another_compilation():
    sums = np.random.default_rng(4).standard_normal((50, 8))
    np.testing.assert_array_equal(
        backtest_overfitting(np.asfortranarray(sums)).logits, backtest_overfitting(sums).logits
    )
    assert len(_find_best.signatures) == len(_count_lower.signatures) == 1


def test_too_few_trials_and_wrong_shapes():
    assert backtest_overfitting(np.zeros((0, 16))) is None
    assert backtest_overfitting(np.concatenate([np.zeros((3, 16)), np.ones((1, 16))])) is None
    with pytest.raises(InvalidInputError, match=r"even number of blocks from 2 to 20, found shape \(3, 5\)"):
        backtest_overfitting(np.ones((3, 5)))
    with pytest.raises(InvalidInputError, match=r"\(3, 4\), found \(3, 2\)"):
        backtest_overfitting(np.ones((3, 4)), np.ones((3, 2)))
    with pytest.raises(InvalidInputError, match="finite"):
        backtest_overfitting(np.full((3, 4), np.nan))
