"""What a person launches: a training per strategy, and the fetching of candles alone."""

from __future__ import annotations

import dagster as dg
from dagster._core.definitions.unresolved_asset_job_definition import UnresolvedAssetJobDefinition

from tradepulse_pipeline.orchestration.names import branch_name, training_job_name
from tradepulse_pipeline.orchestration.tables import TRAINED_CONFIGURATIONS, branch_key
from tradepulse_pipeline.strategies.base import Strategy

UPDATE_MARKET_DATA = dg.define_asset_job(
    "update_market_data",
    selection=dg.AssetSelection.assets("market_data"),
    description="Fetch the candles that are missing, and look whether they are fit to train on. One run per series.",
    tags={"domain": "market"},
)

RECORD_LIVE = dg.define_asset_job(
    "record_live",
    selection=dg.AssetSelection.assets("recordings"),
    description="Record trades, the order book and closing candles of one market as they happen, for the `minutes` "
    "that its configuration says.",
    # A recording may take as long as any run may, also where runs are given less.
    tags={"domain": "market", "dagster/max_runtime": "86400"},
)


def build_training_job(strategy: Strategy) -> UnresolvedAssetJobDefinition:
    """Return the job that trains ``strategy`` on one series, from candles to a stored configuration."""
    return dg.define_asset_job(
        training_job_name(strategy),
        selection=dg.AssetSelection.assets(list(branch_key(strategy, TRAINED_CONFIGURATIONS))).upstream(),
        description=f"Train {strategy.name}: candles, indicators, search, walk-forward validation, configuration. "
        "*Materialize all…* trains the series that you choose or add there; *Open launchpad*, behind the arrow beside "
        "it, trains one and shows every setting with its default.",
        tags={"strategy": branch_name(strategy)},
    )
