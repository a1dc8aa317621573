"""The series that are followed: those with a partition, and which of them are there because a list names them."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Final

import dagster as dg
from dagster._core.definitions.run_request import InstigatorType
from dagster._core.scheduler.instigation import InstigatorStatus
from dagster._core.storage.dagster_run import IN_PROGRESS_RUN_STATUSES
from dagster._daemon.types import DaemonStatus

from tradepulse_pipeline.orchestration.names import PARTITION_TAG
from tradepulse_pipeline.orchestration.partitions import SERIES_DIMENSION

#: The sensor that watches the list ``markets`` of the settings.
DECLARED_MARKETS: Final = "declared_markets"

#: What Dagster's key-value store holds per series that was added because the list names it.
_MARK: Final = "tradepulse/declared/"


def mark_declared(instance: dg.DagsterInstance, keys: Iterable[str]) -> None:
    """Remember, before their partitions are added, that series are there because the list names them."""
    pairs = {f"{_MARK}{key}": "yes" for key in keys}
    if pairs:
        instance.daemon_cursor_storage.set_cursor_values(pairs)


def forget_declared(instance: dg.DagsterInstance, keys: Iterable[str]) -> None:
    """Forget what :func:`mark_declared` remembered."""
    pairs = dict.fromkeys((f"{_MARK}{key}" for key in keys), "")
    if pairs:
        instance.daemon_cursor_storage.set_cursor_values(pairs)


def declared_among(instance: dg.DagsterInstance, keys: Collection[str]) -> set[str]:
    """Return those of ``keys`` that are there because the list names, or named, them."""
    if not keys:
        return set()
    marks = instance.daemon_cursor_storage.get_cursor_values({f"{_MARK}{key}" for key in keys})
    return {key for key in keys if marks.get(f"{_MARK}{key}")}


def follow(instance: dg.DagsterInstance, keys: Collection[str]) -> list[str]:
    """Add the partitions of series that the list names, and return those that are new."""
    there = set(instance.get_dynamic_partitions(SERIES_DIMENSION))
    new = [key for key in keys if key not in there]
    if new:
        mark_declared(instance, new)
        instance.add_dynamic_partitions(SERIES_DIMENSION, new)
    return new


def unfollow(instance: dg.DagsterInstance, key: str) -> tuple[bool, int]:
    """Remove a series' partition; return whether there was one, and how many runs were stopped."""
    n_stopped = stop_runs(instance, key)
    was_there = key in instance.get_dynamic_partitions(SERIES_DIMENSION)
    if was_there:
        instance.delete_dynamic_partition(SERIES_DIMENSION, key)
    forget_declared(instance, [key])
    return was_there, n_stopped


def stop_runs(instance: dg.DagsterInstance, key: str) -> int:
    """Cancel the runs of a series that wait or work, and return how many that were.

    A run whose partition goes away would do all of its work, and fail then.
    """
    statuses = [dg.DagsterRunStatus.QUEUED, *IN_PROGRESS_RUN_STATUSES]
    runs = instance.get_runs(dg.RunsFilter(tags={PARTITION_TAG: key}, statuses=statuses))
    return sum(instance.run_coordinator.cancel_run(run.run_id) for run in runs)


def sensor_is_on(instance: dg.DagsterInstance, name: str, *, by_default: bool) -> bool:
    """Whether a sensor is switched on."""
    states = [
        state.status
        for state in instance.all_instigator_state(instigator_type=InstigatorType.SENSOR)
        if state.instigator_name == name and state.status is not InstigatorStatus.DECLARED_IN_CODE
    ]
    return InstigatorStatus.RUNNING in states if states else by_default


def daemon_is_running(instance: dg.DagsterInstance) -> bool:
    """Whether Dagster's daemon, which makes sensors tick, gave a sign of life lately."""
    statuses: dict[str, DaemonStatus] = dict(instance.get_daemon_statuses(["SENSOR"]))
    return any(status.healthy for status in statuses.values())
