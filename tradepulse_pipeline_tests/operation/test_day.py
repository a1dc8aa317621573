"""After a day of operation in fast motion, every table is consistent and every stage is explained."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import dagster as dg
import numpy as np
import pytest
from typer.testing import CliRunner

from tradepulse_pipeline.cli.main import app
from tradepulse_pipeline.database.candles import load_candles
from tradepulse_pipeline.database.configurations import transitions
from tradepulse_pipeline.database.training_jobs import list_jobs
from tradepulse_pipeline.market.series import SeriesKey
from tradepulse_pipeline.orchestration.launcher import process_health
from tradepulse_pipeline.orchestration.names import CAUSE_TAG, PARTITION_TAG, WILL_RETRY_TAG
from tradepulse_pipeline_tests.operation.day import FADING, LISTED, MINUTE, MORNING, RESTATED, Day, a_day
from tradepulse_pipeline_tests.orchestration.control_room import QUIET

#: Dagster's daemons call what Python and Dagster have deprecated.
pytestmark = [*QUIET, pytest.mark.filterwarnings("ignore::DeprecationWarning")]


@pytest.fixture(scope="module")
def story() -> list[str]:
    return []


@pytest.fixture(scope="module")
def day(tmp_path_factory: pytest.TempPathFactory, story: list[str]) -> Iterator[Day]:
    """The evening of the day."""

    def tell(line: str) -> None:
        story.append(line)
        print(line)  # noqa: T201 (what a failing test shows)

    with a_day(Path(tmp_path_factory.mktemp("day")), tell) as day:
        day.pass_the_day()
        yield day


def rows(day: Day, query: str) -> list[tuple]:
    return day.database.run(lambda connection: connection.execute(query).fetchall())


def key_of(row) -> SeriesKey:
    return SeriesKey.of(row.exchange, row.pair, row.timeframe)


def retrainings(day: Day, cause: str) -> list[str]:
    return [
        one
        for job in list_jobs(day.database, limit=100)
        for one in job.config.get("causes", [])
        if one.startswith(cause)
    ]


def decays(day: Day) -> list[str]:
    """Return the causes that moves to DECAY are: two where the last night's candles came before its look, else one."""
    return [f"decayed:{n}" for (n,) in rows(day, "SELECT id FROM lifecycle_transitions WHERE to_stage = 'DECAY'")]


def test_every_training_has_ended_and_nothing_is_stuck_in_the_queue(day):
    assert rows(day, "SELECT * FROM training_job_series WHERE status IN ('pending', 'running')") == []
    declared_listed_and_restated = 3
    expected = {"completed": declared_listed_and_restated + len(decays(day))}
    assert Counter(job.status for job in list_jobs(day.database, limit=100)) == expected
    runs = day.instance.get_runs()
    assert all(run.is_finished for run in runs)
    failed = [run for run in runs if not run.is_success]
    assert {run.run_id for run in failed} >= set(day.killed)
    assert {run.run_id for run in failed} <= {*day.killed, day.restarted_under}
    assert all(run.tags[WILL_RETRY_TAG] == "true" for run in failed)
    assert all(process_health(day.instance.get_run_by_id(run_id)).status.value != "RUNNING" for run_id in day.killed)


def test_the_partitions_are_those_that_were_declared_or_listed(day):
    assert set(day.instance.get_dynamic_partitions("series")) == {str(FADING), str(RESTATED), str(LISTED)}


def test_each_series_has_one_active_version_and_every_version_is_there_once(day):
    latest = {FADING.pair: 1 + len(decays(day)), RESTATED.pair: 2, LISTED.pair: 1}
    assert [(row.pair, row.version, row.is_active) for row in day.configurations()] == [
        (pair, version, version == last) for pair, last in sorted(latest.items()) for version in range(1, last + 1)
    ]


def test_every_stage_is_led_to_by_a_chain_of_moves_with_reasons_and_figures(day):
    for row in day.configurations():
        moves = transitions(day.database, row.id)
        assert moves[0].from_stage is None
        assert [one.from_stage for one in moves[1:]] == [one.to_stage for one in moves[:-1]]
        assert moves[-1].to_stage == row.lifecycle_stage
        assert all(one.reason.endswith(".") and one.figures for one in moves)


def test_the_edge_that_turned_is_found_as_decay_told_and_trained_again_once(day):
    first, second, *_ = (row for row in day.configurations() if row.pair == FADING.pair)
    moves = transitions(day.database, first.id)
    assert [one.to_stage for one in moves] == ["VALIDATION", "DECAY"]
    assert moves[-1].figures["through"] > datetime.fromtimestamp(MORNING / 1000, UTC).isoformat()[:10]
    assert sorted(retrainings(day, "decayed")) == sorted(decays(day))
    told = [alert for alert in day.webhook.alerts if "DECAY" in alert["subject"]]
    assert moves[-1].reason in told[0]["why"]
    assert second.data_end > first.data_end


def test_restated_candles_are_revisions_make_stale_and_are_trained_on_once(day):
    first, second = (row for row in day.configurations() if row.pair == RESTATED.pair)
    assert retrainings(day, "restated") == [f"restated:{first.id}"]
    revised = rows(day, 'SELECT pair, "timestamp", volume FROM market_data_revisions ORDER BY 2')
    assert [(pair, at.timestamp() * 1000) for pair, at, _ in revised] == [
        (RESTATED.pair, MORNING - (90 - 5 * number) * MINUTE) for number in range(6)
    ]
    assert rows(day, "SELECT id FROM trained_configurations WHERE is_active AND stale_at IS NOT NULL") == []
    (alert,) = [alert for alert in day.webhook.alerts if "failed" in alert["subject"]][:1]
    assert "it is launched again by itself" in alert["what_to_do"]
    assert second.version == 2


def test_a_cause_leads_to_one_run_and_to_others_only_where_its_process_died(day):
    runs = [run for run in day.instance.get_runs() if CAUSE_TAG in run.tags]
    asked = Counter(run.tags[CAUSE_TAG] for run in runs if run.parent_run_id is None)
    assert len(asked) == 1 + len(decays(day))
    assert set(asked.values()) == {1}
    assert Counter(run.tags[CAUSE_TAG] for run in runs if run.is_success) == asked


@pytest.mark.parametrize("pair", [FADING.pair, RESTATED.pair])
def test_what_was_trained_under_faults_is_what_a_quiet_training_comes_to(day, pair):
    (row,) = [row for row in day.configurations() if row.pair == pair and row.is_active]
    result = CliRunner().invoke(app, ["replay", str(row.id)])
    assert (result.exit_code, "Identical to the bit" in result.output) == (0, True), result.output


def test_candles_are_the_exchanges_closed_ones(day):
    for series, there in day.listed_candles.items():
        stored = load_candles(day.database, series, None, None)
        step = series.timeframe.milliseconds
        closed = there.between(None, day.clock.now_ms() - step + 1)
        assert stored.end_ms <= day.clock.now_ms()
        assert np.array_equal(stored.open_time_ms, closed.open_time_ms)
        for name in ("open", "high", "low", "close", "volume"):
            assert np.array_equal(getattr(stored, name), getattr(closed, name)), name


def test_monitoring_reports_are_in_order_and_none_is_repeated(day):
    reports = rows(day, "SELECT configuration_id, through, verdict FROM monitoring_reports ORDER BY id")
    assert reports
    for configuration in {one[0] for one in reports}:
        seen = [through for one, through, _ in reports if one == configuration]
        assert seen == sorted(set(seen))
    assert all(verdict for *_, verdict in reports)


def test_a_series_never_has_two_runs_at_a_time(day):
    spans: dict[str, list[tuple[float, float]]] = {}
    for record in day.instance.get_run_records(dg.RunsFilter()):
        key = record.dagster_run.tags.get(PARTITION_TAG)
        if key:
            spans.setdefault(key, []).append((record.start_time, record.end_time))
    for of_series in spans.values():
        ordered = sorted(of_series)
        assert all(before[1] <= after[0] for before, after in itertools.pairwise(ordered))


def test_runs_do_not_pile_up_behind_waiting_ones(story, day):
    assert any("Every 5m series has a run that has not ended; it comes first." in line for line in story)
