from __future__ import annotations

import json
import math
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone

import polars as pl
import pytest

from tradepulse_pipeline.backtest.result import METRIC_NAMES, Metrics
from tradepulse_pipeline.backtest.settings import AccountSettings
from tradepulse_pipeline.configurations.comparison import compare_outcomes
from tradepulse_pipeline.configurations.configuration import build_configuration, why_no_configuration
from tradepulse_pipeline.configurations.lineage import Lineage
from tradepulse_pipeline.configurations.template import Template
from tradepulse_pipeline.errors import InvalidInputError
from tradepulse_pipeline.market.series import SeriesKey
from tradepulse_pipeline.optimizers.settings import SearchSettings
from tradepulse_pipeline.strategies.registry import get_strategy
from tradepulse_pipeline.validation.evidence import EvidenceReport
from tradepulse_pipeline.validation.record import ChosenTrial, OutOfSampleRecord, WindowResult
from tradepulse_pipeline.validation.statistics import Statistics
from tradepulse_pipeline.validation.training import TrainingSettings

NOW = datetime(2025, 3, 1, 12, 30, tzinfo=UTC)
BINANCE = SeriesKey.parse("binance:BTC-USDT:5m")
SIMULATED = SeriesKey.parse("simulated:BTC-USDT:5m")
STRATEGY = get_strategy("LIQUIDITY_SWEEP_V3")
SETTINGS = TrainingSettings(
    account=AccountSettings(fee_rate=0.0004, slippage=0.0002, max_leverage=2.0), search=SearchSettings(seed=4)
)
METRICS = Metrics(
    net_profit=812.5,
    total_return=0.08125,
    annualized_return=0.14,
    sharpe_ratio=1.25,
    sortino_ratio=2.5,
    max_drawdown=0.06,
    calmar_ratio=2.3,
    sample_size=60.0,
    win_rate=0.5,
    gross_win_rate=0.55,
    average_win=70.0,
    average_loss=-40.0,
    profit_factor=1.75,
    expectancy_r=0.21,
    average_holding_bars=12.5,
    exposure=0.04,
    adverse_selection_score=0.15,
    fill_rate=1.0,
)
IN_SAMPLE = METRICS._replace(net_profit=2_000.0, profit_factor=math.nan)
LATEST = ChosenTrial(
    combination=0, parameters={p.name: p.grid[0] for p in STRATEGY.parameters}, in_sample=METRICS._replace(win_rate=0.6)
)
LINEAGE = Lineage(
    data_fingerprint="f" * 64,
    data_start=datetime(2024, 1, 1, tzinfo=UTC),
    data_end=datetime(2025, 1, 1, tzinfo=UTC),
    strategy_version="1",
    settings=SETTINGS.to_json_dict(),
    settings_digest=SETTINGS.digest(),
    optimizer="random",
    seed=4,
    n_trials=10_000,
    code_version="0.1.0",
    engine_hash="e" * 64,
    dependency_versions={"python": "3.11.0"},
    run_id="run-1",
)


def record_of(**changes):
    window = WindowResult(
        window=0,
        status="judged",
        n_trials=1_000,
        train_start_ms=0,
        train_end_ms=90,
        test_start_ms=97,
        test_end_ms=120,
        chosen=LATEST,
        out_of_sample=METRICS,
    )
    returns = [0.012, -0.006, 0.02, -0.005] * 15
    values = {
        "metrics": METRICS,
        "in_sample": IN_SAMPLE,
        "latest": LATEST,
        "latest_trials": 1_000,
        "windows": (window,),
        "trades": pl.DataFrame({"trade_return": returns}),
        "daily": pl.DataFrame(),
        "total_trials": 10_000,
        "is_out_of_sample": True,
        "is_complete": True,
        "cost_per_trade_r": 0.12,
        "z_score": 2.1,
        "p_value": 0.018,
        "is_overfit": False,
        "walk_forward_efficiency": 0.6,
    }
    return OutOfSampleRecord(**{**values, **changes})


def built(series=BINANCE, now=NOW, **changes):
    return build_configuration(series, STRATEGY, SETTINGS, record_of(**changes), LINEAGE, now)


def test_columns_are_the_out_of_sample_figures():
    configuration = built()
    for name in ("net_profit", "sharpe_ratio", "sortino_ratio", "calmar_ratio", "max_drawdown", "win_rate",
                 "gross_win_rate", "average_win", "average_loss", "profit_factor", "sample_size",
                 "adverse_selection_score", "fill_rate"):  # fmt: skip
        assert getattr(configuration, name) == getattr(METRICS, name), name
    assert isinstance(configuration.sample_size, int)
    assert (configuration.z_score, configuration.p_value) == (2.1, 0.018)
    assert configuration.deflated_sharpe_ratio is configuration.probability_of_backtest_overfitting is None
    assert (configuration.exchange, configuration.pair, configuration.timeframe) == ("binance", "BTC/USDT", "5m")
    assert configuration.lifecycle_stage == "VALIDATION"
    assert configuration.stage_reason.startswith("out-of-sample it earned 812.50 USDT over 60 trades")
    assert configuration.stage_figures["sample_size"] == 60
    assert configuration.parameters == LATEST.parameters
    assert configuration.created_at == NOW
    assert not configuration.is_simulated


def test_json_parts_hold_all_metrics_and_no_nan():
    configuration = built()
    parts = (configuration.in_sample_metrics, configuration.out_of_sample_metrics, configuration.windows,
             configuration.template, configuration.stage_figures, configuration.lineage.to_json_dict())  # fmt: skip
    for part in parts:
        assert json.loads(json.dumps(part, allow_nan=False)) == part
    assert list(configuration.out_of_sample_metrics)[: len(METRIC_NAMES)] == list(METRIC_NAMES)
    assert configuration.out_of_sample_metrics["cost_per_trade_r"] == 0.12
    assert configuration.in_sample_metrics["net_profit"] == 2_000.0
    assert configuration.in_sample_metrics["profit_factor"] is None
    assert configuration.in_sample_metrics["latest_train"]["win_rate"] == 0.6
    assert configuration.windows[0]["out_of_sample"]["net_profit"] == 812.5


def test_an_infinite_profit_factor_and_an_undefined_mean_are_null():
    configuration = built(metrics=METRICS._replace(profit_factor=math.nan), in_sample=None)
    assert configuration.profit_factor is configuration.out_of_sample_metrics["profit_factor"] is None
    assert {configuration.in_sample_metrics[name] for name in METRIC_NAMES} == {None}


def test_the_id_follows_from_the_inputs_and_the_time():
    assert built().id == built().id
    assert built().id == built(now=NOW.astimezone(timezone(timedelta(hours=5)))).id
    assert len({built().id, built(SIMULATED).id, built(now=NOW + timedelta(microseconds=1)).id}) == 3


def test_a_time_without_a_zone_is_refused():
    with pytest.raises(InvalidInputError, match=r"now: found 2025-03-01T00:00:00 without a time zone"):
        built(now=datetime(2025, 3, 1))


def test_simulated_candles_are_labelled_and_stay_on_paper():
    configuration = built(SIMULATED)
    assert configuration.is_simulated
    assert configuration.lifecycle_stage == "PAPER"
    assert "SIMULATED" in configuration.stage_reason
    (entry,) = configuration.template["configurations"]
    assert entry["status"] == "PAPER"
    assert "SIMULATED" in entry["metadata"]["runtime_env"]
    assert entry["risk_allocation"]["stage_multiplier"] == 0.0
    assert entry["risk_allocation"]["kelly_fraction"] == 0.0
    assert "SIMULATED" not in built().template["configurations"][0]["metadata"]["runtime_env"]


def test_without_a_valid_parameter_set_there_is_no_configuration_and_a_reason():
    record = record_of(latest=None)
    assert build_configuration(BINANCE, STRATEGY, SETTINGS, record, LINEAGE, NOW) is None
    assert why_no_configuration(record, SETTINGS) == (
        "None of the 1,000 parameter sets tried on the latest train window qualified: it takes 10 trades and a finite "
        "net_profit."
    )
    timed = replace(SETTINGS, search=SearchSettings(max_runtime_seconds=2.5))
    assert why_no_configuration(record_of(latest=None, latest_trials=0), timed) == (
        "The time of 2.5 s was over before a parameter set was tried on the latest train window."
    )
    assert why_no_configuration(record_of(), SETTINGS) is None


def test_warnings_about_the_candles_go_with_the_configuration():
    warned = build_configuration(BINANCE, STRATEGY, SETTINGS, record_of(), LINEAGE, NOW, ["3 candles are missing."])
    assert warned.data_warnings == ("3 candles are missing.",)
    metadata = warned.template["configurations"][0]["metadata"]
    assert (metadata["data_warnings"], metadata["is_stale"], metadata["stale_reason"]) == (
        ["3 candles are missing."], False, None,
    )  # fmt: skip


def test_a_repetition_compares_equal_after_json():
    stored, repeated = built(), built(now=NOW + timedelta(days=1))
    read = replace(
        stored,
        windows=json.loads(json.dumps(stored.windows)),
        out_of_sample_metrics=json.loads(json.dumps(stored.out_of_sample_metrics)),
    )
    assert compare_outcomes(read, repeated) == ()
    other = built(metrics=METRICS._replace(net_profit=812.5000000000001))
    assert [d.place for d in compare_outcomes(stored, other)] == ["out_of_sample_metrics.net_profit"]


# The documented structure: sections and keys in this very order.
SECTIONS = {
    "id": None,
    "status": None,
    "metadata": "model_version discovery_date engine_hash runtime_env data_warnings is_stale stale_reason",
    "context": "pair exchange timeframe",
    "parameters": " ".join(p.name for p in STRATEGY.parameters),
    "performance": "gross_WR avg_win avg_loss exchange_fees est_slippage actual_slippage NET_PROFIT sample_size",
    "statistical_validation": "sharpe_ratio calmar_ratio sortino_ratio p_value z_score deflated_sharpe_ratio "
    "probability_of_backtest_overfitting monte_carlo_var stability_score drawdown_duration trade_clustering "
    "rolling_30d_sharpe lifetime_sharpe_ratio",
    "execution_metrics": "fill_rate partial_fill_rate time_to_fill_ms slippage_vs_mid_bps adverse_selection_score "
    "post_trade_drift_1m post_trade_drift_5m rejection_rate",
    "ensemble_regime_classification": "regime_models final_regime_probability regime_transition_probability "
    "regime_stability_score",
    "alternative_data_signals": None,
    "adversarial_analysis": "trap_probability smart_money_alignment",
    "risk_allocation": "kelly_fraction stage_multiplier correlation_adjusted_weight regime_adjusted_size "
    "max_position_size current_allocation var_95 cvar_95",
    "market_microstructure": "avg_spread_bps book_depth_ratio book_imbalance tick_size_impact maker_rebate taker_fee "
    "level2_depth_score microstructure_noise",
    "pattern_health": "months_since_discovery performance_degradation degradation_velocity death_signals "
    "death_signal_count resurrection_score correlation_to_other_patterns",
    "circuit_breakers": "max_daily_loss max_correlation_spike unusual_market_threshold latency_threshold_ms "
    "consecutive_losses_limit max_adverse_selection regime_break_threshold",
    "meta_learning_outputs": "pattern_failure_predictors optimal_market_conditions edge_expiration_estimate "
    "recommended_alternatives",
}


def test_the_template_has_its_sections_and_keys_in_the_documented_order():
    template = built().template
    assert list(template) == ["pair", "strategy", "configurations"]
    (entry,) = template["configurations"]
    assert list(entry) == list(SECTIONS)
    for section, keys in SECTIONS.items():
        if keys is not None:
            assert list(entry[section]) == keys.split(), section
    assert list(entry["ensemble_regime_classification"]["final_regime_probability"]) == [
        "trending", "ranging", "volatile",
    ]  # fmt: skip
    assert list(entry["pattern_health"]["death_signals"]) == [
        "volume_profile_changed", "new_algo_detected", "correlation_spike", "sharpe_below_50pct",
        "unusual_fill_pattern", "regime_break",
    ]  # fmt: skip


def values_that_are_not_null(value, place=""):
    if not isinstance(value, dict):
        return {} if value is None else {place.removeprefix("."): value}
    found = {}
    for key, inner in value.items():
        found |= values_that_are_not_null(inner, f"{place}.{key}")
    return found


def test_the_template_holds_what_was_measured_or_assumed_and_null_elsewhere():
    configuration = built()
    (entry,) = configuration.template["configurations"]
    kelly = entry["risk_allocation"]["kelly_fraction"]
    assert 0 < kelly < 25
    measured = values_that_are_not_null({k: v for k, v in entry.items() if k not in ("parameters", "metadata")})
    assert measured == {
        "id": str(configuration.id),
        "status": "VALIDATION",
        "context.pair": "BTC/USDT",
        "context.exchange": "binance",
        "context.timeframe": "5m",
        "performance.gross_WR": 0.55,
        "performance.avg_win": 70.0,
        "performance.avg_loss": -40.0,
        "performance.exchange_fees": 0.0004,
        "performance.est_slippage": 0.0002,
        "performance.NET_PROFIT": 812.5,
        "performance.sample_size": 60,
        "statistical_validation.sharpe_ratio": 1.25,
        "statistical_validation.calmar_ratio": 2.3,
        "statistical_validation.sortino_ratio": 2.5,
        "statistical_validation.p_value": 0.018,
        "statistical_validation.z_score": 2.1,
        "statistical_validation.lifetime_sharpe_ratio": 1.25,
        "execution_metrics.fill_rate": 1.0,
        "execution_metrics.adverse_selection_score": 0.15,
        "risk_allocation.kelly_fraction": kelly,
        "risk_allocation.stage_multiplier": 0.5,
        "risk_allocation.max_position_size": 2.0,
        "market_microstructure.taker_fee": 0.0004,
        "pattern_health.months_since_discovery": 0,
        "circuit_breakers.max_daily_loss": 0.02,
        "circuit_breakers.max_correlation_spike": 0.8,
        "circuit_breakers.unusual_market_threshold": 3.0,
        "circuit_breakers.latency_threshold_ms": 500,
        "circuit_breakers.consecutive_losses_limit": 5,
        "circuit_breakers.max_adverse_selection": 0.6,
        "circuit_breakers.regime_break_threshold": 0.3,
    }
    assert entry["metadata"]["discovery_date"] == "2025-03-01T12:30:00+00:00"
    assert entry["metadata"]["engine_hash"] == "e" * 64
    assert entry["parameters"] == LATEST.parameters


def test_the_template_holds_what_the_evidence_says_of_risk():
    measured = Statistics(n_days=207, n_trials=10, var_95=0.012, cvar_95=0.019, loss_95=0.14)
    report = EvidenceReport(
        statistics=measured, costs_verdict="", accuracy_verdict="", costs=[], attribution=[], decay=[], fan={},
        logits={}, sharpe_histogram={},
    )  # fmt: skip
    configuration = build_configuration(BINANCE, STRATEGY, SETTINGS, record_of(), LINEAGE, NOW, evidence=report)
    (entry,) = configuration.template["configurations"]
    risk = entry["risk_allocation"]
    assert (risk["var_95"], risk["cvar_95"]) == (0.012, 0.019)
    assert entry["statistical_validation"]["monte_carlo_var"] == 0.14


def test_the_template_comes_back_in_order_from_a_store_that_sorts_keys():
    template = built().template
    read = Template.model_validate(json.loads(json.dumps(template, sort_keys=True)))
    again = read.model_dump(mode="json")
    assert again == template
    assert [list(again), list(again["configurations"][0])] == [list(template), list(template["configurations"][0])]


def test_without_trades_execution_was_not_measured():
    nothing = Metrics(*(0.0,) * len(METRIC_NAMES))
    configuration = built(metrics=nothing, trades=pl.DataFrame({"trade_return": pl.Series([], dtype=pl.Float64)}))
    assert configuration.lifecycle_stage == "PAPER"
    assert set(configuration.template["configurations"][0]["execution_metrics"].values()) == {None}


def test_health_is_what_monitoring_found_last():
    from tradepulse_pipeline.configurations.template import PatternHealth, with_health

    document = {"configurations": [{"id": "x", "pattern_health": PatternHealth(months_since_discovery=0).model_dump()}]}
    states = dict(zip(PatternHealth().death_signals.model_dump(), (True, None, False, True, False, False), strict=True))
    figures = {
        "rolling_30d_sharpe": 0.5,
        "lifetime_sharpe_ratio": 2.0,
        "resurrection_score": 0.25,
        "death_signals": {name: {"is_on": is_on} for name, is_on in states.items()},
    }
    (found,) = with_health(document, figures, months=3)["configurations"]
    expected = {
        "months_since_discovery": 3,
        "performance_degradation": 0.75,
        "death_signals": states,
        "death_signal_count": 2,
        "resurrection_score": 0.25,
    }
    assert found == {"id": "x", "pattern_health": document["configurations"][0]["pattern_health"] | expected}
    for changed in ({"lifetime_sharpe_ratio": 0.0}, {"rolling_30d_sharpe": None}):
        (found,) = with_health(document, figures | changed, months=3)["configurations"]
        assert found["pattern_health"]["performance_degradation"] is None
