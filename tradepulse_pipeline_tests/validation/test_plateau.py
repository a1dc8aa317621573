from __future__ import annotations

import math
from dataclasses import astuple

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from tradepulse_pipeline.errors import InvalidInputError
from tradepulse_pipeline.validation.plateau import neighbourhood_of, neighbourhoods
from tradepulse_pipeline_tests.reference.statistics import grid_neighbours

GRIDS = st.lists(st.integers(1, 4), min_size=1, max_size=4).flatmap(
    lambda shape: st.tuples(
        st.just(shape),
        arrays(np.float64, math.prod(shape), elements=st.one_of(st.just(math.nan), st.integers(-9, 9).map(float))),
    )
)


@given(GRIDS, st.sampled_from([0.25, 0.5, 1.0]))
def test_neighbourhoods_equal_the_reference(grid, kept):
    shape, objective = grid
    found = neighbourhoods(objective, shape, kept=kept)
    valid = objective[~np.isnan(objective)]
    for combination, own in enumerate(objective):
        row = found.mean[combination], found.worst[combination], found.kept_share[combination]
        if math.isnan(own):
            assert np.isnan(row).all()
            continue
        alone = astuple(neighbourhood_of(combination, objective, shape, kept=kept))
        assert alone == pytest.approx(row, nan_ok=True)
        around = [float(objective[k]) for k in grid_neighbours(combination, shape)]
        filled = [own, *(min(valid) if math.isnan(value) else value for value in around)]
        assert row[0] == pytest.approx(sum(filled) / len(filled))
        assert row[1] == min(filled)
        if own > 0:
            keeping = [not math.isnan(value) and value >= kept * own for value in around]
            assert row[2] == pytest.approx(sum(keeping) / len(keeping) if keeping else 1.0)
        else:
            assert math.isnan(row[2])


def test_a_plateau_beats_a_higher_spike():
    objective = np.zeros((9, 9))
    objective[1, 1] = 3.0
    objective[5:8, 5:8] = 2.0
    found = neighbourhoods(objective.ravel(), (9, 9))
    assert np.argmax(objective) == 1 * 9 + 1
    assert np.argmax(found.mean) == np.argmax(found.worst) == 6 * 9 + 6
    assert found.kept_share[[10, 60]].tolist() == [0.0, 1.0]


def test_a_grid_without_a_valid_trial_has_no_plateau():
    found = neighbourhoods(np.full(6, np.nan), (2, 3))
    assert np.isnan([found.mean, found.worst, found.kept_share]).all()


def test_wrong_lengths_and_infinite_objectives_are_refused():
    with pytest.raises(InvalidInputError, match=r"Expected 6 .* grid \(2, 3\), found 5, 0 of them infinite"):
        neighbourhoods(np.zeros(5), (2, 3))
    with pytest.raises(InvalidInputError, match="1 of them infinite"):
        neighbourhoods(np.array([1.0, np.inf]), (2,))
