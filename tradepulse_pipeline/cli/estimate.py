"""``tradepulse estimate``: what a training would cost and whether it can prove anything, before it starts."""

from __future__ import annotations

import math
import time
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Final

import typer

from tradepulse_pipeline.cli import console
from tradepulse_pipeline.cli import options as opt
from tradepulse_pipeline.cli.plan import planned_series, simulated_twin
from tradepulse_pipeline.market.series import MS_PER_DAY, SeriesKey
from tradepulse_pipeline.settings import Settings, load_settings

if TYPE_CHECKING:
    from tradepulse_pipeline.backtest.settings import BarRange
    from tradepulse_pipeline.database.connection import Database
    from tradepulse_pipeline.indicators.frame import IndicatorFrame
    from tradepulse_pipeline.market.candles import Candles, FloatArray
    from tradepulse_pipeline.strategies.base import Strategy
    from tradepulse_pipeline.validation.training import TrainingSettings
    from tradepulse_pipeline.validation.windows import WindowSettings

#: How long the benchmark searches each of up to two windows, and how many parameter sets it draws to count trades.
BENCHMARK_SECONDS: Final = 2.0
N_DRAWS: Final = 200

DAYS_PER_YEAR: Final = 365


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """What is to be expected of one training. Trades are those of randomly drawn parameter sets: their median, and the
    busiest of them. ``months_for_proof`` is the history in which they make enough trades, None for never.
    """

    series: str
    strategy: str
    is_simulated: bool
    n_candles: int
    days: float
    combinations: int
    trials_per_search: int
    searches: int
    trials: int
    seconds: float
    trades_per_year: float
    busiest_trades_per_year: float
    windows: int
    out_of_sample_days: float
    out_of_sample_trades: float
    busiest_out_of_sample_trades: float
    trades_for_proof: int
    share_with_enough_trades: float
    can_be_proved: bool
    months_for_proof: float | None
    busiest_months_for_proof: float | None


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
    minimum_trades: opt.MinimumTrades = None,
    max_combinations: opt.MaxCombinations = None,
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
    from tradepulse_pipeline.strategies.registry import get_strategy

    settings = load_settings(**opt.given(ctx))
    training = settings.training()
    settings.history()
    settings.simulated()
    chosen = [get_strategy(name) for name in settings.strategies]
    planned = planned_series(settings)
    found = []
    with open_database(settings) as database:
        for wanted in planned:
            series, candles = _candles(settings, database, wanted)
            found += [estimate_training(strategy, series, candles, training) for strategy in chosen]
    if as_json:
        console.print_json([asdict(one) for one in found])
        return
    for one in found:
        _show(one, training)


def estimate_training(strategy: Strategy, series: SeriesKey, candles: Candles, training: TrainingSettings) -> Estimate:
    """Return what a training on ``candles`` would take, measured for a few seconds, and how many trades to expect.

    Raises
    ------
    InsufficientHistoryError
        If there are too few candles for one window.
    """
    import numpy as np

    from tradepulse_pipeline.backtest.evaluators import TabledEvaluator
    from tradepulse_pipeline.backtest.result import METRIC_NAMES
    from tradepulse_pipeline.backtest.settings import BarRange
    from tradepulse_pipeline.indicators.frame import IndicatorFrame
    from tradepulse_pipeline.validation.lifecycle import MATURE_TRADES
    from tradepulse_pipeline.validation.windows import latest_train, make_windows

    frame = IndicatorFrame.compute(candles.filled_forward(), strategy.indicators)
    windows = make_windows(frame.open_time_ms, frame.timeframe, training.windows)
    trains = [latest_train(frame.open_time_ms, frame.timeframe, training.windows)]
    if training.windows.reoptimise:
        trains += [window.train for window in windows]

    evaluator = TabledEvaluator(
        frame, strategy, side=training.side, account=training.account, workers=training.search.threads
    )
    size = evaluator.space.size
    draws = np.random.default_rng(training.search.seed).choice(size, min(N_DRAWS, size), replace=False)
    metrics = evaluator.evaluate(draws, BarRange(0, len(frame)))
    days = (candles.end_ms - int(candles.open_time_ms[0])) / MS_PER_DAY
    per_day: FloatArray = metrics[:, METRIC_NAMES.index("sample_size")] / days
    median, busiest = float(np.median(per_day)), float(per_day.max())
    test_days = sum(window.test_end_ms - window.test_start_ms for window in windows) / MS_PER_DAY
    planned = training.search.planned_trials(size)
    return Estimate(
        series=str(series),
        strategy=strategy.name,
        is_simulated=series.market.is_simulated,
        n_candles=len(candles),
        days=days,
        combinations=size,
        trials_per_search=planned,
        searches=len(trains),
        trials=planned * len(trains),
        seconds=planned * _seconds_per_trial(frame, strategy, training, trains),
        trades_per_year=median * DAYS_PER_YEAR,
        busiest_trades_per_year=busiest * DAYS_PER_YEAR,
        windows=len(windows),
        out_of_sample_days=test_days,
        out_of_sample_trades=median * test_days,
        busiest_out_of_sample_trades=busiest * test_days,
        trades_for_proof=MATURE_TRADES,
        share_with_enough_trades=float((per_day * test_days >= MATURE_TRADES).mean()),
        can_be_proved=busiest * test_days >= MATURE_TRADES,
        months_for_proof=_months(MATURE_TRADES, median, training.windows),
        busiest_months_for_proof=_months(MATURE_TRADES, busiest, training.windows),
    )


def _seconds_per_trial(
    frame: IndicatorFrame, strategy: Strategy, training: TrainingSettings, trains: list[BarRange]
) -> float:
    """Return the seconds that one trial takes in all searches together, measured on the first two.

    The later searches are quicker than the first one: they find the signals of the parameter sets computed.
    """
    from tradepulse_pipeline.backtest.evaluators import TabledEvaluator
    from tradepulse_pipeline.optimizers.deadline import Deadline
    from tradepulse_pipeline.optimizers.search import search

    evaluator = TabledEvaluator(
        frame, strategy, side=training.side, account=training.account, workers=training.search.threads
    )
    measured = []
    for train in trains[:2]:
        started = time.perf_counter()
        trials = search(evaluator, train, training.search, deadline=Deadline.after(BENCHMARK_SECONDS))
        measured.append((time.perf_counter() - started) / len(trials))
    return measured[0] + measured[-1] * (len(trains) - 1)


def _months(trades: int, per_day: float, windows: WindowSettings) -> float | None:
    """Return the months of history in which ``trades`` out-of-sample trades are made, None for never."""
    if per_day == 0:
        return None
    test_days = trades / per_day
    if windows.scheme == "train_test_split":
        days = (test_days + windows.gap_days) / (1 - windows.train_ratio)
    else:
        n_windows = math.ceil(test_days / (windows.test_days - windows.gap_days))
        days = windows.train_days + windows.test_days + (n_windows - 1) * windows.step
    return days * 12 / DAYS_PER_YEAR


def _candles(settings: Settings, database: Database, series: SeriesKey) -> tuple[SeriesKey, Candles]:
    """Return the stored candles of a series; without any, those of its simulated twin."""
    from tradepulse_pipeline.database.candles import load_candles
    from tradepulse_pipeline.market.sources.simulated import simulate

    stored = settings.history().select(load_candles(database, series))
    if len(stored):
        return series, stored
    twin = simulated_twin(series)
    if series != twin:
        console.warn(f"No candles of {series} are stored: these are estimates on the SIMULATED market.")
    end_ms = time.time_ns() // 1_000_000 // MS_PER_DAY * MS_PER_DAY
    start_ms = end_ms - settings.history_days * MS_PER_DAY
    return twin, simulate(twin.market, twin.timeframe, start_ms, end_ms, settings.simulated())


def _show(found: Estimate, training: TrainingSettings) -> None:
    page = console.stdout()
    label = " [yellow]SIMULATED[/yellow]" if found.is_simulated else ""
    page.print(f"[bold]{found.strategy} on {found.series}[/bold]{label}")
    count, searches = console.number, f"{found.searches} train windows" if found.searches > 1 else "the train window"
    rows = [
        ["History", f"{count(found.days, 0)} days, {found.n_candles:,} candles"],
        ["Combinations", f"{found.combinations:,}"],
        [
            "Trials",
            f"{found.trials:,} ({found.trials_per_search:,} in {'each of ' if found.searches > 1 else ''}{searches})",
        ],
        ["Time here", f"about {console.duration(max(found.seconds, 1))} with {training.search.threads} threads"],
        ["Trades a year", f"{count(found.trades_per_year, 0)} (busiest {count(found.busiest_trades_per_year, 0)})"],
        [
            "Out-of-sample",
            f"{count(found.out_of_sample_trades, 0)} (busiest {count(found.busiest_out_of_sample_trades, 0)}) trades "
            f"in {count(found.out_of_sample_days, 0)} days",
        ],
    ]
    page.print(console.table(["", ""], rows, left=2, header=False))
    page.print(_verdict(found), markup=False)
    if found.trials_per_search > training.search.max_combinations:
        console.warn(
            f"'train' would refuse a search of {found.trials_per_search:,} trials: --max-combinations is "
            f"{training.search.max_combinations:,}."
        )
    page.print(
        f"Trades: the median of {min(N_DRAWS, found.combinations)} random parameter sets, and the busiest of them.\n",
        style="dim",
    )


def _verdict(found: Estimate) -> str:
    wanted = f"{found.trades_for_proof} out-of-sample trades"
    share = console.percent(found.share_with_enough_trades, 0)
    if found.share_with_enough_trades >= 0.5:
        return f"{wanted} can be reached: {share} of parameter sets do."
    if found.can_be_proved:
        verdict, who, months = f"can be reached, but only by the busiest {share}", "median", found.months_for_proof
    else:
        verdict, who, months = "cannot be reached in these windows", "busiest", found.busiest_months_for_proof
    if months is None:
        return f"{wanted} {verdict}. The {who} parameter set makes no trades here."
    return (
        f"{wanted} {verdict}. The {who} parameter set needs about {math.ceil(months)} months of history: "
        f"--history {math.ceil(months / 12 * DAYS_PER_YEAR)}."
    )
