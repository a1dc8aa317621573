"""Going on with recordings by the clock, once somebody switches it on."""

from collections.abc import Iterator

import dagster as dg

from tradepulse_pipeline.orchestration.jobs import RECORD_LIVE


@dg.schedule(
    job=RECORD_LIVE,
    cron_schedule="0 * * * *",
    default_status=dg.DefaultScheduleStatus.STOPPED,
    description="Go on recording every market that was recorded before, for an hour at a time. What happens between "
    "two runs is fetched by the later one.",
)
def keep_recording(context: dg.ScheduleEvaluationContext) -> Iterator[dg.RunRequest]:
    """Ask for a run of each recorded market."""
    for key in sorted(context.instance.get_materialized_partitions(dg.AssetKey("recordings"))):
        yield dg.RunRequest(partition_key=key, run_key=f"{key} {context.scheduled_execution_time:%Y-%m-%dT%H}")
