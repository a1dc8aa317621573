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
from tradepulse_pipeline.market.series import SIMULATED_EXCHANGE, TIMEFRAMES, SeriesKey, Timeframe
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
    set_aside: int
    made_stale: int
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
    from_trades: Annotated[
        bool,
        typer.Option("--from-trades", help="The files hold single trades of one market: build candles of all of them."),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Store candles from files.

    Parquet, CSV, Feather or JSON, also in .gz or .zip.
    Reads the forms of Binance's bulk download, Kraken's archive and freqtrade; columns are recognised by name or
    position, times may be in s, ms, µs, ns or ISO 8601. Exchange, pair and timeframe may be left out where the
    file's name tells them: binance_BTC-USDT_5m.parquet.

    Rows that are no valid candles are set aside with the reason. Importing a file again changes nothing; a candle
    that differs from the stored one takes its place, and the former is kept as a revision.

    With --from-trades the files hold single trades: Kraken's "time and sales" (time, price, volume), or tables with
    the columns timestamp, price, amount, and id and side if known. The last candle, which may be unfinished, is left
    out.

    [dim]$[/dim] tradepulse import binance_BTC-USDT_5m.parquet binance_ETH-USDT_5m.parquet
    [dim]$[/dim] tradepulse import XBTUSD_60.csv --exchange kraken --pair BTC/USD --timeframe 1h
    [dim]$[/dim] tradepulse import XBTUSD.csv --from-trades --exchange kraken --pair BTC/USD --timeframe 5m
    """
    from tradepulse_pipeline.cli.database import open_database
    from tradepulse_pipeline.orchestration.launch import add_partitions

    settings = load_settings()
    done: list[Imported] = []
    n_failed = 0
    with open_database(settings) as database:
        for paths in [files] if from_trades else [[path] for path in files]:
            try:
                series = _series(paths[0], exchange, pair, timeframe)
                read = _built(paths, series.timeframe) if from_trades else _read(paths[0], series)
                imported = _store(database, series, read, ", ".join(path.name for path in paths))
            except TradePulseError as error:
                n_failed += len(paths)
                console.complain(str(error))
                continue
            done.append(imported)
            if not as_json:
                _show(imported)
        if done:
            add_partitions(settings.project_dir, sorted({one.series for one in done}))
    if as_json:
        console.print_json([asdict(one) for one in done])
    if n_failed:
        console.say(f"{n_failed} of {len(files)} files were not imported; nothing of them was stored.")
        raise typer.Exit(console.EXIT_FAILED)


def _series(path: Path, exchange: str | None, pair: str | None, timeframe: str | None) -> SeriesKey:
    from tradepulse_pipeline.market.sources.registry import check_exchange

    series = series_of_file(path, exchange=exchange, pair=pair, timeframe=timeframe)
    if series.exchange == SIMULATED_EXCHANGE:
        raise InvalidInputError(
            f"{path.name}: {SIMULATED_EXCHANGE!r} is the market that TradePulse makes up itself; expected the exchange "
            "that the candles come from."
        )
    check_exchange(series.exchange)
    return series


def _read(path: Path, series: SeriesKey) -> FileCandles:
    from tradepulse_pipeline.market.calendars import calendar_of
    from tradepulse_pipeline.market.sources.files import read_candle_file

    return read_candle_file(path, series.timeframe, calendar=calendar_of(series.exchange))


def _built(paths: list[Path], timeframe: Timeframe) -> FileCandles:
    """Read files of single trades, and build the candles that they make."""
    from tradepulse_pipeline.market.sources.files import FileCandles
    from tradepulse_pipeline.market.sources.trade_files import closed_candles, read_trade_files
    from tradepulse_pipeline.market.trades import missing_ids

    trades = read_trade_files(paths)
    candles = closed_candles(trades, timeframe)
    gaps = missing_ids(trades)
    if len(gaps):
        n_missing = int((gaps[:, 1] - gaps[:, 0] + 1).sum())
        console.warn(f"{n_missing:,} trades are missing among the {len(trades):,} in the files, as their ids show.")
    return FileCandles(candles=candles, rejected=(), n_duplicates=0, n_rows=len(trades))


def _store(database: Database, series: SeriesKey, read: FileCandles, file: str) -> Imported:
    from tradepulse_pipeline.database.candles import store_candles
    from tradepulse_pipeline.database.quarantine import RefusedRow, quarantine
    from tradepulse_pipeline.market.quality import assess
    from tradepulse_pipeline.market.sources.rows import count_reasons

    source = f"file {file}"
    stored = store_candles(database, series, read.candles, source)
    quarantine(database, series, [RefusedRow.of(row) for row in read.rejected], source)
    quality = assess(read.candles)
    return Imported(
        file=file,
        series=str(series),
        rows=read.n_rows,
        stored=stored.inserted,
        unchanged=stored.unchanged,
        restated=stored.restated,
        repeated=read.n_duplicates,
        rejected=len(read.rejected),
        rejected_reasons=count_reasons(read.rejected),
        set_aside=stored.set_aside,
        made_stale=stored.made_stale,
        first=console.utc(int(read.candles.open_time_ms[0])),
        last=console.utc(int(read.candles.open_time_ms[-1])),
        gaps=len(quality.gaps),
        missing_candles=quality.n_missing,
    )


def _show(imported: Imported) -> None:
    from rich.markup import escape

    from tradepulse_pipeline.database.staleness import stale_sentence

    page = console.stdout()
    page.print(f"[green]✓[/green] [bold]{imported.series}[/bold] from {escape(imported.file)}", soft_wrap=True)
    counts: dict[str, Any] = {
        "stored": imported.stored,
        "unchanged": imported.unchanged,
        "restated": imported.restated,
        "repeated": imported.repeated,
        "rejected": imported.rejected,
        "left out, set aside earlier": imported.set_aside,
    }
    told = ", ".join(f"{count:,} {name}" for name, count in counts.items() if count)
    gaps = f"{imported.missing_candles:,} candles missing in {imported.gaps:,} gaps" if imported.gaps else "no gaps"
    page.print(f"  {imported.rows:,} rows: {told}", soft_wrap=True)
    first, last = (time[:16].replace("T", " ") for time in (imported.first, imported.last))
    page.print(f"  {first} to {last} UTC, {gaps}", soft_wrap=True)
    if imported.rejected:
        console.warn(f"  Rejected: {imported.rejected_reasons}")
    if imported.made_stale:
        console.warn(f"  {stale_sentence(imported.made_stale)}")
