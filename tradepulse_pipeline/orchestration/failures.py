"""Errors that a user can mend, shown on the run's page as the sentence that they are."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import dagster as dg

from tradepulse_pipeline.errors import TradePulseError


@contextmanager
def told_plainly() -> Iterator[None]:
    """Turn TradePulse's own errors into Dagster failures; trying the same again would not help."""
    try:
        yield
    except TradePulseError as error:
        raise dg.Failure(description=str(error), allow_retries=False) from error


def first_error(step_failures: Sequence[dg.DagsterEvent]) -> str | None:
    """Return, in its own words, the error that a run failed with; None when no step of it failed."""
    for event in step_failures:
        failure = event.step_failure_data
        if failure.user_failure_data and failure.user_failure_data.description:
            return failure.user_failure_data.description
        if failure.error:
            return (failure.error.cause or failure.error).message.strip()
    return None
