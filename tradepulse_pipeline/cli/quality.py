"""``tradepulse quality``: whether stored candles can be trusted, and what to do where they cannot."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from tradepulse_pipeline.cli import console
from tradepulse_pipeline.cli.options import AsJson
from tradepulse_pipeline.cli.verdict import marked
from tradepulse_pipeline.market.series import SeriesKey
from tradepulse_pipeline.settings import load_settings

if TYPE_CHECKING:
    from rich.console import Console

    from tradepulse_pipeline.database.connection import Database
    from tradepulse_pipeline.market.quality import Gap, Outlier, QualityReport

#: Rows of a table on the page; JSON has all of them.
MOST_ROWS: Final = 20

_STYLES: Final = {"error": "bold red", "warning": "yellow", "note": "dim"}
_JUDGEMENT_STYLES: Final = {"likely error": "bold red", "undecided": "yellow", "likely true": "green"}


def quality(
    series: Annotated[
        list[str] | None,
        typer.Argument(metavar="SERIES", help="Such as binance:BTC-USDT:5m. Without one: a line for each."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Say whether stored candles can be trusted.

    [bold]Coverage[/] is the share of candles that is there between the first and the last one. A [bold]gap[/] is a
    stretch of missing candles: an [bold]outage[/] where the exchange was away, [bold]no trade[/] where the series
    leaves candles out when nobody trades, unknown where nothing tells. 'Other pairs' counts the other pairs of the
    exchange that have the gap, too, of those that were traded then.

    An [bold]outlier[/] is a candle that leaves the path of the price by more than 20 local standard deviations and
    5 %. It is likely true if it came with volume, if the market moved on, or if another pair or exchange shows it;
    likely an error if it came back at once from further than a market goes, or alone among exchanges; else undecided.

    [bold]Errors[/] forbid to train on the candles. [bold]Warnings[/] are kept with what was trained on them.
    [bold]Notes[/] are good to know. Other series are judged by what is stored of them; nothing is fetched.

    The exit code is 1 if there is any error.

    [dim]$[/dim] tradepulse quality
    [dim]$[/dim] tradepulse quality binance:BTC-USDT:5m
    """
    from tradepulse_pipeline.cli.database import open_database
    from tradepulse_pipeline.database.surroundings import stored_series

    asked = [SeriesKey.parse(key) for key in series or ()]
    with open_database(load_settings()) as database:
        reports = {key: _report(database, key) for key in asked or sorted(stored_series(database))}
    if as_json:
        console.print_json([_listed(key, report) for key, report in reports.items()])
    elif not reports:
        console.say("No candles are stored yet. 'tradepulse train' fetches some, 'tradepulse import' reads files.")
    elif asked:
        for key, report in reports.items():
            _show(key, report)
    else:
        columns = ["Series", "Verdict", "Candles", "Coverage", "Gaps", "Outages", "Outliers", "Errors", "Warnings"]
        rows = [_row(key, report) for key, report in reports.items()]
        console.stdout().print(console.table(columns, rows, left=2, folding=("Series",)))
    if not all(report.is_fit_for_training for report in reports.values()):
        raise typer.Exit(console.EXIT_FAILED)


def _report(database: Database, series: SeriesKey) -> QualityReport:
    from tradepulse_pipeline.cli.database import stored_candles
    from tradepulse_pipeline.database.surroundings import surroundings_of
    from tradepulse_pipeline.market.quality import assess

    candles = stored_candles(database, series)
    known = surroundings_of(database, series, candles, now_ms=time.time_ns() // 1_000_000)
    return assess(candles, known, name=str(series))


def _verdict(report: QualityReport) -> str:
    return "[green]fit[/]" if report.is_fit_for_training else "[bold red]not fit[/]"


def _row(series: SeriesKey, report: QualityReport) -> list[str]:
    return [
        f"{series}{marked(series.exchange)}",
        _verdict(report),
        f"{report.n_candles:,}",
        console.percent(report.coverage),
        f"{len(report.gaps):,}",
        f"{len(report.outages):,}",
        f"{len(report.outliers):,}",
        f"{len(report.errors):,}",
        f"{len(report.warnings):,}",
    ]


def _show(series: SeriesKey, report: QualityReport) -> None:
    from rich.markup import escape

    page = console.stdout()
    page.print(f"[bold]{series}[/]{marked(series.exchange)}: {_verdict(report)} to train on")
    figures = [
        ["Candles", f"{report.n_candles:,} of {report.n_expected:,} ({console.percent(report.coverage)})"],
        ["From, to", f"{_minute(report.first_ms)}, {_minute(report.last_ms)}"],
        ["Gaps", f"{len(report.gaps):,} with {report.n_missing:,} candles, {len(report.outages):,} of them outages"],
        ["Where nobody trades", report.no_trade or "not told by the candles"],
        ["Without volume", f"{report.n_zero_volume:,} ({console.percent(report.zero_volume_share)})"],
        ["Flat (high = low)", f"{report.n_flat:,} ({console.percent(report.flat_share)})"],
        ["Standstills", f"{len(report.standstills):,}"],
        ["Largest move", f"{console.percent(report.largest_move)} at {_minute(report.largest_move_ms)}"],
    ]
    page.print(console.table(["", ""], figures, left=2, header=False))
    for problem in report.problems:
        style = _STYLES[problem.severity]
        page.print(f"[{style}]{problem.severity.capitalize()}:[/] {escape(problem.sentence)}")
    if report.gaps:
        longest = sorted(report.gaps, key=lambda gap: (-gap.n_missing, gap.start_ms))
        rows = [_gap_row(gap, report) for gap in longest[:MOST_ROWS]]
        page.print(console.table(["Gap from", "Cause", "Candles", "Length", "Other pairs"], rows, left=2))
        _print_rest(page, len(report.gaps), "gaps, the longest first")
    if report.outliers:
        order = tuple(_JUDGEMENT_STYLES)
        doubtful = sorted(report.outliers, key=lambda one: (order.index(one.judgement), -abs(one.move)))
        rows = [_outlier_row(one) for one in doubtful[:MOST_ROWS]]
        columns = ["Outlier", "Judgement", "Why", "Move", "Volume/usual"]
        page.print(console.table(columns, rows, left=3, folding=("Why",)))
        _print_rest(page, len(report.outliers), "outliers, the doubtful first")


def _print_rest(page: Console, n: int, what: str) -> None:
    if n > MOST_ROWS:
        page.print(f"{MOST_ROWS} of {n:,} {what}; --json prints all.", style="dim")


def _gap_row(gap: Gap, report: QualityReport) -> list[str]:
    return [
        _minute(gap.start_ms),
        gap.cause,
        f"{gap.n_missing:,}",
        console.duration(gap.n_missing * report.timeframe.milliseconds / 1000),
        f"{gap.n_others_missing} of {gap.n_others}" if gap.n_others else "–",
    ]


def _outlier_row(one: Outlier) -> list[str]:
    style = _JUDGEMENT_STYLES[one.judgement]
    judgement = f"[{style}]{one.judgement}[/]" + (" (kept)" if one.is_confirmed else "")
    return [
        _minute(one.open_time_ms),
        judgement,
        one.reason,
        console.percent(one.move),
        console.number(one.volume_ratio, 1),
    ]


def _minute(time_ms: int | None) -> str:
    return "–" if time_ms is None else console.day_of_ms(time_ms)


def _listed(series: SeriesKey, report: QualityReport) -> dict[str, Any]:
    return {
        "series": str(series),
        "is_simulated": series.market.is_simulated,
        "is_fit_for_training": report.is_fit_for_training,
        "candles": report.n_candles,
        "expected": report.n_expected,
        "coverage": report.coverage,
        "first": _utc(report.first_ms),
        "last": _utc(report.last_ms),
        "late_candles": report.n_late,
        "zero_volume": report.n_zero_volume,
        "flat": report.n_flat,
        "largest_move": report.largest_move,
        "largest_move_at": _utc(report.largest_move_ms),
        "no_trade": report.no_trade,
        "gaps": [
            {
                "from": console.utc(gap.start_ms),
                "candles": gap.n_missing,
                "cause": gap.cause,
                "other_pairs": gap.n_others,
                "other_pairs_missing": gap.n_others_missing,
            }
            for gap in report.gaps
        ],
        "outliers": [
            {
                "time": console.utc(one.open_time_ms),
                "kind": one.kind,
                "move": one.move,
                "open": one.open,
                "high": one.high,
                "low": one.low,
                "close": one.close,
                "volume": one.volume,
                "judgement": one.judgement,
                "reason": one.reason,
                "is_confirmed": one.is_confirmed,
            }
            for one in report.outliers
        ],
        "problems": [{"severity": one.severity, "sentence": one.sentence} for one in report.problems],
    }


def _utc(time_ms: int | None) -> str | None:
    return None if time_ms is None else console.utc(time_ms)
