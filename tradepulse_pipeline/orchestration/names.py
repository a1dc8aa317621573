"""The names by which runs, jobs and their tags find each other."""

from __future__ import annotations

from typing import Final, Literal

from tradepulse_pipeline.strategies.base import Strategy

#: Module and attribute of what Dagster loads; ``workspace.yaml`` and pyproject.toml name the same.
DEFINITIONS: Final = ("tradepulse_pipeline.definitions", "defs")

#: What the code location is called, in ``workspace.yaml`` and pyproject.toml as in links.
LOCATION: Final = "tradepulse"

#: Run tag with the id of the training job that a run belongs to; a run without it is a training job of its own.
TRAINING_JOB_TAG: Final = "tradepulse/training_job"

#: Run tag with the failed run over several series that a run repeats for one of them.
BATCH_TAG: Final = "tradepulse/batch"

#: Dagster's own run tag with the partition that a run is for.
PARTITION_TAG: Final = "dagster/partition"

#: Run tag with the identity of what a retraining was asked for.
CAUSE_TAG: Final = "tradepulse/cause"

#: Dagster's own run tag with how often a run that ended badly is launched again.
RUN_RETRIES_TAG: Final = "dagster/max_retries"

#: Dagster's own tag on a run that failed and is launched again by itself.
WILL_RETRY_TAG: Final = "dagster/will_retry"

#: Tag on whatever was made from candles that TradePulse generated itself.
SIMULATED_TAG: Final = "tradepulse/simulated"

#: Pools that limit how many runs at a time fetch candles, and how many search: see ``dagster.yaml``.
EXCHANGE_POOL: Final = "exchange"
SEARCH_POOL: Final = "search"


def branch_name(strategy: Strategy) -> str:
    """Return how assets, groups and jobs spell a strategy: ``liquidity_sweep_v3``."""
    return strategy.name.lower()


def code_version(strategy: Strategy) -> str:
    """Return the version by which Dagster tells whether a strategy's assets were made by other code.

    A user's own strategy has another one whenever what it is loaded from has changed.
    """
    return strategy.version if strategy.origin is None else f"{strategy.version}-{strategy.origin.sha256[:12]}"


#: How much of the parameter space a job searches: as much as suits, a sample, all of it, or where it looks promising.
TrainingKind = Literal["train", "quick_look", "thorough", "fine_tune"]


def training_job_name(strategy: Strategy, kind: TrainingKind = "train") -> str:
    """Return the name of the Dagster job that trains a strategy: ``train_liquidity_sweep_v3``."""
    return f"{kind}_{branch_name(strategy)}"


def monitoring_job_name(strategy: Strategy) -> str:
    """Return the name of the Dagster job that monitors a strategy's active configurations."""
    return f"monitor_{branch_name(strategy)}"
