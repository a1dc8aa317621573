"""Which errors of a step are worth another attempt, and which are not."""

from __future__ import annotations

from pathlib import Path

import dagster as dg
import psycopg2.errors
import pytest
import requests
import sqlalchemy.exc
import yaml

from tradepulse_pipeline.database.connection import Database
from tradepulse_pipeline.errors import DatabaseError, InvalidInputError, SourceError, SourceUnreachableError
from tradepulse_pipeline.market.sources.http import FIRST_CONTACT, Reply, Retrying, TransientError, refuse, request_once
from tradepulse_pipeline.orchestration import failures
from tradepulse_pipeline.orchestration.executor import cancellable_executor
from tradepulse_pipeline.orchestration.failures import PATIENCE, told_plainly, why_run_failed
from tradepulse_pipeline.orchestration.names import RUN_RETRIES_TAG, WILL_RETRY_TAG
from tradepulse_pipeline_tests.orchestration.conftest import ROOT


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(failures, "PATIENCE", dg.RetryPolicy(max_retries=3, delay=0))


def given_up(error: TransientError) -> SourceError:
    """Return what a source raises that has been patient with ``error`` for as long as it may."""

    def ask() -> None:
        raise error

    try:
        Retrying(name="binance", sleep=lambda _: None).ask("candles", ask, FIRST_CONTACT)
    except SourceError as given_up:
        return given_up
    raise AssertionError


def passed_on(error: SourceError) -> SourceError:
    """Return the error as it is told with the ways out, as the ingestion does."""
    try:
        raise type(error)(f"{error} Import candle files.") from error
    except SourceError as told:
        return told


def refused(status: int) -> SourceError:
    try:
        refuse("binance", "http://binance/klines", Reply(status, "", {}, b""))
    except SourceError as error:
        return error
    raise AssertionError


AWAY = given_up(TransientError("no connection", is_answered=False))


def run_step(errors: list[Exception], tags: dict[str, str] | None = None) -> tuple[int, dg.DagsterRun, str]:
    """Run a step whose attempts raise ``errors`` in order, then succeed; return attempts, run, and why it failed."""
    attempts = 0

    @dg.op
    def step() -> None:
        nonlocal attempts
        attempts += 1
        with told_plainly():
            if attempts <= len(errors):
                raise errors[attempts - 1]

    @dg.job(executor_def=cancellable_executor)
    def work() -> None:
        step()

    with dg.DagsterInstance.ephemeral() as instance:
        done = work.execute_in_process(instance=instance, raise_on_error=False, tags=tags)
        run = instance.get_run_by_id(done.run_id)
        assert run is not None
        return attempts, run, why_run_failed(instance, run.run_id)


@pytest.mark.parametrize("error", [AWAY, passed_on(AWAY), refused(503)], ids=["away", "told with ways out", "503"])
def test_what_may_pass_is_tried_again_until_it_has_passed(error: SourceError) -> None:
    attempts, run, _ = run_step([error, error])
    assert (attempts, run.status) == (3, dg.DagsterRunStatus.SUCCESS)


def test_after_the_last_attempt_the_run_fails_with_the_sentence() -> None:
    attempts, run, reason = run_step([AWAY] * 9)
    assert (attempts, run.status) == (1 + PATIENCE.max_retries, dg.DagsterRunStatus.FAILURE)
    assert reason == str(AWAY)


@pytest.mark.parametrize(
    "error",
    [
        InvalidInputError("train_days: found 0."),
        SourceUnreachableError("There is no folder."),
        refused(403),
        refused(418),
        given_up(TransientError("slow down", is_answered=True, retry_after_s=3_600.0)),
        ZeroDivisionError("a mistake in the code"),
    ],
    ids=["wrong value", "no folder", "forbidden", "banned", "asks for an hour", "bug"],
)
def test_what_would_only_fail_again_is_not(error: Exception) -> None:
    attempts, run, reason = run_step([error])
    assert (attempts, run.status) == (1, dg.DagsterRunStatus.FAILURE)
    assert str(error) in reason


def test_where_somebody_waits_at_the_terminal_nothing_is_tried_again() -> None:
    attempts, _, reason = run_step([AWAY], {RUN_RETRIES_TAG: "0"})
    assert (attempts, reason) == (1, str(AWAY))


def test_the_waits_grow() -> None:
    assert PATIENCE.backoff is dg.Backoff.EXPONENTIAL
    waits = [dg.RetryPolicy(delay=PATIENCE.delay, backoff=PATIENCE.backoff).calculate_delay(n) for n in (1, 2, 3)]
    assert waits == [5, 15, 35]


#: What Dagster's driver raises in the step of ``work``.
DRIVER_ERRORS = {
    "closed": psycopg2.OperationalError("server closed the connection unexpectedly"),
    "shut down": psycopg2.errors.AdminShutdown("terminating connection due to administrator command"),
    "no room": psycopg2.errors.DiskFull("no space left on device"),
}


@dg.op(config_schema=str)
def step(context) -> None:
    if context.op_config == "given up":
        context.instance.report_run_failed(context.run, "Its worker gave no sign.")
        raise DatabaseError("A newer run works on it.")
    error = DRIVER_ERRORS[context.op_config]
    raise sqlalchemy.exc.OperationalError("SELECT 1", {}, error) from error


@dg.job(executor_def=cancellable_executor)
def work() -> None:
    step()


def is_tried_again(error: str, tmp_path: Path, tags: dict[str, str] | None = None) -> bool:
    """Return whether a run is, whose step failed as Dagster's storage raised ``error``, by what dagster.yaml says."""
    run_retries = yaml.safe_load((ROOT / "dagster.yaml").read_text())["run_retries"]
    config = {"ops": {"step": {"config": error}}}
    with dg.instance_for_test(overrides={"run_retries": run_retries}, temp_dir=str(tmp_path)) as instance:
        done = dg.execute_job(dg.reconstructable(work), instance, run_config=config, tags=tags)
        run = instance.get_run_by_id(done.run_id)
        assert run is not None
        assert run.status is dg.DagsterRunStatus.FAILURE
        return run.tags[WILL_RETRY_TAG] == "true"


@pytest.mark.parametrize("error", ["closed", "shut down"])
def test_a_run_in_which_dagster_lost_its_database_is_tried_again(error: str, tmp_path: Path) -> None:
    assert is_tried_again(error, tmp_path)


def test_a_run_that_was_given_up_is_tried_again_though_it_finds_out_and_fails(tmp_path: Path) -> None:
    assert is_tried_again("given up", tmp_path)


def test_a_run_whose_database_has_no_room_is_not(tmp_path: Path) -> None:
    assert not is_tried_again("no room", tmp_path)


def test_nor_is_one_that_somebody_waits_for_at_the_terminal(tmp_path: Path) -> None:
    assert not is_tried_again("closed", tmp_path, {RUN_RETRIES_TAG: "0"})


def test_a_database_that_is_away_may_come_back() -> None:
    with pytest.raises(DatabaseError) as raised:
        Database("postgresql://ada@127.0.0.1:1/x", patience_seconds=0.1).run(lambda connection: None)
    assert raised.value.may_pass


def test_a_name_that_is_wrong_stays_wrong(database: Database) -> None:
    nowhere = database.url.replace("/postgres?", "/nowhere?")
    assert nowhere != database.url
    with pytest.raises(DatabaseError, match="nowhere") as raised:
        Database(nowhere, patience_seconds=0.1).run(lambda connection: None)
    assert not raised.value.may_pass


def test_no_connection_may_pass() -> None:
    with pytest.raises(TransientError) as raised:
        request_once(requests.Session(), "binance", "http://127.0.0.1:1/klines", deadline_s=2.0)
    assert raised.value.may_pass
