"""``tradepulse import``: candles from files into the database."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tradepulse_pipeline.cli import console
from tradepulse_pipeline.cli.naming import series_of_file
from tradepulse_pipeline.cli.options import AsJson
from tradepulse_pipeline.errors import InvalidInputError, TradePulseError
from tradepulse_pipeline.market.series import SIMULATED_EXCHANGE, TIMEFRAMES, SeriesKey
from tradepulse_pipeline.settings import load_settings

if TYPE_CHECKING:
    from tradepulse_pipeline.database.connection import Database
    from tradepulse_pipeline.market.sources.files import FileCandles


@dataclass(frozen=True, slots=True, kw_only=True)
class Imported:
    """What became of one file's rows; ``first`` and ``last`` are open times of candles."""

    file: str
    series: str
    rows: int
    stored: int
    unchanged: int
    restated: int
    repeated: int
    rejected: int
    rejected_reasons: str
    first: str
    last: str
    gaps: int
    missing_candles: int


def import_candles(
    files: Annotated[list[Path], typer.Argument(metavar="FILE", help="Files of candles, one series each.")],
    exchange: Annotated[str | None, typer.Option("--exchange", metavar="NAME", help="Such as binance.")] = None,
    pair: Annotated[str | None, typer.Option("--pair", metavar="BASE/QUOTE", help="Such as BTC/USDT.")] = None,
    timeframe: Annotated[
        str | None,
        typer.Option("--timeframe", metavar="SPAN", help=f"Span of a candle: {', '.join(TIMEFRAMES)}."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Store candles from files.

    Parquet, CSV, Feather or JSON, also in .gz or .zip.
    Reads the forms of Binance's bulk download, Kraken's archive and freqtrade; columns are recognised by name or
    position, times may be in s, ms, µs, ns or ISO 8601. Exchange, pair and timeframe may be left out where the
    file's name tells them: binance_BTC-USDT_5m.parquet.

    Rows that are no valid candles are set aside with the reason. Importing a file again changes nothing; a candle
    that differs from the stored one takes its place, and the former is kept as a revision.

    [dim]$[/dim] tradepulse import binance_BTC-USDT_5m.parquet binance_ETH-USDT_5m.parquet
    [dim]$[/dim] tradepulse import XBTUSD_60.csv --exchange kraken --pair BTC/USD --timeframe 1h
    """
    from tradepulse_pipeline.cli.database import open_database

    settings = load_settings()
    done: list[Imported] = []
    n_failed = 0
    with open_database(settings) as database:
        for path in files:
            try:
                series = _series(path, exchange, pair, timeframe)
                imported = _import(database, path, series)
            except TradePulseError as error:
                n_failed += 1
                console.complain(str(error))
                continue
            done.append(imported)
            if not as_json:
                _show(imported)
        if done:
            _add_partitions(settings.project_dir, sorted({one.series for one in done}))
    if as_json:
        console.print_json([asdict(one) for one in done])
    if n_failed:
        console.say(f"{n_failed} of {len(files)} files were not imported; nothing of them was stored.")
        raise typer.Exit(console.EXIT_FAILED)


def _series(path: Path, exchange: str | None, pair: str | None, timeframe: str | None) -> SeriesKey:
    from tradepulse_pipeline.market.sources.registry import source_for

    series = series_of_file(path, exchange=exchange, pair=pair, timeframe=timeframe)
    if series.exchange == SIMULATED_EXCHANGE:
        raise InvalidInputError(
            f"{path.name}: {SIMULATED_EXCHANGE!r} is the market that TradePulse makes up itself; expected the exchange "
            "that the candles come from."
        )
    source_for(series.exchange)
    return series


def _import(database: Database, path: Path, series: SeriesKey) -> Imported:
    from tradepulse_pipeline.database.candles import RefusedRow, quarantine, store_candles
    from tradepulse_pipeline.market.quality import assess
    from tradepulse_pipeline.market.sources.files import read_candle_file
    from tradepulse_pipeline.market.sources.rows import count_reasons

    read: FileCandles = read_candle_file(path, series.timeframe)
    source = f"file {path.name}"
    stored = store_candles(database, series, read.candles, source)
    names = ("timestamp", "open", "high", "low", "close", "volume")
    refused = [
        RefusedRow(row_number=row.row - 1, raw=dict(zip(names, row.values, strict=True)), reason=row.reason)
        for row in read.rejected
    ]
    quarantine(database, series, refused, source)
    quality = assess(read.candles)
    return Imported(
        file=path.name,
        series=str(series),
        rows=read.n_rows,
        stored=stored.inserted,
        unchanged=stored.unchanged,
        restated=stored.restated,
        repeated=read.n_duplicates,
        rejected=len(read.rejected),
        rejected_reasons=count_reasons(read.rejected),
        first=console.utc(int(read.candles.open_time_ms[0])),
        last=console.utc(int(read.candles.open_time_ms[-1])),
        gaps=len(quality.gaps),
        missing_candles=quality.n_missing,
    )


def _add_partitions(project: Path, keys: list[str]) -> None:
    """Let the series show in the web UI."""
    from tradepulse_pipeline.orchestration.launch import open_instance
    from tradepulse_pipeline.orchestration.partitions import SERIES_DIMENSION

    with open_instance(project) as instance:
        instance.add_dynamic_partitions(SERIES_DIMENSION, keys)


def _show(imported: Imported) -> None:
    from rich.markup import escape

    page = console.stdout()
    page.print(f"[green]✓[/green] [bold]{imported.series}[/bold] from {escape(imported.file)}", soft_wrap=True)
    counts: dict[str, Any] = {
        "stored": imported.stored,
        "unchanged": imported.unchanged,
        "restated": imported.restated,
        "repeated": imported.repeated,
        "rejected": imported.rejected,
    }
    told = ", ".join(f"{count:,} {name}" for name, count in counts.items() if count)
    gaps = f"{imported.missing_candles:,} candles missing in {imported.gaps:,} gaps" if imported.gaps else "no gaps"
    page.print(f"  {imported.rows:,} rows: {told}", soft_wrap=True)
    first, last = (time[:16].replace("T", " ") for time in (imported.first, imported.last))
    page.print(f"  {first} to {last} UTC, {gaps}", soft_wrap=True)
    if imported.rejected:
        console.warn(f"  Rejected: {imported.rejected_reasons}")
