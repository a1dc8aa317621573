"""Folds in time for labels that reach into the future: k-fold with purge and embargo."""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np

from tradepulse_pipeline.errors import InvalidInputError
from tradepulse_pipeline.market.candles import IntArray

DEFAULT_FOLDS: Final = 5


class Fold(NamedTuple):
    """The samples of one fold by index, ascending: those tested on, and those that may be learned from."""

    train: IntArray
    test: IntArray


def purged_folds(start: IntArray, end: IntArray, *, n_folds: int = DEFAULT_FOLDS, embargo: int = 0) -> list[Fold]:
    """Split samples in time into folds whose train labels share no bar with the test labels.

    Each sample is tested on once, in ``n_folds`` neighbouring stretches of equal size. A fold's test span goes from
    the first of its samples to the end of the last of their labels. Purged from train is every sample whose label
    overlaps that span; under embargo are those that start within ``embargo`` after it. Lopez de Prado (2018), Advances
    in Financial Machine Learning, section 7.4.

    Parameters
    ----------
    start, end : int64 arrays of shape (n_samples,)
        When a sample is taken, ascending, and when the last thing that its label reads is known, both inclusive and in
        the same unit: bars or milliseconds.
    embargo : int
        In that unit.

    Raises
    ------
    InvalidInputError
        If there are fewer than 2 folds or fewer samples than folds, the samples are not in time order, a label ends
        before its sample, or the embargo is negative.

    Examples
    --------
    >>> bars = np.arange(6)
    >>> for fold in purged_folds(bars, bars + 1, n_folds=3, embargo=1):
    ...     print(fold.train, fold.test)
    [4 5] [0 1]
    [0] [2 3]
    [0 1 2] [4 5]
    """
    if not 2 <= n_folds <= len(start):
        raise InvalidInputError(f"Folds: found {n_folds} of {len(start)} samples, expected 2 folds up to one a sample.")
    if embargo < 0:
        raise InvalidInputError(f"embargo: found {embargo}, expected 0 or more.")
    if len(end) != len(start) or (np.diff(start) < 0).any() or (end < start).any():
        raise InvalidInputError("Folds: expected samples in time order, each with a label that ends at or after it.")
    folds = []
    for test in np.array_split(np.arange(len(start)), n_folds):
        first, last = start[test[0]], end[test].max()
        folds.append(Fold(np.flatnonzero((end < first) | (start > last + embargo)), test))
    return folds
