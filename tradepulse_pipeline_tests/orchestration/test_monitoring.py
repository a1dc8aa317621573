"""Monitoring on an ephemeral instance of Dagster and a real PostgreSQL: what is traded on paper, said and moved."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import dagster as dg
import numpy as np
import pytest

from tradepulse_pipeline.database.candles import store_candles
from tradepulse_pipeline.database.configurations import list_configurations, transitions
from tradepulse_pipeline.database.corrections import correct_job
from tradepulse_pipeline.database.monitoring import paper_trades_of, reports_of
from tradepulse_pipeline.database.values import milliseconds_of
from tradepulse_pipeline.definitions import build_definitions
from tradepulse_pipeline.market.candles import Candles
from tradepulse_pipeline.market.series import MS_PER_DAY, SeriesKey
from tradepulse_pipeline.market.sources.simulated import SimulatedMarketSettings, simulate
from tradepulse_pipeline.market.sources.times import iso_utc
from tradepulse_pipeline.orchestration.resources import SettingsResource
from tradepulse_pipeline.strategies.registry import get_strategy

STRATEGY = get_strategy("LIQUIDITY_SWEEP_V3")
defs = build_definitions([STRATEGY])
MONITORING = dg.AssetKey(["liquidity_sweep_v3", "lifecycle_monitoring"])
START = 1_704_067_200_000
N_TRAINED, N_NEW = 28, 40

SMALL = SettingsResource(
    source="stored",
    start="2024-01-01",
    end="2024-01-29",
    train_days=10,
    test_days=6,
    gap_days=1,
    budget=40,
    minimum_trades=3,
    workers=1,
)


@pytest.fixture
def instance():
    with dg.DagsterInstance.ephemeral() as instance:
        yield instance


@pytest.fixture
def train(instance):
    def run(key: str, end: str = "2024-01-29"):
        settings = SMALL.model_copy(update={"end": end})
        instance.add_dynamic_partitions("series", [key])
        return defs.resolve_job_def("train_liquidity_sweep_v3").execute_in_process(
            instance=instance,
            partition_key=key,
            run_config={"resources": {"settings": {"config": settings.to_run_config()}}},
        )

    return run


@pytest.fixture
def monitor(instance):
    def run(key: str):
        instance.add_dynamic_partitions("series", [key])
        result = defs.resolve_job_def("monitor_liquidity_sweep_v3").execute_in_process(
            instance=instance, partition_key=key
        )
        (event,) = result.get_asset_materialization_events()
        assert (event.asset_key, event.partition) == (MONITORING, key)
        return {name: getattr(value, "value", value) for name, value in event.materialization.metadata.items()}

    return run


def simulated(key: str, n_days: int):
    series = SeriesKey.parse(key)
    return simulate(
        series.market, series.timeframe, START, START + n_days * MS_PER_DAY, SimulatedMarketSettings(edge=8.0)
    )


def continued(before: Candles, series: SeriesKey, n_days: int, *, edge: float) -> Candles:
    """Return candles of another edge that go on at the price at which those before ended."""
    settings = SimulatedMarketSettings(edge=edge)
    end_ms = before.end_ms
    made = simulate(series.market, series.timeframe, end_ms, end_ms + n_days * MS_PER_DAY, settings)
    scale = before.close[-1] / made.open[0]
    prices = (scale * column for column in (made.open, made.high, made.low, made.close))
    return Candles.from_arrays(made.timeframe, made.open_time_ms, *prices, made.volume)


def store(database, key, n_days):
    candles = simulated(key, n_days)
    store_candles(database, SeriesKey.parse(key), candles, "file")
    return candles


def test_nothing_to_do_is_said_plainly(monitor, train, database):
    key = "binance:NOTHING-USDT:5m"
    assert monitor(key)["verdict"].startswith("Nothing to do: no configuration of LIQUIDITY_SWEEP_V3 is stored")
    store(database, key, N_TRAINED)
    assert train(key).success
    (row,) = list_configurations(database, pair="NOTHING/USDT")
    assert monitor(key)["verdict"].startswith(f"Nothing to do: no candle came after those that {row.id} was trained on")
    assert reports_of(database, row.id) == []


def test_new_candles_are_traded_on_paper_once(monitor, train, database):
    key = "binance:PAPER-USDT:5m"
    store(database, key, N_TRAINED)
    assert train(key).success
    (row,) = list_configurations(database, pair="PAPER/USDT")
    store(database, key, N_TRAINED + N_NEW)
    figures = monitor(key)
    trades = paper_trades_of(database, row.id)
    (report,) = reports_of(database, row.id)
    assert len(trades) == report.n_trades == figures["paper_trades"] > 0
    assert min(trade.decision_time for trade in trades) >= row.data_end
    assert figures["paper_days"] == N_NEW
    assert "](data:image/svg+xml;base64," in figures["paper_record"]
    again = monitor(key)
    assert again["verdict"].endswith("Nothing new since the last look: no candle has closed.")
    assert (paper_trades_of(database, row.id), reports_of(database, row.id)) == (trades, [report])


def test_a_look_each_day_comes_to_the_trades_of_one_look(monitor, train, database):
    daily, at_once = "binance:DAILY-USDT:5m", "binance:ONCE-USDT:5m"
    whole = simulated(daily, N_TRAINED + 12)
    for key in (daily, at_once):
        store_candles(database, SeriesKey.parse(key), whole.between(None, START + N_TRAINED * MS_PER_DAY), "file")
        assert train(key).success
    for day in range(1, 13, 3):
        store_candles(
            database, SeriesKey.parse(daily), whole.between(None, START + (N_TRAINED + day) * MS_PER_DAY), "file"
        )
        monitor(daily)
    for key in (daily, at_once):
        store_candles(database, SeriesKey.parse(key), whole, "file")
        monitor(key)
    rows = [list_configurations(database, pair=pair)[0] for pair in ("DAILY/USDT", "ONCE/USDT")]
    first, second = ([replace(trade, id=0) for trade in paper_trades_of(database, row.id)] for row in rows)
    assert first == second != []
    assert [len(reports_of(database, row.id)) for row in rows] == [5, 1]


def test_decay_is_a_move_with_its_figures_and_a_comeback_as_well(monitor, train, database):
    key = "binance:DECAY-USDT:5m"
    known = store(database, key, 70)  # long enough a record to predict something
    assert train(key, end="2024-03-11").success
    (row,) = list_configurations(database, pair="DECAY/USDT")
    assert milliseconds_of(row.data_end) == known.end_ms
    promote = "UPDATE trained_configurations SET lifecycle_stage = 'VALIDATION' WHERE id = %s"
    database.run(lambda connection: connection.execute(promote, (row.id,)))
    # A market in which the planted edge has turned into its opposite.
    series = SeriesKey.parse(key)
    turned = continued(known, series, 60, edge=-8.0)
    store_candles(database, series, turned, "file")
    figures = monitor(key)
    assert figures["verdict"].startswith("VALIDATION → DECAY: ")
    assert figures["size_multiplier"] == 0.0
    (row,) = list_configurations(database, pair="DECAY/USDT")
    assert row.lifecycle_stage == "DECAY"
    *_, move = transitions(database, row.id)
    assert (move.from_stage, move.to_stage) == ("VALIDATION", "DECAY")
    assert figures["verdict"].endswith(move.reason)
    assert move.figures["stage"] == "VALIDATION"
    assert move.figures["through"] == iso_utc(turned.end_ms)
    (report,) = reports_of(database, row.id)
    assert (report.figures["stage_before"], report.figures["stage_after"]) == ("VALIDATION", "DECAY")

    # The very market of the training returns: after 30 days it may come back, and does.
    prices = (
        column * (turned.close[-1] / known.open[0]) for column in (known.open, known.high, known.low, known.close)
    )
    times = known.open_time_ms + (turned.end_ms - START)
    better = Candles.from_arrays(known.timeframe, times, *prices, known.volume)
    for days in (35, 70):
        store_candles(database, series, better.between(None, turned.end_ms + days * MS_PER_DAY), "file")
        monitor(key)
    moves = [(one.from_stage, one.to_stage) for one in transitions(database, row.id)[1:]]
    assert moves == [("VALIDATION", "DECAY"), ("DECAY", "PAPER"), ("PAPER", "VALIDATION")]
    last = transitions(database, row.id)[-1]
    assert last.figures["comeback"]["score"] == 1.0
    assert "pass the gates again" in last.reason
    with database.connection() as connection:
        correct_job(connection, row.training_job_id)  # what a later training of the job does: the stage stays
    assert list_configurations(database, pair="DECAY/USDT")[0].lifecycle_stage == "VALIDATION"


def test_simulated_candles_say_so_and_never_rise(monitor, train, database):
    key = "simulated:LABELLED-USDT:5m"
    store(database, key, N_TRAINED)
    assert train(key).success
    store(database, key, N_TRAINED + N_NEW)
    figures = monitor(key)
    assert figures["SIMULATED"].startswith("SIMULATED")
    assert figures["lifecycle_stage"] == "PAPER"
    assert figures["size_multiplier"] == 0.0


def test_restated_candles_supersede_paper_trades(monitor, train, database):
    key = "binance:RESTATED-USDT:5m"
    store(database, key, N_TRAINED)
    assert train(key).success
    whole = store(database, key, N_TRAINED + 10)
    monitor(key)
    (row,) = list_configurations(database, pair="RESTATED/USDT")
    before = paper_trades_of(database, row.id)
    entry = before[2].entry_time.timestamp() * 1000
    bar = int(np.searchsorted(whole.open_time_ms, entry))
    wrong = whole.slice(bar, bar + 1)
    other = Candles.from_arrays(
        wrong.timeframe,
        wrong.open_time_ms,
        wrong.open * 1.0001,
        wrong.high * 1.0001,
        wrong.low,
        wrong.close,
        wrong.volume,
    )
    store_candles(database, SeriesKey.parse(key), other, "exchange")
    later = simulated(key, N_TRAINED + 11).between(whole.end_ms, None)
    store_candles(database, SeriesKey.parse(key), later, "file")
    monitor(key)
    after = paper_trades_of(database, row.id)
    assert after[:2] == before[:2]
    assert after[2].entry_time == before[2].entry_time
    assert after[2].entry_price == pytest.approx(before[2].entry_price * 1.0001)
    with database.connection() as connection:
        old = connection.execute("SELECT entry_price FROM paper_trades WHERE superseded_at IS NOT NULL").fetchall()
        assert (before[2].entry_price,) in old


def test_the_monitoring_job_fetches_and_trains_nothing():
    job = defs.resolve_job_def("monitor_liquidity_sweep_v3")
    assert job.asset_layer.executable_asset_keys == {MONITORING}
    assert job.tags.items() >= {"domain": "monitoring", "strategy": "liquidity_sweep_v3"}.items()
    assert MONITORING not in defs.resolve_job_def("train_liquidity_sweep_v3").asset_layer.executable_asset_keys


def test_new_candles_of_a_trained_series_ask_for_a_look(instance):
    """The condition behind ``follow_new_candles``: candles and a configuration, not one of them alone."""
    (sensor,) = [one for one in defs.get_repository_def().sensor_defs if one.name == "follow_new_candles"]
    assert sensor.default_status is dg.DefaultSensorStatus.STOPPED
    trained, other = "binance:AUTO-USDT:5m", "binance:NONE-USDT:5m"
    instance.add_dynamic_partitions("series", [trained, other])
    chosen = dg.AssetSelection.assets(MONITORING)
    asked, cursor, now = [], None, datetime(2026, 1, 1, tzinfo=UTC)

    def made(key, partition):
        instance.report_runless_asset_event(dg.AssetMaterialization(key, partition=partition))

    def tick():
        nonlocal cursor, now
        now += timedelta(minutes=1)
        result = dg.evaluate_automation_conditions(
            defs, instance=instance, asset_selection=chosen, cursor=cursor, evaluation_time=now
        )
        cursor = result.cursor
        asked.append(sorted(result.get_requested_partitions(MONITORING)))

    tick()
    made("market_data", trained)
    made("market_data", other)
    tick()
    made(["liquidity_sweep_v3", "trained_configurations"], trained)
    tick()
    made(MONITORING.path, trained)
    tick()
    made("market_data", trained)
    made("market_data", other)
    tick()
    tick()
    assert asked == [[], [], [trained], [], [trained], []]
