from __future__ import annotations

import os
import stat
import subprocess
import sys
import tempfile
from pathlib import Path

import psycopg
import pytest
import sqlalchemy
from psycopg.conninfo import conninfo_to_dict
from psycopg.pq import PGconn, Ping

from tradepulse_pipeline.database.server import database_url, sqlalchemy_url, stop_embedded
from tradepulse_pipeline.errors import DatabaseError, InvalidInputError

ASK = "import sys, pathlib; from tradepulse_pipeline.database.server import database_url as u; "
PRINT_SERVER = ASK + (
    "url = u(pathlib.Path(sys.argv[1]), None); import psycopg; "
    "connection = psycopg.connect(url); "
    "print(url, connection.execute('SELECT pg_postmaster_start_time()').fetchone()[0].isoformat()); connection.close()"
)


def is_up(url: str) -> bool:
    return bool(PGconn.ping(url.encode()) == Ping.OK)


def test_processes_that_start_at_once_share_one_server_which_ends_with_the_last(unused_dir: Path) -> None:
    command = [sys.executable, "-c", PRINT_SERVER, str(unused_dir)]
    with subprocess.Popen(command) as first:  # killed while it makes the data folder
        while not list((unused_dir / "pgdata").resolve().parent.glob("pgdata.new-*/PG_VERSION")):
            assert first.poll() is None
        first.kill()
    processes = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    outputs = [process.communicate(timeout=60)[0].split() for process in processes]
    assert [process.returncode for process in processes] == [0, 0, 0]
    urls = {output[0] for output in outputs}
    assert len(urls) == 1
    assert not is_up(urls.pop())


def test_a_server_that_was_killed_starts_again_with_its_data(rough_server_dir: Path) -> None:
    url = database_url(rough_server_dir, None)
    with psycopg.connect(url) as connection:
        connection.execute("CREATE TABLE kept AS SELECT 42 AS answer")
    pgdata = (rough_server_dir / "pgdata").resolve()
    os.kill(int((pgdata / "postmaster.pid").read_text().split()[0]), 9)
    while is_up(url):
        pass
    for name in ("postmaster.pid", ".s.PGSQL.5432.lock"):  # the dead server's number now belongs to another process
        lines = (pgdata / name).read_text().split("\n")
        (pgdata / name).write_text("\n".join([str(os.getpid()), *lines[1:]]))
    assert database_url(rough_server_dir, None) == url
    with psycopg.connect(url) as connection:
        assert connection.execute("SELECT answer FROM kept").fetchone() == (42,)


def test_a_server_that_does_not_start_shows_its_log(rough_server_dir: Path) -> None:
    database_url(rough_server_dir, None)
    stop_embedded(rough_server_dir)
    configuration = (rough_server_dir / "pgdata").resolve() / "postgresql.conf"
    good = configuration.read_text()
    configuration.write_text(good + "\nnonsense = 1\n")
    with pytest.raises(DatabaseError, match=r"did not start(.|\n)*\"nonsense\"(.|\n)*TRADEPULSE_DATABASE_URL"):
        database_url(rough_server_dir, None)
    configuration.write_text(good)


def test_a_folder_of_other_things_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "pgdata").mkdir()
    (tmp_path / "pgdata" / "thesis.txt").write_text("mine")
    with pytest.raises(DatabaseError, match="holds other things"):
        database_url(tmp_path, None)
    assert (tmp_path / "pgdata" / "thesis.txt").read_text() == "mine"


def test_stopping_where_nothing_runs_does_nothing(tmp_path: Path) -> None:
    stop_embedded(tmp_path / "nowhere")
    assert not (tmp_path / "nowhere").exists()


def test_others_cannot_enter_the_data_and_no_folder_is_opened_up(server_url: str, server_dir: Path) -> None:
    parents = [server_dir, *server_dir.parents]
    if os.geteuid() == 0:
        assert any(not parent.stat().st_mode & stat.S_IXOTH for parent in parents)  # pytest's own, private still
        assert (server_dir / "pgdata").is_symlink()
    pgdata = (server_dir / "pgdata").resolve()
    assert stat.S_IMODE(pgdata.stat().st_mode) == 0o700
    assert stat.S_IMODE((pgdata / ".s.PGSQL.5432").stat().st_mode) == 0o700
    with psycopg.connect(server_url) as connection:
        assert connection.execute("SHOW listen_addresses").fetchone() == ("",)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_another_user_starts_a_server_beside_roots(server_url: str) -> None:
    nobody = {"user": 65534, "group": 65534, "extra_groups": ()}
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o777)
        command = [sys.executable, "-c", PRINT_SERVER, f"{name}/data"]
        try:
            subprocess.run([sys.executable, "-c", ASK], **nobody, cwd="/", check=True, capture_output=True)  # type: ignore[call-overload]
        except (PermissionError, subprocess.CalledProcessError):
            pytest.skip("the interpreter lies where no other user can reach it")
        done = subprocess.run(command, **nobody, cwd="/", capture_output=True, text=True, check=True)  # type: ignore[call-overload]
        assert not is_up(done.stdout.split()[0])
        assert (Path(name) / "data" / "pgdata").stat().st_uid == 65534
        assert is_up(server_url)


@pytest.mark.parametrize(
    ("given", "normalized"),
    [
        ("postgres://ada:x@db:5433/trade", "postgresql://ada:x@db:5433/trade"),
        (" postgresql+psycopg2://db/trade?sslmode=require ", "postgresql://db/trade?sslmode=require"),
    ],
)
def test_a_given_url_is_normalized(given: str, normalized: str, tmp_path: Path) -> None:
    assert database_url(tmp_path / "unused", given) == normalized
    assert not (tmp_path / "unused").exists()


@pytest.mark.parametrize("url", ["mysql://ada:s3cret@db/x", "s3cret", "postgresql://ada:s3@cret@db:port/x?y=1"])
def test_a_bad_url_is_refused_without_its_password(url: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match="TRADEPULSE_DATABASE_URL") as caught:
        database_url(tmp_path, url)
    assert "cret@" not in str(caught.value)


def test_sqlalchemy_reaches_the_server_with_the_schema_as_search_path(server_url: str) -> None:
    engine = sqlalchemy.create_engine(sqlalchemy_url(server_url, "dagster"))
    with engine.connect() as connection:
        assert connection.execute(sqlalchemy.text("SHOW search_path")).scalar() == "dagster"
    engine.dispose()


def test_the_sqlalchemy_url_keeps_what_was_given() -> None:
    url = sqlalchemy_url("postgresql://ada:p%40ss@db:5433/trade?sslmode=require&options=-cjit%3Doff", "dagster")
    assert url.startswith("postgresql+psycopg2://ada:p%40ss@db:5433/trade?sslmode=require&options=")
    assert conninfo_to_dict(url.replace("+psycopg2", ""))["options"] == "-cjit=off -csearch_path=dagster"
