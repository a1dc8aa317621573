"""Paper trades and monitoring reports: written once, never overwritten, together with the move of the stage."""

from __future__ import annotations

import threading
from dataclasses import replace
from uuid import UUID

import psycopg
import pytest

from tradepulse_pipeline.database.configurations import ConfigurationRow, get, insert_configuration, transitions
from tradepulse_pipeline.database.connection import Database
from tradepulse_pipeline.database.monitoring import (
    paper_trades_of,
    record_evaluation,
    record_within,
    reports_of,
    standing_of,
)
from tradepulse_pipeline.database.training_jobs import create
from tradepulse_pipeline.database.values import time_of
from tradepulse_pipeline.market.series import MS_PER_DAY
from tradepulse_pipeline.monitoring.evaluation import Evaluation, Standing, evaluate
from tradepulse_pipeline.monitoring.stages import Verdict
from tradepulse_pipeline_tests.database.test_database_staleness import trained as configuration_of
from tradepulse_pipeline_tests.monitoring.conftest import N_TRAINED, SERIES, START, candles, trained


@pytest.fixture
def row(database: Database) -> ConfigurationRow:
    job_id = create(database, strategy_name="S", config={}, series=[SERIES], seed=0, code_version="1", user_id="ada")
    made = configuration_of(job_id, 0, 10, lifecycle_stage="VALIDATION", data_end=time_of(trained()[2].data_end_ms))
    return database.run(lambda connection: insert_configuration(connection, made, reason="trained", figures={}))


@pytest.fixture
def decayed(database: Database, row: ConfigurationRow) -> Evaluation:
    """What a look finds that leads to DECAY."""
    found = look(database, row, 45)
    return replace(found, verdict=Verdict(stage="DECAY", reason="It has decayed.", size_multiplier=0.0))


def look(database: Database, row: ConfigurationRow, n_days: int) -> Evaluation:
    standing: Standing = standing_of(row, transitions(database, row.id))
    return evaluate(trained()[2], candles().between(None, START + n_days * MS_PER_DAY), standing)


def moves(database: Database, configuration_id: UUID) -> list[tuple[str | None, str]]:
    return [(one.from_stage, one.to_stage) for one in transitions(database, configuration_id)]


def test_report_trades_and_move_are_one(database: Database, row: ConfigurationRow, decayed: Evaluation) -> None:
    assert record_evaluation(database, row, decayed)
    (report,) = reports_of(database, row.id)
    assert (report.through, report.n_trades) == (time_of(decayed.through_ms), len(decayed.paper.trades))
    assert len(paper_trades_of(database, row.id)) == report.n_trades > 0
    assert get(database, row.id).lifecycle_stage == "DECAY"
    assert moves(database, row.id) == [(None, "VALIDATION"), ("VALIDATION", "DECAY")]
    standing = standing_of(get(database, row.id), transitions(database, row.id))
    assert (standing.since_ms, standing.fell_at_ms) == (decayed.through_ms, decayed.through_ms)


def test_what_fails_half_way_leaves_nothing(database: Database, row: ConfigurationRow, decayed: Evaluation) -> None:
    wrong = replace(decayed, verdict=replace(decayed.verdict, stage="NO SUCH STAGE"))
    with pytest.raises(psycopg.errors.CheckViolation):
        record_evaluation(database, row, wrong)
    assert (reports_of(database, row.id), paper_trades_of(database, row.id)) == ([], [])
    assert moves(database, row.id) == [(None, "VALIDATION")]


def test_two_writers_of_one_look_at_once(database: Database, row: ConfigurationRow, decayed: Evaluation) -> None:
    """The second waits for the first, which has written but not committed, and finds nothing left to do."""
    news: list[bool] = []
    second = threading.Thread(target=lambda: news.append(record_evaluation(database, row, decayed)))
    with database.connection() as connection:
        assert record_within(connection, row.id, decayed)
        second.start()
        second.join(0.5)
        assert second.is_alive()
        assert reports_of(database, row.id) == []
    second.join(60)
    assert news == [False]
    assert len(reports_of(database, row.id)) == 1
    assert len(paper_trades_of(database, row.id)) == len(decayed.paper.trades)
    assert moves(database, row.id) == [(None, "VALIDATION"), ("VALIDATION", "DECAY")]


def test_a_look_that_has_been_overtaken_writes_nothing(
    database: Database, row: ConfigurationRow, decayed: Evaluation
) -> None:
    earlier = look(database, row, N_TRAINED + 5)
    assert record_evaluation(database, row, replace(decayed, verdict=replace(decayed.verdict, stage="VALIDATION")))
    before = (reports_of(database, row.id), paper_trades_of(database, row.id))
    assert not record_evaluation(database, row, earlier)
    assert (reports_of(database, row.id), paper_trades_of(database, row.id)) == before


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE monitoring_reports SET verdict = 'all is well'",
        "DELETE FROM monitoring_reports",
        "TRUNCATE monitoring_reports",
        "UPDATE paper_trades SET pnl = 0",
        "UPDATE paper_trades SET superseded_at = now(), pnl = 0",
        "DELETE FROM paper_trades",
        "TRUNCATE paper_trades",
    ],
)
def test_what_was_found_is_never_overwritten(
    database: Database, row: ConfigurationRow, decayed: Evaluation, change: str
) -> None:
    record_evaluation(database, row, decayed)
    before = (reports_of(database, row.id), paper_trades_of(database, row.id))
    with pytest.raises(psycopg.errors.RestrictViolation):
        database.run(lambda connection: connection.execute(change.encode()))
    assert (reports_of(database, row.id), paper_trades_of(database, row.id)) == before


def test_a_paper_trade_is_superseded_once(database: Database, row: ConfigurationRow, decayed: Evaluation) -> None:
    record_evaluation(database, row, decayed)
    (first, *others) = paper_trades_of(database, row.id)
    change = "UPDATE paper_trades SET superseded_at = now() WHERE id = %s"
    database.run(lambda connection: connection.execute(change, (first.id,)))
    assert paper_trades_of(database, row.id) == others
    with pytest.raises(psycopg.errors.RestrictViolation):
        database.run(lambda connection: connection.execute(change, (first.id,)))
