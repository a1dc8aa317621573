"""``tradepulse estimate``: what a training would cost and whether it can prove anything, before it starts."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import typer

from tradepulse_pipeline.cli import console
from tradepulse_pipeline.cli import options as opt
from tradepulse_pipeline.cli.plan import candles_at_hand, planned_series
from tradepulse_pipeline.settings import load_settings

if TYPE_CHECKING:
    from tradepulse_pipeline.validation.estimate import Estimate
    from tradepulse_pipeline.validation.training import TrainingSettings


def estimate(
    ctx: typer.Context,
    strategies: opt.Strategies = None,
    exchanges: opt.Exchanges = None,
    pairs: opt.Pairs = None,
    timeframes: opt.Timeframes = None,
    history_days: opt.HistoryDays = None,
    simulated_edge: opt.SimulatedEdge = None,
    side: opt.TradedSide = None,
    method: opt.Method = None,
    budget: opt.Budget = None,
    objective: opt.Objective = None,
    selection: opt.Selection = None,
    further_objectives: opt.FurtherObjectives = None,
    minimum_trades: opt.MinimumTrades = None,
    max_combinations: opt.MaxCombinations = None,
    filters: opt.Filters = None,
    seed: opt.Seed = None,
    workers: opt.Workers = None,
    memory_limit_mib: opt.MemoryLimit = None,
    scheme: opt.Scheme = None,
    train_days: opt.TrainDays = None,
    test_days: opt.TestDays = None,
    gap_days: opt.GapDays = None,
    step_days: opt.StepDays = None,
    train_ratio: opt.TrainRatio = None,
    reoptimise: opt.Reoptimise = None,
    fee_rate: opt.FeeRate = None,
    slippage: opt.Slippage = None,
    initial_capital: opt.Capital = None,
    risk_fraction: opt.Risk = None,
    max_leverage: opt.Leverage = None,
    max_holding_bars: opt.MaxHolding = None,
    as_json: opt.AsJson = False,
) -> None:
    """Say what a training would take, and whether it can prove anything.

    Counts the combinations and trials, measures for a few seconds how fast this machine tries them, and counts the
    trades of randomly drawn parameter sets. Nothing counts as proved with fewer than 100 out-of-sample trades: where
    the windows cannot hold as many, it says how much history could.

    Takes stored candles where there are some, and the simulated market where there are none, and says which.

    [dim]$[/dim] tradepulse estimate --pair BTC/USDT,ETH/USDT --timeframe 15m --history 730
    [dim]$[/dim] tradepulse estimate --method grid --json
    """
    from tradepulse_pipeline.cli.database import open_database
    from tradepulse_pipeline.strategies.own import register_own_strategies
    from tradepulse_pipeline.strategies.registry import get_strategy
    from tradepulse_pipeline.validation.estimate import estimate_training

    settings = load_settings(**opt.given(ctx))
    register_own_strategies(settings.own_strategies)
    training = settings.training()
    settings.history()
    settings.simulated()
    chosen = [settings.filtered(get_strategy(name)) for name in settings.strategies]
    planned = planned_series(settings)
    found = []
    with open_database(settings) as database:
        for wanted in planned:
            series, candles = candles_at_hand(settings, database, wanted)
            if series != wanted:
                console.warn(f"No candles of {wanted} are stored: these are estimates on the SIMULATED market.")
            found += [estimate_training(strategy, series, candles, training) for strategy in chosen]
    if as_json:
        console.print_json([_listed(one) for one in found])
        return
    for one in found:
        _show(one, training)


def _listed(found: Estimate) -> dict[str, Any]:
    values = asdict(found)
    forecast: dict[str, Any] = values.pop("forecast")
    return values | forecast


def _show(found: Estimate, training: TrainingSettings) -> None:
    page, trades = console.stdout(), found.forecast
    label = " [yellow]SIMULATED[/yellow]" if found.is_simulated else ""
    page.print(f"[bold]{found.strategy} on {found.series}[/bold]{label}")
    count, searches = console.number, f"{found.searches} train windows" if found.searches > 1 else "the train window"
    rows = [
        ["History", f"{count(found.days, 0)} days, {found.n_candles:,} candles"],
        ["Combinations", f"{found.combinations:,}"],
        ["Method", f"{found.method}{', chosen by the time it takes' if training.search.method == 'auto' else ''}"],
        [
            "Trials",
            f"{found.trials:,} ({found.trials_per_search:,} in {'each of ' if found.searches > 1 else ''}{searches})",
        ],
        ["Time here", f"about {console.duration(max(found.seconds, 1))} with {training.search.threads} threads"],
        ["Trades a year", f"{count(trades.trades_per_year, 0)} (busiest {count(trades.busiest_trades_per_year, 0)})"],
        [
            "Out-of-sample",
            f"{count(trades.out_of_sample_trades, 0)} (busiest {count(trades.busiest_out_of_sample_trades, 0)}) trades "
            f"in {count(trades.out_of_sample_days, 0)} days",
        ],
    ]
    page.print(console.table(["", ""], rows, left=2, header=False))
    page.print(trades.verdict, markup=False)
    if found.trials_per_search > training.search.max_combinations:
        console.warn(
            f"'train' would refuse a search of {found.trials_per_search:,} trials: --max-combinations is "
            f"{training.search.max_combinations:,}."
        )
    page.print(
        f"Trades: the median of {trades.n_draws} random parameter sets, and the busiest of them.\n",
        style="dim",
    )
