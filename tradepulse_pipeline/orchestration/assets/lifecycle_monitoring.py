"""How an active configuration does on the candles that came after its training, and the stage that follows."""

from typing import Any, Final

import dagster as dg

from tradepulse_pipeline.database.configurations import ConfigurationRow, list_configurations
from tradepulse_pipeline.database.monitoring import look_at, record_evaluation
from tradepulse_pipeline.market.series import SeriesKey
from tradepulse_pipeline.orchestration.failures import told_plainly
from tradepulse_pipeline.orchestration.names import branch_name, code_version
from tradepulse_pipeline.orchestration.partitions import SERIES, series_of
from tradepulse_pipeline.orchestration.presentation import simulated_metadata
from tradepulse_pipeline.orchestration.presentation.monitoring import monitoring_metadata
from tradepulse_pipeline.orchestration.resources import DatabaseResource
from tradepulse_pipeline.orchestration.tables import LIFECYCLE_MONITORING, TRAINED_CONFIGURATIONS, branch_key
from tradepulse_pipeline.strategies.base import Strategy

_COLUMNS: Final = dg.TableSchema(
    columns=[
        dg.TableColumn("configuration_id", "uuid", "What `tradepulse show` takes"),
        dg.TableColumn("evaluated_at", "timestamptz", "When it was looked at"),
        dg.TableColumn("through", "timestamptz", "Close time of the last candle that was seen"),
        dg.TableColumn("n_trades", "integer", "Closed paper trades"),
        dg.TableColumn("figures", "jsonb", "All figures; null is not measured"),
        dg.TableColumn("death_signals", "text[]", "Those that were on"),
        dg.TableColumn("size_multiplier", "double precision", "Share of the full size that a bot may take"),
        dg.TableColumn("verdict", "text", "What follows, in a sentence"),
        dg.TableColumn("challenger", "jsonb", "A better one of the search's best trials, if there is one"),
    ]
)


def build_lifecycle_monitoring(strategy: Strategy) -> dg.AssetsDefinition:
    """Return the asset that watches what became of the configurations of ``strategy``."""
    trained = list(branch_key(strategy, TRAINED_CONFIGURATIONS))

    @dg.asset(
        key=list(branch_key(strategy, LIFECYCLE_MONITORING)),
        deps=["market_data", trained],
        partitions_def=SERIES,
        group_name=branch_name(strategy),
        owners=["team:research"],
        kinds={"python", "postgres"},
        tags={"domain": "monitoring", "strategy": branch_name(strategy)},
        code_version=code_version(strategy),
        automation_condition=_new_candles(trained),
        description=f"""**{strategy.title}**: the active configuration of a series on the candles after its training.

It trades them on paper: closed candles only, nobody's money. The record is compared with the **band** that its
out-of-sample record predicts, its trades are searched for **drift**, and six **death signals** are looked at. By rule
its lifecycle stage moves:

| from | to | when |
| --- | --- | --- |
| VALIDATION, MATURE | DECAY | two death signals; the record below the band; drift; a collapsed Sharpe ratio |
| any above PAPER | PAPER | fewer than 70 % of orders filled |
| DECAY | PAPER | after 30 days |
| PAPER | VALIDATION | it was above PAPER once, is not simulated, and its paper record since passes the gates again |

A Sharpe ratio of 30 days under half of its lifetime's is a death signal; it has collapsed where chance does not
explain it. Adverse selection above 0.6 halves the size. Nothing is done, and said so, where there is
no configuration or no new candle. Candles are not fetched here: `market_data` does that.""",
        metadata={"dagster/column_schema": _COLUMNS, "dagster/table_name": "tradepulse.monitoring_reports"},
    )
    def lifecycle_monitoring(
        context: dg.AssetExecutionContext, database: DatabaseResource
    ) -> dg.MaterializeResult[None]:
        with told_plainly():
            db = database.open()
            for series in series_of(context):
                found = list_configurations(
                    db,
                    strategy_name=strategy.name,
                    exchange=series.exchange,
                    pair=series.pair,
                    timeframe=series.timeframe.name,
                    limit=1,
                )
                metadata = _monitored(context, database, strategy, series, found[0]) if found else _nothing(strategy)
                context.add_asset_metadata({**simulated_metadata(series), **metadata}, partition_key=str(series))
        return dg.MaterializeResult()

    return lifecycle_monitoring


def _new_candles(trained: list[str]) -> dg.AutomationCondition[dg.AssetKey]:
    """Return the condition: new candles, and a configuration that can be run over them; one run at a time."""
    candles_are_new = dg.AutomationCondition.any_deps_match(dg.AutomationCondition.newly_updated()).allow(
        dg.AssetSelection.assets("market_data")
    )
    has_configuration = ~dg.AutomationCondition.any_deps_match(dg.AutomationCondition.missing()).allow(
        dg.AssetSelection.assets(trained)
    )
    return (
        candles_are_new.since_last_handled()
        & has_configuration
        & ~dg.AutomationCondition.in_progress()
        & ~dg.AutomationCondition.any_deps_in_progress()
    ).with_label("new candles for a configuration")


def _monitored(
    context: dg.AssetExecutionContext,
    database: DatabaseResource,
    strategy: Strategy,
    series: SeriesKey,
    row: ConfigurationRow,
) -> dict[str, Any]:
    db = database.open()
    evaluation = look_at(db, row, strategy)
    if evaluation is None:
        verdict = f"Nothing to do: no candle came after those that {row.id} was trained on. `market_data` fetches some."
        context.log.info(f"{series}: {verdict}")
        return {"verdict": verdict, "configuration_id": str(row.id), "lifecycle_stage": row.lifecycle_stage}
    is_news = record_evaluation(db, row, evaluation)
    if is_news and evaluation.moved:
        context.log.warning(
            f"{series}: {evaluation.standing.stage} → {evaluation.verdict.stage}. {evaluation.verdict.reason}"
        )
    return monitoring_metadata(row, evaluation, is_news=is_news)


def _nothing(strategy: Strategy) -> dict[str, Any]:
    return {"verdict": f"Nothing to do: no configuration of {strategy.name} is stored for this series. Train one."}
