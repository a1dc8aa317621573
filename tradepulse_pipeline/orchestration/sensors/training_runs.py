"""Watching runs, so that no training job says 'running' when nothing runs, and every run of a training has its job."""

import dagster as dg

from tradepulse_pipeline.orchestration.failures import first_error
from tradepulse_pipeline.orchestration.resources import DatabaseResource
from tradepulse_pipeline.orchestration.training_jobs import end_jobs


@dg.run_failure_sensor(
    name="failed_trainings",
    description="Marks the training job of a failed run as failed, with the run's error: also where the run's process "
    "was killed and could not do it, or where it failed before it began to train.",
    default_status=dg.DefaultSensorStatus.RUNNING,
    minimum_interval_seconds=5,
)
def failed_trainings(context: dg.RunFailureSensorContext, database: DatabaseResource) -> None:
    """End the training jobs of a failed run."""
    error = first_error(context.get_step_failure_events())
    reason = error or context.failure_event.message or "The process of the run ended without a word."
    end_jobs(database.open(), context.dagster_run, context.instance, "failed", reason)


@dg.run_status_sensor(
    run_status=dg.DagsterRunStatus.CANCELED,
    name="cancelled_trainings",
    description="Marks the training job of a cancelled run as cancelled, also where it was cancelled in the queue.",
    default_status=dg.DefaultSensorStatus.RUNNING,
    minimum_interval_seconds=5,
)
def cancelled_trainings(context: dg.RunStatusSensorContext, database: DatabaseResource) -> None:
    """End the training jobs of a cancelled run."""
    end_jobs(database.open(), context.dagster_run, context.instance, "cancelled", None)


@dg.run_status_sensor(
    run_status=dg.DagsterRunStatus.SUCCESS,
    name="finished_trainings",
    description="Marks the training job of a run as completed where the run was asked for the search or its judgement "
    "alone, and could not do it.",
    default_status=dg.DefaultSensorStatus.RUNNING,
    minimum_interval_seconds=5,
)
def finished_trainings(context: dg.RunStatusSensorContext, database: DatabaseResource) -> None:
    """End the training jobs of a run that made no configuration."""
    end_jobs(database.open(), context.dagster_run, context.instance, "completed", None)
