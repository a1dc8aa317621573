"""The book of decisions: every different decision of many signal parameter sets once, and each set's list of them."""

from __future__ import annotations

from itertools import pairwise
from typing import Any, Final

import numpy as np
from numba import njit

from tradepulse_pipeline.backtest.kernel import DecisionColumns
from tradepulse_pipeline.backtest.outcomes import IndexArray
from tradepulse_pipeline.market.candles import IntArray
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
        self.columns = _columns(_FIRST_CAPACITY)
        self.members = np.empty(_FIRST_CAPACITY, dtype=np.int32)
        self._n_members = 0
        self._latest_at_bar: Final = np.full(n_bars, -1, dtype=np.int32)
        self._previous = np.empty(_FIRST_CAPACITY, dtype=np.int32)
        self._spans: Final[dict[int, tuple[int, int]]] = {}

    def unknown(self, sets: IntArray) -> IntArray:
        """Return those of the numbered sets that were not entered yet."""
        return np.array([number for number in sets.tolist() if number not in self._spans], dtype=np.int64)

    def spans_of(self, sets: IntArray) -> IntArray:
        """Return where in ``members`` each set's list begins and ends, shape (n_sets, 2)."""
        return np.array([self._spans[number] for number in sets.tolist()], dtype=np.int64).reshape(-1, 2)

    def enter(self, numbers: IntArray, sets: DecisionSets) -> None:
        """Enter the decisions of the numbered sets."""
        found = DecisionColumns(*(getattr(sets.decisions, name) for name in DecisionColumns._fields))
        n_found = len(sets.decisions)
        self._make_room(n_found)
        members = self.members[self._n_members : self._n_members + n_found]
        self.n_decisions = _enter(found, self.columns, self._latest_at_bar, self._previous, self.n_decisions, members)
        bounds = (sets.offsets + self._n_members).tolist()
        self._spans.update(zip(numbers.tolist(), pairwise(bounds), strict=True))
        self._n_members += n_found

    @property
    def nbytes(self) -> int:
        """Bytes that the book holds."""
        arrays = (*self.columns, self.members, self._previous, self._latest_at_bar)
        return sum(array.nbytes for array in arrays) + 200 * len(self._spans)

    def _make_room(self, n_more: int) -> None:
        if self._n_members + n_more > len(self.members):
            self.members = grown(self.members, self._n_members, self._n_members + n_more)
        if self.n_decisions + n_more > len(self._previous):
            wanted = self.n_decisions + n_more
            self._previous = grown(self._previous, self.n_decisions, wanted)
            self.columns = DecisionColumns._make(grown(column, self.n_decisions, wanted) for column in self.columns)


def _columns(capacity: int) -> DecisionColumns:
    integers = {"bar", "side"}
    return DecisionColumns._make(
        np.empty(capacity, np.int64 if name in integers else np.float64) for name in DecisionColumns._fields
    )


def grown(array: Any, n_used: int, n_wanted: int) -> Any:
    """Return the array with room for ``n_wanted`` values, at least twice what it had."""
    larger = np.empty(max(n_wanted, 2 * len(array)), dtype=array.dtype)
    larger[:n_used] = array[:n_used]
    return larger


@njit(cache=True, nogil=True)
def _enter(
    found: DecisionColumns,
    book: DecisionColumns,
    latest_at_bar: IndexArray,
    previous: IndexArray,
    n_decisions: int,
    members: IndexArray,
) -> int:
    """Write each found decision's row number into ``members``; enter those that are new; return how many there are.

    The decisions of one bar form a chain: the latest one is in ``latest_at_bar``, the one before it in ``previous``.
    """
    for i in range(found.bar.shape[0]):
        j = found.bar[i]
        row = latest_at_bar[j]
        while row >= 0 and not _is_same(found, i, book, row):
            row = previous[row]
        if row < 0:
            row = n_decisions
            n_decisions += 1
            previous[row] = latest_at_bar[j]
            latest_at_bar[j] = row
            book.bar[row] = j
            book.side[row] = found.side[i]
            book.stop_anchor[row] = found.stop_anchor[i]
            book.stop_unit[row] = found.stop_unit[i]
            book.target_anchor[row] = found.target_anchor[i]
            book.target_unit[row] = found.target_unit[i]
            book.trail_unit[row] = found.trail_unit[i]
            book.exit_level[row] = found.exit_level[i]
        members[i] = row
    return n_decisions


@njit(cache=True, nogil=True)
def _is_same(a: DecisionColumns, i: int, b: DecisionColumns, k: int) -> bool:
    return (
        a.side[i] == b.side[k]
        and _is_equal(a.stop_anchor[i], b.stop_anchor[k])
        and _is_equal(a.stop_unit[i], b.stop_unit[k])
        and _is_equal(a.target_anchor[i], b.target_anchor[k])
        and _is_equal(a.target_unit[i], b.target_unit[k])
        and _is_equal(a.trail_unit[i], b.trail_unit[k])
        and _is_equal(a.exit_level[i], b.exit_level[k])
    )


@njit(cache=True, nogil=True)
def _is_equal(a: float, b: float) -> bool:
    return a == b or (np.isnan(a) and np.isnan(b))
