"""Candles as a backtest reads them, with every causal column that a strategy needs."""

from typing import Final

import dagster as dg

from tradepulse_pipeline.database.corporate_actions import candles_for_training
from tradepulse_pipeline.database.surroundings import surroundings_of
from tradepulse_pipeline.errors import InvalidInputError
from tradepulse_pipeline.indicators.catalogue import ALL_INDICATORS
from tradepulse_pipeline.indicators.frame import IndicatorFrame
from tradepulse_pipeline.market.quality import assess
from tradepulse_pipeline.orchestration.assets.market_data import market_data
from tradepulse_pipeline.orchestration.failures import told_plainly
from tradepulse_pipeline.orchestration.partitions import SERIES, joint_version, series_of
from tradepulse_pipeline.orchestration.presentation import (
    candles_metadata,
    line_chart,
    links,
    place,
    simulated_metadata,
    warnings_metadata,
)
from tradepulse_pipeline.orchestration.resources import ArtifactsResource, DatabaseResource, SettingsResource
from tradepulse_pipeline.orchestration.tables import CANDLE_COLUMNS, write_frame

_COLUMNS: Final = dg.TableSchema(
    columns=[
        *(dg.TableColumn(name, kind, meaning) for name, (kind, meaning) in CANDLE_COLUMNS.items()),
        *(dg.TableColumn(indicator.name, "float64", indicator.description) for indicator in ALL_INDICATORS),
    ]
)


@dg.asset(
    deps=[market_data],
    partitions_def=SERIES,
    group_name="market",
    owners=["team:market-data"],
    kinds={"python", "parquet"},
    tags={"domain": "market"},
    code_version="3",
    metadata={"dagster/column_schema": _COLUMNS},
)
def indicators(
    context: dg.AssetExecutionContext,
    settings: SettingsResource,
    database: DatabaseResource,
    artifacts: ArtifactsResource,
) -> dg.MaterializeResult[None]:
    """The candles to train on, with **indicators**, in a Parquet file.

    Takes the span of history that was asked for, fills gaps of up to three candles forward (flagged `is_filled`; such
    a candle never makes a signal), and adds the columns that strategies read. Every value at a candle depends on that
    candle and those before it alone. The file names the fingerprint of its candles: whatever is trained on it can be
    traced to them. It also says what is **notable** about these candles: the warnings go with every result.
    """
    with told_plainly():
        history = settings.history()
        db, store = database.open(), artifacts.open()
        fingerprints: list[str] = []
        for series in series_of(context):
            stored = history.select(candles_for_training(db, series, history.start_ms, history.end_ms))
            if not len(stored):
                raise InvalidInputError(
                    f"No candles of {series} are stored in the span asked for. Materialize market_data for {series} "
                    "first, or ask for another span."
                )
            candles = stored.filled_forward()
            frame = IndicatorFrame.compute(candles, ALL_INDICATORS)
            fingerprints.append(candles.fingerprint())
            warnings = assess(candles, surroundings_of(db, series, candles), name=str(series)).warnings
            artifact = write_frame(store, series, frame, fingerprints[-1], warnings)
            n_filled = int(candles.is_filled.sum())
            context.add_asset_metadata(
                {
                    **simulated_metadata(series),
                    "verdict": f"{len(candles):,} candles with {len(ALL_INDICATORS)} indicators, "
                    f"{n_filled:,} of them filled forward, in a file of {artifact.n_bytes / 1e6:.1f} MB.",
                    **warnings_metadata(warnings),
                    "see": links(series, {"the candles": market_data.key.path}),
                    **candles_metadata(candles, fingerprints[-1]),
                    "dagster/row_count": len(candles),
                    "filled_candles": n_filled,
                    **{
                        indicator.name: line_chart(indicator.name, candles.open_time_ms, frame[indicator.name])
                        for indicator in ALL_INDICATORS
                    },
                    "file": place(artifact.url),
                },
                partition_key=str(series),
            )
    return dg.MaterializeResult(data_version=joint_version(fingerprints))
