from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import numpy as np
import psycopg
import pytest

from tradepulse_pipeline.database import candles as candles_module
from tradepulse_pipeline.database.candles import lock_candles, store_candles
from tradepulse_pipeline.database.configurations import (
    ConfigurationRow,
    get,
    insert_configuration,
    list_configurations,
    mark_if_outdated,
)
from tradepulse_pipeline.database.connection import Database
from tradepulse_pipeline.database.quarantine import quarantined, release, set_aside
from tradepulse_pipeline.database.staleness import stale_sentence
from tradepulse_pipeline.database.training_jobs import create
from tradepulse_pipeline.market.candles import Candles
from tradepulse_pipeline.market.series import SeriesKey

SERIES = SeriesKey.parse("binance:BTC-USDT:5m")
STEP = SERIES.timeframe.milliseconds
DAY_ONE = datetime(2025, 3, 1, tzinfo=UTC)
FIGURES = (
    "net_profit", "sharpe_ratio", "sortino_ratio", "calmar_ratio", "max_drawdown", "win_rate", "gross_win_rate",
    "average_win", "average_loss", "profit_factor", "sample_size", "p_value", "z_score", "deflated_sharpe_ratio",
    "probability_of_backtest_overfitting", "adverse_selection_score", "fill_rate",
)  # fmt: skip


def at(bar: int) -> datetime:
    return DAY_ONE + bar * timedelta(minutes=5)


def ms(bar: int) -> int:
    return round(at(bar).timestamp() * 1000)


def make(*bars: int, price: float = 100.0) -> Candles:
    times = np.array([ms(bar) for bar in bars], dtype=np.int64)
    level = price + np.array(bars, dtype=np.float64)
    return Candles.from_arrays(SERIES.timeframe, times, level, level + 1, level - 1, level, level)


@pytest.fixture
def job_id(database: Database) -> UUID:
    return create(database, strategy_name="S", config={}, series=[SERIES], seed=0, code_version="1", user_id="ada")


def trained(job_id: UUID, first: int, end: int, **fields: Any) -> ConfigurationRow:
    values: dict[str, Any] = {
        "id": uuid4(), "training_job_id": job_id, "strategy_name": "S", "exchange": "binance", "pair": "BTC/USDT",
        "timeframe": "5m", "lifecycle_stage": "PAPER", "is_simulated": False, **dict.fromkeys(FIGURES),
        "parameters": {}, "in_sample_metrics": {}, "out_of_sample_metrics": {}, "windows": [], "template": {},
        "tested_p_value": None, "evidence": None,
        "data_warnings": [], "data_fingerprint": "f00", "data_start": at(first), "data_end": at(end),
        "code_version": "1", "engine_hash": "e", "seed": 7, "dependency_versions": {}, "optimizer": "random",
        "settings": {}, "n_trials": 1, "run_id": "r",
    }  # fmt: skip
    return ConfigurationRow(**{**values, **fields})


def store(database: Database, configuration: ConfigurationRow) -> ConfigurationRow:
    return database.run(lambda connection: insert_configuration(connection, configuration, reason="x", figures={}))


def test_a_restated_candle_marks_what_was_trained_on_the_old_one(database: Database, job_id: UUID) -> None:
    store_candles(database, SERIES, make(*range(20)), "binance")
    trained_on_it = store(database, trained(job_id, 0, 10))
    ends_before, begins_after = store(database, trained(job_id, 0, 4)), store(database, trained(job_id, 7, 20))
    report = store_candles(database, SERIES, make(4, 5, 6, price=90.0), "binance")
    assert (report.restated, report.made_stale) == (3, 1)
    stale = get(database, trained_on_it.id)
    assert stale.stale_reason == "3 candles from 2025-03-01T00:20Z to 2025-03-01T00:30Z were restated by binance"
    assert (stale.stale_candles, stale.stale_at is None) == (3, False)
    for other in (ends_before, begins_after):
        assert get(database, other.id).stale_at is None


@pytest.mark.parametrize(("bar", "is_inside"), [(-1, False), (0, True), (9, True), (10, False)])
def test_the_span_is_half_open(database: Database, job_id: UUID, bar: int, is_inside: bool) -> None:
    configuration = store(database, trained(job_id, 0, 10))
    report = store_candles(database, SERIES, make(bar), "binance")
    assert report.made_stale == int(is_inside)
    assert (get(database, configuration.id).stale_at is not None) is is_inside


def test_an_added_candle_counts_and_one_that_was_there_does_not(database: Database, job_id: UUID) -> None:
    store_candles(database, SERIES, make(0, 1, 3), "binance")
    configuration = store(database, trained(job_id, 0, 4))
    assert store_candles(database, SERIES, make(0, 1, 3, 4), "binance").made_stale == 0
    assert store_candles(database, SERIES, make(2), "archive").made_stale == 1
    reason = get(database, configuration.id).stale_reason
    assert reason == "1 candle at 2025-03-01T00:10Z was added by archive"


def test_a_candle_that_is_set_aside_or_released_counts(database: Database, job_id: UUID) -> None:
    store_candles(database, SERIES, make(0, 1, 2), "binance")
    first = store(database, trained(job_id, 0, 3))
    assert set_aside(database, SERIES, ms(1), "wrong") == 1
    assert get(database, first.id).stale_reason == "1 candle at 2025-03-01T00:05Z was set aside by a person"
    second = store(database, trained(job_id, 0, 3))
    assert release(database, quarantined(database)[0].id).made_stale == 1
    assert get(database, second.id).stale_reason == "1 candle at 2025-03-01T00:05Z was added by binance, released"


def test_the_first_cause_stays_and_the_others_are_counted(database: Database, job_id: UUID) -> None:
    store_candles(database, SERIES, make(*range(5)), "binance")
    configuration = store(database, trained(job_id, 0, 5))
    assert store_candles(database, SERIES, make(1, price=90.0), "binance").made_stale == 1
    first = get(database, configuration.id)
    assert store_candles(database, SERIES, make(2, 3, price=80.0), "archive").made_stale == 0
    later = get(database, configuration.id)
    assert later == replace(first, stale_candles=3)
    for statement in ("stale_at = NULL, stale_reason = NULL", "stale_reason = 'better'"):
        with pytest.raises(psycopg.errors.RestrictViolation), database.connection() as connection:
            connection.execute(f"UPDATE trained_configurations SET {statement}".encode())


def test_superseded_versions_are_marked_and_a_later_training_is_fresh(database: Database, job_id: UUID) -> None:
    store_candles(database, SERIES, make(*range(5)), "binance")
    store(database, trained(job_id, 0, 5))
    store(database, trained(job_id, 0, 5))
    assert store_candles(database, SERIES, make(1, price=90.0), "binance").made_stale == 2
    fresh = store(database, trained(job_id, 0, 5))
    assert [row.stale_at is None for row in list_configurations(database, active_only=False)] == [True, False, False]
    assert fresh.version == 3


@pytest.mark.parametrize("name", ["exchange", "pair", "timeframe"])
def test_other_series_stay_fresh(database: Database, job_id: UUID, name: str) -> None:
    other = {"exchange": "kraken", "pair": "ETH/USDT", "timeframe": "15m"}[name]
    configuration = store(database, trained(job_id, 0, 5, **{name: other}))
    assert store_candles(database, SERIES, make(1), "binance").made_stale == 0
    assert get(database, configuration.id).stale_at is None


def test_the_mark_and_the_candles_are_one_transaction(
    database: Database, job_id: UUID, monkeypatch: pytest.MonkeyPatch
) -> None:
    store_candles(database, SERIES, make(0, 1), "binance")
    configuration = store(database, trained(job_id, 0, 2))
    monkeypatch.setattr(candles_module, "_STORE", "SELECT 1 / 0")
    with pytest.raises(psycopg.errors.DivisionByZero):
        store_candles(database, SERIES, make(0, price=90.0), "binance")
    assert get(database, configuration.id).stale_at is None


def test_candles_that_change_during_the_training_are_noticed_when_it_is_stored(
    database: Database, job_id: UUID
) -> None:
    seen = make(0, 1, 2, 4)
    store_candles(database, SERIES, seen, "binance")
    fingerprint = seen.filled_forward().fingerprint()

    def store_checked(configuration: ConfigurationRow) -> ConfigurationRow:
        def work(connection: Any) -> ConfigurationRow:
            lock_candles(connection, SERIES)
            return mark_if_outdated(connection, insert_configuration(connection, configuration, reason="", figures={}))

        return database.run(work)

    assert store_checked(trained(job_id, 0, 5, data_fingerprint=fingerprint)).stale_at is None
    store_candles(database, SERIES, make(1, price=90.0), "binance")
    outdated = trained(job_id, 0, 5, data_fingerprint=fingerprint)
    stored = store_checked(outdated)
    expected = "the candles from 2025-03-01T00:00Z to 2025-03-01T00:25Z changed while it was trained"
    assert (stored.stale_reason, stored.stale_candles) == (expected, 0)
    assert store_checked(outdated) == stored == get(database, outdated.id)


def test_a_source_with_metacharacters_is_inert_in_the_reason(database: Database, job_id: UUID) -> None:
    text = "'); DROP TABLE trials; -- %s \"{changed}\0"
    configuration = store(database, trained(job_id, 0, 5))
    store_candles(database, SERIES, make(0), text.replace("\0", ""))
    assert 'DROP TABLE trials; -- %s "{changed}' in str(get(database, configuration.id).stale_reason)


def test_the_sentence_for_a_person_counts() -> None:
    assert stale_sentence(1) == "1 configuration trained on the old candles is now marked stale; train again."
    assert stale_sentence(2) == "2 configurations trained on the old candles are now marked stale; train again."
