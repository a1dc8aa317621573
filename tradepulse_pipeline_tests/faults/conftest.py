"""One project, with its embedded PostgreSQL, and children that train in it and come to harm."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tradepulse_pipeline.database.configurations import list_configurations
from tradepulse_pipeline.database.connection import Database
from tradepulse_pipeline.database.trials import searches_of
from tradepulse_pipeline.market.series import SeriesKey
from tradepulse_pipeline_tests.faults.children import Child, Nursery
from tradepulse_pipeline_tests.orchestration.conftest import database, in_project, opened, project_dir

__all__ = ["database", "in_project", "opened", "project_dir"]

#: Three windows over four weeks, on a market with a strong planted edge, searched in moments.
SETTINGS = {
    "start": "2024-01-01",
    "end": "2024-01-29",
    "simulated_edge": 8.0,
    "train_days": 10,
    "test_days": 6,
    "gap_days": 1,
    "budget": 40,
    "minimum_trades": 3,
    "workers": 1,
}
#: Every fault strikes the training of this series; simulated candles follow from its name.
SERIES = SeriesKey.parse("simulated:BTC-USDT:5m")


@pytest.fixture(scope="session")
def nursery(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nursery]:
    nursery = Nursery(tmp_path_factory.mktemp("children"))
    yield nursery
    nursery.close()


Train = Callable[..., Child]


@pytest.fixture
def train(nursery: Nursery, project_dir: Path, database: Database) -> Train:
    """Start a training of the series in a child; settings and faults may be given."""

    def start(series: SeriesKey = SERIES, settings: dict[str, Any] | None = None, **faults: Any) -> Child:
        return nursery.train(project_dir, str(series), {**SETTINGS, **(settings or {})}, **faults)

    return start


@pytest.fixture
def result_of(database: Database) -> Callable[..., dict[str, Any]]:
    """Return what a series was trained to: all that does not say when and by whom, with the hash of all trials."""

    def read(series: SeriesKey = SERIES) -> dict[str, Any]:
        (row,) = list_configurations(
            database, exchange=series.exchange, pair=series.pair, timeframe=series.timeframe.name
        )
        (search,) = [one for one in searches_of(database, row.training_job_id) if one.run_id == row.run_id]
        names = (
            "parameters in_sample_metrics out_of_sample_metrics windows evidence data_warnings data_fingerprint"
            " settings data_start data_end n_trials lifecycle_stage p_value deflated_sharpe_ratio tested_p_value"
        )
        return {**{name: getattr(row, name) for name in names.split()}, "n_rows_of_trials": search.n_trials}

    return read


@pytest.fixture(scope="session")
def expected() -> dict[str, Any]:
    """Results without a fault, by the settings that were given; filled as they are asked for."""
    return {}


@pytest.fixture
def unharmed(train: Train, result_of: Callable[..., dict[str, Any]], expected: dict[str, Any]) -> Callable[..., Any]:
    """Return what a training with some settings comes to when nothing happens to it."""

    def result(**settings: Any) -> Any:
        key = str(sorted(settings.items()))
        if key not in expected:
            assert train(settings=settings).result()["success"]
            expected[key] = result_of()
        return expected[key]

    return result
