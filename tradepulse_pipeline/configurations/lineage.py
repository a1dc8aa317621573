"""Where a result comes from: everything that a repetition needs, and what tells whether it ran on the same engine."""

from __future__ import annotations

import hashlib
import importlib.metadata
import platform
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, Self

import tradepulse_pipeline
from tradepulse_pipeline.errors import InvalidInputError
from tradepulse_pipeline.market.candles import Candles
from tradepulse_pipeline.strategies.base import Strategy
from tradepulse_pipeline.validation.training import TrainingSettings

#: The packages whose code computes results.
ENGINE_PACKAGES: Final = ("market", "indicators", "strategies", "backtest", "optimizers", "validation")

#: The distributions whose versions can move a result.
DEPENDENCIES: Final = (
    "numpy",
    "scipy",
    "numba",
    "llvmlite",
    "polars",
    "pandas",
    "bidask",
    "optuna",
    "scikit-optimize",
    "scikit-learn",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Lineage:
    """What a configuration was made from and with."""

    #: SHA-256 of the candles that the engine saw.
    data_fingerprint: str
    #: Open time of the first candle, UTC.
    data_start: datetime
    #: Close time of the last candle, UTC.
    data_end: datetime
    strategy_version: str
    #: The whole of ``TrainingSettings``: side, costs, optimiser and its settings, seed, windows.
    settings: dict[str, Any]
    settings_digest: str
    optimizer: str
    seed: int
    #: Trials of all searches together.
    n_trials: int
    code_version: str
    #: See ``code_hash``.
    engine_hash: str
    #: Of Python and of the packages that can move a result.
    dependency_versions: dict[str, str]
    #: The orchestrator's run.
    run_id: str

    def to_json_dict(self) -> dict[str, Any]:
        """Return the lineage as JSON values."""
        return {
            **asdict(self),
            "data_start": self.data_start.isoformat(),
            "data_end": self.data_end.isoformat(),
        }

    @classmethod
    def from_json_dict(cls, values: Mapping[str, Any]) -> Self:
        """Read what ``to_json_dict`` wrote.

        Raises
        ------
        InvalidInputError
            If a field is missing or unknown.
        """
        expected, found = set(cls.__dataclass_fields__), set(values)
        if expected != found:
            raise InvalidInputError(
                f"Lineage: {sorted(expected - found)} are missing, {sorted(found - expected)} are unknown. It was "
                "written by another version of TradePulse."
            )
        times = {name: datetime.fromisoformat(values[name]) for name in ("data_start", "data_end")}
        return cls(**{**values, **times})


def collect_lineage(
    candles: Candles, strategy: Strategy, settings: TrainingSettings, *, n_trials: int, run_id: str
) -> Lineage:
    """Gather the lineage of a training on ``candles``, which are those that the engine saw (short gaps filled)."""
    return Lineage(
        data_fingerprint=candles.fingerprint(),
        data_start=datetime.fromtimestamp(int(candles.open_time_ms[0]) / 1000, UTC),
        data_end=datetime.fromtimestamp(candles.end_ms / 1000, UTC),
        strategy_version=strategy.version,
        settings=settings.to_json_dict(),
        settings_digest=settings.digest(),
        optimizer=settings.search.method,
        seed=settings.search.seed,
        n_trials=n_trials,
        code_version=tradepulse_pipeline.__version__,
        engine_hash=code_hash(strategy),
        dependency_versions={
            "python": platform.python_version(),
            **{name: importlib.metadata.version(name) for name in DEPENDENCIES},
        },
        run_id=run_id,
    )


def code_hash(strategy: Strategy) -> str:
    """Return the SHA-256 of the code that computes the results of ``strategy``.

    That of the engine; for a user's own strategy with what it was loaded from, which is not part of the engine.
    """
    if strategy.origin is None:
        return engine_hash()
    return hashlib.sha256(f"{engine_hash()} {strategy.origin.sha256}".encode()).hexdigest()


def engine_hash(package: Path = Path(tradepulse_pipeline.__file__).parent) -> str:
    """Return the SHA-256 over names and contents of the source files that compute results."""
    digest = hashlib.sha256()
    for name in ENGINE_PACKAGES:
        for path in sorted((package / name).rglob("*.py")):
            content = path.read_bytes()
            digest.update(f"{path.relative_to(package).as_posix()}\0{len(content)}\0".encode())
            digest.update(content)
    return digest.hexdigest()
