"""The dimensions of partitions, added to while the system runs: series to train, and markets to record."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from contextlib import suppress
from typing import Final

import dagster as dg

from tradepulse_pipeline.errors import InvalidInputError
from tradepulse_pipeline.market.series import Market, SeriesKey
from tradepulse_pipeline.orchestration.names import SIMULATED_TAG

SERIES_DIMENSION: Final = "series"
SERIES: Final = dg.DynamicPartitionsDefinition(name=SERIES_DIMENSION)

#: ``binance:BTC-USDT``. A dimension of its own: a recording, which is long, must not keep a series' trainings waiting.
MARKETS_DIMENSION: Final = "markets"
MARKETS: Final = dg.DynamicPartitionsDefinition(name=MARKETS_DIMENSION)


def series_of(context: dg.AssetExecutionContext) -> list[SeriesKey]:
    """Return the series that a step is asked for: one as a rule, several in a run over a range of partitions.

    A run over simulated candles gets the tag that says so.

    Raises
    ------
    InvalidInputError
        If a partition was added whose key is not ``exchange:BASE-QUOTE:timeframe``: Dagster takes any text.
    """
    series = [SeriesKey.parse(key) for key in context.partition_keys]
    if any(one.market.is_simulated for one in series) and SIMULATED_TAG not in context.run.tags:
        context.instance.add_run_tags(context.run.run_id, {SIMULATED_TAG: "true"})
    return series


def known_series(instance: dg.DagsterInstance) -> list[SeriesKey]:
    """Return the series that there are partitions of; keys that are none, which Dagster takes as well, are left out."""
    found = []
    for key in instance.get_dynamic_partitions(SERIES_DIMENSION):
        with suppress(InvalidInputError):
            found.append(SeriesKey.parse(key))
    return found


def markets_of(context: dg.AssetExecutionContext) -> list[Market]:
    """Return the markets that a step is asked for.

    Raises
    ------
    InvalidInputError
        If a partition was added whose key is not ``exchange:BASE-QUOTE``.
    """
    return [Market.parse_key(key) for key in context.partition_keys]


def in_batches(asset: dg.AssetsDefinition, partitions_per_run: int) -> dg.AssetsDefinition:
    """Return the asset as backfills make it: a run per series, or one for up to ``partitions_per_run`` of them.

    All assets of a job have to agree. Batches are safe with one dimension of partitions only: Dagster's backfills of a
    job over two dimensions make the first partition of a batch and call them all done.
    """
    if partitions_per_run == 1:
        return asset
    return asset.with_attributes(backfill_policy=dg.BackfillPolicy.multi_run(partitions_per_run))


def joint_version(parts: Sequence[str]) -> dg.DataVersion:
    """Return the data version of a step from what identifies the data of each of its series."""
    return dg.DataVersion(parts[0] if len(parts) == 1 else hashlib.sha256("\n".join(parts).encode()).hexdigest())
