"""A trained configuration: parameters, the evidence for them, and where they come from."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final
from uuid import NAMESPACE_URL, UUID, uuid5

from tradepulse_pipeline.backtest.result import METRIC_NAMES
from tradepulse_pipeline.configurations.lineage import Lineage
from tradepulse_pipeline.configurations.sizing import kelly_fraction
from tradepulse_pipeline.configurations.template import (
    Context,
    ExecutionMetrics,
    MarketMicrostructure,
    Metadata,
    PatternHealth,
    Performance,
    RiskAllocation,
    Section,
    StatisticalValidation,
    Template,
    TemplateConfiguration,
)
from tradepulse_pipeline.errors import InvalidInputError
from tradepulse_pipeline.market.series import SeriesKey
from tradepulse_pipeline.strategies.base import Strategy
from tradepulse_pipeline.validation.evidence import EvidenceReport
from tradepulse_pipeline.validation.lifecycle import STAGE_MULTIPLIERS, Evidence, Stage, classify
from tradepulse_pipeline.validation.record import OutOfSampleRecord
from tradepulse_pipeline.validation.statistics import Statistics
from tradepulse_pipeline.validation.training import TrainingSettings

_NAMESPACE: Final = uuid5(NAMESPACE_URL, "tradepulse:trained_configuration")


@dataclass(frozen=True, slots=True, kw_only=True)
class Configuration:
    """All that is stored of a trained configuration but its version and its training job, which the store knows.

    Figures are out-of-sample unless they say otherwise; a profit factor without any losing trade is None.

    Attributes
    ----------
    stage_reason, stage_figures
        Why it has its lifecycle stage, in one sentence, and the figures that decided.
    parameters
        Those found on the latest train window.
    in_sample_metrics
        The metrics, as means over the windows' train parts (None where no window was judged), and under
        ``latest_train`` those of ``parameters`` on the latest train window.
    out_of_sample_metrics
        The metrics of the record, and beside them: z_score, p_value, is_overfit, walk_forward_efficiency,
        cost_per_trade_r, is_out_of_sample, is_complete.
    windows
        One entry per window, in time order: ``WindowResult.to_json_dict``.
    template
        The V3 document.
    tested_p_value
        The larger of the normal and the bootstrap p-value; what is corrected for the trainings of one job.
    evidence
        ``EvidenceReport.to_json_dict``; None where nothing was measured.
    data_warnings
        Sentences about the candles that were trained on.
    """

    id: UUID
    strategy_name: str
    exchange: str
    pair: str
    timeframe: str
    lifecycle_stage: Stage
    stage_reason: str
    stage_figures: dict[str, Any]
    is_simulated: bool
    net_profit: float
    sharpe_ratio: float
    sortino_ratio: float
    calmar_ratio: float
    max_drawdown: float
    win_rate: float
    gross_win_rate: float
    average_win: float
    average_loss: float
    profit_factor: float | None
    sample_size: int
    p_value: float | None
    z_score: float | None
    deflated_sharpe_ratio: float | None
    probability_of_backtest_overfitting: float | None
    tested_p_value: float | None
    evidence: dict[str, Any] | None
    adverse_selection_score: float
    fill_rate: float
    parameters: dict[str, float]
    in_sample_metrics: dict[str, Any]
    out_of_sample_metrics: dict[str, Any]
    windows: list[dict[str, Any]]
    template: dict[str, Any]
    data_warnings: tuple[str, ...]
    lineage: Lineage
    created_at: datetime


def build_configuration(
    series: SeriesKey,
    strategy: Strategy,
    settings: TrainingSettings,
    record: OutOfSampleRecord,
    lineage: Lineage,
    now: datetime,
    data_warnings: Sequence[str] = (),
    evidence: EvidenceReport | None = None,
) -> Configuration | None:
    """Return the configuration that a training came to, created at ``now``; None when there is nothing to store.

    That is so when no parameter set was valid on the latest train window: ``why_no_configuration`` says it in words.
    A configuration that lost money out-of-sample is stored, as PAPER. The id follows from what was trained and from
    ``now``. ``data_warnings`` are sentences about the candles, which go with it; ``evidence`` is what tells the record
    from luck.

    Raises
    ------
    InvalidInputError
        If ``now`` has no time zone.
    """
    if now.tzinfo is None:
        raise InvalidInputError(f"now: found {now.isoformat()} without a time zone, expected a time in UTC.")
    if record.latest is None:
        return None
    created_at = now.astimezone(UTC)
    identity = (strategy.name, str(series), lineage.settings_digest, lineage.data_fingerprint, created_at.isoformat())
    configuration_id = uuid5(_NAMESPACE, "|".join(identity))
    measured = Statistics(n_days=record.daily.height, n_trials=0) if evidence is None else evidence.statistics
    decision = classify(Evidence.of(record, series.market, None if evidence is None else measured))
    metrics = record.metrics.as_dict()
    return Configuration(
        id=configuration_id,
        strategy_name=strategy.name,
        exchange=series.exchange,
        pair=series.pair,
        timeframe=series.timeframe.name,
        lifecycle_stage=decision.stage,
        stage_reason=decision.reason,
        stage_figures=decision.figures,
        is_simulated=series.market.is_simulated,
        net_profit=record.metrics.net_profit,
        sharpe_ratio=record.metrics.sharpe_ratio,
        sortino_ratio=record.metrics.sortino_ratio,
        calmar_ratio=record.metrics.calmar_ratio,
        max_drawdown=record.metrics.max_drawdown,
        win_rate=record.metrics.win_rate,
        gross_win_rate=record.metrics.gross_win_rate,
        average_win=record.metrics.average_win,
        average_loss=record.metrics.average_loss,
        profit_factor=metrics["profit_factor"],
        sample_size=int(record.metrics.sample_size),
        p_value=record.p_value,
        z_score=record.z_score,
        deflated_sharpe_ratio=measured.deflated_sharpe_ratio,
        probability_of_backtest_overfitting=measured.probability_of_backtest_overfitting,
        tested_p_value=measured.tested_p_value(record.p_value),
        evidence=None if evidence is None else evidence.to_json_dict(),
        adverse_selection_score=record.metrics.adverse_selection_score,
        fill_rate=record.metrics.fill_rate,
        parameters=record.latest.parameters,
        in_sample_metrics={
            **(dict.fromkeys(METRIC_NAMES) if record.in_sample is None else record.in_sample.as_dict()),
            "latest_train": record.latest.in_sample.as_dict(),
        },
        out_of_sample_metrics={
            **metrics,
            "z_score": record.z_score,
            "p_value": record.p_value,
            "is_overfit": record.is_overfit,
            "walk_forward_efficiency": record.walk_forward_efficiency,
            "cost_per_trade_r": record.cost_per_trade_r,
            "is_out_of_sample": record.is_out_of_sample,
            "is_complete": record.is_complete,
        },
        windows=[result.to_json_dict() for result in record.windows],
        template=Template(
            pair=series.pair,
            strategy=strategy.name,
            configurations=(
                TemplateConfiguration(
                    id=str(configuration_id),
                    status=decision.stage,
                    metadata=_metadata(series, strategy, lineage, created_at, data_warnings),
                    context=Context(pair=series.pair, exchange=series.exchange, timeframe=series.timeframe.name),
                    parameters=record.latest.parameters,
                    pattern_health=PatternHealth(months_since_discovery=0),
                    **_measured_sections(record, settings, decision.stage, measured),
                ),
            ),
        ).model_dump(mode="json"),
        data_warnings=tuple(data_warnings),
        lineage=lineage,
        created_at=created_at,
    )


def why_no_configuration(record: OutOfSampleRecord, settings: TrainingSettings) -> str | None:
    """Return, in one sentence, why a training has no configuration to store; None when it has one."""
    if record.latest is not None:
        return None
    if record.latest_trials == 0:
        return (
            f"The time of {settings.search.max_runtime_seconds:g} s was over before a parameter set was tried on the "
            "latest train window."
        )
    return (
        f"None of the {record.latest_trials:,} parameter sets tried on the latest train window qualified: it takes "
        f"{settings.search.minimum_trades} trades and a finite {' and '.join(settings.search.objectives)}."
    )


def _metadata(
    series: SeriesKey, strategy: Strategy, lineage: Lineage, created_at: datetime, data_warnings: Sequence[str]
) -> Metadata:
    candles = "SIMULATED candles" if series.market.is_simulated else "candles"
    python = f"Python {lineage.dependency_versions['python']}, {platform.system()} {platform.machine()}"
    return Metadata(
        model_version=f"{strategy.name}/{strategy.version}",
        discovery_date=created_at.isoformat(),
        engine_hash=lineage.engine_hash,
        runtime_env=f"backtest on {candles}, tradepulse {lineage.code_version}, {python}",
        data_warnings=tuple(data_warnings),
    )


def _measured_sections(
    record: OutOfSampleRecord, settings: TrainingSettings, stage: Stage, measured: Statistics
) -> dict[str, Section]:
    """Return the sections of the V3 document of which something is measured or assumed; all else in them is null."""
    metrics, account = record.metrics, settings.account
    has_traded = metrics.sample_size > 0
    trade_returns = record.trades["trade_return"].to_numpy()
    return {
        "performance": Performance(
            gross_WR=metrics.gross_win_rate,
            avg_win=metrics.average_win,
            avg_loss=metrics.average_loss,
            exchange_fees=account.fee_rate,
            est_slippage=account.slippage,
            NET_PROFIT=metrics.net_profit,
            sample_size=int(metrics.sample_size),
        ),
        "statistical_validation": StatisticalValidation(
            sharpe_ratio=metrics.sharpe_ratio,
            calmar_ratio=metrics.calmar_ratio,
            sortino_ratio=metrics.sortino_ratio,
            p_value=record.p_value,
            z_score=record.z_score,
            lifetime_sharpe_ratio=metrics.sharpe_ratio,
            deflated_sharpe_ratio=measured.deflated_sharpe_ratio,
            probability_of_backtest_overfitting=measured.probability_of_backtest_overfitting,
            monte_carlo_var=measured.loss_95,
        ),
        "execution_metrics": ExecutionMetrics(
            fill_rate=metrics.fill_rate if has_traded else None,
            adverse_selection_score=metrics.adverse_selection_score if has_traded else None,
        ),
        "risk_allocation": RiskAllocation(
            kelly_fraction=kelly_fraction(trade_returns, stage, seed=settings.search.seed),
            stage_multiplier=STAGE_MULTIPLIERS[stage],
            max_position_size=account.max_leverage,
            var_95=measured.var_95,
            cvar_95=measured.cvar_95,
        ),
        "market_microstructure": MarketMicrostructure(taker_fee=account.fee_rate),
    }
