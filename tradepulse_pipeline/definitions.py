"""What Dagster loads: assembly, nothing else."""

import dagster as dg

from tradepulse_pipeline.orchestration.assets.factory import build_branch
from tradepulse_pipeline.orchestration.assets.indicators import indicators
from tradepulse_pipeline.orchestration.assets.market_data import market_data
from tradepulse_pipeline.orchestration.executor import cancellable_executor
from tradepulse_pipeline.orchestration.jobs import UPDATE_MARKET_DATA, build_training_job
from tradepulse_pipeline.orchestration.resources import (
    ArtifactsResource,
    DatabaseResource,
    RefusingIOManager,
    SettingsResource,
)
from tradepulse_pipeline.orchestration.sensors import cancelled_trainings, failed_trainings
from tradepulse_pipeline.strategies.registry import get_strategy, strategy_names

_STRATEGIES = [get_strategy(name) for name in strategy_names()]

defs = dg.Definitions(
    assets=[market_data, indicators, *(asset for strategy in _STRATEGIES for asset in build_branch(strategy))],
    jobs=[UPDATE_MARKET_DATA, *(build_training_job(strategy) for strategy in _STRATEGIES)],
    sensors=[failed_trainings, cancelled_trainings],
    resources={
        "settings": SettingsResource(),
        "database": DatabaseResource(),
        "artifacts": ArtifactsResource(),
        "io_manager": RefusingIOManager(),
    },
    executor=cancellable_executor,
)
