"""A project of the tests' own: its configuration files, its data folder, its embedded PostgreSQL."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tradepulse_pipeline.database.connection import Database
from tradepulse_pipeline.database.server import stop_embedded
from tradepulse_pipeline.orchestration.resources import DatabaseResource

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def project_dir(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The folder of a project that nothing has happened in."""
    folder = tmp_path_factory.mktemp("project")
    for name in ("dagster.yaml", "workspace.yaml"):
        shutil.copy(ROOT / name, folder)
    yield folder
    remove_data(folder / ".tradepulse")


@pytest.fixture(autouse=True)
def in_project(project_dir: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Work in the tests' project, whatever the environment says."""
    for name in [name for name in os.environ if name.startswith(("TRADEPULSE_", "DAGSTER_"))]:
        monkeypatch.delenv(name)
    monkeypatch.chdir(project_dir)
    return project_dir


@pytest.fixture(scope="session")
def opened() -> Iterator[list[Database]]:
    """The databases that this process opened: closed at the end, before their server stops."""
    databases: list[Database] = []
    yield databases
    for database in databases:
        database.close()


@pytest.fixture
def database(in_project: Path, opened: list[Database], project_dir: Path) -> Database:
    """The project's database, with its tables."""
    database = DatabaseResource().open()
    opened.append(database)
    return database


def remove_data(data_dir: Path) -> None:
    """Stop the server of a data folder and remove its data, wherever it lies."""
    stop_embedded(data_dir)
    place = data_dir / "pgdata"
    if place.is_symlink():
        shutil.rmtree(place.resolve().parent, ignore_errors=True)
    shutil.rmtree(data_dir, ignore_errors=True)
