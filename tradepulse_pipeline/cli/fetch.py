"""``tradepulse fetch``: candles from their sources into the database, several series at once."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Annotated, Final

import typer

from tradepulse_pipeline.cli import console
from tradepulse_pipeline.cli import options as opt
from tradepulse_pipeline.errors import TradePulseError
from tradepulse_pipeline.market.series import SeriesKey
from tradepulse_pipeline.settings import Settings, load_settings

if TYPE_CHECKING:
    from tradepulse_pipeline.database.connection import Database
    from tradepulse_pipeline.market.sources.base import CandleSource
    from tradepulse_pipeline.progress import Progress, ProgressListener

#: Series that are fetched at once; the venues' rate limits hold for all of them together.
AT_ONCE: Final = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Fetched:
    """What became of one series; ``error`` says why it is not whole."""

    series: str
    stored: int = 0
    unchanged: int = 0
    restated: int = 0
    rejected: int = 0
    warnings: tuple[str, ...] = ()
    error: str | None = None


class _Interrupted(Exception):  # noqa: N818 - no error
    """Ends the work of a thread after Ctrl-C."""


def fetch(
    ctx: typer.Context,
    exchanges: opt.Exchanges = None,
    pairs: opt.Pairs = None,
    timeframes: opt.Timeframes = None,
    history_days: opt.HistoryDays = None,
    ask_again: Annotated[
        bool,
        typer.Option(
            "--again", help="Ask also for what is stored or was lately not to be had: finds restated candles."
        ),
    ] = False,
    as_json: opt.AsJson = False,
) -> None:
    """Fetch candles that are missing, and train nothing.

    Several exchanges, pairs and timeframes make a product; their series are fetched at once, within the rate limit
    of each exchange. What came is stored page by page: a fetch that failed, or was ended, goes on where it was. The
    sources of a market and their order stand in the table \\[source_order] of tradepulse.toml: see docs/sources.md.

    [dim]$[/dim] tradepulse fetch --pair BTC/USDT,ETH/USDT,SOL/USDT --timeframe 5m,1h --history 730
    """
    from tradepulse_pipeline.cli.database import open_database
    from tradepulse_pipeline.cli.plan import planned_series
    from tradepulse_pipeline.cli.signals import interruptible
    from tradepulse_pipeline.orchestration.launch import add_partitions

    settings = load_settings(**opt.given(ctx))
    settings.history()
    settings.sources()
    wanted = planned_series(settings)
    with interruptible(), open_database(settings) as database:
        done = _fetch_all(settings, database, wanted, ask_again=ask_again)
    add_partitions(settings.project_dir, [one.series for one in done if one.error is None])
    if as_json:
        console.print_json([asdict(one) for one in done])
    else:
        _show(done)
    failed = [one for one in done if one.error is not None]
    for one in failed:
        console.complain(f"{one.series}: {one.error}")
    if failed:
        raise typer.Exit(console.EXIT_FAILED)


def _fetch_all(
    settings: Settings, database: Database, wanted: Sequence[SeriesKey], *, ask_again: bool
) -> list[Fetched]:
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bars

    ending = threading.Event()
    bars = Bars(
        TextColumn("{task.description}"),
        BarColumn(24),
        MofNCompleteColumn(),
        TextColumn("candles"),
        TimeRemainingColumn(),
        console=console.stderr(),
    )

    def listener(series: SeriesKey) -> ProgressListener:
        task = bars.add_task(str(series), total=None)

        def listen(progress: Progress) -> None:
            if ending.is_set():
                raise _Interrupted
            bars.update(task, completed=progress.done, total=progress.total)

        return listen

    with bars, ThreadPoolExecutor(AT_ONCE) as pool:
        work: list[Future[Fetched]] = [
            pool.submit(_fetch, settings, database, series, listener(series), ask_again) for series in wanted
        ]
        try:
            wait(work)
        except KeyboardInterrupt:
            ending.set()
            pool.shutdown(cancel_futures=True)
            console.say("Ended. What was fetched is kept; the same command goes on from there.")
            raise typer.Exit(console.EXIT_INTERRUPTED) from None
    return [one.result() for one in work]


def _fetch(
    settings: Settings, database: Database, series: SeriesKey, on_progress: ProgressListener, ask_again: bool
) -> Fetched:
    from tradepulse_pipeline.database.ingestion import refresh
    from tradepulse_pipeline.database.pace import DatabasePace
    from tradepulse_pipeline.market.sources.registry import sources_for

    def sources() -> list[CandleSource]:
        return sources_for(series.market, settings.sources(partial(DatabasePace, database)))

    history = replace(settings.history(), source="exchange")
    try:
        done = refresh(database, series, history, sources, on_progress, ask_again=ask_again)
    except TradePulseError as error:
        return Fetched(series=str(series), error=str(error))
    return Fetched(
        series=str(series),
        stored=done.inserted,
        unchanged=done.unchanged,
        restated=done.restated,
        rejected=done.rejected,
        warnings=done.warnings,
    )


def _show(done: Sequence[Fetched]) -> None:
    rows = [
        [one.series, *(f"{count:,}" for count in (one.stored, one.unchanged, one.restated, one.rejected))]
        for one in done
        if one.error is None
    ]
    if rows:
        columns = ["Series", "Stored", "Unchanged", "Restated", "Set aside"]
        console.stdout().print(console.table(columns, rows, folding=("Series",)))
    for one in done:
        for warning in one.warnings:
            console.warn(f"{one.series}: {warning}")
