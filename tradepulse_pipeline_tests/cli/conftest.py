"""The command as a user runs it: in a project of the tests' own, in this process or as one of its own."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from tradepulse_pipeline.cli.main import app
from tradepulse_pipeline.database.server import stop_embedded

ROOT = Path(__file__).parents[2]

Run = Callable[..., Result]
Start = Callable[..., "subprocess.Popen[str]"]


def make_project(folder: Path) -> Path:
    for name in ("dagster.yaml", "workspace.yaml"):
        shutil.copy(ROOT / name, folder)
    return folder


def remove_data(project: Path) -> None:
    """Stop the embedded server of a project and remove its data, wherever it lies."""
    stop_embedded(project / ".tradepulse")
    pgdata = project / ".tradepulse" / "pgdata"
    if pgdata.is_symlink():
        shutil.rmtree(pgdata.resolve().parent, ignore_errors=True)


@pytest.fixture(autouse=True)
def clean_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Start every test without settings from outside, in a project of its own, with pages 120 characters wide."""
    for name in [name for name in os.environ if name.startswith(("TRADEPULSE_", "DAGSTER_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.chdir(make_project(tmp_path))


@pytest.fixture(scope="session")
def shared_project(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    project = make_project(tmp_path_factory.mktemp("project"))
    yield project
    remove_data(project)


@pytest.fixture
def in_project(shared_project: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Work in a project with a database, which other tests use as well."""
    monkeypatch.chdir(shared_project)
    return shared_project


@pytest.fixture
def own_project(tmp_path: Path) -> Iterator[Path]:
    """Work in a project that nothing else uses."""
    yield tmp_path
    remove_data(tmp_path)


@pytest.fixture
def run() -> Run:
    """Run the command in this process."""

    def run_command(*arguments: str) -> Result:
        return CliRunner().invoke(app, [str(argument) for argument in arguments])

    return run_command


@pytest.fixture
def start() -> Iterator[Start]:
    """Start the command as a process in a session of its own, which answers to signals as from a terminal."""
    started: list[subprocess.Popen[str]] = []

    def deliver_signals() -> None:
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_DFL)

    def start_command(*arguments: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [str(Path(sys.executable).with_name("tradepulse")), *arguments],
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            preexec_fn=deliver_signals,
            start_new_session=True,
        )
        started.append(process)
        return process

    yield start_command
    for process in started:
        if process.poll() is None:
            process.kill()
        process.communicate()
