"""How many groups the trials of a search fall into when those whose returns go together are put together."""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np

from tradepulse_pipeline.errors import InvalidInputError
from tradepulse_pipeline.market.candles import FloatArray, IntArray

#: Trials that are clustered at most, and clusters that are looked for at most: 10 trials in each, in the mean.
MOST_TRIALS: Final = 1_000
MOST_CLUSTERS: Final = 100

#: Mean silhouettes up to this show no substantial structure: Kaufman and Rousseeuw (1990), Finding groups in data.
NO_STRUCTURE: Final = 0.25

#: Decimals to which profiles are the same.
_DECIMALS: Final = 9


class TrialClusters(NamedTuple):
    """Into how many clusters trials fall best, and how well: the mean silhouette, -1 to 1."""

    n_clusters: int
    silhouette: float

    @property
    def are_clear(self) -> bool:
        """Whether there are clusters at all: of returns that do not fall into any, the number says nothing."""
        return self.silhouette > NO_STRUCTURE


def clusters_of_trials(block_sums: FloatArray, *, seed: int) -> TrialClusters | None:
    """Return into how many clusters of correlated returns trials fall: an effective number of independent ones.

    After Lopez de Prado and Lewis (2019), Detection of false investment strategies using unsupervised learning
    methods, Quantitative Finance 19(9): trials at the distance ``sqrt((1 - correlation) / 2)`` are clustered, and the
    number of clusters is that with the best silhouettes (Rousseeuw 1987, J. Comput. Appl. Math. 20). That distance is
    Euclidean between standardised returns, so that Ward's hierarchy (1963, JASA 58(301)) takes the place of their
    k-means: it minimises the same sum of squares, from no random start, and all numbers of clusters are cuts of one
    tree. The number is that with the highest mean silhouette, 2 to 100.

    What it cannot tell: with 16 blocks, correlations of independent trials scatter by 0.26 around 0. Trials of one
    cluster with a correlation of 0.9 are found, those with one of 0.5 are not told from no cluster; nor are 100
    clusters from more. And trials of a cluster still differ: the best of 5,000 in 50 clusters is further out than that
    of 50 trials, see ``luck_of_trials``.

    Parameters
    ----------
    block_sums : float64 array of shape (n_trials, n_blocks)
        Sums of daily returns over equally many days each. Trials that are equal but for mean and scale count once;
        trials whose blocks do not vary are left out. Of those that remain, 1,000 are drawn: time and memory grow with
        the square of that alone.
    seed : int
        Of the draw.

    Returns
    -------
    TrialClusters or None
        None for fewer than three trials that differ.

    Raises
    ------
    InvalidInputError
        If the shape is another or a value is not finite.
    """
    if block_sums.ndim != 2 or not np.isfinite(block_sums).all():
        raise InvalidInputError(
            f"Expected finite sums of shape (n_trials, n_blocks), found shape {block_sums.shape} and "
            f"{np.count_nonzero(~np.isfinite(block_sums))} values that are not finite."
        )
    profiles = _distinct_profiles(block_sums)
    if len(profiles) < 3:
        return None
    if len(profiles) > MOST_TRIALS:
        profiles = profiles[np.random.default_rng(seed).choice(len(profiles), MOST_TRIALS, replace=False)]
    from scipy.cluster.hierarchy import cut_tree, ward
    from scipy.spatial.distance import pdist, squareform

    distances = pdist(profiles) / 2  # of unit vectors: sqrt((1 - correlation) / 2)
    numbers = np.arange(2, min(MOST_CLUSTERS, len(profiles) - 1) + 1)
    silhouettes = _mean_silhouettes(squareform(distances), cut_tree(ward(distances), numbers))
    best = int(np.argmax(silhouettes))
    return TrialClusters(int(numbers[best]), float(silhouettes[best]))


def _distinct_profiles(block_sums: FloatArray) -> FloatArray:
    """Return each trial's blocks around their mean as a vector of length 1, (n_distinct, n_blocks)."""
    import polars as pl

    around_mean = block_sums - block_sums.mean(axis=1, keepdims=True)
    length = np.linalg.norm(around_mean, axis=1)
    varies = length > 1e-12 * np.abs(block_sums).max(axis=1, initial=0.0)
    profiles = (around_mean[varies] / length[varies, None]).round(_DECIMALS)
    return pl.from_numpy(profiles).unique(maintain_order=True).to_numpy()


def _mean_silhouettes(distances: FloatArray, levels: IntArray) -> FloatArray:
    """Return the mean silhouette of each column of ``levels``, (n_trials, n_levels), the finest being the last.

    Levels are nested: sums of distances to the clusters of one are sums of those to the finest clusters.
    """
    trials = np.arange(len(levels))
    _, representatives = np.unique(levels[:, -1], return_index=True)
    to_finest = _members(levels[:, -1]) @ distances
    found = []
    for labels in levels.T:
        sizes = np.bincount(labels)
        to_cluster = _members(labels[representatives]) @ to_finest
        own = to_cluster[labels, trials] / np.maximum(sizes[labels] - 1, 1)
        to_cluster /= sizes[:, None]
        to_cluster[labels, trials] = np.inf
        nearest = to_cluster.min(axis=0)
        widths = (nearest - own) / np.maximum(nearest, own)
        found.append(np.mean(np.where(sizes[labels] > 1, widths, 0.0)))
    return np.array(found)


def _members(labels: IntArray) -> FloatArray:
    """Return 1 where a label (row) is that of a position (column), else 0."""
    return np.equal.outer(np.arange(labels.max() + 1), labels).astype(np.float64)
