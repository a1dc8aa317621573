from __future__ import annotations

import itertools
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from uuid import UUID, uuid4

import pytest

from tradepulse_pipeline.database.connection import Database
from tradepulse_pipeline.database.training_jobs import (
    JobSeries,
    cancel_job,
    create,
    finish_series,
    get,
    list_jobs,
    mark_interrupted,
    report_progress,
    running_run_ids,
    start_series,
)
from tradepulse_pipeline.errors import DatabaseError, InvalidInputError
from tradepulse_pipeline.market.series import SeriesKey
from tradepulse_pipeline.progress import Progress

A, B, C = (SeriesKey.parse(f"binance:{base}-USDT:5m") for base in ("ADA", "BTC", "ETH"))


def new_job(database: Database, *series: SeriesKey, **fields: Any) -> UUID:
    values = {"strategy_name": "S", "config": {}, "seed": 0, "code_version": "1", "user_id": "ada", **fields}
    return create(database, series=series or (A,), **values)


def finish(database: Database, job_id: UUID, series: SeriesKey, status: Any, **fields: Any) -> None:
    values = {"run_id": f"run {series.market.base}", **fields}
    database.run(lambda connection: finish_series(connection, job_id, series, status=status, **values))


def start(database: Database, job_id: UUID, *series: SeriesKey) -> None:
    for key in series:
        start_series(database, job_id, key, run_id=f"run {key.market.base}")


def series_of(database: Database, job_id: UUID, key: SeriesKey) -> JobSeries:
    return next(part for part in get(database, job_id).series if part.series == key)


def test_a_new_job_is_pending_and_keeps_what_was_asked_for(database: Database) -> None:
    config = {"account": {"fee_rate": 0.1 + 0.2}, "pairs": ["A/B"], "budget": None}
    job = get(database, new_job(database, A, B, config=config, seed=2**62, user_id="é" * 60, code_version="1.2"))
    assert (job.status, job.config, job.seed, job.code_version) == ("pending", config, 2**62, "1.2")
    assert job.user_id == "é" * 50
    assert (job.started_at, job.completed_at, job.error_message, job.run_ids) == (None, None, None, ())
    assert [(part.series, part.status) for part in job.series] == [(A, "pending"), (B, "pending")]
    assert job.created_at.utcoffset() is not None


def test_creating_a_job_again_adds_only_the_series_that_it_lacks(database: Database) -> None:
    job_id = uuid4()
    new_job(database, A, job_id=job_id, user_id="first")
    start(database, job_id, A)
    new_job(database, A, B, job_id=job_id, user_id="second")
    job = get(database, job_id)
    assert (job.user_id, job.status) == ("first", "running")
    assert [part.status for part in job.series] == ["running", "pending"]


def test_a_job_needs_a_series(database: Database) -> None:
    with pytest.raises(InvalidInputError, match="at least one series"):
        create(database, strategy_name="S", config={}, series=[], seed=0, code_version="1", user_id="ada")


def test_a_configuration_with_nan_is_refused(database: Database) -> None:
    with pytest.raises(InvalidInputError, match="training configuration cannot be stored"):
        new_job(database, config={"fee_rate": float("nan")})
    assert list_jobs(database) == []


def test_a_job_runs_from_its_first_series_to_its_last(database: Database) -> None:
    job_id = new_job(database, A, B)
    start(database, job_id, A)
    running = get(database, job_id)
    finish(database, job_id, A, "completed")
    between = get(database, job_id)
    start(database, job_id, B)
    finish(database, job_id, B, "completed")
    done = get(database, job_id)
    assert [running.status, between.status, done.status] == ["running", "running", "completed"]
    assert between.completed_at is None
    assert done.started_at == running.started_at
    assert done.completed_at == series_of(database, job_id, B).completed_at
    assert done.run_ids == ("run ADA", "run BTC")


@pytest.mark.parametrize("ends", list(itertools.combinations_with_replacement(["completed", "failed", "cancelled"], 3)))
def test_the_worst_end_of_a_series_is_the_jobs(database: Database, ends: tuple[str, ...]) -> None:
    job_id = new_job(database, A, B, C)
    start(database, job_id, A, B, C)
    for series, end in zip((A, B, C), ends, strict=True):
        assert get(database, job_id).status == "running"
        finish(database, job_id, series, end)
    expected = "failed" if "failed" in ends else "cancelled" if "cancelled" in ends else "completed"
    assert get(database, job_id).status == expected


def test_counts_profits_and_errors_are_summed_up(database: Database) -> None:
    job_id = new_job(database, A, B, C)
    start(database, job_id, A, B)
    progress = Progress(phase="search", done=3, total=10, unit="trials", best=float("nan"))
    assert report_progress(
        database, job_id, A, run_id="run ADA", total_combinations=10, completed_combinations=3, best_net_profit=-5.5
    )
    assert report_progress(
        database, job_id, B, run_id="run BTC", progress=progress, total_combinations=20, failed_combinations=2,
        best_net_profit=1e15, data_fingerprint="f00",
    )  # fmt: skip
    assert report_progress(database, job_id, B, run_id="run BTC", best_net_profit=float("inf"))
    finish(database, job_id, A, "failed", error_message="no candles\0")
    finish(database, job_id, C, "failed", error_message="no such pair")
    job = get(database, job_id)
    assert (job.total_combinations, job.completed_combinations, job.failed_combinations) == (30, 3, 2)
    assert job.best_net_profit == 1e15
    assert job.progress == {
        "series": "binance:BTC-USDT:5m", "phase": "search", "done": 3, "total": 10, "unit": "trials", "best": None,
        "detail": "", "measure": "objective",
    }  # fmt: skip
    assert (
        job.error_message
        == "binance:ADA-USDT:5m: no candles\N{REPLACEMENT CHARACTER}\nbinance:ETH-USDT:5m: no such pair"
    )
    part = series_of(database, job_id, B)
    assert (part.data_fingerprint, part.best_net_profit, part.completed_combinations) == ("f00", 1e15, 0)


def test_a_retry_starts_a_series_over(database: Database) -> None:
    job_id = new_job(database)
    start_series(database, job_id, A, run_id="one")
    report_progress(database, job_id, A, run_id="one", completed_combinations=7)
    finish(database, job_id, A, "failed", run_id="one", error_message="out of memory")
    assert get(database, job_id).status == "failed"
    start_series(database, job_id, A, run_id="two")
    job = get(database, job_id)
    assert (job.status, job.error_message, job.completed_at, job.completed_combinations) == ("running", None, None, 0)
    assert job.run_ids == ("one", "two")


def test_claiming_a_series_twice_keeps_its_progress(database: Database) -> None:
    job_id = new_job(database)
    start(database, job_id, A)
    report_progress(database, job_id, A, run_id="run ADA", completed_combinations=7)
    start(database, job_id, A)
    job = get(database, job_id)
    assert (job.completed_combinations, job.run_ids) == (7, ("run ADA",))


def test_an_orphaned_run_cannot_write_over_the_newer_one(database: Database) -> None:
    job_id = new_job(database)
    start_series(database, job_id, A, run_id="old")
    start_series(database, job_id, A, run_id="new")
    assert not report_progress(database, job_id, A, run_id="old", completed_combinations=99)
    with pytest.raises(DatabaseError, match=r"Run old no longer works on binance:ADA-USDT:5m.*run new does"):
        finish(database, job_id, A, "completed", run_id="old")
    with pytest.raises(DatabaseError, match="Run old no longer works"):
        start_series(database, job_id, A, run_id="old")
    finish(database, job_id, A, "failed", run_id="old", error_message="late")
    part = series_of(database, job_id, A)
    assert (part.status, part.run_id, part.completed_combinations, part.error_message) == ("running", "new", 0, None)


def test_ending_a_series_the_same_way_again_changes_nothing(database: Database) -> None:
    job_id = new_job(database)
    start(database, job_id, A)
    finish(database, job_id, A, "completed")
    before = get(database, job_id)
    finish(database, job_id, A, "completed")
    finish(database, job_id, A, "failed", error_message="after the end")
    assert get(database, job_id) == before


def test_a_cancelled_job_stops_its_runs_and_takes_no_result(database: Database) -> None:
    job_id = new_job(database, A, B, C)
    start(database, job_id, A, B)
    finish(database, job_id, A, "completed")
    cancel_job(database, job_id)
    job = get(database, job_id)
    assert job.status == "cancelled"
    assert [part.status for part in job.series] == ["completed", "cancelled", "cancelled"]
    assert not report_progress(database, job_id, B, run_id="run BTC", completed_combinations=1)
    for attempt in (
        lambda: finish(database, job_id, B, "completed"),
        lambda: start(database, job_id, B),
        lambda: start(database, job_id, C),
    ):
        with pytest.raises(DatabaseError, match="was cancelled"):
            attempt()
    cancel_job(database, job_id)
    assert get(database, job_id) == job


def test_what_a_killed_process_left_running_is_marked_failed(database: Database) -> None:
    gone, alive = new_job(database, A, B), new_job(database, A)
    start(database, gone, A)
    start_series(database, alive, A, run_id="alive")
    assert running_run_ids(database) == ["alive", "run ADA"]
    assert mark_interrupted(database, "its process is gone", run_ids=["run ADA"]) == [gone]
    assert [part.status for part in get(database, gone).series] == ["failed", "pending"]
    assert mark_interrupted(database, "its process is gone", job_ids=[gone]) == [gone]
    job = get(database, gone)
    assert job.status == "failed"
    assert job.error_message == ("binance:ADA-USDT:5m: its process is gone\nbinance:BTC-USDT:5m: its process is gone")
    assert get(database, alive).status == "running"
    assert mark_interrupted(database, "again", run_ids=["run ADA"], job_ids=[gone]) == []


def test_series_of_one_job_that_end_at_the_same_time_are_all_counted(database: Database) -> None:
    keys = [SeriesKey.of("binance", f"C{i}/USDT", "5m") for i in range(16)]
    job_id = new_job(database, *keys)

    def train(key: SeriesKey) -> None:
        start(database, job_id, key)
        report_progress(database, job_id, key, run_id=f"run {key.market.base}", completed_combinations=1)
        finish(database, job_id, key, "completed")

    with ThreadPoolExecutor(16) as pool:
        list(pool.map(train, keys))
    job = get(database, job_id)
    assert (job.status, job.completed_combinations) == ("completed", 16)
    assert sorted(job.run_ids) == sorted(f"run {key.market.base}" for key in keys)


def test_jobs_are_listed_latest_first_and_by_status(database: Database) -> None:
    ids = [new_job(database) for _ in range(3)]
    start(database, ids[0], A)
    assert [job.id for job in list_jobs(database)] == ids[::-1]
    assert [job.id for job in list_jobs(database, limit=2)] == ids[:0:-1]
    assert [job.id for job in list_jobs(database, status="running")] == [ids[0]]
    with pytest.raises(InvalidInputError, match=r"Unknown status 'done'.*completed"):
        list_jobs(database, status="done")


def test_unknown_jobs_and_series_are_named(database: Database) -> None:
    job_id, unknown = new_job(database), uuid4()
    for attempt in (
        lambda: get(database, unknown),
        lambda: cancel_job(database, unknown),
        lambda: start_series(database, unknown, A, run_id="r"),
    ):
        with pytest.raises(InvalidInputError, match=f"no training job {unknown}.*tradepulse jobs"):
            attempt()
    with pytest.raises(InvalidInputError, match="does not cover binance:BTC-USDT:5m"):
        start_series(database, job_id, B, run_id="r")


def test_metacharacters_in_names_are_inert(database: Database) -> None:
    text = "'); DROP TABLE training_jobs; -- %s \"{}"
    job_id = new_job(database, strategy_name=text, user_id=text, config={text: text})
    start_series(database, job_id, A, run_id=text)
    finish(database, job_id, A, "failed", run_id=text, error_message=text)
    job = get(database, job_id)
    assert (job.strategy_name, job.user_id, job.config, job.run_ids) == (text, text, {text: text}, (text,))
    assert job.series[0].error_message == text
