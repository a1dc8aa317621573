from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from datetime import UTC, datetime
from pathlib import Path

import psycopg
import pytest

from tradepulse_pipeline.database.configurations import list_configurations
from tradepulse_pipeline.database.connection import Database
from tradepulse_pipeline.database.migrations import MIGRATIONS, ensure_schemas, migrate
from tradepulse_pipeline.database.quarantine import quarantined, set_aside
from tradepulse_pipeline.errors import DatabaseError
from tradepulse_pipeline.market.series import SeriesKey


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
        "absent_candles",
        "corporate_action_revisions",
        "corporate_actions",
        "lifecycle_transitions",
        "market_data",
        "market_data_confirmed",
        "market_data_quarantine",
        "market_data_revisions",
        "monitoring_reports",
        "paper_trades",
        "request_turns",
        "schema_migrations",
        "searches",
        "source_deviations",
        "trained_configurations",
        "training_job_series",
        "training_jobs",
        "trials",
    ]
    assert migrate(fresh) == []


def test_candles_and_decisions_from_before_the_quarantine_grew_are_kept(fresh: Database, tmp_path: Path) -> None:
    for path in sorted(MIGRATIONS.glob("*.sql"))[:6]:
        shutil.copy(path, tmp_path)
    migrate(fresh, tmp_path)
    rows = """
        INSERT INTO market_data (exchange, pair, timeframe, "timestamp", open, high, low, close, volume, source)
        VALUES ('binance', 'BTC/USDT', '5m', '2024-01-01Z', 2, 3, 1, 2, 0, 'file');
        INSERT INTO market_data_quarantine (exchange, pair, timeframe, source, row_number, raw, reason, released_at)
        VALUES ('binance', 'BTC/USDT', '5m', 'file', 0, '{"timestamp": 1704067200000}', 'odd', '2024-02-01Z'),
               ('binance', 'BTC/USDT', '5m', 'file', 1, '{}', 'odd', NULL);
        INSERT INTO training_jobs (id, user_id, strategy_name, config, seed, code_version)
        VALUES ('00000000-0000-4000-8000-000000000001', 'ada', 'S', '{}', 0, '1');
        INSERT INTO trained_configurations (training_job_id, strategy_name, exchange, pair, timeframe, version,
            lifecycle_stage, is_simulated, parameters, in_sample_metrics, out_of_sample_metrics, windows, template,
            data_fingerprint, data_start, data_end, code_version, engine_hash, dependency_versions, seed, optimizer,
            settings, n_trials, run_id)
        VALUES ('00000000-0000-4000-8000-000000000001', 'S', 'binance', 'BTC/USDT', '5m', 1, 'PAPER', false, '{}',
            '{}', '{}', '[]', '{}', 'f00', '2024-01-01Z', '2024-01-02Z', '1', 'e', '{}', 0, 'random', '{}', 1, 'r')
    """
    fresh.run(lambda connection: connection.execute(rows.encode()))
    later = ["007_stale_configurations.sql", "008_equities.sql", "009_evidence.sql", "010_monitoring.sql"]
    assert migrate(fresh) == later
    dismissed, waiting = quarantined(fresh, include_decided=True)
    assert (dismissed.decision, dismissed.decided_at) == ("dismissed", datetime(2024, 2, 1, tzinfo=UTC))
    assert dismissed.open_time_ms == 1_704_067_200_000
    assert (waiting.decision, waiting.is_set_aside) == (None, False)
    (configuration,) = list_configurations(fresh)
    assert (configuration.data_warnings, configuration.stale_at, configuration.stale_candles) == ([], None, 0)
    assert set_aside(fresh, SeriesKey.parse("binance:BTC-USDT:5m"), 1_704_067_200_000, "wrong") == 1


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
