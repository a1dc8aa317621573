"""Migrations: numbered SQL files, each applied once, in order, in one transaction with the record of it."""

from __future__ import annotations

from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Final

from tradepulse_pipeline.database.connection import DAGSTER_SCHEMA, DOMAIN_SCHEMA, Database
from tradepulse_pipeline.errors import DatabaseError

if TYPE_CHECKING:
    from tradepulse_pipeline.database.connection import Connection

#: The repository's own migrations; TradePulse is installed in place, so the package lies beside them.
MIGRATIONS: Final = Path(__file__).resolve().parents[2] / "sql" / "migrations"

#: Key of the advisory lock that one migrator at a time holds: the bytes of "tradepul".
_LOCK_KEY: Final = int.from_bytes(b"tradepul")


def ensure_schemas(database: Database) -> None:
    """Create the schemas of TradePulse's and Dagster's tables where they are missing."""
    database.run(_ensure_schemas)


def migrate(database: Database, folder: Path = MIGRATIONS) -> list[str]:
    """Apply the migrations in ``folder`` that the database has not seen, and return their names.

    Each is one transaction; several processes may migrate at once. After a kill the next call goes on where the last
    committed migration ended.

    Raises
    ------
    DatabaseError
        If a file that was applied is missing or has changed, if a new one sorts before an applied one, if a file
        fails, or if there are no files at all; the message names the file.
    """
    files = {path.name: path.read_text(encoding="utf-8") for path in sorted(folder.glob("*.sql"))}
    if not files:
        raise DatabaseError(
            f"No migrations in {folder}. They are part of the repository: install TradePulse from a clone of it with "
            "'pip install --editable .'."
        )
    database.run(_ensure_schemas)
    applied: list[str] = []
    while name := database.run(partial(_apply_next, files=files)):
        applied.append(name)
    return applied


def _ensure_schemas(connection: Connection) -> None:
    from psycopg import sql

    connection.execute("SELECT pg_advisory_xact_lock(%s)", (_LOCK_KEY,))
    for schema in (DOMAIN_SCHEMA, DAGSTER_SCHEMA):
        if connection.execute("SELECT to_regnamespace(%s)", (schema,)).fetchone() == (None,):
            connection.execute(sql.SQL("CREATE SCHEMA {}").format(sql.Identifier(schema)))


def _apply_next(connection: Connection, files: dict[str, str]) -> str | None:
    """Apply the first file that is due and return its name."""
    import psycopg

    connection.execute("SELECT pg_advisory_xact_lock(%s)", (_LOCK_KEY,))
    connection.execute(
        "CREATE TABLE IF NOT EXISTS schema_migrations"
        " (name text PRIMARY KEY, sha256 text NOT NULL, applied_at timestamptz NOT NULL DEFAULT now())"
    )
    digests = {name: sha256(text.encode()).hexdigest() for name, text in files.items()}
    rows = connection.execute("SELECT name, sha256 FROM schema_migrations ORDER BY name").fetchall()
    for name, digest in rows:
        if digests.get(name) != digest:
            fault = "is missing" if name not in files else "has changed since"
            raise DatabaseError(
                f"Migration {name} was applied to this database and {fault}. Restore the file as it was; changes go "
                "into a new migration."
            )
    due = next((name for name in files if name not in dict(rows)), None)
    if due is None:
        return None
    if rows and due < rows[-1][0]:
        raise DatabaseError(
            f"Migration {due} comes before {rows[-1][0]}, which was applied to this database. Give it the next number."
        )
    try:
        connection.execute(files[due].encode())
    except psycopg.OperationalError:
        raise
    except psycopg.Error as error:
        raise DatabaseError(f"Migration {due} failed, nothing of it was kept: {str(error).strip()}") from error
    connection.execute("INSERT INTO schema_migrations (name, sha256) VALUES (%s, %s)", (due, digests[due]))
    return due
