"""Working ahead of the consumer, and the turns of those who ask one venue."""

from __future__ import annotations

import threading
import time

import pytest

from tradepulse_pipeline.market.sources.ahead import ahead
from tradepulse_pipeline.market.sources.pace import LocalPace, local_pace


def until(condition):
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.001)


def test_results_come_in_order_whoever_is_first():
    def work(task):
        time.sleep(0.002 * (task % 3))
        return task * task

    assert list(ahead(work, range(20), n_threads=4)) == [task * task for task in range(20)]
    assert list(ahead(work, range(0), n_threads=4)) == []


def test_several_tasks_are_worked_on_at_once():
    together = threading.Barrier(4, timeout=10)
    assert sorted(ahead(lambda task: (together.wait(), task)[1], range(8), n_threads=4)) == list(range(8))


def test_no_more_than_a_few_tasks_are_begun_before_they_are_wanted():
    begun = []
    results = ahead(begun.append, range(100), n_threads=3)
    next(results)
    until(lambda: len(begun) == 6)
    time.sleep(0.01)
    assert len(begun) == 6
    results.close()


def test_an_error_is_raised_in_its_place():
    def work(task):
        if task == 3:
            raise ValueError("three")
        return task

    results = ahead(work, range(8), n_threads=4)
    assert [next(results) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(ValueError, match="three"):
        next(results)


def test_nothing_begins_after_the_end_and_the_threads_end():
    begun, go_on = [], threading.Event()
    before = set(threading.enumerate())

    def work(task):
        begun.append(task)
        if task:
            go_on.wait(10)

    results = ahead(work, range(50), n_threads=2)
    next(results)
    until(lambda: len(begun) == 3)
    results.close()
    go_on.set()
    until(lambda: set(threading.enumerate()) <= before)
    assert begun == [0, 1, 2]


class Clock:
    """A clock that moves only while somebody sleeps; ``on_sleep`` is what happens meanwhile."""

    def __init__(self):
        self.now = 100.0
        self.on_sleep = lambda: None

    def __call__(self):
        return self.now

    def sleep(self, seconds):
        self.now += seconds
        happens, self.on_sleep = self.on_sleep, lambda: None
        happens()


def test_turns_are_spaced_by_what_each_uses_up():
    clock = Clock()
    pace, turns = LocalPace(clock=clock, sleep=clock.sleep), []
    for seconds in (2.0, 0.5, 1.0, 1.0):
        pace.wait(seconds)
        turns.append(clock.now)
    assert turns == [100.0, 102.0, 102.5, 103.5]


def test_a_hold_counts_for_those_who_wait_already():
    clock = Clock()
    pace = LocalPace(clock=clock, sleep=clock.sleep)
    pace.wait(1.0)
    clock.on_sleep = lambda: pace.hold(30.0)
    pace.wait(1.0)
    assert clock.now == 101.0 + 30.0
    pace.hold(5.0)
    pace.wait(1.0)
    assert clock.now == 136.0


def test_a_process_has_one_pace_for_each_venue():
    assert local_pace("binance") is local_pace("binance")
    assert local_pace("binance") is not local_pace("kraken")
