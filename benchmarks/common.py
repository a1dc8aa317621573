"""What the benchmarks share: candles, time and memory of a whole grid, and how figures are shown."""

from __future__ import annotations

import argparse
import multiprocessing
import os
import platform
import resource
import shlex
import statistics
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import ParamSpec, TypeVar

import numpy as np
import psutil
from rich.console import Console
from rich.table import Table

from tradepulse_pipeline.backtest.evaluators import TabledEvaluator
from tradepulse_pipeline.backtest.result import METRIC_NAMES
from tradepulse_pipeline.backtest.settings import BarRange
from tradepulse_pipeline.indicators.frame import IndicatorFrame
from tradepulse_pipeline.market.candles import Candles, FloatArray, IntArray
from tradepulse_pipeline.market.series import MS_PER_DAY, SIMULATED_EXCHANGE, Market, Timeframe
from tradepulse_pipeline.market.sources.files import read_candle_file
from tradepulse_pipeline.market.sources.simulated import ORIGIN_MS, SimulatedMarketSettings, simulate
from tradepulse_pipeline.strategies.base import Strategy
from tradepulse_pipeline.strategies.registry import get_strategy
from tradepulse_pipeline.strategies.space import ParameterSpace

P = ParamSpec("P")
R = TypeVar("R")

STRATEGY = "LIQUIDITY_SWEEP_V3"
SIMULATED_DAYS = 366
WARM_UP_BARS = 2_000
MEBIBYTE = 1 << 20

#: Tables are as wide as the terminal, and wide enough for all columns where there is none.
console = Console(width=None if sys.stdout.isatty() else 120)


@dataclass(frozen=True, slots=True, kw_only=True)
class Grid:
    """Which combinations of the strategy are evaluated.

    ``values`` replace the grids of some parameters. ``n_combinations`` are drawn at random; all of them without it.
    """

    strategy_name: str = STRATEGY
    values: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    n_combinations: int | None = None

    def strategy(self) -> Strategy:
        """Return the strategy with these grids."""
        return get_strategy(self.strategy_name).with_grids(self.values)

    def combinations(self) -> IntArray:
        """Return the numbers of the combinations, ascending."""
        size = ParameterSpace(self.strategy().parameters).size
        return np.arange(size) if self.n_combinations is None else sample(size, self.n_combinations)


@dataclass(frozen=True, slots=True, kw_only=True)
class GridCost:
    """What it costs to get from candles to all metrics of a grid. Times are medians."""

    n_combinations: int
    trades_per_combination: float
    seconds: float
    #: Seconds by stage: indicators, signals, outcomes, hops.
    stages: dict[str, float]
    #: Highest resident memory above that of a warm process with the candles loaded.
    peak_bytes: int

    @property
    def rate(self) -> float:
        """Combinations per second."""
        return self.n_combinations / self.seconds


def arguments(description: str, *, runs: int) -> argparse.ArgumentParser:
    """Return a parser with the options that all benchmarks have."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--runs", type=positive, default=runs, help="runs, after warm-up, of which the median is shown")
    return parser


def add_market_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that choose the candles."""
    parser.add_argument("--candles", type=Path, help="candle file; without it candles are simulated")
    parser.add_argument("--timeframe", type=Timeframe, default=Timeframe("5m"), help="of the candles, such as 5m or 1h")


def positive(text: str) -> int:
    """Read a whole number of at least 1."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"found {number}, expected a whole number of at least 1")
    return number


def load_candles(options: argparse.Namespace) -> Candles:
    """Return the candles that the options choose, short gaps filled, and say what they are."""
    if options.candles is None:
        candles = simulated_candles(options.timeframe, round(SIMULATED_DAYS * options.timeframe.candles_per_day))
        name = "SIMULATED candles, no real market"
    else:
        candles = read_candle_file(options.candles, options.timeframe).candles
        name = options.candles.name
    first, last = np.array([candles.open_time_ms[0], candles.open_time_ms[-1]], dtype="datetime64[ms]").astype("M8[m]")
    console.print(f"[bold]{name}[/]: {len(candles):,} candles of {candles.timeframe}, {first}Z to {last}Z")
    return candles.filled_forward()


def simulated_candles(timeframe: Timeframe, n_candles: int) -> Candles:
    """Return the first ``n_candles`` of a simulated market without outages."""
    end_ms = ORIGIN_MS + n_candles * timeframe.milliseconds
    settings = SimulatedMarketSettings(outages_per_year=0)
    return simulate(Market(SIMULATED_EXCHANGE, "BTC", "USDT"), timeframe, ORIGIN_MS, end_ms, settings)


def days_of(candles: Candles) -> int:
    """Return the whole days that candles span."""
    return (candles.end_ms - int(candles.open_time_ms[0])) // MS_PER_DAY


def sample(size: int, n: int) -> IntArray:
    """Draw ``n`` of ``size`` combinations, the same ones every time, ascending."""
    return np.sort(np.random.default_rng(0).choice(size, min(n, size), replace=False))


def median_seconds(function: Callable[[], object], runs: int) -> float:
    """Return the median wall-clock time of a call."""
    return statistics.median(seconds_of(function) for _ in range(runs))


def seconds_of(function: Callable[[], object]) -> float:
    """Return the wall-clock time of one call."""
    begin = time.perf_counter()
    function()
    return time.perf_counter() - begin


def in_fresh_process(function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
    """Call ``function`` in a process of its own, so that nothing before it counts in its time or memory."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(function, *args, **kwargs).result()


def resident_bytes() -> int:
    """Return the memory that this process holds now."""
    return int(psutil.Process().memory_info().rss)


def peak_resident_bytes() -> int:
    """Return the most memory that this process ever held.

    On Linux ``ru_maxrss`` starts at the peak of the process that this one was started from; ``VmHWM`` does not.
    """
    status = Path("/proc/self/status")
    if status.exists():
        fields = dict(line.split(":", 1) for line in status.read_text().splitlines())
        return int(fields["VmHWM"].split()[0]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def measure_grid(candles: Candles, grid: Grid, workers: int, runs: int) -> GridCost:
    """Measure a grid over all candles; to be called in a fresh process.

    The stages are told apart from outside. One evaluator gets, in turn: all combinations that share one exit rule;
    all combinations; all combinations again. The last needs no tables any more and is hops alone. What the second took
    longer than that went into the outcomes of the other exit rules, and what is left of the first, after one rule's
    share of outcomes and hops, into signals.
    """
    strategy, combinations = grid.strategy(), grid.combinations()
    everything = BarRange(0, len(candles))

    def evaluator_of(part: Candles) -> TabledEvaluator:
        return TabledEvaluator(IndicatorFrame.compute(part, strategy.indicators), strategy, workers=workers)

    def evaluate_all() -> FloatArray:
        return evaluator_of(candles).evaluate(combinations, everything)

    warm_up = candles.slice(0, min(WARM_UP_BARS, len(candles)))
    evaluator_of(warm_up).evaluate(combinations[:100], BarRange(0, len(warm_up)))
    before = resident_bytes()
    n_trades = float(evaluate_all()[:, METRIC_NAMES.index("sample_size")].mean())
    peak_bytes = peak_resident_bytes() - before
    seconds = median_seconds(evaluate_all, runs)

    space = ParameterSpace(strategy.parameters)
    is_exit = [parameter.kind == "exit" for parameter in space.parameters]
    exits, exit_of = np.unique(space.indices(combinations)[:, is_exit], axis=0, return_inverse=True)
    one_exit = combinations[exit_of.ravel() == 0]
    splits = []
    for _ in range(runs):
        indicators = seconds_of(lambda: IndicatorFrame.compute(candles, strategy.indicators))
        frame = IndicatorFrame.compute(candles, strategy.indicators)
        begin = time.perf_counter()
        evaluator = TabledEvaluator(frame, strategy, workers=workers)
        evaluator.evaluate(one_exit, everything)
        first = time.perf_counter() - begin
        again = partial(evaluator.evaluate, combinations, everything)
        second, hops = seconds_of(again), seconds_of(again)
        outcomes = (second - hops) * len(exits) / (len(exits) - 1)
        splits.append((indicators, first - (outcomes + hops) / len(exits), outcomes, hops))
    medians = np.median(np.maximum(splits, 0.0), axis=0).tolist()
    return GridCost(
        n_combinations=len(combinations),
        trades_per_combination=n_trades,
        seconds=seconds,
        stages=dict(zip(("indicators", "signals", "outcomes", "hops"), medians, strict=True)),
        peak_bytes=peak_bytes,
    )


def show_machine() -> None:
    """Say what this runs on, and how it was called."""
    table = Table(title="Machine", show_header=False, title_justify="left")
    table.add_row("CPU", f"{cpu_model()}, {os.cpu_count()} cores")
    table.add_row("Memory", f"{psutil.virtual_memory().total / 1024**3:.1f} GiB")
    table.add_row(
        "Load before", f"{os.getloadavg()[0]:.2f} (mean of a minute; other work on the cores makes times longer)"
    )
    table.add_row("System", platform.platform())
    versions = ", ".join(f"{name} {version(name)}" for name in ("numpy", "numba", "polars"))
    table.add_row("Versions", f"Python {platform.python_version()}, {versions}")
    table.add_row("Command", "python " + shlex.join(sys.argv))
    console.print(table)


def cpu_model() -> str:
    """Return the model name of the CPU."""
    if sys.platform == "linux":
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def show_table(title: str, columns: Iterable[str], rows: Iterable[Iterable[str]], *, caption: str = "") -> None:
    """Print a table: the first column is text, the others are figures."""
    table = Table(title=title, title_justify="left", caption=caption or None, caption_justify="left")
    for number, column in enumerate(columns):
        table.add_column(column, justify="right" if number else "left")
    for row in rows:
        table.add_row(*row)
    console.print()
    console.print(table)


def as_workers(n: int) -> str:
    """Return a number of workers as words."""
    return f"{n} worker" if n == 1 else f"{n} workers"


def as_seconds(seconds: float) -> str:
    """Return a time with three significant digits."""
    if seconds >= 100:
        return f"{seconds:,.0f} s"
    return f"{seconds:#.3g} s" if seconds >= 1 else f"{seconds * 1e3:.3g} ms"


def as_mebibytes(n_bytes: int) -> str:
    """Return a size in MiB."""
    return f"{n_bytes / MEBIBYTE:,.0f} MiB"


def as_rate(rate: float) -> str:
    """Return combinations per second."""
    return f"{rate:,.0f}" if rate >= 100 else f"{rate:.3g}"
