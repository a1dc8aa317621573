"""The lines by which a run's page says how far it is: soon, true, and few."""

from __future__ import annotations

from dataclasses import replace

from tradepulse_pipeline.orchestration.progress import Narrator
from tradepulse_pipeline.progress import Progress

HALF = Progress(
    phase="search",
    done=500,
    total=1_000,
    unit="trials",
    best=1234.5,
    measure="net profit",
    detail="train window 1 of 2",
)


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def told(steps):
    """Tell a narrator of progress at seconds after its start, and return its lines with the second of each."""
    clock, lines = Clock(), []
    narrate = Narrator("a:B-C:5m", lambda line: lines.append((round(clock.now - 100.0, 3), line)), clock=clock)
    for second, progress in steps:
        clock.now = 100.0 + second
        narrate(progress)
    return lines


def test_a_line_says_how_far_it_is_what_is_best_and_what_is_left():
    assert told([(1.9, HALF), (4.0, HALF)]) == [
        (
            4.0,
            "Search of a:B-C:5m: 500 of 1,000 trials (50%), train window 1 of 2, best net profit so far 1,234.50 "
            "in-sample; about 4 s left.",
        )
    ]


def test_what_is_left_is_judged_by_the_latest_pace():
    recalled = [(2.0, replace(HALF, done=900)), (10.0, replace(HALF, done=908))]
    assert [line.rpartition("; ")[2] for _, line in told(recalled)] == ["about 0 s left.", "about 1 min 32 s left."]


def test_the_end_is_said_once_however_soon_it_comes():
    done = Progress(phase="walk_forward", done=9, total=9, unit="windows")
    assert told([(0.1, replace(done, done=8)), (0.2, done), (0.3, done)]) == [
        (0.2, "Walk-forward of a:B-C:5m: 9 of 9 windows (100%); it took 0 s.")
    ]


def test_a_second_source_of_candles_is_told_of_as_well():
    part = Progress(phase="candles", done=50, total=50, unit="candles")
    lines = told([(1.0, part), (4.0, replace(part, total=90)), (5.0, replace(part, done=90, total=90))])
    counts = [line.partition(": ")[2].partition(" candles")[0] for _, line in lines]
    assert counts == [
        "50 of 50",
        "50 of 90",
        "90 of 90",
    ]


def test_standing_still_promises_nothing():
    assert [line.endswith("in-sample.") for _, line in told([(3.0, HALF), (6.0, HALF)])] == [False, True]


def test_an_hour_has_some_sixty_lines_and_a_day_some_ninety():
    counts = [
        len(told((second / 2, replace(HALF, done=second, total=10**9)) for second in range(2 * span)))
        for span in (60, 3_600, 86_400)
    ]
    assert 15 < counts[0] < 25
    assert 50 < counts[1] < 70
    assert 80 < counts[2] < 105
