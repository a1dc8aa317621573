"""Decisions: shapes, order, merging and the mirror."""

from __future__ import annotations

import numpy as np
import pytest

from tradepulse_pipeline.errors import InvalidInputError
from tradepulse_pipeline.strategies.decisions import LONG, SHORT, Decisions, DecisionSets


def some(bars: list[int], side: int) -> Decisions:
    prices = 100.0 + np.arange(len(bars))
    return Decisions.of(np.array(bars), side, prices, np.ones(len(bars)), exit_level=prices - 1)


def test_what_is_left_out_is_undefined() -> None:
    decisions = some([1, 1, 4], LONG)
    assert len(decisions) == 3
    assert decisions.side.tolist() == [1, 1, 1]
    assert np.isnan(decisions.target_anchor).all()
    assert np.isnan(decisions.trail_unit).all()


def test_bars_must_be_ascending_within_a_set() -> None:
    assert len(DecisionSets.of([some([2, 5], LONG), some([], LONG), some([1], LONG)])) == 3
    with pytest.raises(InvalidInputError, match="'bar' must be ascending"):
        DecisionSets.of([some([1], LONG), some([2, 1], LONG)])


def test_columns_must_be_of_one_length() -> None:
    with pytest.raises(InvalidInputError, match=r"'stop_unit' has shape \(1,\), expected \(2,\)"):
        Decisions.of(np.array([1, 2]), LONG, np.ones(2), np.ones(1))


def test_sets_share_decisions() -> None:
    decisions = some([7, 2, 5], LONG)
    sets = DecisionSets(decisions, np.array([1, 0, 1, 2], dtype=np.int32), np.array([0, 2, 2, 4]))
    assert [sets[k].bar.tolist() for k in range(len(sets))] == [[2, 7], [], [2, 5]]
    assert sets[2].stop_anchor.tolist() == [101.0, 102.0]
    assert sets.mirrored()[2].stop_anchor.tolist() == [-101.0, -102.0]
    with pytest.raises(InvalidInputError, match="'bar' must be ascending"):
        DecisionSets(decisions, np.array([1, 0, 2], dtype=np.int32), np.array([0, 1, 3]))


def test_merging_keeps_bar_order_and_puts_the_first_set_first() -> None:
    long = DecisionSets.of([some([1, 3, 3], LONG), some([4], LONG)])
    short = DecisionSets(some([9, 0, 4, 3, 5], SHORT), np.array([1, 3, 4, 2, 0], dtype=np.int32), np.array([0, 3, 5]))
    sets = DecisionSets.merged(long, short)
    assert sets.offsets.tolist() == [0, 6, 9]
    assert sets[0].bar.tolist() == [0, 1, 3, 3, 3, 5]
    assert sets[0].side.tolist() == [-1, 1, 1, 1, -1, -1]
    assert sets[0].stop_anchor.tolist() == [101.0, 100.0, 101.0, 102.0, 103.0, 104.0]
    assert sets[1].bar.tolist() == [4, 4, 9]
    assert sets[1].side.tolist() == [1, -1, -1]


def test_merging_nothing_gives_nothing() -> None:
    nothing = DecisionSets.of([some([], LONG), some([], LONG)])
    assert DecisionSets.merged(nothing, nothing).offsets.tolist() == [0, 0, 0]


def test_the_mirror_negates_prices_and_swaps_sides() -> None:
    mirror = some([7], LONG).mirrored()
    assert (mirror.bar[0], mirror.side[0], mirror.stop_anchor[0]) == (7, SHORT, -100.0)
    assert (mirror.stop_unit[0], mirror.exit_level[0]) == (1.0, -99.0)
