"""Errors that a user can mend, shown on the run's page as the sentence that they are."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Final

import dagster as dg

from tradepulse_pipeline.errors import TradePulseError
from tradepulse_pipeline.orchestration.names import RUN_RETRIES_TAG

#: When a step is tried again after a fault that may pass, once the patience of sources and database has ended: after
#: about 5, 15 and 35 seconds. A cancelled run ends within the wait. It is not given to Dagster as the policy of a
#: step: then a step that is cancelled would be tried again, too.
PATIENCE: Final = dg.RetryPolicy(max_retries=3, delay=5, backoff=dg.Backoff.EXPONENTIAL, jitter=dg.Jitter.PLUS_MINUS)

#: What Dagster's driver raises when the server hangs up, shuts down or starts. A full disk has an error of its own.
_BROKEN_CONNECTION: Final = ("OperationalError", "InterfaceError", "AdminShutdown", "CrashShutdown", "CannotConnectNow")


@contextmanager
def told_plainly() -> Iterator[None]:
    """Turn TradePulse's own errors into Dagster failures, or into another attempt where the fault may pass.

    All steps say through this which of their errors are worth another attempt: those that ``may_pass``. The run's own
    tag for retries, when it is 0, says that nobody waits for one.
    """
    try:
        yield
    except TradePulseError as error:
        if not _may_pass(error):
            raise dg.Failure(description=str(error), allow_retries=False) from error
        context = dg.OpExecutionContext.get()
        attempt = context.retry_number + 1
        if attempt > PATIENCE.max_retries or context.run.tags.get(RUN_RETRIES_TAG) == "0":
            raise dg.Failure(description=str(error), allow_retries=False) from error
        wait_s = PATIENCE.calculate_delay(attempt)
        context.log.warning(f"{error} This may pass: attempt {attempt + 1} follows in {wait_s:.0f} s.")
        raise dg.RetryRequested(max_retries=PATIENCE.max_retries, seconds_to_wait=wait_s) from error


def _may_pass(error: BaseException | None) -> bool:
    while isinstance(error, TradePulseError):
        if error.may_pass:
            return True
        error = error.__cause__
    return False


def lost_dagsters_database(event: dg.DagsterEvent) -> bool:
    """Return whether a step failed since Dagster, in the midst of it, lost the connection to its database.

    TradePulse's own connections have their patience, and their errors say what they are: see ``told_plainly``.
    """
    if not event.is_step_failure or event.step_failure_data.user_failure_data:
        return False
    error = event.step_failure_data.error
    while error is not None and error.cause is not None:
        error = error.cause
    return error is not None and error.cls_name in _BROKEN_CONNECTION


def first_error(step_failures: Sequence[dg.DagsterEvent]) -> str | None:
    """Return, in its own words, the error that a run failed with; None when no step of it failed."""
    for event in step_failures:
        failure = event.step_failure_data
        if failure.user_failure_data and failure.user_failure_data.description:
            return failure.user_failure_data.description
        if failure.error:
            return (failure.error.cause or failure.error).message.strip()
    return None


def why_run_failed(instance: dg.DagsterInstance, run_id: str) -> str:
    """Return why a run failed: the check that stopped it, the first error of a step, or what Dagster says of it."""
    kinds = {
        dg.DagsterEventType.ASSET_CHECK_EVALUATION,
        dg.DagsterEventType.STEP_FAILURE,
        dg.DagsterEventType.RUN_FAILURE,
    }
    events = [entry.get_dagster_event() for entry in instance.all_logs(run_id, of_type=kinds)]
    for event in events:
        if event.event_type is dg.DagsterEventType.ASSET_CHECK_EVALUATION:
            check = event.asset_check_evaluation_data
            if check.blocking and not check.passed and check.severity is dg.AssetCheckSeverity.ERROR:
                return (
                    check.description or f"The check {check.check_name} of {check.asset_key.to_user_string()} failed."
                )
    error = first_error([event for event in events if event.is_step_failure])
    ends = [event.message for event in events if event.is_run_failure and event.message]
    return error or next(iter(ends), "The process of the run ended without a word.")
