"""What a trained configuration is worth, in words and figures that a person reads."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from tradepulse_pipeline.cli import console
from tradepulse_pipeline.market.series import SIMULATED_EXCHANGE, SeriesKey

if TYPE_CHECKING:
    from rich.console import Console

    from tradepulse_pipeline.database.configurations import ConfigurationRow, Transition

#: Figures that are shown out-of-sample next to in-sample.
COMPARED: Final = (
    "net_profit",
    "annualized_return",
    "sharpe_ratio",
    "sortino_ratio",
    "calmar_ratio",
    "max_drawdown",
    "win_rate",
    "profit_factor",
    "expectancy_r",
    "sample_size",
)

_STAGE_STYLES: Final = {"PAPER": "yellow", "DISCOVERY": "cyan", "VALIDATION": "blue", "MATURE": "green", "DECAY": "red"}


def series_of(row: ConfigurationRow) -> SeriesKey:
    """Return the series that a configuration was trained on."""
    return SeriesKey.of(row.exchange, row.pair, row.timeframe)


def stage(name: str) -> str:
    """Return a lifecycle stage in its colour."""
    return f"[{_STAGE_STYLES.get(name, 'default')}]{name}[/]"


def marked(exchange: str) -> str:
    """Return the word that goes with everything trained on made-up candles, else nothing."""
    return " [bold yellow]SIMULATED[/]" if exchange == SIMULATED_EXCHANGE else ""


def stale_mark(row: ConfigurationRow) -> str:
    """Return the word that goes with a configuration whose candles have become others, else nothing."""
    return "" if row.stale_at is None else " [bold red]STALE[/]"


def print_verdict(page: Console, row: ConfigurationRow, transitions: Sequence[Transition]) -> None:
    """Print the stage and its reason, the figures out-of-sample next to in-sample, costs and the id."""
    from rich.markup import escape

    found, trained = row.out_of_sample_metrics, row.in_sample_metrics
    page.print(f"[bold]{row.strategy_name} on {series_of(row)}[/]{marked(row.exchange)}{stale_mark(row)}")
    reason = transitions[-1].reason if transitions else ""
    page.print(f"{stage(row.lifecycle_stage)}: {escape(reason)}")
    if row.stale_at is not None:
        page.print(f"{_why_stale(row)} Train again.", style="red", markup=False)
    if row.is_simulated:
        page.print("SIMULATED candles: whatever the figures are, they say nothing about any market.", style="yellow")
    elif row.lifecycle_stage == "PAPER":
        page.print("Nothing here is worth trading. That is a valid result, and cheaper than finding out with money.")
    is_judged = trained.get("net_profit") is not None
    if is_judged:
        label = "Out-of-sample" if found["is_out_of_sample"] else "Seen before"
        rows = console.metric_rows(found, trained, names=COMPARED)
        page.print(console.table(["", label, "In-sample"], rows))
        page.print(f"{_spans(row)} In-sample figures are means over the train windows.", style="dim")
    page.print(_doubts(row), markup=False)
    if not found["is_complete"]:
        page.print("The time was over before every planned trial was made.", style="yellow")
    for warning in row.data_warnings:
        page.print(f"Candles: {warning}", style="yellow", markup=False)
    page.print(f"Configuration {row.id} (version {row.version})", markup=False)


def _why_stale(row: ConfigurationRow) -> str:
    assert row.stale_at is not None
    changes = f" Candles changed in all: {row.stale_candles:,}." if row.stale_candles else ""
    return f"Stale since {console.day(row.stale_at)} UTC: {row.stale_reason}.{changes}"


def _spans(row: ConfigurationRow) -> str:
    judged = [window for window in row.windows if window["out_of_sample"]]
    if not judged:
        return "No window was judged."
    first, last = judged[0]["test_start_ms"], judged[-1]["test_end_ms"]
    windows = "test window" if len(judged) == 1 else "test windows"
    return f"{len(judged)} {windows} from {console.day_of_ms(first)[:10]} to {console.day_of_ms(last)[:10]}."


def _doubts(row: ConfigurationRow) -> str:
    """Return what costs take and what the statistics say, in one line."""
    found = row.out_of_sample_metrics
    parts = []
    if row.sample_size:
        parts.append(f"Costs take {console.number(found['cost_per_trade_r'], 2)} R from the mean trade")
    if row.p_value is not None:
        parts.append(f"p-value {console.number(row.p_value, 3)}")
    if found["is_overfit"]:
        judged = "out-of-sample Sharpe" if found["is_out_of_sample"] else "Sharpe in the test windows"
        parts.append(f"overfit: {judged} is less than half of in-sample")
    return f"{'; '.join(parts)}." if parts else "No trade was made, so nothing can be said about costs or luck."
