"""Old runs are deleted, and nothing that anybody builds on goes with them."""

import os
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import uuid4

import dagster as dg
import pytest
from dagster._core.execution.backfill import BulkActionStatus, PartitionBackfill

from tradepulse_pipeline.orchestration.launch import open_instance
from tradepulse_pipeline.orchestration.maintenance import prunable_runs, prune_runs

PARTS = dg.DynamicPartitionsDefinition(name="parts")
NOW = datetime.now(UTC)


@dg.asset(partitions_def=PARTS)
def candles(context: dg.AssetExecutionContext) -> dg.MaterializeResult[None]:
    """Fail where the run's tag says so."""
    if "fails" in context.run.tags:
        raise dg.Failure(description="no candles")
    return dg.MaterializeResult(metadata={"n": 1})


@dg.asset(deps=[candles], partitions_def=PARTS)
def model() -> None:
    """Follow the candles."""


@dg.asset
def summary() -> None:
    """Have no partitions."""


@pytest.fixture
def instance(database) -> Iterator[dg.DagsterInstance]:
    """The project's own instance, on PostgreSQL, without the runs of other tests."""
    with open_instance() as instance:
        for record in instance.get_run_records():
            instance.delete_run(record.dagster_run.run_id)
        instance.wipe_assets(list(instance.get_asset_keys()))
        instance.add_dynamic_partitions("parts", ["a", "b"])
        yield instance


def make(instance: dg.DagsterInstance, partition: str | None = "a", **tags: str) -> str:
    assets = [summary] if partition is None else [candles, model]
    tags = {name.replace("_", "/", 1): value for name, value in tags.items()}
    return dg.materialize(assets, partition_key=partition, instance=instance, raise_on_error=False, tags=tags).run_id


def left(instance: dg.DagsterInstance) -> set[str]:
    return {record.dagster_run.run_id for record in instance.get_run_records()}


def statuses(instance: dg.DagsterInstance) -> dict[str, object]:
    """Return what the pages of assets say of their partitions."""
    shown: dict[str, object] = {}
    for asset in (candles, model):
        storage = instance.event_log_storage
        shown[f"{asset.key} materialized"] = instance.get_materialized_partitions(asset.key)
        shown[f"{asset.key} attempts"] = set(
            storage.get_latest_asset_partition_materialization_attempts_without_materializations(asset.key)
        )
        latest = {part: instance.get_latest_materialization_event(asset.key) for part in ("a", "b")}
        shown[f"{asset.key} latest"] = {part: event and event.run_id for part, event in latest.items()}
    return shown


def prune(instance: dg.DagsterInstance) -> dict[str, object]:
    done = prune_runs.execute_in_process(instance=instance)
    (end,) = [event for event in done.all_events if event.event_type_value == "STEP_OUTPUT"]
    return {name: value.value for name, value in end.step_output_data.metadata.items()}


@pytest.fixture
def everything_is_old(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let all runs that have ended be older than runs are kept."""

    class Later(datetime):
        @classmethod
        def now(cls, tz: object = None) -> datetime:
            return datetime.now(UTC) + timedelta(days=100)

    monkeypatch.setattr("tradepulse_pipeline.orchestration.maintenance.datetime", Later)


@pytest.mark.usefixtures("everything_is_old")
class TestPruning:
    def test_no_partition_loses_its_state(self, instance: dg.DagsterInstance) -> None:
        superseded = [make(instance, "a"), make(instance, "b"), make(instance, None)]
        latest = [make(instance, "a"), make(instance, "b"), make(instance, None)]
        before = statuses(instance)
        assert before["AssetKey(['candles']) materialized"] == {"a", "b"}
        figures = prune(instance)
        assert figures["runs_deleted"] == len(superseded)
        assert left(instance) & set(superseded) == set()
        assert set(latest) <= left(instance)
        assert statuses(instance) == before
        assert instance.all_logs(superseded[0]) == []

    def test_what_failed_stays_failed_and_what_was_there_before_stays_there(self, instance: dg.DagsterInstance) -> None:
        """A partition whose last attempt failed is red, with its materialization before: both runs are needed."""
        older, good, bad, worse = make(instance), make(instance), make(instance, fails="x"), make(instance, fails="x")
        before = statuses(instance)
        assert before["AssetKey(['candles']) attempts"] == {"a"}
        prune(instance)
        assert statuses(instance) == before
        assert {good, worse} <= left(instance)
        assert left(instance) & {older, bad} == set()

    def test_runs_that_failed_downstream_hold_the_state_of_what_they_made(self, instance: dg.DagsterInstance) -> None:
        whole = make(instance)
        part = dg.materialize([candles], partition_key="a", instance=instance).run_id
        prune(instance)
        assert {whole, part} <= left(instance)

    def test_a_key_that_a_sensor_has_used_stays_used(self, instance: dg.DagsterInstance) -> None:
        asked = make(instance, dagster_run_key="cause 7", dagster_sensor_name="retraining")
        by_clock = make(instance, dagster_run_key="prune 2026-01-01", dagster_schedule_name="nightly")
        make(instance)
        prune(instance)
        assert asked in left(instance)
        assert by_clock not in left(instance)

    def test_a_backfill_that_goes_on_keeps_its_runs(self, instance: dg.DagsterInstance) -> None:
        def backfill(status: BulkActionStatus) -> str:
            key = uuid4().hex[:8]
            instance.add_backfill(
                PartitionBackfill(
                    backfill_id=key,
                    status=status,
                    from_failure=False,
                    tags={},
                    backfill_timestamp=0.0,
                    asset_selection=[candles.key],
                    serialized_asset_backfill_data="{}",
                )
            )
            return key

        going, over = backfill(BulkActionStatus.REQUESTED), backfill(BulkActionStatus.COMPLETED_SUCCESS)
        kept, pruned = make(instance, dagster_backfill=going), make(instance, dagster_backfill=over)
        make(instance)
        assert list(prunable_runs(instance, NOW + timedelta(days=1))) == [pruned]
        assert kept in left(instance)

    def test_what_runs_printed_goes_with_them_and_so_does_what_was_left_behind(
        self, instance: dg.DagsterInstance, in_project: Path
    ) -> None:
        data = in_project / ".tradepulse"
        gone, kept = make(instance), make(instance)
        strays = [data / "logs" / "runs" / "deleted-by-hand", data / "dagster" / "storage" / "deleted-by-hand"]
        for folder in (*strays, data / "logs" / "runs" / kept, data / "logs" / "runs" / gone):
            (folder / "compute_logs").mkdir(parents=True)
            (folder / "compute_logs" / "x.out").write_text("printed")
        half = data / "artifacts" / "indicators" / ".binance_BTC-USDT_5m.parquet.k3jd8"
        half.parent.mkdir(parents=True, exist_ok=True)
        half.write_text("half")
        whole = half.with_name("binance_BTC-USDT_5m.parquet")
        whole.write_text("whole")
        log_keeper = dg.DagsterInstance.from_config(str(in_project)).compute_log_manager
        instance._compute_log_manager = log_keeper  # the command line's own keeps none
        figures = prune(instance)
        assert (figures["stray_folders_removed"], figures["half_written_files_removed"]) == (2, 1)
        assert not any(path.exists() for path in (*strays, half, data / "logs" / "runs" / gone))
        assert (data / "logs" / "runs" / kept).exists()
        assert whole.read_text() == "whole"

    def test_nothing_is_deleted_where_runs_are_kept_for_ever(
        self, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("TRADEPULSE_KEEP_RUNS_DAYS", "0")
        runs = {make(instance), make(instance)}
        assert prune(instance)["runs_deleted"] == 0
        assert runs <= left(instance)


def test_young_runs_and_files_are_left_alone(instance: dg.DagsterInstance, in_project: Path) -> None:
    runs = {make(instance), make(instance)}
    stray = in_project / ".tradepulse" / "logs" / "runs" / "starting"
    half = in_project / ".tradepulse" / "artifacts" / ".x.parquet.1a2b"
    stray.mkdir(parents=True, exist_ok=True)
    half.parent.mkdir(parents=True, exist_ok=True)
    half.write_text("")
    assert prune(instance)["runs_deleted"] == 0
    assert runs <= left(instance)
    assert stray.exists()
    assert half.exists()
    long_ago = (NOW - timedelta(days=2)).timestamp()
    os.utime(half, (long_ago, long_ago))
    prune(instance)
    assert not half.exists()
