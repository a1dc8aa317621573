"""Backfills over several series, as the web UI launches them: one that fails fails alone, and is picked up again."""

from __future__ import annotations

import dagster as dg
import pytest

from tradepulse_pipeline.database.candles import store_candles
from tradepulse_pipeline.market.series import MS_PER_DAY, SeriesKey
from tradepulse_pipeline.market.sources.simulated import SimulatedMarketSettings, simulate
from tradepulse_pipeline.orchestration.names import BATCH_TAG, PARTITION_TAG
from tradepulse_pipeline.orchestration.sensors.batches import series_of_batch
from tradepulse_pipeline_tests.orchestration.control_room import QUIET, ControlRoom, control_room

pytestmark = QUIET

JOB = "train_liquidity_sweep_v3"
BRANCH = ("optimization_results", "walk_forward_validation", "trained_configurations")
ASSETS = [
    dg.AssetKey("market_data"),
    dg.AssetKey("indicators"),
    *(dg.AssetKey(["liquidity_sweep_v3", name]) for name in BRANCH),
]
START = 1_704_067_200_000
SETTINGS = {
    "source": "stored",
    "start": "2024-01-01",
    "end": "2024-01-29",
    "train_days": 10,
    "test_days": 6,
    "gap_days": 1,
    "budget": 40,
    "minimum_trades": 3,
    "workers": 1,
}
CONFIG = {"resources": {"settings": {"config": SETTINGS}}}


@pytest.fixture
def room(tmp_path, database):
    with control_room(tmp_path) as room:
        yield room


def store(database, key, n_days=28):
    """Store made-up candles as those of a real exchange."""
    one = SeriesKey.parse(key)
    market = SimulatedMarketSettings(edge=8.0, outages_per_year=0)
    store_candles(
        database, one, simulate(one.market, one.timeframe, START, START + n_days * MS_PER_DAY, market), "file"
    )


def launching(place, n_assets):
    """Return what a backfill is of as the web UI says it, and its last asset."""
    if place == "job":
        return ControlRoom.of_job(JOB), ASSETS[-1]
    return {"assetSelection": [{"path": key.path} for key in ASSETS[:n_assets]]}, ASSETS[n_assets - 1]


@pytest.mark.parametrize("place", ["job page", "asset page"])
def test_a_series_that_fails_fails_alone_and_is_picked_up_by_failed_and_missing(room, database, place):
    launch, last = launching(place.split()[0], 2)
    keys = [f"binance:{place[:3].upper()}{number}-USDT:1h" for number in range(3)]
    broken = keys[1]
    for key in (keys[0], keys[2]):
        store(database, key)
    room.instance.add_dynamic_partitions("series", keys)
    runs = room.runs_of(room.backfill(**launch, partitionNames=keys, runConfigData=CONFIG))
    assert {run.tags[PARTITION_TAG]: run.is_success for run in runs} == {key: key != broken for key in keys}
    assert room.partitions(ASSETS[0]) == (set(keys) - {broken}, {broken})
    made, failed = room.partitions(last)
    assert made == set(keys) - {broken}
    chosen = sorted({*failed, *(set(keys) - made)})
    assert chosen == [broken]

    store(database, broken)
    (run,) = room.runs_of(room.backfill(**launch, partitionNames=chosen, runConfigData=CONFIG))
    assert (run.tags[PARTITION_TAG], run.is_success) == (broken, True)
    assert room.partitions(last) == (set(keys), set())


@pytest.mark.parametrize("place", ["job page", "asset page"])
def test_a_batch_that_fails_is_taken_apart_and_keeps_what_it_had_finished(tmp_path, database, monkeypatch, place):
    monkeypatch.setenv("TRADEPULSE_PARTITIONS_PER_RUN", "2")
    launch, last = launching(place.split()[0], 3)
    keys = [f"binance:BATCH{place[:3].upper()}{number}-USDT:1h" for number in range(3)]
    broken = keys[1]
    for key in keys:
        store(database, key, n_days=15 if key == broken else 28)  # too short for a window: its search fails
    with control_room(tmp_path) as room:
        room.instance.add_dynamic_partitions("series", keys)
        room.tick("failed_batches")  # which looks at what fails from now on
        batches = room.runs_of(room.backfill(**launch, partitionNames=keys, runConfigData=CONFIG))
        assert sorted(run.is_success for run in batches) == [False, True]
        (failed,) = [run for run in batches if not run.is_success]
        assert series_of_batch(room.instance, failed) == keys[:2]
        assert room.partitions(ASSETS[0]) == (set(keys), set())
        assert room.partitions(last)[0] == {keys[2]}

        room.tick("failed_batches")
        repeated = room.instance.get_runs(dg.RunsFilter(tags={BATCH_TAG: failed.run_id}))
        assert {run.tags[PARTITION_TAG]: run.is_success for run in repeated} == {keys[0]: True, broken: False}
        (good,) = [run for run in repeated if run.is_success]
        assert any(
            "had finished this very search" in entry.user_message for entry in room.instance.all_logs(good.run_id)
        )
        made, missing = room.partitions(last)
        assert sorted({*missing, *(set(keys) - made)}) == [broken]
        n_runs = room.instance.get_runs_count()
        room.tick("failed_batches")  # neither the batch again, nor the series that failed alone
        assert room.instance.get_runs_count() == n_runs

        store(database, broken)
        (run,) = room.runs_of(room.backfill(**launch, partitionNames=[broken], runConfigData=CONFIG))
        assert run.is_success
        assert room.partitions(last) == (set(keys), set())
