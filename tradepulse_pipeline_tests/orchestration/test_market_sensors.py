"""Markets that come and go by themselves: those that the settings declare, and those that an exchange lists."""

from __future__ import annotations

import json
import time
from uuid import UUID

import dagster as dg
import pytest

from tradepulse_pipeline.database import training_jobs
from tradepulse_pipeline.database.candles import store_candles
from tradepulse_pipeline.definitions import build_definitions
from tradepulse_pipeline.market.candles import Candles
from tradepulse_pipeline.market.series import MS_PER_DAY, SeriesKey
from tradepulse_pipeline.market.sources.simulated import SimulatedMarketSettings, simulate
from tradepulse_pipeline.orchestration.followed import declared_among, follow, sensor_is_on, unfollow
from tradepulse_pipeline.orchestration.launch import _web_origin
from tradepulse_pipeline.orchestration.names import PARTITION_TAG, TRAINING_JOB_TAG
from tradepulse_pipeline.orchestration.resources import DatabaseResource
from tradepulse_pipeline.strategies.registry import get_strategy
from tradepulse_pipeline_tests.loopback import Fault, LoopbackExchange
from tradepulse_pipeline_tests.orchestration.control_room import QUIET, control_room

pytestmark = QUIET

STRATEGIES = ("LIQUIDITY_SWEEP_V3", "SUPPLY_SHOCK_V3")
repository = build_definitions([get_strategy(name) for name in STRATEGIES]).get_repository_def()


class Watch:
    """One sensor with its cursor and an instance of its own; what a tick asks for is done as the daemon does it."""

    def __init__(self, name: str, instance: dg.DagsterInstance) -> None:
        self.sensor, self.instance, self.cursor = repository.get_sensor_def(name), instance, None
        self.said = ""

    def tick(self, *, remembers: bool = True) -> list[dg.RunRequest]:
        """Evaluate once and return the runs that are asked for; one that does not remember died before the end."""
        context = dg.build_sensor_context(
            instance=self.instance, cursor=self.cursor, sensor_name=self.sensor.name, repository_def=repository,
            resources={"database": DatabaseResource()},
        )  # fmt: skip
        result = self.sensor(context)
        if isinstance(result, dg.SkipReason):
            self.said = result.skip_message
            return []
        for change in result.dynamic_partitions_requests or ():
            if isinstance(change, dg.AddDynamicPartitionsRequest):
                self.instance.add_dynamic_partitions("series", change.partition_keys)
            else:
                for key in change.partition_keys:
                    self.instance.delete_dynamic_partition("series", key)
        self.cursor = result.cursor if remembers else self.cursor
        self.said = result.skip_reason.skip_message if result.skip_reason else ""
        assert self.said or result.run_requests
        return list(result.run_requests or ())

    @property
    def series(self) -> set[str]:
        return set(self.instance.get_dynamic_partitions("series"))


@pytest.fixture
def instance():
    with dg.DagsterInstance.ephemeral() as instance:
        yield instance


@pytest.fixture
def watch(instance, database):
    return lambda name: Watch(name, instance)


@pytest.fixture
def declare(in_project):
    """Write a list of markets into the settings, and other settings behind it."""
    path = in_project / "tradepulse.toml"

    def write(*series, more=""):
        path.write_text(f"markets = {json.dumps(series)}\n{more}")

    yield write
    path.unlink(missing_ok=True)


A, B, C = (f"binance:{base}-USDT:5m" for base in ("AAA", "BBB", "CCC"))


def test_nothing_declared_costs_nothing_and_says_so(watch, declare):
    declared = watch("declared_markets")
    assert declared.tick() == []
    assert declared.said == "No series are declared. 'tradepulse markets add' writes some into tradepulse.toml."


def test_new_series_are_added_and_trained_as_one_job_and_only_once(watch, declare, database):
    first, second = "binance:NEW1-USDT:5m", "binance:NEW2-USDT:5m"
    declare(first, second, more="history_days = 200\n[filters]\nmax_spread_tolerance = 20\n")
    declared = watch("declared_markets")
    requests = declared.tick()
    assert declared.series == {first, second}
    assert [(one.partition_key, one.job_name) for one in requests] == [
        (first, "train_liquidity_sweep_v3"),
        (second, "train_liquidity_sweep_v3"),
    ]
    (job_id,) = {one.tags[TRAINING_JOB_TAG] for one in requests}
    assert {one.run_config["resources"]["settings"]["config"]["history_days"] for one in requests} == {200}
    job = training_jobs.get(database, UUID(job_id))
    assert ([str(one.series) for one in job.series], job.status, job.user_id) == (
        [first, second],
        "pending",
        "declared_markets",
    )
    assert job.config["training"]["filters"] == {"max_spread_tolerance": 20.0}
    assert declared.tick() == []
    assert declared.said == "2 series are declared, and all have been asked for."


def test_a_tick_that_is_repeated_asks_for_the_same_runs_of_the_same_job(watch, declare):
    declare("binance:RPT-USDT:5m")
    declared = watch("declared_markets")
    first, second = declared.tick(remembers=False), declared.tick()
    assert [(one.run_key, one.tags) for one in first] == [(one.run_key, one.tags) for one in second]
    assert declared.tick() == []


def test_every_strategy_is_trained_the_first_ones_of_all_series_first(watch, declare):
    declare(A, B, more='strategies = ["SUPPLY_SHOCK_V3"]\n')
    declared = watch("declared_markets")
    assert {one.job_name for one in declared.tick()} == {"train_supply_shock_v3"}
    declare(A, B, C, more='strategies = ["LIQUIDITY_SWEEP_V3", "SUPPLY_SHOCK_V3"]\n')
    requests = declared.tick()
    assert [(one.job_name.removeprefix("train_"), one.partition_key) for one in requests] == [
        *(("liquidity_sweep_v3", key) for key in (A, B, C)),
        ("supply_shock_v3", C),
    ]
    assert len({one.tags[TRAINING_JOB_TAG] for one in requests}) == 2


def test_what_leaves_the_list_stops_and_is_trained_anew_when_it_comes_back(watch, declare):
    declare(A, B)
    declared = watch("declared_markets")
    first = declared.tick()
    declare(B)
    assert declared.tick() == []
    assert declared.said == f"{A} left the list: its partition is removed, its candles and configurations are kept."
    assert declared.series == {B}
    assert declared.tick() == []
    assert declared.said == f"{A} is not followed; 0 of its runs are cancelled."
    assert declared_among(declared.instance, {A, B}) == {B}
    declare(A, B)
    (again,) = declared.tick()
    assert again.partition_key == A
    assert again.run_key not in {one.run_key for one in first}


def test_waiting_runs_of_what_left_the_list_are_cancelled(declare, database, tmp_path, in_project):
    key = "simulated:WAIT-USDT:5m"
    with dg.instance_for_test(
        overrides={"run_coordinator": {"module": "dagster.core.run_coordinator", "class": "QueuedRunCoordinator"}},
        temp_dir=str(tmp_path),
    ) as instance:
        job = repository.get_job("train_liquidity_sweep_v3")
        follow(instance, [key])
        origin = _web_origin(in_project, job.name)
        waiting, other = (
            instance.create_run_for_job(
                job, tags={PARTITION_TAG: one}, status=dg.DagsterRunStatus.QUEUED, remote_job_origin=origin
            )
            for one in (key, A)
        )
        declare()
        declared = Watch("declared_markets", instance)
        declared.tick()
        declared.tick()
        assert declared.said == f"{key} is not followed; 1 of its runs are cancelled."
        assert instance.get_run_by_id(waiting.run_id).status is dg.DagsterRunStatus.CANCELED
        assert instance.get_run_by_id(other.run_id).status is dg.DagsterRunStatus.QUEUED


def test_partitions_of_a_persons_own_are_left_alone(watch, declare):
    declared = watch("declared_markets")
    declared.instance.add_dynamic_partitions("series", [A, C])
    declare(A, B)
    assert [one.partition_key for one in declared.tick()] == [A, B]
    declare()
    declared.tick()
    assert declared.series == {A, C}


def test_a_partition_that_a_person_removes_rests_although_it_is_declared(watch, declare):
    declare(A)
    declared = watch("declared_markets")
    declared.tick()
    unfollow(declared.instance, A)
    assert declared.tick() == []
    assert "a person has removed its partition: it rests" in declared.said
    assert declared.series == set()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('markets = ["binance:AAA:5m"]', "until the settings are mended. markets: found 'binance:AAA:5m'"),
        ("markets = [", "not valid TOML"),
        (f'markets = ["{A}"]\nstrategies = ["NONE"]', "Unknown strategy 'NONE'"),
    ],
)
def test_settings_that_are_wrong_change_nothing_and_are_told(watch, declare, in_project, text, said):
    declare(A)
    declared = watch("declared_markets")
    declared.tick()
    (in_project / "tradepulse.toml").write_text(text)
    assert declared.tick() == []
    assert said in declared.said
    assert declared.series == {A}


def test_a_series_of_no_exchange_is_left_out_and_the_others_are_not(watch, declare):
    declare("binnance:AAA-USDT:5m", B)
    declared = watch("declared_markets")
    assert [one.partition_key for one in declared.tick()] == [B]
    assert declared.tick() == []
    assert "binnance:AAA-USDT:5m is left out. Unknown exchange 'binnance'. Did you mean 'binance'" in declared.said


def test_the_daemon_adds_and_trains_a_declared_series(declare, database, tmp_path):
    key = "binance:DAEMON-USDT:1h"
    series, end = SeriesKey.parse(key), time.time_ns() // 1_000_000 // MS_PER_DAY * MS_PER_DAY
    market = SimulatedMarketSettings(edge=8.0, outages_per_year=0)
    store_candles(
        database, series, simulate(series.market, series.timeframe, end - 28 * MS_PER_DAY, end, market), "file"
    )
    declare(
        key,
        more='source = "stored"\nmethod = "random"\nbudget = 40\ntrain_days = 10\ntest_days = 6\ngap_days = 1\n'
        "minimum_trades = 1\nworkers = 1\n",
    )
    with control_room(tmp_path) as room:
        tick = room.tick("declared_markets")
        (run,) = room.instance.get_runs()
        assert (run.is_success, tick.run_ids) == (True, [run.run_id])
        assert training_jobs.get(database, UUID(run.tags[TRAINING_JOB_TAG])).status == "completed"
        assert room.partitions(dg.AssetKey(["liquidity_sweep_v3", "trained_configurations"])) == ({key}, set())
        assert room.tick("declared_markets").skip_reason == "1 series are declared, and all have been asked for."
        declare()
        room.tick("declared_markets")
        assert room.instance.get_dynamic_partitions("series") == []
        assert sensor_is_on(room.instance, "declared_markets", by_default=True)
        room.switch_off("declared_markets")
        assert not sensor_is_on(room.instance, "declared_markets", by_default=True)


LISTINGS = '[listings]\nexchanges = ["binance"]\ntimeframes = ["1h"]\nmost_per_day = 2\nminimum_volume = 1000\n'


def candles(key, n_days=4, scale=1.0):
    """Return made-up candles up to now, with volumes that are ``scale`` times as large."""
    series, end = SeriesKey.parse(key), (time.time_ns() // 1_000_000 // MS_PER_DAY + 1) * MS_PER_DAY
    made = simulate(series.market, series.timeframe, end - n_days * MS_PER_DAY, end, SimulatedMarketSettings())
    return Candles.from_arrays(
        made.timeframe, made.open_time_ms, made.open, made.high, made.low, made.close, made.volume * scale
    )


@pytest.fixture
def exchange(monkeypatch):
    old = "binance:OLD-USDT:1h"
    with LoopbackExchange({SeriesKey.parse(old): candles(old)}) as exchange:
        monkeypatch.setenv("TRADEPULSE_EXCHANGE_URL", exchange.base_url)
        yield exchange


def list_pair(exchange, key, **how):
    exchange.replace(SeriesKey.parse(key), candles(key, **how))


def test_without_an_exchange_in_the_settings_nobody_is_asked(watch, declare, exchange):
    listings = watch("new_listings")
    assert listings.tick() == []
    assert "names no exchanges" in listings.said
    assert exchange.requests == []


def test_only_pairs_that_come_after_the_first_look_count_and_their_candles_come_first(watch, declare, exchange):
    declare(more=LISTINGS)
    listings = watch("new_listings")
    assert listings.tick() == []
    assert listings.said == "binance: 1 USDT pairs are known from now on; what is listed after them is new."
    assert listings.tick() == []
    assert listings.said == "binance: no USDT pair was newly listed."

    key = "binance:FRESH-USDT:1h"
    list_pair(exchange, key)
    list_pair(exchange, "binance:FRESH-BTC:1h")
    (request,) = listings.tick()
    assert (request.job_name, request.partition_key) == ("update_market_data", key)
    assert listings.series == {key}
    assert listings.tick() == []
    assert listings.said.endswith(f"Waiting for 120 days of history, which one window takes: {key}.")


def test_a_pair_is_trained_once_its_history_is_long_enough(watch, declare, exchange, database):
    declare(more=LISTINGS)
    listings = watch("new_listings")
    listings.tick()
    key = "binance:RIPE-USDT:1h"
    list_pair(exchange, key)
    listings.tick()
    store_candles(database, SeriesKey.parse(key), candles(key, n_days=125), "file")
    (request,) = listings.tick()
    assert (request.job_name, request.partition_key) == ("train_liquidity_sweep_v3", key)
    assert {str(one.series) for one in training_jobs.get(database, request.tags[TRAINING_JOB_TAG]).series} == {key}
    assert listings.tick() == []


def test_a_small_pair_is_watched_and_the_day_has_room_for_a_few(watch, declare, exchange):
    declare(more=LISTINGS)
    listings = watch("new_listings")
    listings.tick()
    list_pair(exchange, "binance:TINY-USDT:1h", scale=1e-9)
    assert listings.tick() == []
    assert "binance TINY/USDT: 0 USDT were traded in 24 h, 1,000 are asked for; looked at again until" in listings.said
    for base, scale in (("ONE", 1.0), ("TWO", 1e3), ("TINY", 1e6)):
        list_pair(exchange, f"binance:{base}-USDT:1h", scale=scale)
    assert [one.partition_key.split("-")[0] for one in listings.tick()] == ["binance:TINY", "binance:TWO"]
    assert listings.tick() == []
    assert "2 pairs were taken within 24 h already, so it waits" in listings.said


@pytest.mark.parametrize("fault", [Fault(kind="status", status=503, times=None), Fault(kind="html", times=None)])
def test_an_exchange_that_fails_is_told_and_nothing_is_forgotten(watch, declare, exchange, fault):
    declare(more=LISTINGS)
    listings = watch("new_listings")
    listings.tick()
    before = listings.cursor
    list_pair(exchange, "binance:LATE-USDT:1h")
    exchange.inject(fault)
    assert listings.tick() == []
    assert listings.said.startswith("binance: nothing is known about new pairs this time. binance fails")
    assert json.loads(listings.cursor) == json.loads(before)
    exchange._faults.clear()
    assert [one.partition_key for one in listings.tick()] == ["binance:LATE-USDT:1h"]


def test_a_pair_whose_partition_a_person_removes_is_not_trained(watch, declare, exchange, database):
    declare(more=LISTINGS)
    listings = watch("new_listings")
    listings.tick()
    key = "binance:GONE-USDT:1h"
    list_pair(exchange, key)
    listings.tick()
    store_candles(database, SeriesKey.parse(key), candles(key, n_days=125), "file")
    unfollow(listings.instance, key)
    assert listings.tick() == []


def test_a_tick_of_listings_that_is_repeated_asks_for_the_same_runs(watch, declare, exchange):
    declare(more=LISTINGS)
    listings = watch("new_listings")
    listings.tick()
    list_pair(exchange, "binance:TWICE-USDT:1h")
    first, second = listings.tick(remembers=False), listings.tick()
    assert [one.run_key for one in first] == [one.run_key for one in second] == ["binance:TWICE-USDT:1h candles"]
