"""What the Parquet files between the assets hold, and that only what belongs together is used together."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from tradepulse_pipeline.configurations.lineage import engine_hash
from tradepulse_pipeline.indicators.frame import IndicatorFrame
from tradepulse_pipeline.market.candles import Candles, FloatArray
from tradepulse_pipeline.market.series import SeriesKey
from tradepulse_pipeline.orchestration.artifacts import Artifact, ArtifactError, ArtifactStore
from tradepulse_pipeline.orchestration.names import branch_name
from tradepulse_pipeline.strategies.base import Strategy
from tradepulse_pipeline.validation.record import OutOfSampleRecord
from tradepulse_pipeline.validation.training import TrainingSettings

if TYPE_CHECKING:
    import polars as pl

INDICATORS: Final = "indicators"
OPTIMIZATION_RESULTS: Final = "optimization_results"
WALK_FORWARD_VALIDATION: Final = "walk_forward_validation"
TRAINED_CONFIGURATIONS: Final = "trained_configurations"

#: Type and meaning of the candles' columns in a Parquet file.
CANDLE_COLUMNS: Final[Mapping[str, tuple[str, str]]] = {
    "open_time_ms": ("int64", "Open time, UTC milliseconds"),
    "open": ("float64", "Quote currency"),
    "high": ("float64", "Quote currency"),
    "low": ("float64", "Quote currency"),
    "close": ("float64", "Quote currency"),
    "volume": ("float64", "Base currency"),
    "is_filled": ("bool", "Filled forward from the candle before; makes no signal"),
}


def branch_key(strategy: Strategy, asset: str) -> tuple[str, str]:
    """Return the asset key of a strategy's own asset: ``liquidity_sweep_v3/optimization_results``."""
    return branch_name(strategy), asset


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class StoredFrame:
    """Candles to train on and their indicator columns, as the indicators asset stored them."""

    candles: Candles
    columns: Mapping[str, FloatArray]
    fingerprint: str

    def frame(self, strategy: Strategy) -> IndicatorFrame:
        """Return what ``strategy`` sees of it."""
        return IndicatorFrame.of(self.candles, strategy.indicators, self.columns)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class StoredTrials:
    """All trials of a training, the settings that they were made with, and the file that they are in."""

    table: pl.DataFrame
    training: TrainingSettings
    artifact: Artifact


def write_frame(store: ArtifactStore, series: SeriesKey, frame: IndicatorFrame, fingerprint: str) -> Artifact:
    """Store candles and indicator columns of ``series``."""
    import polars as pl

    columns = {name: getattr(frame, name) for name in CANDLE_COLUMNS} | dict(frame.columns)
    metadata = {"series": str(series), "fingerprint": fingerprint}
    return store.write_parquet((INDICATORS,), series, pl.DataFrame(columns), metadata)


def read_frame(store: ArtifactStore, series: SeriesKey) -> StoredFrame:
    """Read what ``write_frame`` stored.

    Raises
    ------
    ArtifactError
        If there is nothing, or the file is damaged or of another series.
    """
    table, metadata, artifact = store.read_parquet((INDICATORS,), series)
    # Writable, as computed columns are: for the compiled engine, read-only arrays are another type.
    columns = {name: table[name].to_numpy(writable=True) for name in table.columns}
    candles = Candles(series.timeframe, *(columns.pop(name) for name in CANDLE_COLUMNS))
    if metadata["series"] != str(series) or candles.fingerprint() != metadata["fingerprint"]:
        raise ArtifactError(
            f"{INDICATORS} of {series}: the file {artifact.url} holds candles of {metadata['series']} or other ones "
            f"than it says. Materialize {INDICATORS} for {series} again."
        )
    return StoredFrame(candles=candles, columns=columns, fingerprint=metadata["fingerprint"])


def write_trials(
    store: ArtifactStore,
    series: SeriesKey,
    strategy: Strategy,
    trials: pl.DataFrame,
    training: TrainingSettings,
    fingerprint: str,
) -> Artifact:
    """Store all trials, with what they were made from: they are the source of the settings from here on."""
    metadata = _provenance(series, strategy, fingerprint) | {"settings": json.dumps(training.to_json_dict())}
    return store.write_parquet(branch_key(strategy, OPTIMIZATION_RESULTS), series, trials, metadata)


def read_trials(store: ArtifactStore, series: SeriesKey, strategy: Strategy, fingerprint: str) -> StoredTrials:
    """Read what ``write_trials`` stored.

    Raises
    ------
    ArtifactError
        If there is nothing, or the trials were made on other candles or by other code than now.
    """
    key = branch_key(strategy, OPTIMIZATION_RESULTS)
    table, metadata, artifact = store.read_parquet(key, series)
    _check_provenance(metadata, series, strategy, fingerprint, asset=OPTIMIZATION_RESULTS)
    training = TrainingSettings.from_json_dict(json.loads(metadata["settings"]))
    return StoredTrials(table=table, training=training, artifact=artifact)


def write_record(
    store: ArtifactStore,
    series: SeriesKey,
    strategy: Strategy,
    record: OutOfSampleRecord,
    trials: StoredTrials,
    fingerprint: str,
) -> tuple[Artifact, Artifact]:
    """Store the out-of-sample record: its trades, and its days with all the figures."""
    metadata = _provenance(series, strategy, fingerprint) | {"trials_sha256": trials.artifact.sha256}
    base = branch_key(strategy, WALK_FORWARD_VALIDATION)
    return (
        store.write_parquet((*base, "trades"), series, record.trades, metadata),
        store.write_parquet(
            (*base, "daily"), series, record.daily, metadata | {"record": json.dumps(record.to_json_dict())}
        ),
    )


def read_record(
    store: ArtifactStore, series: SeriesKey, strategy: Strategy, trials: StoredTrials, fingerprint: str
) -> OutOfSampleRecord:
    """Read what ``write_record`` stored.

    Raises
    ------
    ArtifactError
        If there is nothing, or the record is not that of these trials.
    """
    base = branch_key(strategy, WALK_FORWARD_VALIDATION)
    tables = {}
    for part in ("trades", "daily"):
        tables[part], metadata, _ = store.read_parquet((*base, part), series)
        _check_provenance(metadata, series, strategy, fingerprint, asset=WALK_FORWARD_VALIDATION)
        if metadata["trials_sha256"] != trials.artifact.sha256:
            raise _does_not_belong(series, strategy, WALK_FORWARD_VALIDATION, "trials", "those of another search")
    return OutOfSampleRecord.from_json_dict(json.loads(metadata["record"]), **tables)


def _provenance(series: SeriesKey, strategy: Strategy, fingerprint: str) -> dict[str, str]:
    return {
        "series": str(series),
        "fingerprint": fingerprint,
        "strategy": f"{strategy.name} version {strategy.version}",
        "engine": engine_hash(),
    }


def _check_provenance(
    metadata: Mapping[str, str], series: SeriesKey, strategy: Strategy, fingerprint: str, *, asset: str
) -> None:
    meanings = {"series": "series", "fingerprint": "candles", "strategy": "strategy", "engine": "code of the engine"}
    for name, expected in _provenance(series, strategy, fingerprint).items():
        if metadata[name] != expected:
            found = f"{metadata[name]}, now {expected}"
            raise _does_not_belong(series, strategy, asset, meanings[name], found)


def _does_not_belong(series: SeriesKey, strategy: Strategy, asset: str, what: str, found: str) -> ArtifactError:
    name = "/".join(branch_key(strategy, asset))
    return ArtifactError(
        f"{name} of {series} was made from something else: its {what} are {found}. Materialize {name} for {series} "
        "again, and what follows from it."
    )
