from __future__ import annotations

import os
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import numpy as np
import psycopg
import pytest

from tradepulse_pipeline.database import training_jobs
from tradepulse_pipeline.database.candles import coverage_of, load_candles, store_candles
from tradepulse_pipeline.database.connection import Database, finite_or_none, jsonb, redacted
from tradepulse_pipeline.database.quarantine import quarantined, release, set_aside
from tradepulse_pipeline.database.server import database_url, stop_embedded
from tradepulse_pipeline.errors import DatabaseError, InvalidInputError
from tradepulse_pipeline.market.candles import Candles
from tradepulse_pipeline.market.series import SeriesKey

SERIES = SeriesKey.parse("binance:BTC-USDT:5m")


def cut(connection: psycopg.Connection[Any]) -> None:
    """End the connection from the server's side, and notice."""
    connection.execute("SELECT pg_terminate_backend(pg_backend_pid())")


class Proxy:
    """A server on a Unix socket that passes everything on, but swallows the reply to the first COMMIT."""

    def __init__(self, folder: Path, server_url: str) -> None:
        parts = urlsplit(server_url)
        self._target = f"{parse_qs(parts.query)['host'][0]}/.s.PGSQL.5432"
        self.url = f"postgresql://postgres@{parts.path}?host={folder}&port=5432"
        self.swallowed = 0
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
            has_committed = threading.Event()
            for source, target in ((client, server), (server, client)):
                arguments = (source, target, has_committed, source is client)
                threading.Thread(target=self._pass_on, args=arguments, daemon=True).start()

    def _pass_on(
        self, source: socket.socket, target: socket.socket, has_committed: threading.Event, is_from_client: bool
    ) -> None:
        try:
            while data := source.recv(65536):
                if is_from_client and b"COMMIT" in data and not self.swallowed:
                    has_committed.set()
                elif not is_from_client and has_committed.is_set():
                    self.swallowed += 1
                    break
                target.sendall(data)
        except OSError:
            pass
        for end in (source, target):
            with closing(end), suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)


@contextmanager
def losing_a_commit(server_url: str) -> Iterator[tuple[Proxy, Database]]:
    with (
        tempfile.TemporaryDirectory() as folder,
        closing(Proxy(Path(folder), server_url)) as proxy,
        Database(proxy.url) as database,
    ):
        yield proxy, database


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://ada:s3cr%40t@127.0.0.1:1/trade",
        "postgresql://ada@127.0.0.1:1/trade?password=s3cr%40t",
        "postgresql://ada@no-such-host.invalid/trade?password=s3cr%40t",
    ],
)
def test_an_unreachable_database_is_named_without_its_password(url: str) -> None:
    with (
        Database(url, patience_seconds=0.2) as database,
        pytest.raises(
            DatabaseError, match=r"Cannot use the database postgresql://ada.*TRADEPULSE_DATABASE_URL"
        ) as caught,
        database.connection(),
    ):
        pass
    error: BaseException | None = caught.value
    while error is not None:
        assert "s3cr" not in str(error)
        error = error.__cause__


def test_a_database_that_does_not_exist_is_reported_at_once(server_url: str) -> None:
    with (
        Database(server_url.replace("/postgres?", "/nothing?")) as database,
        pytest.raises(DatabaseError, match='database "nothing" does not exist'),
    ):
        database.run(lambda connection: connection.execute("SELECT 1"))


def test_a_transaction_commits_at_the_end_and_rolls_back_on_an_error(fresh: Database) -> None:
    def count() -> Any:
        with fresh.connection() as connection:
            return connection.execute("SELECT count(*) FROM note").fetchone()

    with fresh.connection() as connection:
        connection.execute("CREATE TABLE note (text text)")
        connection.execute("INSERT INTO note VALUES (%s)", ("kept",))
    with pytest.raises(psycopg.errors.DivisionByZero), fresh.connection() as connection:
        connection.execute("INSERT INTO note VALUES ('dropped'); SELECT 1 / 0")
    assert count() == (1,)


def test_times_are_utc_whatever_the_hosts_zone(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PGTZ", "Asia/Kathmandu")
    with database.connection() as connection:
        row = connection.execute("SELECT '2024-03-01 05:00+05:45'::timestamptz, current_schema()").fetchone()
    assert row == (datetime(2024, 2, 29, 23, 15, tzinfo=UTC), "tradepulse")
    assert row[0].utcoffset().total_seconds() == 0


def test_a_cut_connection_is_replaced_and_the_work_repeated(database: Database) -> None:
    attempts = []

    def work(connection: psycopg.Connection[Any]) -> str:
        attempts.append(connection.info.backend_pid)
        if len(attempts) == 1:
            cut(connection)
        return "done"

    assert database.run(work) == "done"
    assert len(set(attempts)) == 2


def test_an_idle_connection_that_was_cut_is_not_handed_out(database: Database) -> None:
    with database.connection() as connection:
        first = connection.info.backend_pid
    with psycopg.connect(database.url, autocommit=True) as other:
        other.execute("SELECT pg_terminate_backend(%s, 5000)", (first,))
    with database.connection() as connection:
        assert connection.execute("SELECT 1").fetchone() == (1,)


def test_faults_that_do_not_pass_are_not_repeated(database: Database) -> None:
    attempts = []

    def fill_the_disk(connection: psycopg.Connection[Any]) -> None:
        attempts.append(1)
        connection.execute("DO $$ BEGIN RAISE 'could not extend file' USING ERRCODE = 'disk_full'; END $$")

    with pytest.raises(DatabaseError, match=r"no room left: could not extend file.*committed is intact"):
        database.run(fill_the_disk)
    assert len(attempts) == 1


def test_a_deadlock_is_resolved(fresh: Database) -> None:
    fresh.run(
        lambda connection: connection.execute("CREATE TABLE pair AS SELECT id, 0 AS n FROM (VALUES (1), (2)) v(id)")
    )
    barrier = threading.Barrier(2)

    def add(first: int, second: int) -> None:
        is_first_attempt = True

        def work(connection: psycopg.Connection[Any]) -> None:
            nonlocal is_first_attempt
            connection.execute("SET LOCAL deadlock_timeout = '50ms'")
            connection.execute("UPDATE pair SET n = n + 1 WHERE id = %s", (first,))
            if is_first_attempt:
                is_first_attempt = False
                barrier.wait(10)
            connection.execute("UPDATE pair SET n = n + 1 WHERE id = %s", (second,))

        fresh.run(work)

    threads = [threading.Thread(target=add, args=order) for order in ((1, 2), (2, 1))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    with fresh.connection() as connection:
        assert connection.execute("SELECT n FROM pair").fetchall() == [(2,), (2,)]


def test_a_restart_of_the_server_is_waited_for(rough_server_dir: Path) -> None:
    with Database(database_url(rough_server_dir, None)) as database:
        database.run(lambda connection: connection.execute("CREATE TABLE public.waiting (n int)"))
        stop_embedded(rough_server_dir)
        restart = threading.Timer(0.3, database_url, (rough_server_dir, None))
        restart.start()
        database.run(lambda connection: connection.execute("INSERT INTO public.waiting VALUES (1)"))
        assert database.run(lambda connection: connection.execute("TABLE public.waiting").fetchall()) == [(1,)]
        restart.join()


def test_a_server_that_stays_away_is_given_up_with_its_reason(rough_server_dir: Path) -> None:
    with Database(database_url(rough_server_dir, None), patience_seconds=0.5) as database:
        database.run(lambda connection: connection.execute("SELECT 1"))
        stop_embedded(rough_server_dir)
        with pytest.raises(DatabaseError, match=r"Cannot use the database.*(refused|No such file)"):
            database.run(lambda connection: connection.execute("SELECT 1"))


def test_a_lost_reply_to_commit_leaves_one_job(database: Database) -> None:
    with losing_a_commit(database.url) as (proxy, shaky):
        job_id = training_jobs.create(
            shaky, strategy_name="S", config={}, series=[SERIES], seed=0, code_version="1", user_id="ada"
        )
        assert proxy.swallowed == 1
    assert [job.id for job in training_jobs.list_jobs(database)] == [job_id]


def test_a_lost_reply_to_commit_leaves_each_candle_once(database: Database) -> None:
    prices = np.full(100, 2.0)
    candles = Candles.from_arrays(SERIES.timeframe, np.arange(100) * 300_000, *[prices] * 5)
    with losing_a_commit(database.url) as (proxy, shaky):
        store_candles(shaky, SERIES, candles, "file")
        assert proxy.swallowed == 1
    covered = coverage_of(database, SERIES)
    assert covered is not None
    assert covered.n_candles == 100
    with database.connection() as connection:
        assert connection.execute("SELECT count(*) FROM market_data_revisions").fetchone() == (0,)


def test_a_lost_reply_to_commit_sets_a_candle_aside_once(database: Database) -> None:
    prices = np.full(100, 2.0)
    candles = Candles.from_arrays(SERIES.timeframe, np.arange(100) * 300_000, *[prices] * 5)
    store_candles(database, SERIES, candles, "file")
    with losing_a_commit(database.url) as (proxy, shaky):
        set_aside(shaky, SERIES, 300_000, "wrong")
        assert proxy.swallowed == 1
    (row,) = quarantined(database)
    with losing_a_commit(database.url) as (proxy, shaky):
        release(shaky, row.id)
        assert proxy.swallowed == 1
    assert quarantined(database) == []
    assert load_candles(database, SERIES).fingerprint() == candles.fingerprint()
    with database.connection() as connection:
        assert connection.execute("SELECT count(*) FROM market_data_revisions").fetchone() == (0,)


def test_it_can_be_used_again_after_closing(database: Database) -> None:
    for _ in range(2):
        assert database.run(lambda connection: connection.execute("SELECT 1").fetchone()) == (1,)
        database.close()


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("postgresql://db/trade", "postgresql://db/trade"),
        ("postgresql://postgres@/postgres?host=/tmp/a@b", "postgresql://postgres@/postgres?host=/tmp/a@b"),
        ("postgresql://ada:x@db/t?PASSWORD=y&a=b", "postgresql://ada:***@db/t?PASSWORD=***&a=b"),
        ("postgres://ada:a/b?c@d:e@db:1/t", "postgres://ada:***@db:1/t"),
        ("host=db password=x user=ada", "host=db password=*** user=ada"),
    ],
)
def test_passwords_are_hidden_in_every_spelling(url: str, shown: str) -> None:
    assert redacted(url) == shown


def test_figures_that_are_undefined_become_null() -> None:
    values = (1, 0.5, None, float("nan"), float("inf"), -float("inf"))
    assert [finite_or_none(value) for value in values] == [1.0, 0.5, None, None, None, None]
    assert type(finite_or_none(np.float64(0.5))) is float


@pytest.mark.parametrize("value", [{"a": float("nan")}, [float("inf")], {"a": object()}, {"a": "\0"}])
def test_what_json_does_not_know_is_refused_by_name(value: object) -> None:
    with pytest.raises(InvalidInputError, match="The template cannot be stored"):
        jsonb(value, "The template")


def test_importing_the_database_loads_no_driver() -> None:
    modules = (
        "server",
        "connection",
        "migrations",
        "candles",
        "training_jobs",
        "configurations",
        "trials",
        "quarantine",
        "staleness",
        "pace",
    )
    imports = "; ".join(f"import tradepulse_pipeline.database.{name}" for name in modules)
    check = "import sys; print([m for m in ('psycopg', 'psycopg_pool', 'polars', 'dagster') if m in sys.modules])"
    environment = {**os.environ, "PYTHONWARNINGS": "error"}
    command = [sys.executable, "-c", f"{imports}; {check}"]
    assert subprocess.run(command, capture_output=True, text=True, check=True, env=environment).stdout == "[]\n"
