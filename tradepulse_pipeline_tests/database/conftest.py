"""A real PostgreSQL server of the tests' own, and a fresh database for every test that asks for one."""

from __future__ import annotations

import itertools
import shutil
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from tradepulse_pipeline.database.connection import Database
from tradepulse_pipeline.database.migrations import migrate
from tradepulse_pipeline.database.server import database_url, stop_embedded

TABLES = (
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
    "searches",
    "source_deviations",
    "trained_configurations",
    "training_job_series",
    "training_jobs",
    "trials",
)

_numbers = itertools.count(1)


def remove_server(data_dir: Path) -> None:
    """Stop a test's server and remove its data, wherever it lies."""
    stop_embedded(data_dir)
    place = data_dir / "pgdata"
    if place.is_symlink():
        shutil.rmtree(place.resolve().parent, ignore_errors=True)
    shutil.rmtree(data_dir)


@pytest.fixture
def unused_dir(tmp_path: Path) -> Iterator[Path]:
    """A data folder that is not there yet."""
    yield tmp_path / "data"
    remove_server(tmp_path / "data")


@pytest.fixture(scope="session")
def rough_server_dir(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The data folder of a server that tests may stop and kill: an awkward path, too long for a socket's address."""
    data_dir = tmp_path_factory.mktemp("rough") / ("a long näme, it's " * 7)
    data_dir.mkdir()
    yield data_dir
    remove_server(data_dir)


@pytest.fixture(scope="session")
def server_dir(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    data_dir = tmp_path_factory.mktemp("server")
    yield data_dir
    remove_server(data_dir)


@pytest.fixture(scope="session")
def server_url(server_dir: Path) -> str:
    url = database_url(server_dir, None)
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("ALTER SYSTEM SET fsync = off")  # nobody misses these databases after a power failure
        connection.execute("SELECT pg_reload_conf()")
    return url


@pytest.fixture
def fresh(server_url: str) -> Iterator[Database]:
    """A database in which nothing is."""
    name = f"fresh_{next(_numbers)}"
    with psycopg.connect(server_url, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}".encode())
        with Database(server_url.replace("/postgres?", f"/{name}?")) as database:
            yield database
        connection.execute(f"DROP DATABASE {name} WITH (FORCE)".encode())


@pytest.fixture(scope="session")
def migrated_url(server_url: str) -> str:
    with psycopg.connect(server_url, autocommit=True) as connection:
        connection.execute("CREATE DATABASE migrated")
    url = server_url.replace("/postgres?", "/migrated?")
    with Database(url) as database:
        migrate(database)
    return url


@pytest.fixture
def database(migrated_url: str) -> Iterator[Database]:
    """A database with all tables, and no row in them."""
    with psycopg.connect(migrated_url) as connection:
        connection.execute("SET session_replication_role = replica")  # the triggers that guard history do not fire
        connection.execute("; ".join(f"DELETE FROM tradepulse.{table}" for table in TABLES).encode())
    with Database(migrated_url, max_connections=16) as database:
        yield database
