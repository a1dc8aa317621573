"""Runs as processes on this machine, whose death is noticed."""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from typing import Any, Final, Self

import dagster as dg
import psutil
from dagster._core.launcher import CheckRunHealthResult, DefaultRunLauncher, WorkerStatus
from dagster._serdes import ConfigurableClassData

#: Run tag with the host, the id and the start time of the process that executes a run; the prefix hides it from pages.
PROCESS_TAG: Final = ".dagster/tradepulse_process"

#: Seconds by which a process' start time may differ from what was noted.
CLOCK_SLACK_S: Final = 60.0


def process_tag() -> str:
    """Return this process as a value of ``PROCESS_TAG``; the start time tells it from a later one with its id."""
    return f"{socket.gethostname()}/{os.getpid()}/{psutil.Process().create_time():.2f}"


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
        host, _, process = run.tags.get(PROCESS_TAG, "").partition("/")
        if host != socket.gethostname():
            return CheckRunHealthResult(WorkerStatus.RUNNING)
        pid, _, created = process.partition("/")
        if _is_alive(int(pid), float(created)):
            return CheckRunHealthResult(WorkerStatus.RUNNING)
        return CheckRunHealthResult(WorkerStatus.FAILED, f"Process {pid} on {host} is gone.")


def _is_alive(pid: int, created: float) -> bool:
    try:
        process = psutil.Process(pid)
        is_zombie, since = process.status() == psutil.STATUS_ZOMBIE, float(process.create_time())
    except psutil.NoSuchProcess:
        return False
    # Start times move a little when the clock is set.
    return not is_zombie and abs(since - created) < CLOCK_SLACK_S
