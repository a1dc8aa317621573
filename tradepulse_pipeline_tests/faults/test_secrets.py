"""Secrets in the environment: they appear in no log, no event, no page, no stored row."""

from __future__ import annotations

from uuid import UUID, uuid4

import psycopg
import pytest
from dagster_shared.serdes import serialize_value
from psycopg import sql

from tradepulse_pipeline.database import training_jobs
from tradepulse_pipeline.market.history import HistorySettings
from tradepulse_pipeline.market.series import SeriesKey
from tradepulse_pipeline.optimizers.settings import SearchSettings
from tradepulse_pipeline.orchestration.launch import open_instance, run_training
from tradepulse_pipeline.orchestration.resources import DatabaseResource
from tradepulse_pipeline.validation.training import TrainingSettings
from tradepulse_pipeline.validation.windows import WindowSettings
from tradepulse_pipeline_tests.faults.children import STRATEGY

SECRET = "s3ntinel-of-nobody"
KEYS = ("ALPHAVANTAGE_API_KEY", "POLYGON_API_KEY", "AWS_SECRET_ACCESS_KEY")
SMALL = WindowSettings(train_days=10, test_days=6, gap_days=1)


def stored_text(url):
    """Return every row of every table in both schemas as text."""
    with psycopg.connect(url) as connection:
        tables = connection.execute(
            "SELECT table_schema, table_name FROM information_schema.tables"
            " WHERE table_schema IN ('tradepulse', 'dagster') AND table_type = 'BASE TABLE'"
        ).fetchall()
        for table in tables:
            query = sql.SQL("SELECT t::text FROM {} AS t").format(sql.Identifier(*table))
            yield table, [row[0] for row in connection.execute(query)]


@pytest.mark.parametrize("fails", [False, True], ids=["success", "failure"])
def test_a_secret_in_the_environment_is_found_nowhere(database, opened, project_dir, monkeypatch, capfd, fails):
    for name in KEYS:
        monkeypatch.setenv(name, SECRET)
    monkeypatch.setenv("TRADEPULSE_DATABASE_URL", database.url.replace("postgres@", f"postgres:{SECRET}@"))
    opened.append(DatabaseResource().open())
    series = SeriesKey.parse("simulated:SECRET-USDT:5m")
    job_id: UUID = training_jobs.create(
        database,
        job_id=uuid4(),
        strategy_name=STRATEGY,
        config={},
        series=[series],
        seed=0,
        code_version="0",
        user_id="test",
    )
    outcome = run_training(
        series=series,
        strategy_name=STRATEGY,
        training=TrainingSettings(
            search=SearchSettings(budget=20, minimum_trades=3, workers=1), windows=WindowSettings() if fails else SMALL
        ),
        history=HistorySettings(start_ms=1_704_067_200_000, end_ms=1_706_486_400_000),
        job_id=job_id,
        simulated_edge=8.0,
    )
    assert outcome.success is not fails
    with open_instance() as instance:
        said = [instance.info_str(), *(serialize_value(event) for event in instance.all_logs(outcome.run_id))]
    assert any(str(series) in text for text in said)
    assert not [text for text in (*said, str(outcome.error), *capfd.readouterr()) if SECRET in text]
    for table, rows in stored_text(database.url):
        assert not [row for row in rows if SECRET in row], table
    files = [file for file in (project_dir / ".tradepulse").rglob("*") if file.is_file() and "pgdata" not in file.parts]
    assert files
    assert not [file for file in files if SECRET.encode() in file.read_bytes()]
