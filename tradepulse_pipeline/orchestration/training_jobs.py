"""The training job behind a run: created where it is missing, told of progress, and never left 'running'."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict
from functools import partial
from typing import Final, Literal
from uuid import UUID

import dagster as dg
from dagster._core.errors import DagsterExecutionInterruptedError

import tradepulse_pipeline
from tradepulse_pipeline.database import training_jobs
from tradepulse_pipeline.database.connection import Database
from tradepulse_pipeline.errors import InvalidInputError
from tradepulse_pipeline.market.history import HistorySettings
from tradepulse_pipeline.market.series import SeriesKey
from tradepulse_pipeline.orchestration.artifacts import Guard
from tradepulse_pipeline.orchestration.names import PARTITION_TAG, TRAINING_JOB_TAG
from tradepulse_pipeline.orchestration.progress import listener
from tradepulse_pipeline.progress import Progress, ProgressListener
from tradepulse_pipeline.strategies.base import Strategy
from tradepulse_pipeline.validation.training import TrainingSettings

#: Progress goes to the database at most twice a second.
REPORT_EVERY_S: Final = 0.5

#: And to the run's log every few seconds, for whoever follows the run in the web UI.
LOG_EVERY_S: Final = 5.0


def job_id_of(run: dg.DagsterRun) -> UUID:
    """Return the training job of a run: the one in its tag, else the run is one by itself, with its own id."""
    return UUID(run.tags.get(TRAINING_JOB_TAG, run.run_id))


def claim_job(
    context: dg.AssetExecutionContext,
    database: Database,
    strategy: Strategy,
    series: Sequence[SeriesKey],
    training: TrainingSettings,
    history: HistorySettings | None = None,
) -> UUID:
    """Return the run's training job, with ``series`` claimed by the run; it is created where a person launched the run.

    Raises
    ------
    DatabaseError
        If a series was cancelled, or a newer run works on it.
    """
    job_id = training_jobs.create(
        database,
        job_id=job_id_of(context.run),
        strategy_name=strategy.name,
        config={"training": training.to_json_dict(), "history": None if history is None else asdict(history)},
        series=series,
        seed=training.search.seed,
        code_version=tradepulse_pipeline.__version__,
        user_id=context.run.tags.get("user", "web UI"),
    )
    for one in series:
        training_jobs.start_series(database, job_id, one, run_id=context.run.run_id)
    return job_id


def claim_tagged_job(context: dg.AssetExecutionContext, database: Database, series: Sequence[SeriesKey]) -> UUID | None:
    """Claim ``series`` of the job in the run's tag; None for a run without one, where no job need be."""
    if TRAINING_JOB_TAG not in context.run.tags:
        return None
    job_id = job_id_of(context.run)
    for one in series:
        training_jobs.start_series(database, job_id, one, run_id=context.run.run_id)
    return job_id


def guard(context: dg.AssetExecutionContext, database: Database, job_id: UUID, series: SeriesKey) -> Guard:
    """Return the guard of files that belong to the training of ``series``: a run that has lost it writes none.

    Its parent may be dead, the run counted as failed and tried again, and its step go on all the same.
    """
    return partial(training_jobs.while_claimed, database, job_id, series, run_id=context.run.run_id)


def reporter(
    context: dg.AssetExecutionContext, database: Database, job_id: UUID | None, series: SeriesKey
) -> ProgressListener:
    """Return who is to be told of progress: whoever listens in this process, and the training job if there is one.

    Told by the database that the training was cancelled, it ends the run as cancelled.
    """
    tell, last, last_logged = listener(), -REPORT_EVERY_S, time.monotonic()

    def report(progress: Progress) -> None:
        nonlocal last, last_logged
        tell(progress)
        now = time.monotonic()
        if now - last_logged >= LOG_EVERY_S:
            last_logged = now
            context.log.info(_sentence(series, progress))
        if job_id is None or (now - last < REPORT_EVERY_S and progress.done < progress.total):
            return
        last = now
        is_search = progress.phase == "search"
        goes_on = training_jobs.report_progress(
            database,
            job_id,
            series,
            run_id=context.run.run_id,
            progress=progress,
            total_combinations=progress.total if is_search else None,
            completed_combinations=progress.done if is_search else None,
        )
        if not goes_on:
            context.log.warning(f"Training job {job_id}: {series} was cancelled or taken over. This run stops.")
            raise DagsterExecutionInterruptedError

    return report


def end_job(database: Database, run: dg.DagsterRun, status: Literal["failed", "cancelled"], error: str | None) -> None:
    """Mark the series that a run worked on, or was to work on, as ended; what has ended before stays as it is."""
    job_id = job_id_of(run)
    try:
        job = training_jobs.get(database, job_id)
    except InvalidInputError:
        return  # the run trained nothing, or failed before it was a training job
    for one in job.series:
        if one.run_id == run.run_id or str(one.series) == run.tags.get(PARTITION_TAG):
            end_series(database, job_id, one.series, run.run_id, status, error)


def end_series(
    database: Database,
    job_id: UUID,
    series: SeriesKey,
    run_id: str,
    status: Literal["failed", "cancelled"],
    error: str | None,
) -> None:
    """Mark one series of a training job as ended, unless it has ended before."""
    database.run(
        lambda connection: training_jobs.finish_series(
            connection, job_id, series, run_id=run_id, status=status, error_message=error
        )
    )


def _sentence(series: SeriesKey, progress: Progress) -> str:
    detail = f", {progress.detail}" if progress.detail else ""
    return f"{series}, {progress.phase}: {progress.done:,} of {progress.total:,} {progress.unit}{detail}."
