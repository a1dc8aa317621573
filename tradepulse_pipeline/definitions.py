"""What Dagster loads: assembly, nothing else."""

from collections.abc import Iterable

import dagster as dg

from tradepulse_pipeline.orchestration.assets.factory import build_branch
from tradepulse_pipeline.orchestration.assets.indicators import indicators
from tradepulse_pipeline.orchestration.assets.market_data import market_data
from tradepulse_pipeline.orchestration.assets.recordings import recordings
from tradepulse_pipeline.orchestration.executor import cancellable_executor
from tradepulse_pipeline.orchestration.jobs import RECORD_LIVE, UPDATE_MARKET_DATA, build_training_job
from tradepulse_pipeline.orchestration.partitions import in_batches
from tradepulse_pipeline.orchestration.resources import (
    ArtifactsResource,
    DatabaseResource,
    RefusingIOManager,
    SettingsResource,
)
from tradepulse_pipeline.orchestration.schedules.recordings import keep_recording
from tradepulse_pipeline.orchestration.sensors.batches import build_failed_batches
from tradepulse_pipeline.orchestration.sensors.markets import build_declared_markets, build_new_listings
from tradepulse_pipeline.orchestration.sensors.training_runs import cancelled_trainings, failed_trainings
from tradepulse_pipeline.settings import load_settings
from tradepulse_pipeline.strategies.base import Strategy
from tradepulse_pipeline.strategies.own import register_own_strategies
from tradepulse_pipeline.strategies.registry import get_strategy, strategy_names


def build_definitions(strategies: Iterable[Strategy], partitions_per_run: int = 1) -> dg.Definitions:
    """Return the shared assets, and a branch of assets and a job for each of ``strategies``.

    A run of a backfill takes up to ``partitions_per_run`` series.
    """
    chosen = list(strategies)
    branches = [asset for strategy in chosen for asset in build_branch(strategy)]
    trainings = [build_training_job(strategy) for strategy in chosen]
    return dg.Definitions(
        assets=[recordings, *(in_batches(one, partitions_per_run) for one in (market_data, indicators, *branches))],
        jobs=[UPDATE_MARKET_DATA, RECORD_LIVE, *trainings],
        schedules=[keep_recording],
        sensors=[
            failed_trainings,
            cancelled_trainings,
            build_failed_batches(trainings),
            build_declared_markets(trainings),
            build_new_listings(trainings),
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
    return build_definitions((get_strategy(name) for name in strategy_names()), settings.partitions_per_run)
