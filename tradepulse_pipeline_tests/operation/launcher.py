"""Runs in the process of the day, which saves the start of one each, or in processes of their own, to be killed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from dagster._core.execution.api import execute_run
from dagster._core.launcher import LaunchRunContext
from dagster._core.origin import JobPythonOrigin
from dagster._grpc.types import ExecuteRunArgs
from dagster._serdes import serialize_value
from dagster._utils.hosted_user_process import recon_job_from_origin

from tradepulse_pipeline.orchestration.launcher import LocalRunLauncher
from tradepulse_pipeline_tests.operation.clock import StandingClock

ROOT = Path(__file__).parents[2]
CLOCK = "market.clock"


class DayLauncher(LocalRunLauncher):
    """The project's launcher, whose answer to whether a run's process is alive it keeps."""

    def __init__(self, inst_data=None):
        super().__init__(inst_data)
        self.has_own_processes = False
        self.workers: dict[str, subprocess.Popen[bytes]] = {}

    def launch_run(self, context: LaunchRunContext) -> None:
        run, origin = context.dagster_run, context.job_code_origin
        assert isinstance(origin, JobPythonOrigin)
        if not self.has_own_processes:
            execute_run(recon_job_from_origin(origin), run, self._instance, raise_on_error=False)
            return
        arguments = ExecuteRunArgs(
            job_origin=origin,
            run_id=run.run_id,
            instance_ref=self._instance.get_ref(),
            set_exit_code_on_failure=True,
        )
        with Path("workers.log").open("ab") as log:
            self.workers[run.run_id] = subprocess.Popen(
                [sys.executable, "-m", __name__, serialize_value(arguments)],
                env={**os.environ, "PYTHONPATH": str(ROOT)},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )


def main() -> None:
    """Be the process of a run, as Dagster's own launcher starts them, by the clock of the day."""
    StandingClock(Path(CLOCK)).install()
    from dagster._cli import main as dagster

    sys.argv = ["dagster", "api", "execute_run", *sys.argv[1:]]
    dagster()


if __name__ == "__main__":
    main()
