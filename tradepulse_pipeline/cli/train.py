"""``tradepulse train``: from names to stored configurations, with live progress and a plain verdict."""

from __future__ import annotations

import getpass
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any
from uuid import UUID

import typer

from tradepulse_pipeline.cli import console
from tradepulse_pipeline.cli import options as opt
from tradepulse_pipeline.cli.plan import Sources, planned_series, simulated_twin
from tradepulse_pipeline.cli.verdict import marked
from tradepulse_pipeline.errors import (
    InsufficientHistoryError,
    InvalidInputError,
    SourceError,
    SourceUnreachableError,
    TradePulseError,
)
from tradepulse_pipeline.market.history import HistorySettings
from tradepulse_pipeline.market.series import SeriesKey
from tradepulse_pipeline.settings import Settings, load_settings

if TYPE_CHECKING:
    from tradepulse_pipeline.database.configurations import ConfigurationRow, Transition
    from tradepulse_pipeline.database.connection import Database
    from tradepulse_pipeline.strategies.base import Strategy
    from tradepulse_pipeline.validation.training import TrainingSettings


@dataclass(frozen=True, slots=True)
class Plan:
    """A series that is going to be trained, and where its candles may come from."""

    series: SeriesKey
    history: HistorySettings


@dataclass(frozen=True, slots=True, kw_only=True)
class Trained:
    """How one training ended: with a configuration, without one (``note`` says why), or with an ``error``."""

    strategy: str
    series: str
    run_id: str | None = None
    error: str | None = None
    note: str | None = None
    configuration: ConfigurationRow | None = None
    transitions: Sequence[Transition] = ()


def train(
    ctx: typer.Context,
    strategies: opt.Strategies = None,
    exchanges: opt.Exchanges = None,
    pairs: opt.Pairs = None,
    timeframes: opt.Timeframes = None,
    history_days: opt.HistoryDays = None,
    source: opt.Source = None,
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
    max_runtime_seconds: opt.MaxRuntime = None,
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
    """Train strategies on markets, judge the result on unseen data, store it.

    Without options it trains LIQUIDITY_SWEEP_V3 on the last 365 days of BTC/USDT 5m from Binance: all combinations are
    tried in each train window of 90 days, or 1,000 drawn at random where all would take more than a minute; judged on
    the 30 days that follow, of which 7 are left out as a gap. Several strategies, exchanges, pairs and timeframes
    make a product: each combination is trained.

    Where no exchange can be reached, stored candles are taken, and where there are none the simulated market, with
    the word SIMULATED on everything that comes of it. --source exchange forbids both.

    The same seed gives the same figures. The run is in the web UI afterwards: 'tradepulse up'.

    [dim]$[/dim] tradepulse train
    [dim]$[/dim] tradepulse train --exchange binance,kraken --pair BTC/USDT,ETH/USDT --timeframe 15m --history 730
    [dim]$[/dim] tradepulse train --source simulated --simulated-edge 4 --method tpe --budget 300 --seed 7
    """
    from tradepulse_pipeline.cli.database import open_database
    from tradepulse_pipeline.cli.signals import interruptible
    from tradepulse_pipeline.optimizers.search import check_limit
    from tradepulse_pipeline.strategies.own import register_own_strategies
    from tradepulse_pipeline.strategies.registry import get_strategy
    from tradepulse_pipeline.strategies.space import ParameterSpace

    settings = load_settings(**opt.given(ctx))
    register_own_strategies(settings.own_strategies)
    training = settings.training()
    settings.history()
    settings.simulated()
    _check_history(settings, training)
    chosen = [settings.filtered(get_strategy(name)) for name in settings.strategies]
    for strategy in chosen:
        check_limit(ParameterSpace(strategy.parameters), training.search)
    wanted = planned_series(settings)
    with interruptible(), open_database(settings) as database:
        plans, refused = _prepare(settings, database, wanted)
        results = [
            Trained(strategy=strategy.name, series=str(series), error=str(error))
            for strategy in chosen
            for series, error in refused.items()
        ]
        for strategy in chosen:
            if plans:
                results += _train_all(settings, database, strategy, training, plans)
    if as_json:
        console.print_json([_listed(result) for result in results])
    else:
        _show(settings, results)
    failed = [result for result in results if result.error is not None]
    for result in failed:
        console.complain(f"{result.strategy} on {result.series}: {result.error}")
    if len(results) > 1 and failed:
        console.say(f"{len(failed)} of {len(results)} trainings failed.")
    if failed:
        is_wrong_input = not plans and all(isinstance(error, InvalidInputError) for error in refused.values())
        raise typer.Exit(console.EXIT_WRONG_INPUT if is_wrong_input else console.EXIT_FAILED)


def _check_history(settings: Settings, training: TrainingSettings) -> None:
    """Refuse a history that is shorter than one window, before anything starts."""
    from tradepulse_pipeline.validation.windows import days_needed

    needed = days_needed(training.windows)
    if settings.history_days < needed:
        raise InsufficientHistoryError(
            f"history_days: found {settings.history_days} (from {settings.origin('history_days')}), but one "
            f"{training.windows.scheme} window needs {needed} days. Take a longer history or shorter windows."
        )


def _prepare(
    settings: Settings, database: Database, wanted: Sequence[SeriesKey]
) -> tuple[list[Plan], dict[SeriesKey, TradePulseError]]:
    """Return what can be trained, and why the rest cannot."""
    sources = Sources(settings)
    plans: dict[SeriesKey, Plan] = {}
    refused: dict[SeriesKey, TradePulseError] = {}
    for series in wanted:
        try:
            plan = _plan(settings.history(), database, series, sources)
        except TradePulseError as error:
            refused[series] = error
        else:
            plans[plan.series] = plan
    for series, reason in refused.items() if plans else ():
        console.warn(f"{series} is left out: {reason}")
    return list(plans.values()), refused


def _plan(history: HistorySettings, database: Database, series: SeriesKey, sources: Sources) -> Plan:
    from tradepulse_pipeline.database.candles import coverage_of

    if history.source == "stored" and coverage_of(database, series) is None:
        raise InvalidInputError(
            f"No candles of {series} are stored, and source is 'stored'. 'tradepulse markets' lists what there is, "
            "'tradepulse import' reads candles from files."
        )
    if series.market.is_simulated or history.source == "stored":
        return Plan(series, history)
    try:
        sources.check(series)
    except (SourceError, InvalidInputError) as error:
        if history.source == "exchange":
            raise
        if coverage_of(database, series) is not None:
            console.warn(f"{error} Going on with the stored candles of {series}.")
            return Plan(series, replace(history, source="stored"))
        if not isinstance(error, SourceUnreachableError):
            raise
        twin = simulated_twin(series)
        console.warn(
            f"{error}\nSIMULATED: no candles of {series} are stored either, so {twin} is trained instead. Its candles "
            "are made up: what comes of it says nothing about any market. 'tradepulse import' reads candles from "
            "files; --source exchange forbids this fall-back."
        )
        return Plan(twin, history)
    return Plan(series, history)


def _train_all(
    settings: Settings, database: Database, strategy: Strategy, training: TrainingSettings, plans: Sequence[Plan]
) -> list[Trained]:
    """Train ``strategy`` on every series of one training job; on Ctrl-C the job is cancelled.

    Raises
    ------
    typer.Exit
        With the exit code of an interrupted command.
    """
    import tradepulse_pipeline
    from tradepulse_pipeline.cli.interrupted import PROCESS_KEY
    from tradepulse_pipeline.database import training_jobs
    from tradepulse_pipeline.processes import this_process

    job_id = training_jobs.create(
        database,
        strategy_name=strategy.name,
        config={
            "training": training.to_json_dict(),
            "history": asdict(settings.history()),
            PROCESS_KEY: this_process(),
        },
        series=[plan.series for plan in plans],
        seed=training.search.seed,
        code_version=tradepulse_pipeline.__version__,
        user_id=_user(),
    )
    console.say(_announcement(strategy, training, job_id, len(plans)))
    results = []
    try:
        for position, plan in enumerate(plans, 1):
            title = f"[bold]{plan.series}[/]{marked(plan.series.exchange)} ({position} of {len(plans)})"
            results.append(_train_one(settings, database, strategy, training, plan, job_id, title))
    except KeyboardInterrupt:
        training_jobs.cancel_job(database, job_id)
        console.warn(f"Interrupted: training job {str(job_id)[:8]} is cancelled. Candles that were fetched are kept.")
        raise typer.Exit(console.EXIT_INTERRUPTED) from None
    except Exception as error:
        training_jobs.mark_interrupted(database, f"{type(error).__name__}: {error}", job_ids=[job_id])
        raise
    return results


def _train_one(
    settings: Settings,
    database: Database,
    strategy: Strategy,
    training: TrainingSettings,
    plan: Plan,
    job_id: UUID,
    title: str,
) -> Trained:
    from tradepulse_pipeline.backtest.compilation import engine_is_compiled
    from tradepulse_pipeline.cli.progress import display
    from tradepulse_pipeline.database.configurations import list_configurations, transitions
    from tradepulse_pipeline.database.training_jobs import get

    series = plan.series
    try:
        with display(title, is_first_run=not engine_is_compiled()) as listener:
            from tradepulse_pipeline.orchestration.launch import run_training

            outcome = run_training(
                series=series,
                strategy_name=strategy.name,
                training=training,
                history=plan.history,
                job_id=job_id,
                simulated_edge=settings.simulated_edge,
                on_progress=listener,
                project=settings.project_dir,
            )
    except TradePulseError as error:
        return Trained(strategy=strategy.name, series=str(series), error=str(error))
    _repeat_warnings(settings, outcome.run_id)
    if outcome.cancelled:
        raise KeyboardInterrupt
    if not outcome.success:
        return Trained(strategy=strategy.name, series=str(series), run_id=outcome.run_id, error=outcome.error)
    found = list_configurations(
        database,
        exchange=series.exchange,
        pair=series.pair,
        timeframe=series.timeframe.name,
        training_job_id=job_id,
        active_only=False,
    )
    notes = [one.error_message for one in get(database, job_id).series if one.series == series]
    return Trained(
        strategy=strategy.name,
        series=str(series),
        run_id=outcome.run_id,
        note=None if found else notes[0],
        configuration=found[0] if found else None,
        transitions=transitions(database, found[0].id) if found else (),
    )


def _repeat_warnings(settings: Settings, run_id: str) -> None:
    """Say on the terminal what the run's log warns of, such as a history that begins later than asked for."""
    import logging

    from tradepulse_pipeline.orchestration.launch import open_instance

    with open_instance(settings.project_dir) as instance:
        for entry in instance.all_logs(run_id):
            if not entry.is_dagster_event and int(entry.level) == logging.WARNING:
                console.warn(entry.user_message)


def _announcement(strategy: Strategy, training: TrainingSettings, job_id: UUID, n_series: int) -> str:
    from tradepulse_pipeline.strategies.space import ParameterSpace

    size, search, windows = ParameterSpace(strategy.parameters).size, training.search, training.windows
    cut = (
        f"walk-forward {windows.train_days}/{windows.test_days}/{windows.gap_days} days"
        if windows.scheme == "walk_forward"
        else f"train/test split at {windows.train_ratio:g}"
    )
    if search.method == "auto":
        method = f"all {size:,} combinations where that takes less than a minute here, else a random search"
    else:
        method = f"{search.method} search, {search.planned_trials(size):,} of {size:,} combinations"
    return (
        f"Training {strategy.name} on {n_series} series for {' and '.join(search.objectives)}: {method}, in each train "
        f"window, {cut}, seed {search.seed}. Job {str(job_id)[:8]}."
    )


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a user id without a name, as in containers
        return "unknown"


def _show(settings: Settings, results: Sequence[Trained]) -> None:
    from tradepulse_pipeline.cli.verdict import print_verdict

    page = console.stdout()
    for result in results:
        if result.configuration is not None:
            page.print()
            print_verdict(page, result.configuration, result.transitions)
        elif result.error is None:
            page.print()
            page.print(
                f"[bold]{result.strategy} on {result.series}[/]{marked(SeriesKey.parse(result.series).exchange)}"
            )
            page.print(f"No configuration. {result.note}", markup=False)
            page.print("Nothing here is worth trading, and that is a valid result.")
    runs = [result.run_id for result in results if result.run_id is not None]
    if runs:
        url = f"http://{settings.web_host}:{settings.web_port}/runs/{runs[-1]}"
        page.print(f"\nIn the web UI: start it with 'tradepulse up', then open {url}", soft_wrap=True)


def _listed(result: Trained) -> dict[str, Any]:
    from tradepulse_pipeline.cli.results import listed

    return {
        "strategy": result.strategy,
        "series": result.series,
        "run_id": result.run_id,
        "error": result.error,
        "note": result.note,
        "reason": result.transitions[-1].reason if result.transitions else None,
        "configuration": None if result.configuration is None else listed(result.configuration),
    }
