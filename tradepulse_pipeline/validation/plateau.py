"""How a parameter set's neighbours in the grid fare: a plateau is told apart from a lone spike."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from tradepulse_pipeline.errors import InvalidInputError
from tradepulse_pipeline.market.candles import FloatArray, IntArray


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Neighbourhoods:
    """How the neighbourhood of every combination of a grid fares; float64 arrays of shape (n_combinations,).

    All are NaN where the combination itself is invalid. The highest ``mean``, or the highest ``worst``, is what a
    search for a plateau chooses.

    Attributes
    ----------
    mean, worst : float64 array
        Mean and lowest objective of the combination and its neighbours.
    kept_share : float64 array
        Share of the neighbours that keep so much of the combination's objective as was asked for; 1 without
        neighbours, NaN where the objective is not above 0, of which there is nothing to keep.
    """

    mean: FloatArray
    worst: FloatArray
    kept_share: FloatArray


def neighbourhoods(objective: FloatArray, shape: Sequence[int], *, kept: float = 0.5) -> Neighbourhoods:
    """Return how the neighbours of every combination fare.

    Neighbours are one step apart on one axis and equal on all others: two per axis, one at an end, so that their
    number grows with the parameters and not with their power. An invalid neighbour is a failure: it keeps nothing and
    counts as the lowest valid objective of the grid.

    Parameters
    ----------
    objective : float64 array of shape (n_combinations,)
        Of every combination of the grid, the last axis varying fastest; NaN where the trial was invalid.
    shape : sequence of int
        Grid points on each axis.
    kept : float
        What share of its objective a neighbour is to keep.

    Raises
    ------
    InvalidInputError
        If there is not one objective for each combination, or one is infinite.

    Examples
    --------
    >>> spike = neighbourhoods(np.array([0.0, 9.0, 0.0, 5.0, 6.0, 5.0]), (6,))
    >>> spike.mean.tolist(), spike.kept_share[[1, 4]].tolist()
    ([4.5, 3.0, 4.666666666666667, 3.6666666666666665, 5.333333333333333, 5.5], [0.0, 1.0])
    """
    if len(objective) != math.prod(shape) or np.isinf(objective).any():
        raise InvalidInputError(
            f"Expected {math.prod(shape):,} finite objectives or NaN, one per combination of the grid {tuple(shape)}, "
            f"found {len(objective):,}, {np.isinf(objective).sum():,} of them infinite."
        )
    is_valid = ~np.isnan(objective)
    lowest = objective[is_valid].min() if is_valid.any() else np.nan
    own = objective.reshape(shape)
    filled = np.where(is_valid, objective, lowest).reshape(shape)
    total, worst, n = filled.copy(), filled.copy(), np.zeros(shape)
    n_kept = np.zeros(shape)
    for here, there in _steps(len(shape)):
        total[here] += filled[there]
        worst[here] = np.minimum(worst[here], filled[there])
        n[here] += 1
        n_kept[here] += own[there] >= kept * own[here]
    kept_share = np.where(n > 0, n_kept / np.maximum(n, 1), 1.0)
    return Neighbourhoods(
        mean=np.where(is_valid, (total / (n + 1)).ravel(), np.nan),
        worst=np.where(is_valid, worst.ravel(), np.nan),
        kept_share=np.where(objective > 0, kept_share.ravel(), np.nan),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Neighbourhood:
    """The neighbourhood of one valid combination: the figures of ``Neighbourhoods``."""

    mean: float
    worst: float
    kept_share: float


def neighbourhood_of(
    combination: int, objective: FloatArray, shape: Sequence[int], *, kept: float = 0.5
) -> Neighbourhood:
    """Return what ``neighbourhoods`` says of one valid combination, without looking at all the others."""
    own, near = float(objective[combination]), objective[_neighbours(combination, shape)]
    filled = np.append(np.where(np.isnan(near), np.nanmin(objective), near), own)
    kept_share = float(np.mean(near >= kept * own)) if len(near) else 1.0
    return Neighbourhood(
        mean=float(filled.mean()), worst=float(filled.min()), kept_share=kept_share if own > 0 else np.nan
    )


def _neighbours(combination: int, shape: Sequence[int]) -> IntArray:
    """Return the combinations one step away on one axis."""
    steps = np.eye(len(shape), dtype=np.int64)
    around = np.array(np.unravel_index(combination, shape)) + np.concatenate([steps, -steps])
    is_inside = ((around >= 0) & (around < shape)).all(axis=1)
    return np.array(np.ravel_multi_index(tuple(around[is_inside].T), shape), dtype=np.int64)


def _steps(n_axes: int) -> Iterator[tuple[tuple[slice, ...], tuple[slice, ...]]]:
    """Yield, for each way to step, the part of the grid that has a neighbour there, and where that neighbour is."""
    for axis in range(n_axes):
        before = (*(slice(None),) * axis, slice(None, -1))
        after = (*(slice(None),) * axis, slice(1, None))
        yield before, after
        yield after, before
