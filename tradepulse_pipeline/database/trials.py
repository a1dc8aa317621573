"""Searches and their trials: the best as rows, all of them in Parquet files that are named here with their hash."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final
from uuid import UUID

from tradepulse_pipeline.backtest.result import METRIC_NAMES
from tradepulse_pipeline.database.connection import Database, finite_or_none, jsonb
from tradepulse_pipeline.market.series import SeriesKey
from tradepulse_pipeline.validation.trials import NEIGHBOUR_COLUMNS

if TYPE_CHECKING:
    import polars as pl

    from tradepulse_pipeline.database.connection import Connection

_INDEX_COLUMNS: Final = (
    *("window", "rank", "trial", "combination", "objective", "on_pareto_front"),
    *NEIGHBOUR_COLUMNS,
)

_RECORD: Final = """
    INSERT INTO searches (training_job_id, strategy_name, exchange, pair, timeframe, run_id,
        trials_path, trials_sha256, n_trials)
    VALUES (%(job_id)s, %(strategy_name)s, %(exchange)s, %(pair)s, %(timeframe)s, %(run_id)s,
        %(path)s, %(sha256)s, %(n_trials)s)
    ON CONFLICT (training_job_id, strategy_name, exchange, pair, timeframe, run_id) DO UPDATE SET
        trials_path = excluded.trials_path, trials_sha256 = excluded.trials_sha256, n_trials = excluded.n_trials
    RETURNING id
"""
_INSERT_TRIAL: Final = """
    INSERT INTO trials (search_id, window_index, rank, combination, objective, parameters, metrics)
    VALUES (%s, %s, %s, %s, %s, %s, %s)
"""
_SEARCHES: Final = """
    SELECT id, training_job_id, strategy_name, exchange, pair, timeframe, run_id, trials_path, trials_sha256,
        n_trials, created_at
    FROM searches WHERE training_job_id = %s ORDER BY id
"""
_TRIALS: Final = """
    SELECT window_index, rank, combination, objective, parameters, metrics FROM trials
    WHERE search_id = %s ORDER BY window_index, rank
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """One of a window's best trials: ``rank`` 1 is the best; a metric that is infinite is None."""

    window_index: int
    rank: int
    combination: int
    objective: float
    parameters: dict[str, float]
    metrics: dict[str, float | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Search:
    """One run's search over one series, and the folder of all its trials."""

    id: int
    training_job_id: UUID
    strategy_name: str
    series: SeriesKey
    run_id: str
    trials_path: str
    trials_sha256: str
    n_trials: int
    created_at: datetime


def best_of(best: pl.DataFrame) -> list[Trial]:
    """Return the rows of a search's best trials, as they are stored: those that have a rank.

    Parameters
    ----------
    best : polars.DataFrame
        ``window``, ``rank``, ``trial``, ``combination``, ``objective``, one column per metric, and one per parameter;
        ``on_pareto_front`` and the neighbours' figures may be there as well.
    """
    parameters = [name for name in best.columns if name not in (*_INDEX_COLUMNS, *METRIC_NAMES)]
    return [
        Trial(
            window_index=row["window"],
            rank=row["rank"],
            combination=row["combination"],
            objective=row["objective"],
            parameters={name: row[name] for name in parameters},
            metrics={name: finite_or_none(row[name]) for name in METRIC_NAMES},
        )
        for row in best.drop_nulls("rank").iter_rows(named=True)
    ]


def record_search(
    connection: Connection,
    *,
    training_job_id: UUID,
    strategy_name: str,
    series: SeriesKey,
    run_id: str,
    trials_path: str,
    trials_sha256: str,
    n_trials: int,
    best: Iterable[Trial],
) -> int:
    """Record a search in the caller's transaction and return its id; recording it again replaces what was there.

    ``trials_path`` names the folder with all ``n_trials`` trials, ``trials_sha256`` is the hash of its files.
    """
    row = connection.execute(
        _RECORD,
        {
            "job_id": training_job_id,
            "strategy_name": strategy_name,
            "exchange": series.exchange,
            "pair": series.pair,
            "timeframe": str(series.timeframe),
            "run_id": run_id,
            "path": trials_path,
            "sha256": trials_sha256,
            "n_trials": n_trials,
        },
    ).fetchone()
    assert row is not None
    search_id: int = row[0]
    connection.execute("DELETE FROM trials WHERE search_id = %s", (search_id,))
    with connection.cursor() as cursor:
        cursor.executemany(_INSERT_TRIAL, [_values(search_id, trial) for trial in best])
    return search_id


def searches_of(database: Database, training_job_id: UUID) -> list[Search]:
    """Return the searches of a training job, in the order of their recording."""
    from psycopg.rows import dict_row

    def select(connection: Connection) -> list[dict[str, Any]]:
        return connection.cursor(row_factory=dict_row).execute(_SEARCHES, (training_job_id,)).fetchall()

    return [
        Search(series=SeriesKey.of(row.pop("exchange"), row.pop("pair"), row.pop("timeframe")), **row)
        for row in database.run(select)
    ]


def trials_of(database: Database, search_id: int) -> list[Trial]:
    """Return the best trials of a search, by window and rank."""
    from psycopg.rows import class_row

    def select(connection: Connection) -> list[Trial]:
        return connection.cursor(row_factory=class_row(Trial)).execute(_TRIALS, (search_id,)).fetchall()

    return database.run(select)


def _values(search_id: int, trial: Trial) -> tuple[object, ...]:
    return (
        search_id,
        trial.window_index,
        trial.rank,
        trial.combination,
        trial.objective,
        jsonb(trial.parameters, "The parameters of a trial"),
        jsonb(trial.metrics, "The metrics of a trial"),
    )
