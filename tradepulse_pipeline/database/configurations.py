"""Trained configurations: stored as new versions, never overwritten, with the history of their lifecycle stages."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final
from uuid import UUID

from tradepulse_pipeline.database.candles import load_within
from tradepulse_pipeline.database.connection import Database, jsonb
from tradepulse_pipeline.database.values import milliseconds_of
from tradepulse_pipeline.errors import InvalidInputError
from tradepulse_pipeline.market.series import SeriesKey
from tradepulse_pipeline.market.sources.times import iso_utc

if TYPE_CHECKING:
    from psycopg import sql

    from tradepulse_pipeline.database.connection import Connection

_MIN_PREFIX: Final = 8

_INSERT_TRANSITION: Final = """
    INSERT INTO lifecycle_transitions (configuration_id, from_stage, to_stage, reason, figures)
    VALUES (%s, NULL, %s, %s, %s)
"""
_MARK_OUTDATED: Final = """
    UPDATE trained_configurations SET stale_at = now(), stale_reason = %s WHERE id = %s AND stale_at IS NULL
"""
_TRANSITIONS: Final = """
    SELECT configuration_id, from_stage, to_stage, reason, figures, at FROM lifecycle_transitions
    WHERE configuration_id = %s ORDER BY id
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class ConfigurationRow:
    """One trained configuration, field by field as the table has it.

    Figures are out-of-sample, rates are fractions, None is 'not measured' or 'undefined'. ``data_start`` is the open
    time of the first candle that was trained on and ``data_end`` the close time of the last; ``data_warnings`` are
    sentences about them. ``evidence`` is what tells the record from luck.

    The database assigns ``version``, ``is_active`` and ``created_at``; when candles in that span change, the stale
    fields: ``stale_reason`` tells the first change, ``stale_candles`` counts all; and ``corrected_p_value`` and
    ``bonferroni_p_value``, which are ``tested_p_value`` corrected for all trainings of the job: see ``correct_job``.
    """

    id: UUID
    training_job_id: UUID
    strategy_name: str
    exchange: str
    pair: str
    timeframe: str
    lifecycle_stage: str
    is_simulated: bool

    net_profit: float | None
    sharpe_ratio: float | None
    sortino_ratio: float | None
    calmar_ratio: float | None
    max_drawdown: float | None
    win_rate: float | None
    gross_win_rate: float | None
    average_win: float | None
    average_loss: float | None
    profit_factor: float | None
    sample_size: int | None
    p_value: float | None
    z_score: float | None
    deflated_sharpe_ratio: float | None
    probability_of_backtest_overfitting: float | None
    tested_p_value: float | None
    adverse_selection_score: float | None
    fill_rate: float | None

    parameters: Mapping[str, Any]
    in_sample_metrics: Mapping[str, Any]
    out_of_sample_metrics: Mapping[str, Any]
    windows: Sequence[Mapping[str, Any]]
    template: Mapping[str, Any]
    evidence: Mapping[str, Any] | None

    data_warnings: Sequence[str]
    data_fingerprint: str
    data_start: datetime
    data_end: datetime
    code_version: str
    engine_hash: str
    dependency_versions: Mapping[str, str]
    seed: int
    optimizer: str
    settings: Mapping[str, Any]
    n_trials: int
    run_id: str

    version: int | None = None
    is_active: bool | None = None
    created_at: datetime | None = None
    stale_at: datetime | None = None
    stale_reason: str | None = None
    stale_candles: int = 0
    corrected_p_value: float | None = None
    bonferroni_p_value: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Transition:
    """A change of a configuration's lifecycle stage; ``from_stage`` is None for the stage that it was stored with."""

    configuration_id: UUID
    from_stage: str | None
    to_stage: str
    reason: str
    figures: dict[str, Any]
    at: datetime


#: What the database assigns.
ASSIGNED: Final = (
    "version",
    "is_active",
    "created_at",
    "stale_at",
    "stale_reason",
    "stale_candles",
    "corrected_p_value",
    "bonferroni_p_value",
)
_DOCUMENTS: Final = (
    "parameters",
    "in_sample_metrics",
    "out_of_sample_metrics",
    "windows",
    "template",
    "evidence",
    "data_warnings",
    "dependency_versions",
    "settings",
)
_IDENTITY: Final = ("strategy_name", "exchange", "pair", "timeframe")


def insert_configuration(
    connection: Connection, configuration: ConfigurationRow, *, reason: str, figures: Mapping[str, Any]
) -> ConfigurationRow:
    """Store ``configuration`` as the next version of its strategy and series, in the caller's transaction.

    The version before it stays and is no longer active; ``reason`` and ``figures`` say why the configuration has its
    lifecycle stage. End the series of the training job in the same transaction. A configuration whose id is stored
    already is left as it is.

    Returns
    -------
    ConfigurationRow
        The stored row, with what the database assigned.

    Raises
    ------
    InvalidInputError
        If a document holds NaN, infinity or what JSON does not know.
    """
    from psycopg import sql

    names = [field.name for field in fields(ConfigurationRow) if field.name not in ASSIGNED]
    values = {name: getattr(configuration, name) for name in names}
    values |= {
        name: jsonb(values[name], f"{name} of configuration {configuration.id}")
        for name in _DOCUMENTS
        if values[name] is not None
    }
    same_series = sql.SQL(" AND ").join(
        sql.SQL("{} = {}").format(sql.Identifier(name), sql.Placeholder(name)) for name in _IDENTITY
    )
    lock_name = "configurations " + " ".join(str(values[name]) for name in _IDENTITY)
    connection.execute("SELECT pg_advisory_xact_lock(hashtextextended(%s, 0))", (lock_name,))
    if stored := _select(connection, sql.SQL("id = %(id)s"), {"id": configuration.id}, limit=1):
        return stored[0]
    connection.execute(
        sql.SQL("UPDATE trained_configurations SET is_active = false WHERE is_active AND {}").format(same_series),
        values,
    )
    latest = sql.SQL("SELECT coalesce(max(version), 0) FROM trained_configurations WHERE {}")
    row = connection.execute(latest.format(same_series), values).fetchone()
    assert row is not None
    values["version"] = row[0] + 1
    insert = sql.SQL("INSERT INTO trained_configurations ({}) VALUES ({})").format(
        sql.SQL(", ").join(map(sql.Identifier, values)), sql.SQL(", ").join(map(sql.Placeholder, values))
    )
    connection.execute(insert, values)
    stage = configuration.lifecycle_stage
    connection.execute(
        _INSERT_TRANSITION, (configuration.id, stage, reason, jsonb(figures, "The figures behind a lifecycle stage"))
    )
    return by_id(connection, configuration.id)


def mark_if_outdated(connection: Connection, configuration: ConfigurationRow) -> ConfigurationRow:
    """Mark a configuration stale if the stored candles are no longer those that it was trained on, and return it.

    For the transaction that stores it: what changes later is marked by who changes it. Take the lock of the series'
    candles before anything else in that transaction.
    """
    series = SeriesKey.of(configuration.exchange, configuration.pair, configuration.timeframe)
    span = (milliseconds_of(configuration.data_start), milliseconds_of(configuration.data_end))
    now_stored = load_within(connection, series, *span).filled_forward()
    if configuration.stale_at is not None or now_stored.fingerprint() == configuration.data_fingerprint:
        return configuration
    reason = f"the candles from {iso_utc(span[0])} to {iso_utc(span[1])} changed while it was trained"
    connection.execute(_MARK_OUTDATED, (reason, configuration.id))
    return by_id(connection, configuration.id)


def get(database: Database, identifier: UUID | str) -> ConfigurationRow:
    """Return a configuration by its id or the first 8 or more characters of it.

    Raises
    ------
    InvalidInputError
        If the text is not the beginning of an id, or none or several configurations have it; those are listed.
    """
    from psycopg import sql

    prefix = str(identifier).strip().lower().replace("-", "")
    if not re.fullmatch(rf"[0-9a-f]{{{_MIN_PREFIX},32}}", prefix):
        raise InvalidInputError(
            f"{str(identifier)!r} is not a configuration's id: expected its first {_MIN_PREFIX} or more characters, "
            "digits and a to f. 'tradepulse results' lists them."
        )
    condition = sql.SQL("starts_with(replace(id::text, '-', ''), %(prefix)s)")
    found = database.run(lambda connection: _select(connection, condition, {"prefix": prefix}, limit=6))
    if not found:
        raise InvalidInputError(f"There is no configuration {identifier}. 'tradepulse results' lists them.")
    if len(found) > 1:
        ids = ", ".join(str(configuration.id) for configuration in found)
        raise InvalidInputError(
            f"{identifier} is the beginning of several configurations' ids: {ids}. Give more of it."
        )
    return found[0]


def list_configurations(
    database: Database,
    *,
    strategy_name: str | None = None,
    exchange: str | None = None,
    pair: str | None = None,
    timeframe: str | None = None,
    stage: str | None = None,
    training_job_id: UUID | None = None,
    active_only: bool = True,
    limit: int = 50,
) -> list[ConfigurationRow]:
    """Return up to ``limit`` configurations, the latest first; None leaves a filter out."""
    from psycopg import sql

    wanted = {
        "strategy_name": strategy_name,
        "exchange": exchange,
        "pair": pair,
        "timeframe": timeframe,
        "lifecycle_stage": stage,
        "training_job_id": training_job_id,
        "is_active": True if active_only else None,
    }
    values = {name: value for name, value in wanted.items() if value is not None}
    conditions = [sql.SQL("{} = {}").format(sql.Identifier(name), sql.Placeholder(name)) for name in values]
    condition = sql.SQL(" AND ").join([sql.SQL("TRUE"), *conditions])
    return database.run(lambda connection: _select(connection, condition, values, limit=limit))


def transitions(database: Database, configuration_id: UUID) -> list[Transition]:
    """Return the lifecycle stages that a configuration took, the first one first."""
    from psycopg.rows import class_row

    def select(connection: Connection) -> list[Transition]:
        return (
            connection.cursor(row_factory=class_row(Transition)).execute(_TRANSITIONS, (configuration_id,)).fetchall()
        )

    return database.run(select)


def by_id(connection: Connection, configuration_id: UUID) -> ConfigurationRow:
    """Return a stored configuration, in the caller's transaction."""
    from psycopg import sql

    return _select(connection, sql.SQL("id = %(id)s"), {"id": configuration_id}, limit=1)[0]


def _select(
    connection: Connection, condition: sql.Composable, values: Mapping[str, Any], *, limit: int
) -> list[ConfigurationRow]:
    from psycopg import sql
    from psycopg.rows import class_row

    query = sql.SQL(
        "SELECT {} FROM trained_configurations WHERE {} ORDER BY created_at DESC, version DESC, id LIMIT {}"
    ).format(
        sql.SQL(", ").join(sql.Identifier(field.name) for field in fields(ConfigurationRow)),
        condition,
        sql.Literal(limit),
    )
    return connection.cursor(row_factory=class_row(ConfigurationRow)).execute(query, values).fetchall()
