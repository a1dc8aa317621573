from __future__ import annotations

import math
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tradepulse_pipeline.database.configurations import (
    ConfigurationRow,
    get,
    insert_configuration,
    list_configurations,
    transitions,
)
from tradepulse_pipeline.database.connection import Database
from tradepulse_pipeline.database.training_jobs import create, finish_series, start_series
from tradepulse_pipeline.database.training_jobs import get as get_job
from tradepulse_pipeline.errors import DatabaseError, InvalidInputError
from tradepulse_pipeline.market.series import SeriesKey

SERIES = SeriesKey.parse("binance:BTC-USDT:5m")
FIGURES = (
    "net_profit", "sharpe_ratio", "sortino_ratio", "calmar_ratio", "max_drawdown", "win_rate", "gross_win_rate",
    "average_win", "average_loss", "profit_factor", "p_value", "z_score", "deflated_sharpe_ratio",
    "probability_of_backtest_overfitting", "adverse_selection_score", "fill_rate",
)  # fmt: skip

finite = st.none() | st.floats(allow_nan=False, allow_infinity=False)
documents = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**60), 2**60)
    | st.text(st.characters(codec="utf-8", exclude_characters="\0")),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("abc"), inner, max_size=3),
    max_leaves=6,
)


@pytest.fixture
def job_id(database: Database) -> UUID:
    return create(
        database, strategy_name="S", config={}, series=[SERIES], seed=0, code_version="1", user_id="ada"
    )  # fmt: skip


def make(job_id: UUID, **fields: Any) -> ConfigurationRow:
    values: dict[str, Any] = {
        "id": uuid4(), "training_job_id": job_id, "strategy_name": "S", "exchange": "binance", "pair": "BTC/USDT",
        "timeframe": "5m", "lifecycle_stage": "PAPER", "is_simulated": False, **dict.fromkeys(FIGURES, 0.1),
        "sample_size": 40, "parameters": {"pierce_depth": 0.001}, "in_sample_metrics": {"net_profit": 1.0},
        "out_of_sample_metrics": {"net_profit": -1.0}, "windows": [{"index": 0}], "template": {"pair": "BTC/USDT"},
        "evidence": {"statistics": {"n_trials": 10}}, "tested_p_value": 0.2,
        "data_warnings": ["3 candles are missing."],
        "data_fingerprint": "f00", "data_start": datetime(2024, 1, 1, tzinfo=UTC),
        "data_end": datetime(2025, 1, 1, tzinfo=UTC), "code_version": "1", "engine_hash": "e", "seed": 7,
        "dependency_versions": {"numpy": "2"}, "optimizer": "random", "settings": {"side": "long"}, "n_trials": 1000,
        "run_id": "r",
    }  # fmt: skip
    return ConfigurationRow(**{**values, **fields})


def store(database: Database, configuration: ConfigurationRow, reason: str = "few trades") -> ConfigurationRow:
    return database.run(
        lambda connection: insert_configuration(connection, configuration, reason=reason, figures={"sample_size": 40})
    )


@given(figures=st.tuples(*[finite] * len(FIGURES)), document=documents, seed=st.integers(-(2**63), 2**63 - 1))
@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_configuration_comes_back_as_it_was_stored(
    database: Database, job_id: UUID, figures: tuple[float | None, ...], document: Any, seed: int
) -> None:
    given = make(job_id, seed=seed, template={"x": document}, **dict(zip(FIGURES, figures, strict=True)))
    stored = store(database, given)
    assert get(database, given.id) == stored
    assert replace(stored, version=None, is_active=None, created_at=None) == given
    assert (stored.stale_at, stored.stale_reason, stored.stale_candles) == (None, None, 0)


def test_a_new_version_supersedes_the_former_which_stays(database: Database, job_id: UUID) -> None:
    other = store(database, make(job_id, pair="ETH/USDT"))
    first, second = store(database, make(job_id)), store(database, make(job_id, lifecycle_stage="VALIDATION"))
    assert (other.version, first.version, second.version) == (1, 1, 2)
    former = get(database, first.id)
    assert former == replace(first, is_active=False)
    assert [c.id for c in list_configurations(database, pair="BTC/USDT")] == [second.id]
    assert [c.id for c in list_configurations(database, pair="BTC/USDT", active_only=False)] == [second.id, first.id]


def test_the_stage_is_explained_from_the_start(database: Database, job_id: UUID) -> None:
    stored = store(database, make(job_id, lifecycle_stage="DISCOVERY"), reason="only 12 trades")
    (transition,) = transitions(database, stored.id)
    assert (transition.from_stage, transition.to_stage) == (None, "DISCOVERY")
    assert (transition.reason, transition.figures) == ("only 12 trades", {"sample_size": 40})


def test_the_configuration_and_the_end_of_its_series_are_one_transaction(database: Database, job_id: UUID) -> None:
    start_series(database, job_id, SERIES, run_id="r")

    def work(connection: psycopg.Connection[Any], run_id: str) -> None:
        insert_configuration(connection, make(job_id), reason="x", figures={})
        finish_series(connection, job_id, SERIES, run_id=run_id, status="completed")

    with pytest.raises(DatabaseError, match="Run orphan no longer works"):
        database.run(lambda connection: work(connection, "orphan"))
    assert list_configurations(database) == []
    database.run(lambda connection: work(connection, "r"))
    job = get_job(database, job_id)
    assert (job.status, job.configurations_created) == ("completed", 1)
    assert [c.training_job_id for c in list_configurations(database, training_job_id=job_id)] == [job_id]


def test_sixteen_writers_of_the_same_configuration_leave_one_row(database: Database, job_id: UUID) -> None:
    configuration = make(job_id)
    with ThreadPoolExecutor(16) as pool:
        stored = list(pool.map(lambda _: store(database, configuration), range(16)))
    assert {row.version for row in stored} == {1}
    assert len(list_configurations(database, active_only=False)) == 1
    assert len(transitions(database, configuration.id)) == 1


def test_sixteen_configurations_at_once_get_a_version_each_and_one_is_active(database: Database, job_id: UUID) -> None:
    with ThreadPoolExecutor(16) as pool:
        stored = list(pool.map(lambda _: store(database, make(job_id)), range(16)))
    assert sorted(row.version or 0 for row in stored) == list(range(1, 17))
    assert [row.version for row in list_configurations(database)] == [16]


def test_a_configuration_is_found_by_the_beginning_of_its_id(database: Database, job_id: UUID) -> None:
    first, second = UUID("12345678-aaaa-4000-8000-000000000001"), UUID("12345678-aaab-4000-8000-000000000002")
    for identity in (first, second):
        store(database, make(job_id, id=identity))
    assert get(database, "12345678-AAAB").id == second
    assert get(database, "12345678aaaa").id == first
    with pytest.raises(InvalidInputError, match=f"beginning of several configurations' ids: {second}, {first}"):
        get(database, "12345678")
    with pytest.raises(InvalidInputError, match=r"no configuration 87654321.*tradepulse results"):
        get(database, "87654321")
    for text in ("1234567", "", "%", "12345678'; --", "g" * 8):
        with pytest.raises(InvalidInputError, match="first 8 or more characters"):
            get(database, text)


def test_configurations_are_filtered(database: Database, job_id: UUID) -> None:
    for exchange, timeframe, strategy, stage in (
        ("binance", "5m", "S", "PAPER"), ("kraken", "5m", "S", "MATURE"), ("kraken", "1h", "T", "PAPER"),
    ):  # fmt: skip
        store(
            database,
            make(job_id, exchange=exchange, timeframe=timeframe, strategy_name=strategy, lifecycle_stage=stage),
        )

    def count(**filters: Any) -> int:
        return len(list_configurations(database, **filters))

    assert (count(), count(limit=2), count(exchange="kraken"), count(timeframe="5m")) == (3, 2, 2, 2)
    assert (count(strategy_name="T"), count(stage="PAPER"), count(exchange="kraken", stage="PAPER")) == (1, 2, 1)
    assert count(pair="x' OR true --") == 0


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE lifecycle_transitions SET reason = 'better'",
        "DELETE FROM lifecycle_transitions",
        "TRUNCATE lifecycle_transitions",
        "DELETE FROM trained_configurations",
        "TRUNCATE trained_configurations CASCADE",
        "UPDATE trained_configurations SET net_profit = 1e6",
        "UPDATE trained_configurations SET parameters = '{}', is_active = false",
        "UPDATE trained_configurations SET data_warnings = '[]'",
        "UPDATE trained_configurations SET stale_at = now()",
    ],
)
def test_history_cannot_be_rewritten(database: Database, job_id: UUID, statement: str) -> None:
    stored = store(database, make(job_id))
    refused = (psycopg.errors.RestrictViolation, psycopg.errors.CheckViolation)
    with pytest.raises(refused), database.connection() as connection:
        connection.execute(statement.encode())
    assert get(database, stored.id) == stored
    assert len(transitions(database, stored.id)) == 1


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_the_database_itself_refuses_figures_that_are_not_finite(
    database: Database, job_id: UUID, value: float
) -> None:
    for name in FIGURES:
        with pytest.raises(psycopg.errors.CheckViolation):
            store(database, make(job_id, **{name: value}))


def test_documents_that_are_not_finite_are_refused_by_name(database: Database, job_id: UUID) -> None:
    with pytest.raises(InvalidInputError, match=r"windows of configuration .* cannot be stored"):
        store(database, make(job_id, windows=[{"sharpe_ratio": math.nan}]))
    assert list_configurations(database) == []


def test_an_unknown_stage_is_refused(database: Database, job_id: UUID) -> None:
    with pytest.raises(psycopg.errors.CheckViolation):
        store(database, make(job_id, lifecycle_stage="GREAT"))


def test_metacharacters_in_names_are_inert(database: Database, job_id: UUID) -> None:
    text = "'); DROP TABLE trials; -- %s \"{}"
    stored = store(database, make(job_id, strategy_name=text, run_id=text, parameters={text: text}), reason=text)
    assert get(database, stored.id) == stored
    assert [c.id for c in list_configurations(database, strategy_name=text)] == [stored.id]
    assert transitions(database, stored.id)[0].reason == text
