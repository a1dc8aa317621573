"""Trainings from the command line: in this process, on the project's instance, there to be seen in the web UI."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from uuid import UUID, uuid4

import dagster as dg
import psutil
import pytest
from dagster._core.launcher import WorkerStatus
from dagster_shared.serdes import serialize_value

from tradepulse_pipeline.database import training_jobs
from tradepulse_pipeline.database.configurations import list_configurations
from tradepulse_pipeline.errors import InvalidInputError
from tradepulse_pipeline.market.history import HistorySettings
from tradepulse_pipeline.market.series import SeriesKey
from tradepulse_pipeline.optimizers.settings import SearchSettings
from tradepulse_pipeline.orchestration.launch import open_instance, run_training
from tradepulse_pipeline.orchestration.launcher import PROCESS_TAG, LocalRunLauncher
from tradepulse_pipeline.orchestration.resources import DatabaseResource
from tradepulse_pipeline.orchestration.training_jobs import end_jobs
from tradepulse_pipeline.processes import this_process
from tradepulse_pipeline.validation.training import TrainingSettings
from tradepulse_pipeline.validation.windows import WindowSettings

STRATEGY = "LIQUIDITY_SWEEP_V3"
TRAINING = TrainingSettings(
    search=SearchSettings(budget=40, minimum_trades=3, workers=1),
    windows=WindowSettings(train_days=10, test_days=6, gap_days=1),
)
HISTORY = HistorySettings(start_ms=1_704_067_200_000, end_ms=1_706_486_400_000)


@pytest.fixture
def job(database):
    """Create a training job for a series."""

    def create(series):
        return training_jobs.create(
            database,
            job_id=uuid4(),
            strategy_name=STRATEGY,
            config={},
            series=[series],
            seed=0,
            code_version="0",
            user_id="test",
        )

    return create


def train(series, job_id, **options):
    inputs = {"strategy_name": STRATEGY, "training": TRAINING, "history": HISTORY, "simulated_edge": 8.0}
    return run_training(series=series, job_id=job_id, **{**inputs, **options})


def test_a_training_is_a_run_of_the_web_uis_job(database, job, capfd):
    series = SeriesKey.parse("simulated:LAUNCH-USDT:5m")
    job_id, told = job(series), []
    outcome = train(series, job_id, on_progress=told.append)
    assert (outcome.success, outcome.error, outcome.cancelled) == (True, None, False)
    assert capfd.readouterr() == ("", "")
    assert {progress.phase for progress in told} == {"candles", "search", "walk_forward"}

    with open_instance() as instance:
        run = instance.get_run_by_id(outcome.run_id)
        assert run.status is dg.DagsterRunStatus.SUCCESS
        assert run.job_name == "train_liquidity_sweep_v3"
        assert run.tags["dagster/partition"] == str(series)
        repository = run.remote_job_origin.repository_origin
        assert repository.code_location_origin.location_name == "tradepulse"
        assert repository.repository_name == "__repository__"
        assert run.job_code_origin is not None
        assert str(series) in instance.get_dynamic_partitions("series")
        materialized = instance.get_materialized_partitions(
            dg.AssetKey(["liquidity_sweep_v3", "trained_configurations"])
        )
        assert str(series) in materialized

    (configuration,) = list_configurations(database, pair="LAUNCH/USDT")
    assert (configuration.training_job_id, configuration.run_id) == (job_id, outcome.run_id)
    assert training_jobs.get(database, job_id).status == "completed"


def test_a_training_that_fails_says_why_and_its_job_has_failed(database, job):
    series = SeriesKey.parse("simulated:SHORT-USDT:5m")
    job_id = job(series)
    outcome = train(series, job_id, training=TrainingSettings())
    assert not outcome.success
    assert not outcome.cancelled
    assert outcome.error.startswith("The history is 28 days long; one walk_forward window needs 120 days")
    found = training_jobs.get(database, job_id)
    assert (found.status, found.error_message) == ("failed", f"{series}: {outcome.error}")


def test_candles_that_are_not_fit_are_the_reason_given(database, job):
    series = SeriesKey.parse("simulated:FEW-USDT:1h")
    outcome = train(series, job(series), history=HistorySettings(start_ms=HISTORY.start_ms, end_ms=1_704_153_600_000))
    assert outcome.error == "There are 24 candles; at least 300 are needed."


@pytest.mark.parametrize("phase", ["candles", "search", "walk_forward"])
def test_ctrl_c_ends_run_and_job_as_cancelled(database, job, phase):
    series = SeriesKey.parse(f"simulated:STOP{phase[:4].upper()}-USDT:5m")
    job_id = job(series)

    def interrupt(progress):
        if progress.phase == phase:
            os.kill(os.getpid(), signal.SIGINT)

    outcome = train(series, job_id, on_progress=interrupt)
    assert (outcome.success, outcome.error, outcome.cancelled) == (False, None, True)
    with open_instance() as instance:
        assert instance.get_run_by_id(outcome.run_id).status is dg.DagsterRunStatus.CANCELED
    assert training_jobs.get(database, job_id).status == "cancelled"
    assert list_configurations(database, pair=series.pair) == []


def test_a_job_whose_run_never_began_does_not_stay_pending(database, job, monkeypatch):
    series = SeriesKey.parse("simulated:NEVER-USDT:5m")
    job_id = job(series)

    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(dg.DagsterInstance, "create_run_for_job", interrupted)
    with pytest.raises(KeyboardInterrupt):
        train(series, job_id)
    assert training_jobs.get(database, job_id).status == "cancelled"


def test_the_password_of_the_database_appears_nowhere(database, opened, job, monkeypatch, capfd):
    series = SeriesKey.parse("simulated:SECRET-USDT:5m")
    job_id = job(series)
    monkeypatch.setenv("TRADEPULSE_DATABASE_URL", database.url.replace("postgres@", "postgres:hunter2@"))
    opened.append(DatabaseResource().open())
    outcome = train(series, job_id)
    assert outcome.success
    with open_instance() as instance:
        run = instance.get_run_by_id(outcome.run_id)
        said = [instance.info_str(), repr(run), *(serialize_value(event) for event in instance.all_logs(run.run_id))]
    assert not any("hunter2" in text for text in (*said, *capfd.readouterr()))
    assert any(str(series) in text for text in said)


def test_an_unknown_strategy_is_refused_before_anything_starts():
    with pytest.raises(InvalidInputError, match=r"Unknown strategy 'LIQUIDITY_SWEEP'. Did you mean"):
        train(SeriesKey.parse("simulated:ANY-USDT:5m"), uuid4(), strategy_name="LIQUIDITY_SWEEP")


class TestARunWhoseProcessIsGone:
    def status(self, tag):
        run = dg.DagsterRun(job_name="train", run_id=str(uuid4()), tags={PROCESS_TAG: tag} if tag else {})
        return LocalRunLauncher().check_run_worker_health(run).status

    def test_a_live_process_is_running(self):
        assert self.status(this_process()) is WorkerStatus.RUNNING

    def test_a_killed_one_is_not_even_before_its_parent_has_noticed(self):
        child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
        created = psutil.Process(child.pid).create_time()
        tag = f"{socket.gethostname()}/{child.pid}/{created}"
        assert self.status(tag) is WorkerStatus.RUNNING
        child.kill()
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
        assert self.status(tag) is WorkerStatus.FAILED
        child.wait()
        assert self.status(tag) is WorkerStatus.FAILED

    def test_another_process_with_its_number_is_not_it(self):
        host, pid, created = this_process().split("/")
        assert self.status(f"{host}/{pid}/{float(created) - 3_600}") is WorkerStatus.FAILED

    def test_a_process_on_another_machine_cannot_be_judged_from_here(self):
        assert self.status("elsewhere/1/0") is WorkerStatus.RUNNING
        assert self.status(None) is WorkerStatus.RUNNING

    @pytest.mark.parametrize("status", ["failed", "cancelled"])
    def test_its_training_job_does_not_stay_running(self, database, job, status):
        series = SeriesKey.parse(f"simulated:GONE{status.upper()}-USDT:5m")
        job_id, run = job(series), dg.DagsterRun(job_name="train", run_id=str(uuid4()))
        tagged = run.with_tags({"tradepulse/training_job": str(job_id)})
        training_jobs.start_series(database, job_id, series, run_id=run.run_id)
        with open_instance() as instance:
            end_jobs(database, tagged, instance, status, "killed")
            end_jobs(database, tagged, instance, "failed", "said twice")
        found = training_jobs.get(database, job_id)
        assert (found.status, found.series[0].error_message) == (status, "killed")

    def test_a_run_that_trained_nothing_concerns_no_job(self, database):
        run = dg.DagsterRun(job_name="update_market_data", run_id=str(uuid4()))
        with open_instance() as instance:
            end_jobs(database, run, instance, "failed", None)
        with pytest.raises(InvalidInputError, match="no training job"):
            training_jobs.get(database, UUID(run.run_id))
