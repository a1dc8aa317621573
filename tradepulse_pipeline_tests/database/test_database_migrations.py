from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import psycopg
import pytest

from tradepulse_pipeline.database.connection import Database
from tradepulse_pipeline.database.migrations import MIGRATIONS, ensure_schemas, migrate
from tradepulse_pipeline.errors import DatabaseError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Migrations of which the second one builds on the first."""
    (tmp_path / "001_first.sql").write_text("CREATE TABLE first (n int); INSERT INTO first VALUES (1);")
    (tmp_path / "002_second.sql").write_text("ALTER TABLE first ADD COLUMN m int; CREATE TABLE second (n int);")
    return tmp_path


def tables(database: Database) -> list[str]:
    query = "SELECT table_name::text FROM information_schema.tables WHERE table_schema = 'tradepulse' ORDER BY 1"
    return [row[0] for row in database.run(lambda connection: connection.execute(query).fetchall())]


def test_the_projects_migrations_make_the_tables_and_running_them_again_changes_nothing(fresh: Database) -> None:
    assert migrate(fresh) == [path.name for path in sorted(MIGRATIONS.glob("*.sql"))]
    assert tables(fresh) == [
        "lifecycle_transitions",
        "market_data",
        "market_data_quarantine",
        "market_data_revisions",
        "schema_migrations",
        "searches",
        "trained_configurations",
        "training_job_series",
        "training_jobs",
        "trials",
    ]
    assert migrate(fresh) == []


def test_the_schemas_of_both_tenants_exist(fresh: Database) -> None:
    ensure_schemas(fresh)
    ensure_schemas(fresh)
    query = "SELECT nspname FROM pg_namespace WHERE nspname IN ('tradepulse', 'dagster') ORDER BY 1"
    assert fresh.run(lambda connection: connection.execute(query).fetchall()) == [("dagster",), ("tradepulse",)]


def test_only_what_is_new_is_applied(fresh: Database, folder: Path) -> None:
    assert migrate(fresh, folder) == ["001_first.sql", "002_second.sql"]
    (folder / "003_third.sql").write_text("CREATE TABLE third (n int)")
    assert migrate(fresh, folder) == ["003_third.sql"]
    assert tables(fresh) == ["first", "schema_migrations", "second", "third"]


def test_a_changed_file_is_an_error(fresh: Database, folder: Path) -> None:
    migrate(fresh, folder)
    (folder / "001_first.sql").write_text("CREATE TABLE first (n bigint)")
    with pytest.raises(DatabaseError, match=r"001_first\.sql was applied to this database and has changed since"):
        migrate(fresh, folder)


def test_a_missing_file_is_an_error(fresh: Database, folder: Path) -> None:
    migrate(fresh, folder)
    (folder / "001_first.sql").unlink()
    with pytest.raises(DatabaseError, match=r"001_first\.sql was applied to this database and is missing"):
        migrate(fresh, folder)


def test_a_file_that_comes_too_late_is_an_error(fresh: Database, folder: Path) -> None:
    migrate(fresh, folder)
    (folder / "001_z.sql").write_text("CREATE TABLE z (n int)")
    with pytest.raises(DatabaseError, match=r"001_z\.sql comes before 002_second\.sql"):
        migrate(fresh, folder)


def test_a_file_that_fails_leaves_nothing_and_is_named(fresh: Database, folder: Path) -> None:
    (folder / "002_second.sql").write_text("CREATE TABLE second (n int); SELECT 1 / 0;")
    with pytest.raises(DatabaseError, match=r"002_second\.sql failed, nothing of it was kept: division by zero"):
        migrate(fresh, folder)
    assert tables(fresh) == ["first", "schema_migrations"]
    (folder / "002_second.sql").write_text("CREATE TABLE second (n int)")
    assert migrate(fresh, folder) == ["002_second.sql"]


def test_a_folder_without_migrations_is_an_error(fresh: Database, tmp_path: Path) -> None:
    with pytest.raises(DatabaseError, match=r"No migrations in .*--editable"):
        migrate(fresh, tmp_path / "nowhere")


def test_several_migrators_at_once_apply_each_file_once(fresh: Database, folder: Path) -> None:
    applied: list[str] = []

    def work() -> None:
        with Database(fresh.url) as database:
            applied.extend(migrate(database, folder))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert sorted(applied) == ["001_first.sql", "002_second.sql"]


def test_a_migrator_that_was_killed_half_way_is_followed_cleanly(fresh: Database, folder: Path) -> None:
    (folder / "002_second.sql").write_text(
        "CREATE TABLE second (n int); SELECT pg_sleep(1); CREATE TABLE late (n int);"
    )
    script = (
        "import sys, pathlib; from tradepulse_pipeline.database.connection import Database; "
        "from tradepulse_pipeline.database.migrations import migrate; "
        "migrate(Database(sys.argv[1]), pathlib.Path(sys.argv[2]))"
    )
    process = subprocess.Popen([sys.executable, "-c", script, fresh.url, str(folder)])
    with psycopg.connect(fresh.url, autocommit=True) as watcher:
        query = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep' AND datname = current_database()"
        deadline = time.monotonic() + 30
        while watcher.execute(query).fetchone() == (0,):
            assert time.monotonic() < deadline
    os.kill(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert migrate(fresh, folder) == ["002_second.sql"]
    assert tables(fresh) == ["first", "late", "schema_migrations", "second"]


def test_every_table_says_what_it_is_for(fresh: Database) -> None:
    migrate(fresh)
    query = (
        "SELECT relname::text FROM pg_class WHERE relnamespace = 'tradepulse'::regnamespace AND relkind = 'r'"
        " AND relname <> 'schema_migrations' AND obj_description(oid) IS NULL"
    )
    assert fresh.run(lambda connection: connection.execute(query).fetchall()) == []
