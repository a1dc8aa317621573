"""What Dagster loads: quickly, completely, and under one name everywhere."""

from __future__ import annotations

import importlib
import subprocess
import sys
import tomllib
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import fields, replace

import dagster as dg
import pytest
import yaml
from dagster._core.system_config.objects import ResolvedRunConfig

from tradepulse_pipeline import definitions
from tradepulse_pipeline.backtest.settings import AccountSettings
from tradepulse_pipeline.errors import InvalidInputError
from tradepulse_pipeline.market.history import HistorySettings
from tradepulse_pipeline.market.series import TIMEFRAMES
from tradepulse_pipeline.optimizers.settings import SearchSettings
from tradepulse_pipeline.orchestration.instance import TradePulseStorage
from tradepulse_pipeline.orchestration.launch import open_instance
from tradepulse_pipeline.orchestration.names import DEFINITIONS, PARTITION_TAG
from tradepulse_pipeline.orchestration.partitions import SERIES
from tradepulse_pipeline.orchestration.resources import SettingsResource
from tradepulse_pipeline.strategies.registry import get_strategy, strategy_names
from tradepulse_pipeline.validation.training import TrainingSettings
from tradepulse_pipeline.validation.windows import WindowSettings
from tradepulse_pipeline_tests.orchestration.conftest import ROOT

BRANCHES = ("liquidity_sweep_v3", "capitulation_reversal_v3", "failed_breakdown_v3", "supply_shock_v3")
POOLS = {"exchange": 3, "search": 2}
HEAVY = ("skopt", "optuna", "ccxt", "pandas", "polars", "sklearn", "psycopg", "psycopg2", "pyarrow", "matplotlib")

#: The strategies that come with TradePulse, whatever the project that the tests run in names beside them.
defs = definitions.build_definitions(get_strategy(name) for name in strategy_names())


def test_definitions_load_without_what_only_runs_need():
    script = f"import sys, tradepulse_pipeline.definitions\nprint([name for name in {HEAVY!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_flow_of_assets():
    graph = defs.get_repository_def().asset_graph
    flow = {
        key.to_user_string(): sorted(parent.to_user_string() for parent in graph.get(key).parent_keys)
        for key in graph.get_all_asset_keys()
    }
    expected = {"market_data": [], "recordings": [], "indicators": ["market_data"]}
    for branch in BRANCHES:
        expected[f"{branch}/optimization_results"] = ["indicators"]
        expected[f"{branch}/walk_forward_validation"] = [f"{branch}/optimization_results"]
        expected[f"{branch}/trained_configurations"] = [f"{branch}/walk_forward_validation"]
        expected[f"{branch}/lifecycle_monitoring"] = sorted(("market_data", f"{branch}/trained_configurations"))
    assert flow == expected


def test_every_asset_is_presented():
    graph = defs.get_repository_def().asset_graph
    for key in graph.get_all_asset_keys():
        node = graph.get(key)
        assert node.partitions_def is not None
        assert node.partitions_def.name == ("markets" if key.path == ["recordings"] else "series")
        assert all((node.description, node.owners, node.kinds, node.group_name, node.tags, node.code_version)), key
        assert node.metadata["dagster/column_schema"].columns, key


def test_the_checks_on_candles_and_which_of_them_block():
    graph = defs.get_repository_def().asset_graph
    checks = {key.name: graph.get_check_spec(key) for key in graph.asset_check_keys}
    assert {spec.asset_key.to_user_string() for spec in checks.values()} == {"market_data"}
    assert {name for name, spec in checks.items() if spec.blocking} == {"enough_candles", "prices_are_plausible"}
    assert set(checks) - {"enough_candles", "prices_are_plausible"} == {
        "no_outages", "market_is_liquid", "candles_are_fresh", "sources_agree",
    }  # fmt: skip
    assert all(spec.description and spec.partitions_def == SERIES for spec in checks.values())


def test_the_jobs_and_what_they_make():
    jobs = {job.name: job for job in defs.get_repository_def().get_all_jobs()}
    made = {
        name: sorted(key.to_user_string() for key in job.asset_layer.executable_asset_keys)
        for name, job in jobs.items()
        if not name.startswith("__")
    }
    expected = {"update_market_data": ["market_data"], "record_live": ["recordings"], "prune_runs": []}
    for branch in BRANCHES:
        expected[f"monitor_{branch}"] = [f"{branch}/lifecycle_monitoring"]
        flow = ("optimization_results", "walk_forward_validation", "trained_configurations")
        for kind in ("train", "quick_look", "thorough", "fine_tune"):
            expected[f"{kind}_{branch}"] = sorted(["market_data", "indicators", *(f"{branch}/{name}" for name in flow)])
    assert made == expected
    assert all(job.executor_def.name == "in_process" for job in jobs.values())


def test_backfills_take_a_run_per_series_unless_a_setting_says_otherwise():
    batches = definitions.build_definitions([get_strategy("LIQUIDITY_SWEEP_V3")], partitions_per_run=6)
    for made, expected in ((defs, None), (batches, dg.BackfillPolicy.multi_run(6))):
        graph = made.get_repository_def().asset_graph
        policies = {key.path[-1]: graph.get(key).backfill_policy for key in graph.get_all_asset_keys()}
        assert policies.pop("recordings") is None
        assert set(policies.values()) == {expected}


def test_what_keeps_tables_true_watches_from_the_start_and_what_trains_rests():
    sensors = {sensor.name: sensor.default_status for sensor in defs.get_repository_def().sensor_defs}
    assert sensors == {
        **dict.fromkeys(
            (
                "failed_trainings",
                "cancelled_trainings",
                "finished_trainings",
                "alert_failed_runs",
                "alert_stage_changes",
                "failed_batches",
                "declared_markets",
            ),
            dg.DefaultSensorStatus.RUNNING,
        ),
        **dict.fromkeys(
            (
                "new_listings",
                "retrain_decayed",
                "retrain_restated",
                "retrain_aged",
                "retrain_challenged",
                "follow_new_candles",
            ),
            dg.DefaultSensorStatus.STOPPED,
        ),
    }


def test_schedules_that_cost_rest_until_they_are_switched_on():
    schedules = {one.name: (one.job_name, one.default_status) for one in defs.get_repository_def().schedule_defs}
    stopped = {
        "keep_recording": "record_live",
        **{f"update_candles_{timeframe}": "update_market_data" for timeframe in TIMEFRAMES},
        **{f"retrain_{branch}": f"train_{branch}" for branch in BRANCHES},
        **{f"monitor_{branch}_daily": f"monitor_{branch}" for branch in BRANCHES},
    }
    assert schedules == {
        "prune_runs_nightly": ("prune_runs", dg.DefaultScheduleStatus.RUNNING),
        **{name: (job, dg.DefaultScheduleStatus.STOPPED) for name, job in stopped.items()},
    }


def test_every_job_says_what_it_does_and_ends_in_time():
    longest = yaml.safe_load((ROOT / "dagster.yaml").read_text())["run_monitoring"]["max_runtime_seconds"]
    for job in defs.get_repository_def().get_all_jobs():
        if not job.name.startswith("__"):
            assert job.description, job.name
            assert 0 < int(job.run_tags["dagster/max_runtime"]) <= longest, job.name


def test_pools_hold_what_fetches_and_what_searches_and_are_limited():
    graph = defs.get_repository_def().asset_graph
    pools = {key.to_user_string(): graph.get(key).pools for key in graph.get_all_asset_keys()}
    searches = {f"{branch}/optimization_results": {"search"} for branch in BRANCHES}
    assert {name: pool for name, pool in pools.items() if pool} == {"market_data": {"exchange"}, **searches}
    configured = yaml.safe_load((ROOT / "dagster.yaml").read_text())
    limits = configured["storage"]["custom"]["config"]["pool_limits"]
    assert set(limits) == {"exchange", "search"}
    assert limits["search"] < limits["exchange"] < configured["concurrency"]["runs"]["max_concurrent_runs"]


def test_limits_of_pools_are_those_of_the_project(database):
    with open_instance() as instance:
        storage = instance.event_log_storage
        assert {pool.name: pool.limit for pool in storage.get_pool_limits()} == POOLS
        storage.set_concurrency_slots("search", 1)
    with open_instance() as instance:
        assert {pool.name: pool.limit for pool in instance.event_log_storage.get_pool_limits()}["search"] == 2


def test_processes_that_start_together_set_the_limits_of_pools_once(database):
    def start(_):
        return TradePulseStorage.from_config_value(None, {"pool_limits": POOLS}).event_log_storage

    start(0)
    with database.connection() as connection:
        connection.execute("DELETE FROM dagster.concurrency_limits; DELETE FROM dagster.concurrency_slots")
    with ThreadPoolExecutor(8) as threads:
        *_, storage = threads.map(start, range(8))
    assert {pool.name: pool.limit for pool in storage.get_pool_limits()} == POOLS


def test_a_preset_holds_where_a_run_is_given_some_settings_only():
    job = defs.resolve_job_def("quick_look_liquidity_sweep_v3")
    given = {"resources": {"settings": {"config": {"train_days": 60}}}}
    settings = ResolvedRunConfig.build(job, given).resources["settings"].config
    assert settings == {
        **SettingsResource().to_run_config(), "method": "random", "budget": 1_000, "train_days": 60,
    }  # fmt: skip


def test_a_part_of_a_preset_has_its_settings():
    """In the graph on a job's page, a part of its assets can be launched alone."""
    job = defs.resolve_job_def("quick_look_liquidity_sweep_v3")
    part = job.get_subset(asset_selection={dg.AssetKey("indicators")})
    settings = ResolvedRunConfig.build(part, {}).resources["settings"].config
    assert (settings["method"], settings["budget"]) == ("random", 1_000)


def test_the_form_names_the_filters_of_the_strategy():
    def described(branch):
        settings = defs.resolve_job_def(f"train_{branch}").resource_defs["settings"]
        return settings.configurable_resource_cls.model_fields["filters"].description

    assert "`max_spread_tolerance` (bps, 0 is off): 0 to 10000" in described("liquidity_sweep_v3")
    assert described("capitulation_reversal_v3").endswith("CAPITULATION_REVERSAL_V3 has none.")


@pytest.mark.parametrize(
    ("job", "message"),
    [
        ("train_liquidity_sweep_v3", None),
        ("train_supply_shock_v3", r"Unknown filter 'max_spread_tolerance' in filters. Allowed: none."),
        ("update_market_data", None),
    ],
)
def test_filters_are_those_of_the_strategy_that_a_job_trains(job, message):
    given = {"resources": {"settings": {"config": {"filters": {"max_spread_tolerance": 20.0}}}}}
    with pytest.raises(InvalidInputError, match=message) if message else nullcontext():
        ResolvedRunConfig.build(defs.resolve_job_def(job), given)


def test_the_code_location_has_one_name_everywhere():
    (workspace,) = yaml.safe_load((ROOT / "workspace.yaml").read_text())["load_from"]
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["dagster"]
    names = (workspace["python_module"]["module_name"], workspace["python_module"]["location_name"])
    assert names == (project["module_name"], project["code_location_name"]) == (DEFINITIONS[0], "tradepulse")
    assert getattr(importlib.import_module(DEFINITIONS[0]), DEFINITIONS[1]) is definitions.defs


def test_runs_of_one_series_wait_for_each_other():
    (limit,) = yaml.safe_load((ROOT / "dagster.yaml").read_text())["concurrency"]["runs"]["tag_concurrency_limits"]
    assert limit == {"key": PARTITION_TAG, "value": {"applyLimitPerUniqueValue": True}, "limit": 1}


def test_defaults_of_the_launchpad_are_those_of_the_domain():
    settings = SettingsResource()
    assert settings.training() == TrainingSettings()
    assert settings.history() == HistorySettings()


def test_every_setting_of_the_domain_can_be_set_and_is_explained():
    shown = SettingsResource.model_fields
    expected = {field.name for owner in (AccountSettings, SearchSettings, WindowSettings) for field in fields(owner)}
    assert expected | {"side", "source", "history_days", "start", "end", "simulated_edge", "filters"} == set(shown)
    assert all(field.description and field.default is not None for field in shown.values())


def test_settings_survive_the_launchpad():
    training = TrainingSettings(
        side="both",
        account=AccountSettings(fee_rate=0.0007, max_leverage=3.0),
        search=SearchSettings(
            method="genetic", budget=7, objective="sortino", further_objectives=("drawdown", "net_profit"), seed=11
        ),
        windows=WindowSettings(train_days=20, test_days=10, gap_days=2, step_days=9, reoptimise=False),
        filters={"max_spread_tolerance": 20.0},
    )
    history = HistorySettings(source="stored", start_ms=1_704_067_200_000, end_ms=1_706_745_600_123)
    settings = SettingsResource(**SettingsResource.of(training, history, simulated_edge=2.5).to_run_config())
    assert (settings.training(), settings.history(), settings.simulated_edge) == (training, history, 2.5)
    assert SettingsResource.of(replace(training, side="long"), history).side == "long"


def test_dates_are_read_as_utc_and_wrong_ones_are_refused():
    history = SettingsResource(start="2024-01-01", end="2024-02-01T00:00:00+01:00").history()
    assert (history.start_ms, history.end_ms) == (1_704_067_200_000, 1_706_742_000_000)
    with pytest.raises(InvalidInputError, match="end: found 'soon', expected a date or time in UTC"):
        SettingsResource(end="soon").history()


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"method": "annealing"}, r"(?s)method.*annealing"),
        ({"objective": "profit"}, r"(?s)objective.*profit"),
        ({"further_objectives": "drawdown"}, r"further_objectives"),
        ({"trian_days": 90}, r"trian_days"),
        ({"train_days": "ninety"}, r"train_days"),
        ({"filters": {"max_spread_tolerance": "small"}}, r"max_spread_tolerance"),
    ],
)
def test_the_launchpad_refuses_wrong_values(config, message):
    job = defs.resolve_job_def("train_liquidity_sweep_v3")
    run_config = {"resources": {"settings": {"config": config}}}
    with pytest.raises(dg.DagsterInvalidConfigError, match=message):
        dg.validate_run_config(job, run_config)


def test_no_asset_can_hand_on_a_pickle():
    @dg.asset
    def careless() -> int:
        return 1

    manager = defs.resources["io_manager"]
    with (
        dg.DagsterInstance.ephemeral() as instance,
        pytest.raises(dg.DagsterInvariantViolationError, match=r"careless returned a value of type int"),
    ):
        dg.materialize([careless], instance=instance, resources={"io_manager": manager})
