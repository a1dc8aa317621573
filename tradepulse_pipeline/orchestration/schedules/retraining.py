"""Training again by the clock: once a week, or as the setting ``retraining_schedule`` says for a strategy.

A schedule and not an automation condition, because only what has an active configuration is trained, with the
settings that it has, all series of a tick as one training job.
"""

import zlib
from collections.abc import Mapping, Sequence
from typing import Any, Final

import dagster as dg
from dagster._utils.schedules import is_valid_cron_string

from tradepulse_pipeline.database.retraining import scheduled
from tradepulse_pipeline.errors import InvalidInputError, one_of
from tradepulse_pipeline.orchestration.names import branch_name
from tradepulse_pipeline.orchestration.resources import DatabaseResource
from tradepulse_pipeline.orchestration.retraining import ask_for_retrainings
from tradepulse_pipeline.strategies.base import Strategy

#: The night to Sunday, UTC: from midnight on, in minutes.
_NIGHT: Final = 6 * 60


def default_cron(strategy_name: str) -> str:
    """Return a time in the night to Sunday, UTC, that follows from the name: strategies seldom share a minute.

    Examples
    --------
    >>> default_cron("LIQUIDITY_SWEEP_V3"), default_cron("SUPPLY_SHOCK_V3")
    ('25 3 * * 0', '50 2 * * 0')
    """
    hour, minute = divmod(zlib.crc32(strategy_name.encode()) % _NIGHT, 60)
    return f"{minute} {hour} * * 0"


def build_retraining_schedules(
    strategies: Sequence[Strategy], jobs: Sequence[Any], crons: Mapping[str, str]
) -> list[dg.ScheduleDefinition]:
    """Return a schedule for each strategy; ``jobs`` are their training jobs, ``crons`` the setting by name.

    Raises
    ------
    InvalidInputError
        If the setting names an unknown strategy or holds what is no cron expression.
    """
    for name, cron in crons.items():
        if name not in {strategy.name for strategy in strategies}:
            raise one_of("strategy", name, [s.name for s in strategies], where="the setting retraining_schedule")
        if not is_valid_cron_string(cron):
            raise InvalidInputError(
                f"retraining_schedule: found {cron!r} for {name}, expected a cron expression of five parts (minute, "
                f"hour, day, month, weekday; UTC) such as {default_cron(name)!r}. 'tradepulse config' shows where the "
                "setting comes from."
            )
    return [
        _build(strategy, job, crons.get(strategy.name, default_cron(strategy.name)))
        for strategy, job in zip(strategies, jobs, strict=True)
    ]


def _build(strategy: Strategy, job: Any, cron: str) -> dg.ScheduleDefinition:
    @dg.schedule(
        name=f"retrain_{branch_name(strategy)}",
        job=job,
        cron_schedule=cron,
        default_status=dg.DefaultScheduleStatus.STOPPED,
        description=f"Train {strategy.name} again on every series that has an active configuration of it, each with "
        "the settings that it was trained with, on the latest candles. Weekly, unless `retraining_schedule` says "
        "otherwise.",
        tags={"domain": "training", "strategy": branch_name(strategy)},
    )
    def retrain(
        context: dg.ScheduleEvaluationContext, database: DatabaseResource
    ) -> list[dg.RunRequest] | dg.SkipReason:
        db = database.open()
        tick = ask_for_retrainings(
            context.instance,
            context.log,
            db,
            scheduled(db, strategy.name, context.scheduled_execution_time),
            [strategy],
            because=lambda due: f"it is time, {due.at:%Y-%m-%d %H:%M} UTC.",
            asked_by=f"retrain_{branch_name(strategy)}",
        )
        return tick.requests or tick.skip_reason(f"There is no active configuration of {strategy.name}.")

    return retrain
