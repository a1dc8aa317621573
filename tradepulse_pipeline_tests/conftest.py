"""Fixtures that every test may use."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

settings.register_profile("default", deadline=None, print_blob=True)
settings.load_profile("default")

#: Files that take longest. They come first, so that the processes that run the tests end at about the same time.
_LONGEST = (
    "operation/test_day.py",
    "orchestration/test_fleet.py",
    "cli/test_fetch_command.py",
    "cli/test_training_commands.py",
    "faults/test_runs.py",
    "orchestration/test_browser.py",
    "orchestration/test_training.py",
    "backtest/test_against_reference.py",
    "faults/test_power_loss.py",
)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the longest files first; the rest stays in random order."""

    def rank(item: pytest.Item) -> int:
        ranks = (number for number, name in enumerate(_LONGEST) if item.path.as_posix().endswith(name))
        return next(ranks, len(_LONGEST))

    items.sort(key=rank)


@pytest.fixture(scope="module", autouse=True)
def plots(request: pytest.FixtureRequest) -> Iterator[None]:
    """Draw plots where a test looks at them only: they take four fifths of a small training."""
    with pytest.MonkeyPatch.context() as patch:
        if request.path.name != "test_plots.py":
            patch.setattr("matplotlib.figure.Figure.savefig", lambda *_, **__: None)
        yield


def _shared(name: str) -> Path:
    base = Path(os.environ.get("TRADEPULSE_TEST_DATA", Path(__file__).parents[2] / "shared"))
    folder = base / name
    if not folder.is_dir():
        pytest.skip(f"real recordings are not here: no folder {folder} (set TRADEPULSE_TEST_DATA to where they are)")
    return folder


@pytest.fixture(scope="session")
def market_data_dir() -> Path:
    """The folder of real candles, which the project does not ship."""
    return _shared("market-data")


@pytest.fixture(scope="session")
def exchange_fixtures_dir() -> Path:
    """The folder of recorded REST replies, which the project does not ship."""
    return _shared("exchange-fixtures")


@pytest.fixture(scope="session")
def ticks_dir() -> Path:
    """The folder of recorded trades and order books, which the project does not ship."""
    return _shared("ticks")


@pytest.fixture(scope="session")
def equities_dir() -> Path:
    """The folder of real stock prices with their splits and dividends, which the project does not ship."""
    return _shared("equities")
