"""An interrupt ends what it is meant to end, wherever it comes."""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Iterator

import dagster as dg
import pytest

from tradepulse_pipeline.orchestration.executor import cancellable_executor
from tradepulse_pipeline.processes import interrupts_arrive


@pytest.fixture(autouse=True)
def interruptible() -> Iterator[None]:
    """Whoever runs the tests in the background may ignore Ctrl-C, and they inherit it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


class Finalised:
    """Whose finaliser is where an interrupt comes, or an error."""

    def __init__(self, error: Exception | None = None) -> None:
        self.error = error

    def __del__(self) -> None:
        if self.error:
            raise self.error
        signal.raise_signal(signal.SIGINT)


def finalise(error: Exception | None = None) -> None:
    Finalised(error)


def test_an_interrupt_in_a_finaliser_is_repeated_until_it_ends_something() -> None:
    def work() -> None:
        with interrupts_arrive():
            finalise()
            time.sleep(20)
            raise AssertionError("the interrupt got lost")

    with pytest.raises(KeyboardInterrupt):
        work()


def test_it_ends_nothing_that_comes_later() -> None:
    with interrupts_arrive():
        finalise()
    time.sleep(0.1)


def test_other_errors_in_finalisers_are_reported_as_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    reported: list[object] = []
    monkeypatch.setattr(sys, "unraisablehook", lambda ignored: reported.append(ignored.exc_value))
    error = ValueError("in a finaliser")
    with interrupts_arrive():
        finalise(error)
    assert reported == [error]


@dg.op
def step() -> None:
    finalise()
    time.sleep(20)


@dg.job(executor_def=cancellable_executor)
def work() -> None:
    step()


def test_a_run_whose_interrupt_came_in_a_finaliser_is_cancelled() -> None:
    with dg.instance_for_test() as instance:
        done = dg.execute_job(dg.reconstructable(work), instance)
        run = instance.get_run_by_id(done.run_id)
        assert run is not None
        assert run.status is dg.DagsterRunStatus.CANCELED
