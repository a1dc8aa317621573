"""Dagster's web server and daemon in this process, for tests: questions are answered, ticks happen when asked for."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from dagster._core.execution.backfill import BulkActionStatus
from dagster._core.instance_for_test import instance_for_test
from dagster._core.remote_origin import InProcessCodeLocationOrigin
from dagster._core.remote_representation.external import RemoteSensor
from dagster._core.scheduler.instigation import InstigatorTick
from dagster._core.test_utils import freeze_time
from dagster._core.types.loadable_target_origin import LoadableTargetOrigin
from dagster._core.workspace.context import WorkspaceProcessContext
from dagster._core.workspace.load_target import InProcessWorkspaceLoadTarget
from dagster._daemon.backfill import execute_backfill_iteration
from dagster._daemon.sensor import execute_sensor_iteration
from dagster_graphql.test.utils import execute_dagster_graphql

from tradepulse_pipeline.orchestration.names import DEFINITIONS

#: Dagster uses what it has deprecated itself, where it loads a code location in process and answers the web UI,
#: and leaves a coroutine behind there.
QUIET = [
    pytest.mark.filterwarnings(f"ignore:.*{name}.* is deprecated:DeprecationWarning")
    for name in ("ScheduleDefinition.environment_vars", "AssetSelection.sources")
] + [pytest.mark.filterwarnings("ignore:coroutine .*shutdown_asyncgens.* was never awaited:RuntimeWarning")]

REPOSITORY = {"repositoryLocationName": "tradepulse", "repositoryName": "__repository__"}

_LAUNCH = """mutation ($parameters: LaunchBackfillParams!) { launchPartitionBackfill(backfillParams: $parameters) {
    __typename ... on LaunchBackfillSuccess { backfillId } ... on PythonError { message }
    ... on PartitionKeysNotFoundError { message } } }"""
_STATUSES = """query ($key: AssetKeyInput!) { assetNodeOrError(assetKey: $key) { ... on AssetNode {
    assetPartitionStatuses { ... on DefaultPartitionStatuses { materializedPartitions failedPartitions } } } } }"""


class ControlRoom:
    """What a person sees and does in the web UI, and what the daemon does then; runs are executed in this process."""

    def __init__(self, instance: dg.DagsterInstance, workspace: WorkspaceProcessContext) -> None:
        self.instance, self._workspace = instance, workspace
        self._now = datetime.now(UTC)

    def ask(self, query: str, **variables: object) -> Mapping[str, Any]:
        """Answer a GraphQL query."""
        result = execute_dagster_graphql(self._workspace.create_request_context(), query, variables)
        assert not result.errors, result.errors
        return result.data

    def backfill(self, **parameters: object) -> str:
        """Launch a backfill as the web UI does, let the daemon work until it has ended, and return its id."""
        launched = self.ask(_LAUNCH, parameters=parameters)["launchPartitionBackfill"]
        assert launched["__typename"] == "LaunchBackfillSuccess", launched
        for _ in range(20):
            errors = [
                error
                for error in execute_backfill_iteration(self._workspace, logging.getLogger("backfills"))
                if error is not None
            ]
            assert errors == []
            backfill = self.instance.get_backfill(launched["backfillId"])
            assert backfill is not None
            if backfill.status is not BulkActionStatus.REQUESTED:
                break
        return str(launched["backfillId"])

    @staticmethod
    def of_job(job_name: str) -> dict[str, object]:
        """Return how the job's page names what a backfill is of."""
        return {"selector": {"repositorySelector": REPOSITORY, "partitionSetName": f"{job_name}_partition_set"}}

    def runs_of(self, backfill_id: str) -> list[dg.DagsterRun]:
        """Return the runs of a backfill."""
        return list(self.instance.get_runs(dg.RunsFilter(tags={"dagster/backfill": backfill_id})))

    def partitions(self, asset: dg.AssetKey) -> tuple[set[str], set[str]]:
        """Return which partitions of an asset are materialized, and which have failed."""
        node = self.ask(_STATUSES, key={"path": asset.path})["assetNodeOrError"]["assetPartitionStatuses"]
        return set(node["materializedPartitions"]), set(node["failedPartitions"])

    def tick(self, sensor: str) -> InstigatorTick:
        """Let the daemon look after the sensors, as long after the last time as any of them asks for."""
        self._now += timedelta(hours=1)
        with freeze_time(self._now):
            list(execute_sensor_iteration(self._workspace, logging.getLogger("sensors"), None, None))
        found = self._sensor(sensor)
        return self.instance.get_ticks(found.get_remote_origin_id(), found.selector_id, limit=1)[0]

    def switch_off(self, sensor: str) -> None:
        """Switch a sensor off."""
        found = self._sensor(sensor)
        self.instance.stop_sensor(found.get_remote_origin_id(), found.selector_id, found)

    def _sensor(self, name: str) -> RemoteSensor:
        (location,) = self._workspace.create_request_context().code_locations
        (repository,) = location.get_repositories().values()
        return repository.get_sensor(name)


@contextmanager
def control_room(folder: Path) -> Iterator[ControlRoom]:
    """Open a control room with an instance of its own in ``folder``, in the project of the working directory."""
    origin = InProcessCodeLocationOrigin(
        LoadableTargetOrigin(
            executable_path=sys.executable, module_name=DEFINITIONS[0], attribute=DEFINITIONS[1], working_directory="."
        ),
        location_name="tradepulse",
    )
    with (
        instance_for_test(
            temp_dir=str(folder), synchronous_run_coordinator=True, synchronous_run_launcher=True
        ) as instance,
        WorkspaceProcessContext(instance, InProcessWorkspaceLoadTarget(origin)) as workspace,
    ):
        yield ControlRoom(instance, workspace)
