"""Candles from a folder of files, one for each series."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from tradepulse_pipeline.errors import (
    HistoryUnavailableError,
    InvalidInputError,
    SourceUnreachableError,
    one_of,
)
from tradepulse_pipeline.market.series import TIMEFRAMES, SeriesKey
from tradepulse_pipeline.market.sources.base import Offer, Page, empty_page
from tradepulse_pipeline.market.sources.files import read_candle_file
from tradepulse_pipeline.market.sources.naming import names_in
from tradepulse_pipeline.market.sources.rows import NOT_CLOSED, rejected_within
from tradepulse_pipeline.market.sources.times import iso_utc


class FolderSource:
    """The candle files of one folder, its subfolders left out, named like binance_BTC-USDT_5m.parquet.

    Other files in the folder do not matter. A file's candles are one page.

    Parameters
    ----------
    path : Path
        The folder.
    """

    def __init__(self, path: Path) -> None:
        self.name = f"folder:{path}"
        self._path = path

    def offer(self) -> Offer:
        """See :class:`CandleSource`."""
        there = {series.timeframe.name for series in self._files()} if self._path.is_dir() else set()
        return Offer(
            timeframes=tuple(name for name in TIMEFRAMES if name in there),
            history="what the files hold",
            limits="Nothing newer than the files.",
        )

    def check(self, series: SeriesKey) -> None:
        """See :class:`CandleSource`."""
        self._file(series)

    def pages(self, series: SeriesKey, start_ms: int, end_ms: int) -> Iterator[Page]:
        """See :class:`CandleSource`; a file that cannot be read is a CandleError."""
        read = read_candle_file(self._file(series), series.timeframe)
        first, last, step = int(read.candles.open_time_ms[0]), read.candles.end_ms, series.timeframe.milliseconds
        candles = read.candles.between(start_ms, end_ms)
        rejected = rejected_within([row for row in read.rejected if row.reason != NOT_CLOSED], start_ms, end_ms)
        said = f"{self.name} has {series} candles from {iso_utc(first)} to {iso_utc(last)} only"
        asked = f"{iso_utc(start_ms)} to {iso_utc(end_ms)} was asked for"
        if end_ms <= first:
            raise HistoryUnavailableError(f"{said}, and {asked}.")
        if len(candles) or rejected:
            is_short = first - start_ms >= step or end_ms - last >= step
            yield Page(
                candles=candles,
                rejected=rejected,
                n_duplicates=read.n_duplicates,
                warning=f"{said}; {asked}." if is_short else "",
            )
        else:
            yield empty_page(series.timeframe, f"{said}, with a gap or nothing where {asked}.")

    def _file(self, series: SeriesKey) -> Path:
        """Return the one file of a series."""
        if not self._path.is_dir():
            raise SourceUnreachableError(f"There is no folder {self._path}: expected one with files of candles.")
        files = self._files()
        if series not in files:
            raise one_of("series", series, sorted(map(str, files)), where=f"the folder {self._path}")
        if len(files[series]) > 1:
            listed = ", ".join(path.name for path in files[series])
            raise InvalidInputError(f"The folder {self._path} holds {series} in several files: {listed}. Keep one.")
        return files[series][0]

    def _files(self) -> dict[SeriesKey, list[Path]]:
        files: dict[SeriesKey, list[Path]] = {}
        for path in sorted(self._path.iterdir()):
            names = names_in(path)
            if names and path.is_file():
                files.setdefault(SeriesKey.of(**names), []).append(path)
        return files
