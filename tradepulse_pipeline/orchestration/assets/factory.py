"""The branch of assets that every strategy has, downstream of the shared candles and indicators."""

import dagster as dg

from tradepulse_pipeline.orchestration.assets.lifecycle_monitoring import build_lifecycle_monitoring
from tradepulse_pipeline.orchestration.assets.optimization_results import build_optimization_results
from tradepulse_pipeline.orchestration.assets.trained_configurations import build_trained_configurations
from tradepulse_pipeline.orchestration.assets.walk_forward_validation import build_walk_forward_validation
from tradepulse_pipeline.strategies.base import Strategy


def build_branch(strategy: Strategy) -> list[dg.AssetsDefinition]:
    """Return the assets of one strategy, in the order in which they are made."""
    return [
        build_optimization_results(strategy),
        build_walk_forward_validation(strategy),
        build_trained_configurations(strategy),
        build_lifecycle_monitoring(strategy),
    ]
