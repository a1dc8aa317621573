"""Configurations in the database without the trainings that would have led to them."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any
from uuid import UUID, uuid4

from tradepulse_pipeline.database.configurations import ConfigurationRow, insert_configuration
from tradepulse_pipeline.database.connection import Database
from tradepulse_pipeline.database.training_jobs import create
from tradepulse_pipeline.market.series import SeriesKey

if TYPE_CHECKING:
    from tradepulse_pipeline.database.connection import Connection

_FIGURES = (
    "net_profit", "sharpe_ratio", "sortino_ratio", "calmar_ratio", "max_drawdown", "win_rate", "gross_win_rate",
    "average_win", "average_loss", "profit_factor", "p_value", "z_score", "deflated_sharpe_ratio",
    "probability_of_backtest_overfitting", "adverse_selection_score", "fill_rate",
)  # fmt: skip


def store_configuration(database: Database, series: SeriesKey, *, stage: str, strategy: str = "S") -> UUID:
    """Store a new version for ``series`` in ``stage``, and return its id."""
    job_id = create(
        database, strategy_name=strategy, config={}, series=[series], seed=0, code_version="1", user_id="ada"
    )
    values: dict[str, Any] = {
        "id": uuid4(), "training_job_id": job_id, "strategy_name": strategy, "exchange": series.exchange,
        "pair": series.pair, "timeframe": str(series.timeframe), "lifecycle_stage": stage,
        "is_simulated": series.market.is_simulated, **dict.fromkeys(_FIGURES, 0.1), "sample_size": 40,
        "parameters": {}, "in_sample_metrics": {}, "out_of_sample_metrics": {}, "windows": [], "template": {},
        "evidence": {}, "tested_p_value": 0.2, "data_warnings": [], "data_fingerprint": "f",
        "data_start": datetime(2024, 1, 1, tzinfo=UTC), "data_end": datetime(2025, 1, 1, tzinfo=UTC),
        "code_version": "1", "engine_hash": "e", "seed": 0, "dependency_versions": {}, "optimizer": "random",
        "settings": {}, "n_trials": 1, "run_id": "r",
    }  # fmt: skip
    row = ConfigurationRow(**values)
    database.run(lambda connection: insert_configuration(connection, row, reason="as stored", figures={}))
    return row.id


def change_stage(connection: Connection, configuration: UUID, former: str, stage: str, reason: str) -> None:
    """Move a configuration to another stage in the caller's transaction, as what watches over configurations does."""
    connection.execute(
        "INSERT INTO lifecycle_transitions (configuration_id, from_stage, to_stage, reason, figures) "
        "VALUES (%s, %s, %s, %s, '{}')",
        (configuration, former, stage, reason),
    )
    connection.execute("UPDATE trained_configurations SET lifecycle_stage = %s WHERE id = %s", (stage, configuration))
