"""What a person launches: trainings of each strategy, with presets, fetching candles, and monitoring."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Final, NamedTuple

import dagster as dg
from dagster._core.definitions.assets.graph.asset_graph import AssetGraph
from dagster._core.definitions.unresolved_asset_job_definition import UnresolvedAssetJobDefinition

from tradepulse_pipeline.orchestration.names import TrainingKind, branch_name, monitoring_job_name, training_job_name
from tradepulse_pipeline.orchestration.resources import SettingsResource
from tradepulse_pipeline.orchestration.tables import LIFECYCLE_MONITORING, TRAINED_CONFIGURATIONS, branch_key
from tradepulse_pipeline.strategies.base import Strategy

#: Run tag with the seconds after which run monitoring ends a run: less than dagster.yaml gives to any run.
MAX_RUNTIME_TAG: Final = "dagster/max_runtime"

_HOUR: Final = 3_600

UPDATE_MARKET_DATA = dg.define_asset_job(
    "update_market_data",
    selection=dg.AssetSelection.assets("market_data"),
    description="Fetch the candles that are missing, and look whether they are fit to train on. One run per series.",
    tags={"domain": "market", MAX_RUNTIME_TAG: str(6 * _HOUR)},
)

RECORD_LIVE = dg.define_asset_job(
    "record_live",
    selection=dg.AssetSelection.assets("recordings"),
    description="Record trades, the order book and closing candles of one market as they happen, for the `minutes` "
    "that its configuration says.",
    # A recording may take as long as any run may, also where runs are given less.
    tags={"domain": "market", MAX_RUNTIME_TAG: str(24 * _HOUR)},
)


class TrainingPreset(NamedTuple):
    """A job that trains: what it is for, the defaults of the Launchpad that it changes, and its time at most."""

    purpose: str
    defaults: Mapping[str, object]
    hours: int


PRESETS: Final[Mapping[TrainingKind, TrainingPreset]] = {
    "train": TrainingPreset(
        "Every combination is tried where that takes less than a minute, else 1,000 drawn at random.", {}, 24
    ),
    "quick_look": TrainingPreset(
        "**Quick look**: 1,000 combinations drawn at random in each train window, to see whether a market is worth "
        "more. The quickest of the presets; what it finds is seldom the best that there is.",
        {"method": "random", "budget": 1_000},
        4,
    ),
    "thorough": TrainingPreset(
        "**Thorough**: the whole grid, every combination, in each train window. It takes the longest where history is "
        "long or a strategy decides often, and misses nothing that is in the grid. The more is tried, the better "
        "luck alone looks; the evidence counts that.",
        {"method": "grid"},
        24,
    ),
    "fine_tune": TrainingPreset(
        "**Fine-tune**: Bayesian optimisation over all parameters, which learns from its trials where better ones may "
        "be and tries those. Few trials, each chosen with care: it takes longer per trial than the others, and "
        "is for a market of which a quick look promises something.",
        {"method": "bayesian"},
        24,
    ),
}


def build_training_jobs(strategy: Strategy) -> dict[TrainingKind, UnresolvedAssetJobDefinition]:
    """Return the jobs that train ``strategy`` on one series, from candles to a stored configuration."""
    return {kind: _training_job(strategy, kind, preset) for kind, preset in PRESETS.items()}


def _training_job(strategy: Strategy, kind: TrainingKind, preset: TrainingPreset) -> UnresolvedAssetJobDefinition:
    settings = SettingsResource.for_strategy(strategy, **preset.defaults)

    class TrainingJob(UnresolvedAssetJobDefinition):
        """An asset job with settings of its own: their defaults are what its Launchpad, backfills and schedules use.

        A run configuration given to the job would not show in the Launchpad before a partition is chosen there, and
        be lost altogether where a run is given some settings of its own.
        """

        def resolve(
            self,
            asset_graph: AssetGraph,
            default_executor_def: dg.ExecutorDefinition | None = None,
            resource_defs: Mapping[str, dg.ResourceDefinition] | None = None,
        ) -> dg.JobDefinition:
            keys, own = self.selection.resolve(asset_graph), {"settings": settings.get_resource_definition()}
            assets = [_bound(asset, own) for asset in asset_graph.assets_defs if _is_made(asset, keys)]
            return super().resolve(
                AssetGraph.from_assets(assets), default_executor_def, {**(resource_defs or {}), **own}
            )

    return TrainingJob(
        training_job_name(strategy, kind),
        selection=dg.AssetSelection.assets(list(branch_key(strategy, TRAINED_CONFIGURATIONS))).upstream(),
        description=f"Train {strategy.name}: candles, indicators, search, walk-forward validation, configuration. "
        f"{preset.purpose}\n\n*Materialize all…* trains the series that you choose or add there; *Open launchpad*, "
        "behind the arrow beside it, trains one and shows every setting with its default.",
        tags={"strategy": branch_name(strategy), MAX_RUNTIME_TAG: str(preset.hours * _HOUR)},
    )


def build_monitoring_job(strategy: Strategy) -> UnresolvedAssetJobDefinition:
    """Return the job that looks at the active configuration of ``strategy`` on one series; it fetches no candles."""
    return dg.define_asset_job(
        monitoring_job_name(strategy),
        selection=dg.AssetSelection.assets(list(branch_key(strategy, LIFECYCLE_MONITORING))),
        description=f"Look at the active configuration of {strategy.name} on the stored candles that came after its "
        "training: paper trades, death signals, and the lifecycle stage that follows. One run per series.",
        tags={"domain": "monitoring", "strategy": branch_name(strategy), MAX_RUNTIME_TAG: str(_HOUR)},
    )


def _is_made(asset: dg.AssetsDefinition, keys: Collection[dg.AssetKey]) -> bool:
    """Return whether the assets or the checks of a definition are among those of ``keys``."""
    return any(key in keys for key in (*asset.keys, *(check.asset_key for check in asset.check_keys)))


def _bound(asset: dg.AssetsDefinition, own: Mapping[str, dg.ResourceDefinition]) -> dg.AssetsDefinition:
    """Return the definition with ``own`` resources in the place of those of the same name that it was bound to."""
    bound = {name: own.get(name, resource) for name, resource in asset.resource_defs.items()}
    return type(asset).dagster_internal_init(**{**asset.get_attributes_dict(), "resource_defs": bound})
