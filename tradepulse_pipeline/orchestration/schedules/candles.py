"""New candles by the clock: a schedule per timeframe, so that each is switched on, and read, by itself.

Every minute's schedule over all timeframes would be one switch and one history of ticks for very different costs; an
automation condition asks for every partition at every tick, whatever its timeframe. Candles that have not closed are
refused by the fetching itself, by the exchange's clock: a schedule need not wait, and a candle that an exchange
publishes late comes with the next tick.
"""

from typing import Final

import dagster as dg
from dagster._core.storage.dagster_run import IN_PROGRESS_RUN_STATUSES

from tradepulse_pipeline.market.series import TIMEFRAMES, Timeframe
from tradepulse_pipeline.orchestration.jobs import UPDATE_MARKET_DATA
from tradepulse_pipeline.orchestration.names import PARTITION_TAG
from tradepulse_pipeline.orchestration.partitions import known_series

_MINUTES_PER_HOUR: Final = 60
_MINUTES_PER_DAY: Final = 1_440


def cron_of(timeframe: Timeframe) -> str:
    """Return when the candles of a timeframe close, UTC.

    Examples
    --------
    >>> [cron_of(Timeframe(name)) for name in ("1m", "15m", "1h", "8h", "1d")]
    ['* * * * *', '*/15 * * * *', '0 * * * *', '0 */8 * * *', '0 0 * * *']
    """
    if timeframe.minutes < _MINUTES_PER_HOUR:
        return f"{_every(timeframe.minutes)} * * * *"
    if timeframe.minutes < _MINUTES_PER_DAY:
        return f"0 {_every(timeframe.minutes // _MINUTES_PER_HOUR)} * * *"
    return "0 0 * * *"


def build_candle_schedules() -> list[dg.ScheduleDefinition]:
    """Return a schedule for each timeframe."""
    return [_build(Timeframe(name)) for name in TIMEFRAMES]


def _build(timeframe: Timeframe) -> dg.ScheduleDefinition:
    @dg.schedule(
        name=f"update_candles_{timeframe}",
        job=UPDATE_MARKET_DATA,
        cron_schedule=cron_of(timeframe),
        default_status=dg.DefaultScheduleStatus.STOPPED,
        description=f"Fetch the {timeframe} candle that has just closed, for every {timeframe} series that there is a "
        "partition of. A run per series, whose process takes seconds to start. Simulated series are left out: nothing "
        "happens on their markets, their candles are made up by the trainings that ask for them.",
        tags={"domain": "market"},
    )
    def update_candles(context: dg.ScheduleEvaluationContext) -> list[dg.RunRequest] | dg.SkipReason:
        series = [one for one in known_series(context.instance) if one.timeframe == timeframe]
        real = [one for one in series if not one.market.is_simulated]
        if not real:
            if series:
                return dg.SkipReason(f"Every {timeframe} series is simulated: there is no market to ask.")
            return dg.SkipReason(f"There is no partition of a {timeframe} series.")
        busy = _being_updated(context.instance, [str(one) for one in real])
        left = [one for one in real if str(one) in busy]
        if left:
            context.log.info(
                f"Left out, since a run that fetches their candles has not ended: {', '.join(map(str, left))}."
            )
        if len(left) == len(real):
            return dg.SkipReason(f"Every {timeframe} series has a run that has not ended; it comes first.")
        closed = f"{context.scheduled_execution_time:%Y-%m-%dT%H:%M}"
        return [
            dg.RunRequest(run_key=f"{one} {closed}", partition_key=str(one)) for one in real if str(one) not in busy
        ]

    return update_candles


def _being_updated(instance: dg.DagsterInstance, keys: list[str]) -> set[str]:
    """Return the series that a run of the job waits for or works on: further ones would only queue up behind it."""
    statuses = [dg.DagsterRunStatus.QUEUED, *IN_PROGRESS_RUN_STATUSES]
    filters = dg.RunsFilter(job_name=UPDATE_MARKET_DATA.name, statuses=statuses, tags={PARTITION_TAG: keys})
    return {run.tags[PARTITION_TAG] for run in instance.get_runs(filters=filters)}


def _every(n: int) -> str:
    return "*" if n == 1 else f"*/{n}"
