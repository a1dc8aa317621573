from __future__ import annotations

import numpy as np
import pytest

from tradepulse_pipeline.errors import InvalidInputError
from tradepulse_pipeline.validation.sharpe import expected_maximum
from tradepulse_pipeline.validation.trial_luck import luck_of_trials

N_DAYS = 368


def blocks(returns):
    parts = returns.reshape(16, -1, returns.shape[1])
    return parts.sum(axis=1), (parts**2).sum(axis=1)


def estimated(returns):
    sums, squares = blocks(returns)
    return luck_of_trials(sums.T.copy(), squares.T.copy()).effective_trials


def searches(kind, generator):
    """Returns of the trials of one search, (n_days, n_trials)."""
    own = generator.standard_normal((N_DAYS, 1_000))
    if kind == "independent":
        return own
    if kind == "one market":
        return np.sqrt(0.5) * generator.standard_normal((N_DAYS, 1)) + np.sqrt(0.5) * own
    if kind == "copies":
        return np.repeat(own[:, :20], 50, axis=1)
    return np.sqrt(0.8) * np.repeat(own[:, :20], 50, axis=1) + np.sqrt(0.2) * generator.standard_normal(own.shape)


@pytest.mark.parametrize("kind", ["independent", "one market", "copies", "clusters"])
def test_the_luck_of_as_many_independent_trials_is_that_of_the_search(kind):
    """The expected maximum and the spread of Sharpe ratios, measured in searches without skill, agree."""
    generator = np.random.default_rng(5)
    returns = [searches(kind, generator) for _ in range(30)]
    ratios = np.array([r.mean(axis=0) / r.std(axis=0) for r in returns])
    spread = np.sqrt(np.mean(ratios.var(axis=1, ddof=1)))
    measured = np.mean(ratios.max(axis=1) - ratios.min(axis=1)) / 2
    n = np.array([estimated(r) for r in returns[:5]])
    assert np.mean([spread * expected_maximum(k) for k in n]) == pytest.approx(measured, rel=0.06)


def test_independent_trials_count_each_and_copies_once():
    generator = np.random.default_rng(6)
    noise = generator.standard_normal((N_DAYS, 3_000))
    assert estimated(noise) == pytest.approx(3_000, rel=0.35)
    # The formula is 2 % above the exact expected maximum for few trials: 20 count as somewhat fewer.
    assert estimated(np.repeat(noise[:, :20], 100, axis=1)) == pytest.approx(20, rel=0.35)
    assert estimated(np.repeat(noise[:, :1], 100, axis=1)) == 1


def test_skill_scale_and_trials_that_never_traded_change_nothing():
    generator = np.random.default_rng(8)
    noise = generator.standard_normal((N_DAYS, 500))
    plain = estimated(noise)
    assert estimated(noise * generator.uniform(0.1, 10, size=500)) == pytest.approx(plain)
    assert estimated(np.concatenate([noise, np.zeros((N_DAYS, 7))], axis=1)) == pytest.approx(plain)
    assert estimated(noise + generator.normal(0, 0.1, size=500)) == pytest.approx(plain, rel=0.1)


def test_no_trials_and_wrong_shapes():
    assert luck_of_trials(np.zeros((3, 16)), np.zeros((3, 16))) is None
    assert luck_of_trials(np.ones((1, 16)), np.ones((1, 16))).effective_trials == 1
    with pytest.raises(InvalidInputError, match=r"found \(3, 4\)"):
        luck_of_trials(np.ones((3, 16)), np.ones((3, 4)))


@pytest.mark.parametrize("drag", [0.0, 0.05])
def test_the_spread_of_luck_is_that_of_trials_without_skill_whatever_they_differ_in_truly(drag):
    """The Sharpe ratio over n independent days spreads by the root of 1 / n; costs make trials differ beside."""
    rng = np.random.default_rng(5)
    true_means = -drag * rng.uniform(0, 1, 1_000)
    returns = rng.standard_normal((1_000, 1_600)) + true_means[:, None]
    blocks = returns.reshape(1_000, 16, 100)
    luck = luck_of_trials(blocks.sum(axis=2), (blocks**2).sum(axis=2))
    assert luck.variance == pytest.approx(1, rel=0.05)
    plain = np.var(returns.mean(axis=1) / returns.std(axis=1)) * 1_600
    assert (plain > 1.2) == (drag > 0)
