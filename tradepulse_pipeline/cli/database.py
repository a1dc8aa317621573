"""The database as commands meet it: opened, migrated, and without jobs that only seem to run."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from tradepulse_pipeline.cli.interrupted import mark_interrupted_jobs
from tradepulse_pipeline.errors import InvalidInputError, one_of
from tradepulse_pipeline.settings import Settings

if TYPE_CHECKING:
    from tradepulse_pipeline.database.connection import Database
    from tradepulse_pipeline.market.candles import Candles
    from tradepulse_pipeline.market.series import SeriesKey


def _quiet(part: str, what: str) -> None:
    """Say nothing about a part that is ready."""


@contextmanager
def open_database(settings: Settings, report: Callable[[str, str], None] = _quiet) -> Iterator[Database]:
    """Yield the project's database with its tables up to date; the embedded server is started where needed.

    Jobs that a killed process left 'running' are marked first.

    ``report`` is told about each part as it becomes ready.
    """
    from tradepulse_pipeline.database.connection import Database, redacted
    from tradepulse_pipeline.database.migrations import migrate
    from tradepulse_pipeline.database.server import database_url

    given = settings.database_url.get_secret_value() if settings.database_url else None
    with Database(database_url(settings.data_dir, given)) as database:
        applied = migrate(database)
        report("PostgreSQL", redacted(given) if given else f"embedded, data in {settings.data_dir / 'pgdata'}")
        report("Migrations", f"applied {', '.join(applied)}" if applied else "up to date")
        mark_interrupted_jobs(settings, database)
        yield database


def stored_candles(database: Database, series: SeriesKey) -> Candles:
    """Return the stored candles of a series.

    Raises
    ------
    InvalidInputError
        If there are none; the message names the nearest series that there are.
    """
    from tradepulse_pipeline.database.candles import coverage
    from tradepulse_pipeline.database.corporate_actions import candles_for_training

    candles = candles_for_training(database, series)
    if len(candles):
        return candles
    stored = [str(one.series) for one in coverage(database)]
    if not stored:
        raise InvalidInputError(f"No candles of {series} are stored, nor any others. 'tradepulse import' stores some.")
    raise one_of("series", series, stored, where="the database")
