from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tradepulse_pipeline.errors import InsufficientHistoryError, InvalidInputError
from tradepulse_pipeline.market.series import MS_PER_DAY, Timeframe
from tradepulse_pipeline.validation.windows import WindowSettings, days_needed, latest_train, make_windows

START = 1_704_067_200_000  # 2024-01-01
HOUR = Timeframe("1h")
HOUR_MS = 3_600_000


def hourly(n_hours, start=START):
    return start + HOUR_MS * np.arange(n_hours, dtype=np.int64)


@pytest.mark.parametrize(("days", "n_windows"), [(120, 1), (149, 1), (150, 2), (365, 9), (366, 9), (730, 21)])
def test_twelve_months_give_nine_windows(days, n_windows):
    assert len(make_windows(hourly(24 * days), HOUR, WindowSettings())) == n_windows


def test_the_first_windows_of_a_year_by_hand():
    first, second, *_ = make_windows(hourly(24 * 365), HOUR, WindowSettings())
    assert (first.train, first.test) == ((0, 90 * 24), (97 * 24, 120 * 24))
    assert (second.train, second.test) == ((30 * 24, 120 * 24), (127 * 24, 150 * 24))
    assert (first.index, second.index) == (0, 1)
    assert first.train_start_ms == START
    assert first.train_end_ms == START + 90 * MS_PER_DAY
    assert first.test_start_ms == START + 97 * MS_PER_DAY
    assert first.test_end_ms == START + 120 * MS_PER_DAY


@st.composite
def histories(draw):
    """Hourly open times that start at any hour, with holes."""
    n = draw(st.integers(24 * 6, 24 * 40))
    keep = np.ones(n, dtype=bool)
    for _ in range(draw(st.integers(0, 3))):
        a = draw(st.integers(1, n - 2))
        keep[a : min(n - 1, a + draw(st.integers(1, 24 * 9)))] = False
    return hourly(n, START + HOUR_MS * draw(st.integers(0, 23)))[keep]


@st.composite
def walk_forward_settings(draw):
    train, test = draw(st.integers(1, 6)), draw(st.integers(1, 4))
    gap = draw(st.integers(0, test - 1))
    step = draw(st.one_of(st.none(), st.integers(test - gap, 8)))
    return WindowSettings(train_days=train, test_days=test, gap_days=gap, step_days=step)


def windows_by_brute_force(times, settings):
    """Look at each candle of each window on its own."""
    end = times[-1] + HOUR_MS
    step = settings.test_days if settings.step_days is None else settings.step_days
    found, index, start = [], 0, times[0]
    while start + (settings.train_days + settings.test_days) * MS_PER_DAY <= end:
        days = [(time - start) / MS_PER_DAY for time in times]
        train = [bar for bar, day in enumerate(days) if 0 <= day < settings.train_days]
        test = [
            bar
            for bar, day in enumerate(days)
            if settings.train_days + settings.gap_days <= day < settings.train_days + settings.test_days
        ]
        if train and test:
            found.append((index, train, test))
        index, start = index + 1, start + step * MS_PER_DAY
    return found


@given(times=histories(), settings=walk_forward_settings())
def test_walk_forward_equals_a_count_candle_by_candle(times, settings):
    expected = windows_by_brute_force(times.tolist(), settings)
    if not expected:
        with pytest.raises(InsufficientHistoryError):
            make_windows(times, HOUR, settings)
        return
    windows = make_windows(times, HOUR, settings)
    assert [(w.index, list(range(*w.train)), list(range(*w.test))) for w in windows] == expected


@given(times=histories(), settings=walk_forward_settings())
def test_train_comes_before_test_and_test_windows_do_not_overlap(times, settings):
    try:
        windows = make_windows(times, HOUR, settings)
    except InsufficientHistoryError:
        return
    for window in windows:
        assert window.train.stop <= window.test.start
        assert times[window.test.start] - times[window.train.stop - 1] > settings.gap_days * MS_PER_DAY
    for before, after in pairwise(windows):
        assert before.test.stop <= after.test.start


def test_too_short_a_history_says_how_many_days_there_are_and_how_many_are_needed():
    with pytest.raises(InsufficientHistoryError, match=r"100\.5 days long; one walk_forward window needs 120 days"):
        make_windows(hourly(2_412), HOUR, WindowSettings())
    with pytest.raises(InsufficientHistoryError, match=r"119\.9 days long"):
        make_windows(hourly(24 * 120 - 1), HOUR, WindowSettings())
    with pytest.raises(InsufficientHistoryError, match="is 0 days long"):
        latest_train(hourly(0), HOUR, WindowSettings())
    with pytest.raises(InsufficientHistoryError, match=r"26 days long; one train_test_split window needs 27 days"):
        make_windows(hourly(24 * 26), HOUR, WindowSettings(scheme="train_test_split"))


def test_windows_without_candles_are_left_out_and_a_history_of_holes_is_refused():
    times = hourly(24 * 30)
    settings = WindowSettings(train_days=4, test_days=3, gap_days=1)
    holed = times[(times < START + 8 * MS_PER_DAY) | (times >= START + 10 * MS_PER_DAY)]
    assert [w.index for w in make_windows(times, HOUR, settings)] == list(range(8))
    assert [w.index for w in make_windows(holed, HOUR, settings)] == [0, *range(2, 8)]
    ends = times[[0, -1]]
    with pytest.raises(InsufficientHistoryError, match=r"None of the 8 windows .* 30\.0 days has gaps too long"):
        make_windows(ends, HOUR, settings)


def test_latest_train_window_ends_with_the_data():
    times = hourly(24 * 400 + 5)
    assert latest_train(times, HOUR, WindowSettings()) == (24 * 310 + 5, 24 * 400 + 5)
    split = WindowSettings(scheme="train_test_split", train_ratio=0.5)
    assert latest_train(hourly(24 * 100), HOUR, split) == (24 * 50, 24 * 100)


def test_train_test_split_has_the_gap_at_its_seam():
    (window,) = make_windows(hourly(24 * 100), HOUR, WindowSettings(scheme="train_test_split"))
    assert (window.train, window.test) == ((0, 24 * 70), (24 * 77, 24 * 100))
    assert window.test_end_ms == START + 100 * MS_PER_DAY


@given(
    n_hours=st.integers(24 * 30, 24 * 60),
    ratio=st.floats(0.2, 0.7),
    gap=st.integers(0, 5),
)
def test_train_test_split_cuts_at_a_whole_candle_and_leaves_a_day_to_test(n_hours, ratio, gap):
    settings = WindowSettings(scheme="train_test_split", train_ratio=ratio, gap_days=gap)
    (window,) = make_windows(hourly(n_hours), HOUR, settings)
    assert window.train.start == 0
    assert abs(window.train.stop - n_hours * ratio) <= 0.5
    assert window.test == (window.train.stop + 24 * gap, n_hours)
    assert window.test.stop - window.test.start >= 24


@pytest.mark.parametrize(("ratio", "gap", "days"), [(0.9, 7, 80), (0.5, 0, 2), (0.1, 0, 10), (0.7, 7, 27)])
def test_days_that_a_split_needs(ratio, gap, days):
    settings = WindowSettings(scheme="train_test_split", train_ratio=ratio, gap_days=gap)
    assert days_needed(settings) == days
    make_windows(hourly(24 * days), HOUR, settings)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"scheme": "walkforward"}, "Did you mean 'walk_forward'"),
        ({"train_days": 0}, "train_days: found 0, expected a whole number of days, at least 1"),
        ({"test_days": 0}, "test_days: found 0"),
        ({"gap_days": -1}, "gap_days: found -1"),
        ({"gap_days": 30}, r"gap_days: found 30, expected less than test_days \(30\)"),
        ({"step_days": 22}, "step_days: found 22, expected at least test_days - gap_days = 23"),
        ({"train_ratio": 1.0}, "train_ratio: found 1.0, expected a fraction between 0 and 1"),
        ({"train_ratio": float("nan")}, "train_ratio: found nan"),
    ],
)
def test_a_setting_that_is_not_allowed_is_named(fields, message):
    with pytest.raises(InvalidInputError, match=message):
        WindowSettings(**fields)
