"""A user's own strategy in Dagster: its branch, its job, what it was made from, and what stops it."""

from __future__ import annotations

import dataclasses
import shutil

import dagster as dg
import numpy as np
import pytest

from tradepulse_pipeline.configurations.lineage import code_hash, engine_hash
from tradepulse_pipeline.database.configurations import list_configurations
from tradepulse_pipeline.definitions import build_definitions, defs
from tradepulse_pipeline.errors import StrategyError
from tradepulse_pipeline.indicators.frame import Indicator
from tradepulse_pipeline.market.series import MS_PER_DAY, SeriesKey
from tradepulse_pipeline.market.sources.simulated import ORIGIN_MS, SimulatedMarketSettings, simulate
from tradepulse_pipeline.orchestration.resources import SettingsResource
from tradepulse_pipeline.orchestration.tables import StoredFrame
from tradepulse_pipeline.strategies.own import strategies_of_file
from tradepulse_pipeline.strategies.registry import get_strategy, register
from tradepulse_pipeline_tests.reference.own_strategy import EXAMPLE, write_example

JOB = "train_ma_cross"
TRIALS, RECORD, CONFIGURATIONS = (
    dg.AssetKey(["ma_cross", name])
    for name in ("optimization_results", "walk_forward_validation", "trained_configurations")
)

SMALL = SettingsResource(
    start="2024-01-01", end="2024-02-12", train_days=20, test_days=15, gap_days=1, minimum_trades=3, workers=1
)


@pytest.fixture
def example(in_project):
    yield write_example(in_project)
    (in_project / "tradepulse.toml").unlink()
    shutil.rmtree(in_project / "strategies")
    register([])


@pytest.fixture
def run(database):
    with dg.DagsterInstance.ephemeral() as instance:

        def run_job(key, *, assets=None):
            instance.add_dynamic_partitions("series", [key])
            return (
                defs()
                .resolve_job_def(JOB)
                .execute_in_process(
                    instance=instance,
                    partition_key=key,
                    run_config={"resources": {"settings": {"config": SMALL.to_run_config()}}},
                    asset_selection=assets,
                    raise_on_error=False,
                )
            )

        yield run_job


def error_of(result):
    (event,) = result.get_step_failure_events()
    return event.step_failure_data.user_failure_data.description


def node(key):
    return defs().get_repository_def().asset_graph.get(key)


def test_a_reload_takes_what_the_files_say_now(example):
    before = node(TRIALS)
    assert "tried" in before.description
    assert "50, 100, 200" in before.description
    example.write_text(EXAMPLE.replace("(50, 100, 200)", "(60, 120)"))
    after = node(TRIALS)
    assert "60, 120" in after.description
    assert after.code_version != before.code_version
    assert {node(key).code_version for key in (TRIALS, RECORD, CONFIGURATIONS)} == {after.code_version}
    assert JOB in [job.name for job in defs().get_repository_def().get_all_jobs()]
    example.write_text("import nothing_like_that")
    with pytest.raises(StrategyError, match=r"ma_cross.py, line 1: ModuleNotFoundError"):
        defs()


def test_a_training_says_that_it_looked_for_look_ahead_and_keeps_the_code_in_its_lineage(example, run, database):
    result = run("simulated:OWN-USDT:15m")
    assert result.success
    (event,) = [e for e in result.get_asset_materialization_events() if e.asset_key == TRIALS]
    assert event.materialization.metadata["look_ahead"].value.startswith("No look-ahead found: the ")
    (strategy,) = strategies_of_file(example)
    (configuration,) = list_configurations(database, pair="OWN/USDT")
    assert configuration.engine_hash == code_hash(strategy) != engine_hash()


def test_trials_of_the_code_before_an_edit_are_refused(example, run):
    key = "simulated:EDIT-USDT:15m"
    assert run(key).success
    example.write_text(EXAMPLE.replace("<= slow[:-1]", "< slow[:-1]"))
    error = error_of(run(key, assets=[RECORD]))
    assert "was made from something else: its code of the engine or the strategy" in error


def test_a_strategy_that_looks_ahead_is_not_trained(example, run, database):
    example.write_text(EXAMPLE.replace("means[n - 1 :]", "means[n // 2 : n // 2 + len(prices) - n + 1]"))
    result = run("simulated:CHEAT-USDT:15m")
    assert not result.success
    assert error_of(result).startswith("MA_CROSS looks ahead: with fast=")
    assert not [event for event in result.get_asset_materialization_events() if event.asset_key == TRIALS]
    assert list_configurations(database, pair="CHEAT/USDT") == []


def test_own_indicators_are_computed_by_the_code_of_now_and_shared_ones_are_read(example):
    series = SeriesKey.parse("simulated:BTC-USDT:15m")
    market = SimulatedMarketSettings(outages_per_year=0)
    candles = simulate(series.market, series.timeframe, ORIGIN_MS, ORIGIN_MS + MS_PER_DAY, market)
    (strategy,) = strategies_of_file(example)
    (atr,) = strategy.indicators
    twice = Indicator("twice", "Twice the close.", lambda candles: 2 * candles.close)
    homonym = Indicator(atr.name, "Not the one that is stored.", lambda candles: candles.low)
    stored = StoredFrame(
        candles=candles, columns={atr.name: np.full(len(candles), 7.0), "twice": candles.open}, fingerprint=""
    )
    type(strategy).indicators = (atr, twice)
    frame = stored.frame(strategy)
    assert (frame[atr.name] == 7.0).all()
    np.testing.assert_array_equal(frame["twice"], 2 * candles.close)
    type(strategy).indicators = (homonym,)
    np.testing.assert_array_equal(stored.frame(strategy)[atr.name], candles.low)


def test_the_hash_of_a_shipped_strategy_is_that_of_the_engine(example):
    shipped = get_strategy("LIQUIDITY_SWEEP_V3")
    assert code_hash(shipped) == engine_hash()
    (first,) = strategies_of_file(example)
    (second,) = strategies_of_file(example)
    assert code_hash(first) == code_hash(second)
    second.origin = dataclasses.replace(first.origin, sha256="another")
    assert len({code_hash(shipped), code_hash(first), code_hash(second)}) == 3


def test_without_own_strategies_the_definitions_are_those_of_the_shipped_ones(in_project):
    shipped = build_definitions([get_strategy("LIQUIDITY_SWEEP_V3")])
    keys = [one.get_repository_def().asset_graph.get_all_asset_keys() for one in (shipped, defs())]
    assert keys[0] <= keys[1]
    assert TRIALS not in keys[1]
