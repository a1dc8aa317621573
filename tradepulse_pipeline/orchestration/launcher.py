"""Runs as processes on this machine, whose death is noticed."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any, Final, Self

import dagster as dg
from dagster._core.launcher import CheckRunHealthResult, DefaultRunLauncher, WorkerStatus
from dagster._serdes import ConfigurableClassData

from tradepulse_pipeline.processes import is_gone

#: Run tag with the host, the id and the start time of the process that executes a run; the prefix hides it from pages.
PROCESS_TAG: Final = ".dagster/tradepulse_process"

#: A run names its process as soon as it has started; one that has not after so many seconds died in between.
SILENT_FOR_S: Final = 60.0


class LocalRunLauncher(DefaultRunLauncher):
    """Dagster's launcher, and the answer to whether a run's process is still there.

    Without it, a run whose process was killed would count as started until its maximum runtime is over.
    """

    @classmethod
    def from_config_value(cls, inst_data: ConfigurableClassData, config_value: Mapping[str, Any]) -> Self:
        """Nothing is configured in ``dagster.yaml``."""
        return cls(inst_data)

    @property
    def supports_check_run_worker_health(self) -> bool:
        """Whether Dagster's run monitoring may ask."""
        return True

    def check_run_worker_health(self, run: dg.DagsterRun) -> CheckRunHealthResult:
        """Return whether the process of a started run is alive, as far as this machine can tell."""
        if not run.tags.get(PROCESS_TAG) and self._seconds_since_start(run) > SILENT_FOR_S:
            return CheckRunHealthResult(WorkerStatus.FAILED, "Its process ended before it had named itself.")
        return process_health(run)

    def _seconds_since_start(self, run: dg.DagsterRun) -> float:
        record = self._instance.get_run_record_by_id(run.run_id) if self.has_instance else None
        return time.time() - record.start_time if record and record.start_time else 0.0


def process_health(run: dg.DagsterRun) -> CheckRunHealthResult:
    """Return whether the process of a started run is alive; one on another machine is taken to be."""
    process = run.tags.get(PROCESS_TAG, "")
    if is_gone(process):
        return CheckRunHealthResult(WorkerStatus.FAILED, f"Process {process} is gone.")
    return CheckRunHealthResult(WorkerStatus.RUNNING)
