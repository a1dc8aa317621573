"""Watching runs, so that no training job says 'running' when nothing runs."""

import dagster as dg

from tradepulse_pipeline.orchestration.failures import first_error
from tradepulse_pipeline.orchestration.resources import DatabaseResource
from tradepulse_pipeline.orchestration.training_jobs import end_job


@dg.run_failure_sensor(
    name="failed_trainings",
    description="Marks the training job of a failed run as failed, with the run's error: also where the run's process "
    "was killed and could not do it.",
    default_status=dg.DefaultSensorStatus.RUNNING,
    minimum_interval_seconds=5,
)
def failed_trainings(context: dg.RunFailureSensorContext, database: DatabaseResource) -> None:
    """End the training job of a failed run."""
    error = first_error(context.get_step_failure_events())
    end_job(database.open(), context.dagster_run, "failed", error or "The process of the run ended without a word.")


@dg.run_status_sensor(
    run_status=dg.DagsterRunStatus.CANCELED,
    name="cancelled_trainings",
    description="Marks the training job of a cancelled run as cancelled.",
    default_status=dg.DefaultSensorStatus.RUNNING,
    minimum_interval_seconds=5,
)
def cancelled_trainings(context: dg.RunStatusSensorContext, database: DatabaseResource) -> None:
    """End the training job of a cancelled run."""
    end_job(database.open(), context.dagster_run, "cancelled", None)
