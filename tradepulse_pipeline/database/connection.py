"""A PostgreSQL database: pooled connections, transactions that are retried, and values that it may hold."""

from __future__ import annotations

import json
import math
import random
import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final, Self, TypeVar

from tradepulse_pipeline.errors import DatabaseError, InvalidInputError

if TYPE_CHECKING:
    import psycopg
    from psycopg.rows import TupleRow
    from psycopg.types.json import Jsonb
    from psycopg_pool import ConnectionPool

    Connection = psycopg.Connection[TupleRow]

T = TypeVar("T")

#: The schema of TradePulse's own tables, and the one of Dagster's storage beside it in the same database.
DOMAIN_SCHEMA: Final = "tradepulse"
DAGSTER_SCHEMA: Final = "dagster"

#: How long the first connection waits for a server that does not answer: a mistyped address should not take long.
_FIRST_PATIENCE_SECONDS: Final = 5.0

#: Defaults of a connection; what the URL says comes first. A peer that died without a word is noticed in a minute.
_PARAMETERS: Final = {
    "application_name": "tradepulse",
    "client_encoding": "utf8",
    "connect_timeout": "5",
    "keepalives_idle": "30",
    "keepalives_interval": "10",
    "keepalives_count": "3",
}
_SESSION: Final = f"SET search_path = {DOMAIN_SCHEMA}, public; SET TimeZone = 'UTC'"

#: SQLSTATEs after which the same transaction may succeed: classes 08 (connection) and 40 (deadlock, serialisation),
#: 53300 (too many connections) and 57P01 to 57P03 (the server goes down or comes up).
_TRANSIENT: Final = re.compile(r"08...|40...|53300|57P0[123]")


class Database:
    """A PostgreSQL database. Nothing is opened before the first use.

    Parameters
    ----------
    url : str
        ``postgresql://…``, as ``server.database_url`` returns it.
    patience_seconds : float
        How long work is tried again while the server is away, restarts or cuts connections.
    max_connections : int
        Connections that this process opens at most.
    """

    def __init__(self, url: str, *, patience_seconds: float = 30.0, max_connections: int = 8) -> None:
        self.url: Final = url
        self._patience_seconds: Final = patience_seconds
        self._max_connections: Final = max_connections
        self._opening: Final = threading.Lock()
        self._pool: ConnectionPool[Connection] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close all connections. The database can be used again afterwards."""
        with self._opening:
            if self._pool is not None:
                self._pool.close()
                self._pool = None

    @contextmanager
    def connection(self) -> Iterator[Connection]:
        """Yield a connection inside a transaction, which commits at the end and rolls back on an error.

        Names without a schema are those of TradePulse's tables; times come back in UTC.

        Raises
        ------
        DatabaseError
            If the server cannot be reached, goes away meanwhile, or has no room left; passwords never appear.
        """
        from psycopg import OperationalError

        try:
            with self._transaction() as connection:
                yield connection
        except OperationalError as error:
            raise self._failure(error, may_pass=_may_pass(error)) from error

    def run(self, work: Callable[[Connection], T]) -> T:
        """Return ``work(connection)``, run in one transaction and run again after faults that pass.

        A deadlock, a cut connection or a restart of the server repeats the work for up to ``patience_seconds``. The
        reply to a COMMIT can be lost as well, so ``work`` must lead to the same rows when it is done twice.

        Raises
        ------
        DatabaseError
            As ``connection`` does, when the fault does not pass.
        """
        from psycopg import OperationalError
        from psycopg_pool import PoolTimeout

        deadline = time.monotonic() + self._patience_seconds
        pause = 0.05
        while True:
            try:
                with self._transaction() as connection:
                    return work(connection)
            except OperationalError as error:
                passes = not isinstance(error, PoolTimeout) and _may_pass(error)
                if not passes or time.monotonic() + pause > deadline:
                    raise self._failure(error, may_pass=_may_pass(error)) from error
            time.sleep(pause * random.uniform(0.5, 1.0))  # noqa: S311 (jitter: writers that collided part ways)
            pause = min(2 * pause, 2.0)

    @contextmanager
    def _transaction(self) -> Iterator[Connection]:
        from psycopg_pool import PoolTimeout

        try:
            with self._opened().connection() as connection:
                yield connection
        except PoolTimeout:
            self._await_server(_conninfo(self.url))  # raises the reason, if it is that the server is away
            raise

    def _opened(self) -> ConnectionPool[Connection]:
        from psycopg_pool import ConnectionPool

        with self._opening:
            if self._pool is None:
                conninfo = _conninfo(self.url)
                self._await_server(conninfo)
                self._pool = ConnectionPool(
                    conninfo,
                    min_size=0,
                    max_size=self._max_connections,
                    timeout=self._patience_seconds,
                    configure=_configure,
                    check=ConnectionPool.check_connection,
                    num_workers=1,
                    open=True,
                )
            return self._pool

    def _await_server(self, conninfo: str) -> None:
        """Connect once, because the error of a plain connection says what a pool's time-out does not."""
        import psycopg
        from psycopg.pq import PGconn, Ping

        deadline = time.monotonic() + min(self._patience_seconds, _FIRST_PATIENCE_SECONDS)
        while True:
            try:
                psycopg.connect(conninfo).close()
            except psycopg.OperationalError as error:
                is_away = PGconn.ping(conninfo.encode()) in (Ping.REJECT, Ping.NO_RESPONSE)
                if not is_away or time.monotonic() > deadline:
                    raise self._failure(error, may_pass=is_away) from error
                time.sleep(0.1)
            else:
                return

    def _failure(self, error: psycopg.OperationalError, *, may_pass: bool) -> DatabaseError:
        from psycopg import errors

        name = redacted(self.url)
        if isinstance(error, errors.DiskFull):
            return DatabaseError(
                f"The database {name} has no room left: {_plain(error, self.url)}. What was committed is intact. "
                "Free disk space and start the command again."
            )
        failure = DatabaseError(
            f"Cannot use the database {name}: {_plain(error, self.url)}. Start that server or correct "
            "TRADEPULSE_DATABASE_URL; without that setting the embedded server is used."
        )
        failure.may_pass = may_pass
        return failure


def redacted(url: str) -> str:
    """Return a database's URL with its passwords hidden, whatever else is wrong with it.

    Examples
    --------
    >>> redacted("postgresql://ada:p@ss:w/rd@db.example:5432/trade?sslpassword=x&sslmode=require")
    'postgresql://ada:***@db.example:5432/trade?sslpassword=***&sslmode=require'
    """
    without_user_password = re.sub(r"^([^:/]*://[^:@/?]*):.*@", r"\1:***@", url.strip(), flags=re.DOTALL)
    return re.sub(r"(password=)[^&\s]*", r"\1***", without_user_password, flags=re.IGNORECASE)


def finite_or_none(value: float | None) -> float | None:
    """Return ``value`` as a plain float, and None for None, NaN and infinity: a figure that is undefined is NULL."""
    return float(value) if value is not None and math.isfinite(value) else None


def jsonb(value: object, name: str) -> Jsonb:
    """Return ``value`` for a jsonb column.

    Raises
    ------
    InvalidInputError
        If it cannot be written as JSON or holds NaN or infinity; ``name`` says which value.
    """
    from psycopg.types.json import Jsonb

    try:
        text = json.dumps(value, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise InvalidInputError(f"{name} cannot be stored: {error}. Expected plain JSON with finite numbers.") from None
    if "\\u0000" in text:
        raise InvalidInputError(f"{name} cannot be stored: it holds the character U+0000, which PostgreSQL refuses.")
    return Jsonb(value, dumps=lambda _: text)


def storable_text(text: str) -> str:
    """Return ``text`` with what PostgreSQL refuses (U+0000, lone surrogates) replaced: for messages and raw input."""
    return text.encode("utf-8", "replace").decode().replace("\0", "\N{REPLACEMENT CHARACTER}")


def _may_pass(error: psycopg.OperationalError) -> bool:
    """Return whether a fault of a connection that worked may pass: without a state, it was cut."""
    return error.sqlstate is None or _TRANSIENT.fullmatch(error.sqlstate) is not None


def _conninfo(url: str) -> str:
    from psycopg.conninfo import conninfo_to_dict, make_conninfo

    return make_conninfo("", **{**_PARAMETERS, **conninfo_to_dict(url)})


def _configure(connection: Connection) -> None:
    connection.execute(_SESSION)
    connection.commit()


def _plain(error: psycopg.OperationalError, url: str) -> str:
    """Return the error in one line, without what a URL keeps secret."""
    from psycopg.conninfo import conninfo_to_dict

    text = " ".join((error.diag.message_primary or str(error)).split())
    text = re.sub(r" Is the server running .*?\?", "", text).rstrip(".")
    secrets: dict[str, Any] = conninfo_to_dict(url)
    for name in ("password", "sslpassword"):
        if secrets.get(name):
            text = text.replace(str(secrets[name]), "***")
    return text
