"""The book of decisions: every different decision of many signal parameter sets once, and each set's list of them."""

from __future__ import annotations

from itertools import pairwise
from typing import Any, Final

import numpy as np

from tradepulse_pipeline.backtest.kernel import DecisionColumns
from tradepulse_pipeline.compiled import njit
from tradepulse_pipeline.market.candles import IndexArray, IntArray
from tradepulse_pipeline.strategies.decisions import DecisionSets

_FIRST_CAPACITY: Final = 4_096


class DecisionBook:
    """Decisions of signal parameter sets. Sets share a decision when bar, side and all of its prices are equal.

    Attributes
    ----------
    columns : DecisionColumns
        The different decisions, in the order in which they were entered; rows from ``n_decisions`` on are spare.
    members : int32 array
        The sets' lists one after the other: row numbers of ``columns``, in bar order within a list.
    """

    def __init__(self, n_bars: int) -> None:
        self.n_decisions = 0
        #: A row for each of ``columns``, prices by their bits: NaN is then equal to NaN.
        self._values = np.empty((len(DecisionColumns._fields), _FIRST_CAPACITY), dtype=np.int64)
        self.columns = _columns(self._values)
        self.members = np.empty(_FIRST_CAPACITY, dtype=np.int32)
        self._n_members = 0
        self._latest_at_bar: Final = np.full(n_bars, -1, dtype=np.int32)
        self._previous = np.empty(_FIRST_CAPACITY, dtype=np.int32)
        self._spans: Final[dict[int, tuple[int, int]]] = {}

    def unknown(self, sets: IntArray) -> IntArray:
        """Return those of the numbered sets that were not entered yet."""
        return np.array([number for number in sets.tolist() if number not in self._spans], dtype=np.int64)

    def spans_of(self, sets: IntArray, start: int) -> IntArray:
        """Return where in ``members`` each set's decisions from bar ``start`` on begin and end, shape (n_sets, 2)."""
        spans = np.array([self._spans[number] for number in sets.tolist()], dtype=np.int64).reshape(-1, 2)
        _skip_before(start, self._values[0], self.members, spans)
        return spans

    def enter(self, numbers: IntArray, sets: DecisionSets) -> None:
        """Enter the decisions of the numbered sets."""
        found = np.stack([getattr(sets.decisions, name).view(np.int64) for name in DecisionColumns._fields])
        rows = np.empty(len(sets.decisions), dtype=np.int32)
        self._make_room(len(rows), len(sets.members))
        self.n_decisions = _enter(found, self._values, self._latest_at_bar, self._previous, self.n_decisions, rows)
        self.members[self._n_members : self._n_members + len(sets.members)] = rows[sets.members]
        bounds = (sets.offsets + self._n_members).tolist()
        self._spans.update(zip(numbers.tolist(), pairwise(bounds), strict=True))
        self._n_members += len(sets.members)

    @property
    def nbytes(self) -> int:
        """Bytes that the book holds."""
        arrays = (self._values, self.members, self._previous, self._latest_at_bar)
        return sum(array.nbytes for array in arrays) + 200 * len(self._spans)

    def _make_room(self, n_decisions: int, n_members: int) -> None:
        if self._n_members + n_members > len(self.members):
            self.members = grown(self.members, self._n_members, self._n_members + n_members)
        wanted = self.n_decisions + n_decisions
        if wanted > len(self._previous):
            self._previous = grown(self._previous, self.n_decisions, wanted)
            self._values = grown(self._values, self.n_decisions, wanted)
            self.columns = _columns(self._values)


def _columns(values: IntArray) -> DecisionColumns:
    bar, side, *prices = values
    return DecisionColumns(bar, side, *(price.view(np.float64) for price in prices))


def grown(array: Any, n_used: int, n_wanted: int) -> Any:
    """Return the array with room for ``n_wanted`` values along its last axis, at least twice what it had."""
    larger = np.empty((*array.shape[:-1], max(n_wanted, 2 * array.shape[-1])), dtype=array.dtype)
    larger[..., :n_used] = array[..., :n_used]
    return larger


@njit(cache=True, nogil=True)
def _enter(
    found: IntArray,
    known: IntArray,
    latest_at_bar: IndexArray,
    previous: IndexArray,
    n_decisions: int,
    rows: IndexArray,
) -> int:
    """Write each found decision's row number into ``rows``; enter those that are new; return how many there are.

    The decisions of one bar form a chain: the latest one is in ``latest_at_bar``, the one before it in ``previous``.
    """
    for i in range(found.shape[1]):
        j = found[0, i]
        row = latest_at_bar[j]
        while row >= 0 and not _is_same(found, i, known, row):
            row = previous[row]
        if row < 0:
            row = n_decisions
            n_decisions += 1
            previous[row] = latest_at_bar[j]
            latest_at_bar[j] = row
            known[:, row] = found[:, i]
        rows[i] = row
    return n_decisions


@njit(cache=True, nogil=True)
def _is_same(a: IntArray, i: int, b: IntArray, k: int) -> bool:
    n_same = 0
    while n_same < a.shape[0] and a[n_same, i] == b[n_same, k]:
        n_same += 1
    return bool(n_same == a.shape[0])


@njit(cache=True, nogil=True)
def _skip_before(start: int, bar: IntArray, members: IndexArray, spans: IntArray) -> None:
    """Let each of ``spans`` begin with the first decision at or after bar ``start``."""
    for i in range(spans.shape[0]):
        first, last = spans[i]
        while first < last:
            middle = (first + last) // 2
            if bar[members[middle]] < start:
                first = middle + 1
            else:
                last = middle
        spans[i, 0] = first
