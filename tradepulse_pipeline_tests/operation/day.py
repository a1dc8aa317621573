"""What happens on a day, and Dagster's daemons, turned by hand, that see to it."""

from __future__ import annotations

import json
import logging
import os
import shutil
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from unittest import mock

import dagster as dg
import psycopg
from dagster._core.definitions.instigation_logger import get_instigation_log_records
from dagster._core.instance.ref import InstanceRef
from dagster._core.remote_origin import InProcessCodeLocationOrigin
from dagster._core.scheduler.instigation import TickStatus
from dagster._core.test_utils import freeze_time
from dagster._core.types.loadable_target_origin import LoadableTargetOrigin
from dagster._core.workspace.context import WorkspaceProcessContext
from dagster._core.workspace.load_target import InProcessWorkspaceLoadTarget
from dagster._daemon.auto_run_reexecution.event_log_consumer import EventLogConsumerDaemon
from dagster._daemon.monitoring.run_monitoring import execute_run_monitoring_iteration
from dagster._daemon.run_coordinator.queued_run_coordinator_daemon import QueuedRunCoordinatorDaemon
from dagster._daemon.sensor import execute_sensor_iteration
from dagster._scheduler.scheduler import launch_scheduled_runs

from tradepulse_pipeline.database.configurations import ConfigurationRow, list_configurations, transitions
from tradepulse_pipeline.database.server import database_url, stop_embedded
from tradepulse_pipeline.market.candles import Candles
from tradepulse_pipeline.market.series import MS_PER_DAY, MS_PER_MINUTE, SeriesKey
from tradepulse_pipeline.market.sources.simulated import SimulatedMarketSettings, simulate
from tradepulse_pipeline.orchestration.failures import why_run_failed
from tradepulse_pipeline.orchestration.names import DEFINITIONS, PARTITION_TAG
from tradepulse_pipeline.orchestration.resources import DatabaseResource
from tradepulse_pipeline_tests.loopback import LoopbackExchange
from tradepulse_pipeline_tests.operation.clock import StandingClock
from tradepulse_pipeline_tests.operation.launcher import CLOCK, ROOT, DayLauncher
from tradepulse_pipeline_tests.orchestration.conftest import remove_data

#: The market that decays, the one whose candles are restated, and the one that is listed.
FADING, RESTATED, LISTED = (SeriesKey.of("binance", pair, "5m") for pair in ("FADE/USDT", "MEND/USDT", "NEW/USDT"))

BEGIN = 1_704_067_200_000
HISTORY_DAYS = 46
MORNING = BEGIN + HISTORY_DAYS * MS_PER_DAY
FOLLOWING_DAYS = 20
MINUTE, HOUR = MS_PER_MINUTE, 60 * MS_PER_MINUTE
EDGE = 8.0

SEARCH_STEP = "liquidity_sweep_v3__optimization_results"
SWITCHED_ON = ("new_listings", "retrain_decayed", "retrain_restated")
SCHEDULED = ("monitor_liquidity_sweep_v3_daily", "update_candles_5m")

SETTINGS = f"""
history_days = {HISTORY_DAYS}
method = "random"
budget = 40
minimum_trades = 3
workers = 1
train_days = 10
test_days = 6
gap_days = 1

[listings]
exchanges = ["binance"]
minimum_volume = 1000
"""

#: Seconds that anything may take on a busy machine.
_PATIENCE_S = 600.0

#: What Dagster says of sensors that watch runs, when nothing has happened to any.
_DAGSTERS_OWN = ("Initiating ", "Sensor function returned an empty result")

_quiet = logging.getLogger("day of operation")


def made_up(series: SeriesKey, start_ms: int, end_ms: int, edge: float) -> Candles:
    """Return candles that begin at a price of 100: an edge of years would have raised it beyond measure."""
    market = SimulatedMarketSettings(edge=edge, outages_per_year=0, jumps_per_year=0)
    made = simulate(series.market, series.timeframe, start_ms, end_ms, market)
    return scaled(made, 100 / made.open[0], 1_000 / made.volume.mean())


def scaled(candles: Candles, price: float, volume: float) -> Candles:
    prices = (price * column for column in (candles.open, candles.high, candles.low, candles.close))
    return Candles.from_arrays(candles.timeframe, candles.open_time_ms, *prices, volume * candles.volume)


def fading() -> Candles:
    """A market whose edge turns into its opposite on the day, at the price at which it was."""
    before = made_up(FADING, BEGIN, MORNING, EDGE)
    after = made_up(FADING, MORNING, MORNING + FOLLOWING_DAYS * MS_PER_DAY, -EDGE)
    return Candles.joined(before.timeframe, [before, scaled(after, before.close[-1] / after.open[0], 1.0)])


def restated(candles: Candles, first_ms: int, end_ms: int) -> Candles:
    """The exchange has found more trades: volumes of a span are half as large again."""
    is_inside = (candles.open_time_ms >= first_ms) & (candles.open_time_ms < end_ms)
    volume = candles.volume * (1 + 0.5 * is_inside)
    prices = (candles.open, candles.high, candles.low, candles.close)
    return Candles.from_arrays(candles.timeframe, candles.open_time_ms, *prices, volume)


class Webhook(ThreadingHTTPServer):
    """Where alerts are posted to."""

    def __init__(self) -> None:
        alerts: list[dict[str, str]] = []

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                alerts.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
                self.send_response(204)
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        super().__init__(("127.0.0.1", 0), Handler)
        self.alerts = alerts


class Day:
    """The exchange, the project and its daemons. What happens is told a line each."""

    def __init__(
        self,
        folder: Path,
        clock: StandingClock,
        exchange: LoopbackExchange,
        webhook: Webhook,
        workspace: WorkspaceProcessContext,
        tell: Callable[[str], None],
    ) -> None:
        self.folder, self.clock, self.exchange, self.webhook = folder, clock, exchange, webhook
        self.workspace, self.instance = workspace, workspace.instance
        self.database = DatabaseResource().open()
        self.killed: list[str] = []
        self.restarted_under = ""
        self.listed_candles = {FADING: fading(), RESTATED: made_up(RESTATED, BEGIN, self.last_ms, EDGE)}
        self._tell = tell
        self._told: dict[str, object] = {}
        self._told_alerts = 0
        self._sensor_time = datetime.now(UTC)
        self._queue, self._retries = QueuedRunCoordinatorDaemon(1), EventLogConsumerDaemon()
        for series, candles in self.listed_candles.items():
            exchange.replace(series, candles)

    last_ms = MORNING + FOLLOWING_DAYS * MS_PER_DAY

    @property
    def launcher(self) -> DayLauncher:
        launcher = self.instance.run_launcher
        assert isinstance(launcher, DayLauncher)
        return launcher

    def tell(self, text: str) -> None:
        self._tell(f"{self.clock.now:%d %b %H:%M}  {text}")

    # What happens.

    def pass_the_day(self) -> None:
        self.opens()
        self.declares_two_markets()
        self.an_hour_passes()
        self.an_hour_passes_with_a_restatement_and_a_killed_worker()
        self.a_pair_is_listed()
        self.the_edge_turns()
        self.the_database_restarts_while_the_decayed_is_retrained()
        self.the_listed_pair_is_old_enough()
        self.tell("Evening: what stands, and why.")
        for row in self.configurations():
            last = transitions(self.database, row.id)[-1]
            state = "active" if row.is_active else "superseded"
            self.tell(f"    {row.pair:<10} version {row.version}, {state:<10} {row.lifecycle_stage:<10} {last.reason}")

    def opens(self) -> None:
        self.tell("A trader switches on: " + ", ".join((*SWITCHED_ON, *SCHEDULED)) + ".")
        with freeze_time(self.clock.now - timedelta(minutes=1)):
            for name in SWITCHED_ON:
                self.instance.start_sensor(self._repository().get_sensor(name))
            for name in SCHEDULED:
                self.instance.start_schedule(self._repository().get_schedule(name))
        self.round()

    def declares_two_markets(self) -> None:
        self.tell(f"tradepulse.toml declares {FADING} and {RESTATED}.")
        (self.folder / "tradepulse.toml").write_text(f'markets = ["{FADING}", "{RESTATED}"]\n{SETTINGS}')
        self.until(lambda: len(self.configurations()) == 2 and self.is_idle())
        self.until(lambda: len(self.webhook.alerts) >= 2)

    def an_hour_passes(self) -> None:
        self.move(MORNING + HOUR)
        n_waiting = len(self.schedule())
        self.move(MORNING + HOUR + 5 * MINUTE)
        self.tell(f"The queue has not been looked at since: {n_waiting} runs wait in it.")
        self.schedule()
        self.until(self.is_idle)

    def an_hour_passes_with_a_restatement_and_a_killed_worker(self) -> None:
        first, end = MORNING - 90 * MINUTE, MORNING - 60 * MINUTE
        self.move(MORNING + 2 * HOUR)
        self.tell(f"The exchange restates six candles of {RESTATED}, from yesterday 22:30 on.")
        self.list_on_exchange(RESTATED, restated(self.listed_candles[RESTATED], first, end))
        self.schedule()
        self.work_off()
        self.launcher.has_own_processes = True
        self.round()
        self.kill(self.when_a_worker_searches())
        self.until(lambda: self.version_of(RESTATED) == 2 and self.is_idle())
        self.launcher.has_own_processes = False
        self.until(lambda: any("failed" in alert["subject"] for alert in self.webhook.alerts))

    def a_pair_is_listed(self) -> None:
        self.move(MORNING + 3 * HOUR)
        self.tell(f"The exchange lists {LISTED.pair}, which is traded since yesterday.")
        self.list_on_exchange(LISTED, made_up(LISTED, MORNING - MS_PER_DAY, self.last_ms, EDGE))
        self.until(lambda: str(LISTED) in self.instance.get_dynamic_partitions("series") and self.is_idle())
        self.round()

    def the_edge_turns(self) -> None:
        self.tell(f"Four days pass, in which what paid in {FADING.pair} costs.")
        midnight = MORNING + 4 * MS_PER_DAY
        for now_ms in (midnight + 10 * MINUTE, midnight + HOUR):  # candles, then the monitoring of the night
            self.move(now_ms)
            self.schedule()
            self.work_off()

    def the_database_restarts_while_the_decayed_is_retrained(self) -> None:
        self.launcher.has_own_processes = True
        self.round()
        run_id = self.when_a_worker_searches()
        self.tell(f"The database restarts while run {run_id[:8]} searches.")
        self.restarted_under = run_id
        stop_embedded(self.folder / ".tradepulse")
        database_url(self.folder / ".tradepulse", None)
        self.until(lambda: self.version_of(FADING) == 2 and self.is_idle())
        self.launcher.has_own_processes = False

    def the_listed_pair_is_old_enough(self) -> None:
        self.tell(f"Twelve more days pass: {LISTED.pair} is 17 days old.")
        self.move(MORNING + 16 * MS_PER_DAY + 10 * MINUTE)
        self.schedule()
        self.until(lambda: self.version_of(LISTED) == 1 and self.is_idle())
        self.round()

    # The exchange and the world.

    def move(self, now_ms: int) -> None:
        self.clock.set(now_ms)

    def list_on_exchange(self, series: SeriesKey, candles: Candles) -> None:
        self.listed_candles[series] = candles
        self.exchange.replace(series, candles)

    def when_a_worker_searches(self) -> str:
        """Return the run whose process has begun to search."""
        deadline = time.monotonic() + _PATIENCE_S
        while time.monotonic() < deadline:
            for run_id, worker in self.launcher.workers.items():
                started = self.instance.all_logs(run_id, of_type=dg.DagsterEventType.STEP_START)
                if worker.poll() is None and any(event.step_key == SEARCH_STEP for event in started):
                    return run_id
            time.sleep(0.05)
        raise AssertionError("no process of a run came to its search; see workers.log")

    def kill(self, run_id: str) -> None:
        worker = self.launcher.workers[run_id]
        os.killpg(worker.pid, signal.SIGKILL)
        worker.wait()
        self.killed.append(run_id)
        self.tell(f"Somebody kills the process of run {run_id[:8]} in its search.")

    # What Dagster's daemons do.

    def until(self, is_so: Callable[[], bool]) -> None:
        """Let the daemons do their rounds, at least one, until something is so."""
        deadline = time.monotonic() + _PATIENCE_S
        self.round()
        while not is_so():
            assert time.monotonic() < deadline, "the day waits for what does not come"
            time.sleep(0.5)
            self.round()

    def round(self) -> None:
        self._done(execute_run_monitoring_iteration(self.workspace, _quiet))
        self._done(self._retries.run_iteration(self.workspace))
        self.sense()
        self.work_off()

    def sense(self) -> None:
        self._sensor_time += timedelta(hours=1)
        with freeze_time(self._sensor_time):
            self._done(execute_sensor_iteration(self.workspace, _quiet, None, None))
        for sensor in self._repository().get_sensors():
            self._tell_ticks(sensor.name, sensor.get_remote_origin_id(), sensor.selector_id)
        for alert in self.webhook.alerts[self._told_alerts :]:
            self.tell(f"alert: {alert['subject']} — {alert['why']}")
        self._told_alerts = len(self.webhook.alerts)

    def schedule(self) -> list[dg.DagsterRun]:
        """Let the schedules tick once for all that they have missed, and return the runs that wait."""
        with freeze_time(self.clock.now):
            self._done(launch_scheduled_runs(self.workspace, _quiet, self.clock.now, {}, max_catchup_runs=1))
        for schedule in self._repository().get_schedules():
            self._tell_ticks(schedule.name, schedule.get_remote_origin_id(), schedule.selector_id)
        return list(self.instance.get_runs(dg.RunsFilter(statuses=[dg.DagsterRunStatus.QUEUED])))

    def work_off(self) -> None:
        """Take runs from the queue until none may begin; those without a process of their own have ended then."""
        while True:
            n_waiting = self._n_of(dg.DagsterRunStatus.QUEUED)
            self._done(self._queue.run_iteration(self.workspace))
            if self._n_of(dg.DagsterRunStatus.QUEUED) == n_waiting:
                break
        for run in reversed(self.instance.get_runs()):
            if run.is_finished and f"run {run.run_id}" not in self._told:
                self._told[f"run {run.run_id}"] = True
                about = f"run {run.run_id[:8]} of {run.job_name} {run.tags.get(PARTITION_TAG, '')}".strip()
                why = f": {why_run_failed(self.instance, run.run_id)}" if run.status.value == "FAILURE" else "."
                self.tell(f"    {about} ends as {run.status.value}{why}")

    def is_idle(self) -> bool:
        """Whether no run waits or works, and no process of one is left."""
        is_over = all(worker.poll() is not None for worker in self.launcher.workers.values())
        return is_over and all(run.is_finished for run in self.instance.get_runs())

    def _n_of(self, status: dg.DagsterRunStatus) -> int:
        return self.instance.get_runs_count(dg.RunsFilter(statuses=[status]))

    def _done(self, iteration: Iterator[object]) -> None:
        assert [error for error in iteration if error is not None] == []

    def _repository(self):
        (location,) = self.workspace.create_request_context().code_locations
        (repository,) = location.get_repositories().values()
        return repository

    def _tell_ticks(self, name: str, origin_id: str, selector_id: str) -> None:
        """Tell the last tick, in its own words, unless it says what it said before."""
        for tick in self.instance.get_ticks(origin_id, selector_id, limit=1):
            assert tick.status is not TickStatus.FAILURE, (name, tick.error)
            records = get_instigation_log_records(self.instance, tick.log_key) if tick.log_key else []
            said = [str(record["dagster_meta"]["orig_message"]) for record in records]
            if tick.run_ids:
                said.append(f"{len(tick.run_ids)} runs are asked for.")
            if tick.skip_reason != " ".join(said):
                said.append(tick.skip_reason or "")
            said = [sentence for sentence in said if not sentence.startswith(_DAGSTERS_OWN)]
            before = self._told.get(name)
            self._told[name] = (tick.tick_id, said)
            if before is None or (before[0] != tick.tick_id and before[1] != said):
                for sentence in filter(None, said):
                    self.tell(f"{name}: {sentence}")

    # What stands.

    def configurations(self) -> list[ConfigurationRow]:
        """Every version of every configuration, in order."""
        found = list_configurations(self.database, active_only=False, limit=100)
        return sorted(found, key=lambda row: (row.pair, row.version))

    def version_of(self, series: SeriesKey) -> int:
        return max((row.version for row in self.configurations() if row.pair == series.pair), default=0)


@contextmanager
def a_day(folder: Path, tell: Callable[[str], None]) -> Iterator[Day]:
    """Open a project in ``folder``, with an exchange, a webhook and an embedded database of its own."""
    for name in ("dagster.yaml", "workspace.yaml"):
        shutil.copy(ROOT / name, folder)
    (folder / "tradepulse.toml").write_text(SETTINGS)
    clock = StandingClock(folder / CLOCK)
    clock.set(MORNING)
    before, real_time_ns = Path.cwd(), time.time_ns
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith(("TRADEPULSE_", "DAGSTER_"))
    }
    with ExitStack() as stack:
        stack.enter_context(mock.patch.dict(os.environ, environment, clear=True))
        stack.callback(setattr, time, "time_ns", real_time_ns)
        stack.callback(os.chdir, before)
        os.chdir(folder)
        clock.install()
        webhook = Webhook()
        threading.Thread(target=webhook.serve_forever, daemon=True).start()
        stack.callback(webhook.server_close)
        stack.callback(webhook.shutdown)
        exchange = stack.enter_context(LoopbackExchange({}, clock_ms=clock.now_ms))
        os.environ["TRADEPULSE_EXCHANGE_URL"] = exchange.base_url
        os.environ["TRADEPULSE_ALERTS_WEBHOOK"] = f"http://127.0.0.1:{webhook.server_address[1]}/"
        stack.callback(remove_data, folder / ".tradepulse")
        _spare_the_disk(folder)
        stack.callback(DatabaseResource().open().close)
        overrides = {"run_launcher": {"module": DayLauncher.__module__, "class": DayLauncher.__name__}}
        instance = stack.enter_context(
            dg.DagsterInstance.from_ref(InstanceRef.from_dir(str(folder), overrides=overrides))
        )
        target = LoadableTargetOrigin(
            executable_path=sys.executable, module_name=DEFINITIONS[0], attribute=DEFINITIONS[1], working_directory="."
        )
        location = InProcessWorkspaceLoadTarget(InProcessCodeLocationOrigin(target, location_name="tradepulse"))
        workspace = stack.enter_context(WorkspaceProcessContext(instance, location))
        day = Day(folder, clock, exchange, webhook, workspace, tell)
        stack.callback(_end_workers, day.launcher)
        yield day


def _spare_the_disk(folder: Path) -> None:
    """Nobody misses this database after a power failure."""
    with psycopg.connect(database_url(folder / ".tradepulse", None), autocommit=True) as connection:
        connection.execute("ALTER SYSTEM SET fsync = off")
        connection.execute("SELECT pg_reload_conf()")


def _end_workers(launcher: DayLauncher) -> None:
    for worker in launcher.workers.values():
        if worker.poll() is None:
            os.killpg(worker.pid, signal.SIGKILL)
            worker.wait()
