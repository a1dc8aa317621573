from __future__ import annotations

import math
from typing import Any
from uuid import UUID

import numpy as np
import polars as pl
import psycopg
import pytest

from tradepulse_pipeline.backtest.result import METRIC_NAMES
from tradepulse_pipeline.database.connection import Database
from tradepulse_pipeline.database.training_jobs import create
from tradepulse_pipeline.database.trials import Trial, best_of, record_search, searches_of, trials_of
from tradepulse_pipeline.market.series import SeriesKey
from tradepulse_pipeline.optimizers.search import Trials
from tradepulse_pipeline.strategies.registry import get_strategy
from tradepulse_pipeline.strategies.space import ParameterSpace
from tradepulse_pipeline.validation.trials import NEIGHBOUR_COLUMNS, trials_table

SERIES = SeriesKey.parse("binance:BTC-USDT:5m")
SHA256 = "0123456789abcdef" * 4


@pytest.fixture
def job_id(database: Database) -> UUID:
    return create(database, strategy_name="S", config={}, series=[SERIES], seed=0, code_version="1", user_id="ada")


def record(database: Database, job_id: UUID, best: list[Trial], **fields: Any) -> int:
    values = {"run_id": "r", "trials_path": "a.parquet", "trials_sha256": SHA256, "n_trials": 9, **fields}
    return database.run(
        lambda connection: record_search(
            connection, training_job_id=job_id, strategy_name="S", series=SERIES, best=best, **values
        )
    )


def trial(rank: int, window: int = 0) -> Trial:
    return Trial(
        window_index=window, rank=rank, combination=10**12 + rank, objective=1 / rank,
        parameters={"stop_distance": 0.1 * rank}, metrics={"net_profit": 1 / 3, "profit_factor": None},
    )  # fmt: skip


def best_table(n_rows: int) -> pl.DataFrame:
    trials = Trials(
        combination=np.arange(50, 50 + n_rows),
        metrics=np.array([[math.nan if name == "profit_factor" else 9.0 for name in METRIC_NAMES]] * n_rows).reshape(
            n_rows, len(METRIC_NAMES)
        ),
        objective=np.arange(n_rows, 0.0, -1.0),
    )
    table = trials_table(-1, 0, trials, ParameterSpace(get_strategy("LIQUIDITY_SWEEP_V3").parameters))
    return table.with_columns(rank=pl.int_range(1, pl.len() + 1))


def test_the_best_trials_of_a_search_become_rows() -> None:
    best = best_of(best_table(2))
    assert [(t.window_index, t.rank, t.combination, t.objective) for t in best] == [(-1, 1, 50, 2.0), (-1, 2, 51, 1.0)]
    assert list(best[0].parameters) == [p.name for p in get_strategy("LIQUIDITY_SWEEP_V3").parameters]
    assert list(best[0].metrics) == list(METRIC_NAMES)
    assert (best[0].metrics["net_profit"], best[0].metrics["profit_factor"]) == (9.0, None)


def test_what_is_on_the_front_alone_is_no_row_and_its_mark_no_parameter() -> None:
    table = best_table(2).with_columns(rank=pl.Series([1, None]), on_pareto_front=pl.Series([False, True]))
    (best,) = best_of(table)
    assert best.rank == 1
    assert list(best.parameters) == [p.name for p in get_strategy("LIQUIDITY_SWEEP_V3").parameters]


def test_how_the_neighbours_fare_is_no_parameter() -> None:
    (best,) = best_of(best_table(1).with_columns(pl.lit(0.5).alias(name) for name in NEIGHBOUR_COLUMNS))
    assert list(best.parameters) == [p.name for p in get_strategy("LIQUIDITY_SWEEP_V3").parameters]


def test_a_search_without_a_valid_trial_has_no_best() -> None:
    assert best_of(best_table(0)) == []


def test_trials_come_back_as_they_were_recorded(database: Database, job_id: UUID) -> None:
    best = [trial(1), trial(2), trial(1, window=1)]
    search_id = record(database, job_id, best[::-1])
    assert trials_of(database, search_id) == best
    (search,) = searches_of(database, job_id)
    assert (search.id, search.series, search.strategy_name, search.run_id) == (search_id, SERIES, "S", "r")
    assert (search.trials_path, search.trials_sha256, search.n_trials) == ("a.parquet", SHA256, 9)


def test_recording_a_search_again_replaces_it(database: Database, job_id: UUID) -> None:
    first = record(database, job_id, [trial(1), trial(2)])
    assert record(database, job_id, [trial(3)], trials_path="b.parquet", n_trials=5) == first
    (search,) = searches_of(database, job_id)
    assert (search.trials_path, search.n_trials) == ("b.parquet", 5)
    assert trials_of(database, first) == [trial(3)]
    assert record(database, job_id, [], run_id="another") != first
    assert len(searches_of(database, job_id)) == 2


def test_an_objective_that_is_not_finite_is_refused(database: Database, job_id: UUID) -> None:
    bad = Trial(window_index=0, rank=1, combination=0, objective=math.nan, parameters={}, metrics={})
    with pytest.raises(psycopg.errors.CheckViolation):
        record(database, job_id, [bad])
    assert searches_of(database, job_id) == []
