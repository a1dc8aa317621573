"""Raw rows become valid candles, and every other row gets its reason."""

from __future__ import annotations

from itertools import combinations, pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tradepulse_pipeline.market.series import Timeframe
from tradepulse_pipeline.market.sources.rows import clean_rows, count_reasons
from tradepulse_pipeline.market.sources.times import most_common_step, to_milliseconds

STEP = 300_000
START = 1_735_689_600_000
NOW = START + 1_000_000 * STEP
GOOD = (10.0, 12.0, 9.0, 11.0, 5.0)


def clean(rows, *, now_ms=NOW, timeframe="5m"):
    table = np.array([(START + at * STEP if at is not None else np.nan, *values) for at, values in rows], dtype=float)
    return clean_rows(table[:, 0], table[:, 1:], Timeframe(timeframe), now_ms=now_ms)


def kept(cleaned):
    return ((cleaned.candles.open_time_ms - START) // STEP).tolist()


def refused(cleaned):
    return {one.row: one.reason for one in cleaned.rejected}


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ((np.nan, 12, 9, 11, 5), "missing or not a number"),
        ((10, 12, 9, 11, np.nan), "missing or not a number"),
        ((10, np.inf, 9, 11, 5), "infinite"),
        ((10, 12, 9, 11, np.inf), "infinite"),
        ((10, 12, 0, 11, 5), "not above 0"),
        ((-10, 12, -11, 11, 5), "not above 0"),
        ((10, 10.5, 9, 11, 5), "high below"),
        ((10, 8, 9, 8.5, 5), "high below"),
        ((10, 12, 10.5, 11, 5), "low above"),
        ((10, 12, 9, 11, -0.1), "negative volume"),
    ],
)
def test_a_row_with_impossible_values_is_rejected_alone(values, reason):
    cleaned = clean([(0, GOOD), (1, values), (2, GOOD)])
    assert kept(cleaned) == [0, 2]
    (rejected,) = cleaned.rejected
    assert (rejected.row, reason in rejected.reason) == (2, True)
    np.testing.assert_array_equal(rejected.values, (START + STEP, *values))


def test_a_row_with_an_impossible_time_is_rejected_alone():
    cleaned = clean(
        [(0, GOOD), (None, GOOD), (1.5, GOOD), (2, GOOD), (3, GOOD), (9, GOOD)], now_ms=START + 4 * STEP - 1
    )
    assert kept(cleaned) == [0, 2]
    assert refused(cleaned) == {
        2: "without an open time",
        3: "with an open time off the 5m grid",
        5: "not closed yet",
        6: "in the future",
    }


def test_the_last_moment_of_a_candle_is_not_its_close():
    rows = [(0, GOOD), (1, GOOD)]
    assert kept(clean(rows, now_ms=START + 2 * STEP - 1)) == [0]
    assert kept(clean(rows, now_ms=START + 2 * STEP)) == [0, 1]


def test_equal_rows_count_once_and_of_different_ones_the_last_holds():
    other = (10.0, 12.0, 9.0, 10.5, 7.0)
    cleaned = clean([(0, GOOD), (1, GOOD), (1, GOOD), (2, GOOD), (2, other), (3, GOOD)])
    assert kept(cleaned) == [0, 1, 2, 3]
    assert cleaned.n_duplicates == 1
    assert cleaned.candles.volume.tolist() == [5, 5, 7, 5]
    assert refused(cleaned) == {4: "replaced by a later row of the same open time"}


def test_a_stretch_that_comes_twice_counts_once():
    cleaned = clean([(at, GOOD) for at in (*range(10), *range(5, 15))])
    assert kept(cleaned) == list(range(15))
    assert (cleaned.n_duplicates, cleaned.rejected) == (5, ())


def test_newest_first_is_an_order_too():
    cleaned = clean([(at, GOOD) for at in range(9, -1, -1)])
    assert (kept(cleaned), cleaned.rejected) == (list(range(10)), ())


def test_a_row_out_of_order_is_rejected_and_the_others_stay():
    cleaned = clean([(at, GOOD) for at in (0, 1, 7, 2, 3, 4, 5, 6, 8)])
    assert kept(cleaned) == [0, 1, 2, 3, 4, 5, 6, 8]
    assert refused(cleaned) == {3: "out of time order"}


@given(order=st.permutations(range(7)))
def test_no_more_rows_than_needed_are_rejected_for_their_order(order):
    def longest(sequence):
        return max(
            n
            for n in range(1, len(sequence) + 1)
            if any(list(part) == sorted(part) for part in combinations(sequence, n))
        )

    # The rows sorted by time stand at these places; most steps down means that the rows are newest first.
    places = [order.index(at) for at in range(7)]
    descends = sum(after < before for before, after in pairwise(places)) > 3
    cleaned = clean([(at, GOOD) for at in order])
    assert len(cleaned.candles) == longest(order[::-1] if descends else order)
    assert len(cleaned.candles) + len(cleaned.rejected) == 7


numbers = st.sampled_from([np.nan, np.inf, -1.0, 0.0, 8.0, 9.0, 10.0, 11.0, 12.0])
rows_of_all_kinds = st.lists(
    st.tuples(
        st.one_of(st.none(), st.integers(0, 12), st.just(3.5)),
        st.one_of(st.just(GOOD), st.tuples(*[numbers] * 5)),
    ),
    min_size=1,
    max_size=25,
)


@given(rows=rows_of_all_kinds)
def test_every_row_is_kept_rejected_or_a_repetition(rows):
    cleaned = clean(rows)
    assert len(cleaned.candles) + len(cleaned.rejected) + cleaned.n_duplicates == len(rows)
    assert len({one.row for one in cleaned.rejected}) == len(cleaned.rejected)
    for at, *values in zip(
        kept(cleaned),
        *(getattr(cleaned.candles, name) for name in ("open", "high", "low", "close", "volume")),
        strict=True,
    ):
        assert (at, tuple(values)) in rows
    for one in cleaned.rejected:
        at, values = rows[one.row - 1]
        np.testing.assert_array_equal(one.values, (START + at * STEP if at is not None else np.nan, *values))


@pytest.mark.parametrize("unit", [1_000, 1, 0.001, 0.000_001])
def test_the_unit_of_a_time_is_told_by_its_magnitude(unit):
    milliseconds = np.array([1_231_006_505_000, START, START + 1, 2_524_608_000_000])
    np.testing.assert_array_equal(to_milliseconds(milliseconds / unit), milliseconds)
    if unit < 1:
        np.testing.assert_array_equal(to_milliseconds((milliseconds / unit).astype(np.int64)), milliseconds)


def test_a_time_between_two_milliseconds_is_off_any_grid():
    times = np.array([START * 1000 + 400, START * 1000 + STEP * 1000])
    cleaned = clean_rows(times, np.array([GOOD, GOOD]), Timeframe("5m"), now_ms=NOW)
    assert refused(cleaned) == {1: "with an open time off the 5m grid"}


def test_the_most_common_step_does_not_mind_gaps_order_or_repetitions():
    times = START + STEP * np.array([5.0, 0, 1, 1, 2, 3, 4, 20, 21, 22, np.nan])
    assert most_common_step(times) == (STEP, 7 / 8)
    assert most_common_step(times[:1]) == (0, 0.0)


def test_reasons_are_counted_with_the_first_rows():
    cleaned = clean([(at, (10, 12, 9, 11, -1)) for at in range(5)] + [(9.5, GOOD), (10, GOOD)])
    assert count_reasons(cleaned.rejected) == (
        "5 with a negative volume (rows 1, 2, 3, …); 1 with an open time off the 5m grid (row 6)"
    )
