"""How often each strategy decides and trades: for parameter sets drawn at random, on candle files.

Run ``python benchmarks/frequencies.py FILE…``, with ``--markdown docs/frequencies.md`` for the table of the docs.
Files are named ``exchange_BASE-QUOTE_timeframe``. Figures are medians: over the parameter sets of a file, and then over
the files of a timeframe.
"""

from __future__ import annotations

import argparse
import math
import statistics
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from common import console, days_of, sample, show_table

from tradepulse_pipeline.cli.naming import series_of_file
from tradepulse_pipeline.errors import TradePulseError
from tradepulse_pipeline.indicators.frame import IndicatorFrame
from tradepulse_pipeline.market.candles import Candles
from tradepulse_pipeline.market.series import SeriesKey, Timeframe
from tradepulse_pipeline.market.sources.files import read_candle_file
from tradepulse_pipeline.strategies.base import SignalSource, Strategy
from tradepulse_pipeline.strategies.decisions import SIDES, Side
from tradepulse_pipeline.strategies.registry import get_strategy, strategy_names
from tradepulse_pipeline.strategies.space import ParameterSpace
from tradepulse_pipeline.validation.estimate import DAYS_PER_YEAR, TradeForecast, forecast_trades
from tradepulse_pipeline.validation.training import TrainingSettings

N_DRAWS = 400
LEAST_DAYS = 120

HEAD = """# How often the strategies decide

Nothing counts as proved with fewer than 100 out-of-sample trades. Whether they can be had is a matter of frequency, and
known before a search: `tradepulse estimate` counts the trades of random parameter sets, and a training whose windows
cannot hold a hundred says so in its log before it searches.

The table shows, per year and parameter set, medians over {draws} sets drawn at random from each grid, and over the
files of a timeframe: decisions on both sides, trades as `estimate` counts them (`--side long`, the default), and the
months that a walk-forward of 90/30/7 days needs until the median set, and the busiest one, has its hundred trades.
Frequencies, not edges.

"""
TAIL = """
From {files} files of real candles of {exchanges}, by

    .venv/bin/python benchmarks/frequencies.py FILE… --markdown docs/frequencies.md
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Frequency:
    """One strategy on one file."""

    decisions_per_year: float
    forecast: TradeForecast


def frequency_of(strategy: Strategy, candles: Candles, side: Side) -> Frequency:
    """Count the decisions of random parameter sets on both sides, and what ``estimate`` says for ``side``."""
    frame = IndicatorFrame.compute(candles, strategy.indicators)
    space = ParameterSpace(strategy.parameters)
    sets = SignalSource(strategy, frame, "both").decision_sets(space.columns(sample(space.size, N_DRAWS)))
    counts = [len(np.unique(sets[number].bar)) for number in range(len(sets))]
    return Frequency(
        decisions_per_year=statistics.median(counts) / days_of(candles) * DAYS_PER_YEAR,
        forecast=forecast_trades(frame, strategy, TrainingSettings(side=side)),
    )


def fitting(paths: Iterable[Path]) -> list[tuple[SeriesKey, Candles]]:
    """Read the files that say in their name what they are, and hold enough candles to train on."""
    found = []
    for path in paths:
        try:
            series = series_of_file(path, exchange=None, pair=None, timeframe=None)
            candles = read_candle_file(path, series.timeframe).candles.filled_forward()
        except TradePulseError as error:
            console.print(f"left out: {error}", style="yellow")
            continue
        if days_of(candles) < LEAST_DAYS:
            console.print(f"left out: {path.name}, {days_of(candles)} days", style="yellow")
            continue
        found.append((series, candles))
    return found


def row_of(strategy: Strategy, timeframe: Timeframe, found: Sequence[Frequency]) -> tuple[str, ...]:
    """Return the figures of a strategy in one timeframe."""
    forecasts = [one.forecast for one in found]
    return (
        strategy.name,
        str(timeframe),
        str(len(found)),
        number(statistics.median(one.decisions_per_year for one in found)),
        number(statistics.median(one.trades_per_year for one in forecasts)),
        number(statistics.median(one.busiest_trades_per_year for one in forecasts)),
        months([one.months_for_proof for one in forecasts]),
        months([one.busiest_months_for_proof for one in forecasts]),
    )


def number(value: float) -> str:
    """Write a frequency."""
    return f"{value:,.0f}" if value >= 10 else f"{value:.1f}"


def months(values: Sequence[float | None]) -> str:
    """Write the median number of months; one of a thousand years or more is none."""
    median = statistics.median(math.inf if value is None else value for value in values)
    return f"{math.ceil(median):,}" if median < 12_000 else "never"


def main() -> None:
    """Count and show."""
    parser = argparse.ArgumentParser(description="Decisions and trades a year of random parameter sets.")
    parser.add_argument("files", type=Path, nargs="+", help="candle files: exchange_BASE-QUOTE_timeframe.parquet")
    parser.add_argument("--markdown", type=Path, help="write the table into this file, too")
    parser.add_argument("--side", choices=SIDES, default="long", help="of the trades")
    options = parser.parse_args()
    series = fitting(options.files)
    by_timeframe: defaultdict[Timeframe, list[Candles]] = defaultdict(list)
    for key, candles in series:
        by_timeframe[key.timeframe].append(candles)
    rows = []
    for name in strategy_names():
        for timeframe in sorted(by_timeframe, key=lambda one: one.milliseconds):
            with console.status(f"{name} {timeframe}"):
                found = [frequency_of(get_strategy(name), part, options.side) for part in by_timeframe[timeframe]]
            rows.append(row_of(get_strategy(name), timeframe, found))
    columns = ("strategy", "timeframe", "files", "decisions", "trades", "busiest", "months", "months, busiest")
    show_table("Per year and parameter set", columns, rows)
    if options.markdown is not None:
        lines = [columns, ["---"] * len(columns), *rows]
        table = "\n".join(f"| {' | '.join(line)} |" for line in lines)
        exchanges = ", ".join(sorted({key.exchange for key, _ in series}))
        text = HEAD.format(draws=N_DRAWS) + table + "\n" + TAIL.format(files=len(series), exchanges=exchanges)
        options.markdown.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
