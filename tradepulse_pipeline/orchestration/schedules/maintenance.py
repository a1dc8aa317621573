"""Keeping Dagster's records at a size, by the clock."""

import dagster as dg

from tradepulse_pipeline.orchestration.maintenance import prune_runs


@dg.schedule(
    job=prune_runs,
    cron_schedule="40 3 * * *",
    # On from the start, as the purging of old ticks is: what it deletes is log, its age is a setting, and a database
    # that grows for ever ends by stopping the trainings.
    default_status=dg.DefaultScheduleStatus.RUNNING,
    description="Delete runs that ended more than `keep_runs_days` ago, every night at 03:40 UTC.",
)
def prune_runs_nightly(context: dg.ScheduleEvaluationContext) -> dg.RunRequest:
    """Ask for one run a night."""
    return dg.RunRequest(run_key=f"prune {context.scheduled_execution_time:%Y-%m-%d}")
