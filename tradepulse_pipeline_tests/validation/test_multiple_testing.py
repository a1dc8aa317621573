from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tradepulse_pipeline.errors import InvalidInputError
from tradepulse_pipeline.validation.multiple_testing import corrected_p_values

#: The worked example of Benjamini and Hochberg (1995), section 2.2.
PUBLISHED = [
    *(0.0001, 0.0004, 0.0019, 0.0095, 0.0201, 0.0278, 0.0298, 0.0344),
    *(0.0459, 0.3240, 0.4262, 0.5719, 0.6528, 0.7590, 1.0000),
]


def test_rejections_of_the_published_example():
    corrected = corrected_p_values(PUBLISHED)
    assert sum(p <= 0.05 for p in corrected.bonferroni) == 3
    assert sum(p <= 0.05 for p in corrected.benjamini_hochberg) == 4


@given(st.lists(st.one_of(st.none(), st.floats(0, 1)), max_size=30))
def test_corrections_equal_their_definitions_in_the_order_given(p_values):
    corrected = corrected_p_values(p_values)
    m = len(p_values)
    ordered = sorted(1.0 if p is None else p for p in p_values)
    for p, q, b in zip(p_values, corrected.benjamini_hochberg, corrected.bonferroni, strict=True):
        if p is None:
            assert q is b is None
        else:
            assert b == pytest.approx(min(1, m * p))
            assert q == pytest.approx(min(1, *(m * other / j for j, other in enumerate(ordered, 1) if other >= p)))


def test_an_undefined_p_value_counts_as_an_attempt():
    assert corrected_p_values([0.03]).bonferroni == (0.03,)
    assert corrected_p_values([0.03, None]).bonferroni == (0.06, None)


def test_under_the_null_false_findings_are_as_rare_as_asked_for():
    generator = np.random.default_rng(11)
    jobs = [corrected_p_values(generator.random(24).tolist()) for _ in range(2_000)]
    for method, expected in (("benjamini_hochberg", 0.2), ("bonferroni", 1 - (1 - 0.2 / 24) ** 24)):
        share = np.mean([min(getattr(job, method)) <= 0.2 for job in jobs])
        assert share == pytest.approx(expected, abs=0.03)


def test_what_is_no_p_value_is_refused():
    with pytest.raises(InvalidInputError, match=r"between 0 and 1, found \[1\.5\]"):
        corrected_p_values([0.5, 1.5])
