"""The V3 document: what a live trading bot reads. A figure that was not measured is null."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

from pydantic import BaseModel, ConfigDict

from tradepulse_pipeline.validation.lifecycle import STAGE_MULTIPLIERS, Stage

Figure = float | None


class Section(BaseModel):
    """A part of the document: fixed keys in a fixed order, finite figures."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, protected_namespaces=())


class Metadata(Section):
    """Which model this is, which code made it where, and what is known about its candles.

    Once they have become others than the stored ones, ``is_stale`` is true and ``stale_reason`` says how.
    """

    model_version: str
    discovery_date: str
    engine_hash: str
    runtime_env: str
    data_warnings: tuple[str, ...] = ()
    is_stale: bool = False
    stale_reason: str | None = None


class Context(Section):
    """The series that it was trained on."""

    pair: str
    exchange: str
    timeframe: str


class Performance(Section):
    """Out-of-sample results in quote currency; fees and slippage as rates."""

    gross_WR: Figure = None  # noqa: N815
    avg_win: Figure = None
    avg_loss: Figure = None
    exchange_fees: Figure = None
    est_slippage: Figure = None
    actual_slippage: Figure = None
    NET_PROFIT: Figure = None
    sample_size: int | None = None


class StatisticalValidation(Section):
    """What the out-of-sample record proves; durations in days."""

    sharpe_ratio: Figure = None
    calmar_ratio: Figure = None
    sortino_ratio: Figure = None
    p_value: Figure = None
    z_score: Figure = None
    deflated_sharpe_ratio: Figure = None
    probability_of_backtest_overfitting: Figure = None
    monte_carlo_var: Figure = None
    stability_score: Figure = None
    drawdown_duration: Figure = None
    trade_clustering: Figure = None
    rolling_30d_sharpe: Figure = None
    lifetime_sharpe_ratio: Figure = None


class ExecutionMetrics(Section):
    """How orders were filled."""

    fill_rate: Figure = None
    partial_fill_rate: Figure = None
    time_to_fill_ms: Figure = None
    slippage_vs_mid_bps: Figure = None
    adverse_selection_score: Figure = None
    post_trade_drift_1m: Figure = None
    post_trade_drift_5m: Figure = None
    rejection_rate: Figure = None


class RegimeProbability(Section):
    """Probabilities of the market's regimes."""

    trending: Figure = None
    ranging: Figure = None
    volatile: Figure = None


class EnsembleRegimeClassification(Section):
    """What regime models say."""

    regime_models: list[str] | None = None
    final_regime_probability: RegimeProbability = RegimeProbability()
    regime_transition_probability: Figure = None
    regime_stability_score: Figure = None


class AdversarialAnalysis(Section):
    """Whether somebody trades against the pattern."""

    trap_probability: Figure = None
    smart_money_alignment: Figure = None


class RiskAllocation(Section):
    """Position sizes as fractions of equity; ``max_position_size`` is the largest notional as a multiple of it.

    ``var_95`` and ``cvar_95`` are the loss that one day in twenty exceeds and the mean loss of such a day, as
    fractions of equity.
    """

    kelly_fraction: Figure = None
    stage_multiplier: Figure = None
    correlation_adjusted_weight: Figure = None
    regime_adjusted_size: Figure = None
    max_position_size: Figure = None
    current_allocation: Figure = None
    var_95: Figure = None
    cvar_95: Figure = None


class MarketMicrostructure(Section):
    """The market's order book and fees."""

    avg_spread_bps: Figure = None
    book_depth_ratio: Figure = None
    book_imbalance: Figure = None
    tick_size_impact: Figure = None
    maker_rebate: Figure = None
    taker_fee: Figure = None
    level2_depth_score: Figure = None
    microstructure_noise: Figure = None


class DeathSignals(Section):
    """Signs that a pattern is dying; null while nothing watches for them."""

    volume_profile_changed: bool | None = None
    new_algo_detected: bool | None = None
    correlation_spike: bool | None = None
    sharpe_below_50pct: bool | None = None
    unusual_fill_pattern: bool | None = None
    regime_break: bool | None = None


class PatternHealth(Section):
    """How the pattern has done since its discovery."""

    months_since_discovery: int | None = None
    performance_degradation: Figure = None
    degradation_velocity: Figure = None
    death_signals: DeathSignals = DeathSignals()
    death_signal_count: int | None = None
    resurrection_score: Figure = None
    correlation_to_other_patterns: Figure = None


class CircuitBreakers(Section):
    """Limits at which a bot stops."""

    max_daily_loss: float = 0.02
    max_correlation_spike: float = 0.8
    unusual_market_threshold: float = 3.0
    latency_threshold_ms: int = 500
    consecutive_losses_limit: int = 5
    max_adverse_selection: float = 0.6
    regime_break_threshold: float = 0.3


class MetaLearningOutputs(Section):
    """What has been learned about when the pattern works."""

    pattern_failure_predictors: list[str] | None = None
    optimal_market_conditions: list[str] | None = None
    edge_expiration_estimate: str | None = None
    recommended_alternatives: list[str] | None = None


class TemplateConfiguration(Section):
    """One configuration of the document."""

    id: str
    status: Stage
    metadata: Metadata
    context: Context
    parameters: dict[str, float]
    performance: Performance
    statistical_validation: StatisticalValidation
    execution_metrics: ExecutionMetrics
    ensemble_regime_classification: EnsembleRegimeClassification = EnsembleRegimeClassification()
    alternative_data_signals: None = None
    adversarial_analysis: AdversarialAnalysis = AdversarialAnalysis()
    risk_allocation: RiskAllocation
    market_microstructure: MarketMicrostructure
    pattern_health: PatternHealth
    circuit_breakers: CircuitBreakers = CircuitBreakers()
    meta_learning_outputs: MetaLearningOutputs = MetaLearningOutputs()


class Template(Section):
    """A V3 document."""

    pair: str
    strategy: str
    configurations: tuple[TemplateConfiguration, ...]


def with_stage(document: Mapping[str, Any], stage: str) -> dict[str, Any]:
    """Return a document of one configuration that has moved on to another stage since, and the size that follows."""
    (configuration,) = document["configurations"]
    size = configuration["risk_allocation"] | {"stage_multiplier": STAGE_MULTIPLIERS[cast("Stage", stage)]}
    return {**document, "configurations": [configuration | {"status": stage, "risk_allocation": size}]}


def with_health(document: Mapping[str, Any], figures: Mapping[str, Any], *, months: int) -> dict[str, Any]:
    """Return a document of one configuration with what the latest look of monitoring found of its health.

    ``performance_degradation`` is the share of its lifetime's Sharpe ratio that the last 30 paper days lack: 0.5 and
    more is the death signal; null where the lifetime's is not above 0.

    Parameters
    ----------
    figures : mapping
        Those of a monitoring report.
    months : int
        Whole months from the last candle of the training to the last candle that was looked at.
    """
    (configuration,) = document["configurations"]
    rolling, lifetime = figures["rolling_30d_sharpe"], figures["lifetime_sharpe_ratio"]
    is_measured = rolling is not None and lifetime is not None and lifetime > 0
    signals = {name: signal["is_on"] for name, signal in figures["death_signals"].items()}
    health = configuration["pattern_health"] | {
        "months_since_discovery": months,
        "performance_degradation": 1.0 - rolling / lifetime if is_measured else None,
        "death_signals": {name: signals[name] for name in DeathSignals.model_fields},
        "death_signal_count": sum(is_on is True for is_on in signals.values()),
        "resurrection_score": figures["resurrection_score"],
    }
    return {**document, "configurations": [configuration | {"pattern_health": health}]}
