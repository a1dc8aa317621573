"""What the Parquet files between the assets hold, and that only what belongs together is used together."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from tradepulse_pipeline.configurations.lineage import code_hash
from tradepulse_pipeline.indicators.catalogue import ALL_INDICATORS
from tradepulse_pipeline.indicators.frame import IndicatorFrame
from tradepulse_pipeline.market.calendars import calendar_of
from tradepulse_pipeline.market.candles import Candles, FloatArray
from tradepulse_pipeline.market.series import MS_PER_DAY, SeriesKey
from tradepulse_pipeline.orchestration.artifacts import Artifact, ArtifactError, ArtifactStore
from tradepulse_pipeline.orchestration.names import branch_name
from tradepulse_pipeline.orchestration.trial_files import TrialFiles, TrialFolder, read_blocks
from tradepulse_pipeline.strategies.base import Strategy
from tradepulse_pipeline.strategies.space import ParameterSpace
from tradepulse_pipeline.validation.evidence import EvidenceReport, TrialBlocks
from tradepulse_pipeline.validation.record import OutOfSampleRecord
from tradepulse_pipeline.validation.training import TrainingSettings
from tradepulse_pipeline.validation.trials import SearchResult

INDICATORS: Final = "indicators"
OPTIMIZATION_RESULTS: Final = "optimization_results"
WALK_FORWARD_VALIDATION: Final = "walk_forward_validation"
TRAINED_CONFIGURATIONS: Final = "trained_configurations"
LIFECYCLE_MONITORING: Final = "lifecycle_monitoring"

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
    """Candles to train on and their indicator columns, as the indicators asset stored them.

    ``warnings`` are sentences about the candles: whatever is made of them carries these.
    """

    candles: Candles
    columns: Mapping[str, FloatArray]
    fingerprint: str
    warnings: tuple[str, ...] = ()

    def frame(self, strategy: Strategy) -> IndicatorFrame:
        """Return what ``strategy`` sees of it. Indicators of a user's own are computed here, by the code of now."""
        own = {one.name: one.column(self.candles) for one in strategy.indicators if one not in ALL_INDICATORS}
        return IndicatorFrame.of(self.candles, strategy.indicators, {**self.columns, **own})


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class StoredTrials:
    """What a training's searches came to, the settings that they were made with, and where all trials are."""

    found: SearchResult
    training: TrainingSettings
    folder: TrialFolder
    artifact: Artifact


def write_frame(
    store: ArtifactStore,
    series: SeriesKey,
    frame: IndicatorFrame,
    fingerprint: str,
    warnings: Sequence[str] = (),
) -> Artifact:
    """Store candles and indicator columns of ``series``, and what is notable about the candles."""
    import polars as pl

    columns = {name: getattr(frame, name) for name in CANDLE_COLUMNS} | dict(frame.columns)
    metadata = {"series": str(series), "fingerprint": fingerprint, "warnings": json.dumps(list(warnings))}
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
    arrays: dict[str, Any] = {name: columns.pop(name) for name in CANDLE_COLUMNS}
    candles = Candles(series.timeframe, **arrays, calendar=calendar_of(series.exchange))
    if metadata["series"] != str(series) or candles.fingerprint() != metadata["fingerprint"]:
        raise ArtifactError(
            f"{INDICATORS} of {series}: the file {artifact.url} holds candles of {metadata['series']} or other ones "
            f"than it says. Materialize {INDICATORS} for {series} again."
        )
    warnings = tuple(json.loads(metadata.get("warnings", "[]")))
    return StoredFrame(candles=candles, columns=columns, fingerprint=metadata["fingerprint"], warnings=warnings)


def search_version(strategy: Strategy, fingerprint: str, training: TrainingSettings, found: SearchResult) -> list[str]:
    """Return what identifies the trials of a search: what they were made from, and how many there was time for."""
    return [fingerprint, training.digest(), code_hash(strategy), str(found.total_trials)]


def trial_files(
    store: ArtifactStore,
    series: SeriesKey,
    strategy: Strategy,
    training: TrainingSettings,
    fingerprint: str,
    *,
    on_warning: Callable[[str], None],
) -> TrialFiles:
    """Return who keeps the trials of a training in files, and recalls those of an unfinished attempt."""
    key = branch_key(strategy, OPTIMIZATION_RESULTS)
    try:
        _, metadata, _ = store.read_parquet(key, series)
        finished = metadata["folder"]
    except ArtifactError:  # there is none, or nobody can read it: then nothing names its folder
        finished = None
    return TrialFiles(
        store.folder(key, series),
        _provenance(series, strategy, fingerprint) | {"training": training.digest()},
        ParameterSpace(strategy.parameters),
        finished=finished,
        on_warning=on_warning,
    )


def write_search(
    store: ArtifactStore,
    series: SeriesKey,
    strategy: Strategy,
    found: SearchResult,
    folder: TrialFolder,
    training: TrainingSettings,
    fingerprint: str,
) -> Artifact:
    """Store what the searches came to, and from what: this file is the source of the settings from here on."""
    metadata = _provenance(series, strategy, fingerprint) | {
        "settings": json.dumps(training.to_json_dict()),
        "searches": json.dumps(found.to_json_dict()),
        "folder": folder.name,
        "trials_sha256": folder.sha256,
    }
    return store.write_parquet(branch_key(strategy, OPTIMIZATION_RESULTS), series, found.best, metadata)


def read_search(store: ArtifactStore, series: SeriesKey, strategy: Strategy, fingerprint: str) -> StoredTrials:
    """Read what ``write_search`` stored.

    Raises
    ------
    ArtifactError
        If there is nothing, or the trials were made on other candles or by other code than now.
    """
    key = branch_key(strategy, OPTIMIZATION_RESULTS)
    best, metadata, artifact = store.read_parquet(key, series)
    _check_provenance(metadata, series, strategy, fingerprint, asset=OPTIMIZATION_RESULTS)
    url = store.folder(key, series, metadata["folder"]).url
    return StoredTrials(
        found=SearchResult.from_json_dict(json.loads(metadata["searches"]), best=best),
        training=TrainingSettings.from_json_dict(json.loads(metadata["settings"])),
        folder=TrialFolder(name=metadata["folder"], url=url, sha256=metadata["trials_sha256"]),
        artifact=artifact,
    )


def read_trial_blocks(
    store: ArtifactStore, series: SeriesKey, strategy: Strategy, trials: StoredTrials, frame: IndicatorFrame
) -> TrialBlocks | None:
    """Read the returns by block of every parameter set of a search; None where its time was over before that.

    Raises
    ------
    ArtifactError
        If a file is damaged.
    """
    folder = store.folder(branch_key(strategy, OPTIMIZATION_RESULTS), series, trials.folder.name)
    combination, sums, squares = read_blocks(folder)
    if not len(combination):
        return None
    return TrialBlocks(sums=sums, squares=squares, n_days=len(np.unique(frame.open_time_ms // MS_PER_DAY)))


def write_record(
    store: ArtifactStore,
    series: SeriesKey,
    strategy: Strategy,
    record: OutOfSampleRecord,
    evidence: EvidenceReport,
    trials: StoredTrials,
    fingerprint: str,
) -> tuple[Artifact, Artifact]:
    """Store the out-of-sample record: its trades, and its days with all the figures and the evidence."""
    metadata = _provenance(series, strategy, fingerprint) | {"trials_sha256": trials.folder.sha256}
    base = branch_key(strategy, WALK_FORWARD_VALIDATION)
    return (
        store.write_parquet((*base, "trades"), series, record.trades, metadata),
        store.write_parquet(
            (*base, "daily"),
            series,
            record.daily,
            metadata | {"record": json.dumps(record.to_json_dict()), "evidence": json.dumps(evidence.to_json_dict())},
        ),
    )


def read_record(
    store: ArtifactStore, series: SeriesKey, strategy: Strategy, trials: StoredTrials, fingerprint: str
) -> tuple[OutOfSampleRecord, EvidenceReport]:
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
        if metadata["trials_sha256"] != trials.folder.sha256:
            raise _does_not_belong(series, strategy, WALK_FORWARD_VALIDATION, "trials", "those of another search")
    record = OutOfSampleRecord.from_json_dict(json.loads(metadata["record"]), **tables)
    return record, EvidenceReport.from_json_dict(json.loads(metadata["evidence"]))


def _provenance(series: SeriesKey, strategy: Strategy, fingerprint: str) -> dict[str, str]:
    return {
        "series": str(series),
        "fingerprint": fingerprint,
        "strategy": f"{strategy.name} version {strategy.version}",
        "engine": code_hash(strategy),
    }


def _check_provenance(
    metadata: Mapping[str, str], series: SeriesKey, strategy: Strategy, fingerprint: str, *, asset: str
) -> None:
    code = "code of the engine" if strategy.origin is None else "code of the engine or the strategy"
    meanings = {"series": "series", "fingerprint": "candles", "strategy": "strategy", "engine": code}
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
