"""What is trained again, and why, and why not: sensors and schedules on a real database, whatever happens to them."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from unittest import mock
from uuid import UUID, uuid4

import dagster as dg
import psycopg
import pytest
from dagster._core.test_utils import create_run_for_test
from dagster._utils.schedules import cron_string_iterator
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tradepulse_pipeline.database import retraining, training_jobs
from tradepulse_pipeline.database.candles import store_candles
from tradepulse_pipeline.database.configurations import ConfigurationRow, insert_configuration, list_configurations
from tradepulse_pipeline.database.connection import Database
from tradepulse_pipeline.database.migrations import migrate
from tradepulse_pipeline.definitions import build_definitions
from tradepulse_pipeline.errors import InvalidInputError
from tradepulse_pipeline.market.series import MS_PER_DAY, TIMEFRAMES, SeriesKey, Timeframe
from tradepulse_pipeline.market.sources.simulated import SimulatedMarketSettings, simulate
from tradepulse_pipeline.optimizers.settings import SearchSettings
from tradepulse_pipeline.orchestration.launch import _web_origin
from tradepulse_pipeline.orchestration.names import WILL_RETRY_TAG
from tradepulse_pipeline.orchestration.resources import DatabaseResource, SettingsResource
from tradepulse_pipeline.orchestration.schedules.candles import build_candle_schedules, cron_of
from tradepulse_pipeline.orchestration.schedules.monitoring import build_monitoring_schedule
from tradepulse_pipeline.orchestration.schedules.retraining import build_retraining_schedules, default_cron
from tradepulse_pipeline.orchestration.sensors.retraining import CAUSES, MOST_PER_TICK
from tradepulse_pipeline.orchestration.training_jobs import end_jobs
from tradepulse_pipeline.strategies.registry import get_strategy, strategy_names
from tradepulse_pipeline.validation.training import TrainingSettings
from tradepulse_pipeline.validation.windows import WindowSettings

STRATEGY, OTHER = get_strategy("LIQUIDITY_SWEEP_V3"), get_strategy("SUPPLY_SHOCK_V3")
defs = build_definitions([STRATEGY, OTHER])
JOB = "train_liquidity_sweep_v3"
SENSORS = {sensor.name: sensor for sensor in defs.get_repository_def().sensor_defs}
SCHEDULES = {schedule.name: schedule for schedule in defs.get_repository_def().schedule_defs}
BTC, ETH, SOL = (f"binance:{base}-USDT:5m" for base in ("BTC", "ETH", "SOL"))
SUNDAY = datetime(2026, 1, 4, 3, 25, tzinfo=UTC)
START = 1_704_067_200_000

TRAINED_WITH = TrainingSettings(
    search=SearchSettings(method="random", budget=40, minimum_trades=3, workers=1, seed=5),
    windows=WindowSettings(train_days=10, test_days=6, gap_days=1),
)
#: All that is not asked for here.
FIGURES = dict.fromkeys(
    (
        *("net_profit", "sharpe_ratio", "sortino_ratio", "calmar_ratio", "max_drawdown", "win_rate", "gross_win_rate"),
        *("average_win", "average_loss", "profit_factor", "sample_size", "p_value", "z_score", "fill_rate"),
        *("deflated_sharpe_ratio", "probability_of_backtest_overfitting", "tested_p_value", "adverse_selection_score"),
        "evidence",
    )
)
DOCUMENTS = ("parameters", "in_sample_metrics", "out_of_sample_metrics", "template", "dependency_versions")

#: A run that waits in the queue, and one that has been launched.
UNDER_WAY = (dg.DagsterRunStatus.QUEUED, dg.DagsterRunStatus.STARTING)

_numbers = itertools.count(1)


@pytest.fixture(scope="module")
def own_url(project_dir, tmp_path_factory) -> Iterator[str]:
    """The address of a database of this module's own, in the server of the project."""
    from tradepulse_pipeline.database.server import database_url

    server = database_url(project_dir / ".tradepulse", None)
    name = f"retraining_{uuid4().hex[:8]}"
    with psycopg.connect(server, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}".encode())
    url = server.replace("/postgres?", f"/{name}?")
    with Database(url) as database:
        migrate(database)
    yield url
    with psycopg.connect(server, autocommit=True) as connection:
        connection.execute(f"DROP DATABASE {name} WITH (FORCE)".encode())


def emptied(url):
    with psycopg.connect(url) as connection:
        connection.execute("SET session_replication_role = replica")  # the triggers that guard history do not fire
        for table in (
            *("monitoring_reports", "lifecycle_transitions", "trained_configurations", "training_job_series"),
            *("training_jobs", "searches", "trials", "market_data", "market_data_revisions"),
        ):
            connection.execute(f"DELETE FROM tradepulse.{table}".encode())


@pytest.fixture
def database(own_url, opened, monkeypatch) -> Database:
    """A database with all tables and no row in them; the one that definitions open."""
    emptied(own_url)
    monkeypatch.setenv("TRADEPULSE_DATABASE_URL", own_url)
    database = DatabaseResource().open()
    opened.append(database)
    return database


@pytest.fixture
def instance():
    with dg.DagsterInstance.ephemeral() as instance:
        instance.add_dynamic_partitions("series", [BTC, ETH, SOL])
        yield instance


def trained(
    database,
    key,
    *,
    strategy=STRATEGY,
    training=TRAINED_WITH,
    stage="PAPER",
    history=None,
    job_id=None,
    is_filed=False,
    days_ago=0,
):
    """Store a configuration, as the training of a series does; ``is_filed`` where a training job waits for it."""
    series = SeriesKey.parse(key)
    if not is_filed:
        job_id = training_jobs.create(
            database,
            strategy_name=strategy.name,
            config={"training": training.to_json_dict(), "history": history},
            series=[series],
            seed=0,
            code_version="1",
            user_id="ada",
        )
        training_jobs.start_series(database, job_id, series, run_id="first")
    row = ConfigurationRow(
        id=uuid4(),
        training_job_id=job_id,
        strategy_name=strategy.name,
        exchange=series.exchange,
        pair=series.pair,
        timeframe=series.timeframe.name,
        lifecycle_stage=stage,
        is_simulated=series.market.is_simulated,
        windows=[],
        data_warnings=[],
        data_fingerprint="f00",
        data_start=datetime(2024, 1, 1, tzinfo=UTC),
        data_end=datetime(2025, 1, 1, tzinfo=UTC),
        code_version="1",
        engine_hash="e",
        seed=0,
        optimizer="random",
        settings=training.to_json_dict(),
        n_trials=1,
        run_id="r",
        **{name: {} for name in DOCUMENTS},
        **FIGURES,
    )

    def store(connection):
        stored = insert_configuration(connection, row, reason="it lost money", figures={})
        run_ids = {one.series: one.run_id for one in training_jobs.get(database, job_id).series}
        training_jobs.finish_series(connection, job_id, series, run_id=run_ids[series], status="completed")
        return stored.id

    configuration_id = database.run(store)
    if days_ago:
        change(
            database,
            "UPDATE trained_configurations SET created_at = now() - make_interval(hours => %s) WHERE id = %s",
            round(days_ago * 24),
            configuration_id,
        )
    return configuration_id


def change(database, query, *values):
    """Change what the triggers guard."""

    def work(connection):
        connection.execute("SET LOCAL session_replication_role = replica")
        connection.execute(query, values)

    database.run(work)


def decay(database, configuration_id):
    database.run(
        lambda connection: connection.execute(
            "UPDATE trained_configurations SET lifecycle_stage = 'DECAY' WHERE id = %s", (configuration_id,)
        )
    )
    database.run(
        lambda connection: connection.execute(
            "INSERT INTO lifecycle_transitions (configuration_id, from_stage, to_stage, reason, figures)"
            " VALUES (%s, 'PAPER', 'DECAY', 'rolling Sharpe -0.4 is under half of 1.9; drift of the trades.', '{}')",
            (configuration_id,),
        )
    )


def restate(database, configuration_id):
    change(
        database,
        "UPDATE trained_configurations SET stale_at = now(), stale_reason = '1 candle at 2024-05-01T00:00Z was"
        " restated by binance' WHERE id = %s",
        configuration_id,
    )


def challenge(database, configuration_id, parameters=None):
    challenger = None if parameters is None else {"parameters": parameters, "p_value": 0.01, "sentence": "2 R beat 1."}
    database.run(
        lambda connection: connection.execute(
            "INSERT INTO monitoring_reports (configuration_id, through, n_trades, figures, death_signals,"
            " size_multiplier, verdict, challenger) VALUES (%s, %s, 9, '{}', '{}', 1, 'well', %s)",
            (
                configuration_id,
                f"{1970 + next(_numbers)}-01-01",
                None if challenger is None else json.dumps(challenger),
            ),
        )
    )


def age(database, configuration_id):
    change(
        database,
        "UPDATE trained_configurations SET created_at = now() - interval '91 days' WHERE id = %s",
        configuration_id,
    )


BRING_ABOUT = {
    "retrain_decayed": decay,
    "retrain_restated": restate,
    "retrain_aged": age,
    "retrain_challenged": lambda database, one: challenge(database, one, {"x": 1.0}),
}


@pytest.fixture
def told(monkeypatch):
    """What ticks log."""
    said = []
    log = SimpleNamespace(info=said.append)
    for context in (dg.SensorEvaluationContext, dg.ScheduleEvaluationContext):
        monkeypatch.setattr(context, "log", log)
    return said


def tick(sensor, instance, cursor=None):
    """Evaluate a sensor, as if the daemon had just started; return the runs it asks for, or why there are none."""
    context = dg.build_sensor_context(instance=instance, cursor=cursor)
    result = SENSORS[sensor](context, database=DatabaseResource())
    return result.skip_message if isinstance(result, dg.SkipReason) else result.run_requests


def scheduled(name, instance, at=SUNDAY, schedules=SCHEDULES, **resources):
    context = dg.build_schedule_context(scheduled_execution_time=at)
    with mock.patch.object(dg.ScheduleEvaluationContext, "instance", instance):  # the builder takes none in memory
        result = schedules[name](context, **resources)
    return result.skip_message if isinstance(result, dg.SkipReason) else result


def job_of(request):
    return UUID(request.tags["tradepulse/training_job"])


def launched(instance, request, status=dg.DagsterRunStatus.STARTING):
    """Do what the daemon does with a request."""
    tags = {**request.tags, "dagster/partition": request.partition_key, "dagster/run_key": request.run_key}
    return create_run_for_test(instance, job_name=request.job_name, tags=tags, status=status)


class TestEachCause:
    @pytest.fixture(params=[cause.sensor_name for cause in CAUSES])
    def sensor(self, request):
        return request.param

    def test_nothing_to_do_is_said_in_words(self, database, instance, sensor):
        trained(database, BTC)
        assert tick(sensor, instance).startswith(("No active configuration", "Every active configuration"))

    def test_it_leads_to_a_run_with_the_settings_that_it_was_trained_with(self, database, instance, sensor, told):
        BRING_ABOUT[sensor](database, trained(database, BTC, history={"source": "stored", "history_days": 28}))
        trained(database, ETH)
        (request,) = tick(sensor, instance)
        assert (request.job_name, request.partition_key) == (JOB, BTC)
        config = SettingsResource(**request.run_config["resources"]["settings"]["config"])
        assert (config.training(), config.history_days, config.source) == (TRAINED_WITH, 28, "stored")
        dg.validate_run_config(defs.resolve_job_def(JOB), request.run_config)
        job = training_jobs.get(database, job_of(request))
        assert (job.status, job.user_id, job.seed) == ("pending", sensor, 5)
        assert [str(one.series) for one in job.series] == [BTC]
        assert job.config["causes"] == [request.run_key] == [request.tags["tradepulse/cause"]]
        assert job.config["training"] == TRAINED_WITH.to_json_dict()
        (sentence,) = told
        assert sentence.startswith(f"{BTC} LIQUIDITY_SWEEP_V3 version 1 is trained again: ")
        assert sentence.endswith(f"Training job {str(job.id)[:8]}.")

    def test_a_restart_and_a_reset_ask_for_nothing_twice(self, database, instance, sensor):
        BRING_ABOUT[sensor](database, trained(database, BTC))
        (request,) = tick(sensor, instance)
        run = launched(instance, request)
        for cursor in (None, "whatever it was"):
            assert f"waits for its run {run.run_id[:8]}, which is STARTING" in tick(sensor, instance, cursor)
        training_jobs.start_series(database, job_of(request), SeriesKey.parse(BTC), run_id=run.run_id)
        assert "is at it." in tick(sensor, instance)
        instance.delete_run(run.run_id)
        assert "is at it." in tick(sensor, instance)
        trained(database, BTC, job_id=job_of(request), is_filed=True)
        assert "is trained again" not in tick(sensor, instance)
        assert not tick(sensor, instance).startswith("Nothing is retrained.")

    def test_the_memory_is_in_the_database_and_outlives_dagsters_own(self, database, instance, sensor):
        BRING_ABOUT[sensor](database, trained(database, BTC))
        (request,) = tick(sensor, instance)
        training_jobs.start_series(database, job_of(request), SeriesKey.parse(BTC), run_id="r")
        with dg.DagsterInstance.ephemeral() as another:
            another.add_dynamic_partitions("series", [BTC])
            assert "is at it." in tick(sensor, another)

    def test_a_tick_that_was_cut_short_is_made_good_by_the_same_training_job(self, database, instance, sensor):
        BRING_ABOUT[sensor](database, trained(database, BTC))
        (lost,), (again,) = tick(sensor, instance), tick(sensor, instance)
        assert (again.run_key, again.tags) == (lost.run_key, lost.tags)

    @pytest.mark.parametrize("end", ["failed", "cancelled"])
    def test_what_failed_is_not_tried_again_and_the_tick_says_how_to(self, database, instance, sensor, end):
        BRING_ABOUT[sensor](database, trained(database, BTC))
        (request,) = tick(sensor, instance)
        run = launched(instance, request)
        training_jobs.start_series(database, job_of(request), SeriesKey.parse(BTC), run_id=run.run_id)
        end_jobs(database, run, instance, end, "The exchange is gone.")
        instance.delete_run(run.run_id)  # by then it may have been pruned
        said = tick(sensor, instance)
        assert ("failed: The exchange is gone." if end == "failed" else "was cancelled.") in said
        assert "'Failed and missing'" in said

    def test_a_run_whose_process_died_is_launched_again_by_dagster(self, database, instance, sensor):
        BRING_ABOUT[sensor](database, trained(database, BTC))
        (request,) = tick(sensor, instance)
        run = launched(instance, request)
        training_jobs.start_series(database, job_of(request), SeriesKey.parse(BTC), run_id=run.run_id)
        instance.add_run_tags(run.run_id, {WILL_RETRY_TAG: "true"})
        instance.report_run_failed(run)
        end_jobs(database, run, instance, "failed", "Its process is gone.")
        assert "died, which is launched again by itself." in tick(sensor, instance)

    def test_a_run_that_ended_before_it_began_is_not_repeated(self, database, instance, sensor):
        BRING_ABOUT[sensor](database, trained(database, BTC))
        (request,) = tick(sensor, instance)
        launched(instance, request, dg.DagsterRunStatus.FAILURE)
        assert "has ended as FAILURE before it began" in tick(sensor, instance)

    def test_a_training_that_came_to_nothing_is_not_repeated(self, database, instance, sensor):
        BRING_ABOUT[sensor](database, trained(database, BTC))
        (request,) = tick(sensor, instance)
        series, job_id = SeriesKey.parse(BTC), job_of(request)
        training_jobs.start_series(database, job_id, series, run_id="r")
        database.run(
            lambda connection: training_jobs.finish_series(
                connection, job_id, series, run_id="r", status="completed", error_message="None of 40 qualified."
            )
        )
        assert "came to no new configuration: None of 40 qualified." in tick(sensor, instance)

    def test_a_series_whose_partition_was_removed_is_left_alone(self, database, instance, sensor):
        BRING_ABOUT[sensor](database, trained(database, BTC))
        instance.delete_dynamic_partition("series", BTC)
        assert f"{BTC} LIQUIDITY_SWEEP_V3 version 1" in (said := tick(sensor, instance))
        assert said.endswith("its partition was removed.")
        instance.add_dynamic_partitions("series", [BTC])
        assert len(tick(sensor, instance)) == 1

    def test_a_superseded_version_is_no_cause(self, database, instance, sensor):
        BRING_ABOUT[sensor](database, trained(database, BTC))
        trained(database, BTC)
        assert not tick(sensor, instance).startswith("Nothing is retrained.")


def test_a_restarted_daemon_knows_what_it_has_asked_for(database, tmp_path):
    decay(database, trained(database, BTC))
    with dg.DagsterInstance.local_temp(str(tmp_path)) as instance:
        instance.add_dynamic_partitions("series", [BTC])
        (request,) = tick("retrain_decayed", instance)
        run = launched(instance, request)
    with dg.DagsterInstance.local_temp(str(tmp_path)) as instance:
        assert f"waits for its run {run.run_id[:8]}, which is STARTING." in tick("retrain_decayed", instance)


def test_a_second_decay_of_the_same_configuration_is_another_cause(database, instance):
    one = trained(database, BTC)
    decay(database, one)
    (request,) = tick("retrain_decayed", instance)
    training_jobs.cancel_job(database, job_of(request))
    database.run(lambda c: c.execute("UPDATE trained_configurations SET lifecycle_stage = 'PAPER'"))
    assert tick("retrain_decayed", instance) == "No active configuration is in DECAY."
    decay(database, one)
    (again,) = tick("retrain_decayed", instance)
    assert again.run_key != request.run_key


def test_the_same_challenger_found_again_is_the_same_cause_and_another_one_is_not(database, instance):
    one = trained(database, BTC)
    challenge(database, one, {"x": 1.0, "y": 2})
    (request,) = tick("retrain_challenged", instance)
    training_jobs.cancel_job(database, job_of(request))
    challenge(database, one, {"y": 2, "x": 1.0})
    assert "was cancelled" in tick("retrain_challenged", instance)
    challenge(database, one, None)
    assert tick("retrain_challenged", instance) == "No active configuration has a better challenger."
    challenge(database, one, {"x": 3.0, "y": 2})
    assert len(tick("retrain_challenged", instance)) == 1


def test_two_causes_at_once_are_one_training(database, instance):
    one = trained(database, BTC)
    decay(database, one)
    restate(database, one)
    (request,) = tick("retrain_decayed", instance)
    assert f"training job {str(job_of(request))[:8]} trains it already." in tick("retrain_restated", instance)


def test_what_a_switched_off_sensor_left_behind_blocks_nobody(database, instance):
    one = trained(database, BTC)
    decay(database, one)
    restate(database, one)
    (lost,) = tick("retrain_decayed", instance)
    assert "trains it already" in tick("retrain_restated", instance)
    change(database, "UPDATE training_jobs SET created_at = now() - interval '2 hours' WHERE id = %s", job_of(lost))
    assert len(tick("retrain_restated", instance)) == 1
    abandoned = training_jobs.get(database, job_of(lost))
    assert (abandoned.status, abandoned.error_message) == ("cancelled", f"{BTC}: No run ever began it.")


@pytest.mark.parametrize(
    ("tags", "assets", "is_training"),
    [
        ({"strategy": "liquidity_sweep_v3"}, None, True),
        ({"strategy": "supply_shock_v3"}, None, False),
        ({}, frozenset({dg.AssetKey(["liquidity_sweep_v3", "trained_configurations"])}), True),
        ({}, frozenset({dg.AssetKey("market_data")}), False),
    ],
)
@pytest.mark.parametrize("status", UNDER_WAY)
def test_a_run_that_somebody_launched_by_hand_comes_first(
    database, instance, in_project, tags, assets, is_training, status
):
    decay(database, trained(database, BTC))
    create_run_for_test(
        instance,
        job_name="some_job",
        status=status,
        remote_job_origin=_web_origin(in_project, "some_job"),
        tags={**tags, "dagster/partition": BTC},
        asset_selection=assets,
    )
    result = tick("retrain_decayed", instance)
    assert ("trains it already." in result) if is_training else len(result) == 1


def test_series_of_one_tick_are_one_training_job_unless_their_settings_differ(database, instance):
    other = TrainingSettings(search=SearchSettings(method="random", budget=7))
    for key, training in ((BTC, TRAINED_WITH), (ETH, TRAINED_WITH), (SOL, other)):
        decay(database, trained(database, key, training=training))
    decay(database, trained(database, BTC, strategy=OTHER))
    jobs = {(r.job_name, r.partition_key): job_of(r) for r in tick("retrain_decayed", instance)}
    assert jobs[JOB, BTC] == jobs[JOB, ETH]
    assert len({jobs[JOB, BTC], jobs[JOB, SOL], jobs["train_supply_shock_v3", BTC]}) == 3


def test_a_tick_asks_for_few_and_the_next_ones_for_the_rest_the_oldest_first(database, instance):
    keys = [f"binance:C{number:02}-USDT:1h" for number in range(MOST_PER_TICK + 3)]
    instance.add_dynamic_partitions("series", keys)
    for number, key in enumerate(keys):
        trained(database, key, days_ago=100 + number)
    first = tick("retrain_aged", instance)
    assert [request.partition_key for request in first] == keys[:2:-1]
    for request in first:
        launched(instance, request)
    assert [request.partition_key for request in tick("retrain_aged", instance)] == keys[2::-1]


def test_long_lists_of_what_is_left_are_cut(database, instance):
    for number in range(14):
        decay(database, trained(database, f"binance:C{number:02}-USDT:1h"))
    assert tick("retrain_decayed", instance).endswith("And 4 more.")


def test_the_allowed_age_is_a_setting_and_0_is_none(database, instance, monkeypatch):
    trained(database, BTC, days_ago=40.5)
    assert tick("retrain_aged", instance) == "No active configuration is older than 90 days (max_age_days)."
    monkeypatch.setenv("TRADEPULSE_MAX_AGE_DAYS", "41")
    assert isinstance(tick("retrain_aged", instance), str)
    monkeypatch.setenv("TRADEPULSE_MAX_AGE_DAYS", "40")
    assert len(tick("retrain_aged", instance)) == 1
    monkeypatch.setenv("TRADEPULSE_MAX_AGE_DAYS", "0")
    assert tick("retrain_aged", instance) == "No age is too old: max_age_days is 0."


@pytest.mark.parametrize(
    ("key", "history", "expected"),
    [
        (BTC, None, ("auto", 365, "", "")),
        (BTC, {"start_ms": START}, ("auto", 365, "2024-01-01T00:00:00+00:00", "")),
        (BTC, {"source": "exchange", "history_days": 9, "end_ms": START}, ("exchange", 9, "", "")),
        (BTC, {"start_ms": START, "end_ms": START + 28 * MS_PER_DAY}, ("auto", 28, "", "")),
        ("simulated:BTC-USDT:5m", {"history_days": 50}, ("stored", 50, "", "")),
    ],
)
def test_a_retraining_is_about_the_latest_candles(database, instance, key, history, expected):
    instance.add_dynamic_partitions("series", [key])
    decay(database, trained(database, key, history=history))
    (request,) = tick("retrain_decayed", instance)
    config = request.run_config["resources"]["settings"]["config"]
    assert tuple(config[name] for name in ("source", "history_days", "start", "end")) == expected
    assert ("tradepulse/simulated" in request.tags) == key.startswith("simulated")


def test_simulated_candles_are_called_so(database, instance, told):
    key = "simulated:BTC-USDT:5m"
    instance.add_dynamic_partitions("series", [key])
    decay(database, trained(database, key))
    tick("retrain_decayed", instance)
    assert told[0].startswith(f"{key}, SIMULATED, LIQUIDITY_SWEEP_V3 version 1 is trained again")


def test_settings_that_nobody_can_read_any_more_are_named(database, instance):
    one = trained(database, BTC)
    decay(database, one)
    change(database, 'UPDATE trained_configurations SET settings = \'{"sidde": "long"}\' WHERE id = %s', one)
    assert "cannot be read any more, train it by hand: Unknown field 'sidde'" in tick("retrain_decayed", instance)


def test_two_who_file_at_the_same_time_file_one_training(database):
    decay(database, trained(database, BTC))
    due = retraining.decayed(database)
    values = {"config": {}, "seed": 0, "code_version": "1", "user_id": "ada"}
    first = uuid4()
    assert retraining.file_retraining(database, first, due, **values) == due
    assert retraining.file_retraining(database, first, due, **values) == due  # the reply to a COMMIT was lost
    assert retraining.file_retraining(database, uuid4(), due, **values) == []


def test_two_who_file_for_different_causes_at_the_same_time_file_one_training(database):
    one = trained(database, BTC)
    decay(database, one)
    restate(database, one)
    decayed, restated = retraining.decayed(database), retraining.restated(database)
    values = {"config": {}, "seed": 0, "code_version": "1", "user_id": "ada"}
    assert retraining.file_retraining(database, uuid4(), decayed, **values) == decayed
    assert retraining.file_retraining(database, uuid4(), restated, **values) == []


def test_what_was_superseded_meanwhile_is_not_filed(database):
    decay(database, trained(database, BTC))
    due = retraining.decayed(database)
    trained(database, BTC)
    values = {"config": {}, "seed": 0, "code_version": "1", "user_id": "ada"}
    assert retraining.file_retraining(database, uuid4(), due, **values) == []


STEPS = st.lists(
    st.one_of(
        st.tuples(st.sampled_from(sorted(BRING_ABOUT)), st.sampled_from(["happens", "tick", "tick", "lost tick"])),
        st.tuples(st.sampled_from([BTC, ETH]), st.sampled_from(["begin", "fail", "succeed", "prune", "remove", "add"])),
        st.tuples(st.just("schedule"), st.integers(0, 3)),
    ),
    max_size=25,
)


@given(steps=STEPS)
@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
def test_whatever_happens_no_cause_is_trained_for_twice_and_no_series_twice_at_once(own_url, database, steps):
    emptied(own_url)
    with dg.DagsterInstance.ephemeral() as instance:
        instance.add_dynamic_partitions("series", [BTC, ETH])
        for key in (BTC, ETH):
            trained(database, key)
        runs, causes = {}, []

        def launch(requests):
            for request in [] if isinstance(requests, str) else requests:
                assert request.partition_key not in runs, "a training of the series has not ended"
                causes.append((request.run_key, request.partition_key))
                runs[request.partition_key] = launched(instance, request)

        for what, how in steps:
            if what == "schedule":
                at = SUNDAY + timedelta(days=7 * how)
                launch(scheduled("retrain_liquidity_sweep_v3", instance, at, database=DatabaseResource()))
            elif how == "happens":
                for row in list_configurations(database):
                    happen(database, what, row)
            elif how == "tick":
                launch(tick(what, instance))
            elif how == "lost tick":
                tick(what, instance)
            elif how == "remove":
                instance.delete_dynamic_partition("series", what)
            elif how == "add":
                instance.add_dynamic_partitions("series", [what])
            elif how == "prune":
                for run in instance.get_runs(filters=dg.RunsFilter(statuses=[dg.DagsterRunStatus.FAILURE])):
                    instance.delete_run(run.run_id)
            elif what in runs:
                run = runs[what]
                job_id, series = UUID(run.tags["tradepulse/training_job"]), SeriesKey.parse(what)
                training_jobs.start_series(database, job_id, series, run_id=run.run_id)
                if how == "fail":
                    end_jobs(database, run, instance, "failed", "no luck")
                    instance.report_run_failed(run)
                    del runs[what]
                elif how == "succeed":
                    trained(database, what, job_id=job_id, is_filed=True)
                    instance.delete_run(run.run_id)
                    del runs[what]
        assert len(set(causes)) == len(causes)
        open_series = [
            str(one.series)
            for job in training_jobs.list_jobs(database, limit=100)
            for one in job.series
            if one.status in ("pending", "running")
        ]
        assert len(set(open_series)) == len(open_series)


def happen(database, what, row):
    """Bring a cause about, unless it is there for ever already."""
    if what == "retrain_restated" and row.stale_at is not None:
        return
    BRING_ABOUT[what](database, row.id)


def test_from_a_decay_to_a_new_version_and_then_there_is_nothing_to_do(database, instance):
    key, series = "binance:WHOLE-USDT:5m", SeriesKey.parse("binance:WHOLE-USDT:5m")
    instance.add_dynamic_partitions("series", [key])
    market = SimulatedMarketSettings(edge=8.0)
    store_candles(
        database, series, simulate(series.market, series.timeframe, START, START + 28 * MS_PER_DAY, market), "file"
    )
    asked = SettingsResource.of(TRAINED_WITH, SettingsResource(source="stored", history_days=28).history())
    config = {"resources": {"settings": {"config": asked.to_run_config()}}}
    job = defs.resolve_job_def(JOB)
    assert job.execute_in_process(instance=instance, partition_key=key, run_config=config).success
    (old,) = list_configurations(database, pair="WHOLE/USDT")
    decay(database, old.id)

    (request,) = tick("retrain_decayed", instance)
    result = job.execute_in_process(
        instance=instance, partition_key=request.partition_key, run_config=request.run_config, tags=request.tags
    )
    assert result.success
    (new,) = list_configurations(database, pair="WHOLE/USDT")
    assert (new.version, new.training_job_id, new.settings) == (2, job_of(request), old.settings)
    assert new.out_of_sample_metrics == old.out_of_sample_metrics  # the same candles, the same settings
    assert training_jobs.get(database, job_of(request)).status == "completed"
    assert tick("retrain_decayed", instance) == "No active configuration is in DECAY."


class TestTheWeeklySchedule:
    NAME = "retrain_liquidity_sweep_v3"

    def ask(self, instance, at=SUNDAY):
        return scheduled(self.NAME, instance, at, database=DatabaseResource())

    def test_everything_active_of_the_strategy_is_one_training_job(self, database, instance, told):
        for key in (BTC, ETH):
            trained(database, key)
        trained(database, SOL, strategy=OTHER)
        requests = self.ask(instance)
        assert [request.partition_key for request in requests] == [BTC, ETH]
        assert len({job_of(request) for request in requests}) == 1
        assert told[0].startswith(
            f"{BTC} LIQUIDITY_SWEEP_V3 version 1 is trained again: it is time, 2026-01-04 03:25 UTC."
        )

    def test_the_same_time_asks_once_and_the_next_week_asks_again(self, database, instance):
        trained(database, BTC)
        (request,) = self.ask(instance)
        training_jobs.cancel_job(database, job_of(request))
        assert "was cancelled" in self.ask(instance)
        (later,) = self.ask(instance, SUNDAY + timedelta(days=7))
        assert later.run_key != request.run_key

    def test_what_is_being_trained_is_left(self, database, instance):
        decay(database, trained(database, BTC))
        (request,) = tick("retrain_decayed", instance)
        assert f"training job {str(job_of(request))[:8]} trains it already" in self.ask(instance)

    def test_nothing_active_is_said_in_words(self, database, instance):
        assert self.ask(instance) == "There is no active configuration of LIQUIDITY_SWEEP_V3."

    def test_strategies_begin_at_night_and_not_all_at_once(self):
        crons = {default_cron(name) for name in strategy_names()}
        assert len(crons) == len(strategy_names())
        for cron in crons:
            at = next(cron_string_iterator(0.0, cron, "UTC"))
            assert (at.isoweekday(), at.hour < 6) == (7, True)

    def test_the_time_is_a_setting(self):
        jobs = [defs.resolve_job_def(name) for name in (JOB, "train_supply_shock_v3")]
        built = build_retraining_schedules([STRATEGY, OTHER], jobs, {OTHER.name: "0 3 * * 1,4"})
        assert [one.cron_schedule for one in built] == [default_cron(STRATEGY.name), "0 3 * * 1,4"]

    @pytest.mark.parametrize(
        ("setting", "message"),
        [
            ({"LIQUIDITY_SWEEP": "0 3 * * 6"}, "Unknown strategy 'LIQUIDITY_SWEEP' in the setting retraining_schedule"),
            ({STRATEGY.name: "weekly"}, "retraining_schedule: found 'weekly' for LIQUIDITY_SWEEP_V3, expected a cron"),
            ({STRATEGY.name: "0 25 * * *"}, "retraining_schedule: found '0 25"),
            ({STRATEGY.name: "* * * * * *"}, "retraining_schedule: found"),
        ],
    )
    def test_a_wrong_setting_is_named(self, setting, message):
        with pytest.raises(InvalidInputError, match=message):
            build_definitions([STRATEGY], retraining_schedule=setting)


class TestTheSchedulesOfCandles:
    @pytest.mark.parametrize("name", TIMEFRAMES)
    @given(start=st.integers(0, 10**9))
    @settings(max_examples=5)
    def test_they_tick_when_candles_close(self, name, start):
        ticks = cron_string_iterator(float(start), cron_of(Timeframe(name)), "UTC")
        first, second = (next(ticks).timestamp() for _ in range(2))
        step = Timeframe(name).minutes * 60
        assert (first % step, second - first) == (0, step)
        assert start <= first <= start + step

    def test_each_real_series_of_the_timeframe_gets_a_run_and_each_close_its_own(self, instance):
        instance.add_dynamic_partitions("series", ["kraken:BTC-USD:1h", "simulated:BTC-USDT:1h", "nonsense"])
        assert sorted(one.name for one in build_candle_schedules()) == sorted(f"update_candles_{t}" for t in TIMEFRAMES)
        (request,) = scheduled("update_candles_1h", instance)
        assert (request.partition_key, request.run_key) == ("kraken:BTC-USD:1h", "kraken:BTC-USD:1h 2026-01-04T03:25")
        (later,) = scheduled("update_candles_1h", instance, SUNDAY + timedelta(hours=1))
        assert later.run_key != request.run_key
        assert len(scheduled("update_candles_5m", instance)) == 3

    def test_no_series_is_said_in_words(self, instance):
        assert scheduled("update_candles_4h", instance) == "There is no partition of a 4h series."
        instance.add_dynamic_partitions("series", ["simulated:BTC-USDT:4h"])
        assert scheduled("update_candles_4h", instance) == "Every 4h series is simulated: there is no market to ask."

    @pytest.mark.parametrize("status", UNDER_WAY)
    def test_runs_do_not_pile_up_behind_one_that_has_not_ended(self, instance, in_project, told, status):
        for key in (BTC, ETH):
            create_run_for_test(
                instance,
                job_name="update_market_data",
                tags={"dagster/partition": key},
                status=status,
                remote_job_origin=_web_origin(in_project, "update_market_data"),
            )
        assert [one.partition_key for one in scheduled("update_candles_5m", instance)] == [SOL]
        assert told == [f"Left out, since a run that fetches their candles has not ended: {BTC}, {ETH}."]
        instance.delete_dynamic_partition("series", SOL)
        assert scheduled("update_candles_5m", instance).startswith("Every 5m series has a run that has not ended")


class TestTheScheduleOfMonitoring:
    @pytest.fixture
    def ask(self, instance):
        schedule = build_monitoring_schedule(STRATEGY)

        def ask(at=SUNDAY):
            return scheduled(schedule.name, instance, at, {schedule.name: schedule}, database=DatabaseResource())

        return ask

    def test_every_active_configuration_is_monitored_once_a_day(self, database, ask):
        trained(database, BTC)
        trained(database, BTC)
        trained(database, ETH)
        trained(database, SOL, strategy=OTHER)
        first, again = ask(), ask(SUNDAY + timedelta(hours=1))
        assert [one.partition_key for one in first] == [BTC, ETH]
        assert [one.run_key for one in first] == [one.run_key for one in again]
        assert ask(SUNDAY + timedelta(days=1))[0].run_key != first[0].run_key

    def test_it_asks_for_the_monitoring_job_after_midnight(self):
        schedule = build_monitoring_schedule(STRATEGY)
        at = next(cron_string_iterator(0.0, schedule.cron_schedule, "UTC"))
        assert schedule.job_name == "monitor_liquidity_sweep_v3"
        assert timedelta(minutes=15) <= timedelta(hours=at.hour, minutes=at.minute) < timedelta(minutes=45)

    def test_what_is_not_monitored_is_said_in_words(self, database, instance, ask, told):
        assert ask() == "There is no active configuration of LIQUIDITY_SWEEP_V3."
        trained(database, BTC)
        instance.delete_dynamic_partition("series", BTC)
        assert ask() == "The partition of every series with an active LIQUIDITY_SWEEP_V3 was removed."
        trained(database, ETH)
        assert [one.partition_key for one in ask()] == [ETH]
        assert told[-1] == f"Left out, since their partitions were removed: {BTC}."


def test_what_costs_rests_until_it_is_switched_on():
    repository = defs.get_repository_def()
    resting = {one.name for one in repository.sensor_defs if one.default_status is dg.DefaultSensorStatus.STOPPED}
    assert {cause.sensor_name for cause in CAUSES} <= resting
    awake = {one.name for one in repository.schedule_defs if one.default_status is dg.DefaultScheduleStatus.RUNNING}
    assert awake == {"prune_runs_nightly"}
    assert all(one.description for one in (*repository.schedule_defs, *repository.sensor_defs))
