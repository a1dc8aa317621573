"""``tradepulse check``: whether a strategy looks ahead, or decides what cannot be, before anything is trained."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from tradepulse_pipeline.cli import console
from tradepulse_pipeline.cli import options as opt
from tradepulse_pipeline.cli.plan import candles_at_hand, planned_series, simulated_candles
from tradepulse_pipeline.cli.verdict import marked
from tradepulse_pipeline.market.series import SIMULATED_EXCHANGE, SeriesKey
from tradepulse_pipeline.settings import Settings, load_settings

if TYPE_CHECKING:
    from tradepulse_pipeline.market.candles import Candles
    from tradepulse_pipeline.strategies.base import Strategy

#: What is looked at: more than before a training, where a few tenths of a second count.
N_CANDLES: Final = 20_000
N_SETS: Final = 16
N_CUTS: Final = 100


def check(
    ctx: typer.Context,
    strategy: Annotated[
        str, typer.Argument(metavar="STRATEGY", help="Name of a strategy, or a Python file that defines some.")
    ],
    exchanges: opt.Exchanges = None,
    pairs: opt.Pairs = None,
    timeframes: opt.Timeframes = None,
    history_days: opt.HistoryDays = None,
    source: opt.Source = None,
    simulated_edge: opt.SimulatedEdge = None,
    side: opt.TradedSide = None,
    seed: opt.Seed = None,
    as_json: opt.AsJson = False,
) -> None:
    """Check a strategy for look-ahead and for decisions that cannot be; trains nothing.

    Draws parameter sets and bars, and compares what the strategy decides up to each bar with what it decides when the
    candles after it are cut off, and when they are absurd. A training makes the same check, with fewer draws.

    Takes stored candles where there are some, and the simulated market where there are none; --source simulated needs
    no database. The exit code is 2 when the strategy fails.

    [dim]$[/dim] tradepulse check strategies/ma_cross.py --source simulated
    [dim]$[/dim] tradepulse check LIQUIDITY_SWEEP_V3 --timeframe 15m --side both
    """
    from tradepulse_pipeline.strategies.causality import check_causality

    settings = load_settings(**opt.given(ctx))
    training = settings.training()
    settings.history()
    settings.simulated()
    chosen = _strategies(settings, strategy)
    found = []
    for series, candles in _candles(settings):
        for one in chosen:
            report = check_causality(
                one,
                candles.filled_forward(),
                settings.side,
                n_candles=N_CANDLES,
                n_sets=N_SETS,
                n_cuts=N_CUTS,
                seed=training.search.seed,
            )
            found.append({"strategy": one.name, "series": str(series), **asdict(report)})
            if not as_json:
                page = console.stdout()
                page.print(f"[bold]{one.name} on {series}[/]{marked(series.exchange)}, {settings.side}")
                page.print(report.verdict, style="green" if report.n_decisions else "yellow", markup=False)
    if as_json:
        console.print_json(found)


def _strategies(settings: Settings, wanted: str) -> list[Strategy]:
    from tradepulse_pipeline.strategies.own import register_own_strategies, strategies_of_file
    from tradepulse_pipeline.strategies.registry import get_strategy, register

    if wanted.endswith(".py"):
        path = Path(wanted).resolve()
        if path not in [file.resolve() for file in settings.own_strategies]:
            console.warn(f"{wanted} is not among own_strategies of tradepulse.toml: nothing else will find it yet.")
        found = strategies_of_file(path)
        register(found)  # refuses a name that is taken
        return found
    register_own_strategies(settings.own_strategies)
    return [get_strategy(wanted)]


def _candles(settings: Settings) -> Iterator[tuple[SeriesKey, Candles]]:
    from tradepulse_pipeline.cli.database import open_database

    planned = planned_series(settings)
    if settings.source == SIMULATED_EXCHANGE:
        yield from (simulated_candles(settings, series) for series in planned)
        return
    with open_database(settings) as database:
        for wanted in planned:
            series, candles = candles_at_hand(settings, database, wanted)
            if series != wanted:
                console.warn(f"No candles of {wanted} are stored: this checks on the SIMULATED market.")
            yield series, candles
