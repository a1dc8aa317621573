"""How far luck spreads the trials of a search, and to how many independent ones they amount."""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np

from tradepulse_pipeline.market.candles import FloatArray
from tradepulse_pipeline.validation.overfitting import check_blocks, half_splits
from tradepulse_pipeline.validation.sharpe import expected_maximum

#: Splits that are looked at, spread evenly over all of them.
_N_SPLITS: Final = 64

#: Trials that are worked on together: bounds the memory.
_TRIALS_AT_ONCE: Final = 8_192

_BISECTIONS: Final = 60


class TrialLuck(NamedTuple):
    """What of the trials' Sharpe ratios is luck.

    ``effective_trials`` is the number of independent trials whose best is as far out as that of these; ``variance`` is
    the variance over the trials of the Sharpe ratio without skill, of a sample of one day: over n days it is an n-th.
    """

    effective_trials: float
    variance: float


def luck_of_trials(block_sums: FloatArray, block_squares: FloatArray) -> TrialLuck | None:
    """Return how far luck alone spreads the Sharpe ratios of trials, and their effective number.

    The spread that trials show also holds what they truly differ in, such as what costs take from those that trade
    often; the theorem behind the deflated Sharpe ratio is about trials without skill.

    The difference of a trial's returns between two halves of the blocks, over the root of their sum of squares, is a
    Sharpe ratio without skill: what the trial earns in both halves falls out, and how trials go together stays. Over
    splits into halves, ``x = mean(max - mean over trials) / sqrt(mean(variance over trials))`` says how far out the
    best is. What comes back is the n whose ``expected_maximum(n)`` is x, between 1 and the number of trials. In
    ``deflated_sharpe_ratio`` and ``luck_ceiling``, together with that variance, it gives the level that luck reaches in
    these very trials: the formula of Bailey and Lopez de Prado (2014), the halves
    of Bailey, Borwein, Lopez de Prado and Zhu (2015).

    Counting clusters of correlated trials (Lopez de Prado and Lewis 2019) gives too few: the trials of a cluster still
    differ, and the best of 5,000 in 50 clusters with a correlation of 0.9 is as far out as that of more than 400
    independent ones.

    Parameters
    ----------
    block_sums, block_squares : float64 array of shape (n_trials, n_blocks)
        Sums of daily returns and of squared daily returns over equally many days each. Blocks suffice for any number of
        trials: the sum over the squares of all days estimates each trial's own scale, and no correlation of
        trials is estimated. An even number of blocks, at most 20.

    Returns
    -------
    TrialLuck or None
        None without trials that traded.

    Raises
    ------
    InvalidInputError
        If the shapes are not as said or a value is not finite.
    """
    check_blocks(block_sums, block_squares)
    scale = np.sqrt(block_squares.sum(axis=1))
    has_traded = scale > 0
    n_trials = int(np.count_nonzero(has_traded))
    if not n_trials:
        return None
    scaled = block_sums[has_traded] / scale[has_traded, None]
    signs = _signs(block_sums.shape[1])
    highest, lowest = np.full((2, signs.shape[1]), [[-np.inf], [np.inf]])
    total, squares = np.zeros((2, signs.shape[1]))
    for first in range(0, n_trials, _TRIALS_AT_ONCE):
        ratios = scaled[first : first + _TRIALS_AT_ONCE] @ signs
        np.maximum(highest, ratios.max(axis=0), out=highest)
        np.minimum(lowest, ratios.min(axis=0), out=lowest)
        total += ratios.sum(axis=0)
        squares += np.einsum("ij,ij->j", ratios, ratios)
    variance = float(np.mean(squares - total**2 / n_trials)) / max(1, n_trials - 1)
    if variance <= 1e-12:
        return TrialLuck(1.0, 0.0)
    # A split and its mirror: the lowest is the highest of the other.
    x = float(np.mean(highest - lowest)) / 2 / np.sqrt(variance)
    return TrialLuck(_inverse_expected_maximum(x, n_trials), variance)


def _signs(n_blocks: int) -> FloatArray:
    """Return +1 for the blocks of one half and -1 for those of the other, shape (n_blocks, n_splits)."""
    splits = half_splits(n_blocks)
    some = splits[np.unique(np.linspace(0, len(splits) - 1, _N_SPLITS).round().astype(np.int64))]
    is_in = (some[:, :, None] >> np.arange(n_blocks // 2)) & 1
    return np.ascontiguousarray(2.0 * is_in.reshape(len(some), n_blocks).T - 1.0)


def _inverse_expected_maximum(value: float, most: int) -> float:
    low, high = 1.0, float(most)
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2
        low, high = (middle, high) if expected_maximum(middle) < value else (low, middle)
    return high
