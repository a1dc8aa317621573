"""What Dagster loads: assembly, nothing else."""

from collections.abc import Iterable, Mapping
from types import MappingProxyType

import dagster as dg

from tradepulse_pipeline.orchestration.assets.factory import build_branch
from tradepulse_pipeline.orchestration.assets.indicators import indicators
from tradepulse_pipeline.orchestration.assets.market_data import market_data
from tradepulse_pipeline.orchestration.assets.recordings import recordings
from tradepulse_pipeline.orchestration.executor import cancellable_executor
from tradepulse_pipeline.orchestration.jobs import (
    RECORD_LIVE,
    UPDATE_MARKET_DATA,
    build_monitoring_job,
    build_training_jobs,
)
from tradepulse_pipeline.orchestration.maintenance import prune_runs
from tradepulse_pipeline.orchestration.partitions import in_batches
from tradepulse_pipeline.orchestration.resources import (
    ArtifactsResource,
    DatabaseResource,
    RefusingIOManager,
    SettingsResource,
)
from tradepulse_pipeline.orchestration.schedules.candles import build_candle_schedules
from tradepulse_pipeline.orchestration.schedules.maintenance import prune_runs_nightly
from tradepulse_pipeline.orchestration.schedules.monitoring import build_monitoring_schedule
from tradepulse_pipeline.orchestration.schedules.recordings import keep_recording
from tradepulse_pipeline.orchestration.schedules.retraining import build_retraining_schedules
from tradepulse_pipeline.orchestration.sensors.alerts import alert_failed_runs, alert_stage_changes
from tradepulse_pipeline.orchestration.sensors.batches import build_failed_batches
from tradepulse_pipeline.orchestration.sensors.markets import build_declared_markets, build_new_listings
from tradepulse_pipeline.orchestration.sensors.monitoring import follow_new_candles
from tradepulse_pipeline.orchestration.sensors.retraining import build_retraining_sensors
from tradepulse_pipeline.orchestration.sensors.training_runs import (
    cancelled_trainings,
    failed_trainings,
    finished_trainings,
)
from tradepulse_pipeline.settings import load_settings
from tradepulse_pipeline.strategies.base import Strategy
from tradepulse_pipeline.strategies.own import register_own_strategies
from tradepulse_pipeline.strategies.registry import get_strategy, strategy_names


def build_definitions(
    strategies: Iterable[Strategy],
    *,
    partitions_per_run: int = 1,
    retraining_schedule: Mapping[str, str] = MappingProxyType({}),
) -> dg.Definitions:
    """Return the shared assets, and a branch of assets and a job for each of ``strategies``.

    A run of a backfill takes up to ``partitions_per_run`` series. ``retraining_schedule`` says when strategies are
    trained again, by name, as cron expressions.

    Raises
    ------
    InvalidInputError
        If it names an unknown strategy or holds what is no cron expression.
    """
    chosen = list(strategies)
    branches = [asset for strategy in chosen for asset in build_branch(strategy)]
    by_strategy = [build_training_jobs(strategy) for strategy in chosen]
    trainings = [job for jobs in by_strategy for job in jobs.values()]
    usual = [jobs["train"] for jobs in by_strategy]
    return dg.Definitions(
        assets=[recordings, *(in_batches(one, partitions_per_run) for one in (market_data, indicators, *branches))],
        jobs=[UPDATE_MARKET_DATA, RECORD_LIVE, prune_runs, *trainings, *map(build_monitoring_job, chosen)],
        schedules=[
            keep_recording,
            prune_runs_nightly,
            *build_candle_schedules(),
            *build_retraining_schedules(chosen, usual, retraining_schedule),
            *(build_monitoring_schedule(strategy) for strategy in chosen),
        ],
        sensors=[
            failed_trainings,
            cancelled_trainings,
            finished_trainings,
            alert_failed_runs,
            alert_stage_changes,
            build_failed_batches(trainings, usual),
            build_declared_markets(usual),
            build_new_listings(usual),
            *build_retraining_sensors(chosen, usual),
            follow_new_candles,
        ],
        resources={
            "settings": SettingsResource(),
            "database": DatabaseResource(),
            "artifacts": ArtifactsResource(),
            "io_manager": RefusingIOManager(),
        },
        executor=cancellable_executor,
    )


@dg.definitions
def defs() -> dg.Definitions:
    """Read which strategies of the user's own there are, when Dagster asks: not at import."""
    settings = load_settings()
    register_own_strategies(settings.own_strategies)
    return build_definitions(
        map(get_strategy, strategy_names()),
        partitions_per_run=settings.partitions_per_run,
        retraining_schedule=settings.retraining_schedule,
    )
