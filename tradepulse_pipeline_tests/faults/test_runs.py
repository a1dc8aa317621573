"""Runs that are killed, orphaned, doubled or starved: the result is the one of a run that nothing happened to."""

from __future__ import annotations

import hashlib
import re
import shutil
from pathlib import Path

import pytest

from tradepulse_pipeline.database import training_jobs
from tradepulse_pipeline.database.configurations import list_configurations
from tradepulse_pipeline.database.trials import searches_of
from tradepulse_pipeline.market.series import SeriesKey
from tradepulse_pipeline.orchestration.artifacts import ArtifactStore
from tradepulse_pipeline.orchestration.tables import read_frame, read_record, read_search
from tradepulse_pipeline.strategies.registry import get_strategy
from tradepulse_pipeline_tests.faults.children import STRATEGY
from tradepulse_pipeline_tests.faults.conftest import SERIES


@pytest.fixture
def store(project_dir):
    return ArtifactStore(str(project_dir / ".tradepulse" / "artifacts"))


def assert_consistent(store, database, series=SERIES):
    """Files and rows are those of one training, to the byte."""
    strategy, frame = get_strategy(STRATEGY), read_frame(store, series)
    trials = read_search(store, series, strategy, frame.fingerprint)
    read_record(store, series, strategy, trials, frame.fingerprint)
    (row,) = list_configurations(database, exchange=series.exchange, pair=series.pair, timeframe="5m")
    (search,) = [one for one in searches_of(database, row.training_job_id) if one.run_id == row.run_id]
    assert row.settings == trials.training.to_json_dict()
    assert (search.trials_path, search.trials_sha256) == (trials.folder.url, trials.folder.sha256)
    files = sorted(Path(trials.folder.url, "trials").glob("*.parquet"))
    lines = [f"{hashlib.sha256(file.read_bytes()).hexdigest()}  {file.name}\n" for file in files]
    assert hashlib.sha256("".join(lines).encode()).hexdigest() == search.trials_sha256


def forget(project_dir, database, series):
    """Let a series be as if nobody had ever trained it, but for its rows of jobs and configurations."""
    shutil.rmtree(project_dir / ".tradepulse" / "artifacts", ignore_errors=True)
    delete = "DELETE FROM market_data WHERE exchange = %s AND pair = %s"
    database.run(lambda connection: connection.execute(delete, (series.exchange, series.pair)))


@pytest.mark.parametrize(("settings", "step"), [({}, 17), ({"method": "tpe"}, 47)], ids=["random search", "TPE search"])
def test_killed_at_one_write_after_the_other_it_ends_as_if_nothing_had_happened(
    train, unharmed, result_of, store, database, project_dir, settings, step
):
    whole = unharmed(**settings)
    forget(project_dir, database, SERIES)
    n_kills = 0
    while (child := train(settings=settings, kill_at=1 + n_kills * step)).wait() != 0:
        n_kills += 1
        assert n_kills * step < 1_000
    assert child.result()["success"], child.result()["errors"]
    assert n_kills >= 3
    assert result_of() == whole
    assert_consistent(store, database)


@pytest.mark.parametrize("zone", ["Asia/Kathmandu", "America/St_Johns"])
def test_workers_and_the_hosts_time_zone_change_no_bit(train, unharmed, result_of, database, project_dir, zone):
    whole = unharmed()
    forget(project_dir, database, SERIES)
    assert train(settings={"workers": 3}, env={"TZ": zone}).result()["success"]
    found = result_of()
    assert found.pop("settings")["search"].pop("workers") == 3
    assert found == {name: value for name, value in whole.items() if name != "settings"}


@pytest.mark.parametrize("table", ["optimization_results", "daily"])
def test_an_orphan_does_not_write_over_the_result_of_the_run_that_came_after_it(
    train, unharmed, result_of, store, database, table
):
    newer = unharmed(seed=1)
    orphan = train(pause_at=table)
    orphan.wait_until_stopped()
    assert train(settings={"seed": 1}).result()["success"]
    orphan.go_on()
    ended = orphan.result()
    assert not ended["success"]
    assert f"Run {ended['run_id']} no longer works on {SERIES}" in ended["errors"][0]
    assert result_of() == newer
    assert_consistent(store, database)


def test_an_orphan_whose_run_counts_as_failed_does_not_go_on(train, unharmed, result_of, store, database):
    unharmed()
    before = result_of()
    orphan = train(pause_at="optimization_results")
    orphan.wait_until_stopped()
    (job,) = training_jobs.list_jobs(database, limit=1)
    assert job.status == "running"
    training_jobs.mark_interrupted(database, "its process seemed gone", run_ids=job.run_ids)
    orphan.go_on()
    assert "it counts as ended" in orphan.result()["errors"][0]
    assert training_jobs.get(database, job.id).error_message == f"{SERIES}: its process seemed gone"
    assert result_of() == before
    assert_consistent(store, database)


def test_the_same_partition_at_the_same_time_has_one_result(train, unharmed, result_of, store, database):
    seeds = (0, 1, 2)
    whole = [unharmed(seed=seed) for seed in seeds]
    children = [train(settings={"seed": seed}) for seed in seeds]
    outcomes = [child.result() for child in children]
    won = [outcome["success"] for outcome in outcomes]
    assert any(won)
    for outcome in outcomes:
        # Told at its next step, or in the search, that another run has taken over.
        assert outcome["success"] or re.search("no longer works on|ExecutionInterrupted", outcome["errors"][0])
    assert result_of() in [result for result, success in zip(whole, won, strict=True) if success]
    assert_consistent(store, database)


def test_a_job_that_runs_out_of_memory_fails_alone(train, unharmed, result_of, database):
    whole = unharmed()
    before = result_of()
    other = SeriesKey.parse("simulated:ETH-USDT:5m")
    starved, fed = train(memory=20 * 2**20), train(other)
    if starved.wait() == 0:  # not killed by what could not get memory
        assert re.search("[Mm]emory|allocate", starved.result()["errors"][0])
    assert fed.result()["success"]
    assert result_of() == before
    assert train().result()["success"]
    assert result_of() == whole
