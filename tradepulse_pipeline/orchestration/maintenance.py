"""Keeping Dagster's own records at a size: it never deletes runs by itself."""

import shutil
from collections.abc import Collection, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

import dagster as dg
from dagster._core.execution.backfill import BulkActionsFilter, BulkActionStatus
from dagster._core.storage.dagster_run import FINISHED_STATUSES
from dagster._core.storage.tags import BACKFILL_ID_TAG, RUN_KEY_TAG, SENSOR_NAME_TAG

from tradepulse_pipeline.orchestration.failures import told_plainly
from tradepulse_pipeline.orchestration.jobs import MAX_RUNTIME_TAG
from tradepulse_pipeline.settings import load_settings

#: Runs that are read at a time.
_PAGE: Final = 500

_MOST_PARTITIONS: Final = 500

#: Files that a process which was killed left half written are older than this; one that is being written is not.
_LEFT_BEHIND: Final = timedelta(days=1)


def runs_to_keep(instance: dg.DagsterInstance) -> set[str]:
    """Return the runs that hold the state of a partition of an asset, which goes when they go.

    For each partition, that is the run of its latest materialization and of its latest attempt that came to none: what
    Dagster shows as materialized, and what it shows as failed.
    """
    storage, kept = instance.event_log_storage, set()
    for key in instance.get_asset_keys():
        ids = storage.get_latest_storage_id_by_partition(key, dg.DagsterEventType.ASSET_MATERIALIZATION).values()
        for some in _in_parts(sorted(ids), _MOST_PARTITIONS):
            latest = dg.AssetRecordsFilter(asset_key=key, storage_ids=some)
            kept |= {record.run_id for record in instance.fetch_materializations(latest, limit=len(some)).records}
        attempts = storage.get_latest_asset_partition_materialization_attempts_without_materializations(key)
        kept |= {run_id for run_id, _ in attempts.values()}
        unpartitioned = instance.get_latest_materialization_event(key)
        kept |= {unpartitioned.run_id} if unpartitioned is not None else set()
    return kept


def prunable_runs(instance: dg.DagsterInstance, before: datetime) -> Iterator[str]:
    """Yield the runs that ended before a time and that nothing depends on, the oldest first.

    Beside those that hold the state of partitions, runs of a backfill that goes on are kept, and runs that a sensor
    asked for by a key: by its run, Dagster knows that the key has been used, and asks for no second one.
    """
    kept = runs_to_keep(instance)
    unfinished = [BulkActionStatus.REQUESTED, BulkActionStatus.CANCELING, BulkActionStatus.FAILING]
    backfills = {b.backfill_id for b in instance.get_backfills(filters=BulkActionsFilter(statuses=unfinished))}
    finished = dg.RunsFilter(statuses=FINISHED_STATUSES, created_before=before)
    cursor = None
    while records := instance.get_run_records(finished, limit=_PAGE, cursor=cursor, ascending=True):
        cursor = records[-1].dagster_run.run_id
        for record in records:
            run = record.dagster_run
            is_asked_for_once = RUN_KEY_TAG in run.tags and SENSOR_NAME_TAG in run.tags
            is_old = record.end_time is not None and record.end_time < before.timestamp()
            is_in_backfill = run.tags.get(BACKFILL_ID_TAG) in backfills
            if is_old and not (is_asked_for_once or is_in_backfill or run.run_id in kept):
                yield run.run_id


def remove_stray_files(base: Path, known: Collection[str], before: datetime) -> int:
    """Remove the folders in ``base`` that are named after no known run, and were last written to before a time.

    Returns
    -------
    int
        How many there were.
    """
    strays = [folder for folder in _entries(base) if folder.is_dir() and folder.name not in known]
    old = [folder for folder in strays if _last_written(folder) < before.timestamp()]
    for folder in old:
        shutil.rmtree(folder)
    return len(old)


def remove_half_written(artifacts: Path, before: datetime) -> int:
    """Remove the temporary files that processes which were killed left among the artifacts; return how many."""
    left = [file for file in artifacts.rglob(".*.parquet.*") if file.is_file()] if artifacts.is_dir() else []
    old = [file for file in left if file.stat().st_mtime < before.timestamp()]
    for file in old:
        file.unlink(missing_ok=True)
    return len(old)


@dg.op(name="prune")
def prune(context: dg.OpExecutionContext) -> None:
    """Delete old runs with their events and what they printed."""
    with told_plainly():
        settings, instance, now = load_settings(), context.instance, datetime.now(UTC)
        n_left = 0
        if "://" not in settings.artifacts_url:
            n_left = remove_half_written(Path(settings.artifacts_url), now - _LEFT_BEHIND)
        if not settings.keep_runs_days:
            context.log.info("keep_runs_days is 0: runs are kept for ever.")
            context.add_output_metadata({"runs_deleted": 0, "half_written_files_removed": n_left})
            return
        before = now - timedelta(days=settings.keep_runs_days)
        n_deleted = 0
        for run_id in list(prunable_runs(instance, before)):
            # The logs first: what is cut off here is found again by its run.
            instance.compute_log_manager.delete_logs(prefix=[run_id])
            instance.delete_run(run_id)
            n_deleted += 1
        known = {record.dagster_run.run_id for record in _all_runs(instance)}
        n_stray = sum(
            remove_stray_files(base, known, before)
            for base in (settings.data_dir / "logs" / "runs", settings.data_dir / "dagster" / "storage")
        )
        context.log.info(
            f"{n_deleted:,} runs that ended before {before:%Y-%m-%d} deleted, with {n_stray:,} folders of runs that "
            f"were deleted before and {n_left:,} half-written files; {len(known):,} runs are left."
        )
        context.add_output_metadata(
            {
                "runs_deleted": n_deleted,
                "runs_left": len(known),
                "stray_folders_removed": n_stray,
                "half_written_files_removed": n_left,
            }
        )


@dg.job(
    name="prune_runs",
    description="Delete runs that ended more than `keep_runs_days` ago, with their events and what they printed. Runs "
    "that hold the state of a partition are kept however old they are: no asset turns 'missing'. Configurations, "
    "trainings, candles and trials are TradePulse's own and are not touched.",
    tags={"domain": "maintenance", MAX_RUNTIME_TAG: "3600"},
)
def prune_runs() -> None:
    """Delete old runs."""
    prune()


def _all_runs(instance: dg.DagsterInstance) -> Iterator[dg.RunRecord]:
    cursor = None
    while records := instance.get_run_records(limit=_PAGE, cursor=cursor):
        cursor = records[-1].dagster_run.run_id
        yield from records


def _entries(folder: Path) -> list[Path]:
    return list(folder.iterdir()) if folder.is_dir() else []


def _last_written(folder: Path) -> float:
    return max((entry.stat().st_mtime for entry in [folder, *folder.rglob("*")]), default=0.0)


def _in_parts(ids: list[int], size: int) -> Iterator[list[int]]:
    for start in range(0, len(ids), size):
        yield ids[start : start + size]
