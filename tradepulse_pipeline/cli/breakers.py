"""``tradepulse breakers``: what the circuit breakers would have cost or saved."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from tradepulse_pipeline.cli import console
from tradepulse_pipeline.cli.options import AsJson
from tradepulse_pipeline.cli.verdict import marked, series_of
from tradepulse_pipeline.settings import load_settings

if TYPE_CHECKING:
    from rich.table import Table

    from tradepulse_pipeline.monitoring.breakers import Outcome, Replay


def breakers(
    configuration_id: Annotated[
        str | None,
        typer.Argument(metavar="ID", help="Id of a configuration, or its first 8 characters or more; all without one."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Replay the seven circuit breakers over history: what would each have cost or saved?

    Goes through the out-of-sample trades and the paper trades of a configuration, or of every active one, and tells
    which of them each breaker would have stopped, alone and all together. A breaker knows what was known when the
    trade was decided; it stops entries, not open positions.

    [dim]$[/dim] tradepulse breakers 1f0c2a9e
    """
    from tradepulse_pipeline.cli.database import open_database
    from tradepulse_pipeline.database.configurations import get, list_configurations
    from tradepulse_pipeline.database.monitoring import replay_over_history
    from tradepulse_pipeline.strategies.own import register_own_strategies
    from tradepulse_pipeline.strategies.registry import get_strategy

    settings = load_settings()
    register_own_strategies(settings.own_strategies)
    with open_database(settings) as database:
        rows = (
            list_configurations(database, limit=_ALL) if configuration_id is None else [get(database, configuration_id)]
        )
        replays = [(row, replay_over_history(database, row, get_strategy(row.strategy_name))) for row in rows]
    if as_json:
        console.print_json(
            [
                {
                    "id": str(row.id),
                    "strategy": row.strategy_name,
                    "series": str(series_of(row)),
                    "is_simulated": row.is_simulated,
                    **replay.to_json_dict(),
                }
                for row, replay in replays
            ]
        )
        return
    if not replays:
        console.say("No configurations yet. 'tradepulse train' makes one.")
        return
    page = console.stdout()
    for row, replay in replays:
        page.print(f"[bold]{row.strategy_name} on {series_of(row)}[/]{marked(row.exchange)}: {replay.n_trades} trades")
        page.print(_table(replay, series_of(row).market.quote))
    page.print("Saved: + is what a breaker would have saved, - what it would have cost.", style="dim")


#: More configurations than anybody has.
_ALL = 1_000_000


def _table(replay: Replay, currency: str) -> Table:
    from tradepulse_pipeline.monitoring.breakers import LIMITS

    rows = [[name, f"{limit:g}", *_figures(replay.alone.get(name))] for name, limit in LIMITS.items()]
    rows.append(["all together", "", *_figures(replay.together)])
    columns = ["Breaker", "Limit", "Tripped", "Trades stopped", f"Saved, {currency}", "Saved, R"]
    return console.table(columns, rows)


def _figures(outcome: Outcome | None) -> list[str]:
    if outcome is None:
        return ["not measured", "–", "–", "–"]
    return [
        str(outcome.n_tripped),
        str(len(outcome.stopped)),
        _signed(outcome.saved),
        _signed(outcome.saved_r),
    ]


def _signed(value: Any) -> str:
    text = console.number(value)
    return f"+{text}" if value > 0 and float(text.replace(",", "")) else text
