"""What a training comes to: parameters with their evidence, stored as a new version."""

from collections.abc import Iterable, Sequence
from dataclasses import fields
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final
from uuid import UUID

import dagster as dg
import numpy as np

from tradepulse_pipeline.configurations.configuration import (
    Configuration,
    build_configuration,
    why_no_configuration,
)
from tradepulse_pipeline.configurations.lineage import collect_lineage
from tradepulse_pipeline.configurations.template import with_stage
from tradepulse_pipeline.database import training_jobs
from tradepulse_pipeline.database.candles import lock_candles
from tradepulse_pipeline.database.configurations import (
    ASSIGNED,
    ConfigurationRow,
    Transition,
    by_id,
    insert_configuration,
    list_configurations,
    mark_if_outdated,
    transitions,
)
from tradepulse_pipeline.database.connection import Database
from tradepulse_pipeline.database.corrections import correct_job
from tradepulse_pipeline.database.trials import best_of, record_search
from tradepulse_pipeline.market.candles import FloatArray
from tradepulse_pipeline.market.series import SeriesKey
from tradepulse_pipeline.orchestration.failures import told_plainly
from tradepulse_pipeline.orchestration.names import branch_name, code_version
from tradepulse_pipeline.orchestration.partitions import SERIES, joint_version, series_of
from tradepulse_pipeline.orchestration.presentation import (
    DECIMALS,
    candles_metadata,
    document,
    links,
    metrics_table,
    record_figures,
    simulated_metadata,
    table,
    trainings_chart,
    warnings_metadata,
    written,
)
from tradepulse_pipeline.orchestration.resources import ArtifactsResource, DatabaseResource
from tradepulse_pipeline.orchestration.tables import (
    OPTIMIZATION_RESULTS,
    TRAINED_CONFIGURATIONS,
    WALK_FORWARD_VALIDATION,
    StoredTrials,
    branch_key,
    read_frame,
    read_record,
    read_search,
    search_version,
)
from tradepulse_pipeline.orchestration.training_jobs import claim_job
from tradepulse_pipeline.strategies.base import Strategy
from tradepulse_pipeline.validation.record import OutOfSampleRecord

if TYPE_CHECKING:
    from tradepulse_pipeline.database.connection import Connection

#: What of the evidence is plotted from training to training.
_EVIDENCE: Final = ("deflated_sharpe_ratio", "probability_of_backtest_overfitting", "corrected_p_value")

#: Trainings that the page of a series looks back on.
_MOST_VERSIONS: Final = 20

_SQL_TYPES: Final = {
    "UUID": "uuid",
    "str": "text",
    "bool": "boolean",
    "int": "bigint",
    "float": "double precision",
    "datetime": "timestamptz",
}
#: What a column's name does not say.
_MEANINGS: Final = {
    "id": "What `tradepulse show` takes",
    "pair": "BASE/QUOTE, such as BTC/USDT",
    "lifecycle_stage": "PAPER, DISCOVERY, VALIDATION, MATURE or DECAY",
    "is_simulated": "Trained on simulated candles",
    "net_profit": "Out-of-sample, like all figures that follow; quote currency",
    "max_drawdown": "Fraction of the highest equity before",
    "win_rate": "Fraction of the trades",
    "profit_factor": "Null without a losing trade",
    "sample_size": "Number of trades",
    "template": "The V3 document that a trading bot reads",
    "data_warnings": "What was notable about the candles",
    "stale_at": "When the candles first turned into others than were trained on",
    "stale_reason": "That first change",
    "stale_candles": "Changes of single candles since",
    "data_fingerprint": "Hash of the candles that were trained on",
    "data_start": "Open time of the first candle",
    "data_end": "Close time of the last candle",
    "engine_hash": "Hash of the code that computes results",
    "settings": "What a replay repeats",
    "n_trials": "Trials in all train windows",
    "run_id": "Dagster's run",
    "version": "From 1, per strategy and series",
    "is_active": "Whether this is the latest version",
}
_COLUMNS: Final = dg.TableSchema(
    columns=[
        dg.TableColumn(
            field.name, _SQL_TYPES.get(str(field.type).removesuffix(" | None"), "jsonb"), _MEANINGS.get(field.name)
        )
        for field in fields(ConfigurationRow)
    ]
)


def build_trained_configurations(strategy: Strategy) -> dg.AssetsDefinition:
    """Return the asset that stores what a training of ``strategy`` came to."""

    @dg.asset(
        key=list(branch_key(strategy, TRAINED_CONFIGURATIONS)),
        deps=[list(branch_key(strategy, WALK_FORWARD_VALIDATION))],
        partitions_def=SERIES,
        group_name=branch_name(strategy),
        owners=["team:research"],
        kinds={"python", "postgres"},
        tags={"domain": "training", "strategy": branch_name(strategy)},
        code_version=code_version(strategy),
        description=f"""**{strategy.title}**: the configuration that a training comes to, in PostgreSQL.

Carries the parameters of the most recent train window, and the **out-of-sample** record of the procedure that found
them. That record alone decides the lifecycle stage:

| stage | when | size |
| --- | --- | --- |
| PAPER | it lost money, or its Sharpe ratio is below 0.5, or its candles are simulated | 0 |
| DISCOVERY | fewer than 30 trades | 0.25 |
| VALIDATION | fewer than 100 trades, or the evidence does not hold | 0.5 |
| MATURE | 100 trades or more, Sharpe ratio above 1.5, and the evidence holds | 1 |

A new training makes a new version; older ones are superseded, never overwritten. When candles that were trained on are
restated, added or set aside, the configuration is marked **stale** with the reason; the next materialization is fresh.
What was notable about the candles goes with the configuration. The V3 document is what a trading bot reads; what was
not measured is null there.""",
        metadata={"dagster/column_schema": _COLUMNS, "dagster/table_name": "tradepulse.trained_configurations"},
    )
    def trained_configurations(
        context: dg.AssetExecutionContext, database: DatabaseResource, artifacts: ArtifactsResource
    ) -> dg.MaterializeResult[None]:
        with told_plainly():
            db, store = database.open(), artifacts.open()
            versions: list[str] = []
            for series in series_of(context):
                stored = read_frame(store, series)
                trials = read_search(store, series, strategy, stored.fingerprint)
                record, evidence = read_record(store, series, strategy, trials, stored.fingerprint)
                job_id = claim_job(context, db, strategy, [series], trials.training)
                lineage = collect_lineage(
                    stored.candles,
                    strategy,
                    trials.training,
                    n_trials=record.total_trials,
                    run_id=context.run.run_id,
                )
                built = build_configuration(
                    series, strategy, trials.training, record, lineage, datetime.now(UTC), stored.warnings, evidence
                )
                row = _store(db, job_id, series, strategy, built, trials, record, context.run.run_id)
                versions += search_version(strategy, stored.fingerprint, trials.training, trials.found)
                if row is not None and row.stale_reason is not None:
                    context.log.warning(f"{series}: stale from the start, {row.stale_reason}. Train again.")
                stages = transitions(db, row.id) if row is not None else []
                context.add_asset_metadata(
                    {
                        **simulated_metadata(series),
                        **_verdict(built, row, stages, trials, record),
                        "see": links(
                            series,
                            {
                                "the candles": ("market_data",),
                                "the search": branch_key(strategy, OPTIMIZATION_RESULTS),
                                "the out-of-sample record": branch_key(strategy, WALK_FORWARD_VALIDATION),
                            },
                            strategy,
                        ),
                        **_history(db, strategy, series),
                        **({} if row is None or built is None else _metadata(strategy, built, row, record)),
                        **candles_metadata(stored.candles, stored.fingerprint),
                        "training_job": str(job_id),
                    },
                    partition_key=str(series),
                )
        return dg.MaterializeResult(data_version=joint_version(versions))

    return trained_configurations


def _store(
    database: Database,
    job_id: UUID,
    series: SeriesKey,
    strategy: Strategy,
    built: Configuration | None,
    trials: StoredTrials,
    record: OutOfSampleRecord,
    run_id: str,
) -> ConfigurationRow | None:
    """Store configuration, search and the end of the training job's series, all or nothing.

    Candles may have changed while it was trained; while it is being stored they cannot.
    """
    best = best_of(trials.found.best)

    def store(connection: "Connection") -> ConfigurationRow | None:
        row = None
        if built is not None:
            lock_candles(connection, series)
            row = insert_configuration(
                connection, _row(built, job_id), reason=built.stage_reason, figures=built.stage_figures
            )
            row = mark_if_outdated(connection, row)
        record_search(
            connection,
            training_job_id=job_id,
            strategy_name=strategy.name,
            series=series,
            run_id=run_id,
            trials_path=trials.folder.url,
            trials_sha256=trials.folder.sha256,
            n_trials=trials.found.total_trials,
            best=best,
        )
        training_jobs.finish_series(
            connection,
            job_id,
            series,
            run_id=run_id,
            status="completed",
            error_message=why_no_configuration(record, trials.training),
        )
        correct_job(connection, job_id)
        return row and by_id(connection, row.id)

    return database.run(store)


def _row(built: Configuration, job_id: UUID) -> ConfigurationRow:
    assigned = ("training_job_id", *ASSIGNED)
    names = [field.name for field in fields(ConfigurationRow) if field.name not in assigned]
    values = {name: getattr(built if hasattr(built, name) else built.lineage, name) for name in names}
    return ConfigurationRow(training_job_id=job_id, **values)


def _verdict(
    built: Configuration | None,
    row: ConfigurationRow | None,
    stages: Sequence[Transition],
    trials: StoredTrials,
    record: OutOfSampleRecord,
) -> dict[str, Any]:
    if built is None or row is None:
        return {"verdict": f"No configuration. {why_no_configuration(record, trials.training)}"}
    return {
        "verdict": f"{row.lifecycle_stage}: {stages[-1].reason}",
        **warnings_metadata(row.data_warnings),
        **({"stale": row.stale_reason} if row.stale_reason else {}),
    }


def _metadata(
    strategy: Strategy, built: Configuration, row: ConfigurationRow, record: OutOfSampleRecord
) -> dict[str, Any]:
    parameters = [
        {"parameter": p.name, "value": f"{row.parameters[p.name]:g}", "unit": p.unit} for p in strategy.parameters
    ]
    return {
        "metrics": metrics_table(record),
        "parameters": table(parameters, ("parameter", "value", "unit")),
        "configuration_id": str(row.id),
        "version": row.version,
        "lifecycle_stage": row.lifecycle_stage,
        "on_the_command_line": f"tradepulse show {row.id}",
        "v3_document": document(with_stage(built.template, row.lifecycle_stage)),
        "code_version": row.code_version,
        "seed": row.seed,
        **record_figures(record),
        **{name: round(value, DECIMALS) for name in _EVIDENCE if (value := getattr(row, name)) is not None},
    }


def _history(database: Database, strategy: Strategy, series: SeriesKey) -> dict[str, Any]:
    """Return how the trainings of a series followed each other: a plot, and a table, the latest first."""
    rows = list_configurations(
        database,
        strategy_name=strategy.name,
        exchange=series.exchange,
        pair=series.pair,
        timeframe=series.timeframe.name,
        active_only=False,
        limit=_MOST_VERSIONS,
    )
    versions = [
        {
            "version": row.version,
            "candles to": row.data_end.date().isoformat(),
            "stage": row.lifecycle_stage,
            "trades": written(row.sample_size, ",.0f"),
            "net profit": written(row.net_profit, ",.2f"),
            "Sharpe": written(row.sharpe_ratio, ".2f"),
            "in-sample": written(row.in_sample_metrics.get("sharpe_ratio"), ".2f"),
        }
        for row in rows
    ]
    return {
        "trainings": table(versions, tuple(versions[0]) if versions else ("version",)),
        "from_training_to_training": trainings_chart(
            [f"v{row.version}" for row in reversed(rows)],
            _numbers(row.sharpe_ratio for row in reversed(rows)),
            _numbers(row.in_sample_metrics.get("sharpe_ratio") for row in reversed(rows)),
            [row.lifecycle_stage for row in reversed(rows)],
        ),
    }


def _numbers(values: Iterable[float | None]) -> FloatArray:
    return np.array([np.nan if value is None else value for value in values], dtype=np.float64)
