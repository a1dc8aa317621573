"""How honest the machine is: what it takes for skill where there is none, what it finds, and what its intervals cover.

Run ``python benchmarks/honesty.py``, with ``--candles FILE...`` for markets without an edge that are made of real
candles as well. With ``--results FILE`` every row is written as it comes, and a run that was stopped goes on from it.

- False discoveries: the whole pipeline (whole grid, every train window searched anew, all statistics, stage) on markets
  on which nothing but luck can earn, without costs. A simulated one is a random walk whose close is a martingale minute
  by minute, with clusters of volatility; one of real candles has its weeks in random order and each candle turned
  upside down by a coin of its own that makes the close a martingale candle by candle.
- Power: the same pipeline, with costs, on simulated markets with a pattern whose trades earn a known mean R.
- Calibration: how often the 95 % intervals of a record of known origin hold the truth.
"""

from __future__ import annotations

import argparse
import json
import math
import multiprocessing
import os
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from functools import cache
from itertools import product
from pathlib import Path
from typing import Any, Final, cast

import numpy as np
from common import STRATEGY, as_seconds, console, positive, show_machine, show_table
from numpy.typing import NDArray

from tradepulse_pipeline.backtest.evaluators import PlainEvaluator, TabledEvaluator
from tradepulse_pipeline.backtest.metrics import daily_returns
from tradepulse_pipeline.backtest.result import METRIC_NAMES, BacktestResult
from tradepulse_pipeline.backtest.settings import AccountSettings, BarRange
from tradepulse_pipeline.cli.naming import timeframe_of_file
from tradepulse_pipeline.configurations.lineage import engine_hash
from tradepulse_pipeline.indicators.frame import IndicatorFrame
from tradepulse_pipeline.market.candles import Candles, FloatArray
from tradepulse_pipeline.market.series import MS_PER_DAY, Market, Timeframe
from tradepulse_pipeline.market.sources.files import read_candle_file
from tradepulse_pipeline.market.sources.simulated import ORIGIN_MS, SimulatedMarketSettings, simulate
from tradepulse_pipeline.optimizers.settings import SearchSettings
from tradepulse_pipeline.strategies.base import Strategy
from tradepulse_pipeline.strategies.decisions import SIDES, Side
from tradepulse_pipeline.strategies.registry import get_strategy, strategy_names
from tradepulse_pipeline.strategies.space import ParameterSpace
from tradepulse_pipeline.validation.bootstrap import bootstrap_intervals
from tradepulse_pipeline.validation.candle_bootstrap import permuted_candles
from tradepulse_pipeline.validation.evidence import DAYS_PER_YEAR
from tradepulse_pipeline.validation.lifecycle import (
    MATURE_ADVERSE_SELECTION,
    MATURE_DEFLATED_SHARPE,
    MATURE_OVERFITTING,
    MATURE_P_VALUE,
    MATURE_SHARPE,
    MATURE_TRADES,
    STAGES,
)
from tradepulse_pipeline.validation.pipeline import Trained, train_in_memory
from tradepulse_pipeline.validation.sharpe import ReturnMoments
from tradepulse_pipeline.validation.training import TrainingSettings

Row = dict[str, Any]

PARTS: Final = ("discoveries", "power", "calibration")
TIMEFRAME: Final = Timeframe("15m")
FREE: Final = AccountSettings(fee_rate=0.0, slippage=0.0)
#: Judged as if it were real: what is simulated never rises above PAPER.
MARKET: Final = Market("benchmark", "BTC", "USDT")

NULL_MONTHS: Final = 36
VOLATILITIES: Final = (0.3, 0.7, 1.2)
#: Days that stay together when real candles are put in another order.
BLOCK_DAYS: Final = 7

EDGES: Final = (0.1, 0.2, 0.4)
MONTHS: Final = (12, 24, 36)
#: The parameters whose mean trade defines the planted edge.
REFERENCE: Final = {
    "pierce_depth": 0.005,
    "rejection_candles": 3.0,
    "volume_spike_threshold": 2.0,
    "reversal_candle_size": 0.5,
    "key_level_lookback": 200.0,
    "min_stop_density_score": 0.0,
    "max_spread_tolerance": 0.0,
    "stop_distance": 2.0,
    "target_multiple": 2.5,
}
#: Years and markets that the drift is fitted on which makes the mean trade earn what is asked for.
FIT_YEARS, FIT_MARKETS = 10, 4

CALIBRATED_EDGES: Final = (0.1, 0.4)
CALIBRATED_MONTHS: Final = (12, 36)

#: Numbers from which planted markets, histories and those that the drift is fitted on count: all differ.
FIRST_PLANTED, FIRST_HISTORY, FIRST_FITTED = 10**6, 2 * 10**6, 2**40

SECONDS_BETWEEN_REPORTS: Final = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class NullMarket:
    """A market without an edge: simulated with a volatility, or made of the candles of a file."""

    number: int
    strategy: str
    side: Side
    volatility: float | None = None
    file: str | None = None

    def candles(self) -> Candles:
        """Return its candles."""
        if self.file is None:
            return simulated(self.number, NULL_MONTHS, 0.0, cast("float", self.volatility))
        path = Path(self.file)
        real = read_candle_file(path, timeframe_of_file(path, None)).candles.filled_forward()
        block = min(round(BLOCK_DAYS * real.timeframe.candles_per_day), len(real))
        return permuted_candles(real, block, np.random.default_rng(self.number), reflect_every=1)

    def measure(self) -> Row:
        """Train on it, and see what the plain rule would have said."""
        candles, strategy = self.candles(), get_strategy(self.strategy)
        frame = IndicatorFrame.compute(candles, strategy.indicators)
        trained = train_in_memory(frame, strategy, whole_grid(self.side, FREE), MARKET)
        return {
            "days": (candles.end_ms - int(candles.open_time_ms[0])) / MS_PER_DAY,
            **figures_of(trained),
            "best_sharpe_in_sample": best_sharpe(frame, strategy, self.side),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class PlantedMarket:
    """A simulated market whose pattern earns ``edge_r`` in the mean after costs; ``drift`` brings that about."""

    number: int
    edge_r: float
    months: int
    drift: float

    def measure(self) -> Row:
        """Train on it, and see what the pattern's trades made at the reference parameters."""
        strategy = get_strategy(STRATEGY)
        frame = IndicatorFrame.compute(simulated(self.number, self.months, self.drift), strategy.indicators)
        trained = train_in_memory(frame, strategy, whole_grid("long", AccountSettings()), MARKET)
        run = reference_run(frame)
        return {
            **figures_of(trained),
            "reference_trades": len(run.trades),
            "reference_r_sum": float(run.trades.r_multiple.sum()),
            "reference_sharpe": run.metrics.sharpe_ratio,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class History:
    """One of many histories of the same simulated market, traded with the reference parameters."""

    number: int
    edge_r: float
    months: int
    drift: float

    def measure(self) -> Row:
        """Return its intervals, and the moments of which the truth is made."""
        strategy, capital = get_strategy(STRATEGY), AccountSettings().initial_capital
        frame = IndicatorFrame.compute(simulated(self.number, self.months, self.drift), strategy.indicators)
        run = reference_run(frame)
        daily = daily_returns(run.equity, frame.open_time_ms, capital)
        found = bootstrap_intervals(daily, initial_capital=capital, periods_per_year=DAYS_PER_YEAR, seed=self.number)
        assert found is not None
        return {
            "n_days": len(daily),
            "n_trades": len(run.trades),
            "sum": float(daily.sum()),
            "squares": float(daily @ daily),
            "log_sum": float(np.log1p(daily).sum()),
            "drawdown": run.metrics.max_drawdown,
            "sharpe_interval": list(found.sharpe_ratio),
            "net_profit_interval": list(found.net_profit),
            "drawdown_interval": list(found.max_drawdown),
        }


Task = NullMarket | PlantedMarket | History


def simulated(number: int, months: int, drift: float, volatility: float = 0.7) -> Candles:
    """Return the candles of a simulated market of that number, without jumps and outages: then it is a martingale."""
    settings = SimulatedMarketSettings(
        seed=number, edge=drift, annual_volatility=volatility, jumps_per_year=0, outages_per_year=0
    )
    end_ms = ORIGIN_MS + round(months * DAYS_PER_YEAR / 12) * MS_PER_DAY
    return simulate(MARKET, TIMEFRAME, ORIGIN_MS, end_ms, settings)


def whole_grid(side: Side, account: AccountSettings) -> TrainingSettings:
    """Return a training that tries everything in each of the usual windows, by one thread."""
    return TrainingSettings(side=side, account=account, search=SearchSettings(method="grid", workers=1))


def figures_of(trained: Trained) -> Row:
    """Return the stage, and the figures that decided it or tell why."""
    record, statistics = trained.record, trained.report.statistics
    moments = ReturnMoments.of(record.daily["daily_return"].to_numpy())
    judged = [window for window in record.windows if window.chosen and window.out_of_sample]
    return {
        **asdict(statistics),
        **trained.decision.figures,
        "stage": trained.decision.stage,
        "p_value": record.p_value,
        "moments": moments and asdict(moments),
        "r_sum": float(record.trades["r_multiple"].sum()),
        "in_sample_sharpe": [window.chosen.in_sample.sharpe_ratio for window in judged if window.chosen],
        "out_of_sample_sharpe": [window.out_of_sample.sharpe_ratio for window in judged if window.out_of_sample],
    }


def best_sharpe(frame: IndicatorFrame, strategy: Strategy, side: Side) -> float | None:
    """Return the highest Sharpe ratio over the whole history among combinations with 100 trades; None without any."""
    evaluator = TabledEvaluator(frame, strategy, side=side, account=FREE)
    metrics = evaluator.evaluate(np.arange(evaluator.space.size), BarRange(0, len(frame)))
    has_traded = metrics[:, METRIC_NAMES.index("sample_size")] >= MATURE_TRADES
    ratios = metrics[has_traded, METRIC_NAMES.index("sharpe_ratio")]
    return float(ratios.max()) if len(ratios) else None


def reference_run(frame: IndicatorFrame) -> BacktestResult:
    """Return what the reference parameters make of the candles, with costs."""
    strategy = get_strategy(STRATEGY)
    space = ParameterSpace(strategy.parameters)
    at = [parameter.grid.index(REFERENCE[parameter.name]) for parameter in space.parameters]
    combination = int(np.ravel_multi_index(at, space.shape))
    return PlainEvaluator(frame, strategy).run(combination, BarRange(0, len(frame)))


def drift_for(edge_r: float) -> float:
    """Return the drift after a sweep at which the mean reference trade makes ``edge_r`` after costs."""
    from scipy.optimize import brentq

    def excess(drift: float) -> float:
        return mean_reference_r(drift) - edge_r

    return float(brentq(excess, 0.0, 4.0, xtol=0.01))


def drifts_for(edges: Sequence[float]) -> dict[float, float]:
    """Return the drift for each edge, and say what it is."""
    with console.status("fitting the planted edges"):
        drifts = {edge_r: drift_for(edge_r) for edge_r in edges}
    shown = ", ".join(f"{drift:.2f} for {edge_r} R" for edge_r, drift in drifts.items())
    console.print(f"planted drift, in mean 5m ranges over an hour: {shown}")
    return drifts


@cache
def mean_reference_r(drift: float) -> float:
    """Return the mean R of the reference trades over the markets that the drift is fitted on."""
    strategy = get_strategy(STRATEGY)
    found = [
        reference_run(IndicatorFrame.compute(simulated(FIRST_FITTED + k, 12 * FIT_YEARS, drift), strategy.indicators))
        for k in range(FIT_MARKETS)
    ]
    return float(np.concatenate([run.trades.r_multiple for run in found]).mean())


def measure(part: str, task: Task) -> Row:
    """Measure one market and say how long that took."""
    begin = time.perf_counter()
    row = task.measure()
    return {"part": part, "task": asdict(task), **row, "seconds": time.perf_counter() - begin}


def measure_all(part: str, tasks: Sequence[Task], workers: int, results: Path | None) -> list[Row]:
    """Measure tasks in processes, write each row as it comes, and return all rows; what is known is not repeated."""
    engine = engine_hash()
    found = _read_rows(results)
    known = {_key(row["part"], row["task"]): row for row in found if row.get("engine") == engine}
    if len(known) < len(found):
        console.print(f"{results}: {len(found) - len(known):,} rows of other code are left out")
    rows = [known[key] for task in tasks if (key := _key(part, asdict(task))) in known]
    missing = [task for task in tasks if _key(part, asdict(task)) not in known]
    if rows:
        console.print(f"{part}: {len(rows):,} rows are known from {results}")
    if not missing:
        return rows
    begin = reported = time.monotonic()
    pool = ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn"))
    try:
        pending = [pool.submit(measure, part, task) for task in missing]
        for n, future in enumerate(as_completed(pending), start=1):
            rows.append({**future.result(), "engine": engine})
            if results:
                with results.open("a") as file:
                    file.write(json.dumps(rows[-1]) + "\n")
            now = time.monotonic()
            if now - reported >= SECONDS_BETWEEN_REPORTS or n == len(missing):
                reported, left = now, (now - begin) / n * (len(missing) - n)
                console.print(f"{part}: {n:,} of {len(missing):,}, {as_seconds(left)} left{_so_far(rows)}")
    finally:
        pool.shutdown(cancel_futures=True)
    return rows


def _so_far(rows: Sequence[Row]) -> str:
    stages = Counter(row["stage"] for row in rows if "stage" in row)
    return "".join(f", {count} {stage}" for stage, count in sorted(stages.items()))


def _key(part: str, task: Row) -> str:
    return json.dumps([part, task], sort_keys=True)


def _read_rows(results: Path | None) -> list[Row]:
    if results is None or not results.exists():
        return []
    return [json.loads(line) for line in results.read_text().splitlines()]


def null_markets(n: int, strategies: Sequence[str], files: Sequence[Path]) -> list[NullMarket]:
    """Return ``n`` markets for each strategy: every second one of real candles, if there are any."""
    markets = []
    for number in range(n):
        if files and number % 2:
            k = number // 2
            source: Row = {"file": str(files[k % len(files)]), "side": SIDES[k // len(files) % 2]}
        else:
            k = number // 2 if files else number
            source = {"volatility": VOLATILITIES[k % len(VOLATILITIES)], "side": SIDES[k // len(VOLATILITIES) % 2]}
        markets += [NullMarket(number=number, strategy=strategy, **source) for strategy in strategies]
    return markets


def discoveries(options: argparse.Namespace) -> None:
    """Measure how often the pipeline takes luck for skill."""
    tasks = null_markets(options.markets, options.strategies, options.candles)
    rows = measure_all("discoveries", tasks, options.workers, options.results)
    groups: dict[str, list[Row]] = {}
    for row in rows:
        groups.setdefault(kind_of(row["task"], options.strategies), []).append(row)
    by_group = {**dict(sorted(groups.items())), "all": rows}
    show_table(
        f"False discoveries: {len(rows):,} markets without an edge, no costs, whole grid",
        ("markets without an edge", "markets", *STAGES[:4], "seconds each"),
        [
            (
                name,
                f"{len(group):,}",
                *(f"{n_in(stage, group) / len(group):.1%}" for stage in STAGES[:3]),
                as_share(n_in("MATURE", group), len(group)),
                as_seconds(float(np.median([row["seconds"] for row in group]))),
            )
            for name, group in by_group.items()
        ],
        caption="MATURE is the false discovery. Intervals are exact (Clopper and Pearson 1934), 95 %. Seconds: the "
        "median, by one thread.",
    )
    show_table(
        "Who could be taken in",
        ("markets without an edge", "100 trades", "MATURE of these", "plain rule", "R per trade"),
        [
            (
                name,
                f"{sum(map(has_enough_trades, group)) / len(group):.1%}",
                as_share(n_in("MATURE", group), sum(map(has_enough_trades, group))),
                as_share(sum(map(passes_plain_rule, group)), len(group)),
                mean_r(group),
            )
            for name, group in by_group.items()
        ],
        caption="100 trades: out-of-sample, without which nothing is MATURE. Plain rule: the best of the whole grid "
        f"in-sample has a Sharpe ratio above {MATURE_SHARPE} and {MATURE_TRADES} trades. R per trade: the mean "
        "out-of-sample result, and its standard error over markets; 0 but for luck and for how real prices move within "
        "a candle, which keeps its shape.",
    )
    show_gates(by_group)


def power(options: argparse.Namespace) -> None:
    """Measure how often the pipeline finds an edge that is there."""
    drifts = drifts_for(options.edges)
    tasks = [
        PlantedMarket(number=FIRST_PLANTED + number, edge_r=edge_r, months=months, drift=drifts[edge_r])
        for number in range(options.planted)
        for edge_r in options.edges
        for months in options.months
    ]
    rows = measure_all("power", tasks, options.workers, options.results)
    cells = {cell: in_cell(rows, *cell) for cell in product(options.edges, options.months)}
    show_table(
        "Power: markets with a planted edge, default costs, whole grid",
        ("edge and length", "markets", "MATURE", "VALIDATION or MATURE", "realised R", "trades", "Sharpe ratio"),
        [
            (
                f"{edge} R, {months} months",
                f"{len(cell):,}",
                as_share(n_in("MATURE", cell), len(cell)),
                as_share(n_in("MATURE", cell) + n_in("VALIDATION", cell), len(cell)),
                f"{sum(r['reference_r_sum'] for r in cell) / max(1, sum(r['reference_trades'] for r in cell)):.2f}",
                f"{np.median([row['sample_size'] for row in cell]):,.0f}",
                f"{np.median([row['sharpe_ratio'] for row in cell]):.2f}",
            )
            for (edge, months), cell in cells.items()
            if cell
        ],
        caption="The edge is what the mean trade of the reference parameters makes after costs; realised: in these "
        "very markets. Trades and Sharpe ratio: medians of the out-of-sample records.",
    )
    show_gates({f"{edge} R, {months} months": cell for (edge, months), cell in cells.items() if cell})


def calibration(options: argparse.Namespace) -> None:
    """Measure how often intervals of records of known origin hold the truth."""
    edges = [edge_r for edge_r in CALIBRATED_EDGES if edge_r in options.edges]
    lengths = [months for months in CALIBRATED_MONTHS if months in options.months]
    drifts = drifts_for(edges)
    tasks = [
        History(number=FIRST_HISTORY + number, edge_r=edge_r, months=months, drift=drifts[edge_r])
        for number in range(options.histories)
        for edge_r in edges
        for months in lengths
    ]
    rows = measure_all("calibration", tasks, options.workers, options.results)
    table = []
    for edge_r in edges:
        for months in lengths:
            cell = in_cell(rows, edge_r, months)
            if cell:
                covered = coverage(cell)
                shares = [as_share(int(held.sum()), len(held)) for held in covered.values()]
                n_trades = np.median([row["n_trades"] for row in cell])
                table.append((f"{edge_r} R, {months} months", f"{len(cell):,}", f"{n_trades:,.0f}", *shares))
    show_table(
        "Calibration: how many of the 95 % intervals hold the truth",
        ("edge and length", "histories", "trades", "Sharpe ratio", "net profit", "maximum drawdown"),
        table,
        caption="Truth: the Sharpe ratio of all histories' days together; the net profit at the growth rate of all "
        "histories' days together; for the drawdown, which is no constant, that of another history of the same market.",
    )


def in_cell(rows: Sequence[Row], edge_r: float, months: int) -> list[Row]:
    """Return the rows of markets with that edge and length."""
    return [row for row in rows if (row["task"]["edge_r"], row["task"]["months"]) == (edge_r, months)]


def coverage(rows: Sequence[Row]) -> dict[str, NDArray[np.bool_]]:
    """Return whether each history's intervals hold the truth, that of all histories together."""
    n_days = sum(row["n_days"] for row in rows)
    mean = sum(row["sum"] for row in rows) / n_days
    deviation = math.sqrt((sum(row["squares"] for row in rows) - n_days * mean**2) / (n_days - 1))
    growth = sum(row["log_sum"] for row in rows) / n_days
    capital = AccountSettings().initial_capital
    truths = {
        "sharpe_interval": np.full(len(rows), mean / deviation * math.sqrt(DAYS_PER_YEAR)),
        "net_profit_interval": capital * np.expm1(growth * np.array([row["n_days"] for row in rows])),
        "drawdown_interval": np.roll([row["drawdown"] for row in rows], 1),
    }
    found = {}
    for name, truth in truths.items():
        low, high = np.array([row[name] for row in rows]).T
        found[name] = (low <= truth) & (truth <= high)
    return found


def has_enough_trades(row: Row) -> bool:
    """Return whether a record has as many trades as MATURE takes."""
    return bool(row["sample_size"] >= MATURE_TRADES)


def passes_plain_rule(row: Row) -> bool:
    """Return whether a look at the best of the grid would have been enough to trade it."""
    return bool((row["best_sharpe_in_sample"] or 0.0) > MATURE_SHARPE)


#: The conditions for MATURE, by name.
GATES: Final[dict[str, Callable[[Row], bool]]] = {
    "100 trades": has_enough_trades,
    "Sharpe": lambda row: row["sharpe_ratio"] > MATURE_SHARPE,
    "adverse sel.": lambda row: row["adverse_selection_score"] < MATURE_ADVERSE_SELECTION,
    "p-value": lambda row: row["corrected_p_value"] is not None and row["corrected_p_value"] < MATURE_P_VALUE,
    "deflated Sharpe": lambda row: (row["deflated_sharpe_ratio"] or 0.0) > MATURE_DEFLATED_SHARPE,
    "CSCV": lambda row: (
        row["probability_of_backtest_overfitting"] is not None
        and row["probability_of_backtest_overfitting"] < MATURE_OVERFITTING
    ),
    "not overfit": lambda row: row["is_overfit"] is False,
}


def show_gates(groups: Mapping[str, Sequence[Row]]) -> None:
    """Show how many records of each group pass each gate, and how many would be MATURE without it."""
    passed, mature_without = [], []
    for name, rows in groups.items():
        found = np.array([[gate(row) for gate in GATES.values()] for row in rows]).reshape(len(rows), len(GATES))
        # A record that fails at most the gate of a column passes all others.
        others = np.sum(~found, axis=1)[:, None] <= ~found
        passed.append((name, f"{len(rows):,}", *as_percent(found.mean(axis=0))))
        mature_without.append((name, f"{len(rows):,}", *as_percent(others.mean(axis=0))))
    columns = ("records", "markets", *GATES)
    show_table("How many pass each gate of MATURE", columns, passed)
    show_table("How many would be MATURE without that gate", columns, mature_without)


def as_percent(shares: FloatArray) -> list[str]:
    """Return shares as texts."""
    return [f"{share:.1%}" for share in shares]


def n_in(stage: str, rows: Sequence[Row]) -> int:
    """Return how many came out in a stage."""
    return sum(row["stage"] == stage for row in rows)


def kind_of(task: Row, strategies: Sequence[str]) -> str:
    """Return in words what a market without an edge is made of; with several strategies also which one it is for."""
    if task["file"] is None:
        kind = f"simulated {TIMEFRAME}"
    else:
        kind = f"real {timeframe_of_file(Path(task['file']), None)}, in random order"
    return f"{task['strategy']}, {kind}" if len(strategies) > 1 else kind


def mean_r(rows: Sequence[Row]) -> str:
    """Return the mean R of all trades and its standard error, markets being independent."""
    sums, counts = (np.array([row[name] for row in rows], dtype=np.float64) for name in ("r_sum", "sample_size"))
    if not counts.sum():
        return "-"
    mean = sums.sum() / counts.sum()
    error = math.sqrt(float(np.sum((sums - mean * counts) ** 2))) / counts.sum()
    return f"{mean:+.3f} ± {error:.3f}"


def as_share(count: int, n: int) -> str:
    """Return a share with its exact 95 % interval."""
    from scipy.stats import binomtest

    if not n:
        return "-"
    interval = binomtest(count, n).proportion_ci(method="exact")
    return f"{count / n:.1%} ({interval.low:.1%} to {interval.high:.1%})"


def main() -> None:
    """Measure and show."""
    parser = argparse.ArgumentParser(description="False discoveries, power and calibration of the whole pipeline.")
    parser.add_argument("--only", choices=PARTS, help="one of the three parts")
    parser.add_argument("--markets", type=positive, default=500, help="markets without an edge of each strategy")
    parser.add_argument("--planted", type=positive, default=40, help="markets for each planted edge and length")
    parser.add_argument("--edges", type=float, nargs="+", choices=EDGES, default=EDGES, help="planted edges, R")
    parser.add_argument("--months", type=int, nargs="+", choices=MONTHS, default=MONTHS, help="lengths of planted ones")
    parser.add_argument("--histories", type=positive, default=1_000, help="histories for each edge and length")
    parser.add_argument("--candles", type=Path, nargs="+", default=[], help="files with real candles, taken in turn")
    parser.add_argument("--strategies", nargs="+", choices=strategy_names(), default=[STRATEGY])
    parser.add_argument("--workers", type=positive, default=os.cpu_count() or 1, help="processes")
    parser.add_argument("--results", type=Path, help="file of JSON lines that rows are added to and taken from")
    options = parser.parse_args()
    show_machine()
    for part in PARTS if options.only is None else [options.only]:
        {"discoveries": discoveries, "power": power, "calibration": calibration}[part](options)


if __name__ == "__main__":
    main()
