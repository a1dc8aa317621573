"""Runs on several workers that share the database, the broker and an object store, and no folder."""

from __future__ import annotations

import importlib.util
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import dagster as dg
import psutil
import psycopg
import pytest
import yaml
from dagster._core.launcher import WorkerStatus

from tradepulse_pipeline.configurations.comparison import differences
from tradepulse_pipeline.database import training_jobs
from tradepulse_pipeline.database.configurations import list_configurations
from tradepulse_pipeline.database.connection import Database
from tradepulse_pipeline.database.migrations import migrate
from tradepulse_pipeline.database.server import database_url, stop_embedded
from tradepulse_pipeline.market.history import HistorySettings
from tradepulse_pipeline.market.series import SeriesKey
from tradepulse_pipeline.optimizers.settings import SearchSettings
from tradepulse_pipeline.orchestration.launch import RunOutcome, run_training
from tradepulse_pipeline.orchestration.launcher import PROCESS_TAG
from tradepulse_pipeline.orchestration.resources import SettingsResource
from tradepulse_pipeline.processes import this_process
from tradepulse_pipeline.progress import Progress
from tradepulse_pipeline.validation.training import TrainingSettings
from tradepulse_pipeline.validation.windows import WindowSettings
from tradepulse_pipeline_tests.orchestration.conftest import ROOT, remove_data
from tradepulse_pipeline_tests.orchestration.web_server import (
    ADD_PARTITION,
    REPOSITORY,
    TERMINATE,
    WebServer,
    kill,
)

MISSING = [
    *(name for name in ("celery", "dagster_celery", "moto", "redis", "s3fs") if not importlib.util.find_spec(name)),
    *([] if shutil.which("redis-server") else ["redis-server"]),
]
pytestmark = pytest.mark.skipif(
    bool(MISSING), reason=f"a fleet needs what is not here: {', '.join(MISSING)} (pip install '.[test]', redis-server)"
)

STRATEGY = "LIQUIDITY_SWEEP_V3"
WORKERS = ("one", "two")
TRAINING = TrainingSettings(
    search=SearchSettings(budget=40, minimum_trades=3, workers=1),
    windows=WindowSettings(train_days=10, test_days=6, gap_days=1),
)
HISTORY = HistorySettings(start_ms=1_704_067_200_000, end_ms=1_706_486_400_000)
EDGE = 8.0
SETTINGS = dict(SettingsResource.of(TRAINING, HISTORY, simulated_edge=EDGE).to_run_config())

STEPS = """query ($run: ID!) { runOrError(runId: $run) { ... on Run { eventConnection { events {
    ... on ExecutionStepStartEvent { stepKey } } } } } }"""
STORY = """query ($run: ID!) { runOrError(runId: $run) { ... on Run { status tags { key value } eventConnection {
    events { __typename ... on MessageEvent { message timestamp } } } } } }"""
RETRIES = """query ($parent: String!) { runsOrError(filter: {tags: [{key: "dagster/parent_run_id", value: $parent}]}) {
    ... on Runs { results { runId } } } }"""

SEARCH = "liquidity_sweep_v3__optimization_results"
ENDED = ("SUCCESS", "FAILURE", "CANCELED")


class Fleet:
    """A database, a broker, an object store, a control machine with the web server, and workers: all on loopback.

    Each machine is a folder, which is its DAGSTER_HOME and holds its data.
    """

    def __init__(self, base: Path) -> None:
        self.base = base
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        self._until_ready: dict[str, Callable[[], bool]] = {}
        self.server: WebServer
        self.url = _database(base / "database")
        redis, store, web = _free_ports(3)
        inherited = {
            name: value for name, value in os.environ.items() if not name.startswith(("TRADEPULSE_", "DAGSTER_"))
        }
        self.environment = {
            "TRADEPULSE_DATABASE_URL": self.url,
            "TRADEPULSE_ARTIFACTS_URL": "s3://tradepulse/artifacts",
            "CELERY_BROKER_URL": f"redis://127.0.0.1:{redis}/0",
            "CELERY_RESULT_BACKEND": f"redis://127.0.0.1:{redis}/1",
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{store}",
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "test",
            "AWS_DEFAULT_REGION": "us-east-1",
        }
        self._all_environment = {**inherited, **self.environment}
        self._web_port = web
        quiet = ["--save", "", "--bind", "127.0.0.1", "--port", str(redis)]
        self._start("redis", base, "redis-server", *quiet)
        self._start("store", base, _program("moto_server"), "-H", "127.0.0.1", "-p", str(store))

    def _start(self, name: str, folder: Path, *command: str) -> subprocess.Popen[bytes]:
        with (self.base / f"{name}.log").open("ab") as log:
            process = subprocess.Popen(
                command,
                cwd=folder,
                env={**self._all_environment, "DAGSTER_HOME": str(folder)},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self.processes[name] = process
        return process

    def _machine(self, name: str) -> Path:
        """Return the folder of a machine, made as docs/distributed.md says, but with less patience."""
        folder = self.base / name
        if not folder.exists():
            folder.mkdir()
            shutil.copy(ROOT / "workspace.yaml", folder)
            instance = yaml.safe_load((ROOT / "deploy" / "celery" / "dagster.yaml").read_text())
            instance["run_launcher"]["config"]["worker_silence_seconds"] = 6
            instance["run_monitoring"]["poll_interval_seconds"] = 1
            (folder / "dagster.yaml").write_text(yaml.safe_dump(instance))
        return folder

    def start_control(self) -> None:
        command = (_program("tradepulse"), "up", "--port", str(self._web_port))
        process = self._start("server", self._machine("control"), *command)
        self.server = WebServer(self.base, f"http://127.0.0.1:{self._web_port}", process)

    def start_worker(self, name: str) -> None:
        arguments = ["-A", "dagster_celery.app", "worker", "-Q", "dagster", "-c", "1", "-n", f"{name}@%h"]
        folder, log = self._machine(name), self.base / f"{name}.log"
        n_before = log.read_text().count(" ready.") if log.exists() else 0
        self._start(name, folder, _program("celery"), *arguments, "--disable-prefetch", "-l", "INFO")
        self._until_ready[name] = lambda: log.read_text().count(" ready.") > n_before

    def wait_for_workers(self) -> None:
        for name, is_ready in self._until_ready.items():
            self.server.wait_for(f"worker {name}", is_ready)

    def kill_worker(self, name: str) -> None:
        """What a power loss does to a worker."""
        kill(self.processes[name])

    def train(self, series: str) -> str:
        self.server.ask(ADD_PARTITION, repository=REPOSITORY, key=series)
        return self.server.launch(series, SETTINGS)

    def wait_for_end(self, run_id: str) -> str:
        self.server.wait_for(f"the end of {run_id}", lambda: self.status(run_id) in ENDED, 180)
        return self.status(run_id)

    def wait_for_search(self, run_id: str) -> None:
        def begun() -> bool:
            events = self.server.ask(STEPS, run=run_id)["runOrError"]["eventConnection"]["events"]
            return any(event.get("stepKey") == SEARCH for event in events)

        self.server.wait_for("the search", begun, 180)

    def status(self, run_id: str) -> str:
        return str(self.server.run(run_id)["status"])

    def retries_of(self, run_id: str) -> list[str]:
        return [str(run["runId"]) for run in self.server.ask(RETRIES, parent=run_id)["runsOrError"]["results"]]

    def retry_of(self, run_id: str) -> str:
        try:
            self.server.wait_for("the next try", lambda: self.retries_of(run_id))
        except AssertionError as error:
            error.add_note(f"Of the run it is known: {self.server.ask(STORY, run=run_id)}")
            raise
        (retry,) = self.retries_of(run_id)
        return retry

    def worker_of(self, run_id: str) -> str:
        """Return the only machine that has output of the run."""
        (name,) = [
            name
            for name in (*WORKERS, "control")
            if (self.base / name / ".tradepulse" / "logs" / "runs" / run_id).is_dir()
        ]
        return name

    def stop(self) -> None:
        for process in self.processes.values():
            if process.poll() is None:
                kill(process)
        remove_data(self.base / "database")


def _program(name: str) -> str:
    return str(Path(sys.executable).with_name(name))


def _free_ports(n: int) -> list[int]:
    probes = [socket.socket() for _ in range(n)]
    for probe in probes:
        probe.bind(("127.0.0.1", 0))
    ports = [int(probe.getsockname()[1]) for probe in probes]
    for probe in probes:
        probe.close()
    return ports


def _database(data_dir: Path) -> str:
    """Return the URL of a PostgreSQL server that listens on a loopback address of its own."""
    address = f"127.{os.getpid() % 250 + 2}.{os.getpid() // 250 % 250}.2"
    with psycopg.connect(database_url(data_dir, None), autocommit=True) as connection:
        connection.execute(f"ALTER SYSTEM SET listen_addresses = '{address}'".encode())
        connection.execute("ALTER SYSTEM SET fsync = off")
    stop_embedded(data_dir)
    database_url(data_dir, None)
    return f"postgresql://postgres@{address}:5432/postgres"


@pytest.fixture(scope="module")
def running_fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    """A fleet that has made its tables and its bucket, with two workers."""
    fleet = Fleet(tmp_path_factory.mktemp("fleet"))
    try:
        with Database(fleet.url) as database:
            migrate(database)
        for name in WORKERS:
            fleet.start_worker(name)
        fleet.start_control()
        with pytest.MonkeyPatch.context() as patch:
            for name, value in fleet.environment.items():
                patch.setenv(name, value)
            _bucket(fleet)
        fleet.server.wait_for("the web server", fleet.server.location)
        yield fleet
    finally:
        fleet.stop()


@pytest.fixture
def fleet(running_fleet: Fleet) -> Fleet:
    """The fleet, with all its workers ready."""
    running_fleet.wait_for_workers()
    return running_fleet


def _bucket(fleet: Fleet) -> None:
    import s3fs

    def made() -> bool:
        try:
            s3fs.S3FileSystem(skip_instance_cache=True).mkdir("tradepulse")
        except OSError:
            return False
        return True

    fleet.server.wait_for("the object store", made)


@pytest.fixture(scope="module")
def shared(running_fleet: Fleet) -> Iterator[Database]:
    """The database that the fleet shares."""
    with Database(running_fleet.url) as database:
        yield database


def train_here(database: Database, series: str, **options: Any) -> RunOutcome:
    """Train ``series`` in this process, on the project's own database and with a folder for artifacts."""
    key = SeriesKey.parse(series)
    job_id = training_jobs.create(
        database,
        job_id=uuid4(),
        strategy_name=STRATEGY,
        config={},
        series=[key],
        seed=TRAINING.search.seed,
        code_version="0",
        user_id="test",
    )
    return run_training(
        series=key,
        strategy_name=STRATEGY,
        training=TRAINING,
        history=HISTORY,
        job_id=job_id,
        simulated_edge=EDGE,
        **options,
    )


def assert_identical(database: Database, shared: Database, series: str) -> None:
    """Check that a configuration of the fleet is the one that this process comes to, to the bit."""
    assert train_here(database, series).success
    pair = SeriesKey.parse(series).pair
    (local,), (remote,) = (list_configurations(one, pair=pair) for one in (database, shared))
    template = "template.configurations.0"
    assert {one.place for one in differences(asdict(local), asdict(remote))} == {
        *("id", "training_job_id", "run_id", "created_at"),
        *(f"{template}.{name}" for name in ("id", "metadata.discovery_date")),
    }


def test_trainings_on_two_workers_are_identical_to_trainings_in_one_process(fleet, shared, database):
    series = [f"simulated:FLEET{number}-USDT:5m" for number in range(4)]
    runs = [fleet.train(one) for one in series]
    assert [fleet.wait_for_end(run) for run in runs] == ["SUCCESS"] * 4
    assert {fleet.worker_of(run) for run in runs} == set(WORKERS)
    for one in series:
        assert_identical(database, shared, one)
    for name in (*WORKERS, "control"):
        assert not (fleet.base / name / ".tradepulse" / "artifacts").exists()
        assert not (fleet.base / name / ".tradepulse" / "pgdata").exists()


def test_a_run_whose_worker_lost_its_power_is_ended_by_another_worker(fleet, shared, database):
    series = "simulated:POWER-USDT:5m"
    run = fleet.train(series)
    fleet.wait_for_search(run)
    lost = fleet.worker_of(run)
    fleet.kill_worker(lost)
    try:
        assert fleet.wait_for_end(run) == "FAILURE"
        retry = fleet.retry_of(run)
        assert fleet.wait_for_end(retry) == "SUCCESS"
        assert {lost, fleet.worker_of(retry)} == set(WORKERS)
    finally:
        fleet.start_worker(lost)
    assert_identical(database, shared, series)


def test_a_run_that_is_terminated_in_the_web_ui_is_cancelled_on_its_worker_and_not_tried_again(fleet, shared):
    run = fleet.train("simulated:STOP-USDT:5m")
    fleet.wait_for_search(run)
    assert fleet.server.ask(TERMINATE, run=run)["terminateRun"]["__typename"] == "TerminateRunSuccess"
    assert fleet.wait_for_end(run) == "CANCELED"
    fleet.server.wait_for("the cancelled job", lambda: training_jobs.get(shared, UUID(run)).status == "cancelled")
    assert list_configurations(shared, pair="STOP/USDT") == []
    assert fleet.retries_of(run) == []


def test_a_worker_that_is_stopped_hands_its_run_over(fleet):
    run = fleet.train("simulated:DEPLOY-USDT:5m")
    fleet.wait_for_search(run)
    stopped = fleet.worker_of(run)
    os.killpg(fleet.processes[stopped].pid, signal.SIGTERM)
    try:
        assert fleet.wait_for_end(run) == "FAILURE"
        assert fleet.wait_for_end(fleet.retry_of(run)) == "SUCCESS"
        assert fleet.processes[stopped].wait(60) == 0
    finally:
        fleet.start_worker(stopped)


def test_ctrl_c_on_a_training_at_a_fleets_terminal_cancels_it(database, tmp_path, monkeypatch):
    for name in ("workspace.yaml", "deploy/celery/dagster.yaml"):
        shutil.copy(ROOT / name, tmp_path)
    monkeypatch.setenv("CELERY_BROKER_URL", "memory://")
    monkeypatch.setenv("CELERY_RESULT_BACKEND", "cache+memory://")

    def interrupt(progress: Progress) -> None:
        if progress.phase == "search":
            os.kill(os.getpid(), signal.SIGINT)

    assert train_here(database, "simulated:TERM-USDT:5m", on_progress=interrupt, project=tmp_path).cancelled


def test_a_fleet_has_the_limits_of_one_machine_but_for_those_that_its_size_decides():
    one, fleet = (yaml.safe_load((ROOT / name).read_text()) for name in ("dagster.yaml", "deploy/celery/dagster.yaml"))
    assert fleet["storage"] == one["storage"]
    assert fleet["concurrency"]["pools"] == one["concurrency"]["pools"]
    same_series = "tag_concurrency_limits"
    assert fleet["concurrency"]["runs"][same_series] == one["concurrency"]["runs"][same_series]
    for section in ("run_monitoring", "retention", "run_queue", "telemetry", "nux"):
        assert fleet[section] == one[section]


class TestTheHealthOfARun:
    """By a launcher whose broker nobody listens to."""

    @pytest.fixture
    def launcher(self):
        from tradepulse_pipeline.orchestration.fleet import FleetRunLauncher

        return FleetRunLauncher(
            worker_silence_seconds=0, default_queue="dagster", broker="memory://", backend="cache+memory://"
        )

    def test_a_run_of_the_command_line_is_judged_by_its_process(self, launcher):
        ended = subprocess.Popen([sys.executable, "-c", ""])
        tag = f"{socket.gethostname()}/{ended.pid}/{psutil.Process(ended.pid).create_time()}"
        ended.wait()
        for process, status in ((tag, WorkerStatus.FAILED), (this_process(), WorkerStatus.RUNNING)):
            run = dg.DagsterRun(job_name="train", run_id=str(uuid4()), tags={PROCESS_TAG: process})
            assert launcher.check_run_worker_health(run).status is status

    def test_a_run_that_no_worker_owns_up_to_is_lost_whatever_its_process_tag_says(self, launcher):
        tags = {"dagster-celery/task_id": str(uuid4()), PROCESS_TAG: this_process()}
        health = launcher.check_run_worker_health(dg.DagsterRun(job_name="train", run_id=str(uuid4()), tags=tags))
        assert health.status is WorkerStatus.FAILED
        assert health.msg == "Worker unknown gave no sign of the run for 0 s."
