"""Folds in time: nothing that is learned from shares a bar with what is tested on."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tradepulse_pipeline.errors import InvalidInputError
from tradepulse_pipeline.validation.folds import purged_folds
from tradepulse_pipeline_tests.reference.barriers import purged_train


@st.composite
def samples(draw: st.DrawFn) -> tuple[list[int], list[int]]:
    start = sorted(draw(st.lists(st.integers(0, 60), min_size=5, max_size=30)))
    return start, [first + draw(st.integers(0, 12)) for first in start]


@given(sample=samples(), n_folds=st.integers(2, 5), embargo=st.integers(0, 8))
def test_folds_agree_with_reference(sample: tuple[list[int], list[int]], n_folds: int, embargo: int) -> None:
    start, end = sample
    folds = purged_folds(np.array(start), np.array(end), n_folds=n_folds, embargo=embargo)
    assert [i for fold in folds for i in fold.test.tolist()] == list(range(len(start)))
    assert len(folds) == n_folds
    sizes = [len(fold.test) for fold in folds]
    assert max(sizes) - min(sizes) <= 1
    for fold in folds:
        assert fold.train.tolist() == purged_train(start, end, fold.test.tolist(), embargo)


def test_purge_and_embargo_by_hand() -> None:
    # Ten samples, a bar apart, labels of three bars. Fold 2 of 5 tests on samples 4 and 5, which read bars 4 to 7.
    bars = np.arange(10)
    fold = purged_folds(bars, bars + 2, n_folds=5, embargo=1)[2]
    assert fold.test.tolist() == [4, 5]
    assert fold.train.tolist() == [0, 1, 9]  # 2 and 3 read bar 4, 6 and 7 start in the span, 8 is under embargo


@pytest.mark.parametrize(
    ("start", "end", "options", "message"),
    [
        ([1, 2, 3], [1, 2, 3], {"n_folds": 4}, r"found 4 of 3 samples"),
        ([1, 2, 3], [1, 2, 3], {"n_folds": 1}, r"found 1 of 3 samples"),
        ([1, 2, 3], [1, 2, 3], {"n_folds": 2, "embargo": -1}, r"embargo: found -1"),
        ([2, 1, 3], [2, 2, 3], {"n_folds": 2}, r"time order"),
        ([1, 2, 3], [1, 1, 3], {"n_folds": 2}, r"ends at or after"),
    ],
)
def test_wrong_samples_are_refused(start: list[int], end: list[int], options: dict[str, int], message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        purged_folds(np.array(start), np.array(end), **options)
