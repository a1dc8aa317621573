from __future__ import annotations

import math
from typing import Any
from uuid import UUID

import polars as pl
import psycopg
import pytest

from tradepulse_pipeline.database.connection import Database
from tradepulse_pipeline.database.training_jobs import create
from tradepulse_pipeline.database.trials import Trial, best_of, record_search, searches_of, trials_of
from tradepulse_pipeline.market.series import SeriesKey

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


def test_the_best_valid_trials_of_each_window_are_kept_in_order() -> None:
    frame = pl.DataFrame(
        {
            "window": [0, 0, 0, 0, 0, -1],
            "trial": [0, 1, 2, 3, 4, 0],
            "combination": [50, 51, 52, 53, 54, 60],
            "stop_distance": [0.5, 1.0, 1.5, 2.0, 2.5, 3.0],
            "net_profit": [1.0, 9.0, 5.0, 5.0, 99.0, 2.0],
            "profit_factor": [1.5, math.nan, 2.0, 2.0, 3.0, math.inf],
            "objective": [1.0, 9.0, 5.0, 5.0, None, 2.0],
        }
    )
    best = best_of(frame, per_window=3)
    assert [(t.window_index, t.rank, t.combination) for t in best] == [(-1, 1, 60), (0, 1, 51), (0, 2, 52), (0, 3, 53)]
    assert best[1].parameters == {"stop_distance": 1.0}
    assert best[1].metrics == {"net_profit": 9.0, "profit_factor": None}
    assert best[0].metrics["profit_factor"] is None


def test_a_search_without_a_valid_trial_has_no_best() -> None:
    frame = pl.DataFrame({"window": [0], "trial": [0], "combination": [1], "net_profit": [1.0], "objective": [None]})
    assert best_of(frame) == []


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
