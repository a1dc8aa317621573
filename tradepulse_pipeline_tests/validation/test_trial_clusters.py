from __future__ import annotations

import numpy as np
import pytest
from sklearn.cluster import AgglomerativeClustering, KMeans
from sklearn.metrics import silhouette_score

from tradepulse_pipeline.errors import InvalidInputError
from tradepulse_pipeline.validation.trial_clusters import MOST_TRIALS, clusters_of_trials


def planted(n_clusters, n_trials, *, correlation=0.9, seed=0):
    """Blocks of trials, (n_trials, 16), in clusters of uneven size that are independent of each other."""
    rng = np.random.default_rng(seed)
    of_trial = rng.choice(n_clusters, n_trials, p=rng.dirichlet(np.full(n_clusters, 3.0)))
    common = rng.standard_normal((n_clusters, 16))[of_trial]
    own = rng.standard_normal((n_trials, 16))
    return np.sqrt(correlation) * common + np.sqrt(1 - correlation) * own


@pytest.mark.parametrize("n_clusters", [2, 3, 10, 30])
def test_planted_clusters_are_counted(n_clusters):
    blocks = planted(n_clusters, 5_000, seed=n_clusters)
    found = clusters_of_trials(blocks, seed=1)
    assert found.n_clusters == pytest.approx(n_clusters, rel=0.05)
    assert found.are_clear


@pytest.mark.parametrize(("n_clusters", "correlation"), [(4, 0.9), (7, 0.75), (12, 0.6)])
def test_number_and_silhouette_are_those_of_another_implementation(n_clusters, correlation):
    blocks = planted(n_clusters, 150, correlation=correlation, seed=7)
    profiles = (blocks - blocks.mean(axis=1, keepdims=True)) / blocks.std(axis=1, keepdims=True)
    distances = np.sqrt(np.maximum(1 - np.corrcoef(blocks), 0) / 2)
    np.fill_diagonal(distances, 0)
    scores = {
        k: silhouette_score(distances, AgglomerativeClustering(k).fit_predict(profiles), metric="precomputed")
        for k in range(2, 101)
    }
    best = max(scores, key=scores.__getitem__)
    found = clusters_of_trials(blocks, seed=0)
    assert found.n_clusters == best
    assert found.silhouette == pytest.approx(scores[best], abs=1e-6)


def test_k_means_as_in_the_paper_counts_the_same():
    blocks = planted(6, 200, seed=3)
    distances = np.sqrt(np.maximum(1 - np.corrcoef(blocks), 0) / 2)
    scores = {
        k: silhouette_score(distances, KMeans(k, n_init=5, random_state=0).fit_predict(distances)) for k in range(2, 10)
    }
    assert clusters_of_trials(blocks, seed=0).n_clusters == max(scores, key=scores.__getitem__) == 6


def test_mean_scale_copies_and_trials_that_never_traded_change_nothing():
    rng = np.random.default_rng(2)
    blocks = planted(5, 600, seed=2)
    plain = clusters_of_trials(blocks, seed=0)
    other = (blocks + rng.normal(size=(600, 1))) * rng.uniform(0.1, 10, (600, 1))
    assert clusters_of_trials(other, seed=0) == pytest.approx(plain, abs=1e-6)
    padded = np.concatenate([blocks, np.zeros((50, 16)), 2 * blocks[:300]])
    assert clusters_of_trials(padded, seed=0) == pytest.approx(plain, abs=1e-6)


@pytest.mark.parametrize("common", [0.0, 0.5])
def test_independent_trials_and_those_of_one_market_fall_into_no_clusters(common):
    rng = np.random.default_rng(4)
    blocks = np.sqrt(common) * rng.standard_normal(16) + np.sqrt(1 - common) * rng.standard_normal((2_000, 16))
    assert not clusters_of_trials(blocks, seed=0).are_clear


def test_of_many_trials_some_are_drawn_by_the_seed():
    blocks = planted(8, 3 * MOST_TRIALS, correlation=0.8, seed=5)
    first, again, other = (clusters_of_trials(blocks, seed=seed) for seed in (0, 0, 1))
    assert first == again
    assert first.silhouette != other.silhouette
    assert first.n_clusters == other.n_clusters == 8


def test_too_few_that_differ_and_wrong_values():
    one, two = np.random.default_rng(6).standard_normal((2, 16))
    assert clusters_of_trials(np.zeros((9, 16)), seed=0) is None
    assert clusters_of_trials(np.stack([one, 3 * one, two]), seed=0) is None
    assert clusters_of_trials(np.empty((0, 16)), seed=0) is None
    with pytest.raises(InvalidInputError, match=r"found shape \(16,\)"):
        clusters_of_trials(one, seed=0)
    with pytest.raises(InvalidInputError, match="1 values that are not finite"):
        clusters_of_trials(np.array([[1.0, np.nan]]), seed=0)
