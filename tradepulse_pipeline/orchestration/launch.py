"""Running a training from the command line: the very job of the web UI, in this process, on the project's instance."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal
from uuid import UUID

import dagster as dg
from dagster._core.definitions.reconstruct import ReconstructableRepository
from dagster._core.definitions.repository_definition import SINGLETON_REPOSITORY_NAME
from dagster._core.execution.api import execute_run
from dagster._core.execution.job_execution_result import JobExecutionResult
from dagster._core.instance.ref import InstanceRef
from dagster._core.remote_origin import RemoteJobOrigin, RemoteRepositoryOrigin
from dagster._core.workspace.load_target import WorkspaceFileTarget

from tradepulse_pipeline.market.history import HistorySettings
from tradepulse_pipeline.market.series import SeriesKey
from tradepulse_pipeline.orchestration.failures import first_error
from tradepulse_pipeline.orchestration.names import (
    DEFINITIONS,
    PARTITION_TAG,
    RUN_RETRIES_TAG,
    TRAINING_JOB_TAG,
    training_job_name,
)
from tradepulse_pipeline.orchestration.partitions import SERIES_DIMENSION
from tradepulse_pipeline.orchestration.progress import listening
from tradepulse_pipeline.orchestration.resources import DatabaseResource, SettingsResource
from tradepulse_pipeline.orchestration.training_jobs import end_series
from tradepulse_pipeline.progress import ProgressListener, ignore_progress
from tradepulse_pipeline.settings import project_dir
from tradepulse_pipeline.strategies.registry import get_strategy
from tradepulse_pipeline.validation.training import TrainingSettings

#: Dagster's own account of a run does not belong on the terminal; the run's page has all of it.
_QUIET_CONSOLE: Final = {"console": {"config": {"log_level": "CRITICAL"}}}

#: Whoever waits for the run at the terminal sees that it failed; nobody waits for a second one.
_NO_RETRIES: Final = {RUN_RETRIES_TAG: "0"}


@dataclass(frozen=True, slots=True, kw_only=True)
class RunOutcome:
    """How a run ended; ``error`` says why it did not succeed, in the words of the first error."""

    run_id: str
    success: bool
    error: str | None = None
    cancelled: bool = False


@contextmanager
def open_instance(project: Path | None = None) -> Iterator[dg.DagsterInstance]:
    """Open the Dagster instance of the project: the one that its ``dagster.yaml`` describes.

    Output to the terminal is not captured into run logs, unlike in the web UI's own runs: the terminal belongs to the
    command line.
    """
    uncaptured = {"module": "dagster._core.storage.noop_compute_log_manager", "class": "NoOpComputeLogManager"}
    ref = InstanceRef.from_dir(str(project or project_dir()), overrides={"compute_logs": uncaptured})
    with dg.DagsterInstance.from_ref(ref) as instance:
        yield instance


def add_partitions(project: Path, keys: Sequence[str]) -> None:
    """Let series show in the web UI."""
    with open_instance(project) as instance:
        instance.add_dynamic_partitions(SERIES_DIMENSION, keys)


def run_training(
    *,
    series: SeriesKey,
    strategy_name: str,
    training: TrainingSettings,
    history: HistorySettings,
    job_id: UUID,
    simulated_edge: float = 0.0,
    on_progress: ProgressListener = ignore_progress,
    project: Path | None = None,
) -> RunOutcome:
    """Train ``strategy_name`` on ``series`` and return how the run ended.

    The partition is added first where it is new. The run is in the web UI afterwards, with its job and partition, and
    the training job ``job_id`` never stays 'running': the run completes it, or it is marked failed or cancelled here.
    Ctrl-C ends the run as cancelled; call this from the main thread. ``on_progress`` is called in this thread, too.

    Raises
    ------
    InvalidInputError
        If there is no such strategy.
    DatabaseError
        If the database cannot be reached.
    KeyboardInterrupt
        If Ctrl-C came before the run had begun.
    """
    folder = project or project_dir()
    settings = SettingsResource.of(training, history, simulated_edge=simulated_edge)
    job = ReconstructableRepository.for_module(*DEFINITIONS, working_directory=str(folder)).get_reconstructable_job(
        training_job_name(get_strategy(strategy_name))
    )
    run_id = ""
    try:
        with open_instance(folder) as instance, listening(on_progress), _quiet_database():
            instance.add_dynamic_partitions(SERIES_DIMENSION, [str(series)])
            run = instance.create_run_for_job(
                job_def=job.get_definition(),
                run_config={"resources": {"settings": {"config": settings.to_run_config()}}, "loggers": _QUIET_CONSOLE},
                tags={
                    **job.get_definition().run_tags,
                    **_NO_RETRIES,
                    PARTITION_TAG: str(series),
                    TRAINING_JOB_TAG: str(job_id),
                },
                remote_job_origin=_web_origin(folder, job.job_name),
                job_code_origin=job.get_python_origin(),
            )
            run_id = run.run_id
            outcome = _outcome(execute_run(job, run, instance), series)
    except BaseException as error:
        status: Literal["failed", "cancelled"] = "cancelled" if isinstance(error, KeyboardInterrupt) else "failed"
        end_series(DatabaseResource().open(), job_id, series, run_id, status, str(error) or None)
        raise
    if not outcome.success:
        status = "cancelled" if outcome.cancelled else "failed"
        end_series(DatabaseResource().open(), job_id, series, run_id, status, outcome.error)
    return outcome


@contextmanager
def _quiet_database() -> Iterator[None]:
    """Keep psycopg's warnings off the terminal: Ctrl-C cuts a query short, and it complains of that."""
    logger = logging.getLogger("psycopg")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(level)


def _web_origin(project: Path, job_name: str) -> RemoteJobOrigin:
    """Return the job's origin as the web server knows it: a run's links to its job are made by it."""
    (location,) = WorkspaceFileTarget([str(project / "workspace.yaml")]).create_origins()
    return RemoteRepositoryOrigin(location, SINGLETON_REPOSITORY_NAME).get_job_origin(job_name)


def _outcome(result: JobExecutionResult, series: SeriesKey) -> RunOutcome:
    cancelled = result.dagster_run.status is dg.DagsterRunStatus.CANCELED
    # A check names the series that it is about; who runs one series knows.
    error = None if result.success or cancelled else _why_it_failed(result).removeprefix(f"{series}: ")
    return RunOutcome(run_id=result.run_id, success=result.success, error=error, cancelled=cancelled)


def _why_it_failed(result: JobExecutionResult) -> str:
    for check in result.get_asset_check_evaluations():
        if not check.passed and check.severity is dg.AssetCheckSeverity.ERROR and check.description:
            return check.description
    return first_error(result.get_step_failure_events()) or str(result.get_run_failure_event().message)
