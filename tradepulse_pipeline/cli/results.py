"""``tradepulse results`` and ``tradepulse show``: the trained configurations."""

from __future__ import annotations

from datetime import UTC
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from tradepulse_pipeline.cli import console
from tradepulse_pipeline.cli.evidence import (
    MONTE_CARLO_COLUMNS,
    MONTE_CARLO_NOTE,
    evidence_rows,
    evidence_sentences,
    monte_carlo_rows,
)
from tradepulse_pipeline.cli.options import AsJson
from tradepulse_pipeline.cli.verdict import marked, print_verdict, series_of, stage, stale_mark
from tradepulse_pipeline.errors import one_of
from tradepulse_pipeline.market.series import Market, Timeframe
from tradepulse_pipeline.settings import load_settings

if TYPE_CHECKING:
    from datetime import datetime

    from rich.console import Console
    from rich.table import Table

    from tradepulse_pipeline.database.configurations import ConfigurationRow, Transition
    from tradepulse_pipeline.database.monitoring import MonitoringReport

#: Characters of an id that are shown in tables; 'show' takes them.
ID_SHOWN: Final = 8

FILTERS: Final = "Which ones"

_LISTED: Final = (
    "net_profit",
    "sharpe_ratio",
    "sortino_ratio",
    "calmar_ratio",
    "max_drawdown",
    "win_rate",
    "profit_factor",
    "sample_size",
    "p_value",
)


def results(
    strategy: Annotated[
        str | None, typer.Option("--strategy", metavar="NAME", rich_help_panel=FILTERS, help="Of this strategy.")
    ] = None,
    exchange: Annotated[
        str | None, typer.Option("--exchange", metavar="NAME", rich_help_panel=FILTERS, help="Of this exchange.")
    ] = None,
    pair: Annotated[
        str | None, typer.Option("--pair", metavar="BASE/QUOTE", rich_help_panel=FILTERS, help="Of this pair.")
    ] = None,
    timeframe: Annotated[
        str | None, typer.Option("--timeframe", metavar="SPAN", rich_help_panel=FILTERS, help="Of this timeframe.")
    ] = None,
    wanted_stage: Annotated[
        str | None,
        typer.Option(
            "--stage",
            metavar="STAGE",
            rich_help_panel=FILTERS,
            help="In this lifecycle stage: PAPER, DISCOVERY, VALIDATION, MATURE or DECAY.",
        ),
    ] = None,
    superseded: Annotated[
        bool, typer.Option("--all", rich_help_panel=FILTERS, help="Older versions too, not only the active ones.")
    ] = False,
    limit: Annotated[
        int, typer.Option("--limit", min=1, metavar="N", rich_help_panel=FILTERS, help="The latest N.")
    ] = 50,
    as_json: AsJson = False,
) -> None:
    """List trained configurations and their out-of-sample figures.

    [dim]$[/dim] tradepulse results --stage VALIDATION --timeframe 5m
    """
    from tradepulse_pipeline.cli.database import open_database
    from tradepulse_pipeline.database.configurations import list_configurations
    from tradepulse_pipeline.strategies.own import register_own_strategies
    from tradepulse_pipeline.strategies.registry import get_strategy
    from tradepulse_pipeline.validation.lifecycle import STAGES

    if wanted_stage is not None and wanted_stage.upper() not in STAGES:
        raise one_of("stage", wanted_stage, STAGES)
    settings = load_settings()
    register_own_strategies(settings.own_strategies)
    strategy_name = None if strategy is None else get_strategy(strategy).name
    wanted_pair = None if pair is None else Market.parse(exchange or "any", pair).pair
    wanted_timeframe = None if timeframe is None else Timeframe(timeframe).name
    with open_database(settings) as database:
        rows = list_configurations(
            database,
            strategy_name=strategy_name,
            exchange=exchange,
            pair=wanted_pair,
            timeframe=wanted_timeframe,
            stage=None if wanted_stage is None else wanted_stage.upper(),
            active_only=not superseded,
            limit=limit,
        )
    if as_json:
        console.print_json([listed(row) for row in rows])
    elif not rows:
        console.say("No configurations yet. 'tradepulse train' makes one.")
    else:
        console.stdout().print(_results_table(rows))
        console.say("'tradepulse show ID' tells more about one.")


def show(
    configuration_id: Annotated[
        str, typer.Argument(metavar="ID", help="Id of a configuration, or its first 8 characters or more.")
    ],
    as_json: AsJson = False,
) -> None:
    """Show a configuration: verdict, parameters, windows, origin.

    --json prints the V3 document that a trading bot reads. What was not measured is null.

    [dim]$[/dim] tradepulse show 1f0c2a9e
    """
    from tradepulse_pipeline.cli.database import open_database
    from tradepulse_pipeline.database.configurations import get, transitions
    from tradepulse_pipeline.database.monitoring import reports_of
    from tradepulse_pipeline.strategies.own import register_own_strategies

    settings = load_settings()
    register_own_strategies(settings.own_strategies)
    with open_database(settings) as database:
        row = get(database, configuration_id)
        stages = transitions(database, row.id)
        looks = reports_of(database, row.id, limit=1) if as_json else []
    if as_json:
        console.print_json(_document(row, looks))
        return
    page = console.stdout()
    print_verdict(page, row, stages)
    page.print()
    page.print("[bold]Parameters[/]")
    page.print(console.table(["", ""], [[name, f"{value:g}"] for name, value in _ordered(row).items()], header=False))
    page.print("[bold]Windows[/]")
    page.print(_windows_table(row))
    if evidence := evidence_rows(row):
        page.print("[bold]Evidence[/]")
        page.print(console.table(["", "", ""], evidence, left=3, folding=("",), header=False))
        for sentence in evidence_sentences(row):
            page.print(sentence)
        page.print()
    if histories := monte_carlo_rows(row):
        page.print("[bold]Monte Carlo[/]")
        page.print(console.table(MONTE_CARLO_COLUMNS, histories, folding=("",)))
        page.print(MONTE_CARLO_NOTE)
        page.print()
    page.print("[bold]Origin[/]")
    page.print(console.table(["", ""], _origin(row), left=2, header=False))
    page.print("[bold]Lifecycle[/]")
    _print_stages(page, stages)


def _document(row: ConfigurationRow, looks: list[MonitoringReport]) -> dict[str, Any]:
    """Return the V3 document with its sections in their order, which the database does not keep.

    Its stage, what monitoring found last, and whether its candles have become others since, are not what was stored at
    its birth.
    """
    from tradepulse_pipeline.configurations.template import Template, with_health, with_stage

    document = with_stage(Template.model_validate(row.template).model_dump(mode="json"), row.lifecycle_stage)
    for look in looks:
        document = with_health(document, look.figures, months=_whole_months(row.data_end, look.through))
    for configuration in document["configurations"]:
        configuration["parameters"] = _ordered(row)
        configuration["metadata"] |= {"is_stale": row.stale_at is not None, "stale_reason": row.stale_reason}
    return document


def _whole_months(start: datetime, end: datetime) -> int:
    start, end = start.astimezone(UTC), end.astimezone(UTC)
    months = 12 * (end.year - start.year) + end.month - start.month
    return months - ((end.day, end.time()) < (start.day, start.time()))


def _ordered(row: ConfigurationRow) -> dict[str, float]:
    """Return the parameters in the order in which the strategy declares them, if it is still known."""
    from tradepulse_pipeline.strategies.registry import get_strategy, strategy_names

    if row.strategy_name not in strategy_names():
        return dict(row.parameters)
    declared = [parameter.name for parameter in get_strategy(row.strategy_name).parameters]
    return {name: row.parameters[name] for name in declared if name in row.parameters}


def listed(row: ConfigurationRow) -> dict[str, Any]:
    """Return a configuration for JSON, without its documents."""
    return {
        "id": str(row.id),
        "strategy": row.strategy_name,
        "series": str(series_of(row)),
        "stage": row.lifecycle_stage,
        "version": row.version,
        "is_active": row.is_active,
        "is_simulated": row.is_simulated,
        "is_stale": row.stale_at is not None,
        "stale_reason": row.stale_reason,
        "is_out_of_sample": row.out_of_sample_metrics["is_out_of_sample"],
        **{name: getattr(row, name) for name in _LISTED},
        "parameters": _ordered(row),
        "data_warnings": list(row.data_warnings),
        "created_at": None if row.created_at is None else row.created_at.isoformat(),
        "training_job_id": str(row.training_job_id),
    }


def _results_table(rows: list[ConfigurationRow]) -> Table:
    columns = ["Id", "Trained", "Stage", "Net profit", "Sharpe", "Drawdown", "Trades", "p-value"]
    has_several = len({row.strategy_name for row in rows}) > 1
    return console.table(
        columns,
        [
            [
                str(row.id)[:ID_SHOWN],
                f"{f'{row.strategy_name} ' if has_several else ''}{series_of(row)}{marked(row.exchange)}"
                f"{'' if row.out_of_sample_metrics['is_out_of_sample'] else ' not out-of-sample'}",
                f"{stage(row.lifecycle_stage)}{stale_mark(row)}{'' if row.is_active else f' (version {row.version})'}",
                console.number(row.net_profit),
                console.number(row.sharpe_ratio),
                console.percent(row.max_drawdown),
                console.number(row.sample_size, 0),
                console.number(row.p_value, 3),
            ]
            for row in rows
        ],
        left=3,
        folding=("Trained",),
    )


def _windows_table(row: ConfigurationRow) -> Table:
    lines, has_unjudged = [], any(window["status"] != "judged" for window in row.windows)
    for window in row.windows:
        tested, chosen = window["out_of_sample"] or {}, (window["chosen"] or {}).get("in_sample", {})
        lines.append(
            [
                str(window["window"] + 1),
                f"{console.day_of_ms(window['test_start_ms'])[:10]} to {console.day_of_ms(window['test_end_ms'])[:10]}",
                *([window["status"]] if has_unjudged else []),
                console.number(tested.get("sample_size"), 0),
                console.percent(tested.get("total_return")),
                console.number(tested.get("sharpe_ratio")),
                console.percent(chosen.get("total_return")),
                console.number(chosen.get("sharpe_ratio")),
            ]
        )
    figures = ["Trades", "Return", "Sharpe", "In-sample\nreturn", "In-sample\nSharpe"]
    columns = ["", "Tested", *(["Status"] if has_unjudged else []), *figures]
    return console.table(columns, lines, left=len(columns) - len(figures), folding=("Tested", "Status"))


def _origin(row: ConfigurationRow) -> list[list[str]]:
    trained = "–" if row.created_at is None else f"{console.day(row.created_at)} UTC"
    return [
        ["Trained", f"{trained}, job {row.training_job_id}"],
        ["Candles", f"{console.day(row.data_start)} to {console.day(row.data_end)} UTC"],
        ["Fingerprint", row.data_fingerprint],
        ["Search", f"{row.optimizer}, {row.n_trials:,} trials, seed {row.seed}"],
        ["Engine", f"tradepulse {row.code_version}, {row.engine_hash[:12]}"],
        ["Run", row.run_id],
    ]


def _print_stages(page: Console, stages: list[Transition]) -> None:
    from rich.markup import escape

    for one in stages:
        page.print(f"  {console.day(one.at)}  {stage(one.to_stage)}  {escape(one.reason)}")
