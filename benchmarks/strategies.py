"""What each strategy's search costs: its whole grid, and a re-optimised walk-forward that tries everything.

Run ``python benchmarks/strategies.py``, with ``--candles FILE --timeframe 5m`` for real candles.
"""

from __future__ import annotations

from common import (
    Grid,
    add_market_options,
    arguments,
    as_mebibytes,
    as_seconds,
    as_workers,
    console,
    in_fresh_process,
    load_candles,
    measure_grid,
    positive,
    show_machine,
    show_table,
)
from search import measure_walk_forward

from tradepulse_pipeline.strategies.registry import strategy_names


def main() -> None:
    """Measure and show."""
    parser = arguments("Whole grid and exhaustive walk-forward of every strategy.", runs=5)
    add_market_options(parser)
    parser.add_argument("--workers", type=positive, default=2, help="number of threads")
    options = parser.parse_args()
    show_machine()
    candles = load_candles(options)
    rows = []
    for name in strategy_names():
        with console.status(name):
            grid = in_fresh_process(measure_grid, candles, Grid(strategy_name=name), options.workers, options.runs)
            walk = in_fresh_process(measure_walk_forward, candles, options.workers, options.runs, name)
        rows.append(
            (
                name,
                f"{grid.n_combinations:,}",
                f"{grid.trades_per_combination:.0f}",
                as_seconds(grid.seconds),
                as_mebibytes(grid.peak_bytes),
                as_seconds(walk.total_seconds),
            )
        )
    columns = ("combinations", "trades each", "whole grid", "peak memory", "walk-forward")
    show_table(
        f"Everything tried, {as_workers(options.workers)}",
        ("strategy", *columns),
        rows,
        caption="Whole grid: from candles in memory to a table of all metrics. Walk-forward: nine windows and the "
        "latest, all trials written to Parquet, and judged.",
    )


if __name__ == "__main__":
    main()
