"""``tradepulse up``: database, web UI and daemon, started together and stopped together."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from tradepulse_pipeline.cli import console
from tradepulse_pipeline.cli import options as opt
from tradepulse_pipeline.cli.signals import interruptible
from tradepulse_pipeline.errors import InvalidInputError, TradePulseError
from tradepulse_pipeline.settings import Settings, load_settings

#: How long a part may take to start, and to end when it is told to.
START_SECONDS: Final = 180.0
STOP_SECONDS: Final = 20.0

_LOG_TAIL: Final = 15

#: What the web server knows of the daemon's parts and of the definitions.
_HEALTH: Final = "{ instance { daemonHealth { allDaemonStatuses { daemonType required healthy } } } }"
_LOCATIONS: Final = (
    "{ workspaceOrError { ... on Workspace { locationEntries { name locationOrLoadError { __typename "
    "... on PythonError { message causes { message } } } } } } }"
)


def up(
    ctx: typer.Context,
    web_host: Annotated[str | None, opt.setting("web_host", "--host", opt.WHERE, "ADDRESS")] = None,
    web_port: Annotated[str | None, opt.setting("web_port", "--port", opt.WHERE, "PORT")] = None,
) -> None:
    """Start everything: database, web UI and daemon.

    Prints a line for each part as soon as it is ready, and stops them all on Ctrl-C. The daemon runs schedules and
    the trainings that are launched in the web UI, which has no passwords of its own: it listens on this machine alone
    unless --host says otherwise.

    [dim]$[/dim] tradepulse up
    [dim]$[/dim] tradepulse up --port 3001
    """
    settings = load_settings(**opt.given(ctx))
    address = _free_address(settings.web_host, settings.web_port)
    with interruptible():
        try:
            _serve(settings, *address)
        except KeyboardInterrupt:
            console.say("Stopped.")


def _serve(settings: Settings, host: str, port: int) -> None:
    from tradepulse_pipeline.cli.database import open_database

    with open_database(settings, report=_ready), _processes(settings, host, port) as (web, daemon):
        url = _url(host, port)
        _await(web, lambda: _loaded(url))
        _ready("Web UI", url)
        _await(daemon, lambda: _healthy(url))
        _ready("Daemon", "runs schedules, sensors and queued trainings")
        _ready("Logs", str(web.log.parent))
        console.say("Ctrl-C stops everything.")
        while True:
            time.sleep(0.5)
            for process in (web, daemon):
                process.check()


def _url(host: str, port: int) -> str:
    """Return where a browser on this machine finds the web UI."""
    if host in ("", "0.0.0.0", "::"):  # noqa: S104 (recognised, not bound to)
        host = "127.0.0.1"
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _ready(part: str, what: str) -> None:
    from rich.markup import escape

    console.stdout().print(f"[green]✓[/] [bold]{part:<11}[/] {escape(what)}", soft_wrap=True)


@dataclass(frozen=True, slots=True)
class _Process:
    """A child in a process group of its own, and the file that it writes to."""

    name: str
    log: Path
    process: subprocess.Popen[bytes]

    def check(self) -> None:
        """Raise the error that says how it ended, if it did."""
        code = self.process.poll()
        if code is None:
            return
        lines = self.log.read_text(errors="replace").splitlines()[-_LOG_TAIL:]
        raise TradePulseError(
            f"The {self.name} ended with exit code {code}. The last lines of {self.log}:\n"
            + "\n".join(f"  {line}" for line in lines)
        )


@contextmanager
def _processes(settings: Settings, host: str, port: int) -> Iterator[tuple[_Process, _Process]]:
    """Start web server and daemon; end them, and whatever they started, at the end."""
    folder = settings.data_dir / "logs"
    folder.mkdir(parents=True, exist_ok=True)
    workspace = ["-w", str(settings.project_dir / "workspace.yaml")]
    started: list[_Process] = []
    try:
        for name, arguments in (
            ("web server", ["dagster_webserver", "-h", host, "-p", str(port), *workspace]),
            ("daemon", ["dagster._daemon", "run", *workspace]),
        ):
            started.append(_start(settings, name, folder / f"{name.replace(' ', '-')}.log", arguments))
        web, daemon = started
        yield web, daemon
    finally:
        _stop(started)


def _start(settings: Settings, name: str, log: Path, arguments: Sequence[str]) -> _Process:
    with log.open("ab") as output:
        process = subprocess.Popen(  # noqa: S603
            [sys.executable, "-m", *arguments],
            cwd=settings.project_dir,
            env={**os.environ, "DAGSTER_HOME": str(settings.project_dir)},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    return _Process(name, log, process)


def _stop(processes: Sequence[_Process]) -> None:
    """Ask each child and all its descendants to end, and kill what does not. A second Ctrl-C does not break it off."""
    import psutil

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)

    family: list[psutil.Process] = []
    for child in processes:
        try:
            parent = psutil.Process(child.process.pid)
            family += [parent, *parent.children(recursive=True)]
        except psutil.NoSuchProcess:
            continue
    if family:
        console.say("Stopping …")
    for process in family:
        _signal(process, signal.SIGTERM)
    _, left = psutil.wait_procs(family, timeout=STOP_SECONDS)
    for process in left:
        _signal(process, signal.SIGKILL)
    psutil.wait_procs(left, timeout=STOP_SECONDS)


def _signal(process: Any, number: signal.Signals) -> None:
    import psutil

    try:
        process.send_signal(number)
    except psutil.NoSuchProcess:
        return


def _await(process: _Process, is_ready: Callable[[], bool]) -> None:
    deadline = time.monotonic() + START_SECONDS
    while not is_ready():
        process.check()
        if time.monotonic() > deadline:
            raise TradePulseError(f"The {process.name} is not ready after {START_SECONDS:.0f} s. See {process.log}.")
        time.sleep(0.25)


def _loaded(url: str) -> bool:
    """Whether the web server answers and has loaded the definitions."""
    answer = _ask(url, _LOCATIONS)
    if answer is None:
        return False
    entries = answer["workspaceOrError"]["locationEntries"]
    failed = [entry["locationOrLoadError"] for entry in entries if entry["locationOrLoadError"]]
    for problem in failed:
        if problem["__typename"] == "PythonError":
            error = next(iter(problem["causes"]), problem)  # what Dagster itself raises only says that there is one
            raise TradePulseError(f"Dagster cannot load the definitions: {error['message'].strip()}")
    return bool(entries) and len(failed) == len(entries)


def _healthy(url: str) -> bool:
    answer = _ask(url, _HEALTH)
    if answer is None:
        return False
    required = [status for status in answer["instance"]["daemonHealth"]["allDaemonStatuses"] if status["required"]]
    return bool(required) and all(status["healthy"] for status in required)


def _ask(url: str, query: str) -> Any:
    """Return the data of a GraphQL query, None while there is no answer. No proxy stands between us and ourselves."""
    request = urllib.request.Request(  # noqa: S310 (always http)
        f"{url}/graphql", data=json.dumps({"query": query}).encode(), headers={"Content-Type": "application/json"}
    )
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(request, timeout=10) as reply:
            return json.load(reply).get("data")
    except (OSError, ValueError):
        return None


def _free_address(host: str, port: int) -> tuple[str, int]:
    """Return host and port, a free one for port 0.

    Raises
    ------
    InvalidInputError
        If the port is taken or the address is not this machine's.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise InvalidInputError(
                f"The web UI cannot listen on {host}:{port}: {error.strerror or error}. "
                f"Choose another port: tradepulse up --port {port + 1}"
            ) from None
        return host, int(probe.getsockname()[1])
