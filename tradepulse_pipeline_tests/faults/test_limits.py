"""Searches that are too large, and trials without a value: refused or set aside in the run itself."""

from __future__ import annotations

from tradepulse_pipeline.database.configurations import list_configurations
from tradepulse_pipeline.database.trials import searches_of


def test_a_grid_beyond_the_limit_is_refused_before_a_trial_is_made(train, unharmed, result_of, database):
    unharmed()
    before = result_of()
    outcome = train(settings={"method": "grid", "max_combinations": 200_000}).result()
    assert not outcome["success"]
    assert "201,600 combinations" in outcome["errors"][0]
    assert "max_combinations is 200,000" in outcome["errors"][0]
    assert result_of() == before


def test_a_trial_without_a_value_is_counted_as_invalid_and_never_stored_as_one_of_the_best(unharmed, database):
    unharmed(minimum_trades=8)
    (row,) = list_configurations(database, exchange="simulated", pair="BTC/USDT", timeframe="5m")
    (search,) = [one for one in searches_of(database, row.training_job_id) if one.run_id == row.run_id]
    found = database.run(
        lambda connection: connection.execute(
            "SELECT failed_combinations, (SELECT count(*) FROM trials WHERE search_id = %s),"
            " (SELECT count(*) FROM trials WHERE search_id = %s AND (metrics->>'sample_size')::float < 8)"
            " FROM training_jobs WHERE id = %s",
            (search.id, search.id, row.training_job_id),
        ).fetchone()
    )
    invalid, stored, stored_invalid = found
    assert invalid > 0
    assert stored > 0
    assert stored_invalid == 0
    assert row.in_sample_metrics["sample_size"] >= 8
