"""What Dagster loads: assembly, nothing else."""

from collections.abc import Iterable

import dagster as dg

from tradepulse_pipeline.orchestration.assets.factory import build_branch
from tradepulse_pipeline.orchestration.assets.indicators import indicators
from tradepulse_pipeline.orchestration.assets.market_data import market_data
from tradepulse_pipeline.orchestration.assets.recordings import recordings
from tradepulse_pipeline.orchestration.executor import cancellable_executor
from tradepulse_pipeline.orchestration.jobs import RECORD_LIVE, UPDATE_MARKET_DATA, build_training_job
from tradepulse_pipeline.orchestration.resources import (
    ArtifactsResource,
    DatabaseResource,
    RefusingIOManager,
    SettingsResource,
)
from tradepulse_pipeline.orchestration.schedules.recordings import keep_recording
from tradepulse_pipeline.orchestration.sensors.training_runs import cancelled_trainings, failed_trainings
from tradepulse_pipeline.settings import load_settings
from tradepulse_pipeline.strategies.base import Strategy
from tradepulse_pipeline.strategies.own import register_own_strategies
from tradepulse_pipeline.strategies.registry import get_strategy, strategy_names


def build_definitions(strategies: Iterable[Strategy]) -> dg.Definitions:
    """Return the shared assets, and a branch of assets and a job for each of ``strategies``."""
    chosen = list(strategies)
    return dg.Definitions(
        assets=[
            market_data,
            recordings,
            indicators,
            *(asset for strategy in chosen for asset in build_branch(strategy)),
        ],
        jobs=[UPDATE_MARKET_DATA, RECORD_LIVE, *(build_training_job(strategy) for strategy in chosen)],
        schedules=[keep_recording],
        sensors=[failed_trainings, cancelled_trainings],
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
    register_own_strategies(load_settings().own_strategies)
    return build_definitions(get_strategy(name) for name in strategy_names())
