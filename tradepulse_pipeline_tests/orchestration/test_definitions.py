"""What Dagster loads: quickly, completely, and under one name everywhere."""

from __future__ import annotations

import importlib
import subprocess
import sys
import tomllib
from dataclasses import fields, replace

import dagster as dg
import pytest
import yaml

from tradepulse_pipeline import definitions
from tradepulse_pipeline.backtest.settings import AccountSettings
from tradepulse_pipeline.errors import InvalidInputError
from tradepulse_pipeline.market.history import HistorySettings
from tradepulse_pipeline.optimizers.settings import SearchSettings
from tradepulse_pipeline.orchestration.names import DEFINITIONS, PARTITION_TAG
from tradepulse_pipeline.orchestration.partitions import SERIES
from tradepulse_pipeline.orchestration.resources import SettingsResource
from tradepulse_pipeline.strategies.registry import get_strategy, strategy_names
from tradepulse_pipeline.validation.training import TrainingSettings
from tradepulse_pipeline.validation.windows import WindowSettings
from tradepulse_pipeline_tests.orchestration.conftest import ROOT

BRANCHES = ("liquidity_sweep_v3", "capitulation_reversal_v3", "failed_breakdown_v3", "supply_shock_v3")
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
    expected = {"update_market_data": ["market_data"], "record_live": ["recordings"]}
    for branch in BRANCHES:
        expected[f"train_{branch}"] = sorted(
            (
                "market_data",
                "indicators",
                f"{branch}/optimization_results",
                f"{branch}/walk_forward_validation",
                f"{branch}/trained_configurations",
            )
        )
    assert made == expected
    assert all(job.executor_def.name == "in_process" for job in jobs.values())


def test_the_sensors_watch_from_the_start_but_for_those_that_cost():
    sensors = {sensor.name: sensor.default_status for sensor in defs.get_repository_def().sensor_defs}
    running = ("failed_trainings", "cancelled_trainings", "failed_batches", "declared_markets")
    assert sensors == {
        **dict.fromkeys(running, dg.DefaultSensorStatus.RUNNING),
        "new_listings": dg.DefaultSensorStatus.STOPPED,
    }


def test_backfills_take_a_run_per_series_unless_a_setting_says_otherwise():
    batches = definitions.build_definitions([get_strategy("LIQUIDITY_SWEEP_V3")], partitions_per_run=6)
    for made, expected in ((defs, None), (batches, dg.BackfillPolicy.multi_run(6))):
        graph = made.get_repository_def().asset_graph
        policies = {key.path[-1]: graph.get(key).backfill_policy for key in graph.get_all_asset_keys()}
        assert policies.pop("recordings") is None
        assert set(policies.values()) == {expected}


def test_the_schedule_rests_until_it_is_switched_on():
    (schedule,) = defs.get_repository_def().schedule_defs
    assert (schedule.name, schedule.job_name) == ("keep_recording", "record_live")
    assert schedule.default_status is dg.DefaultScheduleStatus.STOPPED


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
