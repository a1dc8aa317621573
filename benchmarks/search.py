"""What a search costs: the whole grid, a re-optimised walk-forward that tries everything, and the plain kernel.

Run ``python benchmarks/search.py``, with ``--candles FILE --timeframe 5m`` for real candles.
"""

from __future__ import annotations

import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from common import (
    STRATEGY,
    WARM_UP_BARS,
    Grid,
    add_market_options,
    arguments,
    as_mebibytes,
    as_rate,
    as_seconds,
    as_workers,
    console,
    days_of,
    in_fresh_process,
    load_candles,
    measure_grid,
    median_seconds,
    peak_resident_bytes,
    positive,
    resident_bytes,
    sample,
    show_machine,
    show_table,
)

from tradepulse_pipeline.backtest.evaluators import PlainEvaluator
from tradepulse_pipeline.backtest.settings import BarRange
from tradepulse_pipeline.indicators.frame import IndicatorFrame
from tradepulse_pipeline.market.candles import Candles
from tradepulse_pipeline.market.series import SeriesKey
from tradepulse_pipeline.optimizers.settings import SearchSettings
from tradepulse_pipeline.orchestration.artifacts import ArtifactStore
from tradepulse_pipeline.orchestration.trial_files import TrialFiles
from tradepulse_pipeline.strategies.registry import get_strategy
from tradepulse_pipeline.strategies.space import ParameterSpace
from tradepulse_pipeline.validation.training import TrainingSettings
from tradepulse_pipeline.validation.walk_forward import judge_windows, search_windows
from tradepulse_pipeline.validation.windows import WindowSettings

N_WINDOWS = 9
STAGES = ("search and write", "judge")


@dataclass(frozen=True, slots=True, kw_only=True)
class WalkForwardCost:
    """What a walk-forward with all trials kept costs. Times are medians; the windows are those that were searched."""

    n_windows: int
    n_trials: int
    seconds: dict[str, float]
    total_seconds: float
    peak_bytes: int
    file_bytes: int


def nine_windows(candles: Candles) -> WindowSettings:
    """Return windows that cut the history into nine: 90 days of train and 30 of test for a year."""
    test_days = days_of(candles) // (N_WINDOWS + 3)
    return WindowSettings(train_days=3 * test_days, test_days=test_days)


def measure_walk_forward(candles: Candles, workers: int, runs: int, strategy_name: str = STRATEGY) -> WalkForwardCost:
    """Measure search, with all trials written to Parquet, and judgement; to be called in a fresh process."""
    strategy = get_strategy(strategy_name)
    search = SearchSettings(method="grid", workers=workers)
    training = TrainingSettings(search=search, windows=nine_windows(candles))
    warm_up = TrainingSettings(search=SearchSettings(budget=10, workers=workers), windows=training.windows)
    series = SeriesKey.parse(f"benchmark:BTC-USDT:{candles.timeframe}")

    def walk_forward(settings: TrainingSettings) -> tuple[list[float], int, int, int]:
        with tempfile.TemporaryDirectory() as folder:
            times = [time.perf_counter()]
            frame = IndicatorFrame.compute(candles, strategy.indicators)
            base = ArtifactStore(folder).folder(("trials",), series)
            space = ParameterSpace(strategy.parameters)
            with TrialFiles(base, {}, space, finished=None, on_warning=console.print) as files:
                found = search_windows(frame, strategy, settings, keeper=files)
                written = files.finish()
            times.append(time.perf_counter())
            judge_windows(frame, strategy, settings, found)
            times.append(time.perf_counter())
            n_bytes = sum(path.stat().st_size for path in Path(written.url).rglob("*.parquet"))
        return np.diff(times).tolist(), len(found.searches), found.total_trials, n_bytes

    walk_forward(warm_up)
    before = resident_bytes()
    _, n_windows, n_trials, file_bytes = walk_forward(training)
    peak_bytes = peak_resident_bytes() - before
    seconds = np.array([walk_forward(training)[0] for _ in range(runs)])
    return WalkForwardCost(
        n_windows=n_windows,
        n_trials=n_trials,
        seconds=dict(zip(STAGES, np.median(seconds, axis=0).tolist(), strict=True)),
        total_seconds=float(np.median(seconds.sum(axis=1))),
        peak_bytes=peak_bytes,
        file_bytes=file_bytes,
    )


def measure_plain(candles: Candles, n_combinations: int, runs: int) -> float:
    """Return combinations per second of the kernel that walks the bars of each position."""
    strategy = get_strategy(STRATEGY)
    evaluator = PlainEvaluator(IndicatorFrame.compute(candles, strategy.indicators), strategy)
    combinations = sample(evaluator.space.size, n_combinations)
    evaluator.evaluate(combinations[:1], BarRange(0, min(WARM_UP_BARS, len(candles))))
    seconds = median_seconds(lambda: evaluator.evaluate(combinations, BarRange(0, len(candles))), runs)
    return len(combinations) / seconds


def main() -> None:
    """Measure and show."""
    parser = arguments("Whole grid, exhaustive walk-forward, and the plain kernel for comparison.", runs=5)
    add_market_options(parser)
    parser.add_argument("--workers", type=positive, nargs="+", default=[1, 2], help="numbers of threads")
    parser.add_argument("--sample", type=positive, default=200, help="combinations that the plain kernel evaluates")
    options = parser.parse_args()
    show_machine()
    candles = load_candles(options)
    if days_of(candles) < 8 * (N_WINDOWS + 3):
        parser.error(f"found {days_of(candles)} days of candles, expected {8 * (N_WINDOWS + 3)} for nine windows")

    with console.status("whole grid"):
        grids = {n: in_fresh_process(measure_grid, candles, Grid(), n, options.runs) for n in options.workers}
    any_grid = next(iter(grids.values()))
    show_table(
        f"Whole grid: {any_grid.n_combinations:,} combinations of {STRATEGY}, all metrics",
        ("workers", "time", "combinations/s", "peak memory", *any_grid.stages),
        [
            (
                str(n),
                *(as_seconds(cost.seconds), as_rate(cost.rate), as_mebibytes(cost.peak_bytes)),
                *(as_seconds(seconds) for seconds in cost.stages.values()),
            )
            for n, cost in grids.items()
        ],
        caption=f"From candles in memory to a table of metrics; {any_grid.trades_per_combination:.0f} trades per "
        "combination. Memory is what is held above the candles and the loaded program. Stages are measured apart.",
    )

    with console.status("walk-forward"):
        walks = {n: in_fresh_process(measure_walk_forward, candles, n, options.runs) for n in options.workers}
    any_walk = next(iter(walks.values()))
    show_table(
        f"Exhaustive, re-optimised walk-forward: {any_walk.n_windows} train windows, {any_walk.n_trials:,} trials",
        ("workers", "time", *STAGES, "trials/s", "peak memory", "file"),
        [
            (
                str(n),
                as_seconds(cost.total_seconds),
                *(as_seconds(seconds) for seconds in cost.seconds.values()),
                as_rate(cost.n_trials / cost.total_seconds),
                *(as_mebibytes(size) for size in (cost.peak_bytes, cost.file_bytes)),
            )
            for n, cost in walks.items()
        ],
        caption="Search and write: all train windows, the latest one among them, all trials and the block sums of all "
        "parameter sets in Parquet files. Judge: the out-of-sample record.",
    )

    with console.status("plain kernel"):
        plain = in_fresh_process(measure_plain, candles, options.sample, options.runs)
    show_table(
        "Against the plain kernel, which walks the bars of each position",
        ("kernel", "combinations/s", "ratio"),
        [
            ("plain, 1 worker", as_rate(plain), "1"),
            *(
                (f"tabled, {as_workers(n)}", as_rate(cost.rate), f"{cost.rate / plain:,.0f}")
                for n, cost in grids.items()
            ),
        ],
        caption=f"Plain: {options.sample} combinations drawn at random, signals and metrics of each included; the "
        f"whole grid would take it {as_seconds(any_grid.n_combinations / plain)}.",
    )


if __name__ == "__main__":
    main()
