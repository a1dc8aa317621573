"""Training jobs: one per request to train, with the state of every series that it covers.

A job's status, counts and errors are summed up from its series in the transaction that changes one of them. A series
belongs, per strategy, to the run that claimed it last, whatever job that is of: what an earlier run still has to say
about it is refused, and so are its files.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final, Literal
from uuid import UUID, uuid4

from tradepulse_pipeline.database.connection import Database, finite_or_none, jsonb, storable_text
from tradepulse_pipeline.errors import DatabaseError, InvalidInputError, one_of
from tradepulse_pipeline.market.series import SeriesKey
from tradepulse_pipeline.progress import Progress

if TYPE_CHECKING:
    from tradepulse_pipeline.database.connection import Connection

Status = Literal["pending", "running", "completed", "failed", "cancelled"]
STATUSES: Final[tuple[Status, ...]] = ("pending", "running", "completed", "failed", "cancelled")

_USER_ID_LENGTH: Final = 50

_INSERT_JOB: Final = """
    INSERT INTO training_jobs (id, user_id, strategy_name, config, seed, code_version)
    VALUES (%(id)s, %(user_id)s, %(strategy_name)s, %(config)s, %(seed)s, %(code_version)s)
    ON CONFLICT (id) DO NOTHING
"""
_INSERT_SERIES: Final = """
    INSERT INTO training_job_series (training_job_id, strategy_name, exchange, pair, timeframe)
    VALUES (%(job_id)s, %(strategy_name)s, %(exchange)s, %(pair)s, %(timeframe)s)
    ON CONFLICT DO NOTHING
"""
#: One claim, or one result that becomes visible, at a time per strategy and series.
_LOCK_CLAIM: Final = """
    SELECT pg_advisory_xact_lock(hashtextextended(concat_ws(' ', 'claim', strategy_name, exchange, pair, timeframe), 0))
    FROM training_job_series
    WHERE training_job_id = %(job_id)s AND exchange = %(exchange)s AND pair = %(pair)s AND timeframe = %(timeframe)s
"""
_STATE: Final = """
    SELECT mine.status, mine.run_id, mine.former_run_ids, (
        SELECT newer.run_id FROM training_job_series AS newer
        WHERE (newer.strategy_name, newer.exchange, newer.pair, newer.timeframe)
            = (mine.strategy_name, mine.exchange, mine.pair, mine.timeframe) AND newer.started_at > mine.started_at
        ORDER BY newer.started_at DESC LIMIT 1
    ) FROM training_job_series AS mine
    WHERE training_job_id = %(job_id)s AND exchange = %(exchange)s AND pair = %(pair)s AND timeframe = %(timeframe)s
"""
_CLAIM: Final = """
    UPDATE training_job_series SET
        status = 'running', run_id = %(run_id)s,
        former_run_ids = CASE WHEN run_id IS NULL THEN former_run_ids ELSE former_run_ids || run_id END,
        total_combinations = 0, completed_combinations = 0, failed_combinations = 0, best_net_profit = NULL,
        data_fingerprint = NULL, progress = NULL,
        started_at = clock_timestamp(), completed_at = NULL, error_message = NULL
    WHERE training_job_id = %(job_id)s AND exchange = %(exchange)s AND pair = %(pair)s AND timeframe = %(timeframe)s
"""
_REPORT: Final = """
    UPDATE training_job_series SET
        progress = coalesce(%(progress)s, progress),
        total_combinations = coalesce(%(total)s, total_combinations),
        completed_combinations = coalesce(%(completed)s, completed_combinations),
        failed_combinations = coalesce(%(failed)s, failed_combinations),
        best_net_profit = coalesce(%(best)s, best_net_profit),
        data_fingerprint = coalesce(%(fingerprint)s, data_fingerprint)
    WHERE training_job_id = %(job_id)s AND exchange = %(exchange)s AND pair = %(pair)s AND timeframe = %(timeframe)s
"""
_FINISH: Final = """
    UPDATE training_job_series SET status = %(status)s, error_message = %(error)s, completed_at = now()
    WHERE training_job_id = %(job_id)s AND exchange = %(exchange)s AND pair = %(pair)s AND timeframe = %(timeframe)s
"""
_END_OPEN: Final = """
    UPDATE training_job_series SET status = %(status)s, error_message = %(error)s, completed_at = now()
    WHERE training_job_id = %(job_id)s AND status IN ('pending', 'running')
      AND (%(run_ids)s::text[] IS NULL OR run_id = ANY(%(run_ids)s))
"""
_SUM_UP: Final = """
    UPDATE training_jobs AS job SET
        status = CASE
            WHEN n_pending = n_series THEN 'pending'
            WHEN n_open > 0 THEN 'running'
            WHEN n_failed > 0 THEN 'failed'
            WHEN n_cancelled > 0 THEN 'cancelled'
            ELSE 'completed'
        END,
        total_combinations = total, completed_combinations = completed, failed_combinations = failed,
        configurations_created = (SELECT count(*) FROM trained_configurations WHERE training_job_id = job.id),
        best_net_profit = best, error_message = errors,
        started_at = coalesce(job.started_at, first_start),
        completed_at = CASE WHEN n_open = 0 THEN last_end END
    FROM (
        SELECT
            count(*) AS n_series,
            count(*) FILTER (WHERE status = 'pending') AS n_pending,
            count(*) FILTER (WHERE status IN ('pending', 'running')) AS n_open,
            count(*) FILTER (WHERE status = 'failed') AS n_failed,
            count(*) FILTER (WHERE status = 'cancelled') AS n_cancelled,
            sum(total_combinations) AS total, sum(completed_combinations) AS completed,
            sum(failed_combinations) AS failed, max(best_net_profit) AS best,
            min(started_at) AS first_start, max(completed_at) AS last_end,
            string_agg(exchange || ':' || replace(pair, '/', '-') || ':' || timeframe || ': ' || error_message, E'\\n'
                       ORDER BY exchange, pair, timeframe) AS errors
        FROM training_job_series WHERE training_job_id = %(job_id)s
    ) AS series
    WHERE job.id = %(job_id)s
"""
_JOB_COLUMNS: Final = """
    id, user_id, strategy_name, status, config, total_combinations, completed_combinations, failed_combinations,
    configurations_created, best_net_profit, created_at, started_at, completed_at, error_message, run_ids, seed,
    code_version, progress
"""
_SERIES_COLUMNS: Final = """
    training_job_id, exchange, pair, timeframe, run_id, status, total_combinations, completed_combinations,
    failed_combinations, best_net_profit, data_fingerprint, progress, started_at, completed_at, error_message
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class JobSeries:
    """The state of one series of a training job; ``run_id`` is the run that works, or worked, on it."""

    series: SeriesKey
    run_id: str | None
    status: Status
    total_combinations: int
    completed_combinations: int
    failed_combinations: int
    best_net_profit: float | None
    data_fingerprint: str | None
    progress: dict[str, Any] | None
    started_at: datetime | None
    completed_at: datetime | None
    error_message: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingJob:
    """A training job with its series; counts and errors are those of all series together."""

    id: UUID
    user_id: str
    strategy_name: str
    status: Status
    config: dict[str, Any]
    total_combinations: int
    completed_combinations: int
    failed_combinations: int
    configurations_created: int
    best_net_profit: float | None
    created_at: datetime
    started_at: datetime | None
    completed_at: datetime | None
    error_message: str | None
    run_ids: tuple[str, ...]
    seed: int
    code_version: str
    progress: dict[str, Any] | None
    series: tuple[JobSeries, ...]


def create(
    database: Database,
    *,
    strategy_name: str,
    config: Mapping[str, Any],
    series: Iterable[SeriesKey],
    seed: int,
    code_version: str,
    user_id: str,
    job_id: UUID | None = None,
) -> UUID:
    """Create a pending job that covers ``series`` and return its id.

    With a ``job_id`` that exists already the job stays as it is, and those of ``series`` that it lacks are added.
    ``config`` is the whole training configuration; of ``user_id`` the first 50 characters are kept.

    Raises
    ------
    InvalidInputError
        If there are no series, or ``config`` is not plain JSON.
    """
    identity = job_id or uuid4()
    covered = list(series)
    database.run(
        lambda connection: insert(
            connection,
            job_id=identity,
            strategy_name=strategy_name,
            config=config,
            series=covered,
            seed=seed,
            code_version=code_version,
            user_id=user_id,
        )
    )
    return identity


def insert(
    connection: Connection,
    *,
    job_id: UUID,
    strategy_name: str,
    config: Mapping[str, Any],
    series: Sequence[SeriesKey],
    seed: int,
    code_version: str,
    user_id: str,
) -> None:
    """Create a job as ``create`` does, in the caller's transaction."""
    if not series:
        raise InvalidInputError("A training job needs at least one series, found none.")
    values = {
        "id": job_id,
        "user_id": storable_text(user_id)[:_USER_ID_LENGTH],
        "strategy_name": strategy_name,
        "config": jsonb(config, "The training configuration"),
        "seed": seed,
        "code_version": code_version,
    }
    connection.execute(_INSERT_JOB, values)
    _lock(connection, job_id)
    for key in series:
        connection.execute(_INSERT_SERIES, {**_names(job_id, key), "strategy_name": strategy_name})
    connection.execute(_SUM_UP, {"job_id": job_id})


def start_series(database: Database, job_id: UUID, series: SeriesKey, *, run_id: str) -> None:
    """Claim ``series`` for the run ``run_id`` and mark it running; a retry starts it over. Claiming twice is harmless.

    Runs that worked on the same strategy and series before, for whatever job, have lost it.

    Raises
    ------
    InvalidInputError
        If there is no such job, or it does not cover ``series``.
    DatabaseError
        If the series was cancelled, the run counts as failed, or a newer run has taken the series over.
    """

    def start(connection: Connection) -> None:
        connection.execute(_LOCK_CLAIM, _names(job_id, series))
        _lock(connection, job_id)
        state = _state(connection, job_id, series)
        if state.status == "cancelled":
            raise DatabaseError(f"{series} of training job {job_id} was cancelled. Start a new training.")
        has_failed = (state.status, state.run_id) == ("failed", run_id)
        if has_failed or run_id in state.former or (state.run_id == run_id and state.newer is not None):
            raise _taken_over(job_id, series, run_id, state)
        if not state.belongs_to(run_id):
            connection.execute(_CLAIM, {**_names(job_id, series), "run_id": run_id})
            connection.execute(
                "UPDATE training_jobs SET run_ids = run_ids || %(run_id)s::text"
                " WHERE id = %(job_id)s AND NOT %(run_id)s = ANY(run_ids)",
                {"run_id": run_id, "job_id": job_id},
            )
            connection.execute(_SUM_UP, {"job_id": job_id})

    database.run(start)


def report_progress(
    database: Database,
    job_id: UUID,
    series: SeriesKey,
    *,
    run_id: str,
    progress: Progress | None = None,
    total_combinations: int | None = None,
    completed_combinations: int | None = None,
    failed_combinations: int | None = None,
    best_net_profit: float | None = None,
    data_fingerprint: str | None = None,
) -> bool:
    """Record how far ``series`` is; what is None stays as it was, and so does a best profit that is not finite.

    Returns
    -------
    bool
        False when the run should stop, because the series was cancelled or another run has taken it over.
    """
    document = None
    if progress is not None:
        document = jsonb({**asdict(progress), "best": finite_or_none(progress.best)}, "The progress")
    values = {
        **_names(job_id, series),
        "progress": document,
        "total": total_combinations,
        "completed": completed_combinations,
        "failed": failed_combinations,
        "best": finite_or_none(best_net_profit),
        "fingerprint": data_fingerprint,
    }

    def report(connection: Connection) -> bool:
        _lock(connection, job_id)
        if not _state(connection, job_id, series).belongs_to(run_id):
            return False
        connection.execute(_REPORT, values)
        if document is not None:
            connection.execute(
                "UPDATE training_jobs SET progress = %(progress)s || jsonb_build_object('series', %(key)s::text)"
                " WHERE id = %(job_id)s",
                {"progress": document, "key": str(series), "job_id": job_id},
            )
        connection.execute(_SUM_UP, {"job_id": job_id})
        return True

    return database.run(report)


def finish_series(
    connection: Connection,
    job_id: UUID,
    series: SeriesKey,
    *,
    run_id: str,
    status: Literal["completed", "failed", "cancelled"],
    error_message: str | None = None,
) -> None:
    """Mark ``series`` as ended, in the caller's transaction: store the configuration before it in the same one.

    Ending it again the same way changes nothing. A failure or cancellation that comes after the end, or from a run
    that no longer works on the series, is ignored; a completion is not.

    Raises
    ------
    InvalidInputError
        If there is no such job, or it does not cover ``series``.
    DatabaseError
        If a completion comes for a series that was cancelled or has been taken over: its result must not be stored.
    """
    _lock(connection, job_id)
    state = _state(connection, job_id, series)
    if (state.status, state.run_id) == (status, run_id):
        return
    if status == "completed" and not state.belongs_to(run_id):
        if state.status == "cancelled":
            raise DatabaseError(f"{series} of training job {job_id} was cancelled: its result is not stored.")
        raise _taken_over(job_id, series, run_id, state)
    if state.status == "pending" or (state.status, state.run_id) == ("running", run_id):
        error = None if error_message is None else storable_text(error_message)
        connection.execute(_FINISH, {**_names(job_id, series), "status": status, "error": error})
        connection.execute(_SUM_UP, {"job_id": job_id})


def while_claimed(
    database: Database, job_id: UUID, series: SeriesKey, work: Callable[[], None], *, run_id: str
) -> None:
    """Do ``work`` while ``series`` belongs to the run ``run_id``; who claims it next waits until it is done.

    For what becomes visible to others, such as a file that takes its place. ``work`` may be done twice.

    Raises
    ------
    DatabaseError
        If the series no longer belongs to the run; ``work`` is not done.
    """

    def check_and_work(connection: Connection) -> None:
        connection.execute(_LOCK_CLAIM, _names(job_id, series))
        state = _state(connection, job_id, series)
        if not state.belongs_to(run_id):
            raise _taken_over(job_id, series, run_id, state)
        work()

    database.run(check_and_work)


def cancel_job(database: Database, job_id: UUID) -> None:
    """Mark every series of the job that has not ended as cancelled; runs learn of it when they report progress."""

    def cancel(connection: Connection) -> None:
        _lock(connection, job_id)
        _end_open(connection, job_id, "cancelled", None, None)

    database.run(cancel)


def running_run_ids(database: Database) -> list[str]:
    """Return the runs that claim to be working on a series: those that are gone are for ``mark_interrupted``."""
    query = "SELECT DISTINCT run_id FROM training_job_series WHERE status = 'running' ORDER BY run_id"
    return [row[0] for row in database.run(lambda connection: connection.execute(query).fetchall())]


def mark_interrupted(
    database: Database, reason: str, *, run_ids: Collection[str] = (), job_ids: Collection[UUID] = ()
) -> list[UUID]:
    """Mark what a killed process left open as failed, and return the jobs concerned.

    ``run_ids`` names runs that are gone: the series that they worked on have failed. ``job_ids`` names jobs whose
    process is gone: all their open series have, those that never started among them.
    """

    def mark(connection: Connection) -> list[UUID]:
        rows = connection.execute(
            "SELECT DISTINCT training_job_id FROM training_job_series"
            " WHERE status IN ('pending', 'running') AND (run_id = ANY(%s) OR training_job_id = ANY(%s)) ORDER BY 1",
            (list(run_ids), list(job_ids)),
        ).fetchall()
        found = [row[0] for row in rows]
        for job_id in found:
            _lock(connection, job_id)
            _end_open(connection, job_id, "failed", storable_text(reason), None if job_id in job_ids else run_ids)
        return found

    return database.run(mark)


def get(database: Database, job_id: UUID) -> TrainingJob:
    """Return a job.

    Raises
    ------
    InvalidInputError
        If there is none with this id.
    """
    found = _select(database, "WHERE id = %(job_id)s", {"job_id": job_id})
    if not found:
        raise _unknown(job_id)
    return found[0]


def list_jobs(database: Database, *, limit: int = 20, status: str | None = None) -> list[TrainingJob]:
    """Return up to ``limit`` jobs, the latest first; those in ``status`` alone if it is given.

    Raises
    ------
    InvalidInputError
        If there is no such status.
    """
    if status is not None and status not in STATUSES:
        raise one_of("status", status, STATUSES)
    return _select(
        database,
        "WHERE %(status)s::text IS NULL OR status = %(status)s ORDER BY created_at DESC, id LIMIT %(limit)s",
        {"status": status, "limit": limit},
    )


def _names(job_id: UUID, series: SeriesKey) -> dict[str, Any]:
    return {
        "job_id": job_id,
        "exchange": series.exchange,
        "pair": series.pair,
        "timeframe": str(series.timeframe),
    }


def _lock(connection: Connection, job_id: UUID) -> None:
    """Let one transaction at a time change a job. Every change takes this lock first, so that none wait in a circle."""
    if connection.execute("SELECT FROM training_jobs WHERE id = %s FOR UPDATE", (job_id,)).rowcount == 0:
        raise _unknown(job_id)


@dataclass(frozen=True, slots=True)
class _State:
    """Who has a series of a job: its run, the runs before it, and a run of whatever job that claimed it later."""

    status: Status
    run_id: str | None
    former: list[str]
    newer: str | None

    def belongs_to(self, run_id: str) -> bool:
        return (self.status, self.run_id, self.newer) == ("running", run_id, None)


def _state(connection: Connection, job_id: UUID, series: SeriesKey) -> _State:
    row = connection.execute(_STATE, _names(job_id, series)).fetchone()
    if row is None:
        raise InvalidInputError(f"Training job {job_id} does not cover {series}.")
    return _State(*row)


def _end_open(
    connection: Connection, job_id: UUID, status: Status, error: str | None, run_ids: Collection[str] | None
) -> None:
    runs = None if run_ids is None else list(run_ids)
    connection.execute(_END_OPEN, {"job_id": job_id, "status": status, "error": error, "run_ids": runs})
    connection.execute(_SUM_UP, {"job_id": job_id})


def _select(database: Database, condition: str, values: Mapping[str, Any]) -> list[TrainingJob]:
    from psycopg.rows import dict_row

    def select(connection: Connection) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
        cursor = connection.cursor(row_factory=dict_row)
        jobs = cursor.execute(f"SELECT {_JOB_COLUMNS} FROM training_jobs {condition}", values).fetchall()  # noqa: S608
        series = cursor.execute(
            f"SELECT {_SERIES_COLUMNS} FROM training_job_series WHERE training_job_id = ANY(%s)"  # noqa: S608
            " ORDER BY exchange, pair, timeframe",
            ([job["id"] for job in jobs],),
        ).fetchall()
        return jobs, series

    jobs, rows = database.run(select)
    series: dict[UUID, list[JobSeries]] = {job["id"]: [] for job in jobs}
    for row in rows:
        key = SeriesKey.of(row.pop("exchange"), row.pop("pair"), row.pop("timeframe"))
        series[row.pop("training_job_id")].append(JobSeries(series=key, **row))
    return [TrainingJob(**{**job, "run_ids": tuple(job["run_ids"])}, series=tuple(series[job["id"]])) for job in jobs]


def _unknown(job_id: UUID) -> InvalidInputError:
    return InvalidInputError(f"There is no training job {job_id}. 'tradepulse jobs' lists them.")


def _taken_over(job_id: UUID, series: SeriesKey, run_id: str, state: _State) -> DatabaseError:
    other = state.newer or state.run_id
    why = f"run {other} does" if other not in (None, run_id) else "it counts as ended"
    return DatabaseError(
        f"Run {run_id} no longer works on {series} of training job {job_id}: {why}. Its result is not stored."
    )
