"""Power loss: web server, daemon, run and PostgreSQL are killed at once; started again, they tidy up and go on."""

from __future__ import annotations

import os
import shutil
import signal

import dagster as dg
import pytest
from dagster._core.launcher import WorkerStatus

from tradepulse_pipeline.database import training_jobs
from tradepulse_pipeline.database.configurations import list_configurations
from tradepulse_pipeline.database.connection import Database
from tradepulse_pipeline.database.migrations import migrate
from tradepulse_pipeline.database.server import database_url
from tradepulse_pipeline.orchestration import launcher
from tradepulse_pipeline_tests.orchestration.conftest import ROOT, remove_data
from tradepulse_pipeline_tests.orchestration.test_web_server import SETTINGS
from tradepulse_pipeline_tests.orchestration.web_server import ADD_PARTITION, REPOSITORY, kill, serving

RUNS = """{ runsOrError { ... on Runs { results { runId status tags { key value } } } } }"""
SERIES = "simulated:DARK-USDT:5m"


@pytest.fixture
def project(tmp_path):
    for name in ("dagster.yaml", "workspace.yaml"):
        shutil.copy(ROOT / name, tmp_path)
    yield tmp_path
    remove_data(tmp_path / ".tradepulse")


@dg.job
def idle():
    pass


def test_a_run_that_died_before_it_named_its_process_is_noticed(monkeypatch):
    with dg.DagsterInstance.ephemeral() as instance:
        run = idle.execute_in_process(instance=instance).dagster_run
        start_time = instance.get_run_record_by_id(run.run_id).start_time
        run_launcher = launcher.LocalRunLauncher()
        run_launcher.register_instance(instance)
        for seconds, status in ((1.0, WorkerStatus.RUNNING), (launcher.SILENT_FOR_S + 1, WorkerStatus.FAILED)):
            monkeypatch.setattr(launcher.time, "time", lambda seconds=seconds: start_time + seconds)
            assert run_launcher.check_run_worker_health(run).status is status


def runs(server):
    return server.ask(RUNS)["runsOrError"]["results"]


def test_after_a_power_loss_nothing_stays_running_and_the_queue_moves_on(project):
    data = project / ".tradepulse"
    with serving(project) as server:
        server.ask(ADD_PARTITION, repository=REPOSITORY, key=SERIES)
        killed = server.launch(SERIES, SETTINGS)
        queued = server.launch(SERIES, SETTINGS)
        server.wait_for("a run under way", lambda: server.run(killed)["status"] == "STARTED", 240)
        pgdata = (data / "pgdata").resolve()
        postmaster = int((pgdata / "postmaster.pid").read_text().split()[0])
        kill(server.process)
        os.kill(postmaster, signal.SIGKILL)
    with serving(project) as server, Database(database_url(data, None)) as database:
        migrate(database)
        ended = ("SUCCESS", "FAILURE", "CANCELED")

        def is_over():
            found = runs(server)
            retried = any(
                {"key": "dagster/parent_run_id", "value": killed} in run["tags"] and run["status"] == "SUCCESS"
                for run in found
            )
            return (retried or server.run(killed)["status"] == "SUCCESS") and all(
                run["status"] in ended for run in found
            )

        try:
            server.wait_for("the end of all runs", is_over, 600)
        except AssertionError as error:
            raise AssertionError([(run["runId"], run["status"], run["tags"]) for run in runs(server)]) from error
        assert server.run(queued)["status"] == "SUCCESS"
        server.wait_for(
            "the end of all jobs",
            lambda: {job.status for job in training_jobs.list_jobs(database)} <= {"completed", "failed"},
            120,
        )
        versions = list_configurations(database, pair="DARK/USDT", active_only=False)
        assert len(versions) == 2
        assert versions[0].out_of_sample_metrics == versions[1].out_of_sample_metrics
