"""What was recorded live: trades and the order book in Parquet files by day, candles in the database.

A file is ``recordings/<exchange>/<BASE-QUOTE>/<trades|depth>/date=<UTC day>/<key>_<first>-<last>.parquet``: ``id`` and
the exchange's numbers of what is in it, or ``time`` and its times in ms where the exchange gives no numbers. The names
alone tell a restarted recorder what is there.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from itertools import groupby
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from tradepulse_pipeline.database.candles import coverage_of, store_candles
from tradepulse_pipeline.database.connection import Database
from tradepulse_pipeline.database.ingestion import ingest
from tradepulse_pipeline.database.quarantine import RefusedRow, quarantine
from tradepulse_pipeline.market.live.events import Channel, DepthChanged, Level, Trade, as_trades
from tradepulse_pipeline.market.live.recorder import Key
from tradepulse_pipeline.market.live.sequence import Run
from tradepulse_pipeline.market.series import Market, SeriesKey
from tradepulse_pipeline.market.sources.base import CandleSource
from tradepulse_pipeline.market.sources.rows import CleanedRows
from tradepulse_pipeline.market.trades import Trades
from tradepulse_pipeline.orchestration.artifacts import ArtifactFolder, ArtifactStore

if TYPE_CHECKING:
    import polars as pl

_NAME: Final = re.compile(r"(id|time)_(\d+)-(\d+)(?:_\d+)?\.parquet")
_DAY: Final = "date="

_BID, _ASK, _NO_SIDE = 1, -1, 0


class _File(NamedTuple):
    folder: ArtifactFolder
    name: str
    key: str
    run: Run


class RecordingStore:
    """Keeps what a recorder takes (see ``Sink``), and gives it back."""

    def __init__(self, artifacts: ArtifactStore, database: Database) -> None:
        self._artifacts: Final = artifacts
        self._database: Final = database

    def stored(self, market: Market, channel: Channel, key: Key) -> Iterator[Run]:
        """See ``Sink``."""
        return (file.run for file in self._files(market, channel) if file.key == key)

    def time_of_trade(self, market: Market, trade_id: int) -> int | None:
        """See ``Sink``."""
        files = [file for file in self._files(market, "trades") if file.key == "id" and file.run.first <= trade_id]
        if not files:
            return None
        latest = max(files, key=lambda file: file.run.first)
        table = latest.folder.read_parquet(latest.name)[0]
        times: list[int] = table.filter(table["trade_id"] <= trade_id)["time_ms"].to_list()
        return max(times, default=None)

    def write_trades(self, market: Market, trades: Trades, key: Key, run: Run) -> None:
        """See ``Sink``."""
        import polars as pl

        names = Trade._fields
        table = pl.DataFrame({name: getattr(trades, name) for name in names})
        self._write(market, "trades", int(trades.time_ms[0]), key, run, table)

    def write_depth(self, market: Market, changes: Sequence[DepthChanged]) -> None:
        """See ``Sink``."""
        numbers = [number for one in changes if one.last_id is not None for number in (one.first_id, one.last_id)]
        times = [change.time_ms for change in changes]
        known = [number for number in numbers if number is not None]
        key: Key = "id" if known else "time"
        run = Run(min(known or times), max(known or times))
        self._write(market, "depth", changes[0].time_ms, key, run, _depth_table(changes))

    def last_candle(self, series: SeriesKey) -> int | None:
        """See ``Sink``."""
        there = coverage_of(self._database, series)
        return there.last_ms if there else None

    def write_candles(self, series: SeriesKey, cleaned: CleanedRows) -> None:
        """See ``Sink``."""
        source = f"{series.exchange}.live"
        store_candles(self._database, series, cleaned.candles, source)
        quarantine(self._database, series, [RefusedRow.of(row) for row in cleaned.rejected], source)

    def trades(self, market: Market, start_ms: int, end_ms: int) -> Trades:
        """Return the recorded trades of ``[start_ms, end_ms)`` in the order of time and number.

        Raises
        ------
        ArtifactError
            If a file is damaged.
        """
        rows = (
            Trade._make(row)
            for file in self._files(market, "trades", start_ms, end_ms)
            for row in file.folder.read_parquet(file.name)[0].iter_rows()
        )
        return as_trades(trade for trade in rows if start_ms <= trade.time_ms < end_ms)

    def depth(self, market: Market, start_ms: int, end_ms: int) -> Iterator[DepthChanged]:
        """Yield the recorded changes of the order book of ``[start_ms, end_ms)`` in the order of their arrival.

        ``market.live.book.book_at`` makes the book at a time of them.

        Raises
        ------
        ArtifactError
            If a file is damaged.
        """
        for file in sorted(self._files(market, "depth", start_ms, end_ms), key=lambda file: file.run):
            for change in _changes(market, file.folder.read_parquet(file.name)[0]):
                if start_ms <= change.time_ms < end_ms:
                    yield change

    def _files(self, market: Market, channel: Channel, start_ms: int = 0, end_ms: int = 1 << 62) -> Iterator[_File]:
        folder = self._artifacts.recordings(market).folder(channel)
        for day in folder.names():
            if day.startswith(_DAY) and _day(start_ms) <= day.removeprefix(_DAY) <= _day(end_ms):
                for name in folder.folder(day).names():
                    if found := _NAME.fullmatch(name):
                        yield _File(folder.folder(day), name, found[1], Run(int(found[2]), int(found[3])))

    def _write(self, market: Market, channel: Channel, time_ms: int, key: Key, run: Run, table: pl.DataFrame) -> None:
        folder = self._artifacts.recordings(market).folder(channel).folder(_DAY + _day(time_ms))
        # Numbers tell that a file is the same one; two files may be of the same millisecond.
        stem = f"{key}_{run.first:020d}-{run.last:020d}"
        n_same = sum(name.startswith(stem) for name in folder.names()) if key == "time" else 0
        name = f"{stem}_{n_same + 1}.parquet" if n_same else f"{stem}.parquet"
        folder.write_parquet(name, table, {"market": str(market), "channel": channel})


def candle_filler(
    database: Database,
    sources_of: Callable[[Market], Sequence[CandleSource]],
    on_warning: Callable[[str], None] = lambda _: None,
) -> Callable[[SeriesKey, int, int], int]:
    """Return what fetches the candles that a recorder has missed, and returns how many of them were new."""

    def fill(series: SeriesKey, start_ms: int, end_ms: int) -> int:
        ingestion = ingest(database, series, sources_of(series.market), start_ms, end_ms)
        for warning in ingestion.warnings:
            on_warning(warning)
        return ingestion.inserted

    return fill


def _depth_table(changes: Sequence[DepthChanged]) -> pl.DataFrame:
    """Return a row per changed level; one without side and price for a change of no level."""
    import polars as pl

    rows: list[tuple[Any, ...]] = []
    for number, change in enumerate(changes):
        told = (change.first_id, change.last_id, change.previous_id, change.is_snapshot, change.depth)
        levels: list[tuple[int, float | None, float | None]] = [
            *((_BID, *level) for level in change.bids),
            *((_ASK, *level) for level in change.asks),
        ]
        rows += [
            (number, change.time_ms, change.received_ms, *told, *level) for level in levels or [(_NO_SIDE, None, None)]
        ]
    schema = {
        "change": pl.Int32,
        "time_ms": pl.Int64,
        "received_ms": pl.Float64,
        "first_id": pl.Int64,
        "last_id": pl.Int64,
        "previous_id": pl.Int64,
        "is_snapshot": pl.Boolean,
        "depth": pl.Int32,
        "side": pl.Int8,
        "price": pl.Float64,
        "amount": pl.Float64,
    }
    return pl.DataFrame(rows, schema=schema, orient="row")


def _changes(market: Market, table: pl.DataFrame) -> Iterator[DepthChanged]:
    for _, group in groupby(table.iter_rows(), key=lambda row: row[0]):
        rows = list(group)
        _, time_ms, received_ms, first_id, last_id, previous_id, is_snapshot, depth, *_ = rows[0]
        bids, asks = (tuple(Level(*row[9:11]) for row in rows if row[8] == side) for side in (_BID, _ASK))
        yield DepthChanged(
            market=market,
            time_ms=time_ms,
            bids=bids,
            asks=asks,
            is_snapshot=is_snapshot,
            first_id=first_id,
            last_id=last_id,
            previous_id=previous_id,
            depth=depth,
            received_ms=received_ms,
        )


def _day(time_ms: int) -> str:
    latest_ms = 253_402_300_799_000  # the last second of the year 9999
    return datetime.fromtimestamp(min(time_ms, latest_ms) / 1000, UTC).date().isoformat()
