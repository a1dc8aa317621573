"""``tradepulse record``: candles, trades and order books as they happen, or as they were recorded."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from tradepulse_pipeline.cli import console
from tradepulse_pipeline.cli.options import AsJson
from tradepulse_pipeline.cli.signals import interruptible
from tradepulse_pipeline.errors import InvalidInputError
from tradepulse_pipeline.market.series import TIMEFRAMES, Market, Timeframe
from tradepulse_pipeline.settings import Settings, load_settings

if TYPE_CHECKING:
    from rich.table import Table

    from tradepulse_pipeline.database.connection import Database
    from tradepulse_pipeline.market.live.events import Channel
    from tradepulse_pipeline.market.live.recorder import Counters, Recorder

_SPAN: Final = re.compile(r"(\d+(?:\.\d+)?)(s|m|h|d)")
_SECONDS: Final = {"s": 1, "m": 60, "h": 3_600, "d": 86_400}

#: Where stderr is no terminal, a line per market comes this often.
_LINE_SECONDS: Final = 30.0

_COLUMNS: Final = ("Market", "Trades", "Depth", "Candles", "Per s", "Lag", "Breaks", "Missing", "Price", "Last candle")


def record(
    exchange: Annotated[str, typer.Option("--exchange", metavar="NAME", help="Such as binance.")] = "binance",
    pairs: Annotated[
        list[str] | None,
        typer.Option("--pair", metavar="BASE/QUOTE", help="Repeat it for several. [dim]Default: BTC/USDT.[/dim]"),
    ] = None,
    timeframe: Annotated[
        str, typer.Option("--timeframe", metavar="SPAN", help=f"Of the candles: {', '.join(TIMEFRAMES)}.")
    ] = "1m",
    channels: Annotated[
        str, typer.Option("--channels", metavar="NAMES", help="What to record, with commas.")
    ] = "candles,trades,depth",
    span: Annotated[
        str | None, typer.Option("--for", metavar="SPAN", help="Such as 90s, 10m, 8h. Without it: until Ctrl-C.")
    ] = None,
    replay: Annotated[
        list[Path] | None,
        typer.Option("--replay", metavar="FILE", help="Record what is in recordings. Repeat it for several parts."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Record a market as it happens: candles, trades and the order book.

    Closed candles go to the database, trades and changes of the order book to Parquet files by day, next to the other
    artifacts. A connection that breaks or falls silent is taken up again; trades and candles that were missed are
    fetched. Run it again, and it goes on where it stopped: what is there is not stored twice.

    Binance, Binance.US and Kraken number what they say, so that lost messages show; of other exchanges, candles and
    trades are recorded as they come.

    [dim]$[/dim] tradepulse record --exchange kraken --pair BTC/USD --pair ETH/USD --for 8h
    [dim]$[/dim] tradepulse record --pair BTC/USDT --replay part1_ws.gz --replay part2_ws.gz
    """
    from tradepulse_pipeline.cli.database import open_database
    from tradepulse_pipeline.market.live.events import parse_channels
    from tradepulse_pipeline.market.live.recorder import Recorder
    from tradepulse_pipeline.orchestration.artifacts import ArtifactStore
    from tradepulse_pipeline.orchestration.recordings import RecordingStore

    settings = load_settings()
    markets = [Market.parse(exchange, pair) for given in pairs or ["BTC/USDT"] for pair in given.split(",")]
    wanted = parse_channels(name.strip() for name in channels.split(",") if name.strip())
    seconds = _seconds(span)
    of = Timeframe(timeframe)
    with open_database(settings) as database, interruptible():
        recorder = Recorder(RecordingStore(ArtifactStore(settings.artifacts_url), database))
        began = time.monotonic()
        try:
            with _shown(recorder, markets) as show:
                if replay:
                    _record_replay(recorder, replay, markets, wanted, show)
                else:
                    _record_live(settings, database, recorder, markets, of, wanted, seconds, show)
        except KeyboardInterrupt:
            recorder.flush()
        _tell(recorder, markets, time.monotonic() - began, settings, as_json=as_json)


def _record_replay(
    recorder: Recorder,
    files: Sequence[Path],
    markets: list[Market],
    channels: Sequence[Channel],
    show: Callable[[], None],
) -> None:
    from tradepulse_pipeline.market.live.events import channel_of
    from tradepulse_pipeline.market.live.replay import replay
    from tradepulse_pipeline.market.live.session import record_replay

    events = (event for event in replay(files, markets) if channel_of(event) in channels)
    record_replay(events, recorder, show)


def _record_live(
    settings: Settings,
    database: Database,
    recorder: Recorder,
    markets: list[Market],
    timeframe: Timeframe,
    channels: Sequence[Channel],
    seconds: float,
    show: Callable[[], None],
) -> None:
    from tradepulse_pipeline.database.pace import DatabasePace
    from tradepulse_pipeline.market.live.feed import LiveFeed
    from tradepulse_pipeline.market.live.session import record_live
    from tradepulse_pipeline.market.sources.registry import sources_for
    from tradepulse_pipeline.orchestration.recordings import candle_filler

    feed = LiveFeed(markets, timeframe, channels, base_url=settings.exchange_url)
    sources = settings.sources(partial(DatabasePace, database))
    end = time.monotonic() + seconds
    asyncio.run(
        record_live(
            feed,
            recorder,
            candle_filler(database, partial(sources_for, settings=sources), console.warn),
            is_over=lambda: time.monotonic() >= end,
            on_tick=show,
            on_trouble=console.warn,
        )
    )


def _seconds(text: str | None) -> float:
    if text is None:
        return float("inf")
    parts = _SPAN.fullmatch(text.strip())
    if parts is None or not float(parts[1]):
        raise InvalidInputError(f"--for: found {text!r}, expected a span of time such as 90s, 10m, 8h or 1d.")
    return float(parts[1]) * _SECONDS[parts[2]]


@contextmanager
def _shown(recorder: Recorder, markets: Sequence[Market]) -> Iterator[Callable[[], None]]:
    """Yield what shows the counters: a live table on a terminal, a line now and then elsewhere."""
    page, began = console.stderr(), time.monotonic()
    if page.is_terminal:
        from rich.live import Live

        with Live(console=page, auto_refresh=False, transient=True) as live:
            yield lambda: live.update(_table(recorder, markets, time.monotonic() - began), refresh=True)
        return
    next_line = began + _LINE_SECONDS

    def say() -> None:
        nonlocal next_line
        if time.monotonic() >= next_line:
            next_line += _LINE_SECONDS
            for market in markets:
                console.say(f"  {market}: {_told(recorder.counters[market])}")

    yield say


def _table(recorder: Recorder, markets: Sequence[Market], seconds: float) -> Table:
    return console.table(_COLUMNS, [_row(market, recorder.counters[market], seconds) for market in markets])


def _row(market: Market, counters: Counters, seconds: float) -> list[str]:
    return [
        str(market),
        f"{counters.trades:,}",
        f"{counters.depth_changes:,}",
        f"{counters.candles:,}",
        console.number(counters.events / max(seconds, 1.0), 1),
        "–" if counters.lag_ms is None else f"{counters.lag_ms:,.0f} ms",
        f"{counters.breaks:,}",
        f"{counters.missing_trades:,}",
        f"{counters.last_price:,}" if counters.last_price is not None else "–",
        "–" if counters.last_candle_ms is None else console.day_of_ms(counters.last_candle_ms)[-5:],
    ]


def _told(counters: Counters) -> str:
    """Say what was recorded, leaving out what is nothing."""
    counts = {
        "trades": counters.trades,
        "changes of the order book": counters.depth_changes,
        "candles": counters.candles,
        "trades fetched later": counters.backfilled_trades,
        "candles fetched later": counters.backfilled_candles,
        "trades still missing": counters.missing_trades,
        "breaks": counters.breaks,
        "interruptions": counters.interruptions,
        "messages that were there already": counters.repeated,
    }
    told = [f"{count:,} {name}" for name, count in counts.items() if count] or ["nothing"]
    if counters.lag_ms is not None:
        told.append(f"median lag {counters.lag_ms:,.0f} ms")
    return ", ".join(told)


def _tell(recorder: Recorder, markets: Sequence[Market], seconds: float, settings: Settings, *, as_json: bool) -> None:
    """Say in the end what was recorded."""
    if as_json:
        console.print_json([_listed(market, recorder.counters[market]) for market in markets])
        return
    page = console.stdout()
    for market in markets:
        counters = recorder.counters[market]
        page.print(f"[green]✓[/green] [bold]{market}[/bold] {_told(counters)}", soft_wrap=True)
        if counters.lag_ms is not None and counters.lag_ms < 0:
            console.warn(f"{market}: messages seem to come before they were sent: the receiver's clock is behind.")
        if counters.depth_changes and not counters.has_book:
            console.warn(
                f"{market}: no snapshot of the order book came. Its changes are kept, and tell the book only together "
                "with the recording of the time before."
            )
    page.print(f"  in {console.duration(seconds)}, to {settings.artifacts_url}/recordings", soft_wrap=True)


def _listed(market: Market, counters: Counters) -> dict[str, Any]:
    return {"market": str(market), **counters.figures()}
