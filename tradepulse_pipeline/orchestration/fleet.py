"""Runs as tasks of Celery workers on any number of machines: what ``deploy/celery/dagster.yaml`` refers to."""

from __future__ import annotations

import time
from typing import Any, Final, cast

import dagster as dg
from celery.app.control import Inspect
from celery.states import FAILURE, REVOKED, SUCCESS
from dagster._config.config_schema import UserConfigSchema
from dagster._core.launcher import CheckRunHealthResult, WorkerStatus
from dagster._serdes import ConfigurableClassData
from dagster_celery.launcher import CeleryRunLauncher
from dagster_celery.tags import DAGSTER_CELERY_TASK_ID_TAG

from tradepulse_pipeline.orchestration.launcher import process_health

#: Seconds that workers have to answer a question; they do so while a run keeps them busy.
_ANSWER_S: Final = 2.0


class FleetRunLauncher(CeleryRunLauncher):
    """Dagster's launcher for Celery, with an end for runs that are cancelled or whose worker is gone.

    Dagster's own believes the last word of a worker: a run whose machine lost its power would be 'started' until its
    maximum runtime is over. This one asks the workers. It also ends a run from within, as Ctrl-C does, where Dagster's
    kills its process, which would look like a fault and be tried again.

    Parameters
    ----------
    worker_silence_seconds : int
        How long no worker may own up to a started run before it counts as lost.
    """

    def __init__(self, *, worker_silence_seconds: int, **celery: Any) -> None:
        super().__init__(**celery)
        self._patience_s: Final = worker_silence_seconds
        self._silent_since: Final[dict[str, float]] = {}

    @classmethod
    def config_type(cls) -> UserConfigSchema:
        """What Dagster's launcher takes, and how long workers may be silent."""
        silence = dg.Field(
            dg.IntSource, default_value=60, description="Seconds without a sign of a run's worker: then it is lost."
        )
        return {**cast("dict[str, Any]", super().config_type()), "worker_silence_seconds": silence}

    @classmethod
    def from_config_value(cls, inst_data: ConfigurableClassData, config_value: Any) -> FleetRunLauncher:
        """Take what ``dagster.yaml`` says."""
        return cls(inst_data=inst_data, **config_value)

    @property
    def supports_resume_run(self) -> bool:
        """A run lives in one process: one that was lost is tried again as a new run."""
        return False

    def terminate(self, run_id: str) -> bool:
        """Have the run's worker interrupt it; one that no worker has begun yet ends before its first step."""
        run = self._instance.get_run_by_id(run_id)
        if run is None or run.is_finished:
            return False
        if run.status is not dg.DagsterRunStatus.CANCELING:
            self._instance.report_run_canceling(run)
        task_id = run.tags.get(DAGSTER_CELERY_TASK_ID_TAG)
        if task_id is None:
            self._instance.report_engine_event("No worker of the fleet runs this; nobody can be told to stop.", run)
            return False
        self.celery.control.revoke(task_id, terminate=True, signal="SIGINT")
        return True

    def check_run_worker_health(self, run: dg.DagsterRun) -> CheckRunHealthResult:
        """Return whether a worker still executes a started run.

        Of a run that no worker was given (``tradepulse train``), this machine's processes tell.
        """
        task_id = run.tags.get(DAGSTER_CELERY_TASK_ID_TAG)
        if task_id is None:
            return process_health(run)
        task = self.celery.AsyncResult(task_id)
        state = task.state
        if state == SUCCESS:
            return CheckRunHealthResult(WorkerStatus.SUCCESS)
        if state in (FAILURE, REVOKED):
            return CheckRunHealthResult(WorkerStatus.FAILED, f"Its worker lost the process of the run ({state}).")
        return self._asked(run, task_id, self._worker(task_id))

    def get_run_worker_debug_info(self, run: dg.DagsterRun, include_container_logs: bool | None = True) -> str | None:
        """Return which task the run was, for whoever looks into a worker's log."""
        task_id = run.tags.get(DAGSTER_CELERY_TASK_ID_TAG)
        return None if task_id is None else f"Celery task {task_id}."

    def _worker(self, task_id: str) -> str | None:
        """Return the name that the worker gave when it began; None before that, and where Redis lost its data."""
        told = self.celery.AsyncResult(task_id).info
        return told.get("hostname") if isinstance(told, dict) else None

    def _asked(self, run: dg.DagsterRun, task_id: str, worker: str | None) -> CheckRunHealthResult:
        """Ask the run's worker, or all of them where its name is not known, whether it has the task."""
        asked = Inspect(
            app=self.celery,
            timeout=_ANSWER_S,
            destination=None if worker is None else [worker],
            limit=None if worker is None else 1,
        )
        answers: dict[str, Any] = asked.query_task(task_id) or {}
        if any(task_id in tasks for tasks in answers.values()):
            self._silent_since.pop(run.run_id, None)
            return CheckRunHealthResult(WorkerStatus.RUNNING)
        if worker in answers:
            self._silent_since.pop(run.run_id, None)
            return CheckRunHealthResult(WorkerStatus.FAILED, f"Worker {worker} has been started anew since.")
        now = time.monotonic()
        silent_s = now - self._silent_since.setdefault(run.run_id, now)
        if silent_s < self._patience_s:
            return CheckRunHealthResult(WorkerStatus.RUNNING)
        del self._silent_since[run.run_id]
        return CheckRunHealthResult(
            WorkerStatus.FAILED, f"Worker {worker or 'unknown'} gave no sign of the run for {silent_s:.0f} s."
        )
