"""Training again when there is a cause to: a sensor for each cause, over all strategies.

These are sensors and not automation conditions because what they watch are rows of TradePulse's own tables, one by
one: a stage, a mark, an age, a report. Conditions know materialisations, data versions and the clock: a data version
changes with every new candle, not only when one is restated; freshness belongs to an asset, not to its partitions;
and each condition would ask for runs of its own, where one training job is wanted for all series of a tick, each with
the settings that it was trained with.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import dagster as dg

from tradepulse_pipeline.database import retraining
from tradepulse_pipeline.database.connection import Database
from tradepulse_pipeline.database.retraining import Due
from tradepulse_pipeline.database.values import milliseconds_of
from tradepulse_pipeline.market.sources.times import iso_utc
from tradepulse_pipeline.orchestration.resources import DatabaseResource
from tradepulse_pipeline.orchestration.retraining import ask_for_retrainings
from tradepulse_pipeline.settings import load_settings
from tradepulse_pipeline.strategies.base import Strategy

#: Runs that a tick asks for; what is due beyond is asked for by the next ones.
MOST_PER_TICK: Final = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Cause:
    """A cause of retrainings, and the sensor that watches for it."""

    sensor_name: str
    description: str
    find: Callable[[Database], list[Due]]
    because: Callable[[Due], str]
    nothing: Callable[[], str]
    interval_seconds: int = 60


def _aged(database: Database) -> list[Due]:
    max_age_days = load_settings().max_age_days
    return retraining.aged(database, max_age_days=max_age_days) if max_age_days else []


def _none_is_too_old() -> str:
    max_age_days = load_settings().max_age_days
    if not max_age_days:
        return "No age is too old: max_age_days is 0."
    return f"No active configuration is older than {max_age_days} days (max_age_days)."


def _since(due: Due) -> str:
    return iso_utc(milliseconds_of(due.at))


CAUSES: Final = (
    Cause(
        sensor_name="retrain_decayed",
        description="Trains again what is in DECAY: the stage that monitoring leads to when the paper record says that "
        "a configuration no longer works.",
        find=retraining.decayed,
        because=lambda due: f"it is in DECAY since {_since(due)}: {due.detail}",
        nothing=lambda: "No active configuration is in DECAY.",
    ),
    Cause(
        sensor_name="retrain_restated",
        description="Trains again what was trained on candles that have become others: restated by their exchange, "
        "set aside, or added to.",
        find=retraining.restated,
        because=lambda due: f"its candles have become others: {due.detail}.",
        nothing=lambda: "Every active configuration was trained on the candles that are stored.",
    ),
    Cause(
        sensor_name="retrain_aged",
        description="Trains again what is older than the setting `max_age_days` allows.",
        find=_aged,
        because=lambda due: f"it is {due.detail} days old.",
        nothing=_none_is_too_old,
        interval_seconds=3600,
    ),
    Cause(
        sensor_name="retrain_challenged",
        description="Trains again what another parameter set of its search has beaten, by the latest monitoring "
        "report, on candles that came after the training.",
        find=retraining.challenged,
        because=lambda due: f"there is a better challenger: {due.detail}",
        nothing=lambda: "No active configuration has a better challenger.",
    ),
)


def build_retraining_sensors(strategies: Sequence[Strategy], jobs: Sequence[Any]) -> list[dg.SensorDefinition]:
    """Return a sensor for each cause; ``jobs`` are the training jobs of ``strategies``."""
    return [_build(cause, strategies, jobs) for cause in CAUSES]


def _build(cause: Cause, strategies: Sequence[Strategy], jobs: Sequence[Any]) -> dg.SensorDefinition:
    @dg.sensor(
        name=cause.sensor_name,
        jobs=jobs,
        minimum_interval_seconds=cause.interval_seconds,
        default_status=dg.DefaultSensorStatus.STOPPED,
        description=f"{cause.description} Once for one cause: what fails is not tried again by itself, but by you, "
        "with 'Failed and missing' in the dialog of its training job.",
        tags={"domain": "training"},
    )
    def retrain(context: dg.SensorEvaluationContext, database: DatabaseResource) -> dg.SensorResult | dg.SkipReason:
        db = database.open()
        tick = ask_for_retrainings(
            context.instance,
            context.log,
            db,
            cause.find(db),
            strategies,
            because=cause.because,
            asked_by=cause.sensor_name,
            most=MOST_PER_TICK,
        )
        return dg.SensorResult(run_requests=tick.requests) if tick.requests else tick.skip_reason(cause.nothing())

    return retrain
