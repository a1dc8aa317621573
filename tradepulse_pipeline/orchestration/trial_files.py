"""The files of all trials of a training, written as they are made: a search that was killed goes on from them."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from datetime import timedelta
from types import TracebackType
from typing import TYPE_CHECKING, Final, Self

import numpy as np

from tradepulse_pipeline.market.candles import FloatArray, IntArray
from tradepulse_pipeline.optimizers.search import Trials
from tradepulse_pipeline.orchestration.artifacts import ArtifactError, ArtifactFolder
from tradepulse_pipeline.strategies.space import ParameterSpace
from tradepulse_pipeline.validation.trials import (
    N_BLOCKS,
    blocks_of_table,
    blocks_table,
    trials_of_table,
    trials_table,
)
from tradepulse_pipeline.validation.walk_forward import LATEST

if TYPE_CHECKING:
    import polars as pl

#: Trials that were made since the last file are written when there are so many, or when it was so long ago.
MOST_HELD: Final = 262_144
LONGEST_HELD_S: Final = 10.0

#: Trials of searches that were never finished are removed when a search finds them so old.
KEPT_FOR: Final = timedelta(days=7)

TRIALS: Final = "trials"
BLOCKS: Final = "blocks"


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialFolder:
    """Where the trials of a finished search are: ``<url>/trials/*.parquet`` and ``<url>/blocks/*.parquet``.

    ``sha256`` is the hash of what ``sha256sum *.parquet`` prints among the trials.
    """

    name: str
    url: str
    sha256: str


class TrialFiles:
    """Keeps trials in Parquet files, and recalls those that an unfinished attempt at the same training left.

    Files are written by a thread beside the search. Used as a context manager; what is not written yet when a search
    is interrupted is written at the end of the block.

    Parameters
    ----------
    base : ArtifactFolder
        The folder of the series: there is a folder in it for each training.
    identity : mapping
        What the trials depend on. Trials of the same identity are the same trials.
    finished : str or None
        Name of the folder of the last finished search: it stays as it is until another one takes its place.
    on_warning : callable
        Told of files that were damaged.
    """

    def __init__(
        self,
        base: ArtifactFolder,
        identity: Mapping[str, str],
        space: ParameterSpace,
        *,
        finished: str | None,
        on_warning: Callable[[str], None],
    ) -> None:
        key = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:16]
        self._base: Final = base
        self._identity: Final = dict(identity)
        self._space: Final = space
        self._finished: Final = finished
        self._warn: Final = on_warning
        #: The same training once more: beside the folder of the finished one.
        self._name: Final = f"{key}-again" if key == finished else key
        self._folder: Final = base.folder(self._name)
        self._pool: Final = ThreadPoolExecutor(1)
        self._writing: Future[None] | None = None
        #: Trials that were there from an unfinished attempt.
        self.n_recalled = 0
        self._window = LATEST
        self._held: list[Trials] = []
        self._n_kept: Final[dict[int, int]] = {}
        self._n_files: Final[dict[int, int]] = {}
        self._n_blocks = 0
        self._sha256: Final[dict[str, str]] = {}
        self._last = time.monotonic()

    def __enter__(self) -> Self:
        """Remove what old, unfinished searches left."""
        for name in self._base.names():
            folder = self._base.folder(name)
            if name not in (self._name, self._finished) and folder.age() > KEPT_FOR:
                folder.remove()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """End the writing thread; after an interrupt, write what is not written yet."""
        try:
            if error is not None and not isinstance(error, Exception):
                self._flush()
        finally:
            self._pool.shutdown()

    def recall(self, window: int) -> Trials | None:
        """Return the trials of a window that an unfinished attempt left; those of the window before are written."""
        self._flush()
        self._window = window
        folder, parts = self._folder.folder(TRIALS), []
        names = [name for name in folder.names() if name.startswith(_prefix(window))]
        for number, name in enumerate(names):
            try:
                table, _, artifact = folder.read_parquet(name)
            except ArtifactError as error:
                self._warn(f"{error} Its trials, and those that follow in this window, are made again.")
                for useless in names[number:]:
                    folder.folder(useless).remove()
                names = names[:number]
                break
            parts.append(trials_of_table(table))
            self._sha256[name] = artifact.sha256
        self._n_files[window], self._n_kept[window] = len(names), sum(map(len, parts))
        self.n_recalled += self._n_kept[window]
        return Trials.joined(parts) if parts else None

    def keep(self, window: int, trials: Trials) -> None:
        """Keep more trials of a window."""
        assert window == self._window
        self._held.append(trials)
        if sum(map(len, self._held)) >= MOST_HELD or time.monotonic() - self._last >= LONGEST_HELD_S:
            self._flush()

    def keep_blocks(self, combination: IntArray, sums: FloatArray, squares: FloatArray) -> None:
        """Keep the sums of daily returns and of their squares by block."""
        self._flush()
        name, self._n_blocks = f"{self._n_blocks:04d}.parquet", self._n_blocks + 1
        self._write(BLOCKS, name, lambda: blocks_table(combination, sums, squares))

    def finish(self) -> TrialFolder:
        """Wait until all is written, and return where it is."""
        self._flush()
        self._wait()
        lines = [f"{sha256}  {name}\n" for name, sha256 in sorted(self._sha256.items())]
        return TrialFolder(
            name=self._name, url=self._folder.url, sha256=hashlib.sha256("".join(lines).encode()).hexdigest()
        )

    def remove_finished(self) -> None:
        """Remove the trials of the search before; to be called when nothing names them any longer."""
        if self._finished is not None:
            self._base.folder(self._finished).remove()

    def _flush(self) -> None:
        """Have the trials held so far written as the window's next file."""
        if not self._held:
            return
        window, trials = self._window, Trials.joined(self._held)
        first, number = self._n_kept[window], self._n_files[window]
        self._n_kept[window], self._n_files[window], self._held = first + len(trials), number + 1, []
        self._write(
            TRIALS, f"{_prefix(window)}{number:04d}.parquet", lambda: trials_table(window, first, trials, self._space)
        )
        self._last = time.monotonic()

    def _write(self, folder: str, name: str, table: Callable[[], pl.DataFrame]) -> None:
        def write() -> None:
            artifact = self._folder.folder(folder).write_parquet(name, table(), self._identity)
            if folder == TRIALS:
                self._sha256[name] = artifact.sha256

        self._wait()
        self._writing = self._pool.submit(write)

    def _wait(self) -> None:
        """Wait for the file that is being written; raises what its writing raised."""
        if self._writing is not None:
            writing, self._writing = self._writing, None
            writing.result()


def read_blocks(folder: ArtifactFolder) -> tuple[IntArray, FloatArray, FloatArray]:
    """Return what ``TrialFiles.keep_blocks`` kept in the folder of a finished search, in that order.

    Returns
    -------
    combination : int64 array of shape (n,)
    sums, squares : float64 array of shape (n, N_BLOCKS)
        Sums of daily returns and of their squares. There are none (n is 0) of a search whose time was over before all
        trials were made.

    Raises
    ------
    ArtifactError
        If a file is damaged.
    """
    import polars as pl

    blocks = folder.folder(BLOCKS)
    nothing = blocks_table(np.empty(0, dtype=np.int64), *np.empty((2, 0, N_BLOCKS)))
    return blocks_of_table(pl.concat([nothing, *(blocks.read_parquet(name)[0] for name in blocks.names())]))


def trials_of_window(folder: ArtifactFolder, window: int, columns: Sequence[str]) -> pl.DataFrame:
    """Return columns of the trials of a window in the folder of a training; no rows if none was made there."""
    import polars as pl

    folder = folder.folder(TRIALS)
    names = [name for name in folder.names() if name.startswith(_prefix(window))]
    if not names:
        return pl.DataFrame(schema=dict.fromkeys(columns, pl.Float64))
    return folder.scan_parquet(names).select(columns).collect()


def _prefix(window: int) -> str:
    return "latest-" if window == LATEST else f"window-{window:03d}-"
