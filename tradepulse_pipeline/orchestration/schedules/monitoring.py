"""Monitoring by the clock: how active configurations fare on the candles that came since, once a day."""

import zlib
from typing import Final

import dagster as dg

from tradepulse_pipeline.database.retraining import active_series
from tradepulse_pipeline.orchestration.names import branch_name, monitoring_job_name
from tradepulse_pipeline.orchestration.partitions import known_series
from tradepulse_pipeline.orchestration.resources import DatabaseResource
from tradepulse_pipeline.strategies.base import Strategy

#: From a quarter past midnight on, UTC, when the candles of the day before are there: minutes in which to begin.
_FIRST_MINUTE: Final = 15
_SPREAD: Final = 30


def build_monitoring_schedule(strategy: Strategy) -> dg.ScheduleDefinition:
    """Return the schedule that has a strategy's active configurations monitored, by its monitoring job."""

    @dg.schedule(
        name=f"monitor_{branch_name(strategy)}_daily",
        job_name=monitoring_job_name(strategy),
        cron_schedule=f"{_FIRST_MINUTE + zlib.crc32(strategy.name.encode()) % _SPREAD} 0 * * *",
        default_status=dg.DefaultScheduleStatus.STOPPED,
        description=f"Run the candles that came since through every active configuration of {strategy.name}, and move "
        "its lifecycle stage where the record says so. A run per series, each day after midnight, UTC.",
        tags={"domain": "monitoring", "strategy": branch_name(strategy)},
    )
    def monitor(
        context: dg.ScheduleEvaluationContext, database: DatabaseResource
    ) -> list[dg.RunRequest] | dg.SkipReason:
        active = active_series(database.open(), strategy.name)
        if not active:
            return dg.SkipReason(f"There is no active configuration of {strategy.name}.")
        known = set(known_series(context.instance))
        if removed := [str(one) for one in active if one not in known]:
            context.log.info(f"Left out, since their partitions were removed: {', '.join(removed)}.")
        if len(removed) == len(active):
            return dg.SkipReason(f"The partition of every series with an active {strategy.name} was removed.")
        day = f"{context.scheduled_execution_time:%Y-%m-%d}"
        return [dg.RunRequest(run_key=f"{one} {day}", partition_key=str(one)) for one in active if one in known]

    return monitor
