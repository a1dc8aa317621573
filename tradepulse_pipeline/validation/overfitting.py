"""How likely the best of a search is to disappoint: combinatorially symmetric cross-validation over all trials."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Final

import numpy as np

from tradepulse_pipeline.compiled import njit
from tradepulse_pipeline.errors import InvalidInputError
from tradepulse_pipeline.market.candles import FloatArray, IntArray

#: 20 blocks have 184,756 splits already.
MOST_BLOCKS: Final = 20

#: Trials that are worked on together: the tables of their sums stay in the processor's cache.
_TRIALS_AT_ONCE: Final = 128

#: Stands for the sum of squares of blocks without a trade, whose performance is thus 0.
_NO_SQUARES: Final = 1e-200


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Overfitting:
    """What became, in each split, of the trial that was best in sample. See ``backtest_overfitting``.

    Attributes
    ----------
    probability : float
        Share of splits in which it came out at the median or below: the probability of backtest overfitting.
    n_trials : int
        Trials that were compared.
    logits : float64 array of shape (n_splits,)
        ``log(w / (1 - w))`` of its relative rank w out of sample; 0 is the median.
    probability_of_loss : float
        Share of splits in which it lost money out of sample.
    degradation_slope : float or None
        Least-squares slope of its out-of-sample on its in-sample performance; None where the latter does not vary.
    """

    probability: float
    n_trials: int
    logits: FloatArray
    probability_of_loss: float
    degradation_slope: float | None


def backtest_overfitting(
    block_sums: FloatArray, block_squares: FloatArray | None = None, *, workers: int = 1
) -> Overfitting | None:
    """Return how often the best trial of half of the blocks is at the median or below in the other half.

    Every way to take half of the blocks is a split, 12,870 for 16 blocks. In each the best trial of the blocks taken
    is ranked among all n trials in the other blocks: rank r, 1 the worst, gives ``w = r / (n + 1)``. The probability
    of backtest overfitting is the share of splits with ``log(w / (1 - w)) <= 0``. Bailey, Borwein, Lopez de Prado and
    Zhu (2015), The probability of backtest overfitting, Journal of Computational Finance 20(4).

    Performance is the mean daily return or, with ``block_squares``, ``mean / sqrt(mean square)``, which orders trials
    as the Sharpe ratio does. Trials that tie out of sample have their mean rank. Of those that tie for the best in
    sample the one that is worst out of sample counts, so that the order of the trials does not matter. Trials that
    never traded (all sums 0) are left out: a search does not choose them.

    Parameters
    ----------
    block_sums : float64 array of shape (n_trials, n_blocks)
        Sums of daily returns over equally many days each; an even number of blocks, at most 20.
    block_squares : float64 array of the same shape, optional
        Sums of squared daily returns.
    workers : int
        Threads that share the trials. Changes nothing but the time.

    Returns
    -------
    Overfitting or None
        None for fewer than two trials that traded.

    Raises
    ------
    InvalidInputError
        If the shapes are not as said or a value is not finite.

    Notes
    -----
    A split is a choice from the first half of the blocks and one from the second half. The sums of all choices are
    tabled for a batch of trials, so that a split costs one addition for each trial. A split and its mirror are worked
    out together.
    """
    squares = np.ones_like(block_sums) if block_squares is None else block_squares
    check_blocks(block_sums, squares)
    has_traded = np.any(block_sums != 0, axis=1)
    n_trials = int(np.count_nonzero(has_traded))
    if n_trials < 2:
        return None
    # The best over all blocks come first: they are the best of most splits, and few better ones are found after them.
    total = block_sums.sum(axis=1)
    order = np.argsort(-total * np.abs(total) / np.maximum(squares.sum(axis=1), _NO_SQUARES), kind="stable")
    order = order[has_traded[order]]
    sums, squares = (np.ascontiguousarray(part[order], dtype=np.float64) for part in (block_sums, squares))
    splits = half_splits(sums.shape[1])
    with ThreadPoolExecutor(workers) as pool:
        parts = range(workers)
        found = np.stack([*pool.map(lambda part: _find_best(sums, squares, splits, part, workers), parts)])
        best = _best_of_parts(found)
        bounds = np.ascontiguousarray(best[..., 2:])
        counts = [*pool.map(lambda part: _count_lower(sums, squares, splits, bounds, part, workers), parts)]
    lower, equal = np.sum(counts, axis=0)
    in_sample, out_of_sample = _signed_root(_ratio(best[..., :2])), _signed_root(_ratio(bounds))
    relative_rank = (lower + (equal + 1) / 2) / (n_trials + 1)
    logits = np.log(relative_rank / (1 - relative_rank)).ravel()
    return Overfitting(
        probability=float(np.mean(logits <= 0)),
        n_trials=n_trials,
        logits=logits,
        probability_of_loss=float(np.mean(out_of_sample < 0)),
        degradation_slope=_slope(in_sample, out_of_sample),
    )


def check_blocks(sums: FloatArray, squares: FloatArray) -> None:
    """Check sums and sums of squares of daily returns over blocks, both (n_trials, n_blocks)."""
    if sums.ndim != 2 or sums.shape[1] % 2 or not 2 <= sums.shape[1] <= MOST_BLOCKS:
        raise InvalidInputError(
            f"Expected sums of shape (n_trials, n_blocks) with an even number of blocks from 2 to {MOST_BLOCKS}, found "
            f"shape {sums.shape}."
        )
    if squares.shape != sums.shape:
        raise InvalidInputError(f"Expected squares of the shape of the sums, {sums.shape}, found {squares.shape}.")
    if not (np.isfinite(sums).all() and np.isfinite(squares).all() and (squares >= 0).all()):
        raise InvalidInputError("Expected finite sums and squares, and squares that are not negative.")


def half_splits(n_blocks: int) -> IntArray:
    """Return half of the splits, the other half being their mirrors: (n_splits / 2, 2) choices as bit sets.

    The first is of the blocks of the first half without its last block, the second of the blocks of the second half.
    """
    half = n_blocks // 2
    choices = np.arange(1 << half)
    sizes = np.bitwise_count(choices)
    first, second = np.nonzero(sizes[: 1 << (half - 1), None] + sizes == half)
    return np.column_stack([first, second]).astype(np.int64)


def _best_of_parts(found: FloatArray) -> FloatArray:
    """Return what ``_find_best`` found in all parts of the trials together, shape (2, n_splits / 2, 4)."""
    in_sample, out_of_sample = _ratio(found[..., :2]), _ratio(found[..., 2:])
    tied = np.where(in_sample == in_sample.max(axis=0), out_of_sample, np.inf)
    best: FloatArray = np.take_along_axis(found, tied.argmin(axis=0)[None, ..., None], axis=0)[0]
    return best


def _ratio(fraction: FloatArray) -> FloatArray:
    """Return the performance whose numerator and denominator are on the last axis."""
    return np.divide(fraction[..., 0], np.maximum(fraction[..., 1], _NO_SQUARES))


def _signed_root(values: FloatArray) -> FloatArray:
    return np.sign(values) * np.sqrt(np.abs(values))


def _slope(x: FloatArray, y: FloatArray) -> float | None:
    deviation = x - x.mean()
    squares = float(np.sum(deviation**2))
    return float(np.sum(deviation * y)) / squares if squares > 1e-24 * float(np.sum(x**2)) else None


@njit(cache=True, nogil=True)
def _fill_table(sums: FloatArray, start: int, n: int, column: int, nothing: float, table: FloatArray) -> None:
    """Write, for ``n`` trials from ``start``, the sum of every choice of the blocks from ``column`` on: (choice, n)."""
    table[0] = nothing
    for j in range(sums.shape[1] // 2):
        for k in range(1 << j):
            for i in range(n):
                table[(1 << j) + k, i] = table[k, i] + sums[start + i, column + j]


@njit(cache=True, nogil=True, inline="always")
def _squared(total: float) -> float:
    """Return the square with the sign of ``total``: over the sum of squares it orders trials as Sharpe ratios do."""
    return total * abs(total)


@njit(cache=True, nogil=True)
def _find_best(sums: FloatArray, squares: FloatArray, splits: IntArray, part: int, n_parts: int) -> FloatArray:
    """Return the performance of the best trial in sample, shape (2, n_splits / 2, 4).

    Takes every ``n_parts``-th batch of trials from ``part`` on. The first axis holds splits and their mirrors; the last
    one numerator and denominator of the performance in sample, and those out of sample. Performances are compared by
    cross multiplication, which needs no division and finds equal trials equal.
    """
    n_trials, n_blocks = sums.shape
    half, n_splits, size = n_blocks // 2, splits.shape[0], _TRIALS_AT_ONCE
    n_choices = 1 << half
    best = np.zeros((2, n_splits, 4))
    best[..., 0], best[..., 2] = -1.0, 1.0  # -1 / 0 and 1 / 0: any trial is better
    x1, x2 = np.empty((n_choices, size)), np.empty((n_choices, size))
    q1, q2 = np.empty((n_choices, size)), np.empty((n_choices, size))
    for start in range(part * size, n_trials, n_parts * size):
        n = min(size, n_trials - start)
        _fill_table(sums, start, n, 0, 0.0, x1)
        _fill_table(sums, start, n, half, 0.0, x2)
        _fill_table(squares, start, n, 0, _NO_SQUARES, q1)
        _fill_table(squares, start, n, half, _NO_SQUARES, q2)
        for s in range(n_splits):
            a, b = splits[s, 0], splits[s, 1]
            c, d = n_choices - 1 - a, n_choices - 1 - b
            x, q = best[0, s, 0], best[0, s, 1]
            y, r = best[1, s, 0], best[1, s, 1]
            n_better = 0
            for i in range(n):
                is_better = _squared(x1[a, i] + x2[b, i]) * q >= x * (q1[a, i] + q2[b, i])
                is_better_mirrored = _squared(x1[c, i] + x2[d, i]) * r >= y * (q1[c, i] + q2[d, i])
                n_better += is_better | is_better_mirrored
            if n_better > 0:
                for i in range(n):
                    first = _squared(x1[a, i] + x2[b, i]), q1[a, i] + q2[b, i]
                    second = _squared(x1[c, i] + x2[d, i]), q1[c, i] + q2[d, i]
                    _keep_better(best[0, s], first, second)
                    _keep_better(best[1, s], second, first)
    return best


@njit(cache=True, nogil=True)
def _keep_better(best: FloatArray, inside: tuple[float, float], outside: tuple[float, float]) -> None:
    """Keep a trial that is better in sample, or as good there and worse out of sample."""
    gain = inside[0] * best[1] - best[0] * inside[1]
    if gain > 0.0 or (gain == 0.0 and outside[0] * best[3] < best[2] * outside[1]):
        best[0], best[1] = inside
        best[2], best[3] = outside


@njit(cache=True, nogil=True)
def _count_lower(
    sums: FloatArray, squares: FloatArray, splits: IntArray, bounds: FloatArray, part: int, n_parts: int
) -> IntArray:
    """Count trials out of sample that are below ``bounds``, (2, n_splits / 2, 2), and at them: (2, 2, n_splits / 2).

    Takes every ``n_parts``-th batch of trials from ``part`` on. The first axis holds the counts below and at the bound,
    the second splits and their mirrors.
    """
    n_trials, n_blocks = sums.shape
    half, n_splits, size = n_blocks // 2, splits.shape[0], _TRIALS_AT_ONCE
    n_choices = 1 << half
    counts = np.zeros((2, 2, n_splits), np.int64)
    x1, x2 = np.empty((n_choices, size)), np.empty((n_choices, size))
    q1, q2 = np.empty((n_choices, size)), np.empty((n_choices, size))
    for start in range(part * size, n_trials, n_parts * size):
        n = min(size, n_trials - start)
        _fill_table(sums, start, n, 0, 0.0, x1)
        _fill_table(sums, start, n, half, 0.0, x2)
        _fill_table(squares, start, n, 0, _NO_SQUARES, q1)
        _fill_table(squares, start, n, half, _NO_SQUARES, q2)
        for s in range(n_splits):
            a, b = splits[s, 0], splits[s, 1]
            c, d = n_choices - 1 - a, n_choices - 1 - b
            x, q = bounds[0, s, 0], bounds[0, s, 1]
            y, r = bounds[1, s, 0], bounds[1, s, 1]
            below, at, below_mirrored, at_mirrored = 0, 0, 0, 0
            for i in range(n):
                value, bound = _squared(x1[c, i] + x2[d, i]) * q, x * (q1[c, i] + q2[d, i])
                below += value < bound
                at += value == bound
                value, bound = _squared(x1[a, i] + x2[b, i]) * r, y * (q1[a, i] + q2[b, i])
                below_mirrored += value < bound
                at_mirrored += value == bound
            counts[0, 0, s] += below
            counts[1, 0, s] += at
            counts[0, 1, s] += below_mirrored
            counts[1, 1, s] += at_mirrored
    return counts
