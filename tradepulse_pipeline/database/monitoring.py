"""Paper trades and monitoring reports: written once per configuration and last candle, with the move of the stage."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final
from uuid import UUID

from tradepulse_pipeline.backtest.result import EXIT_REASONS
from tradepulse_pipeline.database.configurations import ConfigurationRow, Transition, transitions
from tradepulse_pipeline.database.connection import Database, finite_or_none, jsonb
from tradepulse_pipeline.database.corporate_actions import candles_for_training
from tradepulse_pipeline.database.trials import searches_of, trials_of
from tradepulse_pipeline.database.values import milliseconds_of, time_of
from tradepulse_pipeline.market.series import SeriesKey
from tradepulse_pipeline.monitoring.breakers import Replay, replay_breakers
from tradepulse_pipeline.monitoring.evaluation import Evaluation, Standing, evaluate
from tradepulse_pipeline.monitoring.paper import (
    Record,
    Subject,
    frame_of,
    out_of_sample_record,
    paper_record,
    start_of_new,
)
from tradepulse_pipeline.strategies.base import SignalSource, Strategy
from tradepulse_pipeline.strategies.decisions import LONG
from tradepulse_pipeline.validation.walk_forward import LATEST

if TYPE_CHECKING:
    from tradepulse_pipeline.database.connection import Connection

_TRADE_COLUMNS: Final = (
    "decision_time",
    "entry_time",
    "exit_time",
    "side",
    "entry_price",
    "exit_price",
    "stop_price",
    "target_price",
    "quantity",
    "pnl",
    "r_multiple",
    "trade_return",
    "adverse_selection",
    "exit_reason",
)
_LOCK: Final = "SELECT lifecycle_stage, is_active FROM trained_configurations WHERE id = %s FOR UPDATE"
_SEEN: Final = "SELECT max(through) FROM monitoring_reports WHERE configuration_id = %s"
_CURRENT_TRADES: Final = f"""
    SELECT id, {", ".join(_TRADE_COLUMNS)} FROM paper_trades
    WHERE configuration_id = %s AND superseded_at IS NULL ORDER BY entry_time
"""  # noqa: S608 (names of columns, written above)
_SUPERSEDE: Final = "UPDATE paper_trades SET superseded_at = now() WHERE id = ANY(%s)"
_INSERT_TRADE: Final = f"""
    INSERT INTO paper_trades (configuration_id, {", ".join(_TRADE_COLUMNS)})
    VALUES (%s{", %s" * len(_TRADE_COLUMNS)})
"""  # noqa: S608
_INSERT_REPORT: Final = """
    INSERT INTO monitoring_reports
        (configuration_id, through, n_trades, figures, death_signals, size_multiplier, verdict, challenger)
    VALUES (%s, %s, %s, %s, %s, %s, %s, %s)
"""
_MOVE: Final = "UPDATE trained_configurations SET lifecycle_stage = %s WHERE id = %s"
_TRANSITION: Final = """
    INSERT INTO lifecycle_transitions (configuration_id, from_stage, to_stage, reason, figures)
    VALUES (%s, %s, %s, %s, %s)
"""
_REPORTS: Final = """
    SELECT id, configuration_id, evaluated_at, through, n_trades, figures, death_signals, size_multiplier, verdict,
        challenger
    FROM monitoring_reports WHERE configuration_id = %s ORDER BY through DESC LIMIT %s
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class MonitoringReport:
    """What one look at a configuration found, as stored; ``through`` is the close of the last candle seen."""

    id: int
    configuration_id: UUID
    evaluated_at: datetime
    through: datetime
    n_trades: int
    figures: dict[str, Any]
    death_signals: list[str]
    size_multiplier: float
    verdict: str
    challenger: dict[str, Any] | None


@dataclass(frozen=True, slots=True, kw_only=True)
class PaperTrade:
    """A closed paper trade; prices in quote currency, times are open times of candles."""

    id: int
    decision_time: datetime
    entry_time: datetime
    exit_time: datetime
    side: str
    entry_price: float
    exit_price: float
    stop_price: float
    target_price: float | None
    quantity: float
    pnl: float
    r_multiple: float
    trade_return: float
    adverse_selection: float
    exit_reason: str


def subject_of(row: ConfigurationRow, strategy: Strategy) -> Subject:
    """Return a stored configuration as monitoring needs it."""
    return Subject.of(
        strategy,
        parameters=row.parameters,
        settings=row.settings,
        windows=row.windows,
        data_end_ms=milliseconds_of(row.data_end),
    )


def look_at(database: Database, row: ConfigurationRow, strategy: Strategy) -> Evaluation | None:
    """Evaluate a configuration on the stored candles; nothing is written. None without a candle after its training.

    Raises
    ------
    InvalidInputError
        If the candles that it was trained on are gone, or its parameters are not the strategy's any more.
    """
    series = SeriesKey.of(row.exchange, row.pair, row.timeframe)
    subject = subject_of(row, strategy)
    candles = candles_for_training(database, series, milliseconds_of(row.data_start))
    if not len(candles) or not start_of_new(candles, subject):
        return None
    standing = standing_of(row, transitions(database, row.id))
    return evaluate(subject, candles, standing, _best_trials(database, row, series))


def replay_over_history(database: Database, row: ConfigurationRow, strategy: Strategy) -> Replay:
    """Return what the circuit breakers would have done to the out-of-sample and the paper record of a configuration.

    Raises
    ------
    InvalidInputError
        If the candles that it was trained on are gone, or its parameters are not the strategy's any more.
    """
    series = SeriesKey.of(row.exchange, row.pair, row.timeframe)
    subject = subject_of(row, strategy)
    candles = candles_for_training(database, series, milliseconds_of(row.data_start))
    start_of_new(candles, subject)
    frame = frame_of(candles, subject.strategy)
    source = SignalSource(subject.strategy, frame, subject.settings.side)
    record = Record.joined(out_of_sample_record(frame, source, subject), paper_record(frame, source, subject))
    return replay_breakers(frame, record, initial_capital=subject.settings.account.initial_capital)


def standing_of(row: ConfigurationRow, stages: Sequence[Transition]) -> Standing:
    """Return where a configuration stands, in the time of candles: moves by monitoring say through which candle."""
    data_end_ms = milliseconds_of(row.data_end)

    def moment(one: Transition) -> int:
        return milliseconds_of(datetime.fromisoformat(one.figures["through"])) if _is_move(one) else data_end_ms

    falls = [moment(one) for one in stages if one.from_stage not in (None, "PAPER", "DECAY") and _is_move(one)]
    return Standing(
        stage=row.lifecycle_stage,  # type: ignore[arg-type]  # the column knows no other
        is_simulated=row.is_simulated,
        since_ms=moment(stages[-1]) if stages else data_end_ms,
        fell_at_ms=falls[-1] if falls else None,
    )


def record_evaluation(database: Database, row: ConfigurationRow, found: Evaluation) -> bool:
    """Store the paper trades, the report and the move of the stage, all or nothing; return whether it was news.

    A second look through the same candle, at a configuration that has been superseded, or one whose stage has become
    another meanwhile, writes nothing.
    """
    return database.run(lambda connection: record_within(connection, row.id, found))


def record_within(connection: Connection, configuration_id: UUID, found: Evaluation) -> bool:
    """Do what :func:`record_evaluation` does, in the caller's transaction."""
    locked = connection.execute(_LOCK, (configuration_id,)).fetchone()
    seen = connection.execute(_SEEN, (configuration_id,)).fetchone()
    assert seen is not None
    through = time_of(found.through_ms)
    if locked != (found.standing.stage, True) or (seen[0] is not None and seen[0] >= through):
        return False
    _record_trades(connection, configuration_id, found)
    verdict, challenger = found.verdict, found.challenger
    connection.execute(
        _INSERT_REPORT,
        (
            configuration_id,
            through,
            len(found.paper.trades),
            jsonb(found.figures(), "The figures of a monitoring report"),
            list(found.death_signals),
            verdict.size_multiplier,
            verdict.reason,
            challenger and jsonb(challenger.to_json_dict(), "The challenger of a configuration"),
        ),
    )
    if found.moved:
        connection.execute(_MOVE, (verdict.stage, configuration_id))
        figures = jsonb(found.deciding_figures(), "The figures behind a lifecycle stage")
        values = (configuration_id, found.standing.stage, verdict.stage, verdict.reason, figures)
        connection.execute(_TRANSITION, values)
    return True


def reports_of(database: Database, configuration_id: UUID, *, limit: int = 100) -> list[MonitoringReport]:
    """Return the latest reports on a configuration, the newest first."""
    from psycopg.rows import class_row

    def select(connection: Connection) -> list[MonitoringReport]:
        cursor = connection.cursor(row_factory=class_row(MonitoringReport))
        return cursor.execute(_REPORTS, (configuration_id, limit)).fetchall()

    return database.run(select)


def paper_trades_of(database: Database, configuration_id: UUID) -> list[PaperTrade]:
    """Return the paper trades of a configuration that stand, in time order."""
    from psycopg.rows import class_row

    def select(connection: Connection) -> list[PaperTrade]:
        cursor = connection.cursor(row_factory=class_row(PaperTrade))
        return cursor.execute(_CURRENT_TRADES, (configuration_id,)).fetchall()

    return database.run(select)


def _is_move(one: Transition) -> bool:
    """Return whether monitoring made it."""
    return "through" in one.figures


def _record_trades(connection: Connection, configuration_id: UUID, found: Evaluation) -> None:
    made = _rows_of(found)
    stored = {tuple(values): number for number, *values in connection.execute(_CURRENT_TRADES, (configuration_id,))}
    outdated = [number for values, number in stored.items() if values not in set(made)]
    if outdated:
        connection.execute(_SUPERSEDE, (outdated,))
    new = [(configuration_id, *values) for values in made if values not in stored]
    with connection.cursor() as cursor:
        cursor.executemany(_INSERT_TRADE, new)


def _rows_of(found: Evaluation) -> list[tuple[Any, ...]]:
    """Return the closed paper trades as rows, in the order of ``_TRADE_COLUMNS``."""
    trades, opens = found.paper.trades, found.frame.open_time_ms
    columns: dict[str, Sequence[Any]] = {
        "decision_time": [time_of(ms) for ms in opens[trades.decision_bar].tolist()],
        "entry_time": [time_of(ms) for ms in opens[trades.entry_bar].tolist()],
        "exit_time": [time_of(ms) for ms in opens[trades.exit_bar].tolist()],
        "side": ["long" if side == LONG else "short" for side in trades.side.tolist()],
        "target_price": [finite_or_none(price) for price in trades.target_price.tolist()],
        "r_multiple": trades.r_multiple.tolist(),
        "trade_return": trades.returns.tolist(),
        "adverse_selection": found.paper.adverse_selection.tolist(),
        "exit_reason": [EXIT_REASONS[code] for code in trades.exit_reason.tolist()],
    }
    values = [columns[name] if name in columns else getattr(trades, name).tolist() for name in _TRADE_COLUMNS]
    return list(zip(*values, strict=True))


def _best_trials(database: Database, row: ConfigurationRow, series: SeriesKey) -> list[dict[str, float]]:
    """Return the parameters of the best trials of the latest train window, the best first."""
    searches = [
        one
        for one in searches_of(database, row.training_job_id)
        if (one.strategy_name, one.series, one.run_id) == (row.strategy_name, series, row.run_id)
    ]
    return [
        trial.parameters
        for search in searches
        for trial in trials_of(database, search.id)
        if trial.window_index == LATEST
    ]
