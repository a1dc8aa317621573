"""Whether the engine has its machine code already: the first search on a machine compiles it."""

from __future__ import annotations

from pathlib import Path


def engine_is_compiled() -> bool:
    """Return whether the engine's machine code is there from an earlier run."""
    from tradepulse_pipeline.backtest.tables import hop_all

    folder = hop_all.stats.cache_path
    return folder is not None and any(Path(folder).glob("tables.hop_all-*.nbi"))
