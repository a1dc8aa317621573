"""The training jobs behind a run: created where they are missing, told of progress, and never left 'running'."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict
from functools import partial
from typing import Final, Literal
from uuid import UUID, uuid5

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
from tradepulse_pipeline.orchestration.partitions import SERIES_DIMENSION
from tradepulse_pipeline.orchestration.progress import Narrator, listener
from tradepulse_pipeline.orchestration.tables import (
    OPTIMIZATION_RESULTS,
    TRAINED_CONFIGURATIONS,
    WALK_FORWARD_VALIDATION,
    branch_key,
)
from tradepulse_pipeline.progress import Progress, ProgressListener
from tradepulse_pipeline.strategies.base import Strategy
from tradepulse_pipeline.strategies.registry import get_strategy, strategy_names
from tradepulse_pipeline.validation.training import TrainingSettings

#: Progress goes to the database at most twice a second.
REPORT_EVERY_S: Final = 0.5

#: A run that makes one of these for a strategy trains it, whatever it was launched from.
_OF_TRAINING: Final = (OPTIMIZATION_RESULTS, WALK_FORWARD_VALIDATION, TRAINED_CONFIGURATIONS)

#: Dagster's own tags on who launched a run that no person did, with what it is called here.
_LAUNCHERS: Final = {
    "dagster/schedule_name": "schedule",
    "dagster/sensor_name": "sensor",
    "dagster/backfill": "backfill",
}


def strategies_of(run: dg.DagsterRun, instance: dg.DagsterInstance) -> list[Strategy]:
    """Return the strategies that a run trains; none for a run that only fetches candles, say."""
    if run.execution_plan_snapshot_id is None:
        return []
    steps = set(instance.get_execution_plan_snapshot(run.execution_plan_snapshot_id).step_keys_to_execute)
    strategies = [get_strategy(name) for name in strategy_names()]
    return [
        strategy
        for strategy in strategies
        if any(dg.AssetKey(branch_key(strategy, asset)).to_python_identifier() in steps for asset in _OF_TRAINING)
    ]


def job_id_of(run: dg.DagsterRun, strategy: Strategy, strategies: Collection[Strategy]) -> UUID:
    """Return the training job of a strategy in a run that trains ``strategies``.

    It is the one in the run's tag; else the run is a training job by itself, with its own id. A run of several
    strategies is several, each with an id that follows from the run's.
    """
    if TRAINING_JOB_TAG in run.tags:
        return UUID(run.tags[TRAINING_JOB_TAG])
    return UUID(run.run_id) if len(strategies) < 2 else uuid5(UUID(run.run_id), strategy.name)


def claim_job(
    context: dg.AssetExecutionContext,
    database: Database,
    strategy: Strategy,
    series: Sequence[SeriesKey],
    training: TrainingSettings,
    history: HistorySettings | None = None,
) -> UUID:
    """Return the run's training job of ``strategy``, with ``series`` claimed by the run; it is created where it lacks.

    Raises
    ------
    DatabaseError
        If a series was cancelled, or a newer run works on it.
    """
    return _claim(context, database, strategy, strategies_of(context.run, context.instance), series, training, history)


def claim_jobs(
    context: dg.AssetExecutionContext,
    database: Database,
    series: Sequence[SeriesKey],
    training: TrainingSettings,
    history: HistorySettings,
) -> list[UUID]:
    """Return the training jobs of all strategies that the run is about to train, claimed as by ``claim_job``."""
    strategies = strategies_of(context.run, context.instance)
    return [_claim(context, database, one, strategies, series, training, history) for one in strategies]


def _claim(
    context: dg.AssetExecutionContext,
    database: Database,
    strategy: Strategy,
    strategies: Collection[Strategy],
    series: Sequence[SeriesKey],
    training: TrainingSettings,
    history: HistorySettings | None,
) -> UUID:
    job_id = training_jobs.create(
        database,
        job_id=job_id_of(context.run, strategy, strategies),
        strategy_name=strategy.name,
        config={"training": training.to_json_dict(), "history": None if history is None else asdict(history)},
        series=series,
        seed=training.search.seed,
        code_version=tradepulse_pipeline.__version__,
        user_id=_launched_by(context.run),
    )
    for one in series:
        training_jobs.start_series(database, job_id, one, run_id=context.run.run_id)
    return job_id


def guard(context: dg.AssetExecutionContext, database: Database, job_id: UUID, series: SeriesKey) -> Guard:
    """Return the guard of files that belong to the training of ``series``: a run that has lost it writes none.

    Its parent may be dead, the run counted as failed and tried again, and its step go on all the same.
    """
    return partial(training_jobs.while_claimed, database, job_id, series, run_id=context.run.run_id)


def reporter(
    context: dg.AssetExecutionContext, database: Database, job_id: UUID, series: SeriesKey
) -> ProgressListener:
    """Return who is to be told of progress: whoever listens in this process, the run's log, and the training job.

    Told by the database that the training was cancelled, it ends the run as cancelled.
    """
    return reporter_to_all(context, database, [job_id], series)


def reporter_to_all(
    context: dg.AssetExecutionContext, database: Database, job_ids: Sequence[UUID], series: SeriesKey
) -> ProgressListener:
    """Return the ``reporter`` of a step that several training jobs wait for, or none."""
    tell, narrate, last = listener(), Narrator(str(series), context.log.info), -REPORT_EVERY_S

    def report(progress: Progress) -> None:
        nonlocal last
        tell(progress)
        narrate(progress)
        now = time.monotonic()
        if now - last < REPORT_EVERY_S and progress.done < progress.total:
            return
        last = now
        is_search = progress.phase == "search"
        for job_id in job_ids:
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


def end_jobs(
    database: Database,
    run: dg.DagsterRun,
    instance: dg.DagsterInstance,
    status: Literal["completed", "failed", "cancelled"],
    error: str | None,
) -> None:
    """Mark the series that a run worked on, or was to work on, as ended; what has ended before stays as it is.

    A run that ended before it could say what it trains, such as one that was cancelled in the queue, gets its training
    jobs here. A run that succeeded without making configurations, because it was asked for less, is complete, too.
    """
    planned = _planned_series(run, instance)
    for job in _jobs_of(database, run, instance, planned):
        for one in job.series:
            is_at_it = one.status == "running" and one.run_id == run.run_id
            is_due = one.status == "pending" and one.series in planned and status != "completed"
            if is_at_it or is_due:
                end_series(database, job.id, one.series, run.run_id, status, error)


def _jobs_of(
    database: Database, run: dg.DagsterRun, instance: dg.DagsterInstance, planned: Sequence[SeriesKey]
) -> Iterator[training_jobs.TrainingJob]:
    """Yield the training jobs of a run that has ended; those that are missing are created."""
    if TRAINING_JOB_TAG in run.tags:
        with suppress(InvalidInputError):  # made for another database than the one that is here now
            yield training_jobs.get(database, UUID(run.tags[TRAINING_JOB_TAG]))
        return
    strategies = strategies_of(run, instance) if planned else []
    for strategy in strategies:
        job_id = training_jobs.create(
            database,
            job_id=job_id_of(run, strategy, strategies),
            strategy_name=strategy.name,
            config={"job": run.job_name, "run_config": dict(run.run_config)},
            series=planned,
            seed=0,
            code_version=tradepulse_pipeline.__version__,
            user_id=_launched_by(run),
        )
        yield training_jobs.get(database, job_id)


def _planned_series(run: dg.DagsterRun, instance: dg.DagsterInstance) -> list[SeriesKey]:
    """Return the series that a run is for, by its tags: one, or a range of partitions; other keys are left out."""
    first, last = (run.tags.get(f"dagster/asset_partition_range_{end}") for end in ("start", "end"))
    keys: Sequence[str] = [run.tags[PARTITION_TAG]] if PARTITION_TAG in run.tags else []
    if first and last:
        there = instance.get_dynamic_partitions(SERIES_DIMENSION)
        keys = there[there.index(first) : there.index(last) + 1] if {first, last} <= set(there) else []
    planned = []
    for key in keys:
        with suppress(InvalidInputError):
            planned.append(SeriesKey.parse(key))
    return planned


def _launched_by(run: dg.DagsterRun) -> str:
    found = (f"{kind} {run.tags[tag]}" for tag, kind in _LAUNCHERS.items() if tag in run.tags)
    return run.tags.get("user") or next(found, "web UI")


def end_series(
    database: Database,
    job_id: UUID,
    series: SeriesKey,
    run_id: str,
    status: Literal["completed", "failed", "cancelled"],
    error: str | None,
) -> None:
    """Mark one series of a training job as ended, unless it has ended before."""
    database.run(
        lambda connection: training_jobs.finish_series(
            connection, job_id, series, run_id=run_id, status=status, error_message=error
        )
    )
