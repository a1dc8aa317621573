"""Training jobs whose process is gone: found and marked before anybody reads that they are running."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from tradepulse_pipeline.cli.console import warn
from tradepulse_pipeline.settings import Settings

if TYPE_CHECKING:
    from tradepulse_pipeline.database.connection import Database

#: Key of a job's configuration that names the process of the command that started it.
PROCESS_KEY: Final = "process"

_REASON: Final = "The process that trained was killed."

#: Open jobs that are looked at.
_MOST_JOBS: Final = 1_000


def mark_interrupted_jobs(settings: Settings, database: Database) -> None:
    """Mark what processes that are gone left open: jobs of commands, and runs of the web UI's workers."""
    from tradepulse_pipeline.database.training_jobs import get, list_jobs, mark_interrupted, running_run_ids
    from tradepulse_pipeline.processes import is_gone

    open_jobs = [
        job for status in ("pending", "running") for job in list_jobs(database, status=status, limit=_MOST_JOBS)
    ]
    if not open_jobs:
        return
    _end_gone_runs(settings, database, running_run_ids(database))
    mark_interrupted(
        database, _REASON, job_ids=[job.id for job in open_jobs if is_gone(job.config.get(PROCESS_KEY, ""))]
    )
    for job in open_jobs:
        ended = get(database, job.id)
        if ended.status not in ("pending", "running"):
            warn(f"Training job {str(job.id)[:8]} was left open by a process that is gone: marked as {ended.status}.")


def _end_gone_runs(settings: Settings, database: Database, run_ids: list[str]) -> None:
    """End the series of those runs that Dagster knows to have ended, or whose process is gone; Dagster learns of it."""
    if not run_ids:
        return
    from dagster import DagsterRunStatus
    from dagster._core.launcher import WorkerStatus

    from tradepulse_pipeline.database.training_jobs import mark_interrupted
    from tradepulse_pipeline.orchestration.launch import open_instance
    from tradepulse_pipeline.orchestration.training_jobs import end_jobs

    with open_instance(settings.project_dir) as instance:
        for run_id in run_ids:
            run = instance.get_run_by_id(run_id)
            if run is None:
                mark_interrupted(database, _REASON, run_ids=[run_id])
            elif run.status is DagsterRunStatus.SUCCESS:
                end_jobs(database, run, instance, "completed", None)
            elif run.status is DagsterRunStatus.CANCELED:
                end_jobs(database, run, instance, "cancelled", None)
            elif run.is_finished:
                end_jobs(database, run, instance, "failed", _REASON)
            elif instance.run_launcher.check_run_worker_health(run).status is WorkerStatus.FAILED:
                instance.report_run_failed(run, _REASON)
                end_jobs(database, run, instance, "failed", _REASON)
