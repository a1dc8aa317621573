"""``tradepulse quarantine``: rows that are no candles, and what a person decides about candles that look wrong."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tradepulse_pipeline.cli import console
from tradepulse_pipeline.cli.options import AsJson
from tradepulse_pipeline.errors import InvalidInputError
from tradepulse_pipeline.market.candles import PRICE_COLUMNS
from tradepulse_pipeline.market.series import SeriesKey
from tradepulse_pipeline.settings import load_settings

if TYPE_CHECKING:
    from tradepulse_pipeline.database.connection import Database
    from tradepulse_pipeline.database.quarantine import QuarantinedRow

Series = Annotated[str, typer.Argument(metavar="SERIES", help="Such as binance:BTC-USDT:5m.")]
Times = Annotated[
    list[str], typer.Argument(metavar="TIME", help="Open time of a stored candle, ISO 8601, UTC: 2025-03-01T05:00.")
]
Ids = Annotated[list[int], typer.Argument(metavar="ID", help="Numbers as 'tradepulse quarantine list' shows them.")]


def list_rows(
    series: Annotated[
        str | None, typer.Argument(metavar="SERIES", help="Only of this one, such as binance:BTC-USDT:5m.")
    ] = None,
    decided: Annotated[bool, typer.Option("--all", help="Also rows that were released or dismissed.")] = False,
    limit: Annotated[int, typer.Option("--limit", min=1, metavar="N", help="The first N.")] = 1000,
    as_json: AsJson = False,
) -> None:
    """List what is in quarantine, and why.

    [dim]$[/dim] tradepulse quarantine list binance:BTC-USDT:5m
    """
    from tradepulse_pipeline.cli.database import open_database
    from tradepulse_pipeline.database.quarantine import quarantined

    wanted = None if series is None else SeriesKey.parse(series)
    with open_database(load_settings()) as database:
        rows = quarantined(database, wanted, include_decided=decided, limit=limit)
    if as_json:
        console.print_json([_listed(row) for row in rows])
    elif not rows:
        console.say("Nothing is in quarantine.")
    else:
        columns = ["Id", "Series", "Open time", "Reason", "Source", "Since", *(["Decision"] if decided else [])]
        columns += [name.capitalize() for name in PRICE_COLUMNS]
        lines = [_line(row, decided=decided) for row in rows]
        left = len(columns) - len(PRICE_COLUMNS)
        console.stdout().print(console.table(columns, lines, left=left, folding=("Series", "Reason", "Source")))


def add(
    series: Series,
    times: Times,
    reason: Annotated[
        str, typer.Option("--reason", metavar="TEXT", help="Why.", show_default=True)
    ] = "set aside by a person",
) -> None:
    """Set stored candles aside as wrong.

    Their values are kept. They do not come back when a source gives the same candle again; a candle with other values
    does. Configurations that were trained on them become stale.

    [dim]$[/dim] tradepulse quarantine add binance:BTC-USDT:5m 2025-03-01T05:00 --reason "a print at a tenth"
    """
    from tradepulse_pipeline.database.quarantine import set_aside

    key = SeriesKey.parse(series)

    def one(database: Database, time_ms: int) -> tuple[str, int]:
        return f"{console.utc(time_ms)}: set aside", set_aside(database, key, time_ms, reason)

    _decide(_parsed(times), one)


def release_rows(ids: Ids) -> None:
    """Make rows in quarantine candles: they are true after all.

    What breaks the data contract (a value that is no number, high below low, an open time off the grid) stays.

    [dim]$[/dim] tradepulse quarantine release 12 13
    """
    from tradepulse_pipeline.database.quarantine import release

    def one(database: Database, row_id: int) -> tuple[str, int]:
        report = release(database, row_id)
        if report.restated:
            how = "released in the place of the stored candle, which is kept as a revision"
        else:
            how = "released" if report.inserted else "released; such a candle was stored already"
        return f"{row_id}: {how}", report.made_stale

    _decide(ids, one)


def dismiss_rows(ids: Ids) -> None:
    """Say that rows need no more attention; they stay in quarantine.

    [dim]$[/dim] tradepulse quarantine dismiss 12 13
    """
    from tradepulse_pipeline.database.quarantine import dismiss

    def one(database: Database, row_id: int) -> tuple[str, int]:
        dismiss(database, row_id)
        return f"{row_id}: dismissed", 0

    _decide(ids, one)


def keep_candles(series: Series, times: Times) -> None:
    """Say that stored candles are true, however extreme: no report calls them likely errors again.

    [dim]$[/dim] tradepulse quarantine keep binance:BTC-USDT:5m 2025-03-01T05:00
    """
    from tradepulse_pipeline.database.quarantine import keep

    key = SeriesKey.parse(series)

    def one(database: Database, time_ms: int) -> tuple[str, int]:
        keep(database, key, time_ms)
        return f"{console.utc(time_ms)}: kept as true", 0

    _decide(_parsed(times), one)


def _parsed(times: Iterable[str]) -> list[int]:
    return [time_ms for text in times if (time_ms := console.parse_time(text, "TIME")) is not None]


def _decide(items: Iterable[int], one: Callable[[Database, int], tuple[str, int]]) -> None:
    """Do each decision by itself and tell what came of it; one that is refused does not stop the others.

    ``one`` returns a line for the user and how many configurations the decision has made stale.
    """
    from tradepulse_pipeline.cli.database import open_database
    from tradepulse_pipeline.database.staleness import stale_sentence

    n_refused, n_stale = 0, 0
    with open_database(load_settings()) as database:
        for item in items:
            try:
                line, made_stale = one(database, item)
            except InvalidInputError as error:
                n_refused += 1
                console.complain(str(error))
                continue
            n_stale += made_stale
            console.stdout().print(line, markup=False)
    if n_stale:
        console.warn(stale_sentence(n_stale))
    if n_refused:
        raise typer.Exit(console.EXIT_FAILED)


def _time(row: QuarantinedRow) -> int | None:
    """Return the row's open time where it has one that a calendar knows."""
    time_ms = row.open_time_ms
    return round(time_ms) if math.isfinite(time_ms) and 0 < time_ms < 253_402_300_800_000 else None


def _line(row: QuarantinedRow, *, decided: bool) -> list[str]:
    from rich.markup import escape

    time_ms = _time(row)
    return [
        str(row.id),
        str(row.series),
        "–" if time_ms is None else console.day_of_ms(time_ms),
        escape(row.reason),
        escape(row.source),
        console.day(row.at)[:10],
        *([row.decision or "–"] if decided else []),
        *(f"{value:g}" if math.isfinite(value) else str(value) for value in row.values),
    ]


def _listed(row: QuarantinedRow) -> dict[str, Any]:
    time_ms = _time(row)
    return {
        "id": row.id,
        "series": str(row.series),
        "open_time": None if time_ms is None else console.utc(time_ms),
        "reason": row.reason,
        "is_set_aside": row.is_set_aside,
        "source": row.source,
        "row_number": row.row_number,
        "raw": row.raw,
        "since": row.at.isoformat(),
        "decision": row.decision,
        "decided_at": None if row.decided_at is None else row.decided_at.isoformat(),
    }
