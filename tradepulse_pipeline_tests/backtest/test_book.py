"""The book of decisions: what sets share is in it once, whichever way and however often it comes."""

from __future__ import annotations

import numpy as np

from tradepulse_pipeline.backtest.book import DecisionBook
from tradepulse_pipeline.market.candles import IntArray
from tradepulse_pipeline.strategies.decisions import LONG, SHORT, Decisions, DecisionSets


def some(bars: list[int], side: int = LONG, stop_unit: float = 1.0) -> Decisions:
    return Decisions.of(np.array(bars, dtype=np.int64), side, 100.0 + np.array(bars), np.full(len(bars), stop_unit))


def lists_of(book: DecisionBook, sets: IntArray, start: int = 0) -> list[list[tuple[int, int, float]]]:
    """Return bar, side and stop unit of each set's decisions from ``start`` on."""
    columns = book.columns
    rows = [book.members[first:last] for first, last in book.spans_of(sets, start)]
    return [
        list(zip(columns.bar[k].tolist(), columns.side[k].tolist(), columns.stop_unit[k].tolist(), strict=True))
        for k in rows
    ]


def test_equal_decisions_are_entered_once() -> None:
    book = DecisionBook(10)
    book.enter(np.array([4, 7]), DecisionSets.of([some([2, 5, 8]), some([5, 8])]))
    assert book.n_decisions == 3
    shared = DecisionSets(some([8, 2, 9]), np.array([1, 0, 0, 2], dtype=np.int32), np.array([0, 2, 4]))
    book.enter(np.array([1, 2]), shared)
    assert book.n_decisions == 4
    assert [[bar for bar, _, _ in one] for one in lists_of(book, np.array([4, 7, 1, 2]))] == [
        [2, 5, 8],
        [5, 8],
        [2, 8],
        [8, 9],
    ]
    assert book.unknown(np.array([1, 2, 3, 4])).tolist() == [3]


def test_decisions_at_one_bar_differ_by_side_and_by_any_price() -> None:
    book = DecisionBook(10)
    sets = [some([5]), some([5], SHORT), some([5], stop_unit=2.0), some([5]), some([5], SHORT)]
    book.enter(np.arange(5), DecisionSets.of(sets))
    assert book.n_decisions == 3
    assert lists_of(book, np.arange(5)) == [
        [(5, LONG, 1.0)],
        [(5, SHORT, 1.0)],
        [(5, LONG, 2.0)],
        [(5, LONG, 1.0)],
        [(5, SHORT, 1.0)],
    ]


def test_a_list_may_begin_at_any_bar() -> None:
    book = DecisionBook(10)
    book.enter(np.array([0, 1]), DecisionSets.of([some([2, 5, 5, 8]), some([])]))
    for start in range(11):
        first, second = lists_of(book, np.array([0, 1]), start)
        assert [bar for bar, _, _ in first] == [bar for bar in (2, 5, 5, 8) if bar >= start]
        assert second == []


def test_the_book_grows() -> None:
    book, n_bars = DecisionBook(30_000), 30_000
    rng = np.random.default_rng(4)
    sets = [some(np.sort(rng.choice(n_bars, size, replace=False)).tolist()) for size in (10, 9_000, 3_000, 29_000)]
    for number, decisions in enumerate(sets):
        before = book.nbytes
        book.enter(np.array([number]), DecisionSets.of([decisions]))
        assert book.nbytes >= before
    assert book.n_decisions == len(np.unique(np.concatenate([decisions.bar for decisions in sets])))
    for decisions, found in zip(sets, lists_of(book, np.arange(len(sets))), strict=True):
        assert [bar for bar, _, _ in found] == decisions.bar.tolist()
    np.testing.assert_array_equal(book.columns.stop_anchor[book.members[:10]], 100.0 + sets[0].bar)
