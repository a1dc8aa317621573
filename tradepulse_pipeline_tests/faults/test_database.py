"""A database that restarts, dies, cuts connections, loses replies or has no room: each row once, and a clear error."""

from __future__ import annotations

import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import closing, suppress
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import numpy as np
import psycopg
import pytest

from tradepulse_pipeline.database.candles import coverage, load_candles, store_candles
from tradepulse_pipeline.database.connection import Database
from tradepulse_pipeline.database.migrations import MIGRATIONS, migrate
from tradepulse_pipeline.database.server import database_url
from tradepulse_pipeline.errors import DatabaseError
from tradepulse_pipeline.market.candles import Candles
from tradepulse_pipeline_tests.faults.conftest import SERIES

MIGRATE_AND_DIE = """
import itertools, os, signal, sys
import psycopg
from tradepulse_pipeline.database.connection import Database
from tradepulse_pipeline.database.migrations import migrate

commit, commits = psycopg.Connection.commit, itertools.count(1)

def commit_or_die(connection):
    if next(commits) == kill_at:
        os.kill(os.getpid(), signal.SIGKILL)
    commit(connection)

psycopg.Connection.commit = commit_or_die
for kill_at in map(int, sys.argv[2:]):
    if (child := os.fork()) == 0:
        migrate(Database(sys.argv[1]))
        os._exit(0)
    os.waitpid(child, 0)
"""


class BadLine:
    """A Unix socket between us and PostgreSQL that dawdles, cuts connections and loses replies to COMMIT."""

    def __init__(self, folder: Path, server_url: str, seed: int) -> None:
        parts = urlsplit(server_url)
        self._target = f"{parse_qs(parts.query)['host'][0]}/.s.PGSQL.5432"
        self.url = f"postgresql://postgres@{parts.path}?host={folder}&port=5432"
        self.n_lost, self.n_cut = 0, 0
        self._random = random.Random(seed)
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(folder / ".s.PGSQL.5432"))
        self._listener.listen()
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            server = socket.socket(socket.AF_UNIX)
            server.connect(self._target)
            is_lost = threading.Event()
            for source, target, wants in ((client, server, self._wants_to_cut), (server, client, None)):
                threading.Thread(target=self._pass_on, args=(source, target, is_lost, wants), daemon=True).start()

    def _wants_to_cut(self, data: bytes, is_lost: threading.Event) -> bool:
        chance = self._random.random()
        if b"COMMIT" in data and chance < 0.2:
            self.n_lost += 1
            is_lost.set()
        elif chance < 0.01:
            self.n_cut += 1
            return True
        elif chance < 0.05:
            time.sleep(0.02)
        return False

    def _pass_on(self, source, target, is_lost, wants_to_cut) -> None:
        with suppress(OSError):
            while data := source.recv(65536):
                if wants_to_cut is None and is_lost.is_set():
                    break
                if wants_to_cut is not None and wants_to_cut(data, is_lost):
                    break
                target.sendall(data)
        for end in (source, target):
            with closing(end), suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)


def test_a_training_over_a_bad_line_has_the_result_of_one_over_a_good_line(train, unharmed, result_of, database):
    whole = unharmed()
    counts = "SELECT (SELECT count(*) FROM trained_configurations), (SELECT count(*) FROM searches),"
    counts += " (SELECT count(*) FROM lifecycle_transitions), (SELECT count(*) FROM training_jobs)"

    def count():
        return np.array(database.run(lambda connection: connection.execute(counts).fetchone()))

    before = count()
    with tempfile.TemporaryDirectory() as folder, closing(BadLine(Path(folder), database.url, seed=1)) as line:
        outcome = train(env={"TRADEPULSE_DATABASE_URL": line.url}).result()
        assert outcome["success"], outcome["errors"]
        assert line.n_lost >= 3
        assert line.n_cut >= 1
    assert result_of() == whole
    assert (count() - before).tolist() == [1, 1, 1, 1]


def test_a_training_goes_on_after_the_server_was_killed_and_started_again(
    train, unharmed, result_of, project_dir, database
):
    whole = unharmed()
    child = train(pause_at="optimization_results")
    child.wait_until_stopped()
    pgdata = (project_dir / ".tradepulse" / "pgdata").resolve()
    os.kill(int((pgdata / "postmaster.pid").read_text().split()[0]), signal.SIGKILL)
    child.go_on()
    time.sleep(1)
    assert database_url(project_dir / ".tradepulse", None) == database.url
    outcome = child.result()
    assert outcome["success"], outcome["errors"]
    assert result_of() == whole


@pytest.fixture
def fresh(database):
    with psycopg.connect(database.url, autocommit=True) as connection:
        connection.execute("CREATE DATABASE fresh")
        with Database(database.url.replace("/postgres?", "/fresh?")) as fresh:
            yield fresh
        connection.execute("DROP DATABASE fresh WITH (FORCE)")


def test_every_migration_can_be_killed_before_its_end(fresh, database):
    names = [path.name for path in sorted(MIGRATIONS.glob("*.sql"))]
    # Two commits make the connection and the schemas; each child commits one migration, and dies at the next one.
    done = subprocess.run(
        [sys.executable, "-c", MIGRATE_AND_DIE, fresh.url, *["4"] * len(names)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    applied = fresh.run(lambda connection: connection.execute("SELECT name FROM schema_migrations").fetchall())
    assert len(applied) > 0
    assert migrate(fresh) == names[len(applied) :]
    columns = "SELECT table_name, column_name, data_type FROM information_schema.columns WHERE table_schema"
    columns += " = 'tradepulse' ORDER BY 1, 2"
    made, expected = (one.run(lambda connection: connection.execute(columns).fetchall()) for one in (fresh, database))
    assert made == expected


@pytest.fixture
def small_disk(database, project_dir):
    """A database on a disk of 24 MiB."""
    pgdata = (project_dir / ".tradepulse" / "pgdata").resolve()
    with tempfile.TemporaryDirectory(dir=pgdata.parent) as folder:
        owner = pgdata.stat()
        options = f"size=24m,uid={owner.st_uid},gid={owner.st_gid},mode=0700"
        mounted = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", options, "none", folder], capture_output=True, text=True
        )
        if mounted.returncode != 0:
            pytest.skip(f"a small disk cannot be mounted: {mounted.stderr.strip()}")
        try:
            with psycopg.connect(database.url, autocommit=True) as connection:
                connection.execute(f"CREATE TABLESPACE small LOCATION '{folder}'".encode())
                connection.execute("CREATE DATABASE on_small TABLESPACE small")
                with Database(database.url.replace("/postgres?", "/on_small?")) as small:
                    migrate(small)
                    yield small, folder
                connection.execute("DROP DATABASE on_small WITH (FORCE)")
                connection.execute("DROP TABLESPACE small")
        finally:
            subprocess.run(["umount", folder], check=True)


def test_a_full_disk_is_a_clear_error_and_what_was_committed_stays(small_disk):
    small, folder = small_disk
    page = 20_000
    ones = np.ones(page)

    def store(first, last):
        for number in range(first, last):
            opened = (np.arange(page) + number * page) * 300_000
            store_candles(small, SERIES, Candles.from_arrays(SERIES.timeframe, opened, *[ones] * 5), "file")

    with pytest.raises(DatabaseError, match=r"no room left: could not .*What was committed is intact.*Free disk space"):
        store(0, 50)
    (covered,) = coverage(small)
    n_stored, rest = divmod(covered.n_candles, page)
    assert (n_stored >= 1, rest) == (True, 0)
    assert len(load_candles(small, SERIES)) == covered.n_candles
    subprocess.run(["mount", "-o", "remount,size=96m", folder], check=True)
    store(n_stored, n_stored + 1)
    assert coverage(small)[0].n_candles == (n_stored + 1) * page
