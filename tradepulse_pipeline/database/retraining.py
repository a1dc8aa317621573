"""Why active configurations are to be trained again, and what has become of it: each cause leads to one training.

A retraining is filed as a training job that names the cause of each of its series. Jobs are never deleted, so a cause
that was filed stays filed, whatever becomes of runs, ticks and the process that asked for it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final
from uuid import UUID

from tradepulse_pipeline.database import training_jobs
from tradepulse_pipeline.database.connection import Database
from tradepulse_pipeline.database.training_jobs import Status
from tradepulse_pipeline.market.series import SeriesKey

if TYPE_CHECKING:
    from tradepulse_pipeline.database.connection import Connection

#: Each finds (configuration_id, cause, at, detail): the cause's identity, when it came about, and its own words.
_DECAYED: Final = """
    SELECT DISTINCT ON (configuration_id) configuration_id, 'decayed:' || id AS cause, at, reason AS detail
    FROM lifecycle_transitions WHERE to_stage = 'DECAY' ORDER BY configuration_id, id DESC
"""
_RESTATED: Final = """
    SELECT id AS configuration_id, 'restated:' || id AS cause, stale_at AS at, stale_reason AS detail
    FROM trained_configurations WHERE is_active AND stale_at IS NOT NULL
"""
_AGED: Final = """
    SELECT id AS configuration_id, 'aged:' || id AS cause, created_at AS at,
        floor(extract(epoch FROM now() - created_at) / 86400)::text AS detail
    FROM trained_configurations WHERE is_active AND created_at < now() - make_interval(days => %(max_age_days)s)
"""
_CHALLENGED: Final = """
    SELECT configuration_id, 'challenged:' || configuration_id || ':' || md5((challenger->'parameters')::text) AS cause,
        evaluated_at AS at, challenger->>'sentence' AS detail
    FROM (
        SELECT DISTINCT ON (configuration_id) configuration_id, challenger, evaluated_at
        FROM monitoring_reports ORDER BY configuration_id, id DESC
    ) AS latest
    WHERE jsonb_typeof(challenger) = 'object'
"""
_SCHEDULED: Final = """
    SELECT id AS configuration_id, 'scheduled:' || id || ':' || %(at)s::text AS cause, %(at)s::timestamptz AS at,
        '' AS detail
    FROM trained_configurations WHERE is_active AND strategy_name = %(strategy_name)s
"""
_DUE: Final = """
    SELECT
        due.cause, due.at, due.detail, configuration.id, configuration.version, configuration.strategy_name,
        configuration.exchange, configuration.pair, configuration.timeframe, configuration.settings,
        origin.config->'history', filed.id, filed.status, filed.run_id, filed.error_message,
        other.id, other.is_unbegun, other.is_old
    FROM ({due}) AS due
    JOIN trained_configurations AS configuration ON configuration.id = due.configuration_id
    JOIN training_jobs AS origin ON origin.id = configuration.training_job_id
    LEFT JOIN LATERAL (
        SELECT job.id, series.status, series.run_id, series.error_message
        FROM training_job_series AS series JOIN training_jobs AS job ON job.id = series.training_job_id
        WHERE (series.strategy_name, series.exchange, series.pair, series.timeframe)
            = (configuration.strategy_name, configuration.exchange, configuration.pair, configuration.timeframe)
            AND job.config->'causes' @> jsonb_build_array(due.cause)
        LIMIT 1
    ) AS filed ON true
    LEFT JOIN LATERAL (
        SELECT job.id, series.status = 'pending' AND job.config->'causes' IS NOT NULL AS is_unbegun,
            job.created_at < now() - interval '1 hour' AS is_old
        FROM training_job_series AS series JOIN training_jobs AS job ON job.id = series.training_job_id
        WHERE (series.strategy_name, series.exchange, series.pair, series.timeframe)
            = (configuration.strategy_name, configuration.exchange, configuration.pair, configuration.timeframe)
            AND series.status IN ('pending', 'running') AND job.id IS DISTINCT FROM filed.id
        LIMIT 1
    ) AS other ON true
    WHERE configuration.is_active {condition}
    ORDER BY due.at, configuration.strategy_name, configuration.exchange, configuration.pair, configuration.timeframe
"""
_IN_DECAY: Final = "AND configuration.lifecycle_stage = 'DECAY'"
_LOCK: Final = "SELECT pg_advisory_xact_lock(hashtextextended('retraining', 0))"
_STILL_DUE: Final = """
    SELECT FROM trained_configurations AS configuration
    WHERE configuration.id = %(configuration_id)s AND configuration.is_active AND NOT EXISTS (
        SELECT FROM training_job_series AS series JOIN training_jobs AS job ON job.id = series.training_job_id
        WHERE (series.strategy_name, series.exchange, series.pair, series.timeframe)
            = (configuration.strategy_name, configuration.exchange, configuration.pair, configuration.timeframe)
            AND job.id <> %(job_id)s
            AND (series.status IN ('pending', 'running') OR job.config->'causes' @> jsonb_build_array(%(cause)s::text))
    )
"""
_ACTIVE: Final = """
    SELECT exchange, pair, timeframe FROM trained_configurations WHERE is_active AND strategy_name = %s
    ORDER BY exchange, pair, timeframe
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Filed:
    """The training that a cause led to: its job, and how the series fares in it."""

    job_id: UUID
    status: Status
    run_id: str | None
    error_message: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Other:
    """A training job that has still to train a series, for whatever reason.

    ``is_unbegun`` is true of a retraining that no run has begun, ``is_old`` of a job of more than an hour.
    """

    job_id: UUID
    is_unbegun: bool
    is_old: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Due:
    """An active configuration that there is a cause to train again.

    Attributes
    ----------
    cause
        Identity of the cause: the same text as long as it is the same cause.
    at, detail
        When the cause came about, and what the database says of it.
    settings, history
        What the configuration was trained with, and which candles its training job asked for, if it says so.
    filed
        The training that this very cause led to.
    other
        Another training that the series has still to come to.
    """

    cause: str
    at: datetime
    detail: str
    configuration_id: UUID
    version: int
    strategy_name: str
    series: SeriesKey
    settings: Mapping[str, Any]
    history: Mapping[str, Any] | None
    filed: Filed | None
    other: Other | None


def decayed(database: Database) -> list[Due]:
    """Return the active configurations in DECAY, those in it for longest first; each fall into it is a cause."""
    return _select(database, _DECAYED, condition=_IN_DECAY)


def restated(database: Database) -> list[Due]:
    """Return the active configurations whose candles have become others, the first ones first."""
    return _select(database, _RESTATED)


def aged(database: Database, *, max_age_days: int) -> list[Due]:
    """Return the active configurations that are older than ``max_age_days``, the oldest first; detail: days."""
    return _select(database, _AGED, {"max_age_days": max_age_days})


def challenged(database: Database) -> list[Due]:
    """Return the active configurations whose latest monitoring report names a better parameter set.

    The same parameters, found better again later on, are the same cause.
    """
    return _select(database, _CHALLENGED)


def scheduled(database: Database, strategy_name: str, at: datetime) -> list[Due]:
    """Return all active configurations of a strategy; that ``at`` has come is the cause."""
    return _select(database, _SCHEDULED, {"strategy_name": strategy_name, "at": at})


def active_series(database: Database, strategy_name: str) -> list[SeriesKey]:
    """Return the series with an active configuration of a strategy."""
    rows = database.run(lambda connection: connection.execute(_ACTIVE, (strategy_name,)).fetchall())
    return [SeriesKey.of(*row) for row in rows]


def file_retraining(
    database: Database,
    job_id: UUID,
    due: Sequence[Due],
    *,
    config: Mapping[str, Any],
    seed: int,
    code_version: str,
    user_id: str,
) -> list[Due]:
    """File one training job for those of ``due`` that still are, and that nobody else has filed or trains; return them.

    They are of one strategy. Whoever files waits for others who do, so that two never file the same.
    """

    def file(connection: Connection) -> list[Due]:
        connection.execute(_LOCK)
        ours = [one for one in due if _is_still_due(connection, job_id, one)]
        if ours:
            training_jobs.insert(
                connection,
                job_id=job_id,
                strategy_name=ours[0].strategy_name,
                config={**config, "causes": [one.cause for one in ours]},
                series=[one.series for one in ours],
                seed=seed,
                code_version=code_version,
                user_id=user_id,
            )
        return ours

    return database.run(file)


def give_up(database: Database, job_id: UUID, series: SeriesKey) -> None:
    """Mark a series of a retraining that no run has begun, and none will begin, as cancelled."""
    database.run(
        lambda connection: training_jobs.finish_series(
            connection, job_id, series, run_id="", status="cancelled", error_message="No run ever began it."
        )
    )


def _is_still_due(connection: Connection, job_id: UUID, due: Due) -> bool:
    values = {"configuration_id": due.configuration_id, "job_id": job_id, "cause": due.cause}
    return connection.execute(_STILL_DUE, values).rowcount > 0


def _select(database: Database, due: str, values: Mapping[str, Any] | None = None, *, condition: str = "") -> list[Due]:
    query = _DUE.format(due=due, condition=condition).encode()
    rows = database.run(lambda connection: connection.execute(query, values).fetchall())
    return [_due(row) for row in rows]


def _due(row: Sequence[Any]) -> Due:
    cause, at, detail, configuration_id, version, strategy, exchange, pair, timeframe, settings, history, *rest = row
    filed_id, status, run_id, error_message, other_id, is_unbegun, is_old = rest
    return Due(
        cause=cause,
        at=at,
        detail=detail or "",
        configuration_id=configuration_id,
        version=version,
        strategy_name=strategy,
        series=SeriesKey.of(exchange, pair, timeframe),
        settings=settings,
        history=history,
        filed=None
        if filed_id is None
        else Filed(job_id=filed_id, status=status, run_id=run_id, error_message=error_message),
        other=None if other_id is None else Other(job_id=other_id, is_unbegun=is_unbegun, is_old=is_old),
    )
