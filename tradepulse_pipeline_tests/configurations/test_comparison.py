from __future__ import annotations

import json
from types import SimpleNamespace

from hypothesis import given
from hypothesis import strategies as st

from tradepulse_pipeline.configurations.comparison import compare_outcomes, differences

JSON = st.recursive(
    st.none() | st.booleans() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)


@given(JSON)
def test_what_went_through_json_is_the_same(value):
    assert differences(value, json.loads(json.dumps(value))) == ()


def test_one_bit_is_a_difference():
    (difference,) = differences({"m": [0.1, 0.3]}, {"m": [0.1, 0.1 + 0.2]})
    assert (difference.place, difference.stored, difference.repeated) == ("m.1", 0.3, 0.30000000000000004)
    assert str(difference) == "m.1: 0.3, repeated 0.30000000000000004"


def test_missing_and_added_values_and_other_lengths_are_differences():
    found = differences({"a": 1, "b": [1], "c": {"d": 2}}, {"b": [1, 2], "c": 3, "e": 4})
    assert [(d.place, d.stored, d.repeated) for d in found] == [
        ("a", 1, None),
        ("b", [1], [1, 2]),
        ("c", {"d": 2}, 3),
        ("e", None, 4),
    ]


def outcome(**changes):
    parts = {
        "parameters": {"p": 1.0},
        "in_sample_metrics": {"net_profit": 2.0},
        "out_of_sample_metrics": {"net_profit": -1.0, "profit_factor": None},
        "windows": [{"window": 0, "out_of_sample": {"net_profit": -1.0}}],
    }
    return SimpleNamespace(**{**parts, "id": object(), **changes})


def test_outcomes_are_compared_in_all_that_is_computed_and_nothing_else():
    assert compare_outcomes(outcome(), outcome()) == ()
    found = compare_outcomes(
        outcome(),
        outcome(parameters={"p": 2.0}, windows=[{"window": 0, "out_of_sample": {"net_profit": -3.0}}]),
    )
    assert [str(difference) for difference in found] == [
        "parameters.p: 1.0, repeated 2.0",
        "windows.0.out_of_sample.net_profit: -1.0, repeated -3.0",
    ]
