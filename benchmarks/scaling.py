"""How the cost of a grid grows: with candles, combinations, trades and workers. All candles are simulated.

Run ``python benchmarks/scaling.py``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np
from common import (
    STRATEGY,
    Grid,
    arguments,
    as_mebibytes,
    as_rate,
    as_seconds,
    as_workers,
    console,
    in_fresh_process,
    measure_grid,
    positive,
    show_machine,
    show_table,
    simulated_candles,
)

from tradepulse_pipeline.market.candles import Candles
from tradepulse_pipeline.market.series import Timeframe
from tradepulse_pipeline.strategies.registry import get_strategy

N_CANDLES = (10_000, 30_000, 100_000, 300_000, 1_000_000)
YEAR = 105_120
N_COMBINATIONS = (1_000, 10_000, 100_000)
FINER_GRIDS = ((8, 6), (8, 12), (16, 24))
LOOSER_BY = (1.0, 0.75, 0.5, 0.25)


def finer(n_stops: int, n_targets: int) -> Grid:
    """Return the strategy's whole grid with more stop distances and targets between the same ends."""
    wanted = {"stop_distance": n_stops, "target_multiple": n_targets}
    parameters = {name: get_strategy(STRATEGY).parameter(name) for name in wanted}
    return Grid(
        values={
            name: tuple(np.linspace(parameter.grid[0], parameter.grid[-1], wanted[name]).tolist())
            for name, parameter in parameters.items()
        }
    )


def looser(factor: float) -> Grid:
    """Return the strategy's whole grid with its two thresholds lowered, so that more bars are decisions."""
    names = ("volume_spike_threshold", "reversal_candle_size")
    parameters = (get_strategy(STRATEGY).parameter(name) for name in names)
    return Grid(values={p.name: tuple(value * factor for value in p.grid) for p in parameters})


def show_growth(
    title: str, column: str, cases: Iterable[tuple[str, Candles, Grid]], workers: Iterable[int], runs: int
) -> None:
    """Measure each case with each number of workers and print a table."""
    workers = tuple(workers)
    rows = []
    for name, candles, grid in cases:
        with console.status(f"{title}: {name}"):
            costs = {n: in_fresh_process(measure_grid, candles, grid, n, runs) for n in workers}
        first = costs[workers[0]]
        times = (cell for cost in costs.values() for cell in (as_seconds(cost.seconds), as_rate(cost.rate)))
        speed_up = first.seconds / costs[workers[-1]].seconds
        rows.append(
            (
                name,
                f"{first.trades_per_combination:,.1f}",
                *times,
                f"{speed_up:.2f}",
                _per_trade(first.seconds, first.n_combinations * first.trades_per_combination),
                as_mebibytes(first.peak_bytes),
            )
        )
    headings = (f"{as_workers(n)}\n{what}" for n in workers for what in ("time", "per second"))
    show_table(
        title,
        (column, "trades per\ncombination", *headings, "speed-up", "time per\ntrade", "peak\nmemory"),
        rows,
        caption=f"Per second: combinations. Speed-up: {as_workers(workers[-1])} over {as_workers(workers[0])}. "
        f"Time per trade and peak memory: {as_workers(workers[0])}.",
    )


def _per_trade(seconds: float, n_trades: float) -> str:
    return f"{seconds / n_trades * 1e9:.1f} ns" if n_trades else "-"


def main() -> None:
    """Measure and show."""
    parser = arguments("How the cost of a grid grows. All candles are simulated.", runs=3)
    parser.add_argument("--workers", type=positive, nargs="+", default=[1, 2], help="numbers of threads")
    parser.add_argument("--most-candles", type=positive, default=N_CANDLES[-1], help="longest series measured")
    options = parser.parse_args()
    show_machine()
    with console.status("simulating candles"):
        longest = simulated_candles(Timeframe("5m"), max(options.most_candles, YEAR))
    year = longest.slice(0, YEAR)
    console.print("[bold]SIMULATED candles[/], 5m, no real market")

    def show(title: str, column: str, cases: Mapping[str, tuple[Candles, Grid]]) -> None:
        named = ((name, candles, grid) for name, (candles, grid) in cases.items())
        show_growth(title, column, named, options.workers, options.runs)

    show(
        "With candles: whole grid",
        "candles",
        {f"{n:,}": (longest.slice(0, n), Grid()) for n in N_CANDLES if n <= options.most_candles},
    )
    grids = [*(Grid(n_combinations=n) for n in N_COMBINATIONS), Grid(), *(finer(*sizes) for sizes in FINER_GRIDS)]
    show(
        f"With combinations: {YEAR:,} candles; fewer at random from the grid, more by finer stops and targets",
        "combinations",
        {f"{len(grid.combinations()):,}": (year, grid) for grid in grids},
    )
    show(
        f"With trades: whole grid, {YEAR:,} candles, thresholds of volume and reversal lowered",
        "thresholds",
        {f"times {factor:g}": (year, looser(factor)) for factor in LOOSER_BY},
    )


if __name__ == "__main__":
    main()
