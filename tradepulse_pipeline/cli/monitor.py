"""``tradepulse monitor``: how the active configurations do on the candles after their training."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from tradepulse_pipeline.cli import console
from tradepulse_pipeline.cli.options import AsJson
from tradepulse_pipeline.cli.results import ID_SHOWN
from tradepulse_pipeline.cli.verdict import marked, series_of, stage
from tradepulse_pipeline.errors import TradePulseError
from tradepulse_pipeline.settings import load_settings

if TYPE_CHECKING:
    from rich.table import Table

    from tradepulse_pipeline.database.configurations import ConfigurationRow
    from tradepulse_pipeline.database.connection import Database
    from tradepulse_pipeline.monitoring.evaluation import Evaluation

#: More configurations than anybody has.
_ALL: Final = 1_000_000


def monitor(
    configuration_id: Annotated[
        str | None,
        typer.Argument(
            metavar="ID", help="Id of an active configuration, or its first 8 characters or more; all without one."
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Look at the active configurations now: paper trades, signs of decay, the stage that follows.

    Runs each over the stored candles that came after its training ('tradepulse fetch' brings new ones), stores paper
    trades and a report, and moves its lifecycle stage by rule. A second look through the same candle changes nothing.
    The exit code is 1 when one of them could not be looked at.

    [dim]$[/dim] tradepulse monitor
    """
    from tradepulse_pipeline.cli.database import open_database
    from tradepulse_pipeline.database.configurations import get, list_configurations
    from tradepulse_pipeline.strategies.own import register_own_strategies

    settings = load_settings()
    register_own_strategies(settings.own_strategies)
    with open_database(settings) as database:
        rows = (
            list_configurations(database, limit=_ALL) if configuration_id is None else [get(database, configuration_id)]
        )
        looked = [(row, *_look(database, row)) for row in rows]
    if as_json:
        console.print_json([_listed(row, found, problem) for row, found, problem in looked])
    elif not looked:
        console.say("No configurations yet. 'tradepulse train' makes one.")
    else:
        page = console.stdout()
        page.print(_table(looked))
        for row, found, problem in looked:
            page.print(f"{str(row.id)[:ID_SHOWN]}: {_said(found, problem)}", markup=False)
    if any(problem for _, _, problem in looked):
        raise typer.Exit(console.EXIT_FAILED)


def _look(database: Database, row: ConfigurationRow) -> tuple[Evaluation | None, str | None]:
    """Return what was found, None without new candles, and what went wrong: one must not keep the others waiting."""
    from tradepulse_pipeline.database.monitoring import look_at, record_evaluation
    from tradepulse_pipeline.strategies.registry import get_strategy

    try:
        found = look_at(database, row, get_strategy(row.strategy_name))
        if found is not None:
            record_evaluation(database, row, found)
    except TradePulseError as error:
        return None, str(error)
    return found, None


def _said(found: Evaluation | None, problem: str | None) -> str:
    if problem is not None:
        return f"could not be looked at. {problem}"
    if found is None:
        return "no candle has come since its training. 'tradepulse fetch' brings new ones."
    challenger = f" {found.challenger.sentence}" if found.challenger else ""
    return f"{found.verdict.reason}{challenger}"


def _table(looked: list[tuple[ConfigurationRow, Evaluation | None, str | None]]) -> Table:
    columns = ["Id", "Monitored", "Stage", "Paper\ntrades", "Sharpe\n30 days", "Sharpe\nlifetime", "Death\nsignals"]
    has_several = len({row.strategy_name for row, _, _ in looked}) > 1
    lines = []
    for row, found, problem in looked:
        name = f"{f'{row.strategy_name} ' if has_several else ''}{series_of(row)}{marked(row.exchange)}"
        if found is None:
            state = "[red]failed[/]" if problem else stage(row.lifecycle_stage)
            lines.append([str(row.id)[:ID_SHOWN], name, state, "–", "–", "–", "–"])
            continue
        before, after = found.standing.stage, found.verdict.stage
        figures = found.figures()
        lines.append(
            [
                str(row.id)[:ID_SHOWN],
                name,
                f"{stage(before)} → {stage(after)}" if found.moved else stage(after),
                str(figures["paper_trades"]),
                console.number(figures["rolling_30d_sharpe"]),
                console.number(figures["lifetime_sharpe_ratio"]),
                str(len(found.death_signals)),
            ]
        )
    return console.table(columns, lines, left=3, folding=("Monitored",))


def _listed(row: ConfigurationRow, found: Evaluation | None, problem: str | None) -> dict[str, Any]:
    """Return one look for JSON."""
    from tradepulse_pipeline.market.sources.times import iso_utc

    return {
        "id": str(row.id),
        "strategy": row.strategy_name,
        "series": str(series_of(row)),
        "is_simulated": row.is_simulated,
        "stage_before": row.lifecycle_stage,
        "stage_after": row.lifecycle_stage if found is None else found.verdict.stage,
        "through": None if found is None else iso_utc(found.through_ms),
        "verdict": _said(found, problem),
        "size_multiplier": None if found is None else found.verdict.size_multiplier,
        "challenger": found.challenger.to_json_dict() if found and found.challenger else None,
        "figures": None if found is None else found.figures(),
    }
